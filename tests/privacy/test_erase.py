"""After a deletion the disk holds nothing of the person any more, and everything of everybody else."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.app import App
from easyphoto.errors import Conflict, NotFound
from easyphoto.imaging.io import load_photo
from easyphoto.jobs.store import JobStore, NewJob
from easyphoto.privacy.audit import audit
from easyphoto.privacy.erase import erase_person
from easyphoto.privacy.traces import Kind
from easyphoto.store.lora_file import read_lora
from easyphoto.store.paths import Home, lora_name, person_id
from easyphoto.store.people import PeopleStore
from easyphoto.work import JobKind, JobState
from tests.privacy.conftest import BEA, PLACE, ZOE, inputs, order_training, photos_of


def pieces(data: bytes, count: int = 5, size: int = 48) -> set[bytes]:
    """Some stretches of a file's bytes: what a copy, a cut or a container of it would hold."""
    return {data[place : place + size] for place in range(len(data) // 4, len(data) - size, max(1, len(data) // count))}


def needles(app: App, store: JobStore, name: str, photos: tuple[bytes, ...]) -> dict[str, set[bytes]]:
    """Everything of a person that no file may hold afterwards."""
    person = app.people.get(name)
    embedding = np.asarray(person.embedding, np.float32)
    jobs = store.jobs_of(app.owner, name)
    handed_in = [path.read_bytes() for job in jobs for path in store.folder(job.id).glob("inputs/*/*.jpg")]
    drawn = (*person.folder.rglob("*.png"), *app.home.jobs.glob(f"{person.person_id}-*/*/*.png"))
    pictures = [path.read_bytes() for path in drawn]
    # What was learnt: the other factor begins as the same noise for everybody.
    learnt = (tensor for key, tensor in read_lora(person.lora).tensors.items() if key.endswith("up.weight"))
    return {
        "name": {name.encode(), json.dumps(name)[1:-1].encode(), person_id(name).encode(), lora_name(name).encode()},
        "photo": {piece for data in (*photos, *handed_in) for piece in pieces(data)},
        "digest": {hashlib.sha256(data).hexdigest().encode() for data in (*photos, *handed_in)},
        "crop or validation picture": {piece for data in pictures for piece in pieces(data)},
        "embedding as text": {repr(value).encode() for value in person.embedding[:32] if len(repr(value)) > 12},
        "embedding as bytes": {embedding[place : place + 4].tobytes() for place in range(0, 128, 4)},
        "LoRA": {tensor.tobytes()[:64] for tensor in learnt if np.count_nonzero(tensor.reshape(-1)[:16]) == 16},
        "job": {job.id.encode() for job in jobs},
    }


def found(root: Path, wanted: dict[str, set[bytes]]) -> list[str]:
    """Which file holds what, by a look at every byte and every name under a folder."""
    hits = []
    for path in (root, *sorted(root.rglob("*"))):
        data = path.read_bytes() if path.is_file() else b""
        for kind, values in wanted.items():
            if any(value in data or value in str(path.relative_to(root)).encode() for value in values):
                hits.append(f"{path.relative_to(root)}: {kind}")
    return hits


def test_the_search_itself_finds_everything_before(app: App, store: JobStore, home: Path) -> None:
    told = " ".join(found(home, needles(app, store, ZOE, photos_of("woman"))))
    for kind in ("name", "photo", "crop or validation picture", "embedding as text", "embedding as bytes", "LoRA", "job"):
        assert f": {kind}" in told


def test_photos_handed_in_lost_their_place_on_import(home: Path) -> None:
    assert found(home, {"place": {PLACE}}) == []


def test_nothing_of_the_person_is_left_on_the_disk(app: App, store: JobStore, home: Path) -> None:
    webui = home.parent / "webui"
    webui.mkdir()
    shutil.copyfile(app.people.get(ZOE).lora, webui / "other name.safetensors")
    (webui / "link.safetensors").symlink_to(app.people.get(ZOE).lora)
    shutil.copyfile(app.people.get(BEA).lora, webui / "bea.safetensors")
    wanted = needles(app, store, ZOE, photos_of("woman"))
    erased = erase_person(app, store, "zoë quandt", results=True)
    assert erased.person == ZOE
    assert found(home, wanted) == []
    assert sorted(path.name for path in webui.iterdir()) == ["bea.safetensors"]
    assert found(webui, wanted) == []
    assert erased.kept == ()
    assert not any((home / path).exists() for path in erased.removed if ": " not in path)
    assert len(erased.removed) == len(set(erased.removed)) > 30
    with pytest.raises(NotFound):
        erase_person(app, store, ZOE, results=True)


def test_the_others_keep_everything(app: App, store: JobStore, home: Path) -> None:
    before = {path: path.read_bytes() for path in (home / "people" / person_id(BEA)).rglob("*") if path.is_file()}
    [training] = [job for job in store.jobs_of("local", BEA) if job.kind is JobKind.TRAINING]
    erase_person(app, store, ZOE, results=True)
    assert {path: path.read_bytes() for path in before} == before
    assert app.people.get(BEA).lora.is_file()
    assert store.get(training.id).state is JobState.DONE
    [alone] = store.results("local", BEA)[:1]
    assert [face.person for picture in alone.pictures for face in picture.faces] == [BEA]
    log = (home / "queue" / "worker.log").read_text(encoding="utf-8")
    assert f"the job of {BEA} began" in log
    assert log.count("\n") == 3
    assert len(app.people.job_folders(BEA)) == 1


def test_results_stay_where_nobody_asked_and_are_told(app: App, store: JobStore, home: Path) -> None:
    erased = erase_person(app, store, ZOE)
    shown = [result.id for result in store.results("local", ZOE)]
    assert len(shown) == 3, "the training's and two portraits"
    assert {path.split("/")[1] for path in erased.kept} == set(shown)
    assert all((home / path).is_file() for path in erased.kept)
    assert store.jobs_of("local", ZOE) == ()
    again = erase_person(app, store, ZOE, results=True)
    assert set(erased.kept) <= set(again.removed)
    assert store.results("local", ZOE) == ()


def test_the_audit_finds_nothing_afterwards_and_found_every_kind_before(app: App, store: JobStore, home: Path) -> None:
    before = audit(home, store)
    assert {trace.kind for trace in before.of(ZOE)} == set(Kind)
    assert before.unattributed == ()
    erased = erase_person(app, store, ZOE, results=True)
    assert audit(home, store).of(ZOE) == ()
    told = {trace.path for trace in before.of(ZOE) if trace.kind not in (Kind.JOB_ROW, Kind.LOG)}
    assert told - set(erased.removed) == set(), "what the audit lists is what goes"


def test_a_job_that_waits_is_cancelled_and_one_that_runs_is_waited_for(app: App, store: JobStore, made: Path) -> None:
    waiting = store.submit(NewJob(order=order_training(ZOE, made / "base")), inputs(photos_of("woman")))
    running = store.submit(NewJob(order=order_training(ZOE, made / "base")), inputs(photos_of("woman")))
    set_running = f"UPDATE jobs SET state = 'running' WHERE id = '{running.id}'"  # noqa: S608
    store.database.write(lambda connection: connection.execute(set_running) and None)
    with pytest.raises(Conflict, match=f"the job {running.id} of {ZOE} still runs"):
        erase_person(app, store, ZOE, results=True, patience=0.2)
    assert app.people.get(ZOE).lora.is_file(), "nothing goes before all can go"
    assert store.get(waiting.id).state is JobState.CANCELLED
    assert store.get(running.id).cancel_asked
    back = f"UPDATE jobs SET state = 'failed' WHERE id = '{running.id}'"  # noqa: S608
    store.database.write(lambda connection: connection.execute(back) and None)
    erase_person(app, store, ZOE, results=True)
    assert store.jobs_of("local", ZOE) == ()


def test_somebody_who_was_never_trained_to_the_end_can_be_erased(app: App, store: JobStore, made: Path, home: Path) -> None:
    store.submit(NewJob(order=order_training("Nobody Yet", made / "base")), inputs(photos_of("woman")))
    erased = erase_person(app, store, "Nobody Yet")
    assert any("inputs" in path for path in erased.removed)
    assert found(home, {"name": {b"Nobody Yet", person_id("Nobody Yet").encode()}}) == []


def test_a_training_outside_of_the_queue_is_a_conflict(app: App, store: JobStore) -> None:
    with app.people.lock(ZOE), pytest.raises(Conflict, match="a training of"):
        erase_person(app, store, ZOE)
    assert app.people.get(ZOE).lora.is_file()


def test_an_owner_loses_their_own_person_alone(app: App, store: JobStore, home: Path) -> None:
    shutil.copytree(home / "people", home / "owners" / "studio" / "people")
    studio = replace_owner(app, "studio")
    erase_person(studio, store, ZOE, results=True)
    with pytest.raises(NotFound):
        studio.people.get(ZOE)
    assert app.people.get(ZOE).lora.is_file()
    assert len(store.jobs_of("local", ZOE)) == 4
    assert [trace for trace in audit(home, store).of(ZOE) if trace.owner == "studio"] == []


def replace_owner(app: App, owner: str) -> App:
    return app.for_owner(owner)


def test_a_renamed_person_goes_with_what_was_made_under_the_old_name(app: App, store: JobStore, home: Path) -> None:
    wanted = needles(app, store, ZOE, photos_of("woman"))
    app.people.rename(ZOE, "Ylva")
    assert {trace.person for trace in audit(home, store).traces} == {"Ylva", BEA, "Carl"}
    erase_person(app, store, "Ylva", results=True)
    assert found(home, wanted) == []
    assert PeopleStore(Home(home)).list()[0].name == BEA


def test_half_of_an_erasure_can_be_finished_later(
    app: App, store: JobStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = needles(app, store, ZOE, photos_of("woman"))
    monkeypatch.setattr(PeopleStore, "delete", lambda self, name: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        erase_person(app, store, ZOE, results=True)
    monkeypatch.undo()
    erase_person(app, store, ZOE, results=True)
    assert found(home, wanted) == []


def test_nothing_derived_from_a_photo_keeps_what_stood_beside_its_pixels(home: Path) -> None:
    from PIL import Image

    pictures = [path for path in home.rglob("*") if path.suffix in (".png", ".jpg")]
    assert len(pictures) > 10
    for path in pictures:
        assert load_photo(path)
        with Image.open(path) as image:
            assert {key for key in image.info if not key.startswith(("jfif", "progress"))} <= {"parameters", "dpi"}
            assert dict(image.getexif()) == {}


def test_a_setaside_broken_database_goes_too(app: App, store: JobStore, home: Path) -> None:
    shutil.copyfile(home / "queue" / "jobs.sqlite", home / "queue" / "jobs.sqlite.broken-20260101-000000-000000")
    erased = erase_person(app, store, ZOE, results=True)
    assert "queue/jobs.sqlite.broken-20260101-000000-000000" in erased.removed


def test_the_carl_that_failed_was_told_who_is_there_and_is_not_any_more(app: App, store: JobStore) -> None:
    erase_person(app, store, ZOE, results=True)
    [job] = store.jobs_of("local", "Carl")
    assert job.failure
    assert BEA in job.failure.sentence
    assert ZOE not in job.failure.sentence
    assert replace(job.failure, sentence="", log_tail=()).code == "not_found"
