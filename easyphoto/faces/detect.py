"""Finds faces: MediaPipe's detectors over a pyramid of views, then the mesh on each face by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from easyphoto.faces import graphs
from easyphoto.faces.graphs import MESH_SIDE, MeshGraph, SpotGraph, Spotted
from easyphoto.imaging import geometry, mesh
from easyphoto.imaging.geometry import Matrix
from easyphoto.records import Box, Face, Floats, Photo, Pixels

_VIEW_SIDE = 256
"""Side in px a view is brought to; the detectors look at 128 and 192."""
_LONE_SCORE = 0.8
"""A spotted face that no mesh fits must be at least this certain to count."""
_SURE_SCORE, _SURE_AGAIN = 0.9, 0.7
"""A face spotted less certainly than the first must be spotted again in closer views, once with the second."""
_LOOK_AGAIN = (1.8, 2.6, 3.6)
"""Sides of the closer views in longer sides of the face."""
_SAME_OVERLAP = 0.35
"""Two boxes that share more of their union than this are one face."""
_LEAST_TILE, _MOST_TILES = 160, 16
"""Side in px of the smallest tile, and how many fit into the longer side at most."""
_LEAST_FACE = 14.0
"""Boxes narrower than this many px hold nothing that a mesh can be fitted to."""
_MESH_ZOOM = 1.5
"""Side of the square that the mesh model is shown, in longer sides of the face (as in MediaPipe's own graph)."""


class MediaPipeDetector:
    """BlazeFace on whole, padded and tiled views of the picture; the attention mesh on every face found.

    Whole views find the usual portrait, padded ones a face that fills or leaves the picture, tiles the small faces of a
    group. Faces come from left to right.
    """

    name = "mediapipe"

    def __init__(self) -> None:
        self._near = SpotGraph(full_range=False, threshold=0.5)
        self._far = SpotGraph(full_range=True, threshold=0.5)
        self._mesh = MeshGraph()

    def detect(self, photo: Photo) -> tuple[Face, ...]:
        """All faces from left to right, with mesh where it fits; bodies are `bodies.MediaPipeBody`'s."""
        pixels = photo.pixels
        fitted = [face for spot in self._spot(pixels) if (face := self._fit(pixels, spot)) is not None]
        sure = [face for face in _distinct_faces(fitted) if self._is_sure(pixels, face)]
        return tuple(sorted(sure, key=lambda face: face.box.center[0]))

    def close(self) -> None:
        """Free the models."""
        for graph in (self._near, self._far, self._mesh):
            graph.close()

    def _spot(self, pixels: Pixels) -> list[Spotted]:
        """The picture whole and padded, then in ever smaller tiles as long as those show further faces or none was found.

        Small faces come in groups: where the finer tiles show nothing new, still finer ones will not.
        """
        height, width = pixels.shape[:2]
        longer = max(width, height)
        graphs_near = (self._near, self._far)
        found = [spot for share in (1.0, 1.6) for spot in self._view(pixels, _middle(pixels, share), graphs_near)]
        found = _distinct_spots(found)
        side = longer / 2
        while side >= _LEAST_TILE and side >= longer / _MOST_TILES:
            tiles = [_window(x, y, side) for y in _steps(height, side) for x in _steps(width, side)]
            more = _distinct_spots(found + [spot for tile in tiles for spot in self._view(pixels, tile, (self._far,))])
            if found and len(more) == len(found):
                break
            found, side = more, side / 2
        return [spot for spot in found if _is_large_enough(spot)]

    def _view(self, pixels: Pixels, matrix: Matrix, graphs_used: Sequence[SpotGraph]) -> Iterator[Spotted]:
        view, back = geometry.warp(pixels, matrix, (_VIEW_SIDE, _VIEW_SIDE), geometry.BLACK), geometry.invert(matrix)
        for graph in graphs_used:
            for spot in graph.run(view):
                yield _moved(spot, back)

    def _is_sure(self, pixels: Pixels, face: Face) -> bool:
        """Whether a doubtful face is found again when it is looked at in the middle of a view, which wheels and hair are not.

        Measured on 260 pictures: doubtful real faces are found in two or more of the six looks, once with 0.74 or more;
        other things once, or with at most 0.67.
        """
        if face.score >= _SURE_SCORE:
            return True
        side, (x, y) = max(face.box.width, face.box.height), face.box.center
        again: list[float] = []
        for zoom in _LOOK_AGAIN:
            for graph in (self._near, self._far):
                spots = self._view(pixels, _window(x, y, zoom * side), (graph,))
                scores = [spot.score for spot in spots if _overlap(spot.box, _edges(face)) > _SAME_OVERLAP]
                again.append(max(scores, default=0.0))
        return max(again) >= _SURE_AGAIN and sum(score >= 0.6 for score in again) >= 2

    def _fit(self, pixels: Pixels, spot: Spotted) -> Face | None:
        points = self._fit_mesh(pixels, spot)
        if points is not None:
            box = geometry.box_of(points[list(mesh.OVAL), :2])
            flat, depth = np.ascontiguousarray(points[:, :2]), np.ascontiguousarray(points[:, 2])
            return Face(box=box, score=spot.score, landmarks=flat[list(mesh.LANDMARKS)], mesh=flat, depth=depth)
        if spot.score < _LONE_SCORE:
            return None
        left, top, right, bottom = (float(edge) for edge in spot.box)
        box = Box(left=left, top=top, right=right, bottom=bottom)
        return Face(box=box, score=spot.score, landmarks=_five_points(spot.points), mesh=None)

    def _fit_mesh(self, pixels: Pixels, spot: Spotted) -> Floats | None:
        """(478, 3) px: fitted to the detector's box first, then again to what that gave, which is steadier."""
        middle = (spot.box[:2] + spot.box[2:]) / 2
        longer = float((spot.box[2:] - spot.box[:2]).max())
        for zoom in (_MESH_ZOOM, 1.25 * _MESH_ZOOM, 0.8 * _MESH_ZOOM):
            points = self._mesh_in(pixels, _square(middle, zoom * longer, spot.points[1] - spot.points[0]))
            if points is not None:
                return self._refit(pixels, points)
        return None

    def _refit(self, pixels: Pixels, points: Floats) -> Floats:
        low, high = points[:468, :2].min(0), points[:468, :2].max(0)
        across = points[mesh.LEFT_EYE_OUTER, :2] - points[mesh.RIGHT_EYE_OUTER, :2]
        square = _square((low + high) / 2, _MESH_ZOOM * float((high - low).max()), across)
        again = self._mesh_in(pixels, square)
        return points if again is None else again

    def _mesh_in(self, pixels: Pixels, matrix: Matrix) -> Floats | None:
        view = geometry.warp(pixels, matrix, (MESH_SIDE, MESH_SIDE), geometry.REPLICATE)
        points = self._mesh.run(view)
        if points is None:
            return None
        flat = geometry.transform_points(points[:, :2], geometry.invert(matrix))
        return np.column_stack([flat, points[:, 2] / geometry.scale_of(matrix)]).astype(np.float32)


def is_installed() -> bool:
    """Whether this backend can run here."""
    return graphs.is_installed()


def _middle(pixels: Pixels, share: float) -> Matrix:
    """The view of the whole picture, with room around it where `share` is above 1."""
    height, width = pixels.shape[:2]
    return _window(width / 2, height / 2, max(width, height) * share)


def _steps(length: int, side: float) -> list[float]:
    """Middles of half overlapping windows that cover a length."""
    count = max(1, math.ceil((length - side) / (side / 2)) + 1)
    return [length / 2] if count == 1 else [float(x) for x in np.linspace(side / 2, length - side / 2, count)]


def _window(x: float, y: float, side: float) -> Matrix:
    zoom = _VIEW_SIDE / side
    return np.array([[zoom, 0, (side / 2 - x) * zoom], [0, zoom, (side / 2 - y) * zoom]])


def _square(middle: Floats, side: float, across: Floats) -> Matrix:
    """Takes the square around `middle`, turned so that `across` is level, to what the mesh model is shown."""
    zoom, angle = MESH_SIDE / side, -math.atan2(float(across[1]), float(across[0]))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) * zoom
    return np.column_stack([turn, MESH_SIDE / 2 - turn @ np.asarray(middle, np.float64)])


def _moved(spot: Spotted, matrix: Matrix) -> Spotted:
    box = geometry.transform_points(spot.box.reshape(2, 2), matrix).reshape(4)
    return Spotted(box=box, points=geometry.transform_points(spot.points, matrix), score=spot.score)


def _is_large_enough(spot: Spotted) -> bool:
    return float(min(spot.box[2:] - spot.box[:2])) >= _LEAST_FACE


def _distinct_spots(spots: list[Spotted]) -> list[Spotted]:
    """The most certain of every heap of overlapping answers (non-maximum suppression)."""
    kept: list[Spotted] = []
    for spot in sorted(spots, key=lambda each: -each.score):
        if all(_overlap(spot.box, other.box) < _SAME_OVERLAP for other in kept):
            kept.append(spot)
    return kept


def _distinct_faces(faces: list[Face]) -> list[Face]:
    """The same again on fitted faces: meshes of one face meet even where its boxes did not."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda each: (each.mesh is None, -each.score)):
        if all(_overlap(_edges(face), _edges(other)) < _SAME_OVERLAP for other in kept):
            kept.append(face)
    return kept


def _edges(face: Face) -> Floats:
    return np.array([face.box.left, face.box.top, face.box.right, face.box.bottom], np.float32)


def _overlap(one: Floats, other: Floats) -> float:
    """Intersection over union; over the smaller box where one holds most of the other."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    first, second = float(np.prod(one[2:] - one[:2])), float(np.prod(other[2:] - other[:2]))
    inside = shared / min(first, second)
    return max(shared / (first + second - shared), inside if inside > 0.7 else 0.0)


def _five_points(points: Floats) -> Floats:
    """`Face.landmarks` of the detector's six: the mouth's corners stand a third of the eyes' distance to its sides."""
    aside = (points[1] - points[0]) / 3
    return np.array([points[0], points[1], points[2], points[3] - aside, points[3] + aside], np.float32)
