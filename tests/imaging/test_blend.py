"""Blending keeps what it must keep bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from easyphoto.imaging import geometry, masks
from easyphoto.imaging.blend import alpha_blend, laplacian_blend, paste_back
from easyphoto.records import Photo
from tests.made_faces import made_face

RANDOM = np.random.default_rng(0)
BASE = RANDOM.integers(0, 255, (120, 140, 3), np.uint8)
TOP = RANDOM.integers(0, 255, (120, 140, 3), np.uint8)


def test_alpha_blend_at_its_ends_and_in_the_middle() -> None:
    mask = np.zeros((120, 140), np.float32)
    mask[:, 70:] = 1
    mask[:, 60:70] = 0.5
    mixed = alpha_blend(BASE, TOP, mask)
    assert (mixed[:, :60] == BASE[:, :60]).all()
    assert (mixed[:, 70:] == TOP[:, 70:]).all()
    middle = (BASE[:, 60:70].astype(float) + TOP[:, 60:70]) / 2
    assert np.abs(mixed[:, 60:70] - middle).max() <= 0.5


def test_laplacian_blend_at_its_ends() -> None:
    assert np.abs(laplacian_blend(BASE, TOP, np.zeros((120, 140), np.float32)).astype(int) - BASE).max() <= 1
    assert np.abs(laplacian_blend(BASE, TOP, np.ones((120, 140), np.float32)).astype(int) - TOP).max() <= 1


def test_laplacian_blend_spreads_a_tone_step_wider_than_the_mask() -> None:
    mask = np.zeros((128, 128), np.float32)
    mask[:, 64:] = 1
    dark, light = (np.full((128, 128, 3), value, np.uint8) for value in (50, 200))
    row = laplacian_blend(dark, light, mask, levels=5)[64, :, 0].astype(int)
    assert np.abs(np.diff(row)).max() < 30
    assert row[0] < 60
    assert row[-1] > 190


@pytest.mark.parametrize("degrees", [0, 25])
def test_paste_back_of_an_untouched_crop_is_the_picture(degrees: float) -> None:
    smooth = np.repeat(np.linspace(0, 250, 140)[None, :, None].repeat(120, 0), 3, 2).astype(np.uint8)
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle), 70], [math.sin(angle), math.cos(angle), 60]])
    face = geometry.move_face(made_face(0, 0, 30, 40), turn)
    crop = geometry.crop_square(Photo(pixels=smooth, name="a"), face, 1.5, 192, upright=True)
    mask = masks.feather(masks.face_mask(crop.face, (192, 192)), 6)
    picture, changed = paste_back(smooth, crop.photo.pixels, crop.matrix, mask)
    assert np.abs(picture.astype(int) - smooth).max() <= 2
    assert changed.max() == 1


def test_paste_back_changes_nothing_outside_its_mask() -> None:
    face = made_face(70, 60, 30, 40)
    crop = geometry.crop_square(Photo(pixels=BASE, name="a"), face, 1.8, 96)
    mask = masks.feather(masks.face_mask(crop.face, (96, 96)), 4)
    picture, changed = paste_back(BASE, 255 - crop.photo.pixels, crop.matrix, mask)
    assert (picture[changed == 0] == BASE[changed == 0]).all()
    assert (picture != BASE).any(2)[changed > 0.5].mean() > 0.95
    assert np.allclose(changed * 255, np.rint(changed * 255), atol=1e-3)
    assert changed[60, 70] == 1
    assert changed[60, 20] == 0


def test_paste_back_beyond_the_picture() -> None:
    for x, y in ((0, 0), (139, 119), (-500, 0)):
        face = made_face(x, y, 60, 80)
        crop = geometry.crop_square(Photo(pixels=BASE, name="a"), face, 1.8, 64)
        picture, changed = paste_back(BASE, crop.photo.pixels, crop.matrix, np.ones((64, 64), np.float32))
        assert picture.shape == BASE.shape
        assert (picture[changed == 0] == BASE[changed == 0]).all()
