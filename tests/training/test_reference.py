"""The reference photo: the likely ones are tried on templates, and the nearest to the person is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.faces.embed import distance
from easyphoto.faces.tools import FaceTools
from easyphoto.families import PROFILES, Family
from easyphoto.imaging import mesh
from easyphoto.imaging.io import photo_files
from easyphoto.imaging.masks import face_width
from easyphoto.records import Photo, PreparedSet
from easyphoto.store.templates import list_templates
from easyphoto.training import reference as room
from easyphoto.training.judge import likeness
from easyphoto.training.preprocess import PrepareOptions, prepare
from easyphoto.training.reference import choose_reference

RATIO = PROFILES[Family.EMBEDDED].crop_ratio


@pytest.fixture(scope="module")
def woman(sample_people: Path, tools: FaceTools) -> PreparedSet:
    return prepare(photo_files([sample_people / "woman"])[:4], tools, PrepareOptions(crop_ratio=RATIO))


def test_without_templates_the_likeliest_photo_is_taken(woman: PreparedSet, tools: FaceTools) -> None:
    chosen = choose_reference(woman.photos, woman.embedding, (), tools, RATIO)
    assert chosen == max(range(len(woman.photos)), key=lambda index: likeness(woman.photos[index].scores))
    assert chosen == woman.reference


def test_a_strangers_face_is_never_nearest_however_sharp_it_is(
    woman: PreparedSet, sample_people: Path, templates: Path, tools: FaceTools
) -> None:
    (stranger,) = prepare(photo_files([sample_people / "man"])[:1], tools, PrepareOptions(crop_ratio=RATIO)).photos
    perfect = replace(stranger, scores=replace(stranger.scores, frontality=1.0, identity=1.0, sharpness=1.0))
    photos = (perfect, *woman.photos)
    gallery = tuple(template.path for template in list_templates(templates))
    assert choose_reference(photos, woman.embedding, (), tools, RATIO) == 0, "without a trial the ratings alone count"
    assert choose_reference(photos, woman.embedding, gallery, tools, RATIO) > 0


def test_a_photo_with_something_before_the_chin_is_passed_over(
    woman: PreparedSet, templates: Path, tools: FaceTools
) -> None:
    gallery = tuple(template.path for template in list_templates(templates))
    best = choose_reference(woman.photos, woman.embedding, gallery, tools, RATIO)
    clean = woman.photos[best]
    mesh = np.asarray(clean.face.mesh)
    x, y, size = *mesh[152], np.ptp(mesh[:, 1])
    pixels = clean.crop.pixels.copy()
    top, left = int(y - 0.2 * size), int(x - 0.12 * size)
    pixels[top : int(y), left : int(x + 0.12 * size)] = (20, 20, 25)
    spoiled = replace(clean, crop=Photo(pixels=pixels, name=clean.name))
    assert room._hidden(spoiled) > room._hidden(clean) + 0.05
    photos = (*woman.photos[:best], spoiled, *woman.photos[best + 1 :])
    assert choose_reference(photos, woman.embedding, gallery, tools, RATIO) != best


def test_a_strained_mouth_counts_against_a_photo(woman: PreparedSet) -> None:
    face = woman.photos[0].face
    calm = np.asarray(face.mesh).copy()
    calm[list(mesh.INNER_LIPS)] = calm[list(mesh.INNER_LIPS)].mean(0)
    calm[[mesh.RIGHT_MOUTH, mesh.LEFT_MOUTH], 1] = calm[[mesh.RIGHT_MOUTH, mesh.LEFT_MOUTH], 1].mean()
    calm[[mesh.RIGHT_EYE_OUTER, mesh.LEFT_EYE_OUTER], 1] = calm[[mesh.RIGHT_EYE_OUTER, mesh.LEFT_EYE_OUTER], 1].mean()
    assert room._strain(replace(face, mesh=calm)) == pytest.approx(0, abs=1e-6)
    speaking, crooked = calm.copy(), calm.copy()
    width = calm[mesh.LEFT_MOUTH, 0] - calm[mesh.RIGHT_MOUTH, 0]
    speaking[mesh.INNER_LIPS[1], 1] += width / 3
    crooked[mesh.LEFT_MOUTH, 1] += 0.03 * face_width(face)
    assert room._strain(replace(face, mesh=speaking)) == pytest.approx(0.05, rel=0.01)
    assert room._strain(replace(face, mesh=crooked)) == pytest.approx(0.045, rel=0.1)
    assert room._strain(replace(face, mesh=None)) == 0


def test_trials_are_the_nearest_templates_and_broken_ones_are_left_out(
    woman: PreparedSet, templates: Path, tools: FaceTools, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    paths = (tmp_path / "broken.jpg", *(template.path for template in list_templates(templates)))
    trials = room._trials(woman.embedding, paths, tools, RATIO)
    assert len(trials) == 3
    away = [distance(np.asarray(tools.with_embedding(trial.photo, trial.face).embedding), woman.embedding) for trial in trials]
    assert away == sorted(away)
