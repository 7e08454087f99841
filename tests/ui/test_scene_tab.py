"""Scenes in the tabs: the Train tab's kind, captions beside the photos, and their place in the People tab."""

from __future__ import annotations

from pathlib import Path

import pytest

from easyphoto.families import Family
from easyphoto.orders import CheckOrder, TrainOrder
from easyphoto.records import TrainKind
from easyphoto.specs import Person
from easyphoto.ui.desk import Change
from easyphoto.ui.knobs import train_defaults
from easyphoto.ui.people_desk import PeoplePage
from easyphoto.ui.studio import Studio
from easyphoto.ui.tab_desks import Desks
from easyphoto.ui.train_desk import TrainPage
from easyphoto.work import JobKind, JobResult
from tests.api.test_scenes import scene_in
from tests.ui.made import finish, make_studio, photos
from tests.ui.test_desks import train_values


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return make_studio(tmp_path / "home")


@pytest.fixture
def desks(studio: Studio) -> Desks:
    return Desks.for_studio(studio)


@pytest.fixture
def page(desks: Desks, tmp_path: Path) -> TrainPage:
    """Three photos, and a caption for the second."""
    found = TrainPage()
    files = photos(tmp_path / "up")
    caption = tmp_path / "up" / f"{files[1].stem}.txt"
    caption.write_text("two boats\n", encoding="utf-8")
    shown = desks.train.upload({"train_page": found}, [*files, caption])
    assert "1 captions for 3 photos." in shown["train_checked"]
    return found


def scene_values(desks: Desks, page: TrainPage, kind: str = "Scene", **said: object) -> dict[str, object]:
    """The form as a page has it after the kind was chosen."""
    values = train_values(page, "Harbour", train_kind=kind, **said)
    chosen = desks.train.choose_kind(values)
    fresh = {name: value.fields.get("value") if isinstance(value, Change) else value for name, value in chosen.items()}
    return {**values, **{name: value for name, value in fresh.items() if name in values and value is not None}, **said}


def order_of(studio: Studio) -> TrainOrder:
    [job] = studio.store.list()
    order = studio.store.order(job.id)
    assert isinstance(order, TrainOrder)
    return order


def test_the_kind_shows_its_own_controls_and_defaults(desks: Desks, page: TrainPage) -> None:
    scene = desks.train.choose_kind(train_values(page, train_kind="Scene"))
    assert scene["train_prompt"] == Change(visible=True)
    assert scene["train_retouch"] == Change(visible=False)
    assert scene["train_crop_ratio"] == Change(visible=True, value=3.0)
    assert (scene["train_size"], scene["train_max_steps"]) == (256, 200)
    assert "one place, light or style" in scene["train_hint"]
    person = desks.train.choose_kind(train_values(page, train_kind="Person"))
    assert person["train_prompt"] == Change(visible=False)
    assert person["train_size"] == 192
    assert person["train_crop_ratio"] == Change(visible=False, value=0)


def test_a_scene_is_handed_in_with_its_captions(desks: Desks, studio: Studio, page: TrainPage) -> None:
    desks.train.start(scene_values(desks, page, train_prompt="old harbour", train_crop_ratio=0))
    order = order_of(studio)
    assert order.captions == ("", "two boats", "")
    assert (order.spec.kind, order.spec.data.crop_ratio) == (TrainKind.SCENE, 0.0)
    assert order.spec.data.caption == "old harbour, special_scene, scene"
    assert [path.suffix for path in order.photos] == [".jpg"] * 3
    assert studio.store.list()[0].subject is TrainKind.SCENE


def test_a_photo_without_caption_or_prompt_is_named(desks: Desks, studio: Studio, page: TrainPage) -> None:
    told = desks.train.start(scene_values(desks, page, train_prompt=""))
    assert f"{page.photos[0].name}, {page.photos[2].name} has no caption" in told["train_notice"]
    assert studio.store.list() == ()


def test_a_person_stays_as_it_was_whatever_a_scene_left_behind(desks: Desks, studio: Studio, page: TrainPage) -> None:
    desks.train.start(train_values(page, train_prompt="left", train_crop_ratio=3.0))
    order = order_of(studio)
    assert (order.captions, order.spec.kind, order.spec.data.crop_ratio) == ((), TrainKind.PERSON, None)
    assert order.spec.data.caption.startswith("easyphoto_face")


def test_photos_of_a_scene_are_checked_without_faces(desks: Desks, studio: Studio, page: TrainPage) -> None:
    desks.train.check(scene_values(desks, page))
    [job] = studio.store.list()
    order = studio.store.order(job.id)
    assert isinstance(order, CheckOrder)
    assert order.kind is TrainKind.SCENE


def test_a_scene_is_nobody_to_make_portraits_of(desks: Desks, studio: Studio, page: TrainPage) -> None:
    desks.train.start(scene_values(desks, page, train_prompt="old harbour"))
    [job] = studio.store.list()
    finish(studio, job, JobResult(
        id=job.id, kind=JobKind.TRAINING, owner="local", created=job.created, person="Harbour", subject=TrainKind.SCENE,
    ))  # fmt: skip
    assert desks.train.poll({"train_page": page})["train_use"] == Change(visible=False)
    assert desks.train.person(page) is None


@pytest.fixture
def harbour(studio: Studio, tmp_path: Path) -> Person:
    return scene_in(studio.app.home.root, tmp_path / "made")


def test_scenes_have_their_place_beside_people(desks: Desks, studio: Studio, harbour: Person) -> None:
    page = PeoplePage()
    assert "Harbour" not in desks.people.refresh({"people_page": page})["people_list"]
    shown = desks.people.choose_kind({"people_page": page, "people_kind": "Scenes"})
    assert "boats at dusk" in shown["people_list"]
    assert "&lt;lora:Harbour:0.8&gt;" in shown["people_list"]
    assert shown["people_export"] == Change(visible=False)
    desks.people.choose({"people_page": page, "people_chosen": f"{harbour.person_id}#1"})
    assert "is no person" in desks.people.export({"people_page": page})["people_notice"]
    assert "Renamed." in desks.people.rename({"people_page": page, "people_name": "Quay"})["people_notice"]
    assert [scene.name for scene in studio.people(TrainKind.SCENE)] == ["Quay"]
    assert "Deleted:" in desks.people.delete({"people_page": page, "people_with_results": True})["people_notice"]
    assert studio.people(TrainKind.SCENE) == ()


def test_every_family_shows_a_scenes_own_defaults() -> None:
    shown = train_defaults(Family.SD15, TrainKind.SCENE)
    assert (shown["size"], shown["rank"], shown["alpha"], shown["crop_ratio"]) == (768, 256, 128, 3.0)
