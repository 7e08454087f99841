"""One order and somebody who waits for it, as the command line does."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from easyphoto.app import Watch
from easyphoto.errors import Cancelled, StorageError
from easyphoto.events import Event
from easyphoto.jobs.follow import as_error, error_of, follow, run_order
from easyphoto.jobs.store import JobStore, NewJob
from easyphoto.orders import DrillOrder
from easyphoto.settings import Settings
from easyphoto.work import Failure, JobState
from tests.jobs.conftest import drill, running, until, worker


def test_without_a_worker_the_order_runs_here_and_nothing_else_does(settings: Settings, store: JobStore) -> None:
    waiting = drill(store, priority=10)
    told: list[Event] = []
    job = run_order(settings, NewJob(order=DrillOrder(steps=2)), (), Watch(listener=told.append))
    assert job.state is JobState.DONE
    assert error_of(job) is None
    assert [event.step for event in told] == [1, 2]
    assert store.get(waiting.id).state is JobState.QUEUED


def test_with_a_worker_the_order_is_followed(settings: Settings, store: JobStore, home: Path) -> None:
    told: list[Event] = []
    with worker(home) as process:
        until((home / "queue" / "worker.lock").exists)
        job = run_order(settings, NewJob(order=DrillOrder(steps=2)), (), Watch(listener=told.append))
        assert process.poll() is None
    assert job.state is JobState.DONE
    assert [event.step for event in told] == [1, 2]


def test_the_order_runs_here_once_the_worker_is_gone(settings: Settings, store: JobStore, home: Path) -> None:
    with worker(home) as process:
        blocks = drill(store, steps=1, seconds=60)
        running(store, blocks)
        threading.Timer(0.5, process.kill).start()
        job = run_order(settings, NewJob(order=DrillOrder()))
    assert job.state is JobState.DONE
    assert store.get(blocks.id).state is JobState.QUEUED


def test_asking_to_stop_cancels_the_job(settings: Settings, store: JobStore) -> None:
    watch = Watch()
    threading.Timer(0.5, watch.cancel.set).start()
    began = time.monotonic()
    job = run_order(settings, NewJob(order=DrillOrder(seconds=60)), (), watch)
    assert time.monotonic() - began < 10
    assert job.state is JobState.CANCELLED
    assert isinstance(error_of(job), Cancelled)


def test_asking_to_stop_watching_leaves_the_job_in_the_queue(settings: Settings, store: JobStore) -> None:
    job = drill(store, seconds=60)
    watch = Watch()
    threading.Timer(0.5, watch.cancel.set).start()
    with pytest.raises(Cancelled, match="stays in the queue"):
        follow(settings, store, job, watch, cancels=False)
    assert store.get(job.id).state is JobState.QUEUED


def test_a_failure_comes_back_as_the_error_it_was(settings: Settings, store: JobStore) -> None:
    job = run_order(settings, NewJob(order=DrillOrder(fail=True)))
    assert type(error_of(job)).__name__ == "JobFailed"
    assert isinstance(as_error(Failure(code="storage", sentence="full")), StorageError)
    assert as_error(Failure(code="unheard of", sentence="odd")).code == "job_failed"
