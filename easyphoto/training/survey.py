"""Looks at every photo once: what it shows, whose faces, and how good each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from easyphoto.errors import InputError, NotFound, ToolMissing
from easyphoto.events import Event, Listener
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging.io import load_photo
from easyphoto.records import Face, Photo
from easyphoto.training.duplicates import Print, face_print
from easyphoto.training.identity import Sighting
from easyphoto.training.quality import FaceQuality, face_quality

MOST_FACES = 12
"""Faces of one photo that are compared; in a crowd the smaller ones are nobody's portrait."""
@dataclass(frozen=True, kw_only=True, eq=False)
class SeenFace:
    """One face of one photo with all that is measured on it."""

    face: Face
    """With embedding, in the photo's coordinates."""
    quality: FaceQuality
    look: Print
    sighting: Sighting


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """One photo after the first look."""

    path: Path
    faces: tuple[SeenFace, ...] = ()
    """The compared ones, from left to right."""
    count: int = 0
    """How many faces there are."""
    trouble: str = ""
    """Why the file cannot be read; empty if it can."""

    @property
    def name(self) -> str:
        """What people call the photo."""
        return self.path.name


def survey(paths: Sequence[Path], tools: FaceTools, listener: Listener) -> tuple[Seen, ...]:
    """Look at each photo; a file that cannot be read is told by its `trouble`. Pixels are not kept."""
    seen = []
    for step, path in enumerate(paths, start=1):
        seen.append(_look(path, tools))
        listener(Event(kind="progress", stage="checking photos", step=step, total=len(paths), message=path.name))
    return tuple(seen)


def _look(path: Path, tools: FaceTools) -> Seen:
    try:
        photo = load_photo(path)
    except (InputError, NotFound, ToolMissing) as error:
        return Seen(path=path, trouble=str(error))
    found = tools.faces(photo)
    largest = sorted(found, key=lambda face: -face.box.width * face.box.height)[:MOST_FACES]
    faces = [_measure(photo, tools.with_embedding(photo, face)) for face in found if face in largest]
    return Seen(path=path, faces=tuple(faces), count=len(found))


def _measure(photo: Photo, face: Face) -> SeenFace:
    assert face.embedding is not None  # noqa: S101  the caller has just made it
    sighting = Sighting(embedding=face.embedding, prominence=_prominence(photo, face))
    return SeenFace(face=face, quality=face_quality(photo, face), look=face_print(photo, face), sighting=sighting)


def _prominence(photo: Photo, face: Face) -> float:
    """0-1: share of the photo's shorter side, less for a face at the photo's edge."""
    x, y = face.box.center
    aside = np.hypot(x / photo.width - 0.5, y / photo.height - 0.5)
    size = max(face.box.width, face.box.height) / min(photo.width, photo.height)
    return float(min(1.0, size) * (1 - 0.7 * min(1.0, aside / 0.7)))
