"""The queue as everybody sees it: hand in, look up, cancel, follow, forget. Safe from many processes and threads.

What is true lies in folders (`folders`); the database is an index of them that can be lost. A job is on the disk, flushed,
before `submit` returns. The order of jobs is that of their sequence numbers; no clock is asked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from easyphoto.errors import Conflict, EasyPhotoError, NotFound, SpecError
from easyphoto.events import Event
from easyphoto.files import write_text
from easyphoto.jobs.building import Builder, Places, put_in_place
from easyphoto.jobs.database import Database, next_version
from easyphoto.jobs.eventlog import EventReader
from easyphoto.jobs.folders import (
    ORDER,
    End,
    Input,
    QueueFolder,
    Slip,
    input_name,
    is_id,
    new_id,
    now,
    remove_folder,
)
from easyphoto.jobs.recovery import refill
from easyphoto.jobs.rows import TOLD, Entry, insert, job_of, kind_of, names_in, people_column, result_path, settle, subject_of
from easyphoto.orders import Order
from easyphoto.records import TrainKind
from easyphoto.store.codec import loads
from easyphoto.store.paths import check_owner, owner_home, person_id
from easyphoto.work import LOCAL_OWNER, Job, JobKind, JobResult, JobState

__all__ = ["Delivery", "Input", "JobQuery", "JobStore", "NewJob", "input_name"]

LOWEST_PRIORITY, HIGHEST_PRIORITY = -10, 10
WEBHOOK_TRIES = 8
"""How often a webhook is tried before it is given up."""
_PAGE = 1000
"""Most rows that one listing gives."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What is handed in."""

    order: Order
    """The kind of the job follows from its class."""
    owner: str = LOCAL_OWNER
    priority: int = 0
    """Higher goes first, -10 to 10."""
    idempotency_key: str | None = None
    """Two of one owner with the same key are one job."""
    webhook: str | None = None
    """URL that is told when it ends."""
    fingerprint: str | None = None
    """Digest of the request, where the order holds something drawn at random; None takes order and inputs."""

    def __post_init__(self) -> None:
        check_owner(self.owner)
        for name in names_in(self.order, subject_of(self.order)):
            person_id(name)
        if not LOWEST_PRIORITY <= self.priority <= HIGHEST_PRIORITY:
            raise SpecError(f"priority must be within {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}, got {self.priority}")
        if self.idempotency_key is not None and not 1 <= len(self.idempotency_key) <= 255:
            raise SpecError("an idempotency key has 1 to 255 characters; shorten it or leave it out")


@dataclass(frozen=True, kw_only=True)
class JobQuery:
    """Which jobs are listed; what is None does not matter."""

    owner: str | None = None
    state: JobState | None = None
    kind: JobKind | None = None
    person: str | None = None
    """Name of somebody the job is about, whether the first or not."""
    before: str | None = None
    """Cursor of the last job seen (`JobStore.cursor`): older ones follow."""
    limit: int = 50


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A webhook that has to be told."""

    job: Job
    url: str
    tries: int
    """How often it failed so far."""


class JobStore:
    """The queue of one home, `root/queue`."""

    def __init__(self, home: Path) -> None:
        self.root = home
        self.queue = home / "queue"
        self.database = Database(self.queue / "jobs.sqlite", lambda connection: refill(connection, home))
        self._builder, self._places = Builder(self.queue), Places(self._last_place)
        self._reader = EventReader()

    def submit(self, new: NewJob, inputs: Sequence[Input] = ()) -> Job:
        """Take a job; it is on the disk, flushed, when this returns.

        Raises:
            Conflict: The same owner used this idempotency key for another request.
            SpecError: An input has an unsafe name.
            StorageError: The disk is full or cannot be written; nothing was taken.
        """
        slip = Slip(
            id=new_id(), kind=kind_of(new.order), owner=new.owner, created=now(), priority=new.priority,
            place=self._places.next(), idempotency_key=new.idempotency_key, fingerprint=new.fingerprint or "",
            webhook=new.webhook,
        )  # fmt: skip
        making, slip = self._builder.build(slip, new.order, inputs)
        folder = self.folder(slip.id)
        try:
            put_in_place(making, folder, (*(f"inputs/{item.name}" for item in inputs), ORDER))
            # The folder is flushed; a row that a power cut takes is made anew from it.
            job = self.database.write(
                lambda connection: _enter(connection, Entry(slip=slip, order=new.order)), durable=False
            )
        except EasyPhotoError:
            for path in (making, folder):
                with suppress(EasyPhotoError):
                    remove_folder(path)
            raise
        if job.id != slip.id:
            remove_folder(folder)
        return job

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """The job; NotFound if there is none, or it is another owner's."""
        return job_of(self._row(job_id, owner))

    def list(self, query: JobQuery | None = None) -> tuple[Job, ...]:
        """Jobs, newest first.

        Raises:
            SpecError: The cursor is none.
        """
        query = query or JobQuery()
        conditions: list[tuple[str, object]] = [
            ("owner = ?", query.owner), ("state = ?", query.state and query.state.value),
            ("kind = ?", query.kind and query.kind.value), ("people LIKE ?", query.person and _like(query.person)),
            ("seq < ?", place_of(query.before)),
        ]  # fmt: skip
        said = [(text, value) for text, value in conditions if value is not None]
        where = " AND ".join(text for text, _ in said) or "1"
        sql = f"SELECT * FROM jobs WHERE {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608 (the words are ours)
        values = (*(value for _, value in said), max(1, min(query.limit, _PAGE)))
        return self._jobs(sql, values)

    def cursor(self, job: Job) -> str:
        """Where in a listing the job stands, for `JobQuery.before`."""
        return str(self._row(job.id, None)["seq"])

    def cancel(self, job_id: str, owner: str | None = None) -> Job:
        """Ask a job to stop: a queued one has ended when this returns, a running one soon will; an ended one stays as it is."""
        folder = QueueFolder(self.folder(job_id))
        if self.get(job_id, owner).state is JobState.RUNNING:
            with suppress(NotFound):
                write_text(folder.cancel, "cancel\n")

        def ask(connection: sqlite3.Connection) -> Job:
            job = _job(connection, job_id)
            if job.state is JobState.QUEUED:
                end = End(state=JobState.CANCELLED, ended=now(), started=job.started, attempt=job.attempt)
                with suppress(NotFound):
                    end = folder.write_end(end)
                settle(connection, job_id, end)
            elif job.state is JobState.RUNNING and not job.cancel_asked:
                connection.execute(
                    "UPDATE jobs SET cancel_asked = 1, version = ? WHERE id = ?", (next_version(connection), job_id)
                )
            return _job(connection, job_id)

        return self.database.write(ask)

    def changes(self, since: int) -> tuple[Job, ...]:
        """Every job that changed after that version, the latest change last."""
        return self._jobs("SELECT * FROM jobs WHERE version > ? ORDER BY version", (since,))

    def events(self, job_id: str, after: int = 0) -> tuple[tuple[int, Event], ...]:
        """(number, event) of what was said behind event number `after`; numbers begin at 1."""
        return self._reader.read(QueueFolder(self.folder(job_id)).events, after)

    def order(self, job_id: str) -> Order:
        """What was ordered; NotFound if there is no such job any more."""
        return QueueFolder(self.folder(job_id)).read_order()[1]

    def folder(self, job_id: str) -> Path:
        """Where the job's files lie; NotFound for what can be no job's id."""
        if not is_id(job_id):
            raise NotFound(f"there is no job {job_id!r}; easyphoto jobs list shows those there are")
        return self.queue / job_id

    def result(self, job_id: str, owner: str | None = None) -> JobResult:
        """What a job left; NotFound until it is done, and for another owner's."""
        folder = self.result_folder(job_id, owner)
        try:
            return loads(JobResult, result_path(folder).read_text(encoding="utf-8"))
        except (OSError, SpecError) as error:
            raise NotFound(f"the result {job_id} cannot be read ({error}); delete it") from error

    def result_folder(self, job_id: str, owner: str | None = None) -> Path:
        """Where the files of a result lie; NotFound until it is done, and for another owner's."""
        sql = "SELECT owner FROM results WHERE id = ? AND owner = coalesce(?, owner)"
        row = self.database.read(lambda connection: connection.execute(sql, (job_id, owner)).fetchone())
        if row is None:
            raise NotFound(f"there is no result {job_id!r}")
        return owner_home(self.root, row["owner"]).results / job_id

    def results(
        self, owner: str | None = None, person: str | None = None, before: str | None = None, limit: int = 50,
        subject: TrainKind = TrainKind.PERSON,
    ) -> tuple[JobResult, ...]:  # fmt: skip
        """Results, newest first; `before` is the `result_cursor` of the last one seen."""
        sql = "SELECT id FROM results WHERE owner = coalesce(?, owner) AND people LIKE ? AND seq < ? ORDER BY seq DESC LIMIT ?"
        place = place_of(before)
        named = "%" if person is None else _like(person, subject)
        values = (owner, named, 2**62 if place is None else place, max(1, min(limit, _PAGE)))
        rows = self.database.read(lambda connection: connection.execute(sql, values).fetchall())
        found = []
        for row in rows:
            with suppress(NotFound):
                found.append(self.result(row["id"]))
        return tuple(found)

    def result_cursor(self, result: JobResult) -> str:
        """Where in a listing the result stands."""
        sql = "SELECT seq FROM results WHERE id = ?"
        row = self.database.read(lambda connection: connection.execute(sql, (result.id,)).fetchone())
        if row is None:
            raise NotFound(f"there is no result {result.id!r}")
        return str(row["seq"])

    def forget_result(self, job_id: str, owner: str | None = None) -> tuple[Path, ...]:
        """Remove a result with its files, which are returned; the job stays."""
        files = remove_folder(self.result_folder(job_id, owner))
        self.database.write(lambda connection: connection.execute("DELETE FROM results WHERE id = ?", (job_id,)) and None)
        return files

    def forget(self, job_ids: Sequence[str]) -> tuple[Path, ...]:
        """Remove ended jobs with their folders, whose files are returned; their results stay.

        Raises:
            Conflict: One of them has not ended; nothing was removed.
        """
        jobs = [self.get(job_id) for job_id in job_ids]
        busy = next((job for job in jobs if not job.state.ended), None)
        if busy is not None:
            raise Conflict(f"the job {busy.id} has not ended; cancel it first and wait until it has")
        files = tuple(file for job in jobs for file in remove_folder(self.folder(job.id)))
        self.database.write(lambda connection: _drop(connection, job_ids))
        return files

    def jobs_of(self, owner: str, person: str, subject: TrainKind = TrainKind.PERSON) -> tuple[Job, ...]:
        """Every job of an owner that is about a person (or a scene, a garment), oldest first."""
        sql = "SELECT * FROM jobs WHERE owner = ? AND people LIKE ? ORDER BY seq"
        return self._jobs(sql, (owner, _like(person, subject)))

    def pending_webhooks(self) -> tuple[Delivery, ...]:
        """Ended jobs whose webhook has not been told yet."""
        sql = (
            "SELECT * FROM jobs WHERE webhook IS NOT NULL AND webhook_tries >= 0"
            " AND state IN ('done', 'failed', 'cancelled') ORDER BY seq"
        )
        rows = self.database.read(lambda connection: connection.execute(sql).fetchall())
        return tuple(Delivery(job=job_of(row), url=row["webhook"], tries=row["webhook_tries"]) for row in rows)

    def webhook_done(self, job_id: str, ok: bool, final: bool = False) -> None:
        """Note that a webhook was told (`ok`), or a try failed; after a `final` one, or `WEBHOOK_TRIES`, it is given up."""
        row = self._row(job_id, None)
        tries = TOLD if ok or final or row["webhook_tries"] + 1 >= WEBHOOK_TRIES else row["webhook_tries"] + 1
        if tries == TOLD:
            with suppress(NotFound):
                write_text(QueueFolder(self.folder(job_id)).told, "told\n" if ok else "given up\n")
        sql = "UPDATE jobs SET webhook_tries = ? WHERE id = ?"
        self.database.write(lambda connection: connection.execute(sql, (tries, job_id)) and None)

    def counts(self) -> Mapping[JobState, int]:
        """How many jobs there are in each state."""
        sql = "SELECT state, count(*) FROM jobs GROUP BY state"
        found = dict(self.database.read(lambda connection: [tuple(row) for row in connection.execute(sql)]))
        return {state: int(found.get(state.value, 0)) for state in JobState}

    def close(self) -> None:
        """Let go of the database and of the mark."""
        self._builder.close()
        self.database.close()

    def _last_place(self) -> int:
        sql = "SELECT coalesce(max(seq), 0) FROM jobs"
        return int(self.database.read(lambda connection: connection.execute(sql).fetchone()[0]))

    def _row(self, job_id: str, owner: str | None) -> sqlite3.Row:
        sql = "SELECT * FROM jobs WHERE id = ? AND owner = coalesce(?, owner)"
        row: sqlite3.Row | None = self.database.read(lambda connection: connection.execute(sql, (job_id, owner)).fetchone())
        if row is None:
            raise NotFound(f"there is no job {job_id!r}; easyphoto jobs list shows those there are")
        return row

    def _jobs(self, sql: str, values: tuple[object, ...]) -> tuple[Job, ...]:
        return self.database.read(lambda connection: tuple(map(job_of, connection.execute(sql, values).fetchall())))


def place_of(cursor: str | None) -> int | None:
    """The sequence number in a cursor; raises SpecError for what is none."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise SpecError(f"the cursor {cursor[:40]!r} is none; take it from the page before")
    return int(cursor)


def _enter(connection: sqlite3.Connection, entry: Entry) -> Job:
    """Add the job, or find the one that it is the same as."""
    slip = entry.slip
    if slip.idempotency_key is not None:
        sql = "SELECT * FROM jobs WHERE owner = ? AND idempotency_key = ?"
        row = connection.execute(sql, (slip.owner, slip.idempotency_key)).fetchone()
        if row is not None and row["fingerprint"] != slip.fingerprint:
            raise Conflict("this idempotency key was used for another request; take a new key for a new request")
        if row is not None:
            return job_of(row)
    return insert(connection, entry)


def _job(connection: sqlite3.Connection, job_id: str) -> Job:
    row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no job {job_id!r}; easyphoto jobs list shows those there are")
    return job_of(row)


def _drop(connection: sqlite3.Connection, job_ids: Sequence[str]) -> None:
    connection.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in job_ids])


def _like(person: str, subject: TrainKind = TrainKind.PERSON) -> str:
    return f"%{people_column([person], subject)}%"
