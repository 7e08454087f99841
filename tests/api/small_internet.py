"""A small internet for tests: names, numbers and routes of our own, ending at real servers on this machine.

Only the two edges are replaced: what a name is looked up as, and where a packet for a number goes.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

PUBLIC = "93.184.216.34"
PUBLIC_V6 = "2606:2800:220:1::1"


@dataclass
class Heard:
    """One request as a server got it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Site:
    """A running server, everything it heard, and how it answers."""

    port: int
    heard: list[Heard] = field(default_factory=list)


Reply = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def site(reply: Reply, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """A real HTTP server on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            small = {name.lower(): value for name, value in self.headers.items()}
            place.heard.append(Heard(method=self.command, path=self.path, headers=small, body=body))
            reply(self)

        do_GET = do_POST = _answer  # noqa: N815 (names of http.server)

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that hangs up is no matter."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    place = Site(port=server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield place
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Reply:
    """Always the same answer."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return reply


class Internet:
    """Names and routes that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, list[str]] = {}
        self.routes: dict[str, str] = {}
        """Number on the internet: number here."""
        self.nobody_knows = False
        """No name is known, and no number either."""
        self.asked: list[str] = []
        self.connected: list[str] = []
        self._real_lookup, self._real_connect = socket.getaddrinfo, socket.socket.connect
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)
        connect = self._connect

        def through_us(plug: socket.socket, address: Any) -> None:
            connect(plug, address)

        monkeypatch.setattr(socket.socket, "connect", through_us)

    def _look_up(self, host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append(name)
        if self.nobody_knows:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if name not in self.names:
            return self._real_lookup(host, port, *rest, **named)
        return [entry for number in self.names[name] for entry in self._real_lookup(number, port, *rest, **named)]

    def _connect(self, plug: socket.socket, address: Any) -> None:
        if plug.family == socket.AF_UNIX:
            return self._real_connect(plug, address)
        number = address[0]
        self.connected.append(number)
        here = self.routes.get(number, number)
        if here not in {"127.0.0.1", "::1"} and not here.startswith("127."):
            raise ConnectionRefusedError(f"nothing answers at {number}")
        return self._real_connect(plug, (here, *address[1:]))


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    return Internet(monkeypatch)
