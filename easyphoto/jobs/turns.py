"""What the one runner of a home does to the queue: takes jobs, notes how far they are, and writes down how they end."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from easyphoto.errors import EasyPhotoError, JobFailed, NotFound
from easyphoto.events import Event
from easyphoto.jobs.building import remove_forsaken
from easyphoto.jobs.database import next_version
from easyphoto.jobs.eventlog import append_event
from easyphoto.jobs.folders import End, QueueFolder, job_folders, now, remove_folder
from easyphoto.jobs.recovery import read_entry
from easyphoto.jobs.results import read_result, remove_half_made
from easyphoto.jobs.rows import insert, insert_result, is_known, job_of, progress_text, settle
from easyphoto.jobs.store import JobQuery, JobStore
from easyphoto.orders import Order
from easyphoto.store.paths import owner_home, owner_homes
from easyphoto.work import Failure, Job, JobProgress, JobResult, JobState

MOST_ATTEMPTS = 6
"""A job whose runner was killed so often while it ran is given up: it may be what kills it."""
_SAME_PERSON = (
    "kind = 'training' AND EXISTS (SELECT 1 FROM jobs AS other WHERE other.id IN ({marks}) AND other.kind = 'training'"
    " AND other.owner = jobs.owner AND other.people = jobs.people)"
)
"""Two trainings of one person run one after the other, or the later one may publish first and the earlier one be refused."""
WAITING = "waiting for the GPU"
"""The stage of a job that another one keeps from the GPU."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A job that was taken, and is this runner's until it ends."""

    job: Job
    order: Order
    folder: QueueFolder


class Turns:
    """The runner's side of a queue; whoever uses it holds the runner's lock."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._database = store.database

    def version(self) -> int:
        """Grows with every change of any job."""
        sql = "SELECT value FROM facts WHERE name = 'version'"
        return int(self._database.read(lambda connection: connection.execute(sql).fetchone()[0]))

    def claim(self, busy: Collection[str] = (), only: str | None = None) -> Turn | None:
        """Take the next job; None if none waits. What turns out to be over, or cannot be run, is settled on the way.

        Args:
            busy: Jobs that this runner has already, whatever the database says (it may have been made anew).
            only: Take this one or none.
        """
        while True:
            # Not flushed: after a power cut the job waits again, or its end lies on the disk.
            taken = self._database.write(lambda connection: self._take(connection, busy, only), durable=False)
            if not isinstance(taken, str):
                return taken

    def _take(self, connection: sqlite3.Connection, busy: Collection[str], only: str | None) -> Turn | str | None:
        """The turn; the id of a job that was settled instead; or None."""
        marks = ", ".join("?" * len(busy))
        sql = (
            f"SELECT * FROM jobs WHERE state = 'queued' AND id = coalesce(?, id) AND id NOT IN ({marks})"  # noqa: S608 (marks)
            f" AND NOT ({_SAME_PERSON.format(marks=marks)}) ORDER BY priority DESC, seq LIMIT 1"
        )
        row = connection.execute(sql, (only, *busy, *busy)).fetchone()
        if row is None:
            return None
        job = job_of(row)
        folder = QueueFolder(self._store.folder(job.id))
        try:
            if self._settle_ended(connection, job):
                return job.id
            if job.attempt >= MOST_ATTEMPTS:
                raise JobFailed(f"the job was begun {job.attempt} times and killed each time; see {folder.log}")
            order = folder.read_order()[1]
        except EasyPhotoError as error:
            self._fail(connection, job, error)
            return job.id
        connection.execute(
            "UPDATE jobs SET state = 'running', attempt = attempt + 1, started = coalesce(started, ?), version = ?"
            " WHERE id = ?",
            (now(), next_version(connection), job.id),
        )
        row = connection.execute("SELECT * FROM jobs WHERE id = ?", (job.id,)).fetchone()
        return Turn(job=job_of(row), order=order, folder=folder)

    def _settle_ended(self, connection: sqlite3.Connection, job: Job) -> bool:
        """Write into the row what the disk says of an end that a crash kept from it; whether there was one."""
        folder = QueueFolder(self._store.folder(job.id))
        result = read_result(owner_home(self._store.root, job.owner).results / job.id)
        end = folder.read_end()
        if end is None and result is not None:
            end = folder.write_end(End(state=JobState.DONE, ended=now(), started=job.started, attempt=job.attempt))
        if end is None:
            return False
        if result is not None:
            insert_result(connection, result)
        settle(connection, job.id, end)
        return True

    def _fail(self, connection: sqlite3.Connection, job: Job, error: EasyPhotoError) -> None:
        tail = QueueFolder(self._store.folder(job.id)).log_tail()
        failure = Failure(code=error.code, sentence=str(error), log_tail=tail)
        end = End(state=JobState.FAILED, ended=now(), started=job.started, attempt=job.attempt, failure=failure)
        with suppress(NotFound):
            end = QueueFolder(self._store.folder(job.id)).write_end(end)
        settle(connection, job.id, end)

    def note(self, job_id: str, progress: JobProgress) -> None:
        """Note how far a job is; not flushed, for it is worth nothing after a power cut."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE jobs SET progress = ?, state = 'running', version = ? WHERE id = ? AND state IN ('queued', 'running')",
                (progress_text(progress), next_version(connection), job_id),
            )

        self._database.write(write, durable=False)

    def say(self, turn: Turn, event: Event) -> None:
        """Add an event of a job."""
        append_event(turn.folder.events, event)

    def wants_stop(self, job_id: str) -> bool:
        """Whether somebody asked to cancel the job, or it is gone."""
        try:
            job = self._store.get(job_id)
        except NotFound:
            return True
        return job.cancel_asked or job.state.ended

    def finish(self, turn: Turn, end: End, result: JobResult | None = None) -> None:
        """Write down how a job ended: on the disk first, then in the row.

        Raises:
            StorageError: The disk is full; to be tried again.
        """
        with suppress(NotFound):
            end = turn.folder.write_end(end)

        def write(connection: sqlite3.Connection) -> None:
            if result is not None:
                insert_result(connection, result)
            settle(connection, turn.job.id, end)

        # The files above are flushed, and the row is written from them again should a power cut lose it.
        self._database.write(write, durable=False)

    def put_back(self, job_id: str) -> None:
        """Let a job wait again that was stopped with its runner and not killed: this beginning does not count."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE jobs SET state = 'queued', attempt = max(0, attempt - 1), version = ?"
                " WHERE id = ? AND state = 'running'",
                (next_version(connection), job_id),
            )

        self._database.write(write)

    def recover(self) -> tuple[Job, ...]:
        """Bring the queue into order after a runner that was killed; returns the jobs that it had not ended.

        Half-made folders go. A job that had come to its end is settled; one that was to be cancelled is; every other
        one waits again in its old place. A whole folder without a row is a job again.
        """
        remove_forsaken(self._store.queue)
        for home in owner_homes(self._store.root):
            remove_half_made(home)
        self._database.write(self._match_folders)
        return tuple(job for job in self._running() if self._database.write(partial(self._bring_back, job)))

    def _running(self) -> tuple[Job, ...]:
        found: list[Job] = []
        before: str | None = None
        while jobs := self._store.list(JobQuery(state=JobState.RUNNING, before=before, limit=1000)):
            found.extend(jobs)
            before = self._store.cursor(jobs[-1])
        return tuple(found)

    def _bring_back(self, job: Job, connection: sqlite3.Connection) -> bool:
        """Settle a job that a killed runner left, or let it wait again; whether it waits."""
        if self._settle_ended(connection, job):
            return False
        if job.cancel_asked:
            end = End(state=JobState.CANCELLED, ended=now(), started=job.started, attempt=job.attempt)
            with suppress(NotFound):
                end = QueueFolder(self._store.folder(job.id)).write_end(end)
            settle(connection, job.id, end)
            return False
        # Whoever only waited for the GPU did not kill the runner.
        attempt = job.attempt - (job.progress.stage == WAITING)
        sql = "UPDATE jobs SET state = 'queued', attempt = ?, version = ? WHERE id = ?"
        connection.execute(sql, (attempt, next_version(connection), job.id))
        return True

    def _match_folders(self, connection: sqlite3.Connection) -> None:
        """Rows for whole folders that have none; no rows of ended jobs whose folders are gone."""
        rows = {row["id"]: row["state"] for row in connection.execute("SELECT id, state FROM jobs")}
        folders = {folder.root.name: folder for folder in job_folders(self._store.queue)}
        for job_id in folders.keys() - rows.keys():
            entry = read_entry(folders[job_id])
            if entry is not None:
                insert(connection, entry)
                if not is_known(connection, job_id):
                    # Handed in by a process that died before it could say so; the same request came again and was taken.
                    remove_folder(folders[job_id].root)
        gone = [(job_id,) for job_id in rows.keys() - folders.keys() if JobState(rows[job_id]).ended]
        connection.executemany("DELETE FROM jobs WHERE id = ?", gone)
        there = {path for home in owner_homes(self._store.root) for path in home.results.glob("*")}
        lost = [
            (row["id"],)
            for row in connection.execute("SELECT id, owner FROM results").fetchall()
            if owner_home(self._store.root, row["owner"]).results / row["id"] not in there
        ]
        connection.executemany("DELETE FROM results WHERE id = ?", lost)
