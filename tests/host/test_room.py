"""Our room in a host's process: made once, its jobs run there, and whoever wants the GPU stands in the host's line."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from easyphoto.app import Watch
from easyphoto.engine.webui import WebuiEngine
from easyphoto.errors import Cancelled
from easyphoto.events import Event
from easyphoto.families import Family
from easyphoto.jobs import host as rooms
from easyphoto.jobs.folders import input_name
from easyphoto.jobs.host import PORTRAIT, TRAINING, HostShared, Room
from easyphoto.jobs.runner import runner_lock
from easyphoto.jobs.store import Input, NewJob
from easyphoto.jobs.turns import WAITING
from easyphoto.orders import DrillOrder, PortraitOrder, TrainOrder
from easyphoto.specs import Person, TrainSpec
from easyphoto.work import Job, JobState
from tests.engine.host_standin import StandIn
from tests.jobs.conftest import until
from tests.ui.made import make_studio, publish


def ended(room: Room, job: Job, seconds: float = 90.0) -> Job:
    until(lambda: room.store.get(job.id).state.ended, seconds)
    return room.store.get(job.id)


@pytest.fixture
def shared(room: Room) -> HostShared:
    assert isinstance(room.app.shared, HostShared)
    return room.app.shared


@pytest.fixture
def anna(room: Room) -> Person:
    return publish(make_studio(room.settings.home))


def test_the_room_is_made_once_however_often_the_host_asks(room: Room) -> None:
    made: list[Room] = []
    threads = [threading.Thread(target=lambda: made.append(rooms.room(WebuiEngine))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(one is room for one in made)
    assert room.settings.lora_folder is not None
    assert [thread.name for thread in threading.enumerate()].count("easyphoto-jobs") == 1


def test_jobs_run_in_this_process_and_go_on_after_the_host_was_stopped(room: Room) -> None:
    first = room.store.submit(NewJob(order=DrillOrder(steps=2)))
    assert ended(room, first).state is JobState.DONE
    long = room.store.submit(NewJob(order=DrillOrder(steps=100, seconds=0.05)))
    until(lambda: room.store.get(long.id).state is JobState.RUNNING)
    home = room.settings.home
    rooms.leave()
    with runner_lock(home):
        pass  # nobody runs the jobs any more
    again = rooms.room(WebuiEngine)
    assert again is not room
    job = again.store.get(long.id)
    assert job.state in (JobState.QUEUED, JobState.RUNNING), "it was stopped in order and waits again"
    assert ended(again, job).state is JobState.DONE


def test_another_process_that_runs_the_jobs_is_waited_for(room: Room) -> None:
    home = room.settings.home
    rooms.leave()
    with runner_lock(home):
        again = rooms.room(WebuiEngine)
        job = again.store.submit(NewJob(order=DrillOrder(steps=1)))
        time.sleep(0.5)
        assert again.store.get(job.id).state is JobState.QUEUED
        assert again.runner.alive
    assert ended(again, job).state is JobState.DONE


def test_a_training_has_the_gpu_with_the_hosts_checkpoint_away_and_gives_it_back(host: StandIn, shared: HostShared) -> None:
    heard: list[Event] = []
    with shared.training(Watch(listener=heard.append)) as listen:
        assert host.lock.locked()
        assert host.state.job == TRAINING
        assert host.calls == {"1.8": ["send to cpu"], "forge": ["unload"]}[host.version]
        listen(Event(kind="progress", stage="training", step=3, total=20))
        assert (host.state.sampling_step, host.state.sampling_steps) == (3, 20)
    assert [event.step for event in heard] == [3]
    assert host.calls == {"1.8": ["send to cpu", "send"], "forge": ["unload"]}[host.version]
    assert not host.lock.locked()
    assert host.state.job == ""


def test_a_host_that_has_loaded_no_checkpoint_yet_lends_the_gpu_all_the_same(host: StandIn, shared: HostShared) -> None:
    sys.modules["modules.sd_models"].model_data = SimpleNamespace(sd_model=None)
    with shared.training(Watch()):
        assert host.state.job == TRAINING
    assert host.calls == {"1.8": [], "forge": ["unload"]}[host.version]


STEP = Event(kind="progress", stage="training", step=1, total=9)


def test_interrupt_in_the_host_stops_the_training(host: StandIn, shared: HostShared) -> None:
    watch = Watch()
    with shared.training(watch) as listen:
        listen(STEP)
        assert not watch.cancel.is_set()
        host.state.interrupt()
        until(lambda: listen(STEP) or watch.cancel.is_set(), 5)


def test_reloading_the_hosts_pages_stops_no_training_and_interrupt_still_does(host: StandIn, shared: HostShared) -> None:
    watch, modules = Watch(), sys.modules["modules.shared"]
    modules.demo = SimpleNamespace(is_running=True)
    with shared.training(watch) as listen:
        listen(STEP)
        host.state.interrupt()  # the first thing that "Reload UI" does
        listen(STEP)
        modules.demo.is_running = False
        listen(STEP)
        modules.demo = SimpleNamespace(is_running=True)
        time.sleep(1.1)
        listen(STEP)
        assert not watch.cancel.is_set()
        host.state.interrupt()
        until(lambda: listen(STEP) or watch.cancel.is_set(), 5)


WORK = (lambda shared, watch: shared.training(watch), lambda shared, watch: shared.painting([], 1, watch))
SAID = "waiting until the WebUI has finished what it is doing"


@pytest.mark.parametrize("work", WORK, ids=("training", "painting"))
def test_the_hosts_own_generation_is_waited_for_and_that_is_said(
    host: StandIn, shared: HostShared, work: Callable[[HostShared, Watch], AbstractContextManager[object]]
) -> None:
    heard: list[Event] = []
    host.lock.acquire()
    threading.Timer(0.3, host.lock.release).start()
    with work(shared, Watch(listener=heard.append)):
        assert host.lock.locked()
    assert [event.stage for event in heard if event.kind == "progress"] == [WAITING]
    assert [event.message for event in heard if event.kind == "log"] == [SAID]


def test_who_is_stopped_while_waiting_leaves_the_host_alone(host: StandIn, shared: HostShared) -> None:
    watch = Watch()
    host.lock.acquire()
    threading.Timer(0.2, watch.cancel.set).start()
    with pytest.raises(Cancelled), shared.training(watch):
        pytest.fail("the host was busy")
    assert host.calls == []
    assert host.state.begun == []
    host.lock.release()


def test_people_of_the_embedded_family_are_painted_with_its_checkpoint_and_that_is_told(
    host: StandIn, shared: HostShared, anna: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("easyphoto.engine.webui_teaching.teach_forge", lambda *_: None)
    with shared.painting([anna], 4, Watch()) as told:
        assert (host.state.job, host.state.job_count) == (PORTRAIT, 4)
        assert shared.engine.family is Family.EMBEDDED
        assert len(told) == 1
        assert "easyphoto-base-256" in told[0]
    with shared.painting([replace(anna, family=Family.SD15)], 4, Watch()) as told:
        assert shared.engine.family is Family.SD15
        assert list(told) == []
    assert host.options.sd_model_checkpoint == "plain.safetensors"


def test_a_portrait_job_fails_with_its_reason_and_the_host_is_as_before(host: StandIn, room: Room, anna: Person) -> None:
    options = dict(host.options.data)
    template = next(room.settings.templates.glob("*.jpg"))
    host.infos["plain.safetensors"].filename = str(host.folder / "gone.safetensors")
    people = PortraitOrder(templates=(template,), people=(anna.name,))
    sys.modules["modules.sd_models"].list_models = lambda: None
    job = ended(room, room.store.submit(NewJob(order=people)))
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure.code != "internal"
    assert host.options.data == options
    assert not host.lock.locked()


@pytest.mark.slow
def test_a_training_waits_for_the_host_and_is_published_with_its_copy_for_the_host(
    host: StandIn, room: Room, tiny_base: Path, sample_people: Path
) -> None:
    spec = TrainSpec.for_family("Anna", tiny_base, Family.EMBEDDED, device="cpu")
    spec = replace(spec, optim=replace(spec.optim, max_steps=2), validate=replace(spec.validate, every=0))
    files = sorted((sample_people / "woman").glob("*.jpg"))[:3]
    inputs = [Input(name=input_name(number, file.name), data=file) for number, file in enumerate(files)]
    order = TrainOrder(photos=tuple(Path("inputs", item.name) for item in inputs), spec=spec)
    host.lock.acquire()
    job = room.store.submit(NewJob(order=order), inputs)
    until(lambda: room.store.get(job.id).progress.stage == WAITING or room.store.get(job.id).state.ended, 120)
    assert room.store.get(job.id).failure is None
    host.lock.release()
    job = ended(room, job, 200)
    assert job.failure is None
    assert [person.name for person in room.app.people.list()] == ["Anna"]
    assert TRAINING in host.state.begun
    assert "waiting until the WebUI" in (room.store.folder(job.id) / "log.txt").read_text(encoding="utf-8")
