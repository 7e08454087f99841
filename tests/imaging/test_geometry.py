"""Points, matrices and crops: what goes there comes back, to the pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from easyphoto.errors import InputError
from easyphoto.imaging import geometry, mesh
from easyphoto.imaging.geometry import BLACK, REFLECT, crop_square, move_face, similarity, square_around, warp
from easyphoto.records import Box, Photo
from tests.made_faces import made_face


def random_similarity(random: np.random.Generator) -> geometry.Matrix:
    angle, scale = random.uniform(-3, 3), random.uniform(0.2, 4)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.column_stack([turn, random.uniform(-50, 50, 2)])


@pytest.mark.parametrize("seed", range(8))
def test_similarity_finds_the_map_that_moved_the_points(seed: int) -> None:
    random = np.random.default_rng(seed)
    matrix = random_similarity(random)
    points = random.uniform(0, 100, (6, 2))
    found = similarity(points, points @ matrix[:, :2].T + matrix[:, 2])
    assert np.allclose(found, matrix, atol=1e-8)


def test_similarity_never_mirrors() -> None:
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float)
    found = similarity(square, square * [-1, 1])
    assert np.linalg.det(found[:, :2]) >= 0


def test_similarity_is_the_least_squares_answer() -> None:
    random = np.random.default_rng(3)
    source, target = random.uniform(0, 10, (9, 2)), random.uniform(0, 10, (9, 2))
    best = similarity(source, target)

    def error(matrix: geometry.Matrix) -> float:
        return float(((source @ matrix[:, :2].T + matrix[:, 2] - target) ** 2).sum())

    for _ in range(200):
        a, b = best[0, 0] + random.normal(0, 0.05), best[1, 0] + random.normal(0, 0.05)
        other = np.column_stack([[[a, -b], [b, a]], best[:, 2] + random.normal(0, 0.05, 2)])
        assert error(best) <= error(other) + 1e-9


def test_similarity_refuses_what_has_no_answer() -> None:
    with pytest.raises(InputError, match="at least two points"):
        similarity([(0, 0)], [(1, 1)])
    with pytest.raises(InputError, match="one place"):
        similarity([(1, 1), (1, 1)], [(0, 0), (2, 2)])


def test_invert_and_compose() -> None:
    matrix = random_similarity(np.random.default_rng(4))
    assert np.allclose(geometry.compose(geometry.invert(matrix), matrix), np.eye(2, 3), atol=1e-9)
    assert math.isclose(geometry.scale_of(matrix) * geometry.scale_of(geometry.invert(matrix)), 1.0)


def test_warp_by_whole_pixels_copies_them() -> None:
    pixels = np.random.default_rng(5).integers(0, 255, (20, 30, 3), np.uint8)
    moved = warp(pixels, np.array([[1.0, 0, -4], [0, 1, -7]]), (10, 8))
    assert (moved == pixels[7:15, 4:14]).all()


def test_warp_shrinks_by_averaging_and_keeps_one_channel() -> None:
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = warp(checks, np.array([[0.25, 0, 0], [0, 0.25, 0]]), (16, 16))
    assert small.shape == (16, 16)
    assert np.abs(small.astype(int) - 128).max() <= 2
    assert warp(checks[..., None], np.eye(2, 3), (8, 8)).shape == (8, 8, 1)


@pytest.mark.parametrize("border", [BLACK, REFLECT, geometry.REPLICATE])
def test_a_small_part_of_a_large_picture_is_the_same_as_all_of_it(border: geometry.Border) -> None:
    """What a warp leaves unread makes no difference, at the picture's edges neither."""
    pixels = np.random.default_rng(9).integers(0, 255, (90, 120, 3), np.uint8)
    for shift in ((-20, -15), (12, 9), (-100, -70)):
        matrix = np.array([[1.0, 0, shift[0]], [0, 1, shift[1]]])
        whole = warp(pixels, matrix, (120, 90), border)
        assert (warp(pixels, matrix, (40, 30), border) == whole[:30, :40]).all()


def test_warp_shows_the_border_asked_for() -> None:
    pixels = np.full((4, 4, 3), 200, np.uint8)
    beyond = np.array([[1.0, 0, 10], [0, 1, 10]])
    assert (warp(pixels, beyond, (4, 4), BLACK) == 0).all()
    assert (warp(pixels, beyond, (4, 4), geometry.WHITE) == 255).all()
    assert (warp(pixels, beyond, (4, 4), REFLECT) == 200).all()


def test_a_pixel_lands_where_its_point_lands() -> None:
    pixels = np.zeros((40, 40), np.float32)
    pixels[12, 20] = 1.0  # its middle is the point (20.5, 12.5)
    matrix = np.array([[3.0, 0, -30], [0, 3, -15]])
    moved = warp(pixels, matrix, (60, 60), BLACK)
    y, x = np.unravel_index(int(moved.argmax()), moved.shape)
    assert np.abs(geometry.transform_points([(20.5, 12.5)], matrix)[0] - (x + 0.5, y + 0.5)).max() <= 0.51


def test_square_stays_inside_where_that_is_near_and_sticks_out_where_not() -> None:
    face = Box(left=40, top=40, right=60, bottom=60)
    assert square_around(face, 2, 200, 200) == Box(left=30, top=30, right=70, bottom=70)
    near = square_around(Box(left=5, top=80, right=25, bottom=100), 2, 200, 200)
    assert (near.left, near.width, near.height) == (0, 40, 40)
    far = square_around(Box(left=-15, top=80, right=5, bottom=100), 2, 200, 200)
    assert math.isclose(far.left, -25 + 0.15 * 40)
    small = square_around(Box(left=10, top=10, right=90, bottom=90), 3, 100, 120)
    assert small.width == 104  # the picture's shorter side is less than 1.3 faces


def test_crop_holds_the_face_in_its_middle_and_knows_the_way_back() -> None:
    photo = Photo(pixels=np.random.default_rng(6).integers(0, 255, (300, 280, 3), np.uint8), name="a")
    face = made_face(140, 150)
    crop = crop_square(photo, face, 1.8, 256)
    assert crop.photo.pixels.shape == (256, 256, 3)
    assert np.allclose(crop.face.box.center, (128, 128), atol=0.01)
    assert math.isclose(crop.face.box.height * 1.8, 256, rel_tol=1e-3)
    assert crop.face.mesh is not None
    assert face.mesh is not None
    assert np.allclose(geometry.transform_points(crop.face.mesh, crop.inverse), face.mesh, atol=1e-2)


@pytest.mark.parametrize("degrees", [-170, -60, -20, 0, 35, 90])
def test_upright_crop_levels_the_eyes(degrees: float) -> None:
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle), 150], [math.sin(angle), math.cos(angle), 150]])
    face = move_face(made_face(0, 0), turn)
    assert math.isclose(geometry.roll_of(face), angle, abs_tol=1e-4)
    crop = crop_square(Photo(pixels=np.zeros((300, 300, 3), np.uint8), name="a"), face, 2.0, 128, upright=True)
    assert abs(geometry.roll_of(crop.face)) < 1e-3
    assert np.allclose(crop.face.box.center, (64, 64), atol=0.1)


def test_a_moved_face_moves_with_everything() -> None:
    body = np.array([(x, 2 * x, 0.7) for x in range(33)], np.float32)
    face = made_face(50, 60)
    face = type(face)(box=face.box, score=0.5, landmarks=face.landmarks, mesh=face.mesh,
                      depth=np.arange(478, dtype=np.float32), body=body)  # fmt: skip
    matrix = np.array([[2.0, 0, 5], [0, 2, -3]])
    moved = move_face(face, matrix)
    assert moved.mesh is not None and moved.body is not None and moved.depth is not None
    assert np.allclose(moved.landmarks, face.landmarks * 2 + [5, -3])
    assert np.allclose(moved.body[:, :2], body[:, :2] * 2 + [5, -3])
    assert np.allclose(moved.body[:, 2], np.float32(0.7))
    assert np.allclose(moved.depth, np.arange(478) * 2)
    assert math.isclose(moved.box.width, face.box.width * 2, rel_tol=1e-5)
    assert moved.box == geometry.box_of(moved.mesh[list(mesh.OVAL)])
