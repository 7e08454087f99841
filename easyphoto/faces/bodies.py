"""Finds the body that a face belongs to."""

from __future__ import annotations

import numpy as np

from easyphoto.faces.graphs import PoseGraph, is_installed
from easyphoto.imaging import geometry
from easyphoto.records import Face, Floats, Photo

__all__ = ["MediaPipeBody", "is_installed"]

_REACHES = (9.0, 4.5, 2.5)
"""Windows to look in, in longer sides of the face: the whole body, half of it, head and shoulders. In a group the
narrower ones leave the neighbours out."""
_FACE_FROM_TOP = 0.3
_LONGEST = 512
"""The pose model looks at 256 px; a window need not be larger than twice that."""


class MediaPipeBody:
    """BlazePose on windows around one face."""

    name = "mediapipe"

    def __init__(self) -> None:
        self._graph = PoseGraph()

    def body(self, photo: Photo, face: Face) -> Floats | None:
        """(33, 3) px, px, visibility of the body whose nose is in `face`; None if none is found."""
        for reach in _REACHES:
            points = self._look(photo, face, reach)
            if points is not None and _is_its_nose(points[0], face):
                return points
        return None

    def close(self) -> None:
        """Free the model."""
        self._graph.close()

    def _look(self, photo: Photo, face: Face, reach: float) -> Floats | None:
        side = reach * max(face.box.width, face.box.height)
        x, y = face.box.center
        left, right = max(0, round(x - side / 2)), min(photo.width, round(x + side / 2))
        top = max(0, round(y - side * _FACE_FROM_TOP))
        bottom = min(photo.height, round(y + side * (1 - _FACE_FROM_TOP)))
        if right - left < 8 or bottom - top < 8:
            return None
        zoom = min(1.0, _LONGEST / max(right - left, bottom - top))
        matrix = np.array([[zoom, 0, -left * zoom], [0, zoom, -top * zoom]])
        size = max(1, round((right - left) * zoom)), max(1, round((bottom - top) * zoom))
        found = self._graph.run(geometry.warp(photo.pixels, matrix, size, geometry.REPLICATE))
        if found is None:
            return None
        moved = geometry.transform_points(found[:, :2], geometry.invert(matrix))
        return np.column_stack([moved, found[:, 2]]).astype(np.float32)


def _is_its_nose(nose: Floats, face: Face) -> bool:
    box, margin = face.box, 0.25 * max(face.box.width, face.box.height)
    return bool(
        box.left - margin <= nose[0] <= box.right + margin and box.top - margin <= nose[1] <= box.bottom + margin
    )
