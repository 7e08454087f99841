"""Which errors count more: those on the face of each training crop, and those at some noise levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from easyphoto.imaging import geometry, masks
from easyphoto.records import Face, Floats, PreparedPhoto

if TYPE_CHECKING:
    from torch import Tensor

_CELL = 8
"""Pixels along one side of a latent cell."""


def face_of(photo: PreparedPhoto) -> Floats:
    """(height, width) 0-1 of the photo's crop: 1 on the face; its box where no mesh fits; 1 all over where there is no face."""
    shape, face = photo.crop.pixels.shape[:2], photo.face
    if face is None:
        return np.ones(shape, np.float32)
    return masks.polygon_mask(_corners(face), shape) if face.mesh is None else masks.face_mask(face, shape)


def cell_weights(face: Floats, matrix: geometry.Matrix, side: int, weight: float) -> Floats:
    """(side / 8, side / 8) weights whose mean is one, so that learning rates keep their meaning.

    Args:
        face: (height, width) 0-1 mask of the photo.
        matrix: (2, 3), from the photo to the training crop.
        side: Of the crop in px.
        weight: Of a cell that is all face; one that shows none of it has 1 before the mean is taken out.
    """
    moved = np.clip(geometry.warp(face, matrix, (side, side), border=geometry.REPLICATE), 0, 1)
    pooled = moved.reshape(side // _CELL, _CELL, side // _CELL, _CELL).mean((1, 3))
    weights = 1 + (weight - 1) * pooled
    return np.asarray(weights / weights.mean(), np.float32)


def snr_weights(kept: Tensor, gamma: float, velocity: bool) -> Tensor:
    """Min-SNR weights (arXiv 2303.09556, section 3.4).

    Args:
        kept: (batch,) share of the picture in the noisy one, the product of all alphas.
        gamma: The signal-to-noise ratio from which on all levels count alike.
        velocity: The network predicts velocity instead of noise.
    """
    ratio = kept / (1 - kept)
    clipped = ratio.clamp(max=gamma)
    return clipped / (ratio + 1) if velocity else clipped / ratio


def _corners(face: Face) -> Floats:
    box = face.box
    return np.array([(box.left, box.top), (box.right, box.top), (box.right, box.bottom), (box.left, box.bottom)], np.float32)
