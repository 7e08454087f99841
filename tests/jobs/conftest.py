"""What the tests of this room share: a home, its queue, and real worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from easyphoto.jobs.runner import Runner, runner_lock
from easyphoto.jobs.store import JobStore, NewJob
from easyphoto.orders import DrillOrder
from easyphoto.settings import PROJECT_ROOT, Settings
from easyphoto.work import Job, JobState


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def settings(home: Path) -> Settings:
    return replace(Settings.from_env({}), home=home)


@pytest.fixture
def store(home: Path) -> Iterator[JobStore]:
    opened = JobStore(home)
    yield opened
    opened.close()


def drill(store: JobStore, **said) -> Job:
    """Hand in a drill; `owner`, `priority` and `key` go to the job, the rest to the order."""
    of_job = {name: said.pop(name) for name in ("owner", "priority", "webhook") if name in said}
    return store.submit(NewJob(order=DrillOrder(**said), **of_job))


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def ended(store: JobStore, *jobs: Job, seconds: float = 60.0) -> tuple[Job, ...]:
    """Wait until all the jobs have ended."""
    until(lambda: all(store.get(job.id).state.ended for job in jobs), seconds)
    return tuple(store.get(job.id) for job in jobs)


def running(store: JobStore, job: Job) -> None:
    until(lambda: store.get(job.id).state is JobState.RUNNING)


@contextmanager
def worker(home: Path, *words: str, **env: str) -> Iterator[subprocess.Popen]:
    """A real worker process; killed at the end if it still lives."""
    command = [sys.executable, "-m", "easyphoto.jobs.worker", "--home", str(home), *words]
    process = subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **env}
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@contextmanager
def runner(settings: Settings, store: JobStore) -> Iterator[threading.Event]:
    """A runner in a thread of this process; stopped in order at the end, or when the event is set."""
    stop = threading.Event()
    with runner_lock(settings.home):
        thread = threading.Thread(target=Runner(settings, store).run, args=(stop,))
        thread.start()
        try:
            yield stop
        finally:
            stop.set()
            thread.join(60)
            assert not thread.is_alive()
