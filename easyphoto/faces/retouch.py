"""Evens skin and keeps it skin: blemishes and blotches fade, pores and edges stay."""

from __future__ import annotations

import cv2
import numpy as np

from easyphoto.imaging import masks
from easyphoto.imaging.blend import alpha_blend
from easyphoto.imaging.guided import guided_filter
from easyphoto.records import Face, Photo

_LEAST_WIDTH = 60.0
"""A face narrower than this many px has no texture to even."""
_TEXTURE = 0.006
"""Pores and stubble are finer than this share of the face's width; they are kept whole."""
_BLEMISH = 0.06
"""Blemishes and blotches are finer than this share; what is coarser is the face's form and light."""
_EDGE = 0.04
"""Smoothness of the guided filter for values of 0-1: steps above about its square root (0.2) are edges and stay."""


class ClassicalRetoucher:
    """Frequency separation in the skin of the face mesh.

    The picture is split in three: form (guided filter, He, Sun & Tang 2010, which keeps edges), blemishes (what lies
    between form and a fine blur) and texture (what is finer). Only the middle one is turned down.
    """

    name = "classical"

    def retouch(self, photo: Photo, face: Face, strength: float = 0.5) -> Photo:
        """The photo with evener skin, same size; `strength` 0 keeps it, 1 takes the middle band out whole."""
        width = masks.face_width(face)
        if strength <= 0 or face.mesh is None or width < _LEAST_WIDTH:
            return photo
        picture = photo.pixels.astype(np.float32) / 255
        fine = cv2.GaussianBlur(picture, (0, 0), max(0.6, _TEXTURE * width))
        form = guided_filter(fine, fine, max(2, round(_BLEMISH * width)), _EDGE)
        evened = picture - min(strength, 1.0) * (fine - form)
        skin = masks.feather_inside(masks.skin_mask(face, picture.shape[:2]), 0.03 * width)
        pixels = np.clip(np.rint(evened * 255), 0, 255).astype(np.uint8)
        return Photo(pixels=alpha_blend(photo.pixels, pixels, skin), name=photo.name)
