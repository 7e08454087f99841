"""The further steps of a portrait with a fake engine: off is off bit for bit, and each keeps to its bounds."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from easyphoto.engine.fake import FakeEngine
from easyphoto.errors import SpecError, ToolMissing
from easyphoto.extras import SuperResolution
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging import masks
from easyphoto.imaging.geometry import move_face
from easyphoto.portrait import background
from easyphoto.portrait.infotext import read_infotext
from easyphoto.portrait.pipeline import run
from easyphoto.records import ConditionKind, InpaintJob, Photo, Pixels
from easyphoto.specs import Person, PortraitRequest


class Mirror(FakeEngine):
    """Gives every picture back as it is, and remembers the job."""

    def inpaint(self, job: InpaintJob, on_step: object = None) -> Pixels:
        self.jobs.append(job)
        return job.image


class Blue(Mirror):
    """Paints every mask blue."""

    def inpaint(self, job: InpaintJob, on_step: object = None) -> Pixels:
        self.jobs.append(job)
        share = job.mask[..., None]
        return np.rint(job.image * (1 - share) + share * (20, 20, 200)).astype(np.uint8)


@pytest.fixture()
def asked(template: Photo, person: Person) -> PortraitRequest:
    return PortraitRequest(template=template, people=(person,), seed=5)


@pytest.fixture()
def usual(asked: PortraitRequest, tools: FaceTools) -> Pixels:
    return run(asked, Mirror(), tools)[0].picture.pixels


def test_retouching_evens_what_was_painted_and_nothing_else(asked: PortraitRequest, usual: Pixels, tools: FaceTools) -> None:
    (result,) = run(replace(asked, retouch=1.0), Mirror(), tools)
    changed = (result.picture.pixels != usual).any(axis=2)
    assert changed.any()
    painted = result.changed.pixels[..., 0] > 0
    assert not (changed & ~painted).any()
    face = tools.faces(asked.template)[0]
    skin = masks.erode(masks.skin_mask(face, usual.shape[:2]), 0.1 * masks.face_width(face)) > 0.9

    def roughness(pixels: Pixels) -> float:
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
        width = masks.face_width(face)
        band = cv2.GaussianBlur(grey, (0, 0), 0.01 * width) - cv2.GaussianBlur(grey, (0, 0), 0.03 * width)
        return float(band[skin].std())

    assert roughness(result.picture.pixels) < 0.95 * roughness(usual)
    assert read_infotext(result.infotext)[2]["EasyPhoto retouch"] == "1"


def test_makeup_is_the_templates_own(asked: PortraitRequest, usual: Pixels, tools: FaceTools) -> None:
    (result,) = run(replace(asked, makeup=1.0), Mirror(), tools)
    painted = result.changed.pixels[..., 0] > 0
    assert (result.picture.pixels != usual).any()
    assert (result.picture.pixels[~painted] == asked.template.pixels[~painted]).all()
    assert read_infotext(result.infotext)[2]["EasyPhoto makeup"] == "1"


def test_the_background_is_painted_away_from_the_heads_at_the_pictures_own_size(
    asked: PortraitRequest, tools: FaceTools
) -> None:
    engine = Blue()
    (result,) = run(replace(asked, background=0.4, prompt="a beach"), engine, tools)
    job = engine.jobs[-1]
    assert isinstance(job, InpaintJob)
    assert (job.strength, job.loras, job.prompt) == (0.4, (), "a beach")
    assert [condition.kind for condition in job.conditions] == [ConditionKind.CANNY, ConditionKind.COLOR]
    assert result.picture.pixels.shape == asked.template.pixels.shape
    away = background.outside_heads(tools.faces(asked.template), asked.template.pixels.shape[:2])
    assert (result.changed.pixels[away > 0, 0] > 0).all()
    (plain,) = run(asked, Blue(), tools)
    assert (result.picture.pixels[away == 0] == plain.picture.pixels[away == 0]).all(), "heads stay bit for bit"
    far = away > 0.97
    assert far.sum() > 1000
    assert np.linalg.norm(result.picture.pixels[far].mean(axis=0) - (20, 20, 200)) < 15
    assert read_infotext(result.infotext)[2]["EasyPhoto background"] == "0.4"


def test_a_background_pass_that_changes_nothing_changes_nothing(
    asked: PortraitRequest, usual: Pixels, tools: FaceTools
) -> None:
    (result,) = run(replace(asked, background=0.4), Mirror(), tools)
    assert np.abs(result.picture.pixels.astype(int) - usual).max() <= 1


def test_a_background_without_edges_or_colours_is_refused(asked: PortraitRequest, tools: FaceTools) -> None:
    engine = FakeEngine(conditions=frozenset({ConditionKind.OPENPOSE, ConditionKind.TILE}))
    with pytest.raises(ToolMissing, match="background"):
        run(replace(asked, background=0.4), engine, tools)
    assert not engine.jobs


def test_the_working_size_of_a_background() -> None:
    assert background.working_size((1024, 768), 384) == (384, 512)
    assert background.working_size((203, 301), 384) == (304, 200)
    assert background.working_size((3, 3), 384) == (8, 8)


@pytest.mark.parametrize("way", ["auto", "lanczos"])
def test_super_resolution_makes_the_picture_twice_as_large(
    asked: PortraitRequest, usual: Pixels, tools: FaceTools, way: str
) -> None:
    (result,) = run(replace(asked, super_resolution=SuperResolution(way=way, ratio=0.0)), Mirror(), tools)
    height, width = usual.shape[:2]
    assert (result.picture.pixels == cv2.resize(usual, (2 * width, 2 * height), interpolation=cv2.INTER_LANCZOS4)).all()
    assert result.changed.pixels.shape == usual.shape
    assert read_infotext(result.infotext)[2]["EasyPhoto super resolution"] == "lanczos 0"
    assert any("by Lanczos alone" in warning for warning in result.warnings) is (way == "auto")


def test_the_ratio_blends_with_the_plainly_resized_picture(asked: PortraitRequest, tools: FaceTools) -> None:
    engine = Mirror(enlargers=("own",))
    plain, half, whole = (
        run(replace(asked, super_resolution=SuperResolution(ratio=ratio)), engine, tools)[0] for ratio in (0.0, 0.5, 1.0)
    )
    flat = plain.picture.pixels.astype(float) * 0.5 + whole.picture.pixels * 0.5
    assert np.abs(half.picture.pixels - flat).max() <= 1
    small = run(asked, engine, tools)[0].picture.pixels
    assert np.abs(whole.picture.pixels.astype(int) - (255 - small.repeat(2, axis=0).repeat(2, axis=1))).max() <= 1
    assert not half.warnings
    assert "own 0.5" in half.infotext


def test_an_upscaler_that_is_not_here_is_refused_before_anything_is_painted(asked: PortraitRequest, tools: FaceTools) -> None:
    engine = FakeEngine(enlargers=("one", "two"))
    with pytest.raises(ToolMissing, match=r"'gpen' here; choose auto or one of: one, two, .*lanczos"):
        run(replace(asked, super_resolution=SuperResolution(way="gpen")), engine, tools)
    assert not engine.jobs


def test_face_shape_match_paints_the_whole_crop_and_keeps_face_and_ears(asked: PortraitRequest, tools: FaceTools) -> None:
    engine = Blue()
    (result,) = run(replace(asked, face_shape_match=True, second=None, color_shift_first=False), engine, tools)
    (job,) = engine.jobs
    assert isinstance(job, InpaintJob)
    assert (job.mask == 1).all()
    assert ConditionKind.COLOR not in {condition.kind for condition in job.conditions}
    stages = dict(result.faces[0].stages)
    first, fused = stages["first pass"].pixels, stages["fused"].pixels
    assert (first[:8, :8] == fused[:8, :8]).all()
    middle = first.shape[0] // 2
    assert np.abs(first[middle, middle].astype(int) - (20, 20, 200)).max() <= 2
    assert read_infotext(result.infotext)[2]["EasyPhoto face shape match"] == "on"


def test_a_matched_shape_leaves_other_faces_alone(pair: Photo, person: Person, tools: FaceTools) -> None:
    (result,) = run(PortraitRequest(template=pair, people=(None, person), face_shape_match=True), FakeEngine(), tools)
    box = tools.faces(pair)[0].box
    where = np.s_[int(box.top) : int(box.bottom), int(box.left) : int(box.right)]
    assert (result.picture.pixels[where] == pair.pixels[where]).all()


def test_without_the_crop_the_passes_see_the_whole_picture(asked: PortraitRequest, tools: FaceTools) -> None:
    engine = Mirror()
    (result,) = run(replace(asked, crop_face=False), engine, tools)
    first, second = engine.jobs
    assert isinstance(first, InpaintJob)
    assert isinstance(second, InpaintJob)
    width, height = asked.template.width, asked.template.height
    side = first.image.shape[0]
    assert side % 32 == 0
    assert second.image.shape[0] > side
    zoom = side / max(width, height)
    small = cv2.resize(asked.template.pixels, (round(width * zoom), round(height * zoom)))
    left = (side - small.shape[1]) // 2
    corner = first.image[5:25, left + 5 : left + 25].astype(int)
    assert np.abs(corner - small[5:25, 5:25]).mean() < 8
    painted = result.changed.pixels[..., 0] > 0
    assert 0.005 < painted.mean() < 0.6
    assert (result.picture.pixels[~painted] == asked.template.pixels[~painted]).all()
    assert read_infotext(result.infotext)[2]["EasyPhoto face crop"] == "off"


def test_a_face_that_is_too_small_on_the_whole_picture_is_told_of(asked: PortraitRequest, tools: FaceTools) -> None:
    large = cv2.copyMakeBorder(asked.template.pixels, 700, 700, 700, 700, cv2.BORDER_CONSTANT, value=(120, 120, 120))
    wide = Photo(pixels=large, name="wide.png")
    moved = tuple(move_face(face, np.array([[1.0, 0, 700], [0, 1, 700]])) for face in tools.faces(asked.template))
    tools.remember(wide, moved)
    (result,) = run(replace(asked, template=wide, crop_face=False), Mirror(), tools)
    assert any("turn the face crop on" in warning for warning in result.warnings)
    (cropped,) = run(replace(asked, template=wide), Mirror(), tools)
    assert not cropped.warnings


def test_what_needs_a_mesh_is_left_out_in_words_where_there_is_none(asked: PortraitRequest, tools: FaceTools) -> None:
    face = replace(tools.faces(asked.template)[0], mesh=None)
    blind = Photo(pixels=asked.template.pixels, name="hidden.png", digest="a face half hidden, for makeup")
    tools.remember(blind, (face,))
    (plain,) = run(replace(asked, template=blind), Mirror(), tools)
    (result,) = run(replace(asked, template=blind, makeup=1.0, retouch=1.0), Mirror(), tools)
    assert any("makeup and skin retouching" in warning for warning in result.warnings)
    assert (result.picture.pixels == plain.picture.pixels).all()


def test_all_of_it_together(asked: PortraitRequest, tools: FaceTools) -> None:
    everything = replace(
        asked, retouch=0.5, makeup=0.5, background=0.3, face_shape_match=True, super_resolution=SuperResolution()
    )
    (result,) = run(everything, FakeEngine(), tools)
    assert result.picture.width == 2 * asked.template.width
    names = [name for name, _ in result.seconds]
    assert names.index("background") < names.index("score") < names.index("super resolution")


@pytest.mark.parametrize("said", [{"makeup": 1.1}, {"retouch": -0.1}, {"background": 2}])
def test_a_share_beyond_the_whole_is_refused(asked: PortraitRequest, said: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=next(iter(said))):
        replace(asked, **said)
    with pytest.raises(SpecError, match="ratio"):
        SuperResolution(ratio=1.5)
