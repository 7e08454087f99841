"""Makeup from one face to another: lips, eye shadow and cheeks, each by its colour.

After Guo & Sim, "Digital Face Makeup by Example" (CVPR 2009), which also goes region by region in Lab; here a region's mean and
spread are matched (Reinhard et al. 2001, section 3) instead of its pixels, so that no light and no wrinkle of the example comes
along. Makeup is what makes a region differ from the skin of its own face, so a pale and a dark skin can wear the same one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from easyphoto.imaging import color, masks, mesh
from easyphoto.imaging.skin import unlike_skin
from easyphoto.records import Face, Floats, Pixels

_RIGHT_CHEEK, _LEFT_CHEEK = (50, 205), (280, 425)
"""Mesh points between which blusher is laid."""
_CONTRAST = (0.7, 1.4)
"""Range of the contrast ratio: lips are neither made flat nor spotted."""
_LEAST_WIDTH = 40.0
"""Of a face in px; below it a region has too few pixels to have a colour."""
_LEAST_PIXELS = 12.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Region:
    """Where one kind of makeup is worn, and how it is carried over."""

    area: Floats
    """(height, width) 0-1: what is measured, and changed."""
    light: float
    """Share of the difference in lightness: blusher colours, a lipstick also darkens."""
    spread: bool = False
    """Whether the contrast is matched too."""


def transfer_makeup(picture: Pixels, face: Face, example: Pixels, example_face: Face, share: float) -> Pixels:
    """`picture` with the makeup that `example` wears.

    Args:
        picture: (height, width, 3) RGB.
        face: Where its face is.
        example: (height, width, 3) RGB, any size.
        example_face: Where its face is.
        share: How much of the makeup, 0-1; 0 gives the picture back bit for bit.

    Returns:
        RGB of the picture's size, changed at lips, eyelids and cheeks alone; the picture itself where a face has no mesh or is
        too small.
    """
    if share <= 0 or any(one.mesh is None or masks.face_width(one) < _LEAST_WIDTH for one in (face, example_face)):
        return picture
    here, there = color.to_lab(picture), color.to_lab(example)
    skin, example_skin = _skin(picture, here, face), _skin(example, there, example_face)
    changed = np.zeros_like(here)
    for own, shown in zip(_regions(face, here.shape[:2]), _regions(example_face, there.shape[:2])):
        if min(float(own.area.sum()), float(shown.area.sum())) < _LEAST_PIXELS:
            continue
        changed += own.area[..., None] * _change(here, own, skin, _look(there, shown, example_skin))
    touched = (np.abs(changed).max(axis=2) > 0)[..., None]
    return np.where(touched, color.from_lab(here + share * changed), picture)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Look:
    """What a region looks like beside its own skin."""

    away: Floats
    """(3,) Lab, the region's mean less the skin's."""
    spread: Floats
    """(3,) Lab."""


def _look(lab: Floats, region: _Region, skin: Floats) -> _Look:
    mean, spread = color.lab_statistics(lab, region.area)
    return _Look(away=mean - skin, spread=spread)


def _change(lab: Floats, region: _Region, skin: Floats, wanted: _Look) -> Floats:
    """(height, width, 3) what is to be added so that the region looks as wanted."""
    own = _look(lab, region, skin)
    shift = wanted.away - own.away
    shift[0] *= region.light
    if not region.spread:
        return np.broadcast_to(shift, lab.shape)
    gain = np.clip((wanted.spread + 1e-3) / (own.spread + 1e-3), *_CONTRAST)
    return np.asarray((lab - skin - own.away) * (gain - 1) + shift, np.float32)


def _skin(pixels: Pixels, lab: Floats, face: Face) -> Floats:
    """(3,) Lab of the face's bare skin: without lips, lids and cheeks."""
    shape = lab.shape[:2]
    bare = masks.skin_mask(face, shape) * (1 - unlike_skin(pixels, face))
    for region in _regions(face, shape):
        bare = bare * (1 - region.area)
    mean, _ = color.lab_statistics(lab, bare)
    return mean


def _regions(face: Face, shape: tuple[int, ...]) -> tuple[_Region, ...]:
    """Lips, eye shadow, cheeks, softly edged; in this order for every face."""
    width = masks.face_width(face)
    lips = masks.mouth_mask(face, shape, 0.0) * (1 - masks.polygon_mask(masks.mesh_of(face)[list(mesh.LIPS_INNER)], shape))
    return (
        _Region(area=masks.feather(lips, 0.02 * width), light=0.7, spread=True),
        _Region(area=_lids(face, shape, width), light=0.5),
        _Region(area=_cheeks(face, shape, width), light=0.2),
    )


def _lids(face: Face, shape: tuple[int, ...], width: float) -> Floats:
    """What lies between eye and brow, and a little below the eye; not the eye, not the lashes, not the brow."""
    around = masks.eyes_mask(face, shape, 0.085)
    bare = np.asarray(1 - np.maximum(masks.eyes_mask(face, shape, 0.008), masks.brows_mask(face, shape, 0.005)), np.float32)
    return masks.feather(around, 0.03 * width) * masks.feather(bare, 0.012 * width) * bare


def _cheeks(face: Face, shape: tuple[int, ...], width: float) -> Floats:
    """Two soft ovals on the cheekbones, within the face's skin."""
    points = masks.mesh_of(face)
    blank = np.zeros(shape, np.float32)
    for cheek in (_RIGHT_CHEEK, _LEFT_CHEEK):
        x, y = points[list(cheek)].mean(axis=0)
        axes = max(1, round(0.11 * width)), max(1, round(0.08 * width))
        cv2.ellipse(blank, (round(float(x)), round(float(y))), axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    soft = masks.feather(blank, 0.09 * width)
    return soft * masks.feather_inside(masks.skin_mask(face, shape), 0.03 * width)
