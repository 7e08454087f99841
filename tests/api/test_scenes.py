"""Scenes on the wire: handed in with captions, refused, listed, renamed, deleted."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easyphoto.orders import CheckOrder, TrainOrder
from easyphoto.records import Photo, PhotoScores, PreparedPhoto, PreparedSet, Reason, TrainKind, Verdict
from easyphoto.specs import DataSpec, Person, TrainResult, TrainSpec
from easyphoto.store.lora_file import DOWN, UP, LoraFile, write_lora
from easyphoto.store.paths import Home, person_id
from easyphoto.store.people import PeopleStore
from tests.api.legacy_bodies import train_body
from tests.api.rig import Rig, fields_of, jpeg, person_in, problem_of

BASE64 = base64.b64encode(jpeg()).decode()


def body(**more: Any) -> dict[str, Any]:
    photos = [{"name": "quay.jpg", "data": BASE64}, {"name": "boats.jpg", "data": BASE64}]
    return {"name": "Harbour", "photos": photos, **more}


def order_of(rig: Rig, job: dict[str, Any]) -> TrainOrder:
    order = rig.service.store.order(job["id"])
    assert isinstance(order, TrainOrder)
    return order


def scene_in(home: Path, folder: Path, name: str = "Harbour", kind: TrainKind = TrainKind.SCENE) -> Person:
    """A published scene without anything that was computed."""
    folder.mkdir(parents=True, exist_ok=True)
    lora = folder / "lora.safetensors"
    write_lora(lora, LoraFile(tensors={f"lora_unet_x.{part}": np.zeros((2, 2), np.float32) for part in (DOWN, UP)}))
    photo = Photo(pixels=np.full((32, 32, 3), 90, np.uint8), name="a.jpg")
    one = PreparedPhoto(name="a.jpg", original=photo, crop=photo, face=None, scores=PhotoScores(), caption="boats at dusk")
    verdict = Verdict(photo="a.jpg", accepted=True, reason=Reason.GOOD, sentence="Taken.", is_reference=True)
    prepared = PreparedSet(photos=(one,), verdicts=(verdict,), reference=0, embedding=np.zeros(0, np.float32))
    result = TrainResult(lora=lora, steps=4, photos=1, checkpoints=(), chosen=-1, face_id_picture=None, seconds=1.0)
    spec = TrainSpec(person=name, base_model=Path("/models/base"), kind=kind, data=DataSpec(crop_ratio=0.0))
    return PeopleStore(Home(home).shelf(kind)).publish(spec, prepared, result)


def test_a_scene_in_json_becomes_an_order_with_its_captions(rig: Rig) -> None:
    asked = body(prompt="a harbour", captions=["an old quay", ""], settings={"optim": {"max_steps": 7}})
    answer = rig.mine.post("/scenes", json=asked)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["kind"], job["person"], job["subject"]) == ("training", "Harbour", "scene")
    order = order_of(rig, job)
    assert order.captions == ("an old quay", "")
    assert (order.spec.kind, order.spec.optim.max_steps) == (TrainKind.SCENE, 7)
    assert order.spec.data.caption == "a harbour, special_scene, scene"
    assert order.spec.data.crop_ratio == 3.0


def test_captions_come_as_text_files_of_a_form_too(rig: Rig) -> None:
    files = [
        ("photos", ("quay.jpg", jpeg(1), "image/jpeg")), ("photos", ("boats.txt", b"boats\nat dusk", "text/plain")),
        ("photos", ("boats.jpg", jpeg(2), "image/jpeg")),
    ]  # fmt: skip
    refused = rig.mine.post("/scenes", data={"name": "Harbour", "kind": "scene"}, files=files)
    assert fields_of(refused) == ["captions"]
    assert "quay.jpg has no caption" in refused.json()["detail"]
    answer = rig.mine.post("/scenes", data={"name": "Harbour", "kind": "cloth", "prompt": "a coat"}, files=files)
    assert answer.status_code == 202, answer.text
    order = order_of(rig, answer.json())
    assert [path.name for path in order.photos] == ["quay.jpg", "boats.jpg"]
    assert order.captions == ("", "boats at dusk")
    assert order.spec.kind is TrainKind.CLOTH


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"kind": "person"}, "kind"), ({"kind": "style"}, "kind"), ({"captions": ["one"]}, "captions"),
        ({"captions": ["one", ""]}, "captions"), ({"settings": {"data": {"crop_ratio": 99}}}, "settings.data.crop_ratio"),
        ({"photos": []}, "photos"), ({"name": "a/b"}, "name"), ({"retouch": True}, "retouch"),
    ],
)
def test_what_cannot_be_a_scene_is_refused_by_its_field(rig: Rig, more: dict[str, Any], field: str) -> None:
    assert fields_of(rig.mine.post("/scenes", json=body(**more))) == [field]
    assert rig.service.store.list() == ()


def test_a_person_has_neither_captions_nor_a_crop_ratio(rig: Rig) -> None:
    assert fields_of(rig.mine.post("/people", json=body(captions=["a", "b"]))) == ["captions"]
    wanted = {"data": {"crop_ratio": 3.0}}
    assert fields_of(rig.mine.post("/people", json=body(settings=wanted))) == ["settings.data.crop_ratio"]


def test_a_scene_and_a_person_of_one_name_are_two(rig: Rig, tmp_path: Path) -> None:
    home = rig.service.settings.home
    person_in(home, tmp_path / "made", "Harbour")
    scene = scene_in(home, tmp_path / "made")
    [listed] = rig.mine.get("/scenes").json()["items"]
    assert listed == {
        "id": f"scene-{scene.person_id}", "name": "Harbour", "kind": "scene", "family": "embedded", "created": scene.created,
        "photos": 1, "prompt": "boats at dusk", "lora": "Harbour",
    }  # fmt: skip
    assert rig.mine.get(f"/scenes/{listed['id']}").json() == listed
    assert rig.mine.get(f"/scenes/{listed['id']}/picture").content == scene.reference.read_bytes()
    assert problem_of(rig.mine.post("/scenes", json=body()), 409)["code"] == "conflict"
    assert rig.theirs.get(f"/scenes/{listed['id']}").status_code == 404
    assert rig.theirs.get("/scenes").json()["items"] == []

    renamed = rig.mine.patch(f"/scenes/{listed['id']}", json={"name": "Quay"}).json()
    assert renamed["name"] == "Quay"
    job = rig.mine.post("/scenes", json=body(name="Quay", replace=True)).json()
    removed = rig.mine.delete(f"/scenes/{renamed['id']}").json()["removed"]
    assert any(path.endswith("Quay.safetensors") for path in removed)
    assert any(job["id"] in path for path in removed)
    assert rig.mine.get("/scenes").json()["items"] == []
    [person] = rig.mine.get("/people").json()["items"]
    assert person["name"] == "Harbour", "the person of that name stays"


def test_deleting_a_scene_leaves_the_jobs_of_a_person_of_that_name(rig: Rig) -> None:
    scene = rig.mine.post("/scenes", json=body()).json()
    person = rig.mine.post("/people", json={"name": "Harbour", "photos": [{"name": "a.jpg", "data": BASE64}]}).json()
    assert [job.id for job in rig.service.store.jobs_of("local", "Harbour")] == [person["id"]]
    assert [job.id for job in rig.service.store.jobs_of("local", "Harbour", TrainKind.SCENE)] == [scene["id"]]
    rig.mine.delete(f"/scenes/scene-{person_id('Harbour')}")
    assert rig.mine.get(f"/jobs/{scene['id']}").status_code == 404
    assert rig.mine.get(f"/jobs/{person['id']}").status_code == 200


def test_photos_of_a_scene_are_checked_as_such(rig: Rig) -> None:
    job = rig.mine.post("/checks", json={"photos": body()["photos"], "kind": "scene"}).json()
    order = rig.service.store.order(job["id"])
    assert isinstance(order, CheckOrder)
    assert (order.kind, job["person"]) == (TrainKind.SCENE, None)


def test_the_older_extensions_route_trains_a_scene(rig: Rig, tmp_path: Path) -> None:
    said = train_body(
        train_mode_choose="Train Scene Lora", user_id="Harbour", instance_images=[BASE64], training_prefix_prompt="a harbour",
        crop_ratio=0.5,
    )  # fmt: skip
    scene_in(rig.service.settings.home, tmp_path / "made")
    url = f"http://127.0.0.1:{rig.port}/easyphoto/easyphoto_train_forward"
    known = rig.mine.post(url, json=said)
    assert known.json() == {"message": "User id non-repeatability."}
    assert rig.service.store.list() == ()
