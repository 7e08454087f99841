"""Jobs followed by many: one look at the queue for all who wait, handed on to each as server-sent events.

Format: WHATWG HTML, section 9.2. A message's id is the event's number, so that a client goes on where it was cut off.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from easyphoto.api.threads import in_thread
from easyphoto.errors import EasyPhotoError, NotFound
from easyphoto.events import Event
from easyphoto.jobs.turns import Turns
from easyphoto.store.codec import to_json
from easyphoto.work import Job

if TYPE_CHECKING:
    from easyphoto.api.metrics import Metrics
    from easyphoto.jobs.store import JobStore

logger = logging.getLogger(__name__)

TICK = 0.15
"""Seconds between two looks at the queue."""
PING = 15.0
"""Seconds of silence after which a stream says that it lives."""
_KEPT = 500
"""Newest events of a followed job that are kept in memory; who is further behind reads the file."""
Numbered = tuple[int, Event]


class Feed:
    """One job that somebody follows."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.seen = 0
        """Number of the newest event that is known."""
        self.over = False
        """The job has ended and all its events are known."""
        self._recent: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)
        """As messages: each is written once, however many follow."""
        self.followers = 0
        self.changed = _future()
        """Done as soon as there is something new."""

    def add(self, events: Iterable[Numbered]) -> None:
        """Keep the newest events."""
        for number, event in events:
            self._recent.append((number, message(event, number)))
            self.seen = number

    def tell(self) -> None:
        """Wake all who wait."""
        old, self.changed = self.changed, _future()
        if not old.done():
            old.set_result(None)

    def behind(self, after: int) -> bytes | None:
        """The messages behind number `after`; None where memory does not reach back so far."""
        if after >= self.seen:
            return b""
        if not self._recent or self._recent[0][0] > after + 1:
            return None
        return b"".join(said for number, said in self._recent if number > after)


class Hub:
    """Looks at the queue for everybody."""

    def __init__(self, store: JobStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._feeds: dict[str, Feed] = {}
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    def start(self) -> None:
        """Begin to look, unless this was begun; to be called from the event loop."""
        loop = asyncio.get_running_loop()
        if self.closed or (self._loop is loop and self._task is not None and not self._task.done()):
            return
        self._loop = loop
        self._task = loop.create_task(self._watch())

    def close(self) -> None:
        """End every stream at once; from any thread."""
        self.closed = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has gone already
                self._loop.call_soon_threadsafe(self._let_go)

    def _let_go(self) -> None:
        for feed in self._feeds.values():
            feed.tell()
        if self._task is not None:
            self._task.cancel()

    @contextmanager
    def follow(self, job: Job) -> Iterator[Feed]:
        """The feed of a job, as long as somebody needs it."""
        feed = self._feeds.setdefault(job.id, Feed(job))
        feed.followers += 1
        try:
            yield feed
        finally:
            feed.followers -= 1
            if not feed.followers:
                self._feeds.pop(job.id, None)

    async def _watch(self) -> None:
        since: int | None = None
        while not self.closed:
            try:
                if since is None:
                    since = await in_thread(Turns(self._store).version)
                since = await self._look(since)
            except EasyPhotoError as error:
                logger.warning("the queue cannot be looked at: %s", error)
            await asyncio.sleep(TICK)

    async def _look(self, since: int) -> int:
        changes = await in_thread(self._store.changes, since)
        for job in changes:
            since = max(since, job.version)
            if job.state.ended:
                self._metrics.ended(job)
            if job.id in self._feeds:
                self._feeds[job.id].job = job
        open_feeds = [feed for feed in self._feeds.values() if not feed.over]
        if open_feeds:
            for feed, events in await in_thread(self._read, open_feeds):
                _take(feed, events)
        return since

    def _read(self, feeds: list[Feed]) -> list[tuple[Feed, tuple[Numbered, ...]]]:
        return [(feed, self._store.events(feed.job.id, feed.seen)) for feed in feeds]

    async def stream(self, job: Job, after: int) -> AsyncIterator[bytes]:
        """Everything the job says behind event number `after`, as it comes; at the end the job itself."""
        yield b"retry: 2000\n\n"
        with self.follow(job) as feed, suppress(NotFound):
            # Once more, now that the feed is known: it may have changed since the caller looked.
            feed.job = await in_thread(self._store.get, job.id)
            while not self.closed:
                changed = feed.changed
                over = feed.over
                said, last = feed.behind(after), feed.seen
                if said is None:
                    events = await in_thread(self._store.events, job.id, after)
                    said = b"".join(message(event, number) for number, event in events)
                    last = events[-1][0] if events else after
                if said:
                    after = last
                    yield said
                if over and feed.seen <= after:
                    yield _message("end", json.dumps(to_json(feed.job)))
                    return
                if not said and not await waited(changed, PING):
                    await in_thread(self._store.get, job.id)  # NotFound where it was deleted meanwhile
                    yield b": ping\n\n"


def _take(feed: Feed, events: tuple[Numbered, ...]) -> None:
    # The state was read before the events: of a job that had ended then, there are no further ones.
    over = feed.job.state.ended
    feed.add(events)
    if events or over:
        feed.over = over
        feed.tell()


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def waited(changed: asyncio.Future[None], patience: float) -> bool:
    """Whether a feed has changed within so many seconds."""
    done, _ = await asyncio.wait((changed,), timeout=patience)
    return bool(done)


def message(event: Event, number: int) -> bytes:
    """One event as a server-sent one; of paths, which are the server's own, only the name is told."""
    told = event if event.path is None else replace(event, path=PurePath(event.path).name)
    return _message(event.kind, told.line(), number)


def _message(name: str, data: str, number: int | None = None) -> bytes:
    lines = [] if number is None else [f"id: {number}"]
    return "\n".join([*lines, f"event: {name}", f"data: {data}", "", ""]).encode()
