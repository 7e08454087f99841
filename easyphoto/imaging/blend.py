"""Putting one picture onto another without a visible edge. Pictures are RGB uint8, masks float32 0-1."""

from __future__ import annotations

import math

import cv2
import numpy as np

from easyphoto.imaging import geometry
from easyphoto.imaging.geometry import Matrix
from easyphoto.records import Floats, Pixels


def alpha_blend(base: Pixels, top: Pixels, mask: Floats) -> Pixels:
    """`top` over `base` as strongly as the mask says; where it is 0, `base` bit for bit."""
    alpha = mask[..., None]
    mixed = base.astype(np.float32) + alpha * (top.astype(np.float32) - base.astype(np.float32))
    return np.where(alpha > 0, np.clip(np.rint(mixed), 0, 255), base).astype(np.uint8)


def laplacian_blend(base: Pixels, top: Pixels, mask: Floats, levels: int = 5) -> Pixels:
    """`top` over `base`, coarse tones over a wide edge and fine detail over a narrow one (Burt & Adelson 1983).

    Args:
        base: (height, width, 3) RGB.
        top: (height, width, 3) RGB.
        mask: (height, width) 0-1.
        levels: Halvings; the widest transition is about 2 ** levels px.
    """
    levels = max(0, min(levels, int(math.log2(max(2, min(mask.shape)))) - 2))
    lows, highs, masks = base.astype(np.float32), top.astype(np.float32), mask.astype(np.float32)
    details = []
    for _ in range(levels):
        lows_next, highs_next = cv2.pyrDown(lows), cv2.pyrDown(highs)
        size = lows.shape[1], lows.shape[0]
        weight = masks[..., None]
        detail = (1 - weight) * (lows - cv2.pyrUp(lows_next, dstsize=size))
        details.append(detail + weight * (highs - cv2.pyrUp(highs_next, dstsize=size)))
        lows, highs, masks = lows_next, highs_next, cv2.pyrDown(masks)
    mixed = lows + masks[..., None] * (highs - lows)
    for detail in reversed(details):
        mixed = cv2.pyrUp(mixed, dstsize=(detail.shape[1], detail.shape[0])) + detail
    return np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8)


def paste_back(template: Pixels, crop: Pixels, matrix: Matrix, mask: Floats) -> tuple[Pixels, Floats]:
    """Bring a worked-on crop back into its picture.

    Args:
        template: (height, width, 3) RGB, the whole picture.
        crop: (side, side, 3) RGB, the finished crop.
        matrix: (2, 3), from the template's points to the crop's, as in `geometry.Crop.matrix`.
        mask: (side, side) 0-1 in the crop: 1 takes the crop. It should fade to 0 before the crop's edge.

    Returns:
        The whole picture, and the (height, width) mask that was used, in steps of 1/255: where it is 0 the picture is
        the template bit for bit.
    """
    height, width = template.shape[:2]
    back = geometry.invert(matrix)
    left, top, right, bottom = _covered(back, crop.shape[1], crop.shape[0], width, height)
    changed = np.zeros((height, width), np.float32)
    picture = template.copy()
    if right > left and bottom > top:
        here = geometry.compose(np.array([[1, 0, -left], [0, 1, -top]], np.float64), back)
        size = right - left, bottom - top
        moved = geometry.warp(crop, here, size, geometry.REPLICATE)
        alpha = geometry.warp(mask.astype(np.float32), here, size, geometry.BLACK)
        alpha = np.rint(np.clip(alpha, 0, 1) * 255) / np.float32(255)
        picture[top:bottom, left:right] = alpha_blend(template[top:bottom, left:right], moved, alpha)
        changed[top:bottom, left:right] = alpha
    return picture, changed


def _covered(back: Matrix, side_x: int, side_y: int, width: int, height: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the pixels of the whole picture that a crop reaches."""
    corners = geometry.transform_points([(0, 0), (side_x, 0), (0, side_y), (side_x, side_y)], back)
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    return max(0, int(low[0])), max(0, int(low[1])), min(width, int(high[0])), min(height, int(high[1]))
