#!/usr/bin/env python3
"""Moves objects between files and an S3 server for tests, with boto3: a client that is not bgbackup's own.

One JSON object a line on standard input, one a line on standard output, until standard input ends:
{"endpoint", "access", "secret", "bucket", "operation", …} answers {"ok": …} or {"error": text}.

operation  more                  does
bucket     name, lock            makes a bucket, with Object Lock if it says so
list       prefix                answers [[key, size, etag]…], sorted by key
upload     folder, prefix, omit  stores every file below the folder; not those whose path starts with an item of omit
download   prefix, folder, omit  writes every object below the prefix as a file, but those
remove     prefix                removes every object below the prefix
copy       from, to              copies one object
put        key, file             stores one file
get        key, file             writes one object as a file

Exit status: 0 done, 77 boto3 cannot be installed here.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.dont_write_bytecode = True

from qdrant_fixture import environment  # noqa: E402


def main() -> int:
    environment.enter(environment.SERVERS)
    clients = {}
    with ThreadPoolExecutor(8) as pool:
        for line in sys.stdin:
            order = json.loads(line)
            try:
                answer = {"ok": perform(order, client(clients, order), pool)}
            except Exception as error:  # whatever it is, the test wants to see it
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
    return 0


def client(clients, order):
    known = (order["endpoint"], order["access"])
    if known not in clients:
        import boto3
        from botocore.config import Config
        clients[known] = boto3.client(
            "s3", endpoint_url=order["endpoint"], aws_access_key_id=order["access"],
            aws_secret_access_key=order["secret"], region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, proxies={}, max_pool_connections=8,
                          request_checksum_calculation="when_required", response_checksum_validation="when_required",
                          retries={"max_attempts": 4}))
    return clients[known]


def perform(order, s3, pool):
    bucket = order["bucket"]

    def store(key, file):
        s3.put_object(Bucket=bucket, Key=key, Body=Path(file).read_bytes())

    def fetch(key, file):
        file = Path(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    match order["operation"]:
        case "bucket":
            s3.create_bucket(Bucket=bucket, **({"ObjectLockEnabledForBucket": True} if order.get("lock") else {}))
        case "list":
            return [[item["Key"], item["Size"], item["ETag"]] for item in listed(s3, bucket, order["prefix"])]
        case "upload":
            root = Path(order["folder"])
            files = [(path.relative_to(root).as_posix(), path) for path in sorted(root.rglob("*")) if path.is_file()]
            wanted = [(name, path) for name, path in files if not name.startswith(tuple(order.get("omit", [])))]
            list(pool.map(lambda item: store(order["prefix"] + item[0], item[1]), wanted))
        case "download":
            keys = [item["Key"] for item in listed(s3, bucket, order["prefix"])]
            root = Path(order["folder"])
            names = [key[len(order["prefix"]):] for key in keys]
            wanted = [name for name in names if not name.startswith(tuple(order.get("omit", [])))]
            list(pool.map(lambda name: fetch(order["prefix"] + name, root / name), wanted))
        case "remove":
            keys = [item["Key"] for item in listed(s3, bucket, order["prefix"])]
            list(pool.map(lambda key: s3.delete_object(Bucket=bucket, Key=key), keys))
        case "copy":
            body = s3.get_object(Bucket=bucket, Key=order["from"])["Body"].read()
            s3.put_object(Bucket=bucket, Key=order["to"], Body=body)
        case "put":
            store(order["key"], order["file"])
        case "get":
            fetch(order["key"], order["file"])
        case other:
            raise ValueError(f"no operation {other}")
    return True


def listed(s3, bucket, prefix):
    found = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        found += page.get("Contents", [])
    return sorted(found, key=lambda item: item["Key"])


if __name__ == "__main__":
    sys.exit(main())
