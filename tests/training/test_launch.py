"""The parent's side, against small scripts that stand in for the worker: they start in no time and fail on demand."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from easyphoto.errors import (
    Cancelled,
    Conflict,
    JobFailed,
    LoraError,
    NameRefused,
    NotFound,
    SpecError,
    StorageError,
    ToolMissing,
)
from easyphoto.events import Event
from easyphoto.records import PreparedSet
from easyphoto.settings import PROJECT_ROOT
from easyphoto.specs import TrainSpec
from easyphoto.store.codec import dumps
from easyphoto.store.people import PeopleStore
from easyphoto.training.job import JobFolder
from easyphoto.training.launch import LaunchOptions, find_resumable, train, usable_cores
from easyphoto.training.prepared_files import read_prepared, write_prepared

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins are scripts with a shebang")

HEAD = """
import json, os, signal, sys, time
from pathlib import Path
job = Path(sys.argv[3])
def say(**event): print(json.dumps(event), flush=True)
"""
RESULT = """
(job / "lora.safetensors").write_bytes(b"x")
(job / "result.json").write_text(json.dumps({"lora": str(job / "lora.safetensors"), "steps": 2, "photos": 3,
    "checkpoints": [], "chosen": -1, "face_id_picture": None, "seconds": 1.0, "losses": [0.5, 0.25]}))
say(kind="done", stage="done")
"""


@pytest.fixture
def fake(tmp_path: Path):
    """Makes an interpreter that runs the given body in the worker's place."""

    def make(body: str) -> Path:
        path = tmp_path / "fake-python"
        path.write_text(f"#!{sys.executable}\n{HEAD}\n{body}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


def only_job(store: PeopleStore) -> JobFolder:
    (root,) = store.home.jobs.iterdir()
    return JobFolder(root)


def test_events_arrive_in_order_and_the_result_is_read(
    fake, spec: TrainSpec, prepared: PreparedSet, store: PeopleStore
) -> None:
    python = fake(
        'print("a library says hello", flush=True)\n'
        'say(kind="started", stage="loading")\nsay(kind="progress", step=1, total=2, loss=0.5)\n' + RESULT
    )
    told: list[Event] = []
    result = train(spec, prepared, store, LaunchOptions(listener=told.append, python=python))
    assert [event.kind for event in told] == ["started", "progress", "done"]
    assert (told[1].step, told[1].loss) == (1, 0.5)
    assert (result.steps, result.losses) == (2, (0.5, 0.25))
    job = only_job(store)
    assert job.read_spec() == spec
    assert read_prepared(job.prepared).verdicts == prepared.verdicts


def test_the_worker_gets_a_list_of_arguments_our_package_and_a_group_of_its_own(
    fake, spec: TrainSpec, prepared: PreparedSet, store: PeopleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    python = fake(
        "import easyphoto\n"
        'facts = {"argv": sys.argv[1:3] + sys.argv[4:], "cwd": os.getcwd() == str(job),\n'
        '         "group": os.getpgid(0) == os.getpid(),\n'
        '         "threads": os.environ["OMP_NUM_THREADS"], "offline": os.environ["HF_HUB_OFFLINE"]}\n'
        'say(kind="log", extra=facts)\n' + RESULT
    )
    told: list[Event] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    train(spec, prepared, store, LaunchOptions(listener=told.append, python=python))
    assert told[0].extra == {
        "argv": ["-m", "easyphoto.training.worker", "--watch-parent"], "cwd": True, "group": True,
        "threads": str(usable_cores()), "offline": "1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "kind"),
    [("storage", StorageError), ("bad_lora", LoraError), ("bad_setting", SpecError), ("job_failed", JobFailed)],
)
def test_the_workers_error_is_ours(
    fake, spec: TrainSpec, prepared: PreparedSet, store: PeopleStore, code: str, kind: type[Exception]
) -> None:
    python = fake(f'say(kind="failed", message="the disk is full", code="{code}")\nsys.exit(6)')
    with pytest.raises(kind, match="the disk is full"):
        train(spec, prepared, store, LaunchOptions(python=python))


def test_a_killed_worker_is_named_by_its_signal(fake, spec: TrainSpec, prepared: PreparedSet, store: PeopleStore) -> None:
    with pytest.raises(JobFailed, match=r"killed by SIGKILL \(often because memory ran out\).*log\.txt"):
        train(spec, prepared, store, LaunchOptions(python=fake("os.kill(os.getpid(), signal.SIGKILL)")))
    with store.lock(spec.person):
        pass


def test_a_worker_that_ends_without_a_word_is_told_with_the_end_of_its_log(
    fake, spec: TrainSpec, prepared: PreparedSet, store: PeopleStore
) -> None:
    python = fake('print("Traceback: ImportError: no torch", file=sys.stderr)\nsys.exit(1)')
    with pytest.raises(JobFailed, match=r"status 1 and no result.*ImportError: no torch"):
        train(spec, prepared, store, LaunchOptions(python=python))
    with pytest.raises(JobFailed, match="left no result"):
        train(spec, prepared, store, LaunchOptions(python=fake("pass")))


COOPERATIVE = """
say(kind="progress", step=1, total=100)
while not (job / "cancel").exists():
    time.sleep(0.02)
say(kind="cancelled", message="stopped", code="cancelled")
sys.exit(130)
"""
FORSAKEN = """
say(kind="progress", step=1, total=100)
(job / "ready").write_text("")
os.read(0, 1)
(job / "noticed").write_text("the parent is gone")
sys.exit(130)
"""


def test_cancelling_asks_the_worker_and_waits(fake, spec: TrainSpec, prepared: PreparedSet, store: PeopleStore) -> None:
    options = LaunchOptions(listener=lambda _event: options.cancel.set(), python=fake(COOPERATIVE))
    with pytest.raises(Cancelled, match="--resume"):
        train(spec, prepared, store, options)
    with store.lock(spec.person):
        pass


def test_a_listener_that_raises_leaves_no_worker_behind(
    fake, spec: TrainSpec, prepared: PreparedSet, store: PeopleStore
) -> None:
    def listener(_event: Event) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        train(spec, prepared, store, LaunchOptions(listener=listener, python=fake(FORSAKEN)))
    assert (only_job(store).root / "noticed").exists()


def test_a_deaf_worker_is_killed_after_a_while(
    fake, spec: TrainSpec, prepared: PreparedSet, store: PeopleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("easyphoto.training.child.PATIENCE", 0.5)
    deaf = (
        'signal.signal(signal.SIGTERM, signal.SIG_IGN)\n(job / "pid").write_text(str(os.getpid()))\n'
        'say(kind="progress", step=1)\ntime.sleep(60)'
    )
    options = LaunchOptions(listener=lambda _event: options.cancel.set(), python=fake(deaf))
    began = time.monotonic()
    with pytest.raises(Cancelled):
        train(spec, prepared, store, options)
    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((only_job(store).root / "pid").read_text()), 0)


def test_two_trainings_of_one_name_conflict_and_of_two_names_do_not(
    fake, spec: TrainSpec, prepared: PreparedSet, store: PeopleStore
) -> None:
    started = threading.Event()
    options = LaunchOptions(listener=lambda _event: started.set(), python=fake(COOPERATIVE))
    outcome: list[BaseException] = []

    def first() -> None:
        try:
            train(spec, prepared, store, options)
        except Cancelled as error:
            outcome.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        assert started.wait(20)
        with pytest.raises(Conflict, match="'anna' is being done already"):
            train(replace(spec, person="anna"), prepared, store, LaunchOptions(python=fake(RESULT)))
        assert train(replace(spec, person="Bob"), prepared, store, LaunchOptions(python=fake(RESULT))).steps == 2
    finally:
        options.cancel.set()
        thread.join(30)
    assert len(outcome) == 1


def test_a_missing_interpreter_is_told(spec: TrainSpec, prepared: PreparedSet, store: PeopleStore) -> None:
    with pytest.raises(ToolMissing, match="/nowhere"):
        train(spec, prepared, store, LaunchOptions(python=Path("/nowhere/python")))


@pytest.mark.parametrize("name", ["", "../x", "a/b", "x" * 300])
def test_bad_names_are_refused_before_anything_is_made(
    spec: TrainSpec, prepared: PreparedSet, store: PeopleStore, name: str
) -> None:
    with pytest.raises(NameRefused):
        train(replace(spec, person=name), prepared, store, LaunchOptions(python=Path("/nowhere")))
    assert list(store.home.jobs.iterdir()) == []


def test_a_missing_gallery_is_told_before_the_worker_starts(
    spec: TrainSpec, prepared: PreparedSet, store: PeopleStore, tmp_path: Path
) -> None:
    judged = replace(spec, validate=replace(spec.validate, every=2))
    with pytest.raises(NotFound, match="gallery"):
        train(judged, prepared, store, LaunchOptions(templates=tmp_path / "no", python=Path("/nowhere")))


def test_resuming_takes_the_newest_job_that_was_cut_off(
    fake, spec: TrainSpec, prepared: PreparedSet, store: PeopleStore
) -> None:
    assert find_resumable(store, spec.person) is None
    cut_off = fake('(job / "state.safetensors").write_bytes(b"s")\nos.kill(os.getpid(), signal.SIGKILL)')
    with pytest.raises(JobFailed):
        train(spec, prepared, store, LaunchOptions(python=cut_off))
    root = only_job(store).root
    (root / "cancel").write_text("left over")
    assert find_resumable(store, spec.person) == root
    with pytest.raises(SpecError, match="other settings"):
        train(replace(spec, seed=5), prepared, store, LaunchOptions(python=fake(RESULT), resume=True))
    fewer = replace(prepared, photos=prepared.photos[:2])
    with pytest.raises(SpecError, match="other photos"):
        train(spec, fewer, store, LaunchOptions(python=fake(RESULT), resume=True))
    python = fake('assert not (job / "cancel").exists()\n' + RESULT)
    assert train(spec, prepared, store, LaunchOptions(python=python, resume=True)).lora.parent == root
    assert find_resumable(store, spec.person) is None, "it is whole now"
    fresh = train(spec, prepared, store, LaunchOptions(python=fake(RESULT), resume=True))
    assert fresh.lora.parent != root, "nothing is left to go on with, so a new job begins"


PARENT = """
import sys
from pathlib import Path
from easyphoto.specs import TrainSpec
from easyphoto.store.codec import loads
from easyphoto.store.paths import Home
from easyphoto.store.people import PeopleStore
from easyphoto.training.launch import LaunchOptions, train
from easyphoto.training.prepared_files import read_prepared
here = Path(sys.argv[1])
spec, store = loads(TrainSpec, (here / "spec.json").read_text()), PeopleStore(Home(here / "home"))
train(spec, read_prepared(here / "set"), store, LaunchOptions(python=here / "fake-python"))
"""


def test_a_parent_that_is_killed_takes_its_worker_along(
    fake, spec: TrainSpec, prepared: PreparedSet, store: PeopleStore, tmp_path: Path
) -> None:
    """The worker notices the end of its standard input, and the lock is free again."""
    fake(FORSAKEN)
    write_prepared(prepared, tmp_path / "set")
    (tmp_path / "spec.json").write_text(dumps(spec), encoding="utf-8")
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], cwd=PROJECT_ROOT) as parent:
        assert appears(store, "*/ready")
        with pytest.raises(Conflict), store.lock(spec.person):
            pass
        parent.kill()
    assert appears(store, "*/noticed")
    with store.lock(spec.person):
        pass


def appears(store: PeopleStore, pattern: str) -> bool:
    deadline = time.monotonic() + 30
    while not any(store.home.jobs.glob(pattern)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return any(store.home.jobs.glob(pattern))
