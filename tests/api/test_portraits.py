"""Portraits handed in, on the wire."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from easyphoto.extras import IdControl, SuperResolution
from easyphoto.orders import PortraitOrder
from easyphoto.specs import PassRequest, Person, PortraitSettings
from easyphoto.store.templates import list_templates
from tests.api.rig import Rig, fields_of, jpeg, person_in, problem_of

PICTURE = {"name": "beach.jpg", "data": base64.b64encode(jpeg()).decode()}


@pytest.fixture
def anna(rig: Rig, tmp_path: Path) -> Person:
    return person_in(rig.service.settings.home, tmp_path / "made")


def order_of(rig: Rig, answer: Any) -> PortraitOrder:
    assert answer.status_code == 202, answer.text
    order = rig.service.store.order(answer.json()["id"])
    assert isinstance(order, PortraitOrder)
    return order


def test_people_templates_and_settings_become_an_order(rig: Rig, anna: Person) -> None:
    gallery = list_templates(rig.service.settings.templates)[0]
    body = {
        "people": [None, anna.person_id], "templates": [PICTURE, {"gallery": gallery.name}, PICTURE],
        "settings": {"seed": 7, "count": 2, "first": {"strength": 0.5, "weights": [["canny", 0.4]]}, "second": None},
    }  # fmt: skip
    order = order_of(rig, rig.mine.post("/portraits", json=body))
    assert order.people == (None, "Anna")
    assert [path.name for path in order.templates] == ["beach.jpg", gallery.path.name, "beach (2).jpg"]
    assert order.templates[1] == gallery.path
    assert (order.seed, order.count, order.second) == (7, 2, None)
    assert order.first == PassRequest(strength=0.5, weights=(("canny", 0.4),))
    # What was not said is the record's own default.
    assert (order.lora_weight, order.fuse_before) == (PortraitSettings().lora_weight, PortraitSettings().fuse_before)


def test_the_further_steps_are_ordered_too(rig: Rig, anna: Person) -> None:
    said = {
        "makeup": 0.5, "retouch": 0.4, "background": 0.3, "face_shape_match": True, "crop_face": False,
        "super_resolution": {"way": "lanczos", "ratio": 1},
    }  # fmt: skip
    body = {"people": [anna.person_id], "templates": [PICTURE], "settings": said}
    order = order_of(rig, rig.mine.post("/portraits", json=body))
    assert (order.makeup, order.retouch, order.background) == (0.5, 0.4, 0.3)
    assert (order.face_shape_match, order.crop_face) == (True, False)
    assert order.super_resolution == SuperResolution(way="lanczos", ratio=1.0)
    for wrong, field in (({"makeup": 2}, "settings"), ({"super_resolution": {"way": 3}}, "settings.super_resolution.way")):
        answer = rig.mine.post("/portraits", json={**body, "settings": wrong})
        assert answer.status_code == 422
        assert field in answer.text


def test_the_id_control_takes_a_picture_beside_the_templates(rig: Rig, anna: Person) -> None:
    said = {"settings": {"id_control": {"weight": 0.5}}, "id_picture": {**PICTURE, "name": "me.jpg"}}
    body = {"people": [anna.person_id], "templates": [PICTURE], **said}
    order = order_of(rig, rig.mine.post("/portraits", json=body))
    assert order.id_control == IdControl(weight=0.5)
    assert [path.name for path in (*order.templates, order.id_picture or Path())][1:] == ["me.jpg"]
    files = [("templates", ("b.jpg", jpeg()))]
    both = order_of(rig, rig.mine.post("/portraits", data={"request": json.dumps(body)}, files=files))
    assert [path.name for path in both.templates][1:] == ["b.jpg"]
    assert both.id_picture is not None
    assert both.id_picture.name == "me.jpg"
    off = rig.mine.post("/portraits", json={**body, "settings": {}})
    assert (off.status_code, "the ID control" in off.text) == (422, True)
    broken = rig.mine.post("/portraits", json={**body, "id_picture": {"data": "AAAA"}})
    assert (broken.status_code, "id_picture" in broken.text) == (422, True)


def test_as_a_form_the_files_follow_what_the_request_names(rig: Rig, anna: Person) -> None:
    gallery = list_templates(rig.service.settings.templates)[0]
    request = json.dumps({"people": [anna.person_id], "templates": [{"gallery": gallery.name}]})
    files = [("templates", ("Straße.jpg", jpeg())), ("templates", ("b.jpg", jpeg()))]
    order = order_of(rig, rig.mine.post("/portraits", data={"request": request}, files=files))
    assert [path.name for path in order.templates] == [gallery.path.name, "Straße.jpg", "b.jpg"]
    assert fields_of(rig.mine.post("/portraits", data={"people": "x"}, files=files)) == ["people"]
    assert fields_of(rig.mine.post("/portraits", data={"request": '{"people": [1]}'}, files=files)) == ["people[0]"]
    assert fields_of(rig.mine.post("/portraits", data={"request": "["}, files=files)) == ["request"]
    assert fields_of(rig.mine.post("/portraits", files=files)) == ["request"]


def test_an_open_seed_is_drawn_and_the_same_for_a_repeated_request(rig: Rig, anna: Person) -> None:
    body = {"people": [anna.person_id], "templates": [PICTURE], "settings": {"seed": None}}
    seeds = {order_of(rig, rig.mine.post("/portraits", json=body)).seed for _ in range(4)}
    assert len(seeds) == 4
    answers = [rig.mine.post("/portraits", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert answers[0].json()["id"] == answers[1].json()["id"]


@pytest.mark.parametrize(
    ("change", "field", "status"),
    [
        ({"people": []}, "people", 422), ({"people": [None]}, "people", 422),
        ({"people": ["nobody-0123456789"]}, "people[0]", 404),
        ({"people": "Anna"}, "people", 422), ({"templates": []}, "templates", 422),
        ({"templates": [{"gallery": "none such"}]}, "templates[0].gallery", 404),
        ({"templates": [{"gallery": "../secret"}]}, "templates[0].gallery", 404),
        ({"templates": [{}]}, "templates[0]", 422), ({"templates": [PICTURE, {"name": "x"}]}, "templates[1]", 422),
        ({"templates": [PICTURE, {"data": "bm8="}]}, "templates[1]", 422),
        ({"templates": [{"url": "http://example.org/a.jpg"}]}, "templates[0].url", 422),
        ({"settings": {"count": 65}}, "settings.count", 422), ({"settings": {"count": 1.5}}, "settings.count", 422),
        ({"settings": {"seed": -1}}, "settings.seed", 422),
        ({"settings": {"first": {"steps": 0}}}, "settings.first.steps", 422),
        ({"settings": {"first": None}}, "settings.first", 422), ({"settings": {"lora": 1}}, "settings.lora", 422),
        ({"settings": {"first": {"weights": [["canny"]]}}}, "settings.first.weights[0]", 422),
        ({"priority": -11}, "priority", 422), ({"wait": True}, "wait", 422),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_by_its_field(
    rig: Rig, anna: Person, change: dict[str, Any], field: str, status: int
) -> None:
    answer = rig.mine.post("/portraits", json={"people": [anna.person_id], "templates": [PICTURE], **change})
    found = fields_of(answer, status)
    assert any(name == field or name.startswith(f"{field}[") for name in found), found


def test_a_text_file_as_a_template_is_refused_by_name(rig: Rig, anna: Person) -> None:
    request = json.dumps({"people": [anna.person_id]})
    files = [("templates", ("a.jpg", jpeg())), ("templates", ("notes.jpg", b"text", "image/jpeg"))]
    answer = rig.mine.post("/portraits", data={"request": request}, files=files)
    assert fields_of(answer) == ["templates[1]"]
    assert "notes.jpg" in answer.json()["detail"]


def test_another_owners_person_does_not_exist(rig: Rig, anna: Person) -> None:
    body = {"people": [anna.person_id], "templates": [PICTURE]}
    assert problem_of(rig.theirs.post("/portraits", json=body), 404)["code"] == "not_found"
