"""The server's side: one worker for a home, alive as long as the server is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from easyphoto.jobs.store import JobStore
from easyphoto.jobs.supervisor import Supervisor
from easyphoto.settings import PROJECT_ROOT, Settings
from easyphoto.store.locks import holder
from easyphoto.work import JobState
from tests.jobs.conftest import drill, ended, running, until


def test_a_worker_that_dies_is_started_again_and_its_job_goes_on(settings: Settings, store: JobStore) -> None:
    supervisor = Supervisor(settings)
    supervisor.start()
    supervisor.start()  # twice is once
    try:
        job = drill(store, steps=10, seconds=0.1)
        running(store, job)
        first = supervisor.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        (job,) = ended(store, job)
        assert (job.state, job.attempt) == (JobState.DONE, 2)
        assert supervisor.pid not in {None, first}
    finally:
        supervisor.stop()
    assert supervisor.pid is None


def test_stopping_leaves_no_worker_and_the_job_waits_again(settings: Settings, store: JobStore, home: Path) -> None:
    supervisor = Supervisor(settings)
    supervisor.start()
    job = drill(store, steps=1, seconds=60)
    running(store, job)
    supervisor.stop()
    assert (store.get(job.id).state, store.get(job.id).attempt) == (JobState.QUEUED, 0)
    assert holder(home / "queue" / "worker.lock") is None


def test_a_second_supervisors_worker_waits_and_takes_over(settings: Settings, store: JobStore, home: Path) -> None:
    first, second = Supervisor(settings), Supervisor(settings)
    lock = home / "queue" / "worker.lock"
    first.start()
    try:
        until(lambda: lock.exists() and holder(lock) == first.pid)
        second.start()
        ended(store, drill(store))
        until(lambda: second.pid is not None)
        first.stop()
        until(lambda: holder(lock) == second.pid)
        assert ended(store, drill(store))[0].state is JobState.DONE
    finally:
        first.stop()
        second.stop()


SERVER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from easyphoto.jobs.supervisor import Supervisor
from easyphoto.settings import Settings
Supervisor(replace(Settings.from_env(), home=Path(sys.argv[1]))).start()
time.sleep(100)
"""


def test_a_server_that_is_killed_takes_its_worker_along(store: JobStore, home: Path) -> None:
    lock = home / "queue" / "worker.lock"
    with subprocess.Popen([sys.executable, "-c", SERVER, str(home)], cwd=PROJECT_ROOT) as server:
        job = drill(store, steps=1, seconds=60)
        running(store, job)
        assert holder(lock) is not None
        server.kill()
    until(lambda: holder(lock) is None)
    assert store.get(job.id).state is JobState.QUEUED


def test_a_log_that_grows_too_long_is_moved_aside(settings: Settings, store: JobStore, monkeypatch) -> None:
    monkeypatch.setattr("easyphoto.jobs.supervisor._LARGEST_LOG", 300)
    supervisor = Supervisor(settings)
    supervisor.log.write_text("x" * 1000)
    supervisor.start()
    try:
        ended(store, drill(store))
        until(lambda: supervisor.log.stat().st_size < 1000)
    finally:
        supervisor.stop()
    assert supervisor.log.with_name("worker.log.1").read_text().startswith("xxx")
