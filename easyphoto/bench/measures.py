"""What PortraitBench measures on one picture, and how figures are joined over people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from easyphoto.faces.embed import distance
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging.color import seam
from easyphoto.imaging.masks import face_width
from easyphoto.records import Face, Floats, Photo, Pixels

SAME_PERSON_BELOW = 0.6
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t for 95 % two-sided, 1 to 9 degrees of freedom."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """One person on the bench, with the vectors pictures are compared with."""

    name: str
    sex: str
    held_out: tuple[Floats, ...]
    """Identity vectors of photos the training never saw."""
    reference: Floats
    """Identity vector of the reference picture, the one a copy would be nearest to."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """One picture of one rival."""

    pixels: Pixels
    changed: Floats
    """(height, width) 0-1: where the rival says it painted."""
    seconds: float = 0.0
    stages: tuple[tuple[str, float], ...] = ()
    """(stage, seconds) for a rival that tells."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One picture's figures; None where no face was found."""

    person: str
    rival: str
    template: str
    identity: float | None
    """Mean dlib distance to the held-out photos."""
    verified: float
    """Share of held-out photos nearer than 0.6; 0 without a face."""
    copying: float | None
    """Identity minus the distance to the reference picture: above 0 it is nearer to the picture than to the person."""
    seam: float
    """Delta E of new steps along the edge of what visibly changed (`imaging.color.seam`)."""
    outside: int
    """Pixels changed outside the painted region."""
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A template as the bench uses it."""

    name: str
    photo: Photo
    face: Face
    """The face that is replaced, found once."""


def measure(subject: Subject, rival: str, stage: Stage, made: Made, tools: FaceTools) -> Score:
    """Measure one picture."""
    untouched = stage.photo
    photo = Photo(pixels=made.pixels, name=f"{subject.name} on {stage.name} by {rival}")
    faces = tools.faces(photo)
    vector = tools.with_embedding(photo, nearest_face(faces, made.changed)).embedding if faces else None
    distances = [distance(vector, other) for other in subject.held_out] if vector is not None else []
    identity = float(np.mean(distances)) if distances else None
    changed_anywhere = np.any(made.pixels != untouched.pixels, axis=2)
    return Score(
        person=subject.name,
        rival=rival,
        template=stage.name,
        identity=identity,
        verified=float(np.mean([value < SAME_PERSON_BELOW for value in distances])) if distances else 0.0,
        copying=None if identity is None or vector is None else identity - distance(vector, subject.reference),
        seam=seam(made.pixels, untouched.pixels, face_width(stage.face)),
        outside=int(np.count_nonzero(changed_anywhere & (made.changed == 0))),
        seconds=made.seconds,
    )


def nearest_face(faces: Sequence[Face], painted: Floats) -> Face:
    """The face whose middle is nearest to the painted region's; the largest where nothing was painted."""
    if not painted.any():
        return max(faces, key=lambda face: face.box.width * face.box.height)
    rows, columns = np.nonzero(painted > 0.5) if (painted > 0.5).any() else np.nonzero(painted)
    x, y = float(columns.mean()), float(rows.mean())
    return min(faces, key=lambda face: math.dist(face.box.center, (x, y)))


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over people with its 95 % interval (Student's t over the people's own means)."""

    mean: float
    half: float
    """NaN for a single person, who has no interval."""

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if math.isnan(self.half) else f"{self.mean:.3f} ± {self.half:.3f}"


def over_people(values: Sequence[tuple[str, float | None]]) -> Interval | None:
    """The mean over people of each person's mean; None if nothing was measured.

    People, not pictures, are the independent draws, so the interval is over people.
    """
    people = sorted({person for person, _ in values})
    means = [np.mean(found) for person in people if (found := [v for p, v in values if p == person and v is not None])]
    if not means:
        return None
    mean = float(np.mean(means))
    if len(means) < 2:
        return Interval(mean=mean, half=float("nan"))
    t = T_95[min(len(means) - 2, len(T_95) - 1)]
    return Interval(mean=mean, half=float(t * np.std(means, ddof=1) / math.sqrt(len(means))))
