"""The server as a process: a port of its own, the worker and the webhooks beside it, an end in order."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from types import FrameType, TracebackType

import uvicorn
from starlette.types import ASGIApp

from easyphoto.api.application import create_app
from easyphoto.api.front import AddPages, with_pages
from easyphoto.api.options import ApiOptions
from easyphoto.api.protocol import Protocol
from easyphoto.api.service import Service
from easyphoto.api.webhooks import Dispatcher, WebhookOptions
from easyphoto.errors import Conflict, InputError
from easyphoto.jobs.store import JobStore
from easyphoto.jobs.supervisor import Supervisor
from easyphoto.settings import Settings

_BACKLOG = 2048
_SWITCH = 0.0001
"""Seconds that one thread may keep the others from Python's lock. With the usual 5 ms, a thread that writes a job down waits as
long after each of its many looks at the disk, while the main thread answers others."""
_PATIENCE = 5
"""Seconds that answers under way get when the server ends."""


class Companions:
    """What runs as long as the server does: the process that does the jobs, and the thread that tells webhooks."""

    def __init__(self, settings: Settings, options: ApiOptions, store: JobStore) -> None:
        self.supervisor = Supervisor(settings)
        self._dispatcher = Dispatcher(store, WebhookOptions(allow_private=options.allow_private_webhooks))

    def __enter__(self) -> Companions:
        self.supervisor.start()
        self._dispatcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dispatcher.stop()
        self.supervisor.stop()

    def worker_alive(self) -> bool:
        """The process that does the jobs is there."""
        return self.supervisor.pid is not None


class _Server(uvicorn.Server):
    """uvicorn, ending the streams of events before it waits for all answers to be finished."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End in order."""
        self._service.hub.close()
        await super().shutdown(sockets)


def listen(options: ApiOptions) -> socket.socket:
    """The socket that requests come in by.

    Raises:
        Conflict: Another program has the port.
        InputError: This machine has no such address, or the port is not for us.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle's algorithm on: each answer's body would wait 40 ms for the client's late ACK.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((options.host, options.port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"port {options.port} is taken by another program; choose another one with --port") from error
        reason = error.strerror or str(error)
        raise InputError(f"{options.host}:{options.port} cannot be listened on ({reason}); choose others") from error
    listening.set_inheritable(False)
    return listening


def address(listening: socket.socket) -> str:
    """The URL of the routes behind a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/easyphoto/v1"


Pages = Callable[[Service], AddPages]
"""Makes pages that show what a service has."""


def run(
    settings: Settings, options: ApiOptions, listening: socket.socket, log_requests: bool = False, pages: Pages | None = None
) -> None:
    """Serve until SIGTERM or Ctrl-C, then end in order: streams, answers, webhooks, worker; its job goes on next time.

    Args:
        settings: Whose home and models.
        options: How it is served.
        listening: From `listen`.
        log_requests: Write a line for each request.
        pages: What is shown at every path that is not ours.

    Raises:
        StorageError: The home cannot be written.
    """
    _set_logging(log_requests)
    sys.setswitchinterval(_SWITCH)
    store = JobStore(settings.home)
    companions = Companions(settings, options, store)
    with closing(Service(settings, options, store, companions.worker_alive)) as service:
        api = create_app(service, background=companions)
        app: ASGIApp = api if pages is None else with_pages(api, options, pages(service))
        # uvicorn's own log of requests holds their queries; the guard writes one without.
        config = uvicorn.Config(
            app, http=Protocol, ws="none", lifespan="on", log_config=None, access_log=False, server_header=False,
            proxy_headers=False, timeout_graceful_shutdown=_PATIENCE,
        )  # fmt: skip
        server = _Server(config, service)
        # uvicorn raises the signal anew when it has ended; by then there is nothing left to be done.
        before = signal.signal(signal.SIGTERM, _nothing)
        try:
            server.run(sockets=[listening])
        finally:
            signal.signal(signal.SIGTERM, before)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    return


def _set_logging(log_requests: bool) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if log_requests:
        logging.getLogger("easyphoto.access").setLevel(logging.INFO)
