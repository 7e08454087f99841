"""The real worker as a real child process, on a tiny base model."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.errors import Cancelled, InputError, JobFailed, StorageError
from easyphoto.events import Event
from easyphoto.records import PreparedSet
from easyphoto.settings import PROJECT_ROOT
from easyphoto.specs import OptimSpec, TrainSpec
from easyphoto.store.lora_file import read_lora
from easyphoto.store.people import PeopleStore
from easyphoto.training.launch import LaunchOptions, train

WRAPPER = """
import errno, os, runpy, signal, sys
sys.argv = sys.argv[2:]
"""
RUN = '\nrunpy.run_module("easyphoto.training.worker", run_name="__main__", alter_sys=True)\n'


@pytest.fixture
def spoiled(tmp_path: Path):
    """Makes an interpreter that does something bad before it runs the worker."""

    def make(body: str) -> Path:
        path = tmp_path / "python"
        path.write_text(f"#!{sys.executable}\n{WRAPPER}{body}{RUN}", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


def test_the_parents_side_needs_no_torch() -> None:
    code = "import sys, easyphoto.training.launch; sys.exit(bool({'torch', 'diffusers', 'mediapipe'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=False).returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="uses a script with a shebang and signals")
def test_kill_9_and_going_on_is_as_if_nothing_had_happened(
    spec: TrainSpec, prepared: PreparedSet, store: PeopleStore, spoiled
) -> None:
    told: list[Event] = []
    whole = train(spec, prepared, store, LaunchOptions(listener=told.append))
    assert told[0].kind == "started"
    assert told[-1].kind == "done"
    published = store.publish(spec, prepared, whole)
    assert published.lora.read_bytes() == whole.lora.read_bytes()
    assert published.face_id_picture == published.reference

    kill = (
        "from easyphoto.training.trainer import Training\n"
        "real = Training.update\n"
        "def update(self):\n"
        "    if self.step == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(self)\n"
        "Training.update = update\n"
    )
    with pytest.raises(JobFailed, match="SIGKILL"):
        train(spec, prepared, store, LaunchOptions(python=spoiled(kill)))
    told.clear()
    resumed = train(spec, prepared, store, LaunchOptions(resume=True, listener=told.append))
    assert any("going on after step 4 of 6" in (event.message or "") for event in told)
    assert resumed.losses == whole.losses
    first, second = read_lora(whole.lora).tensors, read_lora(resumed.lora).tensors
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_cancel_is_obeyed_at_once(spec: TrainSpec, prepared: PreparedSet, store: PeopleStore) -> None:
    long = replace(spec, optim=OptimSpec(steps_per_photo=10_000, max_steps=30_000, batch_size=1))
    seen: list[Event] = []

    def listener(event: Event) -> None:
        seen.append(event)
        if event.step >= 2 and event.stage == "training":
            options.cancel.set()

    options = LaunchOptions(listener=listener)
    with pytest.raises(Cancelled):
        train(long, prepared, store, options)
    assert seen[-1].kind == "cancelled"
    asked = next(event.seconds for event in seen if event.step >= 2 and event.stage == "training")
    assert (seen[-1].seconds or 0) - (asked or 0) < 3


@pytest.mark.skipif(os.name == "nt", reason="uses a script with a shebang")
def test_a_full_disk_is_told_as_one(spec: TrainSpec, prepared: PreparedSet, store: PeopleStore, spoiled) -> None:
    full = 'def fsync(_descriptor): raise OSError(errno.ENOSPC, "No space left on device")\nos.fsync = fsync\n'
    with pytest.raises(StorageError, match="the disk is full"):
        train(spec, prepared, store, LaunchOptions(python=spoiled(full)))


def test_the_workers_errors_arrive_as_what_they_are(
    spec: TrainSpec, prepared: PreparedSet, store: PeopleStore, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="base model"):
        train(replace(spec, base_model=tmp_path), prepared, store, LaunchOptions())


def test_all_workers_work_in_one_folder(tmp_path: Path) -> None:
    """What a worker's cuDNN has compiled is found again in the same folder alone."""
    code = "import os, sys; from easyphoto.training import worker; worker.main(['nothing-here']); print(os.getcwd())"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    (tmp_path / "nothing-here").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == str(PROJECT_ROOT)
    assert (tmp_path / "nothing-here" / "events.jsonl").exists(), "its job is where it was said to be"
