"""The ID control of a portrait with a fake engine: whose face holds which pass, and what is refused before anything is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.fake import FakeEngine
from easyphoto.engine.models import load_models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.errors import PhotoError, SpecError, ToolMissing
from easyphoto.extras import IdControl
from easyphoto.faces.tools import FaceTools
from easyphoto.families import Family
from easyphoto.imaging import masks
from easyphoto.orders import PortraitOrder
from easyphoto.portrait.id_control import SIDE, face_on_white
from easyphoto.portrait.infotext import read_infotext
from easyphoto.portrait.pipeline import run
from easyphoto.records import ConditionKind, InpaintJob, Photo, Pixels
from easyphoto.settings import Settings
from easyphoto.specs import PassRequest, Person, PortraitRequest
from tests.engine.face_files import write_adapter, write_encoder
from tests.engine.ldm_files import make_sd15


class Mirror(FakeEngine):
    """Gives every picture back as it is, and remembers the job."""

    def inpaint(self, job: InpaintJob, on_step: object = None) -> Pixels:
        self.jobs.append(job)
        return job.image


@pytest.fixture()
def asked(template: Photo, person: Person) -> PortraitRequest:
    ada = replace(person, family=Family.SD15)
    return PortraitRequest(template=template, people=(ada,), seed=5, id_control=IdControl(weight=0.4))


def jobs_of(request: PortraitRequest, tools: FaceTools) -> list[InpaintJob]:
    engine = Mirror(family=Family.SD15)
    run(request, engine, tools)
    return [job for job in engine.jobs if isinstance(job, InpaintJob)]


def kinds(job: InpaintJob) -> list[ConditionKind]:
    return [condition.kind for condition in job.conditions]


def test_both_passes_see_the_face_and_the_second_goes_without_tile(asked: PortraitRequest, tools: FaceTools) -> None:
    first, second = jobs_of(asked, tools)
    assert first.likeness is not None
    assert second.likeness is first.likeness
    assert first.likeness.weight == 0.4
    assert kinds(first) == [ConditionKind.CANNY, ConditionKind.OPENPOSE, ConditionKind.COLOR]
    assert kinds(second) == [ConditionKind.CANNY]
    without = jobs_of(replace(asked, id_control=None), tools)
    assert [job.likeness for job in without] == [None, None]
    assert kinds(without[1]) == [ConditionKind.CANNY, ConditionKind.TILE]


def test_tile_stays_where_it_was_named_or_is_alone(asked: PortraitRequest, tools: FaceTools) -> None:
    named = replace(asked, second=PassRequest(weights=(("tile", 0.5), ("canny", 1.0))))
    assert kinds(jobs_of(named, tools)[1]) == [ConditionKind.TILE, ConditionKind.CANNY]
    engine = Mirror(family=Family.SD15, conditions=frozenset({ConditionKind.OPENPOSE, ConditionKind.TILE}))
    run(asked, engine, tools)
    second = engine.jobs[1]
    assert isinstance(second, InpaintJob)
    assert kinds(second) == [ConditionKind.TILE]


def test_the_background_is_held_by_nobodys_face(asked: PortraitRequest, tools: FaceTools) -> None:
    *faces, away = jobs_of(replace(asked, background=0.3), tools)
    assert away.likeness is None
    assert all(job.likeness for job in faces)


def test_each_person_is_held_by_their_own_face(
    asked: PortraitRequest, pair: Photo, other_person: Person, tools: FaceTools
) -> None:
    ben = replace(other_person, family=Family.SD15)
    jobs = jobs_of(replace(asked, template=pair, people=(*asked.people, ben)), tools)
    ada, _, other, _ = [job.likeness.image for job in jobs if job.likeness]
    assert np.abs(ada.astype(int) - other).mean() > 10


def test_the_face_stands_on_white_level_and_whole(portraits: tuple[Photo, ...], tools: FaceTools) -> None:
    for photo in portraits:
        (face, *_) = tools.faces(photo)
        seen = face_on_white(photo, face)
        assert seen.shape == (SIDE, SIDE, 3)
        border = np.concatenate([seen[0], seen[:, 0], seen[:, -1]])
        assert (border == 255).mean() > 0.8
        found = tools.faces(Photo(pixels=seen, name="on white"))
        assert len(found) == 1
        right, left = found[0].landmarks[:2]
        assert abs(right[1] - left[1]) < 0.12 * abs(right[0] - left[0])
        inside = masks.erode(masks.face_mask(found[0], (SIDE, SIDE)), 20) > 0.9
        assert (seen[inside] == 255).all(axis=1).mean() < 0.05


def test_a_picture_of_ones_own_is_taken_instead(asked: PortraitRequest, portraits: tuple[Photo, ...], tools: FaceTools) -> None:
    usual = jobs_of(asked, tools)[0].likeness
    engine = Mirror(family=Family.SD15)
    (result,) = run(replace(asked, id_picture=portraits[3]), engine, tools)
    own = engine.jobs[0]
    assert isinstance(own, InpaintJob)
    assert usual is not None
    assert own.likeness is not None
    np.testing.assert_array_equal(own.likeness.image, face_on_white(portraits[3], tools.faces(portraits[3])[0]))
    assert (own.likeness.image != usual.image).any()
    assert read_infotext(result.infotext)[2]["EasyPhoto ID control"] == "IP-Adapter 0.4 own picture"


def test_a_picture_without_a_face_is_refused_by_name(asked: PortraitRequest, tools: FaceTools) -> None:
    grey, engine = Photo(pixels=np.full((200, 200, 3), 128, np.uint8), name="grey.png"), Mirror(family=Family.SD15)
    with pytest.raises(PhotoError, match=r"grey\.png"):
        run(replace(asked, id_picture=grey), engine, tools)
    assert not engine.jobs


def test_it_is_refused_before_anything_is_painted(asked: PortraitRequest, person: Person, tools: FaceTools) -> None:
    for engine, people, said in (
        (Mirror(), (person,), "none for the embedded family"),
        (Mirror(family=Family.SD15, knows_faces=False), asked.people, "no IP-Adapter"),
    ):
        with pytest.raises(ToolMissing, match=said):
            run(replace(asked, people=people), engine, tools)
        assert not engine.jobs


def test_contradictions_are_refused_when_they_are_made(asked: PortraitRequest, template: Photo) -> None:
    for weight in (0.0, 1.1):
        with pytest.raises(SpecError, match="id_control"):
            IdControl(weight=weight)
    with pytest.raises(SpecError, match="off"):
        replace(asked, id_control=None, id_picture=template)
    with pytest.raises(SpecError, match="several"):
        replace(asked, people=(*asked.people, *asked.people), id_picture=template)
    with pytest.raises(SpecError, match="several"):
        PortraitOrder(
            templates=(Path("a.png"),), people=("Ada", "Ben"), id_control=IdControl(), id_picture=Path("inputs/b.png")
        )


def test_a_whole_portrait_on_an_sd15_model_sees_the_face_and_the_next_one_does_not(
    asked: PortraitRequest, tools: FaceTools, tmp_path: Path
) -> None:
    """The whole path with real networks in small: what was off before is bit for bit the same afterwards."""
    base, own = make_sd15(tmp_path / "sd15"), tmp_path / "adapters"
    settings = Settings.from_env({"EASYPHOTO_IPADAPTER_DIR": str(own)})
    own.mkdir()
    bare = load_models(base, "cpu", settings=settings)
    few = PassRequest(strength=0.25, steps=4, weights=(("canny", 1.0),))
    on = replace(asked, lora_weight=0.0, first=few, second=None, guidance=1.0, fuse_before=0.0, fuse_after=0.0)
    off = replace(on, id_control=None)
    with StandaloneEngine(bare) as engine, pytest.raises(ToolMissing, match=r"ip-adapter-plus-face_sd15\.safetensors"):
        run(on, engine, tools)
    write_adapter(own / "ip-adapter-plus-face_sd15.safetensors", bare)
    write_encoder(own / "image_encoder")
    with StandaloneEngine(load_models(base, "cpu", settings=settings)) as engine:
        before, held, after = (run(request, engine, tools)[0].picture.pixels for request in (off, on, off))
    assert (held != before).any()
    np.testing.assert_array_equal(after, before)
