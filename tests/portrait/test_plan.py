"""What is decided before anything is painted, and every refusal with its words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.fake import FakeEngine
from easyphoto.errors import LoraError, TemplateError, ToolMissing
from easyphoto.faces.tools import FaceTools
from easyphoto.families import PROFILES, Family
from easyphoto.portrait.plan import make_plan, make_scene
from easyphoto.records import CAPTION, Box, ConditionKind, Face, Photo
from easyphoto.specs import PassRequest, Person, PortraitRequest

BLANK = Photo(pixels=np.full((400, 600, 3), 128, np.uint8), name="wall.png")


def face_at(left: float, side: float = 100, top: float = 100) -> Face:
    """A face without a mesh, as of a head turned away."""
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32) * side + (left, top)
    box = Box(left=left, top=top, right=left + side, bottom=top + side)
    return Face(box=box, score=0.9, landmarks=points.astype(np.float32))


@pytest.fixture()
def ada() -> Person:
    return Person(
        name="Ada", person_id="ada", folder=Path("ada"), family=Family.EMBEDDED, lora=Path("ada/Ada.safetensors"),
        reference=Path("ada/r.png"), face_id_picture=Path("ada/f.png"), embedding=(0.0,) * 128, created="",
    )  # fmt: skip


@pytest.fixture()
def request_for(ada: Person) -> PortraitRequest:
    return PortraitRequest(template=BLANK, people=(ada,))


def test_a_template_without_a_face_is_refused(request_for: PortraitRequest, tools: FaceTools) -> None:
    with pytest.raises(TemplateError, match=r"wall\.png shows no face"):
        make_plan(request_for, FakeEngine(), tools)


def test_a_tiny_face_is_refused_with_its_place_and_size(ada: Person, stub_tools: Callable) -> None:
    request = PortraitRequest(template=BLANK, people=(None, ada))
    with pytest.raises(TemplateError, match=r"face 2 from the left in wall\.png is only 30 px"):
        make_plan(request, FakeEngine(), stub_tools(face_at(10), face_at(200, side=30)))


def test_a_tiny_face_that_nobody_takes_does_not_matter(request_for: PortraitRequest, stub_tools: Callable) -> None:
    plan = make_plan(request_for, FakeEngine(), stub_tools(face_at(10), face_at(200, side=30)))
    assert len(plan.slots) == 1


def test_more_people_than_faces_are_refused(ada: Person, stub_tools: Callable) -> None:
    with pytest.raises(TemplateError, match="shows 1 face, but 2 places"):
        make_plan(PortraitRequest(template=BLANK, people=(ada, ada)), FakeEngine(), stub_tools(face_at(10)))


def test_people_take_faces_from_left_to_right_and_none_leaves_one(ada: Person, stub_tools: Callable) -> None:
    faces = face_at(10), face_at(200), face_at(400)
    ben = replace(ada, name="Ben")
    plan = make_plan(PortraitRequest(template=BLANK, people=(ada, None, ben)), FakeEngine(), stub_tools(*faces))
    assert [(slot.person.name, slot.face) for slot in plan.slots] == [("Ada", faces[0]), ("Ben", faces[2])]
    assert plan.slots[0].others == (faces[1], faces[2])


def test_a_person_of_another_family_is_refused(ada: Person, stub_tools: Callable) -> None:
    old = replace(ada, family=Family.SD15)
    with pytest.raises(LoraError, match="Ada was trained on a sd15 model and the base model is embedded"):
        make_plan(PortraitRequest(template=BLANK, people=(old,)), FakeEngine(), stub_tools(face_at(10)))


def test_a_face_turned_away_goes_without_fusion_and_says_so(request_for: PortraitRequest, stub_tools: Callable) -> None:
    plan = make_plan(request_for, FakeEngine(), stub_tools(face_at(10)))
    assert not plan.slots[0].fuse
    assert "face 1 from the left in wall.png is turned away or half hidden" in plan.warnings[0]


def test_a_face_turned_too_far_goes_without_fusion(
    request_for: PortraitRequest, template: Photo, tools: FaceTools, stub_tools: Callable
) -> None:
    face = tools.faces(template)[0]
    assert make_plan(request_for, FakeEngine(), stub_tools(face)).slots[0].fuse
    assert face.mesh is not None
    middle = face.mesh[:, 0].mean()
    narrow = face.mesh * (0.3, 1) + (0.7 * middle, 0)
    # Seen from the side, a head is as deep as it was wide: the nose moves out, the far side goes behind.
    narrow[:, 0] += 0.9 * (face.mesh[:, 0].max() - middle) * np.exp(-(((face.mesh[:, 0] - middle) / 40) ** 2))
    turned = replace(face, mesh=narrow.astype(np.float32))
    plan = make_plan(request_for, FakeEngine(), stub_tools(turned))
    assert not plan.slots[0].fuse
    assert "turned too far" in plan.warnings[0]


def test_missing_controlnets_are_left_out_with_a_warning(request_for: PortraitRequest, stub_tools: Callable) -> None:
    engine = FakeEngine(conditions=frozenset({ConditionKind.CANNY, ConditionKind.COLOR}))
    plan = make_plan(request_for, engine, stub_tools(face_at(10)))
    assert [kind for kind, _ in plan.first.weights] == ["canny", "color"]
    assert plan.second is not None
    assert [kind for kind, _ in plan.second.weights] == ["canny"]
    assert sum("no openpose ControlNet" in warning for warning in plan.warnings) == 1
    assert sum("no tile ControlNet" in warning for warning in plan.warnings) == 1


def test_no_controlnet_for_the_first_pass_is_refused(request_for: PortraitRequest, stub_tools: Callable) -> None:
    engine = FakeEngine(conditions=frozenset({ConditionKind.TILE}))
    with pytest.raises(ToolMissing, match="no ControlNet for canny, openpose, color"):
        make_plan(request_for, engine, stub_tools(face_at(10)))


def test_no_controlnet_for_the_second_pass_leaves_it_out(request_for: PortraitRequest, stub_tools: Callable) -> None:
    engine = FakeEngine(conditions=frozenset({ConditionKind.OPENPOSE}))
    assert make_plan(request_for, engine, stub_tools(face_at(10))).second is None


def test_what_is_left_open_is_the_familys_and_what_is_asked_for_counts(
    request_for: PortraitRequest, stub_tools: Callable
) -> None:
    own = PROFILES[Family.EMBEDDED].first
    plan = make_plan(request_for, FakeEngine(), stub_tools(face_at(10)))
    assert (plan.first.strength, plan.first.steps, plan.first.weights) == (own.strength, own.steps, own.weights)
    asked = replace(request_for, first=replace(request_for.first, strength=0.6))
    plan = make_plan(asked, FakeEngine(), stub_tools(face_at(10)))
    assert (plan.first.strength, plan.first.steps, plan.first.weights) == (0.6, own.steps, own.weights)


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("other", Family)
def test_a_setting_that_is_said_counts_though_some_family_has_it_as_its_own(
    request_for: PortraitRequest, stub_tools: Callable, family: Family, other: Family
) -> None:
    """Saying 0.45 to the embedded model means 0.45, which SD1.5 would take unasked."""
    passes = PROFILES[other].first, PROFILES[other].second
    said = [PassRequest(strength=row.strength, steps=row.steps, weights=row.weights) for row in passes]
    people = tuple(person and replace(person, family=family) for person in request_for.people)
    request = replace(request_for, people=people, first=said[0], second=said[1])
    plan = make_plan(request, FakeEngine(family=family), stub_tools(face_at(10)))
    assert plan.second is not None
    for row, settled in zip(passes, (plan.first, plan.second), strict=True):
        assert (settled.strength, settled.steps, settled.weights) == (row.strength, row.steps, row.weights)


def test_no_second_pass_is_not_the_familys_second_pass(request_for: PortraitRequest, stub_tools: Callable) -> None:
    assert make_plan(replace(request_for, second=None), FakeEngine(), stub_tools(face_at(10))).second is None


def test_prompt_and_guidance(request_for: PortraitRequest, stub_tools: Callable) -> None:
    plan = make_plan(request_for, FakeEngine(), stub_tools(face_at(10)))
    assert plan.prompt == CAPTION
    assert plan.guidance == PROFILES[Family.EMBEDDED].guidance
    asked = replace(request_for, prompt=" a garden, ", negative="hat", guidance=2.5)
    plan = make_plan(asked, FakeEngine(), stub_tools(face_at(10)))
    assert plan.prompt == f"{CAPTION}, a garden"
    assert plan.negative.startswith("hat")
    assert plan.guidance == 2.5
    assert not any("negative prompt" in warning for warning in plan.warnings)
    unheard = make_plan(replace(asked, guidance=1.0), FakeEngine(), stub_tools(face_at(10)))
    assert any("negative prompt does nothing at guidance 1" in warning for warning in unheard.warnings)


@pytest.mark.parametrize("family", [Family.EMBEDDED, Family.SD15])
def test_a_scene_has_the_familys_size_and_ratio(family: Family) -> None:
    face, profile = face_at(250, top=150), PROFILES[family]
    scene = make_scene(BLANK, face, family)
    assert scene.crop.photo.pixels.shape == (profile.second_size, profile.second_size, 3)
    assert scene.first_size == profile.first_size
    share = scene.crop.face.box.width / profile.second_size
    assert share == pytest.approx(1 / profile.crop_ratio, rel=0.02)


def test_a_scene_at_the_pictures_corner_is_filled_not_cut_off() -> None:
    noise = Photo(pixels=np.random.default_rng(0).integers(1, 255, (300, 300, 3), dtype=np.uint8), name="corner.png")
    scene = make_scene(noise, face_at(-20, top=-20), Family.EMBEDDED)
    assert scene.crop.photo.pixels.shape[0] == PROFILES[Family.EMBEDDED].second_size
    assert scene.crop.photo.pixels.std(axis=(0, 1)).min() > 5
    assert scene.crop.face.box.left >= -0.3 * scene.crop.photo.width


def test_a_tilted_face_is_cut_upright() -> None:
    face = face_at(250, top=150)
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array(face.box.center)
    tilted = replace(face, landmarks=((face.landmarks - middle) @ turn.T + middle).astype(np.float32))
    scene = make_scene(BLANK, tilted, Family.EMBEDDED)
    eyes = scene.crop.face.landmarks[:2]
    assert abs(eyes[0, 1] - eyes[1, 1]) < 1


def test_other_faces_move_into_the_crop_with_it() -> None:
    faces = face_at(100), face_at(230)
    scene = make_scene(BLANK, faces[0], Family.EMBEDDED, others=faces[1:])
    apart = scene.others[0].box.center[0] - scene.crop.face.box.center[0]
    assert apart == pytest.approx(130 * scene.crop.face.box.width / 100, rel=0.01)
