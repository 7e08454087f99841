"""Makeup: what is transferred, where, and where nothing is touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from easyphoto.faces.makeup import transfer_makeup
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging import color, masks, mesh
from easyphoto.imaging.io import load_photo
from easyphoto.records import Face, Photo
from easyphoto.settings import PROJECT_ROOT


def seen(name: str, tools: FaceTools) -> tuple[Photo, Face]:
    photo = load_photo(PROJECT_ROOT / "templates" / f"{name}.jpg")
    return photo, tools.faces(photo)[0]


@pytest.fixture(scope="module")
def man(tools: FaceTools) -> tuple[Photo, Face]:
    return seen("studio-man", tools)


@pytest.fixture(scope="module")
def woman(tools: FaceTools) -> tuple[Photo, Face]:
    return seen("studio-woman", tools)


def lips(face: Face, shape: tuple[int, ...]) -> np.ndarray:
    outer = masks.mouth_mask(face, shape, 0.0)
    return outer * (1 - masks.polygon_mask(masks.mesh_of(face)[list(mesh.LIPS_INNER)], shape))


def painted(photo: Photo, face: Face) -> np.ndarray:
    """The face with lips of a strong blue."""
    share = masks.feather(lips(face, photo.pixels.shape[:2]), 3)[..., None]
    return np.rint(photo.pixels * (1 - 0.8 * share) + 0.8 * share * (40, 40, 230)).astype(np.uint8)


def mean(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return color.lab_statistics(color.to_lab(pixels), mask)[0]


def test_no_share_gives_the_picture_back_bit_for_bit(man, woman) -> None:
    (photo, face), (example, example_face) = man, woman
    assert transfer_makeup(photo.pixels, face, example.pixels, example_face, 0.0) is photo.pixels


def test_blue_lips_are_worn_by_the_other_and_more_so_by_a_larger_share(man, woman) -> None:
    (photo, face), (example, example_face) = man, woman
    blue = painted(example, example_face)
    own = masks.erode(lips(face, photo.pixels.shape[:2]), 1)
    shades = [mean(transfer_makeup(photo.pixels, face, blue, example_face, share), own)[2] for share in (0.0, 0.5, 1.0)]
    assert shades[0] - shades[1] > 8
    assert shades[1] - shades[2] > 8
    plain = mean(transfer_makeup(photo.pixels, face, example.pixels, example_face, 1.0), own)[2]
    assert plain - shades[2] > 15


def test_lips_lids_and_cheeks_alone_are_touched(man, woman) -> None:
    (photo, face), (example, example_face) = man, woman
    result = transfer_makeup(photo.pixels, face, painted(example, example_face), example_face, 1.0)
    shape = photo.pixels.shape[:2]
    width = masks.face_width(face)
    away = masks.dilate(masks.face_mask(face, shape), 0.1 * width) == 0
    assert (result[away] == photo.pixels[away]).all()
    pupils = masks.mesh_of(face)[[mesh.RIGHT_PUPIL, mesh.LEFT_PUPIL]].astype(int)
    for x, y in pupils:
        assert (result[y, x] == photo.pixels[y, x]).all()
    x, y = masks.mesh_of(face)[mesh.FOREHEAD].astype(int)
    assert (result[y + 5, x] == photo.pixels[y + 5, x]).all()
    assert (result != photo.pixels).any()


def test_the_same_makeup_changes_next_to_nothing(woman) -> None:
    photo, face = woman
    result = transfer_makeup(photo.pixels, face, photo.pixels, face, 1.0)
    assert np.abs(result.astype(int) - photo.pixels).max() <= 1


def test_a_face_without_a_mesh_is_left(man, woman) -> None:
    (photo, face), (example, example_face) = man, woman
    assert transfer_makeup(photo.pixels, replace(face, mesh=None), example.pixels, example_face, 1.0) is photo.pixels
