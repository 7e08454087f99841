"""Requests as bytes on a socket: heads of a sane length are read, endless ones are refused before they fill the memory."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from easyphoto.api.protocol import LONGEST_HEAD
from tests.api.rig import served

LINE = b"GET /easyphoto/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
"""The route that asks for no token."""


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[socket.socket]:
    with served(tmp_path) as rig, socket.create_connection(("127.0.0.1", rig.mine.base_url.port or 0), timeout=20) as opened:
        yield opened


def answer(connection: socket.socket, *pieces: bytes) -> bytes:
    """Everything that comes back until the server hangs up."""
    with suppress(ConnectionError):  # it need not read to the end
        for piece in pieces:
            connection.sendall(piece)
    said = b""
    with suppress(ConnectionError):
        while more := connection.recv(65_536):
            said += more
    return said


def test_a_head_may_come_in_pieces_and_just_below_the_limit(connection: socket.socket) -> None:
    long = b"X-Long: " + b"a" * (LONGEST_HEAD - 1000) + b"\r\n"
    said = answer(connection, LINE[:10], LINE[10:], long, b"Connection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "pieces",
    [
        (LINE + b"X-Long: " + b"a" * LONGEST_HEAD + b"\r\n\r\n",),
        (LINE, *(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(200)), b"\r\n"),
        (LINE, b"X-Endless: ", *(b"a" * 10_000 for _ in range(200))),
        (b"GET /", *(b"a" * 10_000 for _ in range(200))),
    ],
    ids=["one header", "many headers", "a header without end", "a line without end"],
)
def test_a_head_that_is_too_long_is_refused(connection: socket.socket, pieces: tuple[bytes, ...]) -> None:
    said = answer(connection, *pieces)
    assert not said or said.startswith(b"HTTP/1.1 400 ")
    assert b"200" not in said[:16]


@pytest.mark.parametrize("lines", [b"", b"Host: 127.0.0.1\r\nhost: evil.example\r\n"], ids=["none", "two"])
def test_a_request_names_one_host(connection: socket.socket, lines: bytes) -> None:
    said = answer(connection, b"GET /easyphoto/v1/health HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ")


def test_a_request_behind_a_large_body_is_no_long_head(connection: socket.socket) -> None:
    body = b"x" * (2 * LONGEST_HEAD)
    first = LINE.replace(b"GET", b"POST") + b"Content-Length: %d\r\n\r\n" % len(body) + body
    said = answer(connection, first + LINE[:20], LINE[20:] + b"Connection: close\r\n\r\n")
    assert said.count(b"HTTP/1.1 ") == 2
    assert said.rpartition(b"HTTP/1.1 ")[2].startswith(b"200 ")
