"""Control pictures: what a ControlNet is shown (edges, pose, colour grid, tile).

Only numpy and OpenCV. The training recipe of the embedded base model and inference draw with these same functions,
so a model never meets a map that it was not trained on. Pictures are uint8, height x width x 3, RGB.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Points = npt.NDArray[np.floating[Any]]

# MediaPipe face-mesh indices in the order of the 68 iBUG points, then both pupils (OpenPose's 70-point face).
FACE70_FROM_MESH = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),  # jaw
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),  # brows
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),  # mouth
    *(468, 473),  # pupils
)
# OpenPose order: nose, neck, right arm, left arm, right leg, left leg, right eye, left eye, right ear, left ear.
# Index 1 (the neck) is the middle of the shoulders and has no point of its own in MediaPipe's 33.
_BODY18_FROM_POSE33 = (0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
_LIMB_COLORS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255),
    (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
_MIN_CONFIDENCE = 0.3
_LIMB_BRIGHTNESS = 0.6
_SUBPIXEL_BITS = 4


def canny_map(rgb: Pixels, low: int = 100, high: int = 200) -> Pixels:
    """Return white Canny edges on black, as three equal channels."""
    edges = cv2.Canny(np.ascontiguousarray(rgb), low, high)
    return np.repeat(edges[:, :, None], 3, axis=2).astype(np.uint8, copy=False)


def color_grid(rgb: Pixels, cells: int = 16) -> Pixels:
    """Return the picture as flat colour cells, `cells` of them along its shorter side."""
    height, width = rgb.shape[:2]
    scale = cells / min(height, width)
    small_size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(rgb, small_size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def tile_map(rgb: Pixels, factor: float = 4.0) -> Pixels:
    """Return the picture shrunken by `factor` and enlarged again: its colours and shapes without its detail."""
    height, width = rgb.shape[:2]
    small_size = max(1, round(width / factor)), max(1, round(height / factor))
    small = cv2.resize(rgb, small_size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def face70_from_mesh(points: Points) -> npt.NDArray[np.float32]:
    """Pick OpenPose's 70 face points out of a face mesh.

    Args:
        points: MediaPipe face mesh with irises, 478 x 2 (or more columns), pixels; 468 points without irises give
            the middle of each eye's corners as its pupil.

    Returns:
        70 x 2 float32, pixels.
    """
    mesh = np.asarray(points, np.float32)[:, :2]
    if len(mesh) < 478:
        pupils = (mesh[[33, 133]].mean(axis=0), mesh[[362, 263]].mean(axis=0))
        return np.concatenate([mesh[list(FACE70_FROM_MESH[:68])], np.stack(pupils)])
    return np.asarray(mesh[list(FACE70_FROM_MESH)])


def body18_from_pose33(pose: Points) -> npt.NDArray[np.float32]:
    """Turn MediaPipe's 33 pose points into OpenPose's 18.

    Args:
        pose: 33 x 3 (x, y, visibility) or 33 x 4 (x, y, z, visibility), x and y in pixels.

    Returns:
        18 x 3 float32 of x, y (pixels) and confidence 0..1; the neck is the middle of the shoulders.
    """
    pose = np.asarray(pose, np.float32)
    flat = np.concatenate([pose[:, :2], pose[:, -1:]], axis=1)
    body = flat[list(_BODY18_FROM_POSE33)]
    shoulders = body[[2, 5]]
    body[1] = (*shoulders[:, :2].mean(axis=0), shoulders[:, 2].min())
    return np.asarray(body)


def openpose_map(height: int, width: int, face_points: Points | None, body_points: Points | None) -> Pixels:
    """Draw body limbs and face dots as ControlNet's OpenPose annotator does, on black.

    Args:
        height: Of the map, pixels; stroke widths follow the shorter side (ControlNet's own widths at 512 px).
        width: Of the map, pixels.
        face_points: 478 x 2 face mesh or 70 x 2 OpenPose face points, pixels; None draws no face.
        body_points: 18 x 3 of x, y (pixels), confidence; points of little confidence or outside the map are left
            out with their limbs; None draws no body.
    """
    canvas: Pixels = np.zeros((height, width, 3), np.uint8)
    stroke = min(height, width) / 512.0
    if body_points is not None:
        _draw_body(canvas, np.asarray(body_points, np.float64), 4.0 * stroke)
    if face_points is not None:
        face = face70_from_mesh(face_points) if len(face_points) > 70 else np.asarray(face_points)[:, :2]
        for point in face:
            _dot(canvas, point, 3.0 * stroke, (255, 255, 255))
    return canvas


def _draw_body(canvas: Pixels, body: npt.NDArray[np.float64], thickness: float) -> None:
    height, width = canvas.shape[:2]
    x, y, confidence = body.T
    shown = (confidence >= _MIN_CONFIDENCE) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    joined = np.zeros(len(body), bool)
    for (a, b), color in zip(_LIMBS, _LIMB_COLORS, strict=False):
        if shown[a] and shown[b]:
            joined[[a, b]] = True
            _limb(canvas, body[a, :2], body[b, :2], thickness, color)
    canvas[:] = np.rint(canvas * _LIMB_BRIGHTNESS).astype(np.uint8)
    for index in np.flatnonzero(joined):
        _dot(canvas, body[index, :2], thickness, _LIMB_COLORS[index])


def _limb(canvas: Pixels, start: Points, end: Points, thickness: float, color: tuple[int, int, int]) -> None:
    middle = (start + end) / 2
    length = float(np.hypot(*(end - start)))
    angle = math.degrees(math.atan2(end[1] - start[1], end[0] - start[0]))
    axes = max(1, round(length / 2)), max(1, round(thickness))
    center = round(float(middle[0])), round(float(middle[1]))
    cv2.fillConvexPoly(canvas, cv2.ellipse2Poly(center, axes, round(angle), 0, 360, 1), color)


def _dot(canvas: Pixels, point: npt.NDArray[np.floating[Any]], radius: float, color: tuple[int, int, int]) -> None:
    one = 1 << _SUBPIXEL_BITS
    center = round(float(point[0]) * one), round(float(point[1]) * one)
    cv2.circle(canvas, center, max(round(radius * one), one), color, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
