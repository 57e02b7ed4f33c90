#!/usr/bin/env python3
"""Self-test of strict-s3 with boto3 as an independent client, and http.client where boto3 is too well-behaved.

usage: check.py BINARY
"""
import base64, concurrent.futures, datetime, hashlib, hmac, http.client, json, os, socket, subprocess, sys
import tempfile, time, traceback, urllib.parse
import xml.etree.ElementTree as ET
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from qdrant_fixture import environment  # noqa: E402

environment.enter(environment.SERVERS)  # boto3 comes from there

import boto3  # noqa: E402
from botocore.config import Config
from botocore.exceptions import ClientError

ACCESS, SECRET, REGION = "STRICTACCESS", "strict-secret-key", "us-east-1"
passed = failed = 0
PORT = 0

# bucket.localhost is loopback (RFC 6761), which not every resolver knows.
_resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *a, **k: _resolve("127.0.0.1" if str(host).endswith("localhost") else host, *a, **k)


def check(name, ok, detail=""):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print(f"FAILED {name}: {detail}", flush=True)


def equal(name, actual, wanted):
    check(name, actual == wanted, f"{actual!r}, wanted {wanted!r}")


def control(method, call, body=None, raw=False):
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    connection.request(method, "/_control/" + call, data)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    if raw:
        return answer.status, data
    assert answer.status == 200, (answer.status, data)
    return json.loads(data)


def reset(objects=True):
    control("POST", "reset" + ("?objects=1" if objects else ""))


def configure(**fields):
    return control("PUT", "config", fields)


def personality(**fields):
    reset(objects=False)
    return configure(personality=fields)


def log():
    status, data = control("GET", "log", raw=True)
    return [json.loads(line) for line in data.splitlines()]


def client(access=ACCESS, secret=SECRET, token=None, region=REGION, style="path", host="127.0.0.1", retries=0, **extra):
    extra.setdefault("read_timeout", 5)
    return boto3.client(
        "s3", endpoint_url=f"http://{host}:{PORT}", region_name=region, aws_access_key_id=access,
        aws_secret_access_key=secret, aws_session_token=token,
        config=Config(s3={"addressing_style": style}, retries={"max_attempts": retries, "mode": "standard"}, **extra))


def error(call, *args, **kwargs):
    """(status, code) of a failing call, (200, None) of one that does not fail."""
    try:
        call(*args, **kwargs)
        return 200, None
    except ClientError as e:
        return e.response["ResponseMetadata"]["HTTPStatusCode"], e.response["Error"]["Code"]
    except Exception as e:
        return 0, type(e).__name__


def refused(name, wanted, call, *args, **kwargs):
    equal(name, error(call, *args, **kwargs), wanted)


def sign(method, path, query="", headers=None, body=b"", access=ACCESS, secret=SECRET, region=REGION, service="s3",
         when=None, signed=None, payload=None, scope_date=None, canonical_path=None, canonical_query=None):
    """Headers with a signature of our own making, every part of which can be made wrong."""
    when = when or datetime.datetime.now(datetime.timezone.utc)
    stamp = when.strftime("%Y%m%dT%H%M%SZ")
    date = scope_date or stamp[:8]
    headers = {k.lower(): v for k, v in (headers or {}).items()}
    headers.setdefault("host", f"127.0.0.1:{PORT}")
    headers["x-amz-date"] = stamp
    payload = payload or hashlib.sha256(body).hexdigest()
    headers["x-amz-content-sha256"] = payload
    names = sorted(headers) if signed is None else signed
    if canonical_query is None:
        pairs = sorted(p if "=" in p else p + "=" for p in query.split("&") if p)
        canonical_query = "&".join(pairs)
    lines = "".join(f"{n}:{' '.join(headers.get(n, '').split())}\n" for n in names)
    canonical = "\n".join([method, canonical_path or path, canonical_query, lines, ";".join(names), payload])
    scope = f"{date}/{region}/{service}/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}")
    return headers


def send(method, path, query="", headers=None, body=b"", timeout=10):
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=timeout)
    target = path + ("?" + query if query else "")
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    headers = dict(headers or {})
    headers.setdefault("host", f"127.0.0.1:{PORT}")
    if body or method in ("PUT", "POST"):
        headers.setdefault("content-length", str(len(body)))
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    code = None
    if answer.status >= 300 and data:
        code = ET.fromstring(data).findtext("Code")
    return answer.status, code, data, answer


def raw(method, path, query="", headers=None, body=b"", **wrong):
    return send(method, path, query, sign(method, path, query, headers, body, **wrong), body)


def exact(name, wanted, *args, **kwargs):
    equal(name, raw(*args, **kwargs)[:2], wanted)


# ---------------------------------------------------------------- signatures

def signatures():
    reset()
    exact("sig: own signer accepted", (200, None), "PUT", "/bucket/k", body=b"hello")
    exact("sig: encoded path", (200, None), "PUT", "/bucket/a%20b/%C3%A9%2Bc", body=b"x")
    exact("sig: double-encoded path", (403, "SignatureDoesNotMatch"), "PUT", "/bucket/a%20b",
          canonical_path="/bucket/a%2520b", body=b"x")
    exact("sig: wrong secret", (403, "SignatureDoesNotMatch"), "GET", "/bucket/k", secret="wrong")
    exact("sig: unknown key", (403, "InvalidAccessKeyId"), "GET", "/bucket/k", access="NOBODY")
    exact("sig: wrong region", (400, "AuthorizationHeaderMalformed"), "GET", "/bucket/k", region="eu-west-1")
    data = raw("GET", "/bucket/k", region="eu-west-1")[2]
    equal("sig: region told", ET.fromstring(data).findtext("Region"), "us-east-1")
    exact("sig: wrong service", (400, "AuthorizationHeaderMalformed"), "GET", "/bucket/k", service="ec2")
    exact("sig: wrong scope date", (400, "AuthorizationHeaderMalformed"), "GET", "/bucket/k", scope_date="20200101")
    now = datetime.datetime.now(datetime.timezone.utc)
    exact("sig: 16 minutes late", (403, "RequestTimeTooSkewed"), "GET", "/bucket/k",
          when=now - datetime.timedelta(minutes=16))
    exact("sig: 16 minutes early", (403, "RequestTimeTooSkewed"), "GET", "/bucket/k",
          when=now + datetime.timedelta(minutes=16))
    exact("sig: 14 minutes late is fine", (200, None), "GET", "/bucket/k", when=now - datetime.timedelta(minutes=14))
    exact("sig: wrong payload hash", (400, "XAmzContentSHA256Mismatch"), "PUT", "/bucket/k2", body=b"abc",
          payload=hashlib.sha256(b"abd").hexdigest())
    exact("sig: nothing stored by it", (404, "NoSuchKey"), "GET", "/bucket/k2")
    exact("sig: UNSIGNED-PAYLOAD", (400, "InvalidArgument"), "PUT", "/bucket/k2", body=b"abc", payload="UNSIGNED-PAYLOAD")
    exact("sig: STREAMING", (400, "InvalidArgument"), "PUT", "/bucket/k2", body=b"abc",
          payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
    base = ["host", "x-amz-content-sha256", "x-amz-date"]
    exact("sig: unsigned x-amz header", (403, "AccessDenied"), "PUT", "/bucket/k2",
          headers={"x-amz-meta-a": "b"}, signed=base)
    for missing in base:
        exact(f"sig: {missing} not signed", (403, "AccessDenied"), "GET", "/bucket/k",
              signed=[n for n in base if n != missing])
    exact("sig: signed header not sent", (403, "SignatureDoesNotMatch"), "GET", "/bucket/k",
          signed=sorted(base + ["content-type"]))
    exact("sig: unsorted signed headers", (400, "AuthorizationHeaderMalformed"), "GET", "/bucket/k", signed=base[::-1])
    exact("sig: query sorted", (200, None), "GET", "/bucket", "prefix=a&list-type=2&delimiter=%2F")
    exact("sig: query signed unsorted", (403, "SignatureDoesNotMatch"), "GET", "/bucket", "prefix=a&list-type=2",
          canonical_query="prefix=a&list-type=2")
    exact("sig: subresource without =", (200, None), "GET", "/bucket", "location")
    exact("sig: subresource signed without =", (403, "SignatureDoesNotMatch"), "GET", "/bucket", "location",
          canonical_query="location")
    exact("sig: raw slash in query is re-encoded", (200, None), "GET", "/bucket", "list-type=2&prefix=a/b",
          canonical_query="list-type=2&prefix=a%2Fb")
    exact("sig: raw slash signed raw", (403, "SignatureDoesNotMatch"), "GET", "/bucket", "list-type=2&prefix=a/b",
          canonical_query="list-type=2&prefix=a/b")
    exact("sig: unknown parameter", (501, "NotImplemented"), "GET", "/bucket", "list-type=2&start_after=x")
    exact("sig: header blanks folded", (200, None), "PUT", "/bucket/k3", headers={"x-amz-meta-a": "b   c"})
    equal("sig: unsigned", send("GET", "/bucket/k")[:2], (403, "AccessDenied"))
    good = sign("GET", "/bucket/k")
    for name, change in {
        "no Signature": lambda a: a.split(", Signature")[0],
        "short signature": lambda a: a[:-1],
        "upper-case signature": lambda a: a[:-64] + a[-64:].upper() if any(c.isalpha() for c in a[-64:]) else a[:-1],
        "short scope": lambda a: a.replace("/aws4_request", ""),
        "extra field": lambda a: a + ", More=1",
        "no algorithm": lambda a: a.replace("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256"),
    }.items():
        bad = dict(good, authorization=change(good["authorization"]))
        status, code = send("GET", "/bucket/k", headers=bad)[:2]
        check(f"sig: {name}", status == 400 and code in ("AuthorizationHeaderMalformed", "InvalidRequest"), (status, code))
    flipped = good["authorization"][:-1] + ("0" if good["authorization"][-1] != "0" else "1")
    equal("sig: one digit wrong", send("GET", "/bucket/k", headers=dict(good, authorization=flipped))[:2],
          (403, "SignatureDoesNotMatch"))
    no_hash = {k: v for k, v in good.items() if k != "x-amz-content-sha256"}
    equal("sig: no content hash", send("GET", "/bucket/k", headers=no_hash)[:2], (400, "InvalidRequest"))
    personality(clockSkewSeconds=3600)
    refused("clock: shifted", (403, "RequestTimeTooSkewed"), client().get_object, Bucket="bucket", Key="k")
    date = raw("GET", "/bucket/k")[3].getheader("date")
    shift = datetime.datetime.strptime(date, "%a, %d %b %Y %H:%M:%S GMT") - now.replace(tzinfo=None)
    check("clock: Date shifted", 3590 < shift.total_seconds() < 3660, date)
    reset()
    body = b"x" * 1000
    headers = sign("PUT", "/bucket/half", body=body)
    with socket.create_connection(("127.0.0.1", PORT)) as s:
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        s.sendall(f"PUT /bucket/half HTTP/1.1\r\n{lines}content-length: 1000\r\n\r\n".encode() + body[:500])
    time.sleep(0.2)
    exact("body: cut short is not stored", (404, "NoSuchKey"), "GET", "/bucket/half")
    headers = sign("PUT", "/bucket/expect", body=body)
    with socket.create_connection(("127.0.0.1", PORT)) as s:
        s.settimeout(5)
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        s.sendall(f"PUT /bucket/expect HTTP/1.1\r\n{lines}content-length: 1000\r\nExpect: 100-continue\r\n\r\n".encode())
        first = s.recv(1000)
        check("body: 100 Continue", first == b"HTTP/1.1 100 Continue\r\n\r\n", first)
        s.sendall(body)
        check("body: then 200", s.recv(1000).startswith(b"HTTP/1.1 200"))
    connection = http.client.HTTPConnection("127.0.0.1", PORT)
    for _ in range(3):
        connection.request("GET", "/bucket/expect", headers=sign("GET", "/bucket/expect"))
        answer = connection.getresponse()
        check("keep-alive: answer", answer.status == 200 and len(answer.read()) == 1000)
    check("keep-alive: one connection", connection.sock is not None)
    connection.close()


def tokens():
    reset()
    sts = boto3.client("sts", endpoint_url=f"http://127.0.0.1:{PORT}", region_name=REGION, aws_access_key_id=ACCESS,
                       aws_secret_access_key=SECRET)
    bad = boto3.client("sts", endpoint_url=f"http://127.0.0.1:{PORT}", region_name=REGION, aws_access_key_id=ACCESS,
                       aws_secret_access_key="wrong")
    role = dict(RoleArn="arn:aws:iam::123456789012:role/writer", RoleSessionName="test")
    given = sts.assume_role(**role)["Credentials"]
    refused("sts: bad secret", (403, "SignatureDoesNotMatch"), bad.assume_role, **role)
    lifetime = (given["Expiration"] - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    check("sts: an hour by default", 3500 < lifetime <= 3600, lifetime)
    a, s, t = given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]
    refused("sts: works", (200, None), client(a, s, t).put_object, Bucket="bucket", Key="t", Body=b"x")
    refused("sts: without token", (403, "InvalidAccessKeyId"), client(a, s).get_object, Bucket="bucket", Key="t")
    refused("sts: wrong token", (400, "InvalidToken"), client(a, s, t + "x").get_object, Bucket="bucket", Key="t")
    refused("sts: token with a lasting key", (400, "InvalidToken"), client(token=t).get_object, Bucket="bucket", Key="t")
    refused("sts: wrong secret", (403, "SignatureDoesNotMatch"), client(a, "w", t).get_object, Bucket="bucket", Key="t")
    web = sts.assume_role_with_web_identity(WebIdentityToken="abcd", **role)["Credentials"]
    refused("sts: web identity", (200, None),
            client(web["AccessKeyId"], web["SecretAccessKey"], web["SessionToken"]).get_object, Bucket="bucket", Key="t")
    configure(sts={"webTokens": ["good"], "lifetimeSeconds": 1, "roles": {
        role["RoleArn"]: [{"Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}}]}})
    refused("sts: bad web token", (400, "InvalidIdentityToken"), sts.assume_role_with_web_identity,
            WebIdentityToken="abcd", **role)
    refused("sts: unknown role", (403, "AccessDenied"), sts.assume_role, RoleArn=role["RoleArn"] + "x",
            RoleSessionName="test")
    short = sts.assume_role_with_web_identity(WebIdentityToken="good", **role)["Credentials"]
    c = client(short["AccessKeyId"], short["SecretAccessKey"], short["SessionToken"])
    refused("sts: role's policy allows", (200, None), c.get_object, Bucket="bucket", Key="t")
    refused("sts: role's policy denies", (403, "AccessDenied"), c.put_object, Bucket="bucket", Key="t", Body=b"")
    time.sleep(1.2)
    refused("sts: expired", (400, "ExpiredToken"), c.get_object, Bucket="bucket", Key="t")
    configure(sts=None)
    personality(expireTokensAfterRequests=2, tokenErrorStatus=403)
    given = control("GET", "credentials")
    c = client(given["AccessKeyId"], given["SecretAccessKey"], given["Token"])
    outcomes = [error(c.get_object, Bucket="bucket", Key="t") for _ in range(3)]
    equal("sts: expires after two requests", outcomes, [(200, None), (200, None), (403, "ExpiredToken")])


# ---------------------------------------------------------------- objects

def objects():
    reset()
    for style, host in (("path", "127.0.0.1"), ("virtual", "localhost")):
        c = client(style=style, host=host)
        for key in ("plain", "a/b c/é+ü", "q?x=1&y", "tilde~'()*!", "per%25cent", "//double//", "a" * 1024, "e\u0301"):
            body = key.encode() * 3
            put = c.put_object(Bucket="bucket", Key=key, Body=body, Metadata={"one": "1", "two": "zwei"},
                               ContentType="text/plain")
            equal(f"put: etag {style} {key[:20]}", put["ETag"], '"%s"' % hashlib.md5(body).hexdigest())
            got = c.get_object(Bucket="bucket", Key=key)
            check(f"get: {style} {key[:20]}", got["Body"].read() == body and got["Metadata"] == {"one": "1", "two": "zwei"})
            head = c.head_object(Bucket="bucket", Key=key)
            check(f"head: {style} {key[:20]}", head["ContentLength"] == len(body) and head["ContentType"] == "text/plain")
        hosts = {entry["headers"]["host"].split(":")[0] for entry in log()}
        check(f"style: {style} was used", ("bucket.localhost" in hosts) == (style == "virtual"), hosts)
        reset(objects=False)
    head = c.head_object(Bucket="bucket", Key="plain")
    check("head: Last-Modified", abs((head["LastModified"] - datetime.datetime.now(datetime.timezone.utc)).total_seconds()) < 60)
    rh = head["ResponseMetadata"]["HTTPHeaders"]
    check("head: request id", len(rh["x-amz-request-id"]) == 16 and rh["accept-ranges"] == "bytes" and "date" in rh, rh)
    check("head: no class for STANDARD", "StorageClass" not in head)
    c = client()
    c.put_object(Bucket="bucket", Key="empty", Body=b"")
    equal("get: empty", c.get_object(Bucket="bucket", Key="empty")["Body"].read(), b"")
    refused("put: key too long", (400, "KeyTooLongError"), c.put_object, Bucket="bucket", Key="a" * 1025, Body=b"")
    refused("get: no bucket", (404, "NoSuchBucket"), c.get_object, Bucket="nothing", Key="a")
    refused("get: no key", (404, "NoSuchKey"), c.get_object, Bucket="bucket", Key="missing")
    refused("head: no key", (404, "404"), c.head_object, Bucket="bucket", Key="missing")
    check("key: NFC and NFD differ", error(c.get_object, Bucket="bucket", Key="\u00e9") == (404, "NoSuchKey"))
    body = bytes(range(256)) * 4
    c.put_object(Bucket="bucket", Key="r", Body=body)
    for spec, wanted in {"0-0": body[:1], "10-19": body[10:20], "1000-": body[1000:], "-5": body[-5:],
                         "1020-5000": body[1020:], "-5000": body}.items():
        got = c.get_object(Bucket="bucket", Key="r", Range="bytes=" + spec)
        data = got["Body"].read()
        first = 0 if data == body else body.index(data) if spec != "-5" else 1019
        if spec in ("1000-", "1020-5000"):
            first = int(spec.split("-")[0])
        equal(f"range: {spec}", (data, got["ResponseMetadata"]["HTTPStatusCode"], got["ContentRange"]),
              (wanted, 206, f"bytes {first}-{first + len(wanted) - 1}/1024"))
    for spec in ("1024-", "5000-6000", "-0"):
        refused(f"range: {spec}", (416, "InvalidRange"), c.get_object, Bucket="bucket", Key="r", Range="bytes=" + spec)
    equal("range: 416 says the size", raw("GET", "/bucket/r", headers={"range": "bytes=2000-"})[3].getheader("content-range"),
          "bytes */1024")
    for spec in ("bytes=5-2", "lines=1-2", "bytes=a-b", "bytes=0-1,3-4"):
        equal(f"range: {spec} ignored", len(c.get_object(Bucket="bucket", Key="r", Range=spec)["Body"].read()), 1024)
    etag = c.head_object(Bucket="bucket", Key="r")["ETag"]
    refused("get: If-Match", (200, None), c.get_object, Bucket="bucket", Key="r", IfMatch=etag)
    refused("get: If-Match wrong", (412, "PreconditionFailed"), c.get_object, Bucket="bucket", Key="r", IfMatch='"x"')
    refused("get: If-None-Match", (304, "304"), c.get_object, Bucket="bucket", Key="r", IfNoneMatch=etag)
    for key in ("r", "r", "never"):
        equal(f"delete: {key}", c.delete_object(Bucket="bucket", Key=key)["ResponseMetadata"]["HTTPStatusCode"], 204)
    refused("delete: gone", (404, "NoSuchKey"), c.get_object, Bucket="bucket", Key="r")
    big = os.urandom(1 << 20) * 40
    c.put_object(Bucket="bucket", Key="big", Body=big)
    equal("big: 40 MiB", hashlib.sha256(c.get_object(Bucket="bucket", Key="big")["Body"].read()).digest(),
          hashlib.sha256(big).digest())
    equal("big: control", control("GET", "object?bucket=bucket&key=big")["sha256"], hashlib.sha256(big).hexdigest())


def classes():
    reset()
    c = client()
    c.put_object(Bucket="bucket", Key="ia", Body=b"x", StorageClass="STANDARD_IA")
    c.put_object(Bucket="bucket", Key="cold", Body=b"x", StorageClass="GLACIER")
    c.put_object(Bucket="bucket", Key="deep", Body=b"x", StorageClass="DEEP_ARCHIVE")
    c.put_object(Bucket="bucket", Key="warm", Body=b"x")
    equal("class: head", c.head_object(Bucket="bucket", Key="cold")["StorageClass"], "GLACIER")
    equal("class: get", c.get_object(Bucket="bucket", Key="ia")["StorageClass"], "STANDARD_IA")
    equal("class: list", [o["StorageClass"] for o in c.list_objects_v2(Bucket="bucket")["Contents"]],
          ["GLACIER", "DEEP_ARCHIVE", "STANDARD_IA", "STANDARD"])
    for key in ("cold", "deep"):
        refused(f"class: get of {key}", (403, "InvalidObjectState"), c.get_object, Bucket="bucket", Key=key)
    exact("class: unknown", (400, "InvalidStorageClass"), "PUT", "/bucket/x", headers={"x-amz-storage-class": "ICE"})
    # Encryption.
    put = c.put_object(Bucket="bucket", Key="s3", Body=b"x", ServerSideEncryption="AES256")
    equal("sse: AES256", (put["ServerSideEncryption"], c.head_object(Bucket="bucket", Key="s3")["ServerSideEncryption"]),
          ("AES256", "AES256"))
    c.put_object(Bucket="bucket", Key="kms", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId="key-1")
    got = c.get_object(Bucket="bucket", Key="kms")
    equal("sse: kms", (got["ServerSideEncryption"], got["SSEKMSKeyId"]), ("aws:kms", "key-1"))
    check("sse: kms ETag is no MD5", got["ETag"] != '"%s"' % hashlib.md5(b"x").hexdigest())
    exact("sse: unknown", (400, "InvalidEncryptionAlgorithmError"), "PUT", "/bucket/x",
          headers={"x-amz-server-side-encryption": "ROT13"})
    exact("sse: key id without kms", (400, "InvalidArgument"), "PUT", "/bucket/x",
          headers={"x-amz-server-side-encryption": "AES256", "x-amz-server-side-encryption-aws-kms-key-id": "k"})
    key, other = os.urandom(32), os.urandom(32)

    def ssec(key, md5=None):
        name = "x-amz-server-side-encryption-customer-"
        return {name + "algorithm": "AES256", name + "key": base64.b64encode(key).decode(),
                name + "key-md5": base64.b64encode(md5 or hashlib.md5(key).digest()).decode()}

    status, _, _, answer = raw("PUT", "/bucket/c", headers=ssec(key), body=b"secret")
    check("sse-c: put", status == 200 and answer.getheader("x-amz-server-side-encryption-customer-key-md5"), status)
    equal("sse-c: get", raw("GET", "/bucket/c", headers=ssec(key))[2], b"secret")
    exact("sse-c: without key", (400, "InvalidRequest"), "GET", "/bucket/c")
    exact("sse-c: head without key", (400, None), "HEAD", "/bucket/c")
    exact("sse-c: head with key", (200, None), "HEAD", "/bucket/c", headers=ssec(key))
    exact("sse-c: wrong key", (403, "AccessDenied"), "GET", "/bucket/c", headers=ssec(other))
    exact("sse-c: wrong MD5", (400, "InvalidArgument"), "PUT", "/bucket/c", headers=ssec(key, b"0" * 16))
    exact("sse-c: short key", (400, "InvalidArgument"), "PUT", "/bucket/c", headers=ssec(b"short"))
    exact("sse-c: key for a plain object", (400, "InvalidRequest"), "GET", "/bucket/warm", headers=ssec(key))
    described = control("GET", "object?bucket=bucket&key=kms")
    equal("control: object", (described["size"], described["sse"]["x-amz-server-side-encryption"], described["lock"]),
          (1, "aws:kms", None))


def checksums():
    reset()
    c = client()
    good = base64.b64encode(hashlib.sha256(b"abc").digest()).decode()
    bad = base64.b64encode(hashlib.sha256(b"abd").digest()).decode()
    refused("sum: sha256", (200, None), c.put_object, Bucket="bucket", Key="s", Body=b"abc", ChecksumSHA256=good)
    refused("sum: sha256 wrong", (400, "BadDigest"), c.put_object, Bucket="bucket", Key="s2", Body=b"abc", ChecksumSHA256=bad)
    refused("sum: nothing stored", (404, "NoSuchKey"), c.get_object, Bucket="bucket", Key="s2")
    exact("sum: malformed", (400, "InvalidRequest"), "PUT", "/bucket/s", headers={"x-amz-checksum-sha256": "AAAA"}, body=b"a")
    for algorithm in ("SHA1", "CRC32", "CRC32C"):
        if algorithm == "CRC32C":
            exact("sum: CRC32C", (200, None), "PUT", "/bucket/crc", headers={"x-amz-checksum-crc32c": "4waSgw=="}, body=b"123456789")
            exact("sum: CRC32C wrong", (400, "BadDigest"), "PUT", "/bucket/crc", headers={"x-amz-checksum-crc32c": "4waShw=="}, body=b"123456789")
        else:
            refused(f"sum: {algorithm}", (200, None), c.put_object, Bucket="bucket", Key="x", Body=b"abc", ChecksumAlgorithm=algorithm)
    exact("sum: CRC32 wrong", (400, "BadDigest"), "PUT", "/bucket/crc", headers={"x-amz-checksum-crc32": "AAAAAA=="}, body=b"123")
    md5 = base64.b64encode(hashlib.md5(b"abc").digest()).decode()
    exact("sum: MD5", (200, None), "PUT", "/bucket/m", headers={"content-md5": md5}, body=b"abc")
    exact("sum: MD5 wrong", (400, "BadDigest"), "PUT", "/bucket/m", headers={"content-md5": md5}, body=b"abd")
    exact("sum: MD5 malformed", (400, "InvalidDigest"), "PUT", "/bucket/m", headers={"content-md5": "x"}, body=b"abc")
    quiet = client(response_checksum_validation="when_required")
    check("sum: not returned unasked", "ChecksumSHA256" not in quiet.head_object(Bucket="bucket", Key="s"))
    for call in (c.head_object, c.get_object):
        equal("sum: returned", call(Bucket="bucket", Key="s", ChecksumMode="ENABLED")["ChecksumSHA256"], good)
    ranged = raw("GET", "/bucket/s", headers={"range": "bytes=0-0", "x-amz-checksum-mode": "ENABLED"})[3]
    equal("sum: not with a range", ranged.getheader("x-amz-checksum-sha256"), None)
    personality(checksumOnRange=True)
    ranged = raw("GET", "/bucket/s", headers={"range": "bytes=0-0", "x-amz-checksum-mode": "ENABLED"})[3]
    equal("sum: checksumOnRange", ranged.getheader("x-amz-checksum-sha256"), good)


def listing():
    reset()
    c = client()
    keys = sorted(["a", "a/1", "a/2", "a b", "b/x/1", "b/x/2", "b/y", "c", "z<&>\"'", "é", "\U0001F600", "\uFFFD", "ctl\x01"],
                  key=lambda k: k.encode())
    for key in keys:
        c.put_object(Bucket="bucket", Key=key, Body=key.encode())

    def walk(**query):
        names, prefixes, pages = [], [], 0
        while True:
            page = c.list_objects_v2(Bucket="bucket", **query)
            got = [o["Key"] for o in page.get("Contents", [])], [p["Prefix"] for p in page.get("CommonPrefixes", [])]
            equal("list: KeyCount", page["KeyCount"], len(got[0]) + len(got[1]))
            names += got[0]
            prefixes += got[1]
            pages += 1
            if not page["IsTruncated"]:
                return names, prefixes, pages
            if pages > 100:
                raise AssertionError("the listing does not end")
            query["ContinuationToken"] = page["NextContinuationToken"]

    equal("list: byte order", walk()[0], keys)
    for size in (1, 2, 3, 5):
        names, _, pages = walk(MaxKeys=size)
        equal(f"list: pages of {size}", (names, pages), (keys, -(-len(keys) // size)))
    for size in (1, 2, 1000):
        names, prefixes, _ = walk(MaxKeys=size, Delimiter="/")
        equal(f"list: delimiter, {size}", (names, prefixes), ([k for k in keys if "/" not in k], ["a/", "b/"]))
    equal("list: prefix and delimiter", walk(Prefix="b/", Delimiter="/")[:2], (["b/y"], ["b/x/"]))
    equal("list: prefix", walk(Prefix="a/")[0], ["a/1", "a/2"])
    equal("list: start-after", walk(StartAfter="b/x/1")[0], [k for k in keys if k.encode() > b"b/x/1"])
    equal("list: start-after with prefix", walk(StartAfter="a/1", Prefix="a/")[0], ["a/2"])
    equal("list: max-keys 0", walk(MaxKeys=0)[0], [])
    page = c.list_objects_v2(Bucket="bucket", Prefix="a/1")["Contents"][0]
    equal("list: fields", (page["Size"], page["ETag"], page["StorageClass"]), (3, '"%s"' % hashlib.md5(b"a/1").hexdigest(), "STANDARD"))
    refused("list: bad token", (400, "InvalidArgument"), c.list_objects_v2, Bucket="bucket", ContinuationToken="x")
    refused("list: no bucket", (404, "NoSuchBucket"), c.list_objects_v2, Bucket="nothing")
    text = raw("GET", "/bucket", "encoding-type=url&list-type=2")[2].decode()
    check("list: url encoding", "<Key>a+b</Key>" in text and "<Key>%C3%A9</Key>" in text, text)
    text = raw("GET", "/bucket", "list-type=2&prefix=z")[2].decode()
    check("list: escaped", "<Key>z&lt;&amp;&gt;" in text, text)
    personality(listDuplicates=True)
    names = walk(MaxKeys=3)[0]
    check("list: listDuplicates", len(names) > len(keys) and sorted(set(names), key=lambda k: k.encode()) == keys, names)
    personality(listUnsorted=True)
    names = walk()[0]
    check("list: listUnsorted", names != keys and sorted(names, key=lambda k: k.encode()) == keys, names)
    personality(truncateListing=True)
    page = c.list_objects_v2(Bucket="bucket", MaxKeys=3)
    equal("list: truncateListing", (page["IsTruncated"], len(page["Contents"])), (False, 3))
    personality(listLoops=True)
    first = c.list_objects_v2(Bucket="bucket", MaxKeys=3)["NextContinuationToken"]
    tokens = {first}
    for _ in range(3):
        page = c.list_objects_v2(Bucket="bucket", MaxKeys=3, ContinuationToken=first)
        tokens.add(page["NextContinuationToken"])
        check("list: listLoops truncated", page["IsTruncated"])
    equal("list: listLoops", tokens, {first})
    personality(maxKeysCap=2)
    equal("list: maxKeysCap", (walk()[0], walk()[2]), (keys, -(-len(keys) // 2)))
    personality(prettyXML=True)
    equal("list: prettyXML", walk()[0], keys)
    check("list: prettyXML has lines", raw("GET", "/bucket", "list-type=2")[2].count(b"\n") > 50)
    personality(listDelaySeconds=1.5)
    c.put_object(Bucket="bucket", Key="new", Body=b"")
    check("list: listDelaySeconds hides", "new" not in walk()[0])
    refused("list: hidden key is readable", (200, None), c.get_object, Bucket="bucket", Key="new")
    time.sleep(1.6)
    check("list: then shows", "new" in walk()[0])


def deletions():
    reset()
    c = client()
    for i in range(5):
        c.put_object(Bucket="bucket", Key=f"d{i}", Body=b"x")
    out = c.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "d0"}, {"Key": "d1"}, {"Key": "none"}]})
    equal("batch: deleted", [d["Key"] for d in out["Deleted"]], ["d0", "d1", "none"])
    out = c.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "d2"}], "Quiet": True})
    check("batch: quiet", "Deleted" not in out and error(c.get_object, Bucket="bucket", Key="d2")[0] == 404)
    xml = b"<Delete><Object><Key>d3</Key></Object></Delete>"
    exact("batch: needs a digest", (400, "InvalidRequest"), "POST", "/bucket", "delete", body=xml)
    md5 = base64.b64encode(hashlib.md5(xml).digest()).decode()
    exact("batch: Content-MD5", (200, None), "POST", "/bucket", "delete", headers={"content-md5": md5}, body=xml)
    exact("batch: wrong digest", (400, "BadDigest"), "POST", "/bucket", "delete", headers={"content-md5": md5}, body=xml + b" ")
    bad = b"<Delete><Object>"
    md5 = base64.b64encode(hashlib.md5(bad).digest()).decode()
    exact("batch: bad XML", (400, "MalformedXML"), "POST", "/bucket", "delete", headers={"content-md5": md5}, body=bad)
    many = {"Objects": [{"Key": f"k{i}"} for i in range(1001)]}
    refused("batch: 1001 keys", (400, "MalformedXML"), c.delete_objects, Bucket="bucket", Delete=many)
    configure(rates={"slowDownIn200": 1}, seed=4)
    out = c.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": f"k{i}"} for i in range(20)]})
    check("batch: per-key SlowDown", {e["Code"] for e in out["Errors"]} == {"SlowDown"} and out["Deleted"]
          and len(out["Errors"]) + len(out["Deleted"]) == 20, out)
    reset()
    out = c.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "d4", "ETag": '"no"'}]})
    equal("batch: conditional on an absent key", out["Errors"][0]["Code"], "NoSuchKey")


def buckets():
    reset()
    c = client()
    equal("bucket: head", c.head_bucket(Bucket="bucket")["BucketRegion"], "us-east-1")
    refused("bucket: head missing", (404, "404"), c.head_bucket, Bucket="absent")
    name = "made-%d" % time.time_ns()
    refused("bucket: create", (200, None), c.create_bucket, Bucket=name)
    refused("bucket: again", (409, "BucketAlreadyOwnedByYou"), c.create_bucket, Bucket=name)
    refused("bucket: bad name", (400, "InvalidBucketName"), lambda: raise_raw("PUT", "/UPPER"))
    c.create_bucket(Bucket=name + "eu", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    eu = client(region="eu-west-1")
    equal("bucket: location", eu.get_bucket_location(Bucket=name + "eu")["LocationConstraint"], "eu-west-1")
    equal("bucket: location of us-east-1", c.get_bucket_location(Bucket="bucket")["LocationConstraint"], None)
    check("bucket: wrong region", raw("GET", f"/{name}eu", "location")[:2] == (400, "AuthorizationHeaderMalformed"))
    header = raw("HEAD", f"/{name}eu")[3].getheader("x-amz-bucket-region")
    equal("bucket: region in a HEAD's error", header, "eu-west-1")
    equal("bucket: versioning off", c.get_bucket_versioning(Bucket=name).get("Status"), None)
    c.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    equal("bucket: versioning on", c.get_bucket_versioning(Bucket=name)["Status"], "Enabled")
    v1 = c.put_object(Bucket=name, Key="k", Body=b"1")["VersionId"]
    v2 = c.put_object(Bucket=name, Key="k", Body=b"2")["VersionId"]
    check("version: ids differ", v1 != v2)
    equal("version: old one", c.get_object(Bucket=name, Key="k", VersionId=v1)["Body"].read(), b"1")
    equal("version: current", c.get_object(Bucket=name, Key="k")["VersionId"], v2)
    marker = c.delete_object(Bucket=name, Key="k")
    check("version: marker", marker["DeleteMarker"] and marker["VersionId"] not in (v1, v2), marker)
    refused("version: marked", (404, "NoSuchKey"), c.get_object, Bucket=name, Key="k")
    refused("version: get of the marker", (405, "MethodNotAllowed"), c.get_object, Bucket=name, Key="k", VersionId=marker["VersionId"])
    refused("version: unknown", (404, "NoSuchVersion"), c.get_object, Bucket=name, Key="k", VersionId="x")
    check("version: not listed", c.list_objects_v2(Bucket=name)["KeyCount"] == 0)
    listed = c.list_object_versions(Bucket=name)
    equal("version: listed", ([v["VersionId"] for v in listed["Versions"]], listed["DeleteMarkers"][0]["IsLatest"]), ([v2, v1], True))
    seen, extra = [], {}
    while True:
        page = c.list_object_versions(Bucket=name, MaxKeys=1, **extra)
        seen += [v["VersionId"] for v in page.get("Versions", []) + page.get("DeleteMarkers", [])]
        if not page["IsTruncated"]:
            break
        extra = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
    equal("version: pages", seen, [marker["VersionId"], v2, v1])
    c.delete_object(Bucket=name, Key="k", VersionId=marker["VersionId"])
    equal("version: undeleted", c.get_object(Bucket=name, Key="k")["Body"].read(), b"2")
    c.delete_object(Bucket=name, Key="k", VersionId=v2)
    equal("version: older one current", c.get_object(Bucket=name, Key="k")["Body"].read(), b"1")
    c.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Suspended"})
    for _ in range(2):
        equal("version: suspended", c.put_object(Bucket=name, Key="k", Body=b"3")["VersionId"], "null")
    equal("version: one null version", len(c.list_object_versions(Bucket=name)["Versions"]), 2)
    refused("bucket: not empty", (409, "BucketNotEmpty"), c.delete_bucket, Bucket=name)
    check("bucket: list", name in [b["Name"] for b in c.list_buckets()["Buckets"]])
    refused("bucket: lock configuration absent", (404, "ObjectLockConfigurationNotFoundError"),
            c.get_object_lock_configuration, Bucket="bucket")


def raise_raw(method, path):
    status, code = raw(method, path)[:2]
    if code:
        raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, method)


def multipart():
    reset()
    c = client()
    part = os.urandom(5 << 20)

    def start(key="m", **extra):
        return dict(Bucket="bucket", Key=key, UploadId=c.create_multipart_upload(Bucket="bucket", Key=key, **extra)["UploadId"])

    def upload(up, parts):
        return [{"PartNumber": n, "ETag": c.upload_part(**up, PartNumber=n, Body=b)["ETag"]} for n, b in parts]

    up = start(Metadata={"a": "b"}, StorageClass="STANDARD_IA")
    parts = upload(up, [(1, part), (2, part), (7, b"tail")])
    equal("multi: list", [u["Key"] for u in c.list_multipart_uploads(Bucket="bucket")["Uploads"]], ["m"])
    equal("multi: parts", [p["PartNumber"] for p in c.list_parts(**up)["Parts"]], [1, 2, 7])
    refused("multi: not there yet", (404, "NoSuchKey"), c.get_object, Bucket="bucket", Key="m")
    done = c.complete_multipart_upload(**up, MultipartUpload={"Parts": parts})
    want = hashlib.md5(b"".join(hashlib.md5(b).digest() for b in (part, part, b"tail"))).hexdigest() + "-3"
    equal("multi: etag", done["ETag"], f'"{want}"')
    got = c.get_object(Bucket="bucket", Key="m")
    check("multi: content", got["Body"].read() == part * 2 + b"tail")
    equal("multi: attributes", (got["Metadata"], got["StorageClass"]), ({"a": "b"}, "STANDARD_IA"))
    refused("multi: completed twice", (404, "NoSuchUpload"), c.complete_multipart_upload, **up, MultipartUpload={"Parts": parts})
    check("multi: none open", "Uploads" not in c.list_multipart_uploads(Bucket="bucket"))
    up = start()
    parts = upload(up, [(1, b"small"), (2, b"x")])
    refused("multi: too small", (400, "EntityTooSmall"), c.complete_multipart_upload, **up, MultipartUpload={"Parts": parts})
    refused("multi: order", (400, "InvalidPartOrder"), c.complete_multipart_upload, **up, MultipartUpload={"Parts": parts[::-1]})
    refused("multi: wrong etag", (400, "InvalidPart"), c.complete_multipart_upload, **up,
            MultipartUpload={"Parts": [dict(parts[0], ETag='"0"')]})
    refused("multi: wrong number", (400, "InvalidArgument"), c.upload_part, **up, PartNumber=10001, Body=b"")
    configure(minimumPartSize=1)
    refused("multi: If-None-Match", (412, "PreconditionFailed"), c.complete_multipart_upload, **up,
            MultipartUpload={"Parts": parts}, IfNoneMatch="*")
    refused("multi: If-Match wrong", (412, "PreconditionFailed"), c.complete_multipart_upload, **up,
            MultipartUpload={"Parts": parts}, IfMatch='"x"')
    refused("multi: If-Match right, small allowed", (200, None), c.complete_multipart_upload, **up,
            MultipartUpload={"Parts": parts}, IfMatch=f'"{want}"')
    up = start("n")
    parts = upload(up, [(1, b"x")])
    configure(rates={"slowDownIn200": 1})
    code = error(c.complete_multipart_upload, **up, MultipartUpload={"Parts": parts})[1]
    answer = raw("POST", "/bucket/n", "uploadId=" + up["UploadId"], body=b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
                 b"<ETag>" + parts[0]["ETag"].encode() + b"</ETag></Part></CompleteMultipartUpload>")
    check("multi: SlowDown in 200", code == "SlowDown" and answer[0] == 200 and b"<Code>SlowDown</Code>" in answer[2], (code, answer[:3]))
    reset(objects=False)
    refused("multi: nothing was completed", (404, "NoSuchKey"), c.get_object, Bucket="bucket", Key="n")
    c.abort_multipart_upload(**up)
    refused("multi: aborted", (404, "NoSuchUpload"), c.upload_part, **up, PartNumber=1, Body=b"x")
    up = start("o")
    parts = upload(up, [(1, b"x")])
    refused("multi: create on absent", (200, None), c.complete_multipart_upload, **up, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
    configure(minimumPartSize=None)
    import boto3.s3.transfer as transfer
    with tempfile.NamedTemporaryFile() as f:
        f.write(part * 3)
        f.flush()
        c.upload_file(f.name, "bucket", "file", Config=transfer.TransferConfig(multipart_threshold=1 << 20, multipart_chunksize=5 << 20))
    check("multi: upload_file", c.get_object(Bucket="bucket", Key="file")["Body"].read() == part * 3)


def conditions():
    reset()
    c = client()
    put = lambda key, body=b"x", **k: c.put_object(Bucket="bucket", Key=key, Body=body, **k)
    etag = put("k", b"1")["ETag"]
    body = lambda: c.get_object(Bucket="bucket", Key="k")["Body"].read()
    refused("cond: If-None-Match", (412, "PreconditionFailed"), put, "k", b"2", IfNoneMatch="*")
    equal("cond: unchanged", body(), b"1")
    refused("cond: on a new key", (200, None), put, "new", IfNoneMatch="*")
    refused("cond: If-Match", (200, None), put, "k", b"3", IfMatch=etag)
    refused("cond: If-Match stale", (412, "PreconditionFailed"), put, "k", b"4", IfMatch=etag)
    equal("cond: third stays", body(), b"3")
    refused("cond: If-Match absent", (404, "NoSuchKey"), put, "absent", IfMatch=etag)
    exact("cond: If-None-Match with an ETag", (501, "NotImplemented"), "PUT", "/bucket/k", headers={"if-none-match": '"x"'})
    refused("cond: delete stale", (412, "PreconditionFailed"), c.delete_object, Bucket="bucket", Key="k", IfMatch='"x"')
    refused("cond: delete absent", (404, "NoSuchKey"), c.delete_object, Bucket="bucket", Key="absent", IfMatch='"x"')
    etag = c.head_object(Bucket="bucket", Key="k")["ETag"]
    refused("cond: delete", (200, None), c.delete_object, Bucket="bucket", Key="k", IfMatch=etag)
    refused("cond: deleted", (404, "NoSuchKey"), c.get_object, Bucket="bucket", Key="k")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for i in range(10):
            outcomes = list(pool.map(lambda n: error(put, f"race{i}", str(n).encode(), IfNoneMatch="*"), range(16)))
            equal("cond: one winner", (outcomes.count((200, None)), outcomes.count((412, "PreconditionFailed"))), (1, 15))
    put("k", b"1")
    personality(ignoreConditions=True)
    refused("cond: ignoreConditions", (200, None), put, "k", b"5", IfNoneMatch="*")
    equal("cond: overwritten", body(), b"5")
    personality(claimConditions=True)
    refused("cond: claimConditions", (412, "PreconditionFailed"), put, "k", b"6", IfNoneMatch="*")
    equal("cond: overwritten all the same", body(), b"6")
    personality(ignoreIfMatch=True)
    refused("cond: ignoreIfMatch", (200, None), put, "k", b"7", IfMatch='"x"')
    refused("cond: If-None-Match still works", (412, "PreconditionFailed"), put, "k", b"8", IfNoneMatch="*")
    personality(conditionsNotImplemented=True)
    refused("cond: conditionsNotImplemented", (501, "NotImplemented"), put, "new2", IfNoneMatch="*")
    reset()
    configure(rates={"conflict409": 1})
    refused("cond: conflict409", (409, "ConditionalRequestConflict"), put, "w", IfNoneMatch="*")
    refused("cond: conflict409 spares others", (200, None), put, "v")
    refused("cond: conflict stored nothing", (404, "NoSuchKey"), c.get_object, Bucket="bucket", Key="w")


def locks():
    reset()
    c = client()
    name = "locked-%d" % time.time_ns()
    c.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    equal("lock: versioned", c.get_bucket_versioning(Bucket=name)["Status"], "Enabled")
    equal("lock: configuration", c.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]["ObjectLockEnabled"], "Enabled")
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    day, week = now + datetime.timedelta(days=1), now + datetime.timedelta(days=7)
    lock = lambda mode, until: dict(ObjectLockMode=mode, ObjectLockRetainUntilDate=until)
    refused("lock: no lock on the bucket", (400, "InvalidRequest"), c.put_object, Bucket="bucket", Key="k", Body=b"x", **lock("COMPLIANCE", day))
    v = c.put_object(Bucket=name, Key="c", Body=b"x", **lock("COMPLIANCE", day))["VersionId"]
    head = c.head_object(Bucket=name, Key="c")
    equal("lock: head", (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"], head["VersionId"]), ("COMPLIANCE", day, v))
    stamp = day.strftime("%Y-%m-%dT%H:%M:%SZ")
    headers = {"x-amz-object-lock-mode": "COMPLIANCE", "x-amz-object-lock-retain-until-date": stamp}
    exact("lock: needs a digest", (400, "InvalidRequest"), "PUT", f"/{name}/k", headers=headers, body=b"x")
    with_digest = dict(headers, **{"x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(b"x").digest()).decode()})
    exact("lock: with a digest", (200, None), "PUT", f"/{name}/k", headers=with_digest, body=b"x")
    one = {k: v for k, v in with_digest.items() if k != "x-amz-object-lock-mode"}
    exact("lock: date without mode", (400, "InvalidArgument"), "PUT", f"/{name}/k", headers=one, body=b"x")
    past = dict(with_digest, **{"x-amz-object-lock-retain-until-date": "2020-01-01T00:00:00Z"})
    exact("lock: in the past", (400, "InvalidArgument"), "PUT", f"/{name}/k", headers=past, body=b"x")
    refused("lock: delete version", (403, "AccessDenied"), c.delete_object, Bucket=name, Key="c", VersionId=v)
    refused("lock: bypass does not help", (403, "AccessDenied"), c.delete_object, Bucket=name, Key="c", VersionId=v, BypassGovernanceRetention=True)
    out = c.delete_objects(Bucket=name, Delete={"Objects": [{"Key": "c", "VersionId": v}]})
    equal("lock: batch delete", out["Errors"][0]["Code"], "AccessDenied")
    marker = c.delete_object(Bucket=name, Key="c")
    check("lock: delete marker", marker["DeleteMarker"])
    equal("lock: still there", c.get_object(Bucket=name, Key="c", VersionId=v)["Body"].read(), b"x")
    c.delete_object(Bucket=name, Key="c", VersionId=marker["VersionId"])
    retain = lambda key, mode, until, **k: c.put_object_retention(Bucket=name, Key=key, Retention={"Mode": mode, "RetainUntilDate": until}, **k)
    refused("lock: extend", (200, None), retain, "c", "COMPLIANCE", week)
    equal("lock: extended", c.get_object_retention(Bucket=name, Key="c")["Retention"], {"Mode": "COMPLIANCE", "RetainUntilDate": week})
    refused("lock: shorten COMPLIANCE", (403, "AccessDenied"), retain, "c", "COMPLIANCE", day)
    refused("lock: shorten COMPLIANCE with bypass", (403, "AccessDenied"), retain, "c", "COMPLIANCE", day, BypassGovernanceRetention=True)
    refused("lock: weaken COMPLIANCE", (403, "AccessDenied"), retain, "c", "GOVERNANCE", week, BypassGovernanceRetention=True)
    equal("lock: not shortened", c.get_object_retention(Bucket=name, Key="c")["Retention"]["RetainUntilDate"], week)
    xml = f"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{week.strftime('%Y-%m-%dT%H:%M:%SZ')}</RetainUntilDate></Retention>".encode()
    exact("lock: retention needs a digest", (400, "InvalidRequest"), "PUT", f"/{name}/c", "retention", body=xml)
    v = c.put_object(Bucket=name, Key="g", Body=b"x", **lock("GOVERNANCE", week))["VersionId"]
    refused("lock: shorten GOVERNANCE", (403, "AccessDenied"), retain, "g", "GOVERNANCE", day)
    refused("lock: shorten GOVERNANCE with bypass", (200, None), retain, "g", "GOVERNANCE", day, BypassGovernanceRetention=True)
    refused("lock: delete GOVERNANCE", (403, "AccessDenied"), c.delete_object, Bucket=name, Key="g", VersionId=v)
    refused("lock: delete GOVERNANCE with bypass", (200, None), c.delete_object, Bucket=name, Key="g", VersionId=v, BypassGovernanceRetention=True)
    c.put_object(Bucket=name, Key="free", Body=b"x")
    refused("lock: none to get", (404, "NoSuchObjectLockConfiguration"), c.get_object_retention, Bucket=name, Key="free")
    refused("lock: suspend versioning", (409, "InvalidBucketState"), c.put_bucket_versioning, Bucket=name, VersioningConfiguration={"Status": "Suspended"})
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2)
    v = c.put_object(Bucket=name, Key="brief", Body=b"x", **lock("COMPLIANCE", soon))["VersionId"]
    personality(clockSkewSeconds=600)
    refused("lock: ended by the server's clock", (200, None), c.delete_object, Bucket=name, Key="brief", VersionId=v)
    up = c.create_multipart_upload(Bucket=name, Key="mp", **lock("COMPLIANCE", day))["UploadId"]
    etag = c.upload_part(Bucket=name, Key="mp", UploadId=up, PartNumber=1, Body=b"x")["ETag"]
    c.complete_multipart_upload(Bucket=name, Key="mp", UploadId=up, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    equal("lock: multipart", c.head_object(Bucket=name, Key="mp")["ObjectLockMode"], "COMPLIANCE")
    personality(lockIgnored=True)
    v = c.put_object(Bucket=name, Key="i", Body=b"x", **lock("COMPLIANCE", day))["VersionId"]
    check("lock: lockIgnored", "ObjectLockMode" not in c.head_object(Bucket=name, Key="i"))
    refused("lock: ignored, so deleted", (200, None), c.delete_object, Bucket=name, Key="i", VersionId=v)
    described = control("GET", f"object?bucket={name}&key=c")
    equal("lock: control", described["lock"]["mode"], "COMPLIANCE")


def policies():
    reset()
    admin = client()
    name = "iam-%d" % time.time_ns()
    admin.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    arn = f"arn:aws:s3:::{name}"
    allow = lambda action, resource, **k: dict({"Effect": "Allow", "Action": action, "Resource": resource}, **k)
    deny = lambda action, resource, **k: dict({"Effect": "Deny", "Action": action, "Resource": resource}, **k)
    writer = {"Version": "2012-10-17", "Statement": [
        allow(["s3:PutObject", "s3:GetObject"], f"{arn}/*"), allow("s3:ListBucket", arn),
        allow("s3:DeleteObject", f"{arn}/tmp/*"),
        dict(deny("s3:PutObject", f"{arn}/v1/*", Condition={"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}), Sid="WriterCreatesOnly"),
        deny(["s3:DeleteObjectVersion", "s3:PutObjectRetention", "s3:BypassGovernanceRetention", "s3:PutLifecycleConfiguration",
              "s3:PutBucketPolicy", "s3:PutBucketVersioning", "s3:DeleteBucket"], [arn, f"{arn}/*"])]}
    docs = {
        "WRITER": writer,
        "READER": {"Statement": [allow("s3:Get*", f"{arn}/*")]},
        "LISTER": {"Statement": [allow("s3:ListBucket", arn, Condition={"StringLike": {"s3:prefix": ["v1/*", "x"]}}), allow("s3:GetObject", f"{arn}/*")]},
        "NOTTER": {"Statement": [{"Effect": "Allow", "NotAction": "s3:Delete*", "NotResource": f"{arn}/secret/*"}]},
        "LOCKER": {"Statement": [allow(["s3:PutObject", "s3:PutObjectRetention", "s3:GetObject"], f"{arn}/*"), deny("s3:PutObjectRetention", "*", Condition={
            "NumericGreaterThan": {"s3:object-lock-remaining-retention-days": "3"}}), deny("s3:PutObjectRetention", "*", Condition={"StringNotEquals": {"s3:object-lock-mode": "COMPLIANCE"}})]},
        "CLASSY": {"Statement": [allow("s3:PutObject", f"{arn}/*", Condition={"StringEquals": {"s3:x-amz-storage-class": ["STANDARD_IA", "GLACIER"]}}),
                                 deny("s3:PutObject", f"{arn}/*", Condition={"StringNotLike": {"s3:x-amz-storage-class": "STANDARD*"}})]},
        "NOBODY": {"Statement": []},
    }
    keys = [{"access": ACCESS, "secret": SECRET}] + [{"access": k, "secret": k.lower(), "policies": [v]} for k, v in docs.items()]
    configure(keys=keys)
    who = {k: client(k, k.lower()) for k in docs}
    w = who["WRITER"]
    put = lambda who, key, **k: who.put_object(Bucket=name, Key=key, Body=b"x", **k)
    denied = (403, "AccessDenied")
    refused("iam: create", (200, None), put, w, "v1/a", IfNoneMatch="*")
    refused("iam: unconditional put", denied, put, w, "v1/b")
    refused("iam: existing", (412, "PreconditionFailed"), put, w, "v1/a", IfNoneMatch="*")
    refused("iam: tmp freely", (200, None), put, w, "tmp/a")
    up = w.create_multipart_upload(Bucket=name, Key="v1/m")["UploadId"]
    etag = w.upload_part(Bucket=name, Key="v1/m", UploadId=up, PartNumber=1, Body=b"x")["ETag"]
    done = dict(Bucket=name, Key="v1/m", UploadId=up, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    refused("iam: complete without condition", denied, w.complete_multipart_upload, **done)
    refused("iam: complete with condition", (200, None), w.complete_multipart_upload, **done, IfNoneMatch="*")
    refused("iam: abort not allowed", denied, w.abort_multipart_upload, Bucket=name, Key="v1/m", UploadId="x")
    refused("iam: delete v1", denied, w.delete_object, Bucket=name, Key="v1/a")
    refused("iam: delete tmp", (200, None), w.delete_object, Bucket=name, Key="tmp/a")
    version = admin.head_object(Bucket=name, Key="v1/a")["VersionId"]
    refused("iam: delete version", denied, w.delete_object, Bucket=name, Key="v1/a", VersionId=version)
    out = w.delete_objects(Bucket=name, Delete={"Objects": [{"Key": "v1/a"}, {"Key": "tmp/z"}]})
    equal("iam: batch", ([e["Key"] for e in out["Errors"]], [d["Key"] for d in out["Deleted"]]), (["v1/a"], ["tmp/z"]))
    refused("iam: versioning", denied, w.put_bucket_versioning, Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    refused("iam: policy", denied, w.put_bucket_policy, Bucket=name, Policy="{}")
    refused("iam: delete bucket", denied, w.delete_bucket, Bucket=name)
    refused("iam: lifecycle", denied, w.put_bucket_lifecycle_configuration, Bucket=name, LifecycleConfiguration={"Rules": []})
    refused("iam: list", (200, None), w.list_objects_v2, Bucket=name)
    refused("iam: missing with ListBucket", (404, "404"), w.head_object, Bucket=name, Key="none")
    r = who["READER"]
    refused("iam: reader reads", (200, None), r.get_object, Bucket=name, Key="v1/a")
    refused("iam: reader's missing key", (403, "403"), r.head_object, Bucket=name, Key="none")
    refused("iam: reader writes", denied, put, r, "v1/c")
    refused("iam: reader lists", denied, r.list_objects_v2, Bucket=name)
    refused("iam: reader elsewhere", denied, r.get_object, Bucket="bucket", Key="x")
    l = who["LISTER"]
    refused("iam: prefix allowed", (200, None), l.list_objects_v2, Bucket=name, Prefix="v1/a")
    refused("iam: prefix refused", denied, l.list_objects_v2, Bucket=name, Prefix="v2/")
    refused("iam: no prefix", denied, l.list_objects_v2, Bucket=name)
    refused("iam: head bucket has no prefix", (403, "403"), l.head_bucket, Bucket=name)
    refused("iam: missing key under a prefix condition", (403, "403"), l.head_object, Bucket=name, Key="v1/none")
    n = who["NOTTER"]
    refused("iam: NotAction", denied, n.delete_object, Bucket=name, Key="tmp/z")
    refused("iam: NotResource", denied, put, n, "secret/a")
    refused("iam: the rest", (200, None), put, n, "open/a")
    now = datetime.datetime.now(datetime.timezone.utc)
    k = who["LOCKER"]
    lock = lambda days, mode="COMPLIANCE": dict(ObjectLockMode=mode, ObjectLockRetainUntilDate=now + datetime.timedelta(days=days))
    refused("iam: lock", (200, None), put, k, "l", **lock(2))
    refused("iam: lock too long", denied, put, k, "l", **lock(10))
    refused("iam: lock mode", denied, put, k, "l", **lock(2, "GOVERNANCE"))
    refused("iam: retention too long", denied, k.put_object_retention, Bucket=name, Key="l",
            Retention={"Mode": "COMPLIANCE", "RetainUntilDate": now + datetime.timedelta(days=20)})
    refused("iam: lock needs PutObjectRetention", denied, put, w, "tmp/l", **lock(2))
    refused("iam: class missing", denied, put, who["CLASSY"], "x")
    refused("iam: class right", (200, None), put, who["CLASSY"], "x", StorageClass="STANDARD_IA")
    refused("iam: class denied", denied, put, who["CLASSY"], "x", StorageClass="GLACIER")
    refused("iam: nobody", denied, who["NOBODY"].get_bucket_location, Bucket=name)
    try:
        put(w, "v1/b")
    except ClientError as e:
        check("iam: error names the action", "s3:PutObject" in str(e) and "explicit deny" in str(e), str(e))
    status, data = control("PUT", "config", {"keys": [{"access": "A", "secret": "b", "policies": [{"Statement": [
        dict(allow("s3:*", "*"), Condition={"StringEqualz": {"a": "b"}})]}]}]}, raw=True)
    check("iam: unknown operator refused", status == 400 and b"StringEqualz" in data, data)
    configure(keys=[{"access": ACCESS, "secret": SECRET}])


# ---------------------------------------------------------------- faults

def faults():
    reset()
    c = client()
    put = lambda key="f", **k: error(c.put_object, Bucket="bucket", Key=key, Body=b"0123456789" * 100, **k)
    exists = lambda key: control("GET", f"object?bucket=bucket&key={key}", raw=True)[0] == 200
    configure(rates={"error503": 1})
    equal("fault: 503", put("f503"), (503, "SlowDown"))
    configure(rates={"error503": 0, "error500": 1})
    equal("fault: 500", put("f500"), (500, "InternalError"))
    check("fault: nothing stored", not exists("f503") and not exists("f500"))
    configure(rates={"error500": None, "resetBefore": 1})
    equal("fault: resetBefore", (put("rb")[0], exists("rb")), (0, False))
    configure(rates={"resetBefore": None, "resetAfter": 1})
    equal("fault: resetAfter", (put("ra")[0], exists("ra")), (0, True))
    configure(rates={"resetAfter": None, "shortBody": 1})
    try:
        data = c.get_object(Bucket="bucket", Key="ra")["Body"].read()
        check("fault: shortBody", False, len(data))
    except Exception as e:
        check("fault: shortBody", type(e).__name__ in ("IncompleteReadError", "ResponseStreamingError", "ProtocolError"), repr(e))
    configure(rates={"shortBody": None, "stallBody": 1}, hangSeconds=1)
    began = time.time()
    try:
        check("fault: stallBody", False, len(raw("GET", "/bucket/ra")[2]))
    except http.client.IncompleteRead:
        check("fault: stallBody", 0.9 < time.time() - began < 3, time.time() - began)
    configure(rates={"stallBody": None, "shortBody": 1})
    equal("fault: shortBody spares PUT", put("sb"), (200, None))
    configure(rates={"shortBody": None, "hang": 1}, hangSeconds=1)
    began = time.time()
    equal("fault: hang", put("h")[0], 0)
    check("fault: hung a second", 0.9 < time.time() - began < 3, time.time() - began)
    stats = control("GET", "stats")
    equal("stats: fault counted", stats["faults"], {"hang": 1})
    reset(objects=False)
    configure(faultOperations=["GetObject"], rates={"error500": 1})
    equal("fault: only for one operation", (put(), error(c.get_object, Bucket="bucket", Key="f")[0]), ((200, None), 500))
    reset(objects=False)
    for when, kept in (("before", False), ("after", True)):
        for n in (1, 2, 3):
            reset()
            configure(drop={"request": n, "when": when})
            got = [put(f"d{i}") for i in (1, 2, 3)]
            equal(f"drop: {when} {n}", [g[0] for g in got], [0 if i == n else 200 for i in (1, 2, 3)])
            equal(f"drop: {when} {n} stored", exists(f"d{n}"), kept)
    reset()
    configure(burst503={"from": 2, "count": 3})
    equal("burst: 2 to 4", [put()[0] for _ in range(6)], [200, 503, 503, 503, 200, 200])
    patient = client(retries=5)
    configure(burst503={"from": 1, "count": 2})
    refused("burst: boto3 retries through", (200, None), patient.put_object, Bucket="bucket", Key="p", Body=b"x")
    equal("burst: with three requests", control("GET", "stats")["requests"]["PutObject"], {"200": 1, "503": 2})
    reset()

    def run(seed):
        configure(seed=seed, rates={"error503": 0.2, "error500": 0.2, "resetAfter": 0.2})
        return [put()[0] for _ in range(30)]

    one, two, three = run(7), run(7), run(8)
    check("seed: repeats", one == two, (one, two))
    check("seed: differs", one != three)
    check("seed: mixes", set(one) == {0, 200, 500, 503}, one)
    reset()
    configure(rates={"error503": 0.3}, seed=1)
    hits = sum(put()[0] == 503 for _ in range(400))
    check("rate: about 0.3", 80 < hits < 160, hits)
    reset()
    for bad in ({"rates": {"eror503": 1}}, {"personalty": {}}, {"personality": {"ignoreRange": True}},
                {"personality": {"corruptBody": 1}}, {"drop": {"request": 1, "when": "now"}}):
        status, data = control("PUT", "config", bad, raw=True)
        check(f"config: {bad} refused", status == 400, (status, data))
    equal("config: refused ones change nothing", put(), (200, None))
    entries = log()
    equal("log: numbers from 1", [e["number"] for e in entries], [1])
    entry = entries[0]
    equal("log: entry", (entry["operation"], entry["method"], entry["path"], entry["query"], entry["status"], entry["fault"], entry["bytesIn"]),
          ("PutObject", "PUT", "/bucket/f", "", 200, None, 1000))
    check("log: headers", "x-amz-date" in entry["headers"] and entry["headers"]["authorization"].endswith("Signature=..."))
    raw("GET", "/bucket", "list-type=2&prefix=a%2Fb")
    equal("log: raw query", log()[1]["query"], "list-type=2&prefix=a%2Fb")
    stats = control("GET", "stats")
    equal("stats: requests", stats["requests"], {"PutObject": {"200": 1}, "ListObjectsV2": {"200": 1}})
    check("stats: bytes", stats["bytesIn"] == 1000 and stats["bytesOut"] > 100 and stats["openConnections"] >= 1, stats)
    personality(delayMilliseconds=300)
    began = time.time()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        many = client(max_pool_connections=20)
        list(pool.map(lambda i: many.put_object(Bucket="bucket", Key=f"c{i}", Body=b""), range(20)))
    took = time.time() - began
    check("delay: without blocking threads", 0.3 <= took < 2.5, took)
    stats = control("GET", "stats")
    check("stats: concurrency", stats["maxConcurrentRequests"] >= 10 and stats["maxConnections"] >= 10, stats)
    reset()
    equal("reset: forgets", control("GET", "stats")["count"], 0)


def personalities():
    reset()
    c = client()
    body = bytes(range(256))
    get = lambda **k: c.get_object(Bucket="bucket", Key="p", **k)["Body"].read()
    put = lambda data=body, **k: c.put_object(Bucket="bucket", Key="p", Body=data, **k)
    put(Metadata={"a": "b"})
    personality(ignoreRanges=True)
    answer = c.get_object(Bucket="bucket", Key="p", Range="bytes=1-2")
    equal("who: ignoreRanges", (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Body"].read()), (200, body))
    personality(wrongRange=True)
    answer = c.get_object(Bucket="bucket", Key="p", Range="bytes=10-19")
    equal("who: wrongRange", (answer["ContentRange"], answer["Body"].read()), ("bytes 10-19/256", body[9:19]))
    equal("who: wrongRange leaves the whole", get(), body)
    personality(corruptBody=True)
    got = raw("GET", "/bucket/p")[2]
    equal("who: corruptBody flips one byte", (len(got), sum(a != b for a, b in zip(got, body))), (256, 1))
    personality(bytesPerSecond=500)
    began = time.time()
    equal("who: bytesPerSecond", raw("GET", "/bucket/p")[2], body)
    check("who: bytesPerSecond takes its time", 0.4 < time.time() - began < 2, time.time() - began)
    personality(deletesNothing=True)
    c.delete_object(Bucket="bucket", Key="p")
    equal("who: deletesNothing", get(), body)
    personality(ignoreStartAfter=True)
    equal("who: ignoreStartAfter", c.list_objects_v2(Bucket="bucket", StartAfter="z")["KeyCount"], 1)
    personality(maxConcurrent=3, delayMilliseconds=200)
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(lambda _: raw("GET", "/bucket/p")[:2], range(10)))
    check("who: maxConcurrent", set(outcomes) == {(200, None), (503, "SlowDown")} and outcomes.count((200, None)) >= 3, outcomes)
    personality(forgetsMetadata=True)
    equal("who: forgetsMetadata", c.head_object(Bucket="bucket", Key="p")["Metadata"], {})
    personality(storesNothing=True)
    c.put_object(Bucket="bucket", Key="nothing", Body=b"x")
    refused("who: storesNothing", (404, "NoSuchKey"), c.get_object, Bucket="bucket", Key="nothing")
    personality(storesTruncated=True)
    c.put_object(Bucket="bucket", Key="cut", Body=b"abc")
    equal("who: storesTruncated", raw("GET", "/bucket/cut")[2], b"ab")
    personality(staleReads=1)
    put(b"new")
    equal("who: staleReads old", raw("GET", "/bucket/p")[2], body)
    time.sleep(1.1)
    equal("who: staleReads new", get(), b"new")
    personality(lateReads=1)
    c.put_object(Bucket="bucket", Key="late", Body=b"x")
    refused("who: lateReads", (404, "NoSuchKey"), c.get_object, Bucket="bucket", Key="late")
    time.sleep(1.1)
    refused("who: lateReads over", (200, None), c.get_object, Bucket="bucket", Key="late")
    personality(redirect={"bucket": "eu-west-1"})
    status, code, data, answer = raw("GET", "/bucket/p")
    equal("who: redirect", (status, code, answer.getheader("x-amz-bucket-region")), (301, "PermanentRedirect", "eu-west-1"))
    configure(buckets=[{"name": "bucket", "region": "eu-west-1"}])
    refused("who: redirect to the right region", (200, None), client(region="eu-west-1").get_object, Bucket="bucket", Key="p")
    refused("who: boto3 follows", (200, None), client().get_object, Bucket="bucket", Key="p")
    configure(buckets=[{"name": "bucket", "region": "us-east-1"}])
    personality(temporaryRedirect={"bucket": f"localhost:{PORT}"})
    status, code, data, answer = raw("GET", "/bucket/p")
    equal("who: temporaryRedirect", (status, code, answer.getheader("location")), (307, "TemporaryRedirect", f"http://localhost:{PORT}/bucket/p"))
    equal("who: once", raw("GET", "/bucket/p")[0], 200)
    personality(caseMangles=True)
    c.put_object(Bucket="bucket", Key="Case", Body=b"1")
    equal("who: caseMangles", c.get_object(Bucket="bucket", Key="cASE")["Body"].read(), b"1")
    personality(plusIsSpace=True)
    exact("who: plusIsSpace", (200, None), "PUT", "/bucket/a+b", canonical_path="/bucket/a%2Bb", body=b"x")
    equal("who: a space was stored", control("GET", "object?bucket=bucket&key=a%20b")["size"], 1)
    personality(headerCase=True)
    names = [n for n, _ in raw("GET", "/bucket/p")[3].getheaders()]
    check("who: headerCase", "ETAG" in names, names)
    refused("who: headerCase and boto3", (200, None), c.get_object, Bucket="bucket", Key="p")
    personality(opaqueETag=True)
    check("who: opaqueETag", put(b"x")["ETag"] != '"%s"' % hashlib.md5(b"x").hexdigest())
    personality(etagUnquoted=True)
    check("who: etagUnquoted", '"' not in put(b"x")["ETag"])
    personality(deleteMissing404=True)
    refused("who: deleteMissing404", (404, "NoSuchKey"), c.delete_object, Bucket="bucket", Key="never")
    personality(chunkedAnswers=True)
    answer = raw("GET", "/bucket/p")
    equal("who: chunkedAnswers", (answer[3].getheader("transfer-encoding"), answer[3].getheader("content-length"), answer[2]), ("chunked", None, b"x"))
    personality(closeAfterAnswer=True)
    answer = raw("GET", "/bucket/p")
    equal("who: closeAfterAnswer", (answer[3].getheader("connection"), answer[2]), ("close", b"x"))
    personality(htmlErrors=True, retryAfterSeconds=3)
    configure(rates={"error503": 1})
    connection = http.client.HTTPConnection("127.0.0.1", PORT)
    connection.request("GET", "/bucket/p", headers=sign("GET", "/bucket/p"))
    answer = connection.getresponse()
    equal("who: htmlErrors", (answer.status, answer.getheader("content-type"), answer.getheader("retry-after"), answer.read()[:6]), (503, "text/html", "3", b"<html>"))
    connection.close()
    reset()


def damages():
    reset()
    c = client()
    body = bytes(range(256)) * 40
    get = lambda key="x": raw("GET", "/bucket/" + key)[2]

    def damage(mode, **extra):
        c.put_object(Bucket="bucket", Key="x", Body=body)
        c.put_object(Bucket="bucket", Key="y", Body=b"other")
        control("PUT", "damage?" + urllib.parse.urlencode(dict(bucket="bucket", key="x", mode=mode, **extra)), b"replacement")

    damage("flip", offset=7)
    equal("damage: flip", [i for i, (a, b) in enumerate(zip(get(), body)) if a != b], [7])
    damage("zero", offset=300)
    check("damage: zero", get()[300:4396] == bytes(4096) and get()[:300] == body[:300] and len(get()) == len(body))
    damage("truncate")
    equal("damage: truncate", get(), body[:len(body) // 2])
    damage("extend")
    check("damage: extend", len(get()) == len(body) + 16)
    damage("empty")
    equal("damage: empty", get(), b"")
    damage("swap", other="y")
    check("damage: swap", get() == b"other" and get("y") == body)
    damage("replace")
    equal("damage: replace", get(), b"replacement")
    damage("etag")
    check("damage: etag", c.head_object(Bucket="bucket", Key="x")["ETag"] != '"%s"' % hashlib.md5(body).hexdigest())
    damage("delete")
    refused("damage: delete", (404, "NoSuchKey"), c.get_object, Bucket="bucket", Key="x")
    equal("damage: unknown", control("PUT", "damage?key=x&mode=melt", raw=True)[0], 400)
    equal("control: body", control("GET", "body?bucket=bucket&key=y", raw=True)[1], b"other")
    equal("control: keys", [k["key"] for k in control("GET", "keys?bucket=bucket")["keys"]], ["y"])
    reset()
    equal("reset: objects=1", control("GET", "keys?bucket=bucket")["keys"], [])


def start(binary, config=None):
    global PORT
    folder = tempfile.mkdtemp()
    port_file = os.path.join(folder, "port")
    command = [binary, "--port-file", port_file, "--until-eof", "--quiet"]
    if config:
        path = os.path.join(folder, "config.json")
        with open(path, "w") as f:
            json.dump(config, f)
        command += ["--config", path]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    for _ in range(200):
        if os.path.exists(port_file):
            PORT = int(open(port_file).read())
            return process
        if process.poll() is not None:
            break
        time.sleep(0.05)
    sys.exit("strict-s3 did not start")


def main():
    binary = sys.argv[1]
    process = start(binary)
    for part in (signatures, tokens, objects, classes, checksums, listing, deletions, buckets, multipart, conditions,
                 locks, policies, faults, personalities, damages):
        try:
            part()
        except Exception:
            check(part.__name__, False, traceback.format_exc())
        try:
            control("PUT", "config", {"keys": [{"access": ACCESS, "secret": SECRET}], "sts": None, "minimumPartSize": None,
                                      "buckets": [{"name": "bucket", "region": REGION}]})
            reset()
        except Exception as e:
            check(f"{part.__name__}: server answers afterwards", False, e)
    process.stdin.close()
    try:
        equal("until-eof: exit", process.wait(5), 0)
    except subprocess.TimeoutExpired:
        check("until-eof: exit", False, "still runs")
        process.kill()
    process = start(binary, {"buckets": [{"name": "own", "region": "eu-central-1", "objectLock": True}],
                             "keys": [{"access": "A", "secret": "B"}], "seed": 3})
    own = client("A", "B", region="eu-central-1")
    refused("config file: bucket and key", (200, None), own.put_object, Bucket="own", Key="k", Body=b"x")
    equal("config file: lock", own.get_bucket_versioning(Bucket="own")["Status"], "Enabled")
    refused("config file: key list replaced", (403, "InvalidAccessKeyId"), client(region="eu-central-1").get_object, Bucket="own", Key="k")
    process.terminate()
    equal("SIGTERM: exit", process.wait(5), 0)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
