"""Pictures inside a page's HTML, as small JPEGs: no file is copied for them, none is offered by a path."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from threading import Lock

import numpy as np

from easyphoto.errors import EasyPhotoError
from easyphoto.imaging.io import load_photo
from easyphoto.records import Face, Photo
from easyphoto.report.page import data_uri

_MOST_BYTES = 64 * 1024 * 1024
"""Of all pictures that are remembered."""
_Key = tuple[str, int, int, int]


class Thumbs:
    """Small pictures of files, made once for each state of a file."""

    def __init__(self) -> None:
        self._made: OrderedDict[_Key, str] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def of(self, path: Path, longest: int = 256) -> str | None:
        """A data URI of the picture, its longer side at most so many px; None if it cannot be read."""
        with suppress(OSError, EasyPhotoError):
            known = path.stat()
            key = (str(path), known.st_mtime_ns, known.st_size, longest)
            with self._lock:
                if key in self._made:
                    self._made.move_to_end(key)
                    return self._made[key]
            made = data_uri(load_photo(path).pixels, longest)
            with self._lock:
                self._keep(key, made)
            return made
        return None

    def forget(self) -> None:
        """Let go of all pictures: somebody wants theirs to be gone."""
        with self._lock:
            self._made.clear()
            self._bytes = 0

    def _keep(self, key: _Key, made: str) -> None:
        if key not in self._made:
            self._made[key] = made
            self._bytes += len(made)
        while self._bytes > _MOST_BYTES:
            _, old = self._made.popitem(last=False)
            self._bytes -= len(old)


def face_uri(photo: Photo, face: Face, longest: int = 120) -> str:
    """A data URI of the square around a face."""
    box = face.box
    side = max(box.width, box.height) * 1.5
    x, y = box.center
    left, top = max(0, int(x - side / 2)), max(0, int(y - side / 2))
    crop = photo.pixels[top : int(y + side / 2) + 1, left : int(x + side / 2) + 1]
    return data_uri(np.ascontiguousarray(crop), longest)
