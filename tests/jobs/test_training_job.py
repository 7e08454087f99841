"""A real training through the queue, on a tiny base model and real photos: killed at its worst moments, published once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from easyphoto.families import Family
from easyphoto.jobs.store import Input, JobStore, NewJob, input_name
from easyphoto.jobs.turns import Turns
from easyphoto.orders import CheckOrder, Consent, TrainOrder
from easyphoto.settings import Settings
from easyphoto.specs import DataSpec, LoraSpec, OptimSpec, TrainSpec, ValidateSpec
from easyphoto.store.notes import read_notes
from easyphoto.store.paths import owner_home
from easyphoto.store.people import PeopleStore
from easyphoto.work import Job, JobState
from tests.jobs.conftest import ended, kill, runner, until, worker
from tests.tiny import make_tiny_base


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def photos(sample_people: Path) -> list[Path]:
    return sorted((sample_people / "woman").glob("0[0-2].jpg"))


@pytest.fixture
def settings(settings: Settings, tiny_base: Path) -> Settings:
    return replace(settings, base_model=tiny_base, device="cpu")


def inputs_of(photos: list[Path]) -> tuple[Input, ...]:
    return tuple(Input(name=input_name(number, path.name), data=path) for number, path in enumerate(photos))


def order_of(base: Path, photos: list[Path], steps: int = 6, **said) -> TrainOrder:
    spec = TrainSpec(
        person="Anna", base_model=base, family=Family.EMBEDDED, lora=LoraSpec(rank=2, alpha=1.0),
        optim=OptimSpec(steps_per_photo=1000, max_steps=steps, batch_size=1), data=DataSpec(size=64, crops=1),
        validate=ValidateSpec(every=0), device="cpu",
    )  # fmt: skip
    return TrainOrder(photos=tuple(Path("inputs") / item.name for item in inputs_of(photos)), spec=spec, **said)


def trainings(home: Path, owner: str = "ann") -> list[Path]:
    return list(owner_home(home, owner).jobs.glob("anna-*"))


def lora(home: Path) -> Path:
    return PeopleStore(owner_home(home, "ann")).get("Anna").lora


def test_a_killed_training_goes_on_from_its_checkpoint_without_judging_the_photos_again(
    settings: Settings, store: JobStore, home: Path, photos: list[Path]
) -> None:
    base = str(settings.base_model)
    consent = Consent(given_by="Anna", given_at="2026-01-01")
    order = order_of(settings.base_model, photos, steps=400, consent=consent)
    job = store.submit(NewJob(order=order, owner="ann"), inputs_of(photos))
    with worker(home, EASYPHOTO_BASE_MODEL=base, EASYPHOTO_DEVICE="cpu") as process:
        until(lambda: list(home.glob("owners/ann/jobs/*/state.safetensors")) or _has_failed(store, job), 200)
        kill(process)
    (training,) = trainings(home)
    events = len(store.events(job.id))
    assert not store.get(job.id).state.ended
    with worker(home, EASYPHOTO_BASE_MODEL=base, EASYPHOTO_DEVICE="cpu"):
        until(lambda: any("going on after step" in (event.message or "") for _, event in store.events(job.id, events)), 200)
        (job,) = ended(store, job, seconds=300)
    assert (job.state, job.attempt) == (JobState.DONE, 2)
    assert not training.exists(), "its working files are not needed any more"
    assert not (store.folder(job.id) / "inputs").exists()
    result = store.result(job.id)
    assert read_notes(lora(home).parent).consent == consent
    assert [verdict.photo for verdict in result.verdicts] == [path.name for path in photos]
    assert "reference.png" in [file.name for file in result.files]
    stages = [event.stage for _, event in store.events(job.id, events)]
    assert not [stage for stage in stages if "photos" in stage], "the photos were not judged again"


def _has_failed(store: JobStore, job: Job) -> bool:
    assert store.get(job.id).failure is None
    return False


def test_a_training_that_was_published_before_the_kill_is_recognised(
    settings: Settings, store: JobStore, home: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = store.submit(NewJob(order=order_of(settings.base_model, photos), owner="ann"), inputs_of(photos))
    kept = home.parent / "kept"
    monkeypatch.setattr("easyphoto.jobs.runner.clean_up", lambda _desk: None)
    with runner(settings, store):
        (job,) = ended(store, job, seconds=300)
    assert job.failure is None
    (training,) = trainings(home)
    published = lora(home).stat()
    # As a kill after publishing leaves it: the person and the training are there, the job's result and end are not.
    shutil.move(owner_home(home, "ann").results / job.id, kept)
    (store.folder(job.id) / "end.json").unlink()
    sql = "UPDATE jobs SET state = 'running' WHERE id = ?"
    store.database.write(lambda connection: connection.execute(sql, (job.id,)) and None)
    monkeypatch.undo()
    with runner(settings, store):
        (job,) = ended(store, job, seconds=60)
    assert (job.state, job.failure) == (JobState.DONE, None)
    assert (lora(home).stat().st_ino, lora(home).stat().st_mtime_ns) == (published.st_ino, published.st_mtime_ns)
    assert not training.exists()
    assert len(store.result(job.id).verdicts) == 3


def test_two_trainings_of_one_person_are_taken_one_after_the_other(
    settings: Settings, store: JobStore, photos: list[Path]
) -> None:
    order = order_of(settings.base_model, photos)
    other = replace(order, spec=replace(order.spec, person="Berta"))
    first, second = (store.submit(NewJob(order=order, owner="ann"), inputs_of(photos)) for _ in range(2))
    theirs = store.submit(NewJob(order=order, owner="bea"), inputs_of(photos))
    berta = store.submit(NewJob(order=other, owner="ann"), inputs_of(photos))
    busy: list[str] = []
    turns = Turns(store)
    while (turn := turns.claim(busy)) is not None:
        busy.append(turn.job.id)
    assert busy == [first.id, theirs.id, berta.id]
    busy.remove(first.id)
    turn = turns.claim(busy)
    assert turn is not None
    assert turn.job.id == second.id


def test_a_person_who_is_known_is_refused_and_a_check_gives_verdicts(
    settings: Settings, store: JobStore, photos: list[Path]
) -> None:
    names = tuple(Path("inputs") / item.name for item in inputs_of(photos))
    order = order_of(settings.base_model, photos)
    with runner(settings, store):
        first = store.submit(NewJob(order=order), inputs_of(photos))
        second = store.submit(NewJob(order=order), inputs_of(photos))
        check = store.submit(NewJob(order=CheckOrder(photos=names, person="")), inputs_of(photos))
        first, second, check = ended(store, first, second, check, seconds=400)
    assert first.state is JobState.DONE, first.failure
    assert second.failure is not None
    assert second.failure.code == "conflict"
    assert [verdict.photo for verdict in store.result(check.id).verdicts] == [path.name for path in photos]
    assert store.jobs_of("local", "anna") == (first, second)


def test_cancelling_a_training_leaves_nobody_published(
    settings: Settings, store: JobStore, home: Path, photos: list[Path]
) -> None:
    order = order_of(settings.base_model, photos, steps=100_000)
    with runner(settings, store):
        job = store.submit(NewJob(order=order, owner="ann"), inputs_of(photos))
        until(lambda: store.get(job.id).progress.stage == "training" or _has_failed(store, job), 200)
        store.cancel(job.id)
        (job,) = ended(store, job, seconds=30)
    assert job.state is JobState.CANCELLED
    assert not list(home.glob("owners/ann/people/*/person.json"))
    assert Turns(store).claim() is None
