"""Tells the person from the background."""

from __future__ import annotations

import numpy as np

from easyphoto.faces.graphs import SelfieGraph, is_installed
from easyphoto.imaging.guided import guided_filter
from easyphoto.records import Floats, Photo

__all__ = ["MediaPipeSegmenter", "is_installed"]

_GUIDE_SHARE = 0.012
"""Radius of the edge refinement, as a share of the picture's longer side; the model's own grid is 1/256 of it."""
_GUIDE_SMOOTHNESS = 1e-3
_LOW, _HIGH = 0.25, 0.85
"""What the model is this sure of, either way, is background or person for good."""


class MediaPipeSegmenter:
    """Selfie segmentation at 256 px, its edge fitted to the picture's by a guided filter (He, Sun & Tang 2010)."""

    name = "mediapipe"

    def __init__(self) -> None:
        self._graph = SelfieGraph()

    def person_mask(self, photo: Photo) -> Floats:
        """(height, width) float32 0-1: how much of each pixel is the person."""
        rough = self._graph.run(photo.pixels)
        radius = max(2, round(_GUIDE_SHARE * max(rough.shape)))
        guide = photo.pixels.astype(np.float32) / 255
        fine = guided_filter(guide, rough, radius, _GUIDE_SMOOTHNESS)
        return np.asarray(np.clip((fine - _LOW) / (_HIGH - _LOW), 0, 1), np.float32)

    def close(self) -> None:
        """Free the model."""
        self._graph.close()
