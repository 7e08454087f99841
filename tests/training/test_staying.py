"""A worker that stays for the next training, as real child processes on a tiny base model."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.errors import Cancelled, NotFound
from easyphoto.events import Event
from easyphoto.records import PreparedSet
from easyphoto.settings import PROJECT_ROOT
from easyphoto.specs import OptimSpec, TrainResult, TrainSpec
from easyphoto.store.codec import dumps
from easyphoto.store.lora_file import read_lora
from easyphoto.store.people import PeopleStore
from easyphoto.training.child import Child
from easyphoto.training.job import JobFolder
from easyphoto.training.launch import LaunchOptions, train
from easyphoto.training.prepared_files import write_prepared
from easyphoto.training.slot import Fit, WorkerSlot, slots

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are killed by signals")


@dataclass
class Queue:
    """People who are trained one after the other at one place."""

    spec: TrainSpec
    prepared: PreparedSet
    store: PeopleStore
    more: bool = True
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.slot = WorkerSlot(lambda: self.more)

    def train(self, name: str, listener: Callable[[Event], None] | None = None, **said) -> TrainResult:
        self.events = []
        self.options = LaunchOptions(listener=listener or self.events.append, slot=self.slot)
        return train(replace(self.spec, person=name, **said), self.prepared, self.store, self.options)

    def job(self, name: str) -> JobFolder:
        (root,) = self.store.home.jobs.glob(f"{name.lower()}-*")
        return JobFolder(root)

    @property
    def pid(self) -> int:
        assert self.slot.pid is not None, "nobody stayed"
        return self.slot.pid


@pytest.fixture
def queue(spec: TrainSpec, prepared: PreparedSet, store: PeopleStore) -> Iterator[Queue]:
    made = Queue(spec, prepared, store)
    yield made
    made.slot.close()


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not lives(pid)


def same(one: TrainResult, other: TrainResult) -> bool:
    ours, theirs = (read_lora(result.lora).tensors for result in (one, other))
    return one.losses == other.losses and all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_whoever_waits_is_trained_by_the_same_process_to_the_same_lora(queue: Queue) -> None:
    queue.train("Anna")
    first = queue.pid
    shutil.rmtree(queue.job("Anna").root)  # as the queue does with the working files of a job that is done
    memory = []
    for name in ("Berta", "Carl", "Dora", "Emil"):
        second = queue.train(name, seed=3)
        assert queue.pid == first
        assert [event.kind for event in queue.events][:: len(queue.events) - 1] == ["started", "done"]
        memory.append(queue.events[-1].memory_mb or 0.0)
    assert memory[-1] - memory[0] < 8, memory
    for name in ("Berta", "Carl"):
        job = queue.job(name)
        assert job.log.read_text().count("loading embedded base model") == 0, "the first one's model is used"
        assert {event.message for event in queue.events if event.kind == "started"} == {"training 'Emil'"}
        assert f"{name.lower()}-" in job.events.read_text()
        assert "Emil" not in job.events.read_text()
    queue.more = False
    alone = queue.train("Frieda", seed=3, lora=replace(queue.spec.lora, alpha=1.0))
    assert same(alone, second)
    assert queue.slot.pid is None
    assert gone(first), "nobody waits any more"
    assert same(train(replace(queue.spec, person="Gerd", seed=3), queue.prepared, queue.store), second)


def test_what_the_libraries_say_goes_into_the_log_of_the_job_they_work_on(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, sys\n"
        "if any('training.worker' in word for word in sys.orig_argv):\n"
        "    from easyphoto.training.trainer import Training\n"
        "    real = Training.update\n"
        "    def update(self):\n"
        "        os.write(2, self.spec.person.encode() + b' says hello\\n')\n"
        "        return real(self)\n"
        "    Training.update = update\n"
    )
    (tmp_path / "sitecustomize.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(PROJECT_ROOT))))
    for name in ("Anna", "Berta"):
        queue.train(name)
    for name, other in (("Anna", "Berta"), ("Berta", "Anna")):
        said = queue.job(name).log.read_text()
        assert said.count(f"{name} says hello") == 6
        assert other not in said


def test_another_base_model_or_a_changed_one_gets_another_process(queue: Queue, tiny_base: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    queue.train("Anna", base_model=base)
    first = queue.pid
    queue.train("Berta")
    second = queue.pid
    assert second != first
    assert gone(first)
    queue.train("Carl", base_model=base)
    third = queue.pid
    os.utime(base / "unet" / "config.json")
    queue.train("Dora", base_model=base)
    assert len({first, second, third, queue.pid}) == 4
    assert not any(lives(pid) for pid in (first, second, third))


def test_a_worker_that_was_killed_while_it_waited_is_replaced_and_nobody_hears_of_it(queue: Queue) -> None:
    queue.train("Anna")
    first = queue.pid
    os.kill(first, signal.SIGKILL)
    result = queue.train("Berta")
    assert result.steps == 6
    assert queue.pid != first
    assert [event.kind for event in queue.events].count("started") == 1


def test_a_worker_that_does_not_answer_is_replaced(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.train("Anna")
    first = queue.pid
    os.kill(first, signal.SIGSTOP)
    monkeypatch.setattr("easyphoto.training.child.PATIENCE", 1.0)
    assert queue.train("Berta").steps == 6
    assert queue.pid != first
    assert not lives(first)


def test_who_is_cancelled_or_fails_takes_the_process_along_and_not_the_next_one(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.train("Anna")
    first = queue.pid
    long = OptimSpec(steps_per_photo=10_000, max_steps=30_000, batch_size=1)

    def stop(event: Event) -> None:
        if event.stage == "training" and event.step >= 2:
            queue.options.cancel.set()

    with pytest.raises(Cancelled):
        queue.train("Berta", stop, optim=long)
    assert gone(first)
    assert queue.slot.pid is None
    queue.train("Carl")
    second = queue.pid
    with pytest.raises(NotFound, match="no prepared photos"):
        _spoil(queue, "Dora", monkeypatch)
    assert gone(second)
    assert queue.train("Emil").steps == 6


def _spoil(queue: Queue, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train somebody whose prepared photos are gone when the worker looks for them."""
    real = queue.slot.take

    def take(fit: Fit) -> Child | None:
        shutil.rmtree(queue.job(name).prepared)
        return real(fit)

    with monkeypatch.context() as patch:
        patch.setattr(queue.slot, "take", take)
        queue.train(name)


def test_one_that_waits_too_long_or_for_nobody_is_gone(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.train("Anna")
    first = queue.pid
    queue.slot.tidy(changed=True)
    assert queue.pid == first
    queue.more = False
    queue.slot.tidy(changed=True)
    assert not lives(first)
    queue.more = True
    queue.train("Berta")
    second = queue.pid
    queue.slot.tidy(changed=False)
    assert queue.pid == second
    monkeypatch.setattr("easyphoto.training.slot._IDLE", 0.0)
    queue.slot.tidy(changed=False)
    assert not lives(second)
    assert queue.slot.pid is None


PARENT = """
import sys, time
from pathlib import Path
from easyphoto.specs import TrainSpec
from easyphoto.store.codec import loads
from easyphoto.store.paths import Home
from easyphoto.store.people import PeopleStore
from easyphoto.training.launch import LaunchOptions, train
from easyphoto.training.prepared_files import read_prepared
from easyphoto.training.slot import WorkerSlot
here = Path(sys.argv[1])
spec, store = loads(TrainSpec, (here / "spec.json").read_text()), PeopleStore(Home(here / "home"))
slot = WorkerSlot(lambda: True)
train(spec, read_prepared(here / "set"), store, LaunchOptions(slot=slot))
print(slot.pid, flush=True)
time.sleep(60)
"""


def test_a_parent_that_is_killed_takes_the_worker_that_waits_along(
    spec: TrainSpec, prepared: PreparedSet, tmp_path: Path
) -> None:
    write_prepared(prepared, tmp_path / "set")
    (tmp_path / "spec.json").write_text(dumps(spec), encoding="utf-8")
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.kill()
    assert gone(pid)


def test_each_place_has_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [slot.gpus for slot in slots(1, 1, "auto", bool)] == [None]
    assert [slot.gpus for slot in slots(3, 1, "auto", bool)] == ["0", "1", "2"]
    assert [slot.gpus for slot in slots(2, 2, "cuda", bool)] == ["0,1", "2,3"]
    assert [slot.gpus for slot in slots(2, 1, "cuda:1", bool)] == [None], "a GPU that is named by its number is one place"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    assert [slot.gpus for slot in slots(4, 1, "auto", bool)] == ["2", "5", "7"], "there are no more"
    assert [slot.gpus for slot in slots(1, 4, "auto", bool)] == [None]
