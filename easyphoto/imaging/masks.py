"""Soft masks from the face mesh: float32, height x width, 0-1.

A mask's `shape` is (height, width) px. Distances are shares of the face's width, so that one number fits every size.
"""

from __future__ import annotations

import cv2
import numpy as np

from easyphoto.errors import PhotoError
from easyphoto.imaging import mesh
from easyphoto.records import Face, Floats

Shape = tuple[int, ...]
"""(height, width) px, as `pixels.shape[:2]` gives it."""
_SUBPIXEL_BITS = 4
_TO_EAR = 0.14
"""An ear stands this share of the face's width beyond the mesh's outline, seen from the front."""
_TO_HAIRLINE = 0.10
"""The mesh ends this share of the face's height below a common hairline."""


def polygon_mask(points: Floats, shape: Shape) -> Floats:
    """The inside of a closed (n, 2) outline, with a smooth edge of one pixel."""
    fixed = np.rint((np.asarray(points, np.float64) - 0.5) * 2**_SUBPIXEL_BITS)
    # Points far outside would overflow OpenCV's fixed-point coordinates.
    fixed = np.clip(fixed, -(2**24), 2**24).astype(np.int32)
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [fixed], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return np.asarray(canvas, np.float32) / np.float32(255)


def feather(mask: Floats, radius: float) -> Floats:
    """The mask with its edge softened over about `radius` px to either side."""
    if radius <= 0:
        return mask
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), radius / 2, borderType=cv2.BORDER_REPLICATE), np.float32)


def feather_inside(mask: Floats, radius: float) -> Floats:
    """The mask softened towards its inside only: where it was 0 it stays exactly 0."""
    return np.minimum(feather(erode(mask, radius), radius), mask)


def dilate(mask: Floats, radius: float) -> Floats:
    """The mask grown by `radius` px."""
    return _morph(mask, radius, cv2.MORPH_DILATE)


def erode(mask: Floats, radius: float) -> Floats:
    """The mask shrunk by `radius` px."""
    return _morph(mask, radius, cv2.MORPH_ERODE)


def grow(mask: Floats, face: Face, fraction: float) -> Floats:
    """The mask grown (or shrunk, below 0) by a share of the face's width."""
    radius = abs(fraction) * face_width(face)
    return dilate(mask, radius) if fraction >= 0 else erode(mask, radius)


def mesh_of(face: Face) -> Floats:
    """The face's mesh; raises PhotoError where it has none."""
    if face.mesh is None:
        raise PhotoError("the face is too small or too turned for its outline to be found; choose another picture")
    return face.mesh


def face_width(face: Face) -> float:
    """Width of the face in px, along its own axis: from in front of one ear to the other."""
    if face.mesh is None:
        return face.box.width
    across, _ = _axes(mesh_of(face))
    along = mesh_of(face)[list(mesh.OVAL)] @ across
    return float(np.ptp(along))


def face_mask(face: Face, shape: Shape, reach: float = 0.0) -> Floats:
    """The face's outline from brow line to chin, ear to ear; grown by `reach` face widths."""
    mask = polygon_mask(mesh_of(face)[list(mesh.OVAL)], shape)
    return grow(mask, face, reach) if reach else mask


def face_mask_to_ears(face: Face, shape: Shape) -> Floats:
    """The face with forehead up to about the hairline and out to the ears that are seen.

    The mesh's outline is moved outward: sideways towards each ear, less where that side is turned away (its ear is
    hidden and what lies beyond is background), upward over the forehead, not below the chin.
    """
    points = mesh_of(face)[list(mesh.OVAL)].astype(np.float64)
    across, up = _axes(mesh_of(face))
    nose = mesh_of(face)[mesh.NOSE_ROOT]
    x, y = (points - nose) @ across, (points - nose) @ up
    right, left = max(-float(x.min()), 1e-6), max(float(x.max()), 1e-6)
    width, height = right + left, float(np.ptp(y))
    # 1 where a side is as wide as the other or wider, 0 where it has vanished.
    seen = np.where(x < 0, min(1.0, right / left), min(1.0, left / right)) ** 2
    side = np.clip(np.abs(x) / np.where(x < 0, right, left), 0, 1)
    at_ear = side * np.clip(1 + y / (0.45 * height), 0, 1)  # the jaw below the ears stays
    x = x + np.sign(x) * at_ear * seen * _TO_EAR * width
    y = y + np.clip(y / float(y.max()), 0, 1) * _TO_HAIRLINE * height
    return polygon_mask((nose + x[:, None] * across + y[:, None] * up).astype(np.float32), shape)


def mouth_mask(face: Face, shape: Shape, reach: float = 0.02) -> Floats:
    """Lips and what is between them, grown by `reach` face widths."""
    return grow(polygon_mask(mesh_of(face)[list(mesh.LIPS_OUTER)], shape), face, reach)


def eyes_mask(face: Face, shape: Shape, reach: float = 0.03) -> Floats:
    """Both eyes, grown by `reach` face widths to take in the lids."""
    return grow(_union(face, shape, mesh.RIGHT_EYE, mesh.LEFT_EYE), face, reach)


def brows_mask(face: Face, shape: Shape, reach: float = 0.02) -> Floats:
    """Both brows, grown by `reach` face widths."""
    return grow(_union(face, shape, mesh.RIGHT_BROW, mesh.LEFT_BROW), face, reach)


def skin_mask(face: Face, shape: Shape) -> Floats:
    """The face without eyes, brows, lips and nostrils."""
    nostrils = outline_mask(face, shape, mesh.NOSTRILS, 0.02)
    keep_out = np.maximum.reduce([eyes_mask(face, shape), brows_mask(face, shape), mouth_mask(face, shape), nostrils])
    return np.asarray(face_mask(face, shape) * (1 - keep_out), np.float32)


def ring_mask(mask: Floats, face: Face, inner: float = 0.06, outer: float = 0.06) -> Floats:
    """The edge of a mask: from `inner` face widths inside it to `outer` outside."""
    return np.clip(grow(mask, face, outer) - grow(mask, face, -inner), 0, 1)


def _hull(face: Face, indices: tuple[int, ...]) -> Floats:
    return np.asarray(cv2.convexHull(mesh_of(face)[list(indices)].astype(np.float32))[:, 0], np.float32)


def outline_mask(face: Face, shape: Shape, outline: tuple[int, ...], reach: float = 0.0) -> Floats:
    """The convex hull of some mesh points (see `imaging.mesh`), grown by `reach` face widths."""
    return grow(polygon_mask(_hull(face, outline), shape), face, reach)


def _union(face: Face, shape: Shape, *outlines: tuple[int, ...]) -> Floats:
    masks = [outline_mask(face, shape, outline) for outline in outlines]
    return np.asarray(np.maximum.reduce(masks), np.float32)


def _axes(points: Floats) -> tuple[Floats, Floats]:
    """((2,) across, towards the person's left; (2,) up) unit vectors of a face."""
    across = points[mesh.LEFT_EYE_OUTER] - points[mesh.RIGHT_EYE_OUTER]
    across = across / (np.linalg.norm(across) + 1e-9)
    return across, np.array([across[1], -across[0]], np.float32)


def _morph(mask: Floats, radius: float, kind: int) -> Floats:
    size = 2 * round(radius) + 1
    if size < 3:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return np.asarray(cv2.morphologyEx(mask, kind, kernel, borderType=cv2.BORDER_REPLICATE), np.float32)
