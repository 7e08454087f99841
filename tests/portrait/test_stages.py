"""Masks, jobs, tone and the way back, on real faces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from easyphoto.faces.tools import FaceTools
from easyphoto.families import Family
from easyphoto.imaging import conditions, masks, mesh
from easyphoto.imaging.color import lab_statistics, seam, to_lab
from easyphoto.portrait import finishing, stages
from easyphoto.portrait.plan import Scene, make_scene
from easyphoto.portrait.pose import pose_map
from easyphoto.records import Face, Photo
from easyphoto.specs import PassSettings

FIRST_PASS = PassSettings(strength=0.45, steps=50, weights=(("canny", 0.5), ("openpose", 0.5), ("color", 0.85)))
SECOND_PASS = PassSettings(strength=0.30, steps=20, weights=(("canny", 1.0), ("tile", 1.0)))
WORDS = stages.Words(prompt="p", negative="n", guidance=4.0, loras=(), seed=3)


@pytest.fixture(scope="session")
def face(template: Photo, tools: FaceTools) -> Face:
    return tools.body(template, tools.faces(template)[0])


@pytest.fixture()
def scene(template: Photo, face: Face) -> Scene:
    return make_scene(template, face, Family.EMBEDDED)


def test_the_first_pass_works_at_the_first_size_on_what_it_is_given(scene: Scene) -> None:
    hold = scene.crop.photo.pixels
    pose = pose_map(scene.crop, scene.crop.face, scene.first_size)
    job = stages.first_job(scene, hold, pose, WORDS, FIRST_PASS)
    small = stages.resize(hold, scene.first_size)
    assert (job.image == small).all()
    assert (job.strength, job.steps, job.guidance, job.seed) == (0.45, 50, 4.0, 3)
    maps = {condition.kind.value: condition for condition in job.conditions}
    assert {kind: condition.weight for kind, condition in maps.items()} == dict(FIRST_PASS.weights)
    assert (maps["canny"].image == conditions.canny_map(small)).all()
    assert (maps["color"].image == conditions.color_grid(small)).all()
    assert (maps["openpose"].image == pose).all()


def test_the_second_pass_works_at_the_crops_size(scene: Scene) -> None:
    job = stages.second_job(scene, scene.crop.photo.pixels, WORDS, SECOND_PASS)
    assert job.image.shape[0] == scene.crop.photo.height > scene.first_size
    assert [condition.kind.value for condition in job.conditions] == ["canny", "tile"]


def test_the_face_region_holds_the_whole_face_and_reaches_the_ears(scene: Scene) -> None:
    region, shape = stages.face_region(scene), scene.crop.photo.pixels.shape[:2]
    assert region[masks.face_mask(scene.crop.face, shape) > 0.5].min() > 0.5
    assert region.sum() > 1.1 * masks.face_mask(scene.crop.face, shape).sum()
    assert region[:5].max() == 0


def test_the_detail_region_is_mouth_eyes_and_ring(scene: Scene) -> None:
    region, points = stages.detail_region(scene), scene.crop.face.mesh
    assert points is not None

    def at(index: int) -> float:
        x, y = points[index]
        return float(region[int(y), int(x)])

    assert at(mesh.LIPS_INNER[5]) == 1
    assert at(mesh.LEFT_PUPIL) == at(mesh.RIGHT_PUPIL) == 1
    assert at(50) == at(280) == 0, "the cheeks stay"
    edge = stages.face_region(scene) > 0.5
    rows, columns = np.nonzero(edge & ~(masks.erode(edge.astype(np.float32), 1) > 0.5))
    assert (region[rows, columns] > 0.5).mean() > 0.95


def test_the_final_region_fades_and_stays_off_the_crops_border(scene: Scene) -> None:
    region = stages.final_region(scene)
    assert region[0].max() == region[-1].max() == region[:, 0].max() == region[:, -1].max() == 0
    assert region.max() == 1
    assert np.abs(np.diff(region, axis=0)).max() < 0.2
    assert np.abs(np.diff(region, axis=1)).max() < 0.2


def test_the_passes_paint_nothing_of_another_face(template: Photo, face: Face) -> None:
    width = face.box.width
    shifted = replace(
        face, box=replace(face.box, left=face.box.left + 0.8 * width, right=face.box.right + 0.8 * width),
        mesh=None if face.mesh is None else face.mesh + np.array([0.8 * width, 0], np.float32),
    )
    scene = make_scene(template, face, Family.EMBEDDED, others=(shifted,))
    theirs = masks.face_mask(scene.others[0], scene.crop.photo.pixels.shape[:2]) == 1
    for region in (stages.face_region(scene), stages.detail_region(scene), stages.final_region(scene)):
        assert region[theirs].max() == 0
    assert stages.face_region(scene).sum() > 0


def test_a_face_without_a_mesh_gets_an_ellipse(template: Photo, face: Face) -> None:
    blind = replace(face, mesh=None)
    scene = make_scene(template, blind, Family.EMBEDDED)
    region = stages.face_region(scene)
    x, y = scene.crop.face.box.center
    assert region[int(y), int(x)] == 1
    assert 0.05 < region.mean() < 0.6
    assert stages.detail_region(scene).max() == 1
    assert pose_map(scene.crop, scene.crop.face, 256).shape == (256, 256, 3)


def test_the_pose_map_follows_size_and_face(scene: Scene) -> None:
    large, small = (pose_map(scene.crop, scene.crop.face, side) for side in (512, 256))
    white = [np.argwhere((picture == 255).all(axis=2)).mean(axis=0) for picture in (large, small)]
    np.testing.assert_allclose(white[0] / 2, white[1], atol=1.5)
    blind = pose_map(scene.crop, replace(scene.crop.face, mesh=None), 256)
    assert (blind == 255).all(axis=2).sum() < (small == 255).all(axis=2).sum()


def test_tone_comes_back_to_the_templates(scene: Scene) -> None:
    crop = scene.crop.photo.pixels
    tinted = np.clip(crop.astype(np.float32) * (0.85, 1.0, 1.1) + 12, 0, 255).astype(np.uint8)
    skin = masks.erode(masks.skin_mask(scene.crop.face, crop.shape[:2]), 12)
    wanted, _ = lab_statistics(to_lab(crop), skin)
    before, _ = lab_statistics(to_lab(tinted), skin)
    after, _ = lab_statistics(to_lab(finishing.match_tone(scene, tinted)), skin)
    assert np.linalg.norm(before - wanted) > 5
    assert np.linalg.norm(after - wanted) < 1.5
    outside = stages.face_region(scene) == 0
    assert (finishing.match_tone(scene, tinted)[outside] == tinted[outside]).all()


def test_pasting_an_unchanged_crop_leaves_no_seam(scene: Scene, template: Photo) -> None:
    picture, mask = finishing.paste(scene, scene.crop.photo.pixels)
    assert (picture[mask == 0] == template.pixels[mask == 0]).all()
    assert seam(picture, template.pixels, scene.face.box.width) < 0.3
    assert np.abs(picture.astype(int) - template.pixels).mean() < 2


def softened(scene: Scene) -> np.ndarray:
    """The crop as an autoencoder might give it back: the same, but soft."""
    import cv2

    return cv2.GaussianBlur(scene.crop.photo.pixels, (0, 0), 2.0)


def test_hair_and_background_that_only_got_softer_stay_the_templates(scene: Scene, template: Photo) -> None:
    beyond = masks.face_mask(scene.face, (template.height, template.width), 0.12) == 0
    picture, mask = finishing.paste(scene, softened(scene))
    assert mask[beyond].max() == 0
    assert (picture[beyond] == template.pixels[beyond]).all()
    recoloured = softened(scene)
    ring = (stages.face_region(scene) > 0.9) & (masks.face_mask(scene.crop.face, recoloured.shape[:2], 0.06) == 0)
    recoloured[ring] = (250, 20, 20)
    _, mask = finishing.paste(scene, recoloured)
    assert mask[beyond].max() > 0.2


def test_soft_skin_gets_the_templates_grain(scene: Scene, template: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    def fine(pixels: np.ndarray) -> float:
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
        skin = masks.erode(masks.skin_mask(scene.face, grey.shape), 6) > 0.5
        return float((grey - cv2.GaussianBlur(grey, (0, 0), 1.5))[skin].std())

    grained, _ = finishing.paste(scene, softened(scene))
    monkeypatch.setattr(finishing, "_regrained", lambda _scene, pasted, _changed: pasted)
    plain, _ = finishing.paste(scene, softened(scene))
    assert fine(plain) < 0.6 * fine(template.pixels)
    assert 1.1 * fine(plain) < fine(grained) < 1.05 * fine(template.pixels)


def test_a_face_lit_from_elsewhere_takes_on_the_light_around_it_towards_its_edge(scene: Scene, template: Photo) -> None:
    crop = scene.crop.photo.pixels
    lit = np.clip(crop.astype(int) + 30, 0, 255).astype(np.uint8)
    picture, _ = finishing.paste(scene, lit)
    shape = (template.height, template.width)
    away = np.linalg.norm(to_lab(picture) - to_lab(template.pixels), axis=2)
    rim = masks.skin_mask(scene.face, shape) * (1 - masks.face_mask(scene.face, shape, -0.06)) > 0.5
    middle = masks.face_mask(scene.face, shape, -0.3) > 0.5
    assert away[rim].mean() < 0.5 * away[middle].mean()
    assert away[middle].mean() > 5, "what lies well inside keeps its own light"
