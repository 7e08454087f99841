"""What is kept how long: photos handed in, ended jobs, results.

Age is not read from the wall clock, which can jump: the database counts the seconds that have passed for sure (`rows.age`),
at most a day between two runs of the worker, and each job's end is written down in that count. A clock that is set years
ahead makes nothing older than a day; one that is set back makes nothing younger.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from easyphoto.errors import EasyPhotoError, SpecError
from easyphoto.jobs.folders import QueueFolder
from easyphoto.jobs.rows import age, subject_in
from easyphoto.jobs.store import JobStore
from easyphoto.store.paths import owner_home
from easyphoto.store.people import PeopleStore
from easyphoto.training.launch import remove_begun
from easyphoto.work import JobKind, JobState

logger = logging.getLogger(__name__)

DAY = 86_400.0
_FIRST_PAUSE, _PAUSE = 5.0, 3600.0
"""Seconds before the first sweep, and between two."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Days; None keeps for good."""

    inputs: float | None = 7.0
    """Photos handed in with jobs that failed or were cancelled, and pictures of any job's way. Those of jobs that are done
    go at once."""
    jobs: float | None = 30.0
    """Ended jobs with their logs."""
    results: float | None = None
    """Results."""

    @staticmethod
    def from_env(env: Mapping[str, str] | None = None) -> Rule:
        """The rule with `EASYPHOTO_KEEP_INPUTS_DAYS`, `_JOBS_DAYS` and `_RESULTS_DAYS`; raises SpecError for no number."""
        env = os.environ if env is None else env
        said = {name: _days(f"EASYPHOTO_KEEP_{name.upper()}_DAYS", env) for name in ("inputs", "jobs", "results")}
        return Rule(**{name: value for name, value in said.items() if value is not None})


def _days(name: str, env: Mapping[str, str]) -> float | None:
    text = env.get(name, "").strip()
    if not text:
        return None
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < 1e6:
        raise SpecError(f"{name} must be a number of days, got {text[:40]!r}")
    return days


def tick(store: JobStore, passed: float | None) -> float:
    """Move the retention clock on, and return it in seconds.

    Args:
        store: The queue.
        passed: Seconds by a clock that cannot jump; None after a start, when only the wall clock knows.
    """

    def move(connection: sqlite3.Connection) -> float:
        seen = connection.execute("SELECT value FROM facts WHERE name = 'seen'").fetchone()
        wall = time.time()
        since = wall - float(seen[0]) if seen else 0.0
        more = max(0.0, min(since, DAY)) if passed is None else passed
        if passed is None and since > DAY:
            logger.info("the clock says that %.0f days have passed since the queue last ran; one is counted", since / DAY)
        later = age(connection) + more
        # A clock that was set far back was wrong before: what it says now counts from here.
        kept = wall if seen is None or since < -DAY else max(wall, float(seen[0]))
        for name, value in (("age", later), ("seen", kept)):
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
        return later

    return store.database.write(move)


def sweep(store: JobStore, rule: Rule, age_now: float) -> None:
    """Remove what is older than the rule says, as of `age_now` seconds of the retention clock."""
    for row in _ended(store):
        folder = QueueFolder(store.folder(row["id"]))
        old = _older(rule.inputs, row, age_now)
        if (old or row["state"] == JobState.DONE.value) and folder.inputs.is_dir():
            folder.drop_inputs()
            _drop_training(store, row)
        if old:
            folder.drop_previews()
        if _older(rule.jobs, row, age_now):
            with suppress(EasyPhotoError):
                store.forget([row["id"]])
    sql = "SELECT id, age_at_end FROM results"
    for row in store.database.read(lambda connection: connection.execute(sql).fetchall()):
        if _older(rule.results, row, age_now):
            with suppress(EasyPhotoError):
                store.forget_result(row["id"])


def _ended(store: JobStore) -> list[sqlite3.Row]:
    sql = "SELECT id, owner, kind, state, person, people, age_at_end FROM jobs WHERE age_at_end IS NOT NULL ORDER BY seq"
    return store.database.read(lambda connection: connection.execute(sql).fetchall())


def _older(days: float | None, row: sqlite3.Row, age_now: float) -> bool:
    return days is not None and age_now - row["age_at_end"] >= days * DAY


def _drop_training(store: JobStore, row: sqlite3.Row) -> None:
    if row["kind"] == JobKind.TRAINING.value and row["person"]:
        with suppress(EasyPhotoError):
            shelf = owner_home(store.root, row["owner"]).shelf(subject_in(row["people"]))
            remove_begun(PeopleStore(shelf), row["person"], row["id"])


def keep_sweeping(store: JobStore, rule: Rule, stop: threading.Event) -> None:
    """Sweep soon and then every hour, until `stop` is set."""
    passed: float | None = None
    # First the runner brings the queue into order.
    if stop.wait(_FIRST_PAUSE):
        return
    while True:
        began = time.monotonic()
        try:
            sweep(store, rule, tick(store, passed))
        except EasyPhotoError as error:
            logger.warning("what is too old could not be removed: %s", error)
        if stop.wait(_PAUSE):
            return
        passed = time.monotonic() - began
