"""A small real HTTP server that does what servers should not: for tests of what the client makes of it."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request as it came in."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    at: float


Behaviour = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Rough:
    """Answers each path by its list of behaviours, the last one again and again."""

    url: str = ""
    script: dict[str, list[Behaviour]] = field(default_factory=lambda: defaultdict(list))
    seen: list[Seen] = field(default_factory=list)

    def on(self, path: str, *behaviours: Behaviour) -> None:
        """What happens at a path below /easyphoto/v1/, time after time."""
        self.script[f"/easyphoto/v1/{path}"] = list(behaviours)

    def take(self, path: str) -> Behaviour:
        """The next behaviour for a path."""
        behaviours = self.script.get(path) or [answer({"title": "nothing here", "code": "not_found"}, 404)]
        return behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]


@contextmanager
def rough_server() -> Iterator[Rough]:
    """The server on a free port, gone afterwards with all its threads."""
    rough = Rough()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def log_message(self, *_: object) -> None: ...

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            path = self.path.partition("?")[0]
            rough.seen.append(Seen(method=self.command, target=self.path, headers=headers, body=body, at=time.monotonic()))
            with suppress(BrokenPipeError, ConnectionResetError):
                rough.take(path)(self)

        def __getattr__(self, name: str) -> Callable[[], None]:
            if name.startswith("do_"):
                return self._any
            raise AttributeError(name)

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None: ...

    server = Quiet(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    rough.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield rough
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Behaviour:
    """JSON."""
    kind = "application/json" if status < 400 else "application/problem+json"
    return raw(json.dumps(value).encode(), status, {"Content-Type": kind, **(headers or {})})


def raw(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Bytes."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def drop(handler: BaseHTTPRequestHandler) -> None:
    """No answer: the connection is closed."""
    handler.close_connection = True


def reset(handler: BaseHTTPRequestHandler) -> None:
    """No answer: the connection is torn off (RST)."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def truncated(body: bytes, announced: int) -> Behaviour:
    """Less than was announced, then the end."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        raw(body, headers={"Content-Length": str(announced)})(handler)
        handler.close_connection = True

    return behave


def slow(seconds: float, then: Behaviour) -> Behaviour:
    """Silence first."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        then(handler)

    return behave


def stream(pieces: Sequence[bytes | float], whole: bool = False) -> Behaviour:
    """Server-sent events in these very pieces; numbers are seconds of silence. Not `whole`: torn off at the end."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in pieces:
            if isinstance(piece, float):
                time.sleep(piece)
                continue
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.flush()
        if whole:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return behave
