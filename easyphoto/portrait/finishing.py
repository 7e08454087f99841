"""What follows the two passes: the template's tone, the way back into the template, and its grain."""

from __future__ import annotations

import cv2
import numpy as np

from easyphoto.faces.base import Retoucher
from easyphoto.imaging import color, masks
from easyphoto.imaging.blend import alpha_blend, paste_back
from easyphoto.imaging.geometry import move_face
from easyphoto.imaging.skin import unlike_skin
from easyphoto.portrait.plan import Scene
from easyphoto.portrait.stages import face_region, final_region
from easyphoto.records import Face, Floats, Photo, Pixels

_EDGE = 0.06
"""The colour transfer fades out over this share of the face's width."""
_CONTRAST = (0.8, 1.25)
"""Range of the contrast ratio: a face is not made flat or hard to follow a shadow that lay on the template's."""
_LEVEL_REACH, _LEVEL_BLUR = 0.3, 0.1
"""Shares of the face's width: how far in from its edge the face takes on the light around it, and over what distance that
light is averaged."""
_SAME, _OTHER = 3.0, 8.0
"""Delta E between which, beyond the face's outline, a pixel goes over from the template's to the painted one."""
_COARSE = 0.02
"""Blur in crop sides at which both are compared: what differs only in finer detail is the same hair or wall."""
_GRAIN = 0.007
"""Grain is what is finer than this share of the face's width."""
_GRAIN_LIMIT = 2.5
"""Grain is cut off at so many times its own spread: beyond are hairs and creases of the template's own face."""


def match_tone(scene: Scene, picture: Pixels) -> Pixels:
    """The painted crop with the light and colour that the template's own face had.

    Lab means and spreads are measured on the skin and applied to the whole face (Reinhard et al. 2001, section 3), so that
    no border shows around eyes and lips.
    """
    face, shape = scene.crop.face, (picture.shape[0], picture.shape[1])
    # Not out to the ears: hair and background there have a tone of their own.
    region = face_region(scene)
    if face.mesh is not None:
        region = np.minimum(region, masks.face_mask(face, shape, _EDGE))
    skin = region if face.mesh is None else masks.skin_mask(face, shape)
    lab = color.to_lab(picture)
    mean, spread = color.lab_statistics(lab, skin)
    wanted_mean, wanted_spread = color.lab_statistics(color.to_lab(scene.crop.photo.pixels), skin)
    gain = np.clip((wanted_spread + 1e-3) / (spread + 1e-3), *_CONTRAST)
    toned = color.from_lab((lab - mean) * gain + wanted_mean)
    return alpha_blend(picture, toned, masks.feather_inside(region, _EDGE * masks.face_width(face)))


def paste(scene: Scene, picture: Pixels) -> tuple[Pixels, Floats]:
    """The finished crop back in its picture.

    Args:
        scene: Where, with the person's face.
        picture: (second size, second size, 3) RGB, the finished crop.

    Returns:
        The whole picture, and the (height, width) mask in steps of 1/255 that says what of it was changed.
    """
    region = final_region(scene)
    mask = region * _worth_taking(scene, picture)
    pasted, changed = paste_back(scene.picture.pixels, _levelled(scene, picture, region), scene.crop.matrix, mask)
    return _regrained(scene, pasted, changed), changed


def retouched(picture: Pixels, face: Face, changed: Floats, strength: float, retoucher: Retoucher) -> Pixels:
    """The picture with the skin of a finished face evened, as far as that was painted.

    Args:
        picture: (height, width, 3) RGB.
        face: Where in it, with mesh.
        changed: (height, width) 0-1, from `paste`: where it is 0, nothing is touched.
        strength: 0 gives the picture back bit for bit.
        retoucher: Evens skin.
    """
    if strength <= 0:
        return picture
    evened = retoucher.retouch(Photo(pixels=picture, name="portrait"), face, strength)
    return alpha_blend(picture, evened.pixels, changed)


def _levelled(scene: Scene, picture: Pixels, region: Floats) -> Pixels:
    """The crop with the template's own light near the region's edge, fading out towards the middle of the face.

    One tone for the whole face (`match_tone`) leaves a lit cheek beside a shaded neck. What is skin in both pictures tells
    how their light differs there; hair that was painted over, or a wall, tells nothing.
    """
    face = scene.crop.face
    if face.mesh is None:
        return picture
    width = masks.face_width(face)
    painted = (region > 0).astype(np.float32)
    inner = masks.erode(painted, _LEVEL_REACH * width)
    skin = (1 - unlike_skin(scene.crop.photo.pixels, face)) * (1 - unlike_skin(picture, face))
    weight = np.asarray((masks.dilate(painted, 0.02 * width) - inner) * np.maximum(skin, 1e-4), np.float32)
    here = color.to_lab(picture)
    light = color.spread((color.to_lab(scene.crop.photo.pixels) - here) * weight[..., None], weight, _LEVEL_BLUR * width)
    edge = 1 - masks.feather(inner, _LEVEL_REACH * width)
    return color.from_lab(here + edge[..., None] * light)


def _worth_taking(scene: Scene, picture: Pixels) -> Floats:
    """(side, side) 0-1: the face, and beyond its outline only what really came out otherwise.

    An autoencoder softens hair and walls that nobody wanted changed; there the template's own pixels are the better ones.
    """
    face, side = scene.crop.face, picture.shape[0]
    if face.mesh is None:
        return np.ones((side, side), np.float32)
    radius = _COARSE * side
    here, there = (cv2.GaussianBlur(color.to_lab(pixels), (0, 0), radius) for pixels in (picture, scene.crop.photo.pixels))
    differs = np.clip((np.linalg.norm(here - there, axis=2) - _SAME) / (_OTHER - _SAME), 0, 1)
    within = masks.feather(masks.face_mask(face, (side, side)), radius)
    return np.maximum(within, masks.feather(masks.dilate(differs.astype(np.float32), radius), radius))


def _regrained(scene: Scene, pasted: Pixels, changed: Floats) -> Pixels:
    """The pasted face with as much fine texture on its skin as the template's face had.

    The passes work at fewer pixels than most pictures have, so their skin is smoother than its surroundings; the grain that
    is missing (pores, noise) is taken from the template's own skin, in lightness alone.
    """
    face = move_face(scene.crop.face, scene.crop.inverse)
    if face.mesh is None or scene.face.mesh is None:
        return pasted
    rows, columns = _window(face, pasted.shape)
    shift = np.array([[1.0, 0, -columns.start], [0, 1, -rows.start]])
    ours, theirs = pasted[rows, columns], scene.picture.pixels[rows, columns]
    skin = _common_skin(theirs, move_face(face, shift), move_face(scene.face, shift)) * changed[rows, columns]
    sigma = max(0.7, _GRAIN * masks.face_width(face))
    wanted, there = _grain(theirs, sigma), _grain(ours, sigma)
    spread, has = _spread(wanted, skin), _spread(there, skin)
    missing = np.sqrt(max(0.0, 1 - (has / max(spread, 1e-3)) ** 2))
    grain = np.clip(wanted, -_GRAIN_LIMIT * spread, _GRAIN_LIMIT * spread) * missing * skin
    result = pasted.copy()
    finished = np.clip(np.rint(ours + grain[..., None]), 0, 255).astype(np.uint8)
    result[rows, columns] = np.where(changed[rows, columns, None] > 0, finished, ours)
    return result


def _window(face: Face, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """(rows, columns) of the face's box in whole px, inside the picture."""
    box = face.box
    top, bottom = max(0, int(box.top)), min(shape[0], int(box.bottom) + 1)
    left, right = max(0, int(box.left)), min(shape[1], int(box.right) + 1)
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def _common_skin(pixels: Pixels, ours: Face, theirs: Face) -> Floats:
    """(height, width) 0-1: what is skin in the finished face and was skin in the template's."""
    shape = pixels.shape[0], pixels.shape[1]
    both = np.minimum(masks.skin_mask(ours, shape), masks.skin_mask(theirs, shape)) * (1 - unlike_skin(pixels, theirs))
    return masks.feather_inside(both, 0.03 * masks.face_width(ours))


def _grain(pixels: Pixels, sigma: float) -> Floats:
    """(height, width) lightness finer than `sigma` px, in levels."""
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.float32)
    return np.asarray(grey - cv2.GaussianBlur(grey, (0, 0), sigma), np.float32)


def _spread(values: Floats, weight: Floats) -> float:
    """The weighted standard deviation around 0."""
    return float(np.sqrt((values**2 * weight).sum() / max(float(weight.sum()), 1e-6)))
