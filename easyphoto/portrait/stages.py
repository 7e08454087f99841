"""The two diffusion passes of one face, as jobs for an engine."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from easyphoto.imaging import conditions, masks
from easyphoto.imaging.skin import unlike_skin
from easyphoto.portrait.plan import Scene
from easyphoto.portrait.pose import pose_map
from easyphoto.records import Condition, ConditionKind, Face, Floats, InpaintJob, LoraUse, Pixels
from easyphoto.specs import PassSettings

_FACE_REACH = 0.05
"""The first pass paints this share of the face's width beyond the mesh whatever is there."""
_RING = 0.07
"""The second pass paints this share of the face's width to either side of the face's edge."""
_SOFT = 0.012
"""The edge of what a pass paints fades over this share of the crop's side."""
_FADE = 0.04
"""The edge of what is pasted back fades over this share of the crop's side."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What both passes are told, besides pictures."""

    prompt: str
    negative: str
    guidance: float
    loras: tuple[LoraUse, ...]
    seed: int


def first_job(scene: Scene, hold: Pixels, pose: Pixels, words: Words, settings: PassSettings) -> InpaintJob:
    """The first pass: the whole face anew at the first size, held by edges and colours of `hold` and by the pose.

    Args:
        scene: Where.
        hold: (second size, second size, 3) RGB, the crop with the person's face fused in: it is painted over, and gives
            the maps for canny, colour and tile.
        pose: (first size, first size, 3) RGB OpenPose map.
        words: Prompts, LoRA, seed.
        settings: Strength, steps and ControlNet weights.
    """
    side = scene.first_size
    return _job(resize(hold, side), resize_mask(_softened(face_region(scene)), side), pose, words, settings)


def second_job(scene: Scene, picture: Pixels, words: Words, settings: PassSettings) -> InpaintJob:
    """The second pass: mouth, eyes and the ring around the face anew at the crop's own, larger size.

    Args:
        scene: Where.
        picture: (second size, second size, 3) RGB, the first pass's crop; painted over, and gives the maps.
        words: Prompts, LoRA, seed.
        settings: Strength, steps and ControlNet weights; an openpose net is given the template's own pose.
    """
    pose = pose_map(scene.crop, scene.crop.face, picture.shape[0])
    return _job(picture, _softened(detail_region(scene)), pose, words, settings)


def face_region(scene: Scene) -> Floats:
    """(second size, second size) 0-1: the face to the ears and the hairline, without the picture's other faces."""
    face, shape = scene.crop.face, _shape(scene)
    if face.mesh is None:
        return _ellipse(face, shape) * _free(scene)
    # Beyond the mesh only skin is painted: hair over ears and forehead is the template's.
    skin = 1 - masks.feather(unlike_skin(scene.crop.photo.pixels, face), 0.02 * masks.face_width(face))
    region = np.maximum(masks.face_mask(face, shape, _FACE_REACH), masks.face_mask_to_ears(face, shape) * skin)
    return np.asarray(region * _free(scene), np.float32)


def detail_region(scene: Scene) -> Floats:
    """(second size, second size) 0-1: mouth, eyes, and the ring around the first pass's region."""
    face, shape = scene.crop.face, _shape(scene)
    region = masks.ring_mask(face_region(scene), face, _RING, _RING)
    if face.mesh is not None:
        region = np.maximum.reduce([region, masks.mouth_mask(face, shape, 0.04), masks.eyes_mask(face, shape, 0.05)])
    return region * _free(scene)


def final_region(scene: Scene) -> Floats:
    """(second size, second size) 0-1: what of the crop is brought back into the picture, softly edged, 0 at its border."""
    region = np.maximum(face_region(scene), detail_region(scene))
    side = region.shape[0]
    border = max(2, round(_FADE * side))
    region[:border] = region[-border:] = 0
    region[:, :border] = region[:, -border:] = 0
    return masks.feather_inside(region, _FADE * side)


def resize(pixels: Pixels, side: int) -> Pixels:
    """A square picture at another size: areas averaged when it shrinks, Lanczos when it grows."""
    if pixels.shape[0] == side:
        return pixels
    how = cv2.INTER_AREA if side < pixels.shape[0] else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=how), np.uint8)


def resize_mask(mask: Floats, side: int) -> Floats:
    """A square mask at another size."""
    how = cv2.INTER_AREA if side < mask.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(mask, (side, side), interpolation=how), np.float32)


def _softened(region: Floats) -> Floats:
    """A mask whose edge fades, so that what an engine paints meets the kept picture without a line."""
    return masks.feather_inside(region, _SOFT * region.shape[0])


def _job(image: Pixels, mask: Floats, pose: Pixels, words: Words, settings: PassSettings) -> InpaintJob:
    return InpaintJob(
        image=image, mask=mask, prompt=words.prompt, negative=words.negative, strength=settings.strength, steps=settings.steps,
        guidance=words.guidance, conditions=_conditions(image, pose, settings), loras=words.loras, seed=words.seed,
    )  # fmt: skip


def _conditions(image: Pixels, pose: Pixels, settings: PassSettings) -> tuple[Condition, ...]:
    named = [(ConditionKind(name), weight) for name, weight in settings.weights if weight > 0]
    return tuple(Condition(kind=kind, image=_draw(kind, image, pose), weight=weight) for kind, weight in named)


def _draw(kind: ConditionKind, image: Pixels, pose: Pixels) -> Pixels:
    if kind is ConditionKind.CANNY:
        return conditions.canny_map(image)
    if kind is ConditionKind.COLOR:
        return conditions.color_grid(image)
    if kind is ConditionKind.TILE:
        return conditions.tile_map(image)
    return pose


def _shape(scene: Scene) -> tuple[int, int]:
    return scene.crop.photo.height, scene.crop.photo.width


def _outline(face: Face, shape: tuple[int, int]) -> Floats:
    return _ellipse(face, shape) if face.mesh is None else masks.face_mask_to_ears(face, shape)


def _free(scene: Scene) -> Floats:
    """1 where no other face of the picture is."""
    shape = _shape(scene)
    taken = [np.zeros(shape, np.float32), *(_outline(other, shape) for other in scene.others)]
    return np.asarray(1 - np.maximum.reduce(taken), np.float32)


def _ellipse(face: Face, shape: tuple[int, int]) -> Floats:
    canvas = np.zeros(shape, np.float32)
    x, y = face.box.center
    axes = round(face.box.width * 0.6), round(face.box.height * 0.65)
    return np.asarray(cv2.ellipse(canvas, (round(x), round(y)), axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA), np.float32)
