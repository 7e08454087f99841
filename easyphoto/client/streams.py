"""A job's events as the server streams them (server-sent events: WHATWG HTML, section 9.2), taken up after every break."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from easyphoto.client.problems import BadAnswer, Disconnected, WaitTimeout, error_of, problem_of
from easyphoto.client.reading import read
from easyphoto.client.retry import Retry, checked, given_up, may_pass
from easyphoto.client.steps import Answer, EventListener, Open, Read, Request, Say, Sleep, Steps
from easyphoto.errors import EasyPhotoError
from easyphoto.events import Event
from easyphoto.work import Job

_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
"""A CR at the very end of what came may be half of a pair, so it waits for the next piece."""
_LONGEST_LINE = 4 * 1024 * 1024
"""Bytes; no event of ours comes near it."""
_SHORTEST_SILENCE = 0.05
"""Seconds that a stream is listened to at least, however near the caller's deadline is."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a stream."""

    name: str
    data: str
    number: int | None = None
    """Its id, where that is a number."""


class Parser:
    """Pieces of bytes in, messages out."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        """Of the last whole message: what to send as Last-Event-ID."""
        self.pause: float | None = None
        """Seconds the server wants between a break and the next try (its `retry` field)."""
        self._highest = int(last_id) if last_id.isdecimal() else 0
        self.restart()

    def restart(self) -> None:
        """A new connection begins: an unfinished message of the old one is void."""
        self._rest = b""
        self._first = True
        self._id = self.last_id
        self._clear()

    def _clear(self) -> None:
        self._name = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[Message]:
        """The messages that this piece completes.

        Raises:
            BadAnswer: A line without end; this is no stream of events.
        """
        *lines, self._rest = _LINE_END.split(self._rest + piece)
        if len(self._rest) > _LONGEST_LINE:
            raise BadAnswer("the server's stream of events has a line without end; check the address")
        for line in lines:
            text = line.decode("utf-8", "replace")
            if self._first:
                self._first, text = False, text.removeprefix("\ufeff")
            if text:
                self._field(*text.partition(":")[::2])
            else:
                yield from self._message()

    def _field(self, name: str, value: str) -> None:
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdecimal():
            self.pause = int(value) / 1000

    def _message(self) -> Iterator[Message]:
        """An empty line ends a message; only then does its number count as received."""
        self.last_id = self._id
        name, data = self._name, self._data
        self._clear()
        if data:
            number = int(self._id) if self._id.isascii() and self._id.isdecimal() else None
            yield Message(name=name or "message", data="\n".join(data), number=number)

    def is_new(self, message: Message) -> bool:
        """The message was not seen before; a server that goes back to the start after a break is seen through."""
        if message.number is None:
            return True
        new = message.number > self._highest
        self._highest = max(self._highest, message.number)
        return new


@dataclass(frozen=True, kw_only=True)
class Following:
    """How a job is followed."""

    job_id: str
    path: str
    """Of its stream of events."""
    after: int = 0
    """Number of the last event that is known already."""
    timeout: float | None = None
    """Seconds; None follows it to its end."""
    listener: EventListener | None = None


def follow(following: Following, retry: Retry) -> Steps[Job]:
    """Hand on each event once, whatever breaks in between, until the job has ended; gives the ended job.

    Raises:
        WaitTimeout: It has not ended in time.
        Unreachable: Nothing came for `retry.outage` seconds.
        ApiError: The server refused, for one because there is no such job.
    """
    parser = Parser(str(following.after) if following.after else "")
    clock = _Clock(following, retry)
    while True:
        asked: float | None = None
        trouble: EasyPhotoError = Disconnected(f"the events of job {following.job_id} broke off before its end", sent=True)
        try:
            answer: Answer = yield Open(request=_request(following, parser), silence=clock.open())
            if may_pass(answer):
                problem = problem_of(answer.status, answer.headers, answer.body)
                trouble, asked = error_of(problem), problem.retry_after
            else:
                _check_stream(answer)
                job = yield from _listen(following, parser, clock)
                if job is not None:
                    return job
                if clock.listens_too_long():
                    continue
        except Disconnected as error:
            trouble = error
        yield Sleep(clock.pause(trouble, asked if asked is not None else parser.pause))


def _request(following: Following, parser: Parser) -> Request:
    headers = [("Accept", "text/event-stream"), ("Cache-Control", "no-store"), ("Accept-Encoding", "identity")]
    query: list[tuple[str, str]] = []
    if parser.last_id:
        headers.append(("Last-Event-ID", parser.last_id))
        # Some proxies drop the header.
        query.append(("after", parser.last_id))
    return Request(method="GET", path=following.path, query=tuple(query), headers=tuple(headers))


def _check_stream(answer: Answer) -> None:
    media_type = checked(answer).headers.get("content-type", "")
    if answer.status != 200 or media_type.partition(";")[0].strip().lower() != "text/event-stream":
        raise BadAnswer(f"a stream of events was asked for and {media_type or 'nothing'} came; check the address")


def _listen(following: Following, parser: Parser, clock: _Clock) -> Steps[Job | None]:
    """Hand on events until the stream breaks (None) or says that the job has ended."""
    parser.restart()
    while piece := (yield Read()):
        clock.hear()
        for message in parser.feed(piece):
            if message.name == "end":
                return _job(message)
            if parser.is_new(message):
                yield Say(_event(message), following.listener)
        if clock.listens_too_long():
            break
    return None


def _job(message: Message) -> Job:
    try:
        return read(Job, json.loads(message.data))
    except ValueError as error:
        raise BadAnswer(f"the job at the end of its events cannot be read ({error}); update this client") from error


def _event(message: Message) -> Event:
    """The event in a message; of a kind that only a newer server knows, a log line that tells the kind."""
    try:
        data = json.loads(message.data)
        if isinstance(data, Mapping) and data.get("kind") not in Event.KINDS:
            data = {**data, "kind": "log", "extra": {"kind": data.get("kind", message.name)}}
        return read(Event, data)
    except ValueError as error:
        raise BadAnswer(f"an event of the job cannot be read ({error}); update this client") from error


class _Clock:
    """When to stop listening, when to come back and when to give up."""

    def __init__(self, following: Following, retry: Retry) -> None:
        self._following = following
        self._retry = retry
        self._began = self._heard = time.monotonic()
        self._silence = retry.silence
        self._failures = 0

    def open(self) -> float:
        """Seconds of silence after which the stream that is opened now counts as lost."""
        self._silence = max(_SHORTEST_SILENCE, min(self._retry.silence, self._left()))
        return self._silence

    def hear(self) -> None:
        """Something came."""
        self._heard = time.monotonic()
        self._failures = 0

    def listens_too_long(self) -> bool:
        """The stream, were it silent from now on, would be listened to well beyond the caller's deadline: open a new one.

        Each is at least a quarter shorter than the one before, so there are few of them.
        """
        return self._left() < 0.75 * self._silence and self._silence > _SHORTEST_SILENCE

    def pause(self, trouble: EasyPhotoError, asked: float | None) -> float:
        """Seconds until the stream is taken up again.

        Raises:
            WaitTimeout: The caller's time is over.
            EasyPhotoError: The server has been gone for too long: the trouble itself, or `Unreachable` for a silent one.
        """
        left = self._left()
        if left <= 0:
            raise WaitTimeout(
                f"job {self._following.job_id} has not ended within {self._following.timeout:g} s; "
                "it goes on, so wait for it again or cancel it"
            )
        gone = time.monotonic() - self._heard
        if gone > self._retry.outage:
            raise given_up(trouble, f"for {gone:.0f} s") if isinstance(trouble, Disconnected) else trouble
        self._failures += 1
        return min(left, self._retry.pause(self._failures, asked if asked is None else min(asked, self._retry.longest_pause)))

    def _left(self) -> float:
        timeout = self._following.timeout
        return math.inf if timeout is None else self._began + timeout - time.monotonic()
