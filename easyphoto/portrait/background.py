"""One more pass over everything but the heads, so that a picture looks made in one go."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from easyphoto.engine.base import Engine, StepListener
from easyphoto.families import PROFILES
from easyphoto.imaging import masks
from easyphoto.imaging.blend import alpha_blend
from easyphoto.portrait import stages
from easyphoto.portrait.plan import PortraitPlan
from easyphoto.records import Face, Floats, Pixels

_HEAD = 0.25
"""A head reaches this share of the face's width beyond the face: hair belongs to it."""
_SOFT = 0.12
"""Shares of the face's width over which the new background fades in around a head."""
_CELLS = 8
"""Sides of the working picture are multiples of it."""


def restore(
    plan: PortraitPlan, picture: Pixels, faces: Sequence[Face], engine: Engine, seed: int, on_step: StepListener
) -> tuple[Pixels, Floats]:
    """The picture with everything but its heads painted anew, held by edges and colours.

    Args:
        plan: With strength, ControlNets and words for it.
        picture: (height, width, 3) RGB, faces finished.
        faces: All faces of the template.
        engine: Paints.
        seed: Of the noise.
        on_step: Told of each step.

    Returns:
        The picture, in its own size, and the (height, width) 0-1 mask of what was painted, exactly 0 on the heads.
    """
    if plan.background is None:
        return picture, np.zeros(picture.shape[:2], np.float32)
    mask = outside_heads(faces, picture.shape[:2])
    size = working_size(picture.shape[:2], PROFILES[plan.family].second_size)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    small_mask = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    words = stages.Words(
        prompt=plan.background_prompt, negative=plan.negative, guidance=plan.guidance, loras=plan.request.loras, seed=seed,
        lcm=plan.request.lcm,
    )
    painted = engine.inpaint(stages.picture_job(small, small_mask, words, plan.background), on_step)
    return alpha_blend(picture, _at_full_size(picture, small, painted), mask), mask


def outside_heads(faces: Sequence[Face], shape: tuple[int, ...]) -> Floats:
    """(height, width) 0-1: 0 on every head, 1 away from them, softly edged towards the outside alone."""
    away = np.ones((shape[0], shape[1]), np.float32)
    for face in faces:
        width = masks.face_width(face)
        head = masks.dilate((stages.outline(face, (shape[0], shape[1])) > 0).astype(np.float32), _HEAD * width)
        away = np.minimum(away, masks.feather_inside(1 - head, _SOFT * width))
    return away


def working_size(shape: tuple[int, ...], shorter: int) -> tuple[int, int]:
    """(width, height) to paint at: the shorter side as the family likes it, or the picture's own where that is less."""
    zoom = min(1.0, shorter / min(shape[0], shape[1]))
    return max(_CELLS, round(shape[1] * zoom / _CELLS) * _CELLS), max(_CELLS, round(shape[0] * zoom / _CELLS) * _CELLS)


def _at_full_size(picture: Pixels, small: Pixels, painted: Pixels) -> Pixels:
    """What was painted, at the picture's size, with the picture's own detail that is too fine for the working size."""
    size = picture.shape[1], picture.shape[0]
    large = cv2.resize(painted, size, interpolation=cv2.INTER_LANCZOS4)
    if (painted.shape[1], painted.shape[0]) == size:
        return painted
    fine = picture.astype(np.float32) - cv2.resize(small, size, interpolation=cv2.INTER_LANCZOS4)
    return np.asarray(np.clip(np.rint(large + fine), 0, 255), np.uint8)
