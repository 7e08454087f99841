"""HTTP/1.1 as our own server reads it: by httptools, which is quick, and more strictly than that: short heads, one host."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_HEAD = 32 * 1024
"""Bytes of a request's line and headers."""
_TOO_LONG = "The request's headers are too long."


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself collects headers as long as they come.

    Of whatever is raised while a head is read httptools makes a broken request, which uvicorn answers with 400.
    """

    _head = 0
    """Bytes of the request's head that have been read."""
    _pending = 0
    """Bytes that came since a head began that is not whole; the piece with its beginning may have held other things."""
    _in_head = False

    def data_received(self, data: bytes) -> None:
        """Read on, unless what has come is too long for a head."""
        self._pending += len(data)
        super().data_received(data)
        if self._in_head and self._pending > LONGEST_HEAD and not self.transport.is_closing():
            self.send_400_response(_TOO_LONG)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._head, self._pending, self._in_head = 0, 0, True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request's line."""
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole; RFC 9112, section 3.2, wants one host in it."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError("not one host")
        self._in_head = False
        super().on_headers_complete()

    def _count(self, *pieces: bytes) -> None:
        self._head += sum(map(len, pieces))
        if self._head > LONGEST_HEAD:
            raise ValueError(_TOO_LONG)
