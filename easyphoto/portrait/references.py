"""A person's own pictures, made ready for a scene: the face photo fused into it, the face_id picture's pose."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from easyphoto.errors import PhotoError
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging import masks, mesh
from easyphoto.imaging.blend import alpha_blend
from easyphoto.imaging.io import load_photo
from easyphoto.records import Face, Floats, ImagePrompt, Photo, Pixels
from easyphoto.specs import Person

_EDGE = 0.06
"""Share of the face's width over which a fused face fades into the template's."""
_WHOLE_FROM = 0.6
"""The share of skin from which on the features are taken whole."""
_FEATURES = (*mesh.RIGHT_BROW, *mesh.LEFT_BROW, *mesh.RIGHT_EYE, *mesh.LEFT_EYE, *mesh.NOSTRILS, *mesh.LIPS_OUTER)


@dataclass(frozen=True, kw_only=True, eq=False)
class Materials:
    """A person's pictures with their faces, each found once."""

    person: Person
    reference: Photo
    reference_face: Face
    """With mesh."""
    face_id: Face
    """The face of the best picture that training rendered; the reference's where that shows none."""
    id_prompt: ImagePrompt | None = None
    """What the ID control holds the passes by; None without it."""


def load_materials(person: Person, tools: FaceTools) -> Materials:
    """Read a person's reference and face_id picture.

    Raises:
        NotFound: A file is gone.
        PhotoError: The reference cannot be read or shows no face.
    """
    reference = load_photo(person.reference)
    face = main_face(reference, tools)
    if face is None or face.mesh is None:
        raise PhotoError(f"the reference photo of {person.name} shows no face any more; train {person.name} again")
    face_id = main_face(load_photo(person.face_id_picture), tools)
    if face_id is None or face_id.mesh is None:
        face_id = face
    return Materials(person=person, reference=reference, reference_face=face, face_id=face_id)


def fuse_reference(materials: Materials, picture: Photo, face: Face, share: float, tools: FaceTools) -> Pixels:
    """`picture` with the person's face laid over its own: skin by `share`, the features whole.

    Args:
        materials: Whose face.
        picture: (height, width, 3); what is painted on.
        face: Where, with mesh.
        share: How much of the fused skin is taken, 0-1; 0 returns the picture itself.
        tools: Its fuser.

    Returns:
        (height, width, 3) uint8 RGB, the picture bit for bit outside the face.
    """
    if share <= 0:
        return picture.pixels
    fused = tools.fuser.fuse(materials.reference, materials.reference_face, picture, face)
    return alpha_blend(picture.pixels, fused.pixels, _fusion_mask(face, picture.pixels.shape[:2], share))


def _fusion_mask(face: Face, shape: tuple[int, ...], share: float) -> Floats:
    """(height, width) 0-1: `share` on the skin; eyes, nose and mouth whole from a share of 0.6 on.

    The features are not mixed, because they lie where the person has them and not where the template had them: a mixture
    would show both.
    """
    size, width = (shape[0], shape[1]), masks.face_width(face)
    skin = masks.feather_inside(masks.face_mask(face, size), _EDGE * width) * share
    whole = masks.feather(masks.grow(_middle(face, size), face, _EDGE), _EDGE * width) * min(1.0, share / _WHOLE_FROM)
    return np.maximum(skin, whole * masks.face_mask(face, size))


def _middle(face: Face, size: tuple[int, int]) -> Floats:
    """(height, width) 0-1: the hull of brows, eyes, nose and mouth."""
    points = face.mesh[list(_FEATURES)] if face.mesh is not None else face.landmarks
    return masks.polygon_mask(np.asarray(cv2.convexHull(points.astype(np.float32))[:, 0], np.float32), size)


def main_face(photo: Photo, tools: FaceTools) -> Face | None:
    """The largest face in a picture; None if there is none."""
    faces = tools.faces(photo)
    return max(faces, key=lambda face: face.box.width * face.box.height, default=None)
