"""ID control: both passes held by a picture of the face too, through an IP-Adapter (arXiv 2308.06721)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from easyphoto.engine.base import Engine
from easyphoto.engine.webui_id import WANTED, refuse_without_file
from easyphoto.errors import PhotoError
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging import masks
from easyphoto.imaging.blend import alpha_blend
from easyphoto.imaging.geometry import crop_square
from easyphoto.imaging.skin import unlike_skin
from easyphoto.portrait.references import Materials, main_face
from easyphoto.records import ConditionKind, Face, ImagePrompt, Photo, Pixels
from easyphoto.specs import PassSettings, PortraitRequest

SIDE = 512
"""Px of the picture; CLIP sees 224 of it."""
_RATIO = 1.25
"""Side of the square in longer sides of the face box: forehead and ears are in it."""
_EDGE = 0.02
"""Share of the face's width over which the face fades into white."""


def check_id_control(request: PortraitRequest, engine: Engine) -> None:
    """Refuse the ID control where it cannot be had.

    Raises:
        ToolMissing: The base model's family has none, or a file is not here.
    """
    if request.id_control is None:
        return
    if engine.family not in WANTED:
        raise refuse_without_file(engine.family, "")
    engine.check_likeness()


def instead_of_tile(settings: PassSettings, request: PortraitRequest) -> PassSettings:
    """The second pass without tile, whose place the ID control takes; one that was asked for by name, or is alone, stays.

    Tile holds every colour and shade of what is painted over, which leaves an adapter nothing to say.
    """
    tile = ConditionKind.TILE.value
    kept = tuple(pair for pair in settings.weights if pair[0] != tile)
    named = request.second is not None and request.second.weights is not None
    return settings if request.id_control is None or named or not kept else replace(settings, weights=kept)


def with_id_prompt(person: Materials, request: PortraitRequest, tools: FaceTools) -> Materials:
    """A person's pictures, with what holds their passes where the ID control was asked for.

    Raises:
        PhotoError: The picture that was sent for it shows no face from the front.
    """
    if request.id_control is None:
        return person
    photo, face = person.reference, person.reference_face
    if request.id_picture is not None:
        photo, found = request.id_picture, main_face(request.id_picture, tools)
        if found is None or found.mesh is None:
            raise PhotoError(f"{photo.name}, for the ID control, shows no face from the front; choose another, or leave it out")
        face = found
    return replace(person, id_prompt=ImagePrompt(image=face_on_white(photo, face), weight=request.id_control.weight))


def face_on_white(photo: Photo, face: Face) -> Pixels:
    """(`SIDE`, `SIDE`, 3) RGB: the face, and skin out to its ears and hairline, eyes level, everything else white.

    Args:
        photo: Shows it.
        face: Where, with mesh.
    """
    crop = crop_square(photo, face, _RATIO, SIDE, upright=True)
    edge, shape = _EDGE * masks.face_width(crop.face), (SIDE, SIDE)
    # Beyond the mesh there may be hair, which an adapter would take for the person's for good.
    beyond = masks.face_mask_to_ears(crop.face, shape) * (1 - masks.feather(unlike_skin(crop.photo.pixels, crop.face), edge))
    region = masks.feather_inside(np.maximum(masks.face_mask(crop.face, shape), beyond), edge)
    return alpha_blend(np.full_like(crop.photo.pixels, 255), crop.photo.pixels, region)
