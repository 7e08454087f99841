"""The client that lets others run while an answer is on its way."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from types import TracebackType

import anyio
import anyio.to_thread
import httpx

from easyphoto.client.connection import LIMITS, answer_of, connection, translated
from easyphoto.client.job_calls import JobCalls
from easyphoto.client.people_calls import PeopleCalls
from easyphoto.client.retry import Retry
from easyphoto.client.scene_calls import SceneCalls
from easyphoto.client.server_calls import ServerCalls
from easyphoto.client.steps import Answer, Machine, Open, Read, Request, Result, Say, Send, Sleep, Step, Steps, Work
from easyphoto.client.uploads import Body
from easyphoto.errors import EasyPhotoError
from easyphoto.events import Event


class AsyncClient(PeopleCalls, SceneCalls, JobCalls, ServerCalls):
    """A server's people, jobs and results, from an asynchronous program; `Client`'s methods, to be awaited.

        async with AsyncClient() as client:
            job = await client.train("Anna", "photos/anna")
            async for event in client.events(job):
                print(event.stage, event.step, event.total)
            job = await client.portrait(await client.find("Anna"), "beach.jpg")
            await client.download(await client.wait(job), "portraits")
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, login: tuple[str, str] | None = None,
        timeout: float = 60.0, retry: Retry | None = None, http: httpx.AsyncClient | None = None,
    ) -> None:  # fmt: skip
        """Prepare a client; nothing is sent yet. The arguments are those of `Client`."""
        self._connection = connection(url, token, login, timeout)
        self._retry = retry or Retry()
        self._ours = http is None
        self._http = http or httpx.AsyncClient(trust_env=self._connection.trusts_environment, limits=LIMITS)

    @property
    def url(self) -> str:
        """Address of the server."""
        return self._connection.url

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._ours:
            await self._http.aclose()

    async def _run(self, steps: Steps[Result]) -> Result:
        machine = Machine(steps)
        async for _ in self._perform(machine):
            """Nobody iterates over a call, so its events have a listener."""
        return machine.result

    def _iterate(self, steps: Steps[object]) -> AsyncIterator[Event]:
        return self._perform(Machine(steps))

    async def _perform(self, machine: Machine[Result]) -> AsyncIterator[Event]:
        """As `Client._perform`."""
        stream = _Stream()
        try:
            machine.start()
            while (step := machine.step) is not None:
                if isinstance(step, Say) and step.listener is None:
                    yield step.event
                    machine.tell(None)
                    continue
                try:
                    outcome = await self._do(step, stream)
                except EasyPhotoError as error:
                    machine.fail(error)
                else:
                    machine.tell(outcome)
        finally:
            machine.close()
            # Also for a task that was cancelled: an open answer would keep its connection.
            with anyio.CancelScope(shield=True):
                await stream.close()

    async def _do(self, step: Step, stream: _Stream) -> object:
        if isinstance(step, Send):
            return await self._send(step)
        if isinstance(step, Open):
            return await self._open(step, stream)
        if isinstance(step, Read):
            with translated(self.url):
                return await anext(stream.pieces, b"")
        if isinstance(step, Work):
            return await anyio.to_thread.run_sync(step.do)
        if isinstance(step, Sleep):
            await anyio.sleep(step.seconds)
        elif step.listener is not None:
            told = step.listener(step.event)
            if inspect.isawaitable(told):
                await told
        return None

    async def _send(self, step: Send) -> Answer:
        with translated(self.url):
            response = await self._http.send(self._built(step.request), stream=True, follow_redirects=False)
            try:
                if step.sink is None or not response.is_success:
                    await response.aread()
                else:
                    step.sink.begin()
                    async for piece in response.aiter_bytes():
                        step.sink.write(piece)
            finally:
                await response.aclose()
            return answer_of(response, whole=step.sink is None or not response.is_success)

    async def _open(self, step: Open, stream: _Stream) -> Answer:
        await stream.close()
        with translated(self.url):
            response = await self._http.send(self._built(step.request, step.silence), stream=True, follow_redirects=False)
            stream.closing.push_async_callback(response.aclose)
            if response.status_code != 200:
                await response.aread()
                return answer_of(response, whole=True)
            stream.pieces = response.aiter_bytes()
            return answer_of(response, whole=False)

    def _built(self, request: Request, silence: float | None = None) -> httpx.Request:
        content = None if request.body is None else _pieces(request.body)
        return self._connection.build(self._http, request, content, silence)


class _Stream:
    """The one answer that a call has open."""

    def __init__(self) -> None:
        self.pieces: AsyncIterator[bytes] = _nothing()
        self.closing = AsyncExitStack()

    async def close(self) -> None:
        self.pieces = _nothing()
        await self.closing.aclose()


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _pieces(body: Body) -> AsyncIterator[bytes]:
    """A body's pieces; the disk is read in a thread."""
    pieces: Iterator[bytes] = body.pieces()
    while (piece := await anyio.to_thread.run_sync(next, pieces, None)) is not None:
        yield piece
