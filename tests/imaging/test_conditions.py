"""The control pictures: sizes, colours and what is left out."""

import numpy as np

from easyphoto.imaging.conditions import (
    body18_from_pose33,
    canny_map,
    color_grid,
    face70_from_mesh,
    openpose_map,
    tile_map,
)


def _square_on_black() -> np.ndarray:
    picture = np.zeros((96, 64, 3), np.uint8)
    picture[30:60, 20:40] = (200, 120, 40)
    return picture


def test_canny_marks_the_outline_only() -> None:
    edges = canny_map(_square_on_black())
    assert edges.shape == (96, 64, 3)
    assert set(np.unique(edges)) == {0, 255}
    assert edges[45, 30].max() == 0
    assert edges[45, 16:24].max() == 255


def test_color_grid_has_flat_cells_and_keeps_the_mean() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    grid = color_grid(picture, cells=8)
    assert (grid[:16, :16] == grid[0, 0]).all()
    assert abs(float(grid.mean()) - float(picture.mean())) < 1
    assert color_grid(picture[:, :64], cells=8).shape == (128, 64, 3)


def test_tile_is_smoother_and_same_size() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (100, 64, 3), np.uint8)
    tile = tile_map(picture, 4)
    assert tile.shape == picture.shape
    assert tile.std() < picture.std() / 2


def test_body_neck_lies_between_the_shoulders() -> None:
    pose = np.zeros((33, 4), np.float32)
    pose[11], pose[12] = (60, 50, 0, 0.9), (20, 50, 0, 0.4)
    body = body18_from_pose33(pose)
    assert body.shape == (18, 3)
    np.testing.assert_allclose(body[1], (40, 50, 0.4))
    np.testing.assert_allclose(body[5], (60, 50, 0.9))


def test_pose_leaves_out_unsure_and_outside_points() -> None:
    body = np.zeros((18, 3), np.float32)
    body[1], body[2], body[5], body[3] = (32, 40, 1), (10, 40, 1), (54, 40, 0.1), (10, 200, 1)
    drawn = openpose_map(64, 64, None, body)
    assert drawn[40, 20].max() > 0
    assert drawn[40, 44:].max() == 0
    assert drawn[60].max() == 0


def test_face_dots_are_white_and_take_mesh_or_seventy_points() -> None:
    mesh = np.random.default_rng(1).uniform(10, 50, (478, 2))
    seventy = face70_from_mesh(mesh)
    assert seventy.shape == (70, 2)
    assert face70_from_mesh(mesh[:468]).shape == (70, 2)
    drawn = openpose_map(64, 64, mesh, None)
    np.testing.assert_array_equal(drawn, openpose_map(64, 64, seventy, None))
    x, y = np.rint(seventy[30]).astype(int)
    assert (drawn[y, x] > 200).all()
    assert openpose_map(64, 64, None, None).max() == 0
