"""Bending by triangles: identity, known shifts, and no hole inside."""

from __future__ import annotations

import numpy as np

from easyphoto.imaging import mesh_warp

RANDOM = np.random.default_rng(0)
CORNERS = np.array([(4, 4), (60, 4), (60, 60), (4, 60)], np.float32)
POINTS = np.concatenate([CORNERS, RANDOM.uniform(10, 54, (30, 2))]).astype(np.float32)


def area(points: np.ndarray, triangles: np.ndarray) -> float:
    a, b, c = (points[triangles[:, corner]].astype(float) for corner in range(3))
    return float(np.abs((b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])).sum() / 2)


def test_triangles_cover_the_hull_once() -> None:
    triangles = mesh_warp.triangulate(POINTS)
    assert abs(area(POINTS, triangles) - 56 * 56) < 1
    assert set(triangles.ravel()) == set(range(len(POINTS)))


def test_identity_keeps_every_pixel() -> None:
    pixels = RANDOM.integers(0, 255, (64, 64, 3), np.uint8)
    done = mesh_warp.warp_map(POINTS, POINTS, mesh_warp.triangulate(POINTS), (64, 64))
    bent = mesh_warp.bend(pixels, done.came_from)
    assert (bent[6:58, 6:58] == pixels[6:58, 6:58]).all()
    assert (bent[:3] == 0).all()
    assert np.isnan(done.came_from[0, 0]).all()
    assert np.allclose(done.fineness[6:58, 6:58], 1, atol=1e-4)
    assert done.fineness[0, 0] == 0


def test_a_shift_of_all_points_shifts_the_picture() -> None:
    pixels = RANDOM.integers(0, 255, (64, 64, 3), np.uint8)
    done = mesh_warp.warp_map(POINTS, POINTS + np.float32([3, 0]), mesh_warp.triangulate(POINTS), (64, 64))
    assert (mesh_warp.bend(pixels, done.came_from)[10:50, 12:58] == pixels[10:50, 9:55]).all()


def test_a_moved_point_takes_its_colour_along() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[28:36, 28:36] = 255
    source = np.concatenate([CORNERS, [[32, 32]]]).astype(np.float32)
    target = np.concatenate([CORNERS, [[44, 24]]]).astype(np.float32)
    bent = mesh_warp.bend(pixels, mesh_warp.warp_map(source, target, mesh_warp.triangulate(source), (64, 64)).came_from)
    assert bent[24, 44, 0] > 250
    assert bent[34, 30, 0] < 5


def test_turned_over_triangles_are_named() -> None:
    triangles = mesh_warp.triangulate(POINTS)
    folded = POINTS.copy()
    folded[4] = (200, 30)  # an inner point thrown beyond the hull turns some of its triangles over
    assert not mesh_warp.turned_over(POINTS, triangles).any()
    assert mesh_warp.turned_over(folded, triangles).any()


def test_triangles_without_area_do_no_harm() -> None:
    source = np.concatenate([CORNERS, [[32, 32], [32, 32]]]).astype(np.float32)
    triangles = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4], [4, 5, 4]], np.int32)
    done = mesh_warp.warp_map(source, source, triangles, (64, 64))
    assert np.isfinite(done.came_from[6:58, 6:58]).all()


def test_fineness_is_the_worst_directions_scale() -> None:
    target = CORNERS * np.float32([1, 1])
    source = CORNERS * np.float32([0.25, 1])
    triangles = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    assert np.allclose(mesh_warp.warp_map(source, target, triangles, (64, 64)).fineness[10:50, 10:50], 0.25, atol=1e-3)
