"""The socket that requests come in by."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

from easyphoto.api.options import ApiOptions
from easyphoto.api.process import listen


async def _is_sent_at_once(listening: socket.socket) -> bool:
    """Whether small pieces leave the server's end of a connection without waiting for the client's ACK."""
    found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def look(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(look, sock=listening):
        _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
        with closing(writer):
            return bool(await asyncio.wait_for(found, 10))


def test_answers_do_not_wait_for_the_clients_ack() -> None:
    """Head and body leave as two pieces; with Nagle's algorithm the second one came 40 ms late on every kept connection."""
    with closing(listen(ApiOptions(port=0))) as listening:
        assert asyncio.run(_is_sent_at_once(listening))
