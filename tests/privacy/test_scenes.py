"""Scenes and faces: photos of a scene may show people, so all of a scene is found and goes; a person of its name stays."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from easyphoto.app import App
from easyphoto.jobs.follow import run_order
from easyphoto.jobs.results import read_result
from easyphoto.jobs.store import JobStore, NewJob
from easyphoto.orders import TrainOrder
from easyphoto.portrait.infotext import read_infotext
from easyphoto.privacy.audit import audit
from easyphoto.privacy.erase import erase_person
from easyphoto.privacy.traces import Kind
from easyphoto.records import TrainKind
from easyphoto.store.lora_file import LoraFile, read_lora, write_lora
from easyphoto.store.removal import files_of
from easyphoto.work import JobState
from tests.privacy.conftest import ZOE, done, inputs, order_portrait, order_training, photos_of, settings_for, two_faces

SCENE = TrainKind.SCENE


def order_scene(name: str, base: Path, *captions: str) -> TrainOrder:
    order = order_training(name, base)
    spec = replace(order.spec, kind=SCENE, data=replace(order.spec.data, caption="a room, special_scene, scene"))
    return replace(order, spec=spec, captions=captions)


@pytest.fixture
def store(home: Path) -> JobStore:
    return JobStore(home)


@pytest.fixture
def app(made: Path, home: Path) -> App:
    """A home with a person and a scene of one name."""
    settings = settings_for(home, made / "base")
    done(settings, order_scene(ZOE, made / "base", "a window", "", "a door"), inputs(photos_of("woman")))
    return App(settings)


def files(app: App, part: str) -> list[str]:
    return [str(path.relative_to(app.home.root)) for path in files_of(app.home.root) if part in str(path)]


def test_a_scene_is_found_by_the_audit_and_apart_from_the_person_of_its_name(app: App, store: JobStore) -> None:
    found = audit(app.home.root, store, app.settings.lora_folder)
    assert found.unattributed == ()
    scene = found.of(ZOE, subject=SCENE)
    assert {trace.kind for trace in scene} >= {Kind.LORA, Kind.CROP, Kind.RECORD, Kind.JOB_ROW}
    assert all(trace.subject is SCENE for trace in scene)
    paths = {trace.path for trace in scene}
    assert not any(path.startswith(("people/", "jobs/")) for path in paths)
    assert not {trace.path for trace in found.of(ZOE) if trace.kind is not Kind.LOG} & {
        path for path in paths if "jobs.sqlite" not in path and not path.endswith(".log")
    }
    assert any(trace.kind is Kind.LORA and "webui" in trace.path for trace in scene), "the copy for a WebUI"


def test_a_deleted_scene_leaves_nothing_and_takes_nothing_of_the_person(app: App, store: JobStore) -> None:
    before = files(app, "people/"), {job.id for job in store.jobs_of("local", ZOE)}
    hosted = {path.name for path in files_of(app.home.root.parent / "webui")}
    assert any(name.startswith("easyphoto.scene-") for name in hosted)
    erased = erase_person(app, store, ZOE, results=True, subject=SCENE)
    assert any(path.startswith("scenes/") for path in erased.removed)
    assert audit(app.home.root, store, app.settings.lora_folder).of(ZOE, subject=SCENE) == ()
    assert app.shelf(SCENE).list() == ()
    assert (files(app, "people/"), {job.id for job in store.jobs_of("local", ZOE)}) == before
    left = {path.name for path in files_of(app.home.root.parent / "webui")}
    assert left == {name for name in hosted if not name.startswith("easyphoto.scene-")}
    log = (app.home.root / "queue" / "worker.log").read_text(encoding="utf-8")
    assert ZOE in log, "the person's name stays in what is told of them"


def test_a_deleted_person_leaves_the_scene_of_their_name(app: App, store: JobStore) -> None:
    scene = app.shelf(SCENE).get(ZOE)
    erase_person(app, store, ZOE, results=True)
    assert scene.lora.is_file()
    assert app.shelf(SCENE).get(ZOE) == scene
    assert store.jobs_of("local", ZOE) == ()
    [job] = store.jobs_of("local", ZOE, SCENE)
    assert read_result(store.result_folder(job.id)) is not None


def test_the_result_of_a_scene_has_its_picture_and_no_score(app: App, store: JobStore) -> None:
    [job] = store.jobs_of("local", ZOE, SCENE)
    result = store.result(job.id)
    assert (result.subject, result.score) == (SCENE, None)
    assert [verdict.accepted for verdict in result.verdicts] == [True] * 3
    assert store.results("local", ZOE, subject=SCENE) == (result,)
    assert result not in store.results("local", ZOE)


def portrait_with(app: App, prompt: str) -> tuple[JobState, str, str]:
    """A portrait of the person with that prompt: its job's state, its infotext or the failure, and its picture's digest."""
    order = replace(order_portrait(ZOE), prompt=prompt, templates=(Path("inputs/0000/0.png"),))
    job = run_order(app.settings, NewJob(order=order), inputs((two_faces(),), "png"))
    if job.failure:
        return job.state, job.failure.sentence, ""
    store = JobStore(app.home.root)
    [picture] = store.result(job.id).pictures
    with Image.open(io.BytesIO((store.result_folder(job.id) / picture.file).read_bytes())) as image:
        return job.state, picture.infotext, image.tobytes().hex()


def test_a_scene_is_named_in_a_portraits_prompt_as_the_webui_does(app: App) -> None:
    app.shelf(SCENE).rename(ZOE, "Old harbour")
    scene = app.shelf(SCENE).get("Old harbour")
    grown = read_lora(scene.lora)
    write_lora(scene.lora, LoraFile(tensors={key: value * (9 if "up" in key else 1) for key, value in grown.tensors.items()},
                                    metadata=grown.metadata))  # fmt: skip
    state, plain, without = portrait_with(app, "old stone")
    assert state is JobState.DONE
    state, infotext, picture = portrait_with(app, f"old stone, <lora:{scene.lora.stem}:0.8>")
    assert state is JobState.DONE
    assert picture != without
    said = read_infotext(infotext)[0]
    assert f"<lora:{scene.lora.stem}:0.8>" in said
    assert said.count("<lora:") == 2
    assert said.startswith(read_infotext(plain)[0].split(", <lora:")[0])


def test_a_scene_that_is_not_there_or_of_another_family_is_refused_in_a_sentence(app: App) -> None:
    state, sentence, _ = portrait_with(app, "<lora:nowhere:0.8>")
    assert state is JobState.FAILED
    assert "'nowhere'" in sentence
    assert "scenes: " in sentence
    scene = app.shelf(SCENE).get(ZOE)
    file = read_lora(scene.lora)
    other = {key: text for key, text in file.metadata.items() if key != "easyphoto_spec"}
    write_lora(scene.lora, LoraFile(tensors=file.tensors, metadata={**other, "ss_base_model_version": "sdxl_base_v1-0"}))
    state, sentence, _ = portrait_with(app, f"<lora:{scene.lora.stem}:0.8>")
    assert (state, "sdxl" in sentence) == (JobState.FAILED, True)
    assert portrait_with(app, "<lora:x:1:2>")[0] is JobState.FAILED
