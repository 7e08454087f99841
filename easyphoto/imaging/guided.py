"""The guided filter with a colour guide (He, Sun & Tang 2010, "Guided Image Filtering", equations 14 to 16).

OpenCV has it in its contrib modules alone, and the WebUI has OpenCV without them; the two cannot lie in one environment.
"""

from __future__ import annotations

import cv2
import numpy as np

from easyphoto.records import Floats

_FLAT = 1e-6
"""Determinant of the guide's covariances in a window, below which it counts as flat."""


def guided_filter(guide: Floats, source: Floats, radius: int, smoothness: float) -> Floats:
    """`source` smoothed within windows, but not across the edges of `guide`.

    Args:
        guide: (height, width, 3) float32, 0-1.
        source: (height, width) or (height, width, channels) float32.
        radius: Windows are 2 * radius + 1 px wide.
        smoothness: Edges whose variance in the guide is well below this are smoothed away.
    """
    if hasattr(cv2, "ximgproc"):
        return np.asarray(cv2.ximgproc.guidedFilter(guide, source, radius, smoothness), np.float32)
    return guided_filter_plain(guide, source, radius, smoothness)


def guided_filter_plain(guide: Floats, source: Floats, radius: int, smoothness: float) -> Floats:
    """`guided_filter` with nothing but box means."""
    if source.ndim == 3:
        channels = [guided_filter_plain(guide, part, radius, smoothness) for part in np.moveaxis(source, 2, 0)]
        return np.stack(channels, axis=2)
    mean_guide, mean_source = _mean(guide, radius), _mean(source, radius)
    products = guide[..., :, None] * guide[..., None, :]
    spread = _mean(products.reshape(*guide.shape[:2], 9), radius).reshape(products.shape)
    spread = spread - mean_guide[..., :, None] * mean_guide[..., None, :] + smoothness * np.eye(3, dtype=np.float32)
    shared = _mean(guide * source[..., None], radius) - mean_guide * mean_source[..., None]
    slope = np.linalg.solve(spread.astype(np.float64), shared[..., None].astype(np.float64))[..., 0].astype(np.float32)
    # As OpenCV does: where the guide is flat, no line is fitted to its noise.
    slope[np.linalg.det(spread.astype(np.float64)) < _FLAT] = 0
    offset = mean_source - (slope * mean_guide).sum(axis=2)
    return np.asarray((_mean(slope, radius) * guide).sum(axis=2) + _mean(offset, radius), np.float32)


def _mean(values: Floats, radius: int) -> Floats:
    """The mean over each window; the picture goes on as its mirror image."""
    planes = np.atleast_3d(np.ascontiguousarray(values))
    side = 2 * radius + 1
    parts = [np.ascontiguousarray(part) for part in np.moveaxis(planes, 2, 0)]
    means = [cv2.blur(part, (side, side), borderType=cv2.BORDER_REFLECT) for part in parts]
    return np.asarray(np.stack(means, axis=2).reshape(values.shape), np.float32)
