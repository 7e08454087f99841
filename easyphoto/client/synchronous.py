"""The client that blocks until an answer is there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType

import httpx

from easyphoto.client.connection import LIMITS, answer_of, connection, translated
from easyphoto.client.job_calls import JobCalls
from easyphoto.client.people_calls import PeopleCalls
from easyphoto.client.retry import Retry
from easyphoto.client.scene_calls import SceneCalls
from easyphoto.client.server_calls import ServerCalls
from easyphoto.client.steps import Answer, Machine, Open, Read, Request, Result, Say, Send, Sleep, Step, Steps, Work
from easyphoto.errors import EasyPhotoError
from easyphoto.events import Event


class Client(PeopleCalls, SceneCalls, JobCalls, ServerCalls):
    """A server's people, jobs and results, from an ordinary program. Safe to use from several threads.

        with Client() as client:
            job = client.wait(client.train("Anna", "photos/anna"))
            job = client.wait(client.portrait(client.find("Anna"), "beach.jpg"))
            client.download(job, "portraits")
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, login: tuple[str, str] | None = None,
        timeout: float = 60.0, retry: Retry | None = None, http: httpx.Client | None = None,
    ) -> None:  # fmt: skip
        """Prepare a client; nothing is sent yet.

        Args:
            url: Address of the server; EASYPHOTO_URL, else http://127.0.0.1:7861.
            token: Who asks; EASYPHOTO_TOKEN where left out. It travels in a header only and is never shown.
            login: Name and password instead, for a WebUI that was started with --api-auth.
            timeout: Seconds without any progress after which a try is given up.
            retry: How often and how patiently calls are tried again.
            http: An httpx client of your own (certificates, proxies); it stays yours to close.

        Raises:
            SpecError: One of these cannot be used.
        """
        self._connection = connection(url, token, login, timeout)
        self._retry = retry or Retry()
        self._ours = http is None
        self._http = http or httpx.Client(trust_env=self._connection.trusts_environment, limits=LIMITS)

    @property
    def url(self) -> str:
        """Address of the server."""
        return self._connection.url

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        if self._ours:
            self._http.close()

    def _run(self, steps: Steps[Result]) -> Result:
        machine = Machine(steps)
        for _ in self._perform(machine):
            """Nobody iterates over a call, so its events have a listener."""
        return machine.result

    def _iterate(self, steps: Steps[object]) -> Iterator[Event]:
        return self._perform(Machine(steps))

    def _perform(self, machine: Machine[Result]) -> Iterator[Event]:
        """Do step after step; an event without a listener goes to who iterates."""
        stream = _Stream()
        try:
            machine.start()
            while (step := machine.step) is not None:
                if isinstance(step, Say) and step.listener is None:
                    yield step.event
                    machine.tell(None)
                    continue
                try:
                    outcome = self._do(step, stream)
                except EasyPhotoError as error:
                    machine.fail(error)
                else:
                    machine.tell(outcome)
        finally:
            stream.close()
            machine.close()

    def _do(self, step: Step, stream: _Stream) -> object:
        if isinstance(step, Send):
            return self._send(step)
        if isinstance(step, Open):
            return self._open(step, stream)
        if isinstance(step, Read):
            with translated(self.url):
                return next(stream.pieces, b"")
        if isinstance(step, Work):
            return step.do()
        if isinstance(step, Sleep):
            time.sleep(step.seconds)
        elif step.listener is not None:
            step.listener(step.event)
        return None

    def _send(self, step: Send) -> Answer:
        with translated(self.url):
            response = self._http.send(self._built(step.request), stream=True, follow_redirects=False)
            try:
                if step.sink is None or not response.is_success:
                    response.read()
                else:
                    step.sink.begin()
                    for piece in response.iter_bytes():
                        step.sink.write(piece)
            finally:
                response.close()
            return answer_of(response, whole=step.sink is None or not response.is_success)

    def _open(self, step: Open, stream: _Stream) -> Answer:
        stream.close()
        with translated(self.url):
            response = self._http.send(self._built(step.request, step.silence), stream=True, follow_redirects=False)
            stream.closing.callback(response.close)
            if response.status_code != 200:
                response.read()
                return answer_of(response, whole=True)
            stream.pieces = response.iter_bytes()
            return answer_of(response, whole=False)

    def _built(self, request: Request, silence: float | None = None) -> httpx.Request:
        content = None if request.body is None else request.body.pieces()
        return self._connection.build(self._http, request, content, silence)


class _Stream:
    """The one answer that a call has open."""

    def __init__(self) -> None:
        self.pieces: Iterator[bytes] = iter(())
        self.closing = ExitStack()

    def close(self) -> None:
        self.pieces = iter(())
        self.closing.close()
