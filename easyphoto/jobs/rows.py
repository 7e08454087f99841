"""Rows of the queue's database to records and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from easyphoto.errors import SpecError
from easyphoto.jobs.database import BrokenRow, next_version
from easyphoto.jobs.folders import KIND_OF, End, Slip
from easyphoto.orders import CheckOrder, Order, PortraitOrder, TrainOrder
from easyphoto.records import TrainKind
from easyphoto.store.codec import from_json, to_json
from easyphoto.store.paths import person_id
from easyphoto.work import Failure, Job, JobKind, JobProgress, JobResult, JobState

TOLD = -1
"""In the place of the number of tries: the webhook has been told, or given up."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Everything that a new row says."""

    slip: Slip
    order: Order
    end: End | None = None
    told: bool = False
    cancel_asked: bool = False


def subject_of(order: Order) -> TrainKind:
    """What an order's names are names of."""
    if isinstance(order, TrainOrder):
        return order.spec.kind
    return order.kind if isinstance(order, CheckOrder) else TrainKind.PERSON


def names_in(order: Order, subject: TrainKind = TrainKind.PERSON) -> tuple[str, ...]:
    """The names of the people an order speaks of; of scenes or clothes where those are asked for."""
    if subject_of(order) is not subject:
        return ()
    if isinstance(order, TrainOrder):
        return (order.spec.person,)
    if isinstance(order, CheckOrder):
        return (order.person,) if order.person.strip() else ()
    if isinstance(order, PortraitOrder):
        return tuple(dict.fromkeys(name for name in order.people if name))
    return ()


def names_of(result: JobResult, subject: TrainKind = TrainKind.PERSON) -> tuple[str, ...]:
    """The names of the people a result shows; of scenes or clothes where those are asked for."""
    shown = [face.person for picture in result.pictures for face in picture.faces] if subject is TrainKind.PERSON else []
    trained = [result.person] if result.person and result.subject is subject else []
    return tuple(dict.fromkeys([*trained, *shown]))


def people_column(names: Iterable[str], subject: TrainKind = TrainKind.PERSON) -> str:
    """Ids as one text that `LIKE` finds each in; a person's has no slash, so a scene of their name is not taken for them."""
    mark = "" if subject is TrainKind.PERSON else f"{subject.value}/"
    return "|" + "|".join(mark + person_id(name) for name in names) + "|"


def subject_in(column: str) -> TrainKind:
    """What the ids in such a text are ids of."""
    named = column.strip("|").partition("/")[0]
    return next((kind for kind in TrainKind if kind.value == named and "/" in column), TrainKind.PERSON)


def insert(connection: sqlite3.Connection, entry: Entry) -> Job:
    """Add a job's row behind all others, unless it is there already or its owner has another job with its key.

    Returns:
        The job of the row, as it is where the row was new.
    """
    slip, end, subject = entry.slip, entry.end, subject_of(entry.order)
    names, version = names_in(entry.order, subject), next_version(connection)
    connection.execute(
        "INSERT OR IGNORE INTO jobs (id, owner, kind, state, priority, created, started, ended, attempt, failure, person,"
        " people, idempotency_key, fingerprint, webhook, webhook_tries, cancel_asked, age_at_end, version)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            slip.id, slip.owner, slip.kind.value, (end.state if end else JobState.QUEUED).value, slip.priority, slip.created,
            end and end.started, end and end.ended, end.attempt if end else 0, _failure_text(end), names[0] if names else None,
            people_column(names, subject), slip.idempotency_key, slip.fingerprint, slip.webhook, TOLD if entry.told else 0,
            int(entry.cancel_asked), age(connection) if end else None, version,
        ),
    )  # fmt: skip
    return Job(
        id=slip.id, kind=slip.kind, owner=slip.owner, state=end.state if end else JobState.QUEUED, created=slip.created,
        priority=slip.priority, started=end.started if end else None, ended=end.ended if end else None,
        attempt=end.attempt if end else 0, failure=end.failure if end else None, person=names[0] if names else None,
        subject=subject if names else TrainKind.PERSON, idempotency_key=slip.idempotency_key, cancel_asked=entry.cancel_asked,
        version=version,
    )  # fmt: skip


def is_known(connection: sqlite3.Connection, job_id: str) -> bool:
    """Whether the job has a row."""
    return connection.execute("SELECT 1 FROM jobs WHERE id = ?", (job_id,)).fetchone() is not None


def settle(connection: sqlite3.Connection, job_id: str, end: End) -> None:
    """Write a job's end into its row."""
    connection.execute(
        "UPDATE jobs SET state = ?, ended = ?, started = coalesce(?, started), failure = ?, age_at_end = ?, version = ?"
        " WHERE id = ?",
        (end.state.value, end.ended, end.started, _failure_text(end), age(connection), next_version(connection), job_id),
    )


def insert_result(connection: sqlite3.Connection, result: JobResult) -> None:
    """Add a result's row; one that is there already is left alone."""
    connection.execute(
        "INSERT OR IGNORE INTO results (id, owner, kind, people, age_at_end) VALUES (?, ?, ?, ?, ?)",
        (
            result.id, result.owner, result.kind.value,
            people_column(names_of(result, result.subject), result.subject), age(connection),
        ),
    )


def age(connection: sqlite3.Connection) -> float:
    """The retention clock: seconds that have passed for sure since the database was made."""
    row = connection.execute("SELECT value FROM facts WHERE name = 'age'").fetchone()
    return float(row[0]) if row else 0.0


def job_of(row: sqlite3.Row) -> Job:
    """The job in a row; raises BrokenRow where the file was damaged."""
    try:
        failure = row["failure"]
        return Job(
            id=row["id"], kind=JobKind(row["kind"]), owner=row["owner"], state=JobState(row["state"]), created=row["created"],
            priority=int(row["priority"]), started=row["started"], ended=row["ended"], attempt=int(row["attempt"]),
            progress=JobProgress(**json.loads(row["progress"])),
            failure=None if failure is None else from_json(Failure, json.loads(failure)), person=row["person"],
            subject=subject_in(row["people"]),
            idempotency_key=row["idempotency_key"], cancel_asked=bool(row["cancel_asked"]), version=int(row["version"]),
        )  # fmt: skip
    except (ValueError, TypeError, RecursionError, SpecError) as error:
        raise BrokenRow(f"malformed row: {error}") from error


def progress_text(progress: JobProgress) -> str:
    """A job's progress as its column holds it."""
    return json.dumps(to_json(progress))


def _failure_text(end: End | None) -> str | None:
    return None if end is None or end.failure is None else json.dumps(to_json(end.failure))


def kind_of(order: Order) -> JobKind:
    """What an order asks for."""
    return KIND_OF[type(order)]


def result_path(folder: Path) -> Path:
    """Where a result's folder says what it holds."""
    return folder / "result.json"
