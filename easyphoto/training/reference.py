"""Which photo is the reference, the one whose face is laid into templates: the likely ones are tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from easyphoto.faces.embed import distance
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging import mesh
from easyphoto.imaging.geometry import crop_square
from easyphoto.imaging.masks import face_width
from easyphoto.records import Face, Floats, Photo, PreparedPhoto
from easyphoto.training.gallery import front_faces
from easyphoto.training.judge import likeness
from easyphoto.training.quality import face_quality

_TRIED = 6
"""Photos that are tried, the likeliest first."""
_TRIALS = 3
"""Templates they are tried on."""
_SIDE = 256
"""Side of a trial in px; dlib is shown the face at 150."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """The face of a template, cut out."""

    photo: Photo
    face: Face
    """In the cut."""


def choose_reference(
    photos: Sequence[PreparedPhoto], person: Floats, templates: Sequence[Path], tools: FaceTools, crop_ratio: float
) -> int:
    """Index of the photo whose face, fused onto templates, is nearest to the person.

    Frontality x identity x sharpness says which photos are likely; how much of a likeness outlives the warp into another
    head depends on light and expression too, so the likeliest six are fused onto the three nearest templates and measured.
    What hides part of a face counts against it, and so does a strained expression: a recogniser forgives a microphone before
    the chin or a mouth wide open, eyes do not.

    Args:
        photos: The prepared photos, at least one.
        person: (128,) median identity vector of all photos.
        templates: Pictures to try on; without any, the likeliest photo is taken.
        tools: The face tools.
        crop_ratio: Side of a trial in face sizes.
    """
    order = sorted(range(len(photos)), key=lambda index: likeness(photos[index].scores), reverse=True)
    candidates = [index for index in order if photos[index].own_face.mesh is not None][:_TRIED]
    trials = _trials(person, templates, tools, crop_ratio) if len(candidates) > 1 else ()
    if not trials:
        return order[0]
    return min(candidates, key=lambda index: _distance(photos[index], person, trials, tools) + _flaws(photos[index]))


def _trials(person: Floats, templates: Sequence[Path], tools: FaceTools, crop_ratio: float) -> tuple[Trial, ...]:
    """The cut faces of the templates that are nearest to the person by identity, so of the same sex and age if there are."""
    found: list[tuple[float, str, Trial]] = []
    for path, photo, face in front_faces(templates, tools):
        cut = crop_square(photo, face, crop_ratio, _SIDE)
        found.append((_apart(tools, cut.photo, cut.face, person), path.name, Trial(photo=cut.photo, face=cut.face)))
    return tuple(trial for _, _, trial in sorted(found, key=lambda item: item[:2])[:_TRIALS])


def _distance(photo: PreparedPhoto, person: Floats, trials: Sequence[Trial], tools: FaceTools) -> float:
    """Mean over the trials of the fused faces' distance to the person."""
    apart = []
    for trial in trials:
        fused = tools.fuser.fuse(photo.crop, photo.own_face, trial.photo, trial.face)
        apart.append(_apart(tools, fused, tools.fuser.fused_face(photo.own_face, trial.face), person))
    return float(np.mean(apart))


def _flaws(photo: PreparedPhoto) -> float:
    """What eyes do not forgive, in units of identity distance."""
    return _hidden(photo) + _strain(photo.own_face)


def _hidden(photo: PreparedPhoto) -> float:
    """0-1: how much of the worst half of the face does not look like skin; a beard has it in every photo alike."""
    cover = face_quality(photo.crop, photo.own_face).cover
    return cover.half if cover else 0.0


def _strain(face: Face) -> float:
    """About 0-0.1: how far open and how crooked the mouth is, in units of identity distance; 0 without a mesh.

    A mouth that speaks (open by a third of its width) counts 0.05, and so does a corner that is higher by 3 % of the face's
    width.
    """
    if face.mesh is None:
        return 0.0
    right, left = (face.mesh[point] for point in (mesh.RIGHT_MOUTH, mesh.LEFT_MOUTH))
    eyes = face.mesh[mesh.LEFT_EYE_OUTER] - face.mesh[mesh.RIGHT_EYE_OUTER]
    up = np.array([eyes[1], -eyes[0]]) / (np.linalg.norm(eyes) + 1e-6)
    upper, lower = (face.mesh[point] for point in mesh.INNER_LIPS)
    gap = float(np.linalg.norm(upper - lower) / (np.linalg.norm(left - right) + 1e-6))
    crooked = abs(float((left - right) @ up)) / face_width(face)
    return 0.15 * gap + 1.5 * crooked


def _apart(tools: FaceTools, photo: Photo, face: Face, person: Floats) -> float:
    embedding = tools.with_embedding(photo, face).embedding
    return distance(embedding, person) if embedding is not None else float("inf")
