"""Bends a picture so that the points of one mesh come to lie on those of another, triangle by triangle."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from easyphoto.records import Floats, Pixels

Triangles = NDArray[np.int32]
_SUBPIXEL_BITS = 4


def triangulate(points: Floats) -> Triangles:
    """(t, 3) indices of the Delaunay triangles of (n, 2) points."""
    low = points.min(0) - 10
    high = points.max(0) + 10
    plane = cv2.Subdiv2D((0, 0, int(np.ceil(high[0] - low[0])), int(np.ceil(high[1] - low[1]))))
    shifted = np.asarray(points - low, np.float32)
    index = {}
    for number, (x, y) in enumerate(shifted.tolist()):
        plane.insert((x, y))
        index[x, y] = number
    corners = np.asarray(plane.getTriangleList(), np.float32).reshape(-1, 3, 2)
    found = [[index.get((x, y), -1) for x, y in triangle] for triangle in corners.tolist()]
    return np.array([triangle for triangle in found if min(triangle) >= 0], np.int32)


def turned_over(points: Floats, triangles: Triangles) -> NDArray[np.bool_]:
    """(t,) whether each triangle shows its back, told by how most of them turn."""
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    return np.asarray(area * np.sign(np.median(area)) <= 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class WarpMap:
    """Where each pixel of a target comes from."""

    came_from: Floats
    """(height, width, 2) continuous source coordinates; NaN outside the triangles."""
    fineness: Floats
    """(height, width): source pixels for one target pixel in the direction that is stretched most; 0 outside."""


def warp_map(source: Floats, target: Floats, triangles: Triangles, shape: tuple[int, ...]) -> WarpMap:
    """Where each pixel of the target comes from, affine within each triangle.

    Args:
        source: (n, 2) points in the picture that is bent.
        target: (n, 2) points where they shall lie.
        triangles: (t, 3) indices into both; later ones lie on top.
        shape: (height, width) of the target.
    """
    owner = np.full(shape, -1, np.int32)
    fixed = np.rint((target - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32)
    for number, triangle in enumerate(triangles):
        cv2.fillConvexPoly(owner, fixed[triangle], number, shift=_SUBPIXEL_BITS)
    rows, columns = np.nonzero(owner >= 0)
    owners = owner[rows, columns]
    affine = _affine(source, target, triangles)
    here = np.column_stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
    came_from = np.full((*shape, 2), np.nan, np.float32)
    came_from[rows, columns] = np.einsum("nij,nj->ni", affine[owners], here)
    fineness = np.zeros(shape, np.float32)
    fineness[rows, columns] = np.linalg.svd(affine[:, :, :2], compute_uv=False)[owners, 1]
    return WarpMap(came_from=came_from, fineness=fineness)


def bend(pixels: Pixels, came_from: Floats) -> Pixels:
    """The picture bent by `WarpMap.came_from`: its nearest edge pixel where that points outside, black where it is NaN."""
    known = ~np.isnan(came_from[..., 0])
    middles = np.nan_to_num(came_from, nan=-1.0) - np.float32(0.5)  # OpenCV counts from the first pixel's middle
    bent = cv2.remap(pixels, middles[..., 0], middles[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.where(known[..., None], bent, 0).astype(np.uint8)


def _affine(source: Floats, target: Floats, triangles: Triangles) -> NDArray[np.float64]:
    """(t, 2, 3): from each target triangle to its source triangle; a triangle without area gets its corners' mean."""
    corners = np.concatenate([target[triangles].astype(np.float64), np.ones((len(triangles), 3, 1))], axis=2)
    thin = np.abs(np.linalg.det(corners)) < 1e-3
    corners[thin] = np.eye(3)
    solved = np.linalg.solve(corners, source[triangles].astype(np.float64)).transpose(0, 2, 1)
    solved[thin, :, :2] = 0
    solved[thin, :, 2] = source[triangles[thin]].mean(1)
    return np.asarray(solved)
