"""The queue keeps a training's process for whoever waits, and lets go of it before it costs anybody else something."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from easyphoto.app import App, Shared
from easyphoto.errors import Cancelled
from easyphoto.jobs.desk import Gate
from easyphoto.jobs.host import HostShared
from easyphoto.jobs.host_settings import settings_of
from easyphoto.jobs.runner import Runner, runner_lock
from easyphoto.jobs.store import JobStore, NewJob
from easyphoto.jobs.supervisor import Supervisor
from easyphoto.orders import DrillOrder, PortraitOrder, TrainOrder
from easyphoto.settings import Settings
from easyphoto.training.child import Child
from easyphoto.training.slot import WorkerSlot
from easyphoto.work import Job
from tests.jobs.conftest import ended, runner, until
from tests.jobs.test_training_job import inputs_of, order_of, photos, settings, tiny_base

__all__ = ["photos", "settings", "tiny_base"]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="looks for processes by signals")


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of every worker process that was started."""
    found: list[int] = []
    real = Child.__init__

    def begin(self: Child, *args, **kwargs) -> None:
        real(self, *args, **kwargs)
        found.append(self.pid)

    monkeypatch.setattr(Child, "__init__", begin)
    return found


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def hand_in(store: JobStore, order: TrainOrder, name: str, photos: list[Path]) -> Job:
    return store.submit(NewJob(order=replace(order, spec=replace(order.spec, person=name))), inputs_of(photos))


def test_people_who_wait_are_trained_by_one_process_and_it_goes_with_the_last(
    settings: Settings, store: JobStore, photos: list[Path], pids: list[int]
) -> None:
    order = order_of(settings.base_model, photos)
    jobs = [hand_in(store, order, name, photos) for name in ("Anna", "Berta", "Carl")]
    with runner(settings, store):
        jobs = list(ended(store, *jobs, seconds=300))
        assert [job.failure for job in jobs] == [None] * 3
        assert len(pids) == 1
        assert not lives(pids[0]), "nobody waits, so nothing stays"
    for job, name in zip(jobs, ("Anna", "Berta", "Carl")):
        said = (store.folder(job.id) / "log.txt").read_text()
        assert said.count("done") >= 1
        assert not re.search({"Anna": "Berta|Carl", "Berta": "Anna|Carl", "Carl": "Anna|Berta"}[name], said)


def test_who_wants_the_gpu_for_something_else_finds_it_free(
    settings: Settings, store: JobStore, photos: list[Path], pids: list[int], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """A portrait that comes between two trainings: the process is gone before anything is painted, and the next one is new."""
    caplog.set_level(logging.INFO, "easyphoto")
    order = order_of(settings.base_model, photos)
    alive: list[list[bool]] = []
    real = Shared.painting

    def painting(self, *args):
        alive.append([lives(pid) for pid in pids])
        return real(self, *args)

    monkeypatch.setattr(Shared, "painting", painting)
    first = hand_in(store, order, "Zoe", photos)
    with runner(settings, store):
        ended(store, first, seconds=200)
    template = Path(settings.templates / sorted(path.name for path in settings.templates.glob("*.jpg"))[0])
    anna = hand_in(store, order_of(settings.base_model, photos, steps=400), "Anna", photos)
    with runner(settings, store):
        until(lambda: store.get(anna.id).progress.stage == "training" or store.get(anna.id).state.ended, 200)
        portrait = store.submit(NewJob(order=PortraitOrder(people=("Zoe",), templates=(template,))))
        berta = hand_in(store, order, "Berta", photos)
        anna, portrait, berta = ended(store, anna, portrait, berta, seconds=300)
    assert (anna.failure, berta.failure) == (None, None)
    assert len(pids) == 3
    assert alive == [[False, False]]
    kept = re.search(r"the training process (\d+), which was kept", (store.folder(portrait.id) / "log.txt").read_text())
    assert kept is not None
    assert int(kept[1]) == pids[1]


def test_a_runner_that_is_stopped_and_a_host_keep_nothing(
    settings: Settings, store: JobStore, photos: list[Path], pids: list[int]
) -> None:
    assert not HostShared.keeps_workers
    order = order_of(settings.base_model, photos)
    anna, berta = (hand_in(store, order, name, photos) for name in ("Anna", "Berta"))
    app = App(settings)
    app.shared.keeps_workers = False
    stop = threading.Event()
    with runner_lock(settings.home):
        thread = threading.Thread(target=Runner(settings, store, app=app).run, args=(stop,))
        thread.start()
        until(lambda: len(pids) == 2, 200)
        assert not lives(pids[0]), "the second one's process is another"
        stop.set()
        thread.join(60)
    assert [store.get(job.id).failure for job in (anna, berta)] == [None, None]
    assert not any(lives(pid) for pid in pids)


def places(*free: bool) -> Gate:
    gate = Gate([WorkerSlot(lambda: False, number) for number in range(len(free))])
    for lock, is_free in zip(gate._locks, free):
        if not is_free:
            lock.acquire()
    return gate


@pytest.mark.parametrize(("free", "taken"), [((True, True, True), 2), ((True, True, False), 1), ((True, False, False), 0)])
def test_trainings_leave_the_first_place_to_portraits_as_long_as_they_can(free: tuple[bool, ...], taken: int) -> None:
    gate = places(*free)
    with gate.hold_any(threading.Event()) as place:
        assert place.number == taken
        assert gate._locks[taken].locked()
    assert not gate._locks[taken].locked()


def test_waiting_for_any_place_ends_with_the_first_that_is_free_or_when_asked_to_stop() -> None:
    gate, cancel = places(False, False), threading.Event()
    assert gate.taken(all_places=True)
    threading.Timer(0.1, gate._locks[1].release).start()
    with gate.hold_any(cancel) as place:
        assert place.number == 1
        threading.Timer(0.1, cancel.set).start()
        with pytest.raises(Cancelled), gate.hold_any(cancel):
            pass


def test_several_places_train_several_people_at_once(
    settings: Settings, store: JobStore, photos: list[Path], pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    order = order_of(settings.base_model, photos)
    most: list[int] = []
    real: Callable = Child.events

    def events(self: Child, job, cancel):
        for event in real(self, job, cancel):
            if event.stage == "training":
                most.append(sum(lives(pid) for pid in pids))
            yield event

    monkeypatch.setattr(Child, "events", events)
    jobs = [hand_in(store, order, name, photos) for name in ("Anna", "Berta", "Carl", "Dora")]
    drill = store.submit(NewJob(order=DrillOrder(steps=1, needs_gpu=True)))
    with runner(replace(settings, at_once=2), store):
        jobs = list(ended(store, *jobs, drill, seconds=300))
    assert [job.failure for job in jobs] == [None] * 5
    assert max(most) == 2
    assert len(pids) < 5


def test_how_many_are_trained_at_once_is_said_by_the_environment_and_a_host_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYPHOTO_AT_ONCE", "3")
    said = Settings.from_env()
    assert said.at_once == 3
    assert Supervisor(replace(said, at_once=2))._environment()["EASYPHOTO_AT_ONCE"] == "2"
    assert settings_of({}, None).at_once == 1
