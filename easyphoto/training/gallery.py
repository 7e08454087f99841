"""Templates as training uses them: the faces in a gallery, for judging checkpoints and for choosing the reference."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from easyphoto.errors import InputError, NotFound
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging.io import load_photo
from easyphoto.records import Face, Photo

logger = logging.getLogger(__name__)

LOOKED_AT = 24
"""Templates of a gallery that are considered; a large gallery would cost more than the training."""


def front_faces(templates: Sequence[Path], tools: FaceTools) -> Iterator[tuple[Path, Photo, Face]]:
    """Each template with its largest face; broken ones and those without a face from the front are left out and logged."""
    for path in templates[:LOOKED_AT]:
        try:
            photo = load_photo(path)
        except (InputError, NotFound) as error:
            logger.warning("template left out: %s", error)
            continue
        face = largest_face(tools, photo)
        if face is None or face.mesh is None:
            logger.warning("template %s left out: no face from the front is found in it", path.name)
            continue
        yield path, photo, face


def largest_face(tools: FaceTools, photo: Photo) -> Face | None:
    """The face with the largest box; None if no face is found."""
    return max(tools.faces(photo), key=lambda face: face.box.width * face.box.height, default=None)
