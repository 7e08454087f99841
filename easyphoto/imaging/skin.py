"""What in a face is its skin, told from the face itself: no model, no fixed skin colour."""

from __future__ import annotations

import cv2
import numpy as np

from easyphoto.imaging import color, masks, mesh
from easyphoto.records import Face, Floats, Pixels

_SKIN_TO_OTHER = (9.0, 18.0)
"""Delta E from the face's own skin between which a pixel goes over from skin to something else."""
_DARKER, _BRIGHTER = 0.6, 0.2
"""Weight of a lightness difference: shadow and shine are skin too, shine even more so."""


def unlike_skin(pixels: Pixels, face: Face, seen: Floats | None = None) -> Floats:
    """How unlike the face's own skin each pixel is: 0 skin, 1 hair, cloth, a hand's shadow, background.

    The skin's colour is the median of cheeks and nose in Lab; brows, eyes and lips are of course unlike it.

    Args:
        pixels: (height, width, 3) RGB.
        face: Where the face is, with mesh.
        seen: (height, width) 0-1, which pixels are real; all of them where None.

    Returns:
        (height, width) float32 0-1; all 0 where too little skin is seen to know its colour.
    """
    shape = pixels.shape[:2]
    lab = cv2.GaussianBlur(color.to_lab(pixels), (0, 0), max(0.5, 0.012 * masks.face_width(face)))
    surely = masks.skin_mask(face, shape) * below_brows(face, shape) * (1.0 if seen is None else seen)
    sample = surely > 0.9
    if sample.sum() < 20:
        return np.zeros(shape, np.float32)
    away = lab - np.median(lab[sample], axis=0)
    light = np.where(away[..., 0] < 0, _DARKER, _BRIGHTER) * away[..., 0]
    unlike = np.sqrt(light**2 + away[..., 1] ** 2 + away[..., 2] ** 2)
    low, high = _SKIN_TO_OTHER
    return np.asarray(np.clip((unlike - low) / (high - low), 0, 1), np.float32)


def below_brows(face: Face, shape: tuple[int, ...]) -> Floats:
    """(height, width) 0-1: 1 below the brows' upper edge along the face's own axis, 0 above, soft between."""
    points = masks.mesh_of(face)
    across = points[mesh.LEFT_EYE_OUTER] - points[mesh.RIGHT_EYE_OUTER]
    span = float(np.linalg.norm(across)) + 1e-6
    down = np.array([-across[1], across[0]]) / span
    level = float((points[[*mesh.RIGHT_BROW, *mesh.LEFT_BROW]] @ down).min())
    y, x = np.mgrid[: shape[0], : shape[1]]
    depth = (x + 0.5) * down[0] + (y + 0.5) * down[1] - level
    return np.asarray(np.clip(depth / (0.06 * span) + 1, 0, 1), np.float32)
