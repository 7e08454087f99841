"""Photos handed in, on the wire: every way to send them, everything that is refused, and what the queue gets."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyphoto.families import PROFILES, Family
from easyphoto.orders import CheckOrder, Consent, TrainOrder
from tests.api.rig import Rig, fields_of, jpeg, person_in, problem_of

BASE64 = base64.b64encode(jpeg()).decode()


def body(**more: Any) -> dict[str, Any]:
    return {"name": "Anna", "photos": [{"name": "beach.jpg", "data": BASE64}], **more}


def test_a_training_in_json_becomes_an_order_with_its_photos(rig: Rig) -> None:
    consent = {"given_by": "Anna", "given_at": "2026-07-01", "note": ""}
    wanted = {"lora": {"rank": 8, "alpha": 4}, "validate": {"every": 7}, "seed": 5}
    answer = rig.mine.post(
        "/people", json=body(settings=wanted, consent=consent, take=["beach.jpg"], retouch=False, priority=3)
    )
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["kind"], job["state"], job["person"], job["priority"]) == ("training", "queued", "Anna", 3)
    assert answer.headers["location"] == f"/easyphoto/v1/jobs/{job['id']}"
    order = rig.service.store.order(job["id"])
    assert isinstance(order, TrainOrder)
    assert (order.spec.lora.rank, order.spec.lora.alpha, order.spec.seed) == (8, 4.0, 5)
    # What was not said is the family's, not the record's.
    assert order.spec.lora.text_encoder is True
    assert order.spec.optim.max_steps == PROFILES[Family.EMBEDDED].max_steps
    assert order.spec.validate.every == 7
    assert order.spec.data.size == PROFILES[Family.EMBEDDED].train_size
    assert order.consent == Consent(given_by="Anna", given_at="2026-07-01")
    assert (order.take, order.retouch, order.replace) == (("beach.jpg",), False, False)
    [photo] = order.photos
    assert photo.name == "beach.jpg"
    assert (rig.service.store.folder(job["id"]) / photo).read_bytes() == jpeg()


def test_a_training_as_a_form_says_the_same(rig: Rig) -> None:
    files = [("photos", (f"{number}.jpg", jpeg(number), "image/jpeg")) for number in (1, 2)]
    form = {
        "name": "Anna", "settings": json.dumps({"optim": {"max_steps": 9}}), "take": ["1.jpg", "2.jpg"], "retouch": "false",
        "replace": "true", "priority": "-2", "consent": json.dumps({"given_by": "A", "given_at": "2026-07-01"}),
    }  # fmt: skip
    answer = rig.mine.post("/people", data=form, files=files)
    assert answer.status_code == 202, answer.text
    order = rig.service.store.order(answer.json()["id"])
    assert isinstance(order, TrainOrder)
    assert [path.name for path in order.photos] == ["1.jpg", "2.jpg"]
    assert (order.spec.optim.max_steps, order.retouch, order.replace, order.take) == (9, False, True, ("1.jpg", "2.jpg"))
    assert answer.json()["priority"] == -2


def test_labels_keep_any_letters_and_no_path(rig: Rig) -> None:
    names = ["../../etc/passwd", "C:\\boot\\a.jpg", "Grüße 王小明 🚀.jpg", ".hidden", "con.jpg", "x" * 400 + ".jpg", ""]
    photos = [{"name": name, "data": BASE64} for name in names]
    job = rig.mine.post("/people", json=body(photos=photos)).json()
    folder = rig.service.store.folder(job["id"])
    order = rig.service.store.order(job["id"])
    assert isinstance(order, TrainOrder)
    for path in order.photos:
        assert ".." not in path.parts
        assert (folder / path).resolve().is_relative_to(folder.resolve())
        assert (folder / path).read_bytes() == jpeg()
    assert "Grüße 王小明 🚀.jpg" in [path.name for path in order.photos]


def test_two_photos_of_one_name_get_two(rig: Rig) -> None:
    photos = [{"name": "a.jpg", "data": BASE64}, {"name": "A.jpg", "data": BASE64}]
    order = rig.service.store.order(rig.mine.post("/people", json=body(photos=photos)).json()["id"])
    assert isinstance(order, TrainOrder)
    assert [path.name for path in order.photos] == ["a.jpg", "A (2).jpg"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": 5}, "name"),
        ({"nmae": "Anna"}, "nmae"),
        ({"photos": []}, "photos"),
        ({"photos": [{"name": "a.jpg"}]}, "photos[0]"),
        ({"photos": [{"data": BASE64, "url": "http://example.org/a.jpg"}]}, "photos[0]"),
        ({"photos": [{"data": "§§"}]}, "photos[0].data"),
        ({"photos": [{"url": "http://example.org/a.jpg"}]}, "photos[0].url"),
        ({"photos": [{"data": BASE64, "mode": "x"}]}, "photos[0].mode"),
        ({"photos": [{"data": base64.b64encode(b"text").decode()}]}, "photos[0]"),
        ({"settings": {"lora": {"rank": 0, "alpha": 0.01}}}, "settings.lora.rank"),
        ({"settings": {"lora": {"rank": "8"}}}, "settings.lora.rank"),
        ({"settings": {"lora": {"rnak": 8}}}, "settings.lora.rnak"),
        ({"settings": {"data": {"size": 100}}}, "settings.data.size"),
        ({"settings": {"seed": -1}}, "settings.seed"),
        ({"settings": {"seed": 10**30}}, "settings.seed"),
        ({"settings": {"person": "Berta"}}, "settings.person"),
        ({"consent": {"given_by": "Anna"}}, "consent.given_at"),
        ({"priority": 11}, "priority"),
        ({"priority": True}, "priority"),
        ({"retouch": 1}, "retouch"),
        ({"webhook": "ftp://example.org"}, "webhook"),
        ({"webhook": "http://127.0.0.1:9000/"}, "webhook"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_by_its_field(rig: Rig, change: dict[str, Any], field: str) -> None:
    answer = rig.mine.post("/people", json=body(**change))
    assert field in fields_of(answer)
    assert rig.mine.get("/jobs").json()["items"] == []


def test_an_unknown_base_model_is_not_found(rig: Rig) -> None:
    answer = rig.mine.post("/people", json=body(settings={"base_model": "sdxl"}))
    assert fields_of(answer, 404) == ["settings.base_model"]
    assert "base-256" in answer.json()["detail"]


def test_all_faults_are_told_at_once(rig: Rig) -> None:
    assert fields_of(rig.mine.post("/people", json=body(name=1, retouch="no", strange=1))) == ["name", "retouch", "strange"]


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"name": "Anna", "nmae": "x"}, "nmae"), ({"name": ["Anna", "Berta"]}, "name"), ({}, "name"),
        ({"name": "Anna", "retouch": "maybe"}, "retouch"), ({"name": "Anna", "priority": "high"}, "priority"),
        ({"name": "Anna", "settings": "{"}, "settings"),
        ({"name": "Anna", "settings": '{"lora": {"rank": "x"}}'}, "settings.lora.rank"),
        ({"name": "Anna", "settings": '{"lora": {"rank": 0, "alpha": 0.01}}'}, "settings.lora.rank"),
        ({"name": "Anna", "photos": "text"}, "photos"),
    ],
)  # fmt: skip
def test_forms_are_refused_by_their_field_too(rig: Rig, form: dict[str, Any], field: str) -> None:
    assert field in fields_of(rig.mine.post("/people", data=form, files=[("photos", ("a.jpg", jpeg()))]))


def test_a_file_under_a_strange_field_is_refused(rig: Rig) -> None:
    files = [("photos", ("a.jpg", jpeg())), ("extra", ("b.jpg", jpeg()))]
    assert fields_of(rig.mine.post("/people", data={"name": "Anna"}, files=files)) == ["extra"]


def test_a_text_file_among_photos_is_left_to_the_verdicts_and_alone_is_refused(rig: Rig) -> None:
    text = ("photos", ("holiday.jpg", b"not a picture", "image/jpeg"))
    answer = rig.mine.post("/people", data={"name": "Anna"}, files=[("photos", ("a.jpg", jpeg())), text])
    assert answer.status_code == 202
    alone = rig.mine.post("/people", data={"name": "Berta"}, files=[text])
    assert fields_of(alone) == ["photos[0]"]
    assert "holiday.jpg" in alone.json()["detail"]
    assert alone.json()["code"] == "bad_photo"


def test_nothing_of_an_upload_is_left_lying_around(rig: Rig) -> None:
    rig.mine.post("/people", data={"name": "Anna"}, files=[("photos", ("a.jpg", jpeg()))])
    rig.mine.post("/people", data={"name": "Anna"}, files=[("photos", ("a.jpg", b"no picture"))])
    left = [path for path in (rig.service.settings.home / "uploads").rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["server.lock"]


def test_a_trained_person_is_trained_again_only_if_asked(rig: Rig, tmp_path: Path) -> None:
    person_in(rig.service.settings.home, tmp_path / "made")
    assert problem_of(rig.mine.post("/people", json=body()), 409)["code"] == "conflict"
    assert rig.mine.post("/people", json=body(replace=True)).status_code == 202
    assert rig.theirs.post("/people", json=body()).status_code == 202


def test_one_idempotency_key_is_one_job(rig: Rig, tmp_path: Path) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = rig.mine.post("/people", json=body(), headers=key)
    # Also when it has been done meanwhile and the person is there.
    person_in(rig.service.settings.home, tmp_path / "made")
    assert rig.mine.post("/people", json=body(), headers=key).json()["id"] == first.json()["id"]
    assert problem_of(rig.mine.post("/people", json=body(retouch=False), headers=key), 409)["code"] == "conflict"
    assert rig.theirs.post("/people", json=body(), headers=key).json()["id"] != first.json()["id"]
    assert fields_of(rig.mine.post("/people", json=body(), headers={"Idempotency-Key": "x" * 300})) == ["Idempotency-Key"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NUMBER = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | JSON
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "lora": st.fixed_dictionaries({}, optional={"rank": NUMBER, "alpha": NUMBER, "text_encoder": JSON}),
        "optim": st.fixed_dictionaries({}, optional={"max_steps": NUMBER, "batch_size": NUMBER, "snr_gamma": NUMBER}),
        "data": st.fixed_dictionaries({}, optional={"size": NUMBER, "crops": NUMBER, "caption": JSON}),
        "validate": st.fixed_dictionaries({}, optional={"every": NUMBER, "steps": NUMBER}) | JSON,
        "seed": NUMBER,
        "base_model": JSON,
    },
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    more=st.fixed_dictionaries(
        {},
        optional={
            "settings": SETTINGS, "take": JSON, "retouch": JSON, "consent": JSON, "priority": NUMBER, "webhook": JSON,
            "name": JSON,
        },
    )
)  # fmt: skip
def test_whatever_comes_beside_a_good_photo_is_taken_or_refused_with_a_problem(rig: Rig, more: dict[str, Any]) -> None:
    answer = rig.mine.post("/people", json=body(**more))
    if answer.status_code != 202:
        assert answer.status_code in (400, 404, 422)
        problem_of(answer, answer.status_code)


def test_photos_can_be_checked_without_a_name(rig: Rig) -> None:
    job = rig.mine.post("/checks", files=[("photos", ("a.jpg", jpeg()))], data={"retouch": "false"}).json()
    assert (job["kind"], job["person"]) == ("check", None)
    order = rig.service.store.order(job["id"])
    assert isinstance(order, CheckOrder)
    assert order.retouch is False
    assert fields_of(rig.mine.post("/checks", json=body())) == ["name"]


def test_people_are_listed_in_pages_by_name(rig: Rig, tmp_path: Path) -> None:
    for name in ("Berta", "anna", "王小明", "Carla"):
        person_in(rig.service.settings.home, tmp_path / "made", name)
    first = rig.mine.get("/people", params={"limit": 3}).json()
    assert [person["name"] for person in first["items"]] == ["anna", "Berta", "Carla"]
    second = rig.mine.get("/people", params={"limit": 3, "cursor": first["next"]}).json()
    assert [person["name"] for person in second["items"]] == ["王小明"]
    assert second["next"] is None
    assert fields_of(rig.mine.get("/people", params={"cursor": "%%"})) == ["cursor"]
    assert rig.theirs.get("/people").json() == {"items": [], "next": None}


def test_a_person_is_shown_with_verdicts_and_reference(rig: Rig, tmp_path: Path) -> None:
    person = person_in(rig.service.settings.home, tmp_path / "made")
    shown = rig.mine.get(f"/people/{person.person_id}").json()
    assert shown == {
        "id": person.person_id, "name": "Anna", "family": "embedded", "created": person.created, "score": None, "photos": 1,
        "consent": None,
    }  # fmt: skip
    assert rig.mine.get(f"/people/{person.person_id}/photos").json()["items"][0]["sentence"] == "Taken."
    reference = rig.mine.get(f"/people/{person.person_id}/reference")
    assert (reference.headers["content-type"], reference.content) == ("image/png", person.reference.read_bytes())
    again = rig.mine.get(f"/people/{person.person_id}/reference", headers={"If-None-Match": reference.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path in ("", "/photos", "/reference"):
        assert problem_of(rig.theirs.get(f"/people/{person.person_id}{path}"), 404)["code"] == "not_found"


def test_a_person_is_renamed_and_consents(rig: Rig, tmp_path: Path) -> None:
    person = person_in(rig.service.settings.home, tmp_path / "made")
    consent = {"given_by": "Anna", "given_at": "2026-07-01", "note": "by letter"}
    assert rig.mine.patch(f"/people/{person.person_id}", json={"consent": consent}).json()["consent"] == consent
    renamed = rig.mine.patch(f"/people/{person.person_id}", json={"name": "Anna Maria"}).json()
    assert (renamed["name"], renamed["consent"]) == ("Anna Maria", consent)
    assert rig.mine.get(f"/people/{person.person_id}").status_code == 404
    assert rig.mine.patch(f"/people/{renamed['id']}", json={"consent": None}).json()["consent"] is None
    assert fields_of(rig.mine.patch(f"/people/{renamed['id']}", json={"name": "a/b"})) == ["name"]
    assert fields_of(rig.mine.patch(f"/people/{renamed['id']}", json={"score": 1})) == ["score"]
    assert rig.theirs.patch(f"/people/{renamed['id']}", json={"name": "Mine"}).status_code == 404


def test_a_person_is_deleted_and_the_answer_says_what_went(rig: Rig, tmp_path: Path) -> None:
    person = person_in(rig.service.settings.home, tmp_path / "made")
    assert rig.theirs.delete(f"/people/{person.person_id}").status_code == 404
    removed = rig.mine.delete(f"/people/{person.person_id}", params={"results": "true"}).json()["removed"]
    assert f"people/{person.person_id}/Anna.safetensors" in removed
    assert rig.mine.get(f"/people/{person.person_id}").status_code == 404
    assert rig.mine.delete(f"/people/{person.person_id}").status_code == 404


def test_somebody_of_whom_only_a_job_is_left_can_be_deleted(rig: Rig) -> None:
    from easyphoto.store.paths import person_id

    job = rig.mine.post("/people", json=body()).json()
    rig.mine.delete(f"/jobs/{job['id']}")
    removed = rig.mine.delete(f"/people/{person_id('Anna')}").json()["removed"]
    assert any(path.endswith("beach.jpg") for path in removed)
    assert rig.mine.get(f"/jobs/{job['id']}").status_code == 404
