"""A database that is damaged, gone or of another version; each time every job is found again from the folders."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from easyphoto.errors import StorageError
from easyphoto.jobs.folders import End, QueueFolder, now
from easyphoto.jobs.results import ResultFolder
from easyphoto.jobs.store import JobStore, NewJob
from easyphoto.jobs.turns import Turns
from easyphoto.orders import DrillOrder
from easyphoto.settings import PROJECT_ROOT
from easyphoto.store.paths import owner_home
from easyphoto.work import Failure, JobKind, JobResult, JobState
from tests.jobs.conftest import drill


def no_header(path: Path) -> None:
    path.write_bytes(b"\x00" * 100 + path.read_bytes()[100:])


def noise(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def another_database(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE jobs (something TEXT)")
        connection.commit()


def spoiled_middle(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        for place in range(4096, size, 4096):
            file.seek(place)
            file.write(b"\xff" * 200)


def gone(path: Path) -> None:
    path.unlink()


def odd_row(path: Path) -> None:
    """Sound for SQLite, nonsense for us."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE jobs SET state = 'dancing'")
        connection.commit()


DAMAGES = [no_header, noise, cut_short, emptied, another_database, spoiled_middle, gone, odd_row]


def fill(home: Path) -> dict[str, JobState]:
    """One job in each state; the database is closed, so that everything lies in its one file."""
    with closing(JobStore(home)) as store:
        turns = Turns(store)
        done = drill(store, owner="ann")
        turn = turns.claim()
        assert turn is not None
        result = JobResult(id=done.id, kind=JobKind.DRILL, owner="ann", created=now())
        turns.finish(turn, End(state=JobState.DONE, ended=now()), ResultFolder(owner_home(home, "ann"), done.id).commit(result))
        failed = drill(store, priority=3)
        turn = turns.claim()
        assert turn is not None
        failure = Failure(code="storage", sentence="The disk is full.", log_tail=("a", "b"))
        turns.finish(turn, End(state=JobState.FAILED, ended=now(), failure=failure))
        cancelled = drill(store)
        store.cancel(cancelled.id)
        runs = drill(store, webhook="https://x")
        assert turns.claim() is not None
        waits = store.submit(NewJob(order=DrillOrder(steps=7), idempotency_key="k", priority=-2))
        return {
            done.id: JobState.DONE, failed.id: JobState.FAILED, cancelled.id: JobState.CANCELLED,
            runs.id: JobState.QUEUED, waits.id: JobState.QUEUED,
        }  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_every_job_is_found_again_in_its_state(home: Path, damage: Callable[[Path], None]) -> None:
    expected = fill(home)
    path = home / "queue" / "jobs.sqlite"
    damage(path)
    with closing(JobStore(home)) as store:
        jobs = {job.id: job for job in store.list()}
        assert {job_id: job.state for job_id, job in jobs.items()} == expected
        done, failed, _, _, waits = expected
        assert store.result(done, "ann").id == done
        assert jobs[failed].failure == Failure(code="storage", sentence="The disk is full.", log_tail=("a", "b"))
        assert (jobs[waits].priority, jobs[waits].idempotency_key) == (-2, "k")
        assert store.submit(NewJob(order=DrillOrder(steps=7), idempotency_key="k")).id == waits
        assert [job.id for job in reversed(store.list())] == list(expected), "in the old order"
    if damage is not gone:
        assert len(list(path.parent.glob("jobs.sqlite.broken-*"))) >= 1, "set aside, not thrown away"


def test_versions_go_on_growing_so_that_nobody_who_follows_misses_a_change(home: Path) -> None:
    fill(home)
    with closing(JobStore(home)) as store:
        before = store.changes(0)[-1].version
    noise(home / "queue" / "jobs.sqlite")
    with closing(JobStore(home)) as store:
        assert len(store.changes(before)) == 5


def test_a_store_that_is_open_while_the_database_is_replaced_goes_on_with_the_new_one(home: Path) -> None:
    with closing(JobStore(home)) as first:
        kept = drill(first)
        path = home / "queue" / "jobs.sqlite"
        for old in path.parent.glob("jobs.sqlite*"):
            old.unlink()
        with closing(JobStore(home)) as second:
            later = drill(second)
        assert {job.id for job in first.list()} == {kept.id, later.id}
        assert first.cancel(kept.id).state is JobState.CANCELLED


OPEN = """
import sys
from pathlib import Path
from easyphoto.jobs.store import JobStore
print(len(JobStore(Path(sys.argv[1])).list()))
"""


def test_many_processes_that_find_it_broken_make_it_anew_once(home: Path) -> None:
    fill(home)
    noise(home / "queue" / "jobs.sqlite")
    words = [sys.executable, "-c", OPEN, str(home)]
    processes = [subprocess.Popen(words, cwd=PROJECT_ROOT, stdout=subprocess.PIPE) for _ in range(4)]
    assert [process.communicate()[0].strip() for process in processes] == [b"5"] * 4
    assert len(list((home / "queue").glob("jobs.sqlite.broken-*[0-9]"))) == 1


def test_a_database_of_a_newer_version_is_left_alone(home: Path) -> None:
    fill(home)
    path = home / "queue" / "jobs.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(StorageError, match="newer version"):
        JobStore(home)
    assert not list(path.parent.glob("*.broken-*"))


def test_a_folder_whose_order_is_broken_disturbs_no_other(home: Path) -> None:
    expected = fill(home)
    last = list(expected)[-1]
    (home / "queue" / last / "order.json").write_text("{")
    gone(home / "queue" / "jobs.sqlite")
    with closing(JobStore(home)) as store:
        assert {job.id for job in store.list()} == set(expected) - {last}
    assert QueueFolder(home / "queue" / last).order.exists(), "left for a person to look at"


def test_a_made_again_queue_knows_which_webhooks_were_told(home: Path) -> None:
    with closing(JobStore(home)) as store:
        told, open_one = drill(store, webhook="https://x/a"), drill(store, webhook="https://x/b")
        for job in (told, open_one):
            store.cancel(job.id)
        store.webhook_done(told.id, ok=True)
    gone(home / "queue" / "jobs.sqlite")
    with closing(JobStore(home)) as store:
        assert [delivery.job.id for delivery in store.pending_webhooks()] == [open_one.id]
