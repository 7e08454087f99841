"""The two diffusion passes of one face, as jobs for an engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from easyphoto.imaging import conditions, masks
from easyphoto.imaging.blend import alpha_blend
from easyphoto.imaging.skin import unlike_skin
from easyphoto.portrait.plan import Scene
from easyphoto.portrait.pose import pose_map
from easyphoto.records import Condition, ConditionKind, Face, Floats, ImagePrompt, InpaintJob, LoraUse, Pixels
from easyphoto.specs import PassSettings

_FACE_REACH = 0.05
"""The first pass paints this share of the face's width beyond the mesh whatever is there."""
_RING = 0.07
"""The second pass paints this share of the face's width to either side of the face's edge."""
_SOFT = 0.012
"""The edge of what a pass paints fades over this share of the crop's side."""
_SHAPE_EDGE = 0.06
"""The edge of a face that was painted with its surroundings fades over this share of its width."""
_FADE = 0.04
"""The edge of what is pasted back fades over this share of the crop's side."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What both passes are told, besides what they see of the scene."""

    prompt: str
    negative: str
    guidance: float
    loras: tuple[LoraUse, ...]
    seed: int
    lcm: bool = False
    likeness: ImagePrompt | None = None
    """The person's face, for the ID control."""


def first_job(
    scene: Scene, hold: Pixels, pose: Pixels, words: Words, settings: PassSettings, whole: bool = False
) -> InpaintJob:
    """The first pass: the whole face anew at the first size, held by edges and colours of `hold` and by the pose.

    Args:
        scene: Where.
        hold: (second size, second size, 3) RGB, the crop with the person's face fused in: it is painted over, and gives
            the maps for canny, colour and tile.
        pose: (first size, first size, 3) RGB OpenPose map.
        words: Prompts, LoRA, seed.
        settings: Strength, steps and ControlNet weights.
        whole: Paint the whole crop but other people's faces, not held by colours: see `match_shape`.
    """
    side = scene.first_size
    region = _free(scene) if whole else _softened(face_region(scene))
    if whole:
        settings = replace(settings, weights=tuple(pair for pair in settings.weights if pair[0] != ConditionKind.COLOR.value))
    return _job(resize(hold, side), resize_mask(region, side), pose, words, settings)


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


def picture_job(picture: Pixels, mask: Floats, words: Words, settings: PassSettings) -> InpaintJob:
    """A pass over a whole picture.

    Args:
        picture: (height, width, 3) RGB, sides multiples of 8; painted over, and gives the maps.
        mask: (height, width) 0-1.
        words: Prompts, LoRAs, seed.
        settings: Strength, steps and ControlNet weights, none of them openpose.
    """
    return _job(picture, mask, np.zeros_like(picture), words, settings)


def match_shape(scene: Scene, hold: Pixels, painted: Pixels, found: Face | None) -> tuple[Scene, Pixels]:
    """Face and ears of a crop that was painted whole, laid softly over what was held.

    Args:
        scene: Where, with the person's face.
        hold: (second size, second size, 3) RGB, what was painted over.
        painted: (second size, second size, 3) RGB, the whole crop anew.
        found: The face in `painted`; None where none was found.

    Returns:
        The scene, whose region from now on takes in the painted face's own outline and face, and the crop.
    """
    if found is not None and found.mesh is not None:
        own = _face_and_skin(found, painted)
        scene = replace(scene, crop=replace(scene.crop, face=found), reach=np.maximum(own, face_region(scene)))
    region = masks.feather_inside(face_region(scene), _SHAPE_EDGE * masks.face_width(scene.crop.face))
    return scene, alpha_blend(hold, painted, region)


def face_region(scene: Scene) -> Floats:
    """(second size, second size) 0-1: the face to the ears and the hairline, without the picture's other faces."""
    face, shape = scene.crop.face, _shape(scene)
    if scene.reach is not None:
        return np.asarray(scene.reach * _free(scene), np.float32)
    if face.mesh is None:
        return _ellipse(face, shape) * _free(scene)
    return np.asarray(_face_and_skin(face, scene.crop.photo.pixels) * _free(scene), np.float32)


def _face_and_skin(face: Face, pixels: Pixels) -> Floats:
    """(height, width) 0-1: a face, and beyond its mesh only skin: hair over ears and forehead is somebody else's."""
    shape = pixels.shape[:2]
    skin = 1 - masks.feather(unlike_skin(pixels, face), 0.02 * masks.face_width(face))
    return np.maximum(masks.face_mask(face, shape, _FACE_REACH), masks.face_mask_to_ears(face, shape) * skin)


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
        lcm=words.lcm, likeness=words.likeness,
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


def outline(face: Face, shape: tuple[int, int]) -> Floats:
    """(height, width) 0-1: a face to ears and hairline; an ellipse where it has no mesh."""
    return _ellipse(face, shape) if face.mesh is None else masks.face_mask_to_ears(face, shape)


def _free(scene: Scene) -> Floats:
    """1 where no other face of the picture is."""
    shape = _shape(scene)
    taken = [np.zeros(shape, np.float32), *(outline(other, shape) for other in scene.others)]
    return np.asarray(1 - np.maximum.reduce(taken), np.float32)


def _ellipse(face: Face, shape: tuple[int, int]) -> Floats:
    canvas = np.zeros(shape, np.float32)
    x, y = face.box.center
    axes = round(face.box.width * 0.6), round(face.box.height * 0.65)
    return np.asarray(cv2.ellipse(canvas, (round(x), round(y)), axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA), np.float32)
