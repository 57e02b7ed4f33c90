"""Qdrant's REST over HTTP from a node's shards: envelope, errors and authorization as src/actix has them."""

import hmac
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from . import FixtureError, layout
from .node import Node, NotFound, Unavailable
from .translate import BadRequest

LIMIT = 32 * 1024 * 1024  # bytes of a request's body, as `max_request_size_mb`


@dataclass
class Options:
    """How the server presents itself, beyond what the volume holds."""

    port: int = 0
    api_key: str | None = None
    uri: str | None = None
    peers: dict | None = None
    ready_after: float = 0.0
    until_eof: bool = False  # end with standard input, so that whoever started it need not stop it


COLLECTION = r"/collections/(?P<name>[^/]+)"
ROUTES = [(method, re.compile(pattern), answer) for method, pattern, answer in [
    ("GET", r"/collections", lambda s, **_: {"collections": [{"name": name} for name in sorted(s.node.collections)]}),
    ("GET", COLLECTION, lambda s, name, **_: s.node.collection(name).info(s.node.status)),
    ("GET", COLLECTION + "/exists", lambda s, name, **_: {"exists": name in s.node.collections}),
    ("GET", COLLECTION + "/cluster", lambda s, name, **_: s.node.collection(name).cluster()),
    ("GET", COLLECTION + "/aliases", lambda s, name, **_: s.node.aliases(s.node.collection(name).name)),
    ("GET", COLLECTION + "/points/(?P<id>[^/]+)", lambda s, name, id, **_: s.node.collection(name).point(id)),
    ("POST", COLLECTION + "/points", lambda s, name, body: s.node.collection(name).retrieve(body)),
    ("POST", COLLECTION + "/points/count", lambda s, name, body: s.node.collection(name).count(body)),
    ("POST", COLLECTION + "/points/scroll", lambda s, name, body: s.node.collection(name).scroll(body)),
    ("POST", COLLECTION + "/points/query", lambda s, name, body: s.node.collection(name).query(body)),
    ("POST", COLLECTION + "/points/query/batch", lambda s, name, body: [
        s.node.collection(name).query(one) for one in body["searches"]]),
    ("GET", r"/aliases", lambda s, **_: s.node.aliases()),
    ("GET", r"/cluster", lambda s, **_: s.node.cluster(s.options.uri, s.options.peers)),
    ("GET", r"/telemetry", lambda s, **_: s.node.telemetry()),
]]
OPEN = {"/", "/healthz", "/livez", "/readyz"}  # what src/actix/mod.rs asks no key for


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: a second one would wait for the first one's receipt
    server: "Server"

    def do_GET(self) -> None:
        self._respond("GET")

    def do_POST(self) -> None:
        self._respond("POST")

    def _respond(self, method: str) -> None:
        started = time.monotonic()
        path = urlsplit(self.path).path.rstrip("/") or "/"
        if (length := int(self.headers.get("Content-Length") or 0)) > LIMIT:
            self.close_connection = True
            return self._send(413, "")
        body = self.rfile.read(length)
        if path not in OPEN and (refusal := self._refusal()):
            return self._send(401, refusal)
        if method == "GET" and path in OPEN:
            return self._send(*self._open(path))
        status, answer = self._answer(method, path, body)
        if answer is None:  # an unknown path has no body
            return self._send(status, "")
        self._send(status, answer | {"time": round(time.monotonic() - started, 9)})

    def _refusal(self) -> str | None:
        """src/common/auth/mod.rs, `validate_request`."""
        wanted = self.server.options.api_key
        if wanted is None:
            return None
        given = self.headers.get("api-key")
        if given is None:
            kind, _, token = (self.headers.get("Authorization") or "").partition(" ")
            given = token if kind == "Bearer" else None
        if given is None:
            return "Must provide an API key or an Authorization bearer token"
        return None if hmac.compare_digest(given.encode(), wanted.encode()) else "Invalid API key or JWT"

    def _open(self, path: str) -> tuple:
        if path == "/":
            return 200, {"title": "qdrant - vector search engine", "version": self.server.node.version}
        if path != "/readyz":
            return 200, "healthz check passed"
        if time.monotonic() < self.server.ready_at:
            return 503, "some shards are not ready"
        return 200, "all shards are ready"

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, dict | None]:
        try:
            for wanted, pattern, answer in ROUTES:
                if wanted == method and (found := pattern.fullmatch(path)):
                    parts = {name: unquote(value) for name, value in found.groupdict().items()}
                    result = answer(self.server, body=self._json(body) if method == "POST" else {}, **parts)
                    return 200, {"result": result, "status": "ok"}
            return 404, None
        except NotFound as error:
            return 404, {"status": {"error": str(error)}}
        except BadRequest as error:
            status = 422 if str(error).startswith("Validation") else 400
            return status, {"status": {"error": str(error)}}
        except Unavailable as error:
            return 500, {"status": {"error": str(error)}}
        except (KeyError, TypeError, ValueError) as error:  # a body of another form
            return 400, {"status": {"error": f"Format error in JSON body: {error}"}}
        except Exception as error:
            return 500, {"status": {"error": f"Service internal error: {type(error).__name__}: {error}"}}

    def _json(self, body: bytes) -> dict:
        try:
            return json.loads(body or b"{}")
        except ValueError as error:
            raise BadRequest(f"Format error in JSON body: {error}")

    def _send(self, status: int, answer: dict | str) -> None:
        text = isinstance(answer, str)
        content = (answer if text else json.dumps(answer, ensure_ascii=False)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8" if text else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments) -> None:
        if self.server.log:
            print(f"{self.log_date_time_string()} {format % arguments}", file=self.server.log, flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, node: Node, options: Options, log=None):
        try:
            super().__init__(("127.0.0.1", options.port), Handler)
        except OSError as error:
            raise FixtureError(f"port {options.port}: {error.strerror}") from None
        self.node, self.options, self.log = node, options, log
        self.ready_at = time.monotonic() + options.ready_after

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # a client that went away is no error

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


def serve_copy(root: Path, others: list[Path], local_only: bool, status: str, options: Options) -> None:
    """Serves copies of the volumes, because the engine writes where it opens; says on stdout when it is ready."""
    with _ended_by_signals(), tempfile.TemporaryDirectory(prefix="bgbackup-serve-") as scratch:
        copies = [_copy(path, Path(scratch) / str(number)) for number, path in enumerate([root, *others])]
        node = Node(copies[0], copies[1:], local_only, status)
        _run(node, options, ready=lambda url: print(json.dumps({"url": url}), flush=True))


def serve_in_place(root: Path, options: Options) -> None:
    """Serves the volume itself, which the engine changes, and what of its shards is here; logs to stderr."""
    with _ended_by_signals():
        node = Node(root, [], local_only=True)
        _run(node, options, ready=lambda url: print(f"serving {root} at {url}", file=sys.stderr, flush=True),
             log=sys.stderr)


def _run(node: Node, options: Options, ready, log=None) -> None:
    try:
        with Server(node, options, log) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            thread.start()
            if options.until_eof:
                threading.Thread(target=_end_with_input, daemon=True).start()
            ready(server.url)
            try:
                thread.join()
            finally:
                server.shutdown()
    finally:
        node.close()


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _copy(root: Path, target: Path) -> Path:
    layout.collection_directories(root)  # fails where it is no storage directory
    subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", str(root), str(target)], check=True)
    return target


@contextmanager
def _ended_by_signals():
    """SIGTERM and SIGINT end the block in good order, so that its copy is deleted and its shards are closed."""
    class Ended(BaseException):
        pass

    def end(*_) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # once is enough: the second must not stop the tidying up
        raise Ended

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})  # a parent may have had them blocked
    try:
        yield
    except Ended:
        pass
