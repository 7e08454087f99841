"""Who and what is near a training portrait: on vectors and pictures whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from easyphoto.records import Box, Face, Photo
from recipes.base_model.novelty import Faces, aligned, nearest, novelty, person_nearness

STRANGERS = np.eye(4, dtype=np.float32)
"""Four people, the square root of 2 apart."""


def faces(*identities: np.ndarray) -> Faces:
    """Faces whose pictures have nothing to do with each other's."""
    pictures = np.random.default_rng(len(identities)).normal(size=(len(identities), 5000)).astype(np.float32)
    return Faces(identities=np.stack(identities), pictures=pictures / np.linalg.norm(pictures, axis=1, keepdims=True))


def portrait(seed: int) -> tuple[Photo, Face]:
    """A smooth random picture, 200 x 200, with a face at its centre."""
    coarse = np.random.default_rng(seed).integers(30, 225, (10, 10, 3), np.uint8)
    landmarks = np.array([(85, 90), (115, 90), (100, 108), (88, 122), (112, 122)], np.float32)
    face = Face(box=Box(left=60, top=60, right=140, bottom=140), score=1.0, landmarks=landmarks)
    return Photo(pixels=coarse.repeat(20, 0).repeat(20, 1), name=str(seed)), face


def test_the_nearest_portrait_counts() -> None:
    asked = np.array([(1, 0, 0, 0), (0, 0.7, 0, 0)], np.float32)
    assert nearest(asked, STRANGERS) == pytest.approx([0, 0.3])


def test_a_copy_is_told_from_a_stranger() -> None:
    training = faces(*STRANGERS)
    copied = Faces(identities=STRANGERS[:2] * 0.9, pictures=training.pictures[:2])
    report = novelty(training, faces(-STRANGERS[0]), copied, {"ada": faces(-STRANGERS[1], -STRANGERS[2])})
    assert list(report) == ["held_out", "samples", "ada"]
    copy, stranger = report["samples"], report["held_out"]
    assert (copy["distance_median"], copy["below_0.4"], copy["picture_above_0.9"]) == (0.1, 1, 1)
    assert (stranger["distance_median"], stranger["below_0.6"], stranger["picture_above_0.9"]) == (1.414, 0, 0)
    assert (stranger["faces"], copy["faces"], report["ada"]["faces"]) == (1, 2, 2)


def test_shares_and_quantiles_are_of_the_nearest_distances() -> None:
    away = [STRANGERS[0] * (1 - step) for step in (0.0, 0.3, 0.5, 0.7)]
    report = novelty(faces(*STRANGERS), faces(STRANGERS[0]), faces(*away), {})["samples"]
    assert (report["below_0.6"], report["below_0.4"]) == (0.75, 0.5)
    assert (report["distance_smallest"], report["distance_median"], report["distance_q05"]) == (0.0, 0.4, 0.045)


def test_a_person_who_takes_after_one_portrait_stands_out() -> None:
    training = faces(*STRANGERS)
    new = person_nearness(faces(*[-STRANGERS.sum(0)] * 3), training)
    assert new["nearer_than_second"] == 0
    like_one = person_nearness(faces(*[STRANGERS[2] * 0.8] * 3, -STRANGERS[0]), training)
    assert like_one["of_median_embedding"] == pytest.approx(0.2, abs=0.01), "one stray photo hardly counts"
    assert like_one["nearer_than_second"] > 1


def test_an_aligned_picture_knows_itself_moved_and_in_other_light() -> None:
    photo, face = portrait(0)
    moved = Face(box=face.box, score=1.0, landmarks=face.landmarks + np.float32(4))
    darker = np.roll(photo.pixels, 4, (0, 1)) // 2 + np.array([30, 0, 10], np.uint8)
    same = float(aligned(photo, face) @ aligned(Photo(pixels=darker, name="moved"), moved))
    assert same > 0.95
    assert float(aligned(photo, face) @ aligned(*portrait(1))) < 0.5
