"""Masks lie where the face is, and each is what its name says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from easyphoto.errors import PhotoError
from easyphoto.imaging import geometry, masks
from tests.made_faces import made_face

SHAPE = (200, 220)
FACE = made_face(100, 100, 80, 110)


def test_polygon_covers_half_open_pixels() -> None:
    square = np.array([(2, 3), (6, 3), (6, 8), (2, 8)], np.float32)
    mask = masks.polygon_mask(square, (12, 12))
    assert mask.dtype == np.float32
    assert (mask[4:7, 3:5] == 1).all()
    assert mask[1].max() == 0
    assert mask[:, 8].max() == 0


def test_polygon_far_outside_is_clipped_not_wrapped() -> None:
    huge = np.array([(-1e9, -1e9), (1e9, -1e9), (1e9, 1e9), (-1e9, 1e9)], np.float32)
    assert (masks.polygon_mask(huge, (5, 5)) == 1).all()


def test_face_mask_has_the_ellipses_area() -> None:
    mask = masks.face_mask(FACE, SHAPE)
    # OpenCV also fills the pixels that the outline itself runs through: half a pixel all around.
    assert mask.sum() == pytest.approx(np.pi / 4 * 80.5 * 110.5, rel=0.02)
    assert masks.face_width(FACE) == pytest.approx(80, rel=0.01)


def test_face_width_does_not_change_with_roll() -> None:
    turned = geometry.move_face(FACE, np.array([[0.6, -0.8, 60], [0.8, 0.6, -40]]))
    assert masks.face_width(turned) == pytest.approx(80, rel=0.02)


def test_mask_to_ears_reaches_sideways_and_up_but_not_below_the_chin() -> None:
    plain, ears = masks.face_mask(FACE, SHAPE), masks.face_mask_to_ears(FACE, SHAPE)
    assert (ears >= plain - 1e-6).all()
    assert ears[100, 55] == 1  # 5 px beyond the cheek
    assert plain[100, 55] == 0
    assert ears[40, 100] == 1  # 5 px above the mesh
    assert ears[157:].max() == 0  # the chin is at 155


def test_mask_to_ears_keeps_off_the_side_that_is_turned_away() -> None:
    assert FACE.mesh is not None
    points = FACE.mesh.copy()
    right = points[:, 0] < 100
    points[right, 0] = 100 - (100 - points[right, 0]) * 0.3
    turned = replace(FACE, mesh=points)
    ears, plain = masks.face_mask_to_ears(turned, SHAPE), masks.face_mask(turned, SHAPE)
    gained = (ears - plain)[90:110]
    assert gained[:, 101:].sum() > 5 * gained[:, :100].sum()


def test_grow_is_in_face_widths() -> None:
    mask = masks.face_mask(FACE, SHAPE)
    wide, narrow = masks.grow(mask, FACE, 0.1), masks.grow(mask, FACE, -0.1)
    row = slice(100, 101)
    assert wide[row].sum() - mask[row].sum() == pytest.approx(16, abs=2)
    assert mask[row].sum() - narrow[row].sum() == pytest.approx(16, abs=2)


def test_feather_inside_never_leaves_the_mask() -> None:
    mask = masks.face_mask(FACE, SHAPE)
    soft = masks.feather_inside(mask, 8)
    assert soft[mask == 0].max() == 0
    assert soft[100, 100] == pytest.approx(1, abs=1e-3)
    assert 0.05 < soft[100, 66] < 0.95


def test_mouth_eyes_and_skin_do_not_meet() -> None:
    mouth, eyes, skin = (make(FACE, SHAPE) for make in (masks.mouth_mask, masks.eyes_mask, masks.skin_mask))
    assert mouth[127, 100] == 1
    assert eyes[89, 82] == eyes[89, 117] == 1
    assert (mouth * eyes).max() == 0
    assert (skin * np.maximum(mouth, eyes)).max() < 0.26  # only the smooth edges share
    assert skin[115, 75] == 1


def test_ring_is_the_edge_only() -> None:
    mask = masks.face_mask(FACE, SHAPE)
    ring = masks.ring_mask(mask, FACE, 0.1, 0.1)
    assert ring[100, 100] == 0
    assert ring[100, 62] == ring[100, 56] == 1
    assert ring[100, 40] == 0


def test_without_a_mesh_there_is_a_sentence() -> None:
    with pytest.raises(PhotoError, match="outline"):
        masks.face_mask(replace(FACE, mesh=None, depth=None), SHAPE)
