"""The whole portrait with a fake engine: what changes, what never does, and what is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.fake import FakeEngine
from easyphoto.errors import Cancelled, NotFound, PhotoError
from easyphoto.events import Event
from easyphoto.faces.tools import FaceTools
from easyphoto.families import PROFILES, Family
from easyphoto.imaging.io import save_png
from easyphoto.portrait.infotext import read_infotext
from easyphoto.portrait.pipeline import run
from easyphoto.records import ConditionKind, InpaintJob, Photo
from easyphoto.specs import Person, PortraitRequest


@pytest.fixture()
def asked(template: Photo, person: Person) -> PortraitRequest:
    return PortraitRequest(template=template, people=(person,), seed=5)


def test_outside_the_mask_the_picture_is_the_template_bit_for_bit(
    asked: PortraitRequest, engine: FakeEngine, tools: FaceTools
) -> None:
    (result,) = run(asked, engine, tools)
    kept = (result.changed.pixels == 0).all(axis=2)
    assert 0.3 < kept.mean() < 0.98
    assert (result.picture.pixels[kept] == asked.template.pixels[kept]).all()
    assert (result.picture.pixels[~kept] != asked.template.pixels[~kept]).any(axis=1).mean() > 0.5


def test_two_passes_with_the_right_controlnets_and_lora(asked: PortraitRequest, engine: FakeEngine, tools: FaceTools) -> None:
    run(replace(asked, lora_weight=0.8), engine, tools)
    first, second = engine.jobs
    assert isinstance(first, InpaintJob)
    assert isinstance(second, InpaintJob)
    assert [condition.kind.value for condition in first.conditions] == ["canny", "openpose", "color"]
    assert [condition.kind.value for condition in second.conditions] == ["canny", "tile"]
    assert first.image.shape[0] < second.image.shape[0]
    assert all(job.loras[0].weight == 0.8 and job.loras[0].path == asked.people[0].lora for job in (first, second))
    assert second.mask.sum() / second.mask.size < first.mask.sum() / first.mask.size


def test_same_seed_same_picture(asked: PortraitRequest, tools: FaceTools) -> None:
    first, second = (run(asked, FakeEngine(), tools)[0].picture.pixels.astype(int) for _ in range(2))
    assert np.abs(first - second).max() <= 1


def test_each_picture_of_a_batch_has_a_seed_of_its_own(asked: PortraitRequest, engine: FakeEngine, tools: FaceTools) -> None:
    results = run(replace(asked, count=3), engine, tools)
    assert [result.seed for result in results] == [5, 6, 7]
    assert len({result.picture.digest for result in results}) == 3
    alone = run(replace(asked, seed=6), FakeEngine(), tools)[0]
    assert alone.picture.digest == results[1].picture.digest


def test_the_last_seed_wraps_around(asked: PortraitRequest, engine: FakeEngine, tools: FaceTools) -> None:
    results = run(replace(asked, seed=2**32 - 1, count=2), engine, tools)
    assert [result.seed for result in results] == [2**32 - 1, 0]


def test_stages_timings_and_infotext_are_told(asked: PortraitRequest, engine: FakeEngine, tools: FaceTools) -> None:
    (result,) = run(asked, engine, tools)
    (face,) = result.faces
    assert face.person == "Ada"
    assert [name for name, _ in face.stages] == ["original", "fused", "first pass", "second pass", "result"]
    sizes = {photo.pixels.shape for _, photo in face.stages}
    assert len(sizes) == 1
    assert {"plan", "fuse", "first pass", "second pass", "paste back", "score"} <= {name for name, _ in result.seconds}
    prompt, _, fields = read_infotext(result.infotext)
    assert "<lora:Ada:0.9>" in prompt
    assert fields["Seed"] == "5"
    assert fields["EasyPhoto people"] == "Ada"
    assert fields["Size"] == f"{asked.template.width}x{asked.template.height}"
    assert fields["Model"] == "fake"


def test_without_a_second_pass(asked: PortraitRequest, engine: FakeEngine, tools: FaceTools) -> None:
    (result,) = run(replace(asked, second=None), engine, tools)
    assert len(engine.jobs) == 1
    assert [name for name, _ in result.faces[0].stages] == ["original", "fused", "first pass", "result"]
    assert "second pass" not in result.infotext


def test_without_fusion_the_first_pass_sees_the_template(asked: PortraitRequest, engine: FakeEngine, tools: FaceTools) -> None:
    (result,) = run(replace(asked, fuse_before=0.0, fuse_after=0.0), engine, tools)
    stages = dict(result.faces[0].stages)
    assert stages["original"].digest == stages["fused"].digest


class Mirror(FakeEngine):
    """Gives every picture back as it is: what remains is fusion, tone and paste."""

    def inpaint(self, job: InpaintJob, on_step: object = None) -> np.ndarray:
        return job.image


def test_fusion_brings_the_person_nearer_and_similarity_says_so(asked: PortraitRequest, tools: FaceTools) -> None:
    with_person = run(asked, Mirror(), tools)[0].faces[0].similarity
    without = run(replace(asked, fuse_before=0.0, fuse_after=0.0), Mirror(), tools)[0].faces[0].similarity
    assert with_person is not None
    assert without is not None
    assert with_person > without + 0.15


def test_nothing_is_detected_twice(template: Photo, person: Person, engine: FakeEngine) -> None:
    fresh = FaceTools()
    run(PortraitRequest(template=template, people=(person,), count=2), engine, fresh)
    # The template, the reference (which is the face_id picture too), and each of the two finished pictures.
    assert fresh.detections == 4
    fresh.close()


def test_two_people_in_one_picture(
    pair: Photo, person: Person, other_person: Person, engine: FakeEngine, tools: FaceTools
) -> None:
    (result,) = run(PortraitRequest(template=pair, people=(person, other_person)), engine, tools)
    assert [face.person for face in result.faces] == ["Ada", "Ben"]
    assert [job.loras[0].path.stem for job in engine.jobs] == ["Ada", "Ada", "Ben", "Ben"]
    half = pair.width // 2
    changed = result.changed.pixels[..., 0] > 0
    assert changed[:, :half].any()
    assert changed[:, half:].any()
    assert (result.picture.pixels[~changed] == pair.pixels[~changed]).all()


def test_a_face_that_is_left_keeps_every_pixel(pair: Photo, person: Person, engine: FakeEngine, tools: FaceTools) -> None:
    (result,) = run(PortraitRequest(template=pair, people=(None, person)), engine, tools)
    left, right = tools.faces(pair)
    box = left.box
    where = np.s_[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
    assert (result.picture.pixels[where] == pair.pixels[where]).all()
    x, y = right.box.center
    assert result.changed.pixels[int(y), int(x), 0] > 0


def test_a_face_without_a_mesh_is_painted_without_fusion(
    asked: PortraitRequest, engine: FakeEngine, tools: FaceTools
) -> None:
    face = replace(tools.faces(asked.template)[0], mesh=None)
    blind = Photo(pixels=asked.template.pixels[::-1].copy()[::-1].copy(), name="hidden.png", digest="a face half hidden")
    tools.remember(blind, (face,))
    (result,) = run(replace(asked, template=blind), engine, tools)
    assert "half hidden" in result.warnings[0]
    assert len(engine.jobs) == 2
    stages = dict(result.faces[0].stages)
    assert stages["original"].digest == stages["fused"].digest


def test_every_step_is_told_and_may_cancel(asked: PortraitRequest, engine: FakeEngine, tools: FaceTools) -> None:
    told: list[Event] = []
    run(asked, engine, tools, told.append)
    steps = [(event.step, event.total) for event in told if event.stage == "first pass" and event.total]
    row = PROFILES[Family.EMBEDDED].first
    assert row is not None
    total = int(row.steps * row.strength + 1e-6)
    assert steps == [(done, total) for done in range(1, total + 1)]

    def stop(event: Event) -> None:
        if event.stage == "second pass" and event.step == 2:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        run(asked, FakeEngine(), tools, stop)


def test_missing_controlnets_are_warned_of_in_the_result(asked: PortraitRequest, tools: FaceTools) -> None:
    engine = FakeEngine(conditions=frozenset({ConditionKind.CANNY, ConditionKind.TILE}))
    (result,) = run(asked, engine, tools)
    assert any("openpose" in warning for warning in result.warnings)
    assert [condition.kind.value for condition in engine.jobs[0].conditions] == ["canny"]


def test_a_person_whose_reference_is_gone(asked: PortraitRequest, engine: FakeEngine, tools: FaceTools, tmp_path: Path) -> None:
    lost = replace(asked.people[0], reference=tmp_path / "gone.png")
    with pytest.raises(NotFound, match="gone"):
        run(replace(asked, people=(lost,)), engine, tools)


def test_a_person_whose_reference_shows_no_face(
    asked: PortraitRequest, engine: FakeEngine, tools: FaceTools, tmp_path: Path
) -> None:
    save_png(tmp_path / "wall.png", np.full((200, 200, 3), 90, np.uint8))
    faceless = replace(asked.people[0], reference=tmp_path / "wall.png")
    with pytest.raises(PhotoError, match="Ada shows no face"):
        run(replace(asked, people=(faceless,)), engine, tools)
    assert not engine.jobs, "refused before anything was painted"


def test_a_small_picture_with_a_small_face(
    template: Photo, person: Person, engine: FakeEngine, tools: FaceTools, stub_tools: Callable
) -> None:
    import cv2

    small = Photo(pixels=cv2.resize(template.pixels, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA), name="small.png")
    if not tools.faces(small) or tools.faces(small)[0].box.height < 40:
        pytest.skip("this template's face is too small for the test")
    (result,) = run(PortraitRequest(template=small, people=(person,)), engine, tools)
    assert result.picture.pixels.shape == small.pixels.shape


def test_every_stage_of_every_face_can_be_looked_at(template: Photo, person: Person, tools: FaceTools) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []
    asked = PortraitRequest(template=template, people=(person,), count=2)
    run(asked, FakeEngine(), tools, show=lambda stage, pixels: seen.append((stage, pixels.shape)))
    assert [stage for stage, _ in seen] == ["fused", "first pass", "second pass"] * 2
    assert len({shape for _, shape in seen}) == 1
