"""How good a face is to learn from: sharpness, turn and cover, each as one number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from easyphoto.imaging import color, geometry, masks, mesh
from easyphoto.imaging.head import head_turn
from easyphoto.imaging.skin import unlike_skin
from easyphoto.records import Face, Floats, Photo, Pixels

_SIDE = 112
"""Side in px at which every face is measured, so that scores compare between photos."""
_ROOM = 1.15
"""Side of the measured square in longer sides of the face."""
_WHOLE_SIDE = 512
"""Shorter side in px at which whole pictures are measured."""
_TILES = 4
_LEAST_EDGE = 10.0
"""Levels that the strongest edge of a part must have; a part without one, such as a sky, says nothing."""
_REBLUR = 9
"""Length in px of the blur that a sharp edge is compared with (Crete et al. 2007 take the same)."""


_MOST_HALF = 0.65
_MOST_AROUND_EYES = 0.5
_LEAST_EYE_DETAIL = 4.0
_LEAST_MOUTH_DETAIL = 3.0
"""What tells a covered face. Of 80 news photos and 180 portraits one goes past one of these, for a deep shadow on half of the
face. With a bar over the eyes, dark glasses, a mask, or a grey, white or black lower half or side painted onto
40 of them, every one does."""
_LEAST_HALF = 0.25
"""A half that is less than this share of the skin in sight is turned away, and says nothing."""


@dataclass(frozen=True, kw_only=True)
class Cover:
    """What hides a face, each number alone."""

    half: float
    """0-1: share of the skin of the left, right, upper or lower half, whichever is most, that does not look like skin."""
    around_eyes: float
    """0-1: the same of a ring around both eyes: high with sunglasses, and with a mask, whose colour passes for skin."""
    eye_detail: float
    """Spread of lightness (L, 0-100) in the flatter eye: an eye is never flat."""
    mouth_detail: float
    """Spread of lightness in the mouth."""

    @property
    def what(self) -> str:
        """Which part is hidden, as words; empty if the face is free."""
        if self.eye_detail < _LEAST_EYE_DETAIL:
            return "an eye"
        if self.mouth_detail < _LEAST_MOUTH_DETAIL:
            return "the mouth"
        if self.half > _MOST_HALF:
            return "half of the face"
        return "the part around the eyes" if self.around_eyes > _MOST_AROUND_EYES else ""


@dataclass(frozen=True, kw_only=True)
class FaceQuality:
    """What was measured on one face."""

    face_px: float
    """Longer side of the face box."""
    sharpness: float
    """0-1."""
    frontality: float
    """0-1; 0 where no mesh fits."""
    yaw: float
    pitch: float
    """Degrees, see `HeadTurn`; 90 where no mesh fits."""
    cover: Cover | None
    """None where no mesh fits."""


def face_quality(photo: Photo, face: Face) -> FaceQuality:
    """Measure one face."""
    crop = geometry.crop_square(photo, face, _ROOM, _SIDE, upright=True, border=geometry.REPLICATE)
    turn = head_turn(face)
    return FaceQuality(
        face_px=max(face.box.width, face.box.height),
        sharpness=sharpness(crop.photo, crop.face),
        frontality=turn.frontality if turn else 0.0,
        yaw=turn.yaw if turn else 90.0,
        pitch=turn.pitch if turn else 90.0,
        cover=_cover(crop.photo, crop.face) if face.mesh is not None else None,
    )


def sharpness(photo: Photo, face: Face) -> float:
    """1 - the no-reference blur of Crete et al. 2007 ("The blur effect", section 3), on the face alone.

    A sharp picture loses much of its differences between neighbours when it is blurred again, a blurred one hardly any.
    The worse of both directions counts, so that motion blur is found too.
    """
    grey = cv2.cvtColor(photo.pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    where = _inner(face, grey.shape) > 0.5
    return 1.0 - max(_blur(grey, where), _blur(grey.T, where.T))


def picture_sharpness(pixels: Pixels) -> float:
    """0-1: the same measure for a whole picture, at 512 px: that of its sharpest sixteenth that shows anything at all.

    A background out of focus is meant; a picture that is sharp nowhere is not.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, _WHOLE_SIDE / min(height, width))
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    size = max(_TILES, round(width * scale)), max(_TILES, round(height * scale))
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    tiles = [tile for row in np.array_split(grey, _TILES, axis=0) for tile in np.array_split(row, _TILES, axis=1)]
    edges = [min(float(np.abs(np.diff(each, axis=1)).max()) for each in (tile, tile.T)) for tile in tiles]
    shown = [tile for tile, edge in zip(tiles, edges) if edge >= _LEAST_EDGE]
    whole = [np.ones(tile.shape, np.bool_) for tile in shown]
    found = [1.0 - max(_blur(tile, where), _blur(tile.T, where.T)) for tile, where in zip(shown, whole)]
    return max(found, default=0.0)


def _blur(grey: Floats, where: NDArray[np.bool_]) -> float:
    """0-1 along the rows."""
    again = cv2.blur(grey, (_REBLUR, 1))
    before, after = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(again, axis=1))
    inside = where[:, 1:] & where[:, :-1]
    total = float(before[inside].sum())
    lost = float(np.maximum(0, before - after)[inside].sum())
    return (total - lost) / total if total > 0 else 1.0


def _inner(face: Face, shape: tuple[int, ...]) -> Floats:
    if face.mesh is not None:
        return masks.face_mask(face, shape)
    box = face.box
    corners = [(box.left, box.top), (box.right, box.top), (box.right, box.bottom), (box.left, box.bottom)]
    return masks.polygon_mask(np.array(corners, np.float32), shape)


def _cover(photo: Photo, face: Face) -> Cover:
    shape = photo.pixels.shape[:2]
    unlike, skin = unlike_skin(photo.pixels, face), masks.skin_mask(face, shape)
    lightness = color.to_lab(photo.pixels)[..., 0]
    nose = masks.mesh_of(face)[mesh.NOSE_TIP]
    y, x = np.mgrid[: shape[0], : shape[1]]
    halves = (x < nose[0], x >= nose[0], y < nose[1], y >= nose[1])
    around = masks.eyes_mask(face, shape, 0.09) - masks.eyes_mask(face, shape, 0.03)
    ring = np.clip(around - masks.brows_mask(face, shape, 0.03), 0, 1)
    eyes = [masks.outline_mask(face, shape, outline, 0.05) for outline in (mesh.RIGHT_EYE, mesh.LEFT_EYE)]
    return Cover(
        half=max(_mean(unlike, skin * half) for half in halves if (skin * half).sum() > _LEAST_HALF * skin.sum()),
        around_eyes=_mean(unlike, ring),
        eye_detail=min(_deviation(lightness, eye) for eye in eyes),
        mouth_detail=_deviation(lightness, masks.mouth_mask(face, shape)),
    )


def _mean(values: Floats, weight: Floats) -> float:
    total = float(weight.sum())
    return float((values * weight).sum()) / total if total > 1 else 0.0


def _deviation(values: Floats, weight: Floats) -> float:
    return math.sqrt(_mean((values - _mean(values, weight)) ** 2, weight))
