"""A fused face is the other person's, where the target's face was, without a seam."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.errors import PhotoError
from easyphoto.faces.embed import distance
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging import color, geometry, masks
from easyphoto.imaging.io import load_photo
from easyphoto.records import Face, Photo

PAIRS = ((0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3))
"""Portraits of one sex: source, target."""


def face_in(tools: FaceTools, photo: Photo) -> Face:
    return min(tools.faces(photo), key=lambda face: abs(face.box.center[0] - photo.width / 2))


def test_identity_goes_over(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    for here, there in PAIRS:
        source, target = portraits[here], portraits[there]
        source_face, target_face = face_in(tools, source), face_in(tools, target)
        fused = tools.fuser.fuse(source, source_face, target, target_face)
        vector = tools.recognizer.embed(fused, face_in(tools, fused))
        own = tools.with_embedding(source, source_face).embedding
        other = tools.with_embedding(target, target_face).embedding
        assert own is not None
        assert other is not None
        assert distance(vector, own) < 0.55
        assert distance(vector, own) < distance(vector, other)


def test_nothing_changes_outside_the_outline_and_no_seam_shows(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    for here, there in PAIRS:
        source, target = portraits[here], portraits[there]
        face = face_in(tools, target)
        fused = tools.fuser.fuse(source, face_in(tools, source), target, face)
        outline = masks.face_mask(face, target.pixels.shape[:2])
        assert fused.pixels.shape == target.pixels.shape
        assert (fused.pixels[outline == 0] == target.pixels[outline == 0]).all()
        reach = 0.04 * masks.face_width(face)
        steps = [color.lab_step(pixels, outline, reach).mean() for pixels in (fused.pixels, target.pixels)]
        assert steps[0] - steps[1] < 1.0


def test_no_dark_blotches(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    """Between the lightest and the darkest person too the skin's mean tone stays the target's."""
    light = sorted(portraits, key=lambda photo: float(_skin_tone(tools, photo)[0]))
    for source, target in ((light[0], light[-1]), (light[-1], light[0])):
        face = face_in(tools, target)
        fused = tools.fuser.fuse(source, face_in(tools, source), target, face)
        before = _skin_tone(tools, target)
        after = _skin_tone(tools, Photo(pixels=fused.pixels, name="fused"), face)
        assert np.linalg.norm(after - before) < 6


def _skin_tone(tools: FaceTools, photo: Photo, face: Face | None = None) -> np.ndarray:
    skin = masks.skin_mask(face or face_in(tools, photo), photo.pixels.shape[:2])
    return color.lab_statistics(color.to_lab(photo.pixels), skin)[0]


def test_onto_itself_hardly_anything_changes(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    for photo in portraits[:3]:
        face = face_in(tools, photo)
        fused = tools.fuser.fuse(photo, face, photo, face)
        inner = masks.erode(masks.face_mask(face, photo.pixels.shape[:2]), 0.1 * masks.face_width(face)) > 0.5
        assert np.abs(fused.pixels.astype(int) - photo.pixels)[inner].mean() < 2.5


def test_the_proportions_are_the_persons(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    """Where `fused_face` says the mesh lies, a detector finds it."""
    source, target = portraits[3], portraits[4]
    source_face, target_face = face_in(tools, source), face_in(tools, target)
    fused = tools.fuser.fuse(source, source_face, target, target_face)
    said = tools.fuser.fused_face(source_face, target_face)
    found = face_in(tools, fused)
    assert said.mesh is not None
    assert found.mesh is not None
    assert target_face.mesh is not None
    eyes_and_mouth = [33, 133, 362, 263, 61, 291, 1]
    away = np.linalg.norm(said.mesh - found.mesh, axis=1)[eyes_and_mouth].mean()
    assert away < 0.035 * masks.face_width(target_face)
    assert said.landmarks == pytest.approx(said.mesh[[468, 473, 1, 61, 291]])


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_a_face_at_the_pictures_edge(tools: FaceTools, portraits: tuple[Photo, ...], side: str) -> None:
    source, whole = portraits[0], portraits[1]
    face = face_in(tools, whole)
    share = 0.25
    x = round(face.box.left + share * face.box.width) if side == "left" else 0
    y = round(face.box.top + share * face.box.height) if side == "top" else 0
    right = round(face.box.right - share * face.box.width) if side == "right" else whole.width
    bottom = round(face.box.bottom - share * face.box.height) if side == "bottom" else whole.height
    target = Photo(pixels=np.ascontiguousarray(whole.pixels[y:bottom, x:right]), name="cut")
    moved = geometry.move_face(face, np.array([[1.0, 0, -x], [0, 1, -y]]))
    fused = tools.fuser.fuse(source, face_in(tools, source), target, moved)
    outline = masks.face_mask(moved, target.pixels.shape[:2])
    assert fused.pixels.shape == target.pixels.shape
    assert (fused.pixels[outline == 0] == target.pixels[outline == 0]).all()
    # and the other way round: what the source does not show stays the target's
    back = tools.fuser.fuse(target, moved, source, face_in(tools, source))
    assert back.pixels.shape == source.pixels.shape


def test_without_a_mesh_there_is_a_sentence(tools: FaceTools, portraits: tuple[Photo, ...]) -> None:
    photo = portraits[0]
    face = face_in(tools, photo)
    with pytest.raises(PhotoError, match="too turned to be fused"):
        tools.fuser.fuse(photo, replace(face, mesh=None, depth=None), photo, face)


def test_real_people_stay_themselves(tools: FaceTools, shared_people: Path, portraits: tuple[Photo, ...]) -> None:
    """One news photo of each of four people, fused onto three portraits each, against eight photos of other days."""
    for name, photo, targets in (("a", 3, (0, 1, 2)), ("b", 5, (3, 4, 5)), ("c", 3, (0, 1, 2)), ("d", 10, (3, 4, 5))):
        folder = shared_people / f"person_{name}"
        held = [load_photo(path) for path in sorted(folder.glob("1[2-9].jpg"))]
        known = [tools.with_embedding(each, face_in(tools, each)).embedding for each in held]
        source = load_photo(folder / f"{photo:02d}.jpg")
        for target in (portraits[index] for index in targets):
            face = face_in(tools, target)
            fused = tools.fuser.fuse(source, face_in(tools, source), target, face)
            vector = tools.recognizer.embed(fused, face_in(tools, fused))
            mean = np.mean([distance(vector, each) for each in known if each is not None])
            assert mean < 0.62
