"""Handing in, looking up, cancelling and forgetting: on a real database and real folders."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from easyphoto.errors import Conflict, NameRefused, NotFound, SpecError, StorageError
from easyphoto.jobs.folders import QueueFolder
from easyphoto.jobs.store import WEBHOOK_TRIES, Input, JobQuery, JobStore, NewJob, input_name
from easyphoto.orders import CheckOrder, DrillOrder, PortraitOrder
from easyphoto.settings import PROJECT_ROOT
from easyphoto.work import JobKind, JobState
from tests.jobs.conftest import drill


def check(person: str = "Ada", data: bytes = b"photo", **said) -> tuple[NewJob, tuple[Input, ...]]:
    name = input_name(0, "me.jpg")
    return NewJob(order=CheckOrder(photos=(Path("inputs") / name,), person=person), **said), (Input(name=name, data=data),)


def test_a_job_that_was_taken_is_on_the_disk_whole(store: JobStore, home: Path) -> None:
    new, inputs = check()
    job = store.submit(new, inputs)
    assert (job.state, job.kind, job.person, job.attempt) == (JobState.QUEUED, JobKind.CHECK, "Ada", 0)
    assert store.get(job.id) == job
    assert store.order(job.id) == new.order
    assert (store.folder(job.id) / "inputs" / "0000" / "me.jpg").read_bytes() == b"photo"
    assert [path.name for path in (home / "queue").iterdir() if path.is_dir()] == [job.id], "nothing half-made is left"


def test_another_process_sees_it_at_once(store: JobStore, home: Path) -> None:
    job = drill(store)
    code = "import sys; from pathlib import Path; from easyphoto.jobs.store import JobStore\n"
    code += "print(JobStore(Path(sys.argv[1])).get(sys.argv[2]).state.value)"
    seen = subprocess.run([sys.executable, "-c", code, str(home), job.id], cwd=PROJECT_ROOT, capture_output=True, check=True)
    assert seen.stdout.strip() == b"queued"


def test_an_input_can_be_a_file(store: JobStore, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x" * 3_000_000)
    new, (item,) = check()
    job = store.submit(new, [replace(item, data=tmp_path / "a.jpg")])
    assert (store.folder(job.id) / "inputs" / item.name).stat().st_size == 3_000_000
    with pytest.raises(NotFound):
        store.submit(new, [replace(item, data=tmp_path / "none.jpg")])


@pytest.mark.parametrize(
    ("original", "kept"),
    [
        ("me.jpg", "0000/me.jpg"),
        ("../../etc/passwd", "0000/passwd"),
        ("C:\\photos\\me.jpg", "0000/me.jpg"),
        ("..", "0000/file"),
        ("", "0000/file"),
        ("a\x00b\n.png", "0000/a_b_.png"),
        ("con.jpg", "0000/_con.jpg"),
        ("Zoë 阿梅.jpg", "0000/Zoë 阿梅.jpg"),
        ("x" * 300 + ".jpeg", "0000/" + "x" * 115 + ".jpeg"),
    ],
)
def test_an_inputs_name_is_safe_and_stays_readable(original: str, kept: str) -> None:
    assert input_name(0, original) == kept


@pytest.mark.parametrize("name", ["me.jpg", "../me.jpg", "0000/../me.jpg", "0000/a/b.jpg", "/etc/passwd", "0000/.hidden/"])
def test_an_input_of_another_name_is_refused_and_leaves_nothing(store: JobStore, home: Path, name: str) -> None:
    with pytest.raises(SpecError):
        store.submit(check()[0], [Input(name=name, data=b"x")])
    assert not [path for path in (home / "queue").iterdir() if path.is_dir()]


def test_the_same_key_and_request_are_one_job(store: JobStore, home: Path) -> None:
    new, inputs = check(idempotency_key="k")
    first = store.submit(new, inputs)
    assert store.submit(new, inputs).id == first.id
    assert len([path for path in (home / "queue").iterdir() if path.is_dir()]) == 1
    with pytest.raises(Conflict):
        store.submit(new, [replace(inputs[0], data=b"another photo")])
    with pytest.raises(Conflict):
        store.submit(check("Bob", idempotency_key="k")[0], inputs)
    assert store.submit(replace(new, owner="other"), inputs).id != first.id, "another owner's keys are their own"
    assert store.submit(replace(new, idempotency_key=None), inputs).id != first.id


def test_a_request_with_something_drawn_at_random_is_told_by_its_fingerprint(store: JobStore) -> None:
    def order(seed: int) -> PortraitOrder:
        return PortraitOrder(templates=(Path("inputs/0000/t.jpg"),), people=("Ada",), seed=seed)

    first = store.submit(NewJob(order=order(1), idempotency_key="k", fingerprint="f"))
    assert store.submit(NewJob(order=order(2), idempotency_key="k", fingerprint="f")).id == first.id


def test_many_threads_with_one_key_get_one_job(store: JobStore) -> None:
    ids: list[str] = []

    def hand_in() -> None:
        ids.append(store.submit(NewJob(order=DrillOrder(), idempotency_key="one")).id)

    threads = [threading.Thread(target=hand_in) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(ids), len(set(ids)), len(store.list())) == (8, 1, 1)


SUBMIT = """
import sys
from pathlib import Path
from easyphoto.jobs.store import JobStore, NewJob
from easyphoto.orders import DrillOrder
store = JobStore(Path(sys.argv[1]))
print(*[store.submit(NewJob(order=DrillOrder())).id for _ in range(25)])
"""


def test_processes_and_threads_at_once_lose_no_job_and_keep_each_ones_order(home: Path) -> None:
    """Nobody has opened this queue before: the database is made by the first of them."""
    words = [sys.executable, "-c", SUBMIT, str(home)]
    processes = [subprocess.Popen(words, cwd=PROJECT_ROOT, stdout=subprocess.PIPE) for _ in range(4)]
    handed_in = [process.communicate()[0].decode().split() for process in processes]
    store = JobStore(home)
    listed = [job.id for job in reversed(store.list(JobQuery(limit=1000)))]
    store.close()
    assert sorted(listed) == sorted(job_id for ids in handed_in for job_id in ids)
    for ids in handed_in:
        assert [job_id for job_id in listed if job_id in set(ids)] == ids


def test_another_owner_sees_nothing(store: JobStore) -> None:
    job = drill(store, owner="ann")
    assert store.get(job.id, "ann") == job
    for call in (store.get, store.cancel, store.result):
        with pytest.raises(NotFound):
            call(job.id, "bob")
    assert store.list(JobQuery(owner="bob")) == ()
    assert store.get(job.id).state is JobState.QUEUED


@pytest.mark.parametrize("owner", ["", "../x", "a/b", "A", "x" * 65, ".."])
def test_an_owner_that_no_folder_can_be_named_by_is_refused(owner: str) -> None:
    with pytest.raises(NameRefused):
        NewJob(order=DrillOrder(), owner=owner)


@pytest.mark.parametrize("said", [{"priority": 11}, {"priority": -11}, {"idempotency_key": ""}, {"idempotency_key": "x" * 256}])
def test_what_cannot_be_asked_of_the_queue_is_refused(said: dict) -> None:
    with pytest.raises(SpecError):
        NewJob(order=DrillOrder(), **said)


def test_listing_goes_page_by_page_newest_first(store: JobStore) -> None:
    jobs = [drill(store) for _ in range(7)]
    seen: list[str] = []
    before = None
    while page := store.list(JobQuery(limit=3, before=before)):
        seen += [job.id for job in page]
        before = store.cursor(page[-1])
        drill(store)  # what comes meanwhile disturbs nothing
    assert seen == [job.id for job in reversed(jobs)]
    with pytest.raises(SpecError):
        store.list(JobQuery(before="1; DROP TABLE jobs"))


def test_listing_by_state_kind_and_person(store: JobStore) -> None:
    ada = store.submit(*check("Ada"))
    drilled = drill(store)
    both = store.submit(NewJob(order=PortraitOrder(templates=(Path("t.jpg"),), people=("Bob", None, "ada"))))
    store.cancel(drilled.id)
    assert [job.id for job in store.list(JobQuery(person="ADA"))] == [both.id, ada.id]
    assert [job.id for job in store.list(JobQuery(state=JobState.CANCELLED))] == [drilled.id]
    assert [job.id for job in store.list(JobQuery(kind=JobKind.CHECK))] == [ada.id]
    assert [job.id for job in store.jobs_of("local", "Bob")] == [both.id]
    assert store.jobs_of("other", "Ada") == ()
    assert store.counts()[JobState.QUEUED] == 2


def test_every_change_is_told_once(store: JobStore) -> None:
    first, second = drill(store), drill(store)
    assert [job.id for job in store.changes(0)] == [first.id, second.id]
    since = store.changes(0)[-1].version
    assert store.changes(since) == ()
    cancelled = store.cancel(first.id)
    assert store.changes(since) == (cancelled,)


def test_a_queued_job_is_cancelled_at_once_and_for_good(store: JobStore) -> None:
    job = drill(store)
    assert store.cancel(job.id).state is JobState.CANCELLED
    end = QueueFolder(store.folder(job.id)).read_end()
    assert end is not None
    assert end.state is JobState.CANCELLED
    assert store.cancel(job.id).state is JobState.CANCELLED


@pytest.mark.parametrize("job_id", ["", "..", "../../etc", "0" * 15, "G" * 16, "a" * 16])
def test_what_is_no_job_is_not_found(store: JobStore, job_id: str) -> None:
    for call in (store.get, store.cancel, store.result, store.order):
        with pytest.raises(NotFound):
            call(job_id)


def test_forgetting_removes_rows_and_folders_of_ended_jobs_alone(store: JobStore) -> None:
    ended, waiting = store.submit(*check()), drill(store)
    store.cancel(ended.id)
    folder = store.folder(ended.id)
    with pytest.raises(Conflict):
        store.forget([ended.id, waiting.id])
    assert folder.is_dir()
    removed = store.forget([ended.id])
    assert folder / "inputs" / "0000" / "me.jpg" in removed
    assert not folder.exists()
    assert [job.id for job in store.list()] == [waiting.id]
    assert not list(folder.parent.glob(".deleted-*"))


def test_webhooks_wait_until_told_or_given_up(store: JobStore) -> None:
    told, deaf, open_one = (drill(store, webhook=f"https://x/{name}") for name in ("told", "deaf", "open"))
    assert store.pending_webhooks() == ()
    for job in (told, deaf):
        store.cancel(job.id)
    assert [delivery.url for delivery in store.pending_webhooks()] == ["https://x/told", "https://x/deaf"]
    store.webhook_done(told.id, ok=True)
    for tries in range(1, WEBHOOK_TRIES):
        store.webhook_done(deaf.id, ok=False)
        assert [(delivery.job.id, delivery.tries) for delivery in store.pending_webhooks()] == [(deaf.id, tries)]
    store.webhook_done(deaf.id, ok=False)
    assert store.pending_webhooks() == ()
    assert store.get(open_one.id).state is JobState.QUEUED


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_takes_no_job_and_keeps_nothing_half_made(
    store: JobStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = drill(store)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="full"):
            store.submit(*check())
    assert [job.id for job in store.list()] == [kept.id]
    assert [path.name for path in (home / "queue").iterdir() if path.is_dir()] == [kept.id]
    assert store.submit(*check()).state is JobState.QUEUED


def test_a_full_database_takes_no_job_either(store: JobStore, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("easyphoto.jobs.store.insert", refuse)
        with pytest.raises(StorageError, match="the disk is full"):
            store.submit(*check())
    assert not [path for path in (home / "queue").iterdir() if path.is_dir()]
    assert store.list() == ()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk, which root alone may")
def test_a_disk_that_really_is_full_loses_nothing_that_was_taken(tmp_path: Path) -> None:
    home = tmp_path / "small"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(home)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        store, taken = JobStore(home), []
        with pytest.raises(StorageError, match="full"):
            while True:
                taken.append(store.submit(*check(data=b"x" * 50_000)).id)
        assert len(taken) > 5
        assert sorted(job.id for job in store.list()) == sorted(taken)
        assert sorted(path.name for path in (home / "queue").iterdir() if path.is_dir()) == sorted(taken)
        for job_id in taken:
            assert store.order(job_id)
        store.close()
    finally:
        subprocess.run(["umount", str(home)], check=True)
