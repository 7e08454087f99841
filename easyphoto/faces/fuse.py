"""Puts one person's face onto another picture: in that picture's pose, size, light and tone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from easyphoto.errors import PhotoError
from easyphoto.imaging import color, geometry, masks, mesh, mesh_warp
from easyphoto.imaging.blend import alpha_blend
from easyphoto.imaging.head import RIGID, head_turn
from easyphoto.imaging.skin import below_brows, unlike_skin
from easyphoto.records import Face, Floats, Photo, Pixels

_ROOM = 1.5
"""Side of the working window in longer sides of the face."""
_TAPER = 0.22
"""Width in face widths of the zone along the outline where the person's proportions go over into the target's."""
_FEATHER = 0.055
"""Width of the soft edge in face widths."""
_COARSE, _FINE = 0.25, 0.08
"""Blur in face widths that tells light from features, in the middle of the face and at its edge."""


_RIM = 0.08
"""Width in face widths of the zone along the outline where hair may hang into the face; inside it nothing is taken for
hair below the brows, or beards and shadows would be."""
_STRETCHED = (0.25, 0.5)
"""Source pixels for one target pixel below which a part counts as hidden in the source, and above which as seen. A cheek
that the source shows from the side would be drawn out into stripes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Side:
    """A picture brought to the working window."""

    pixels: Pixels
    face: Face
    there: Floats
    """(height, width) 0-1: what the picture really shows; 0 beyond its edge."""


class MeshFuser:
    """Mesh warp, light matched at low frequencies, and a soft edge that keeps to skin.

    1. The source's mesh is turned into the target's pose in three dimensions, so the person keeps the proportions of
       eyes, nose and mouth; towards the outline it goes over into the target's.
    2. The source is bent onto that mesh, triangle by triangle.
    3. Light and tone come from the target: the difference of both pictures' skin, blurred, is added to the source.
    4. Hair on either forehead or along the outline, and what the source does not show, stays the target's.
    """

    name = "mesh"

    def __init__(self, shape: float = 1.0) -> None:
        """`shape` 1 keeps the person's proportions, 0 takes the target's."""
        self._shape = shape

    def fuse(self, source: Photo, source_face: Face, target: Photo, target_face: Face) -> Photo:
        """`target` with `source`'s face; same size as `target`, and the same bit for bit outside the face's outline."""
        _need_mesh(source, source_face)
        _need_mesh(target, target_face)
        left, top, right, bottom = _window(target, target_face)
        there = _shifted(target, target_face, (left, top, right, bottom))
        here = _aligned(source, source_face, there)
        goal = replace(there.face, mesh=self._goal(source_face, there.face))
        bent = _bent(here, there, goal)
        theirs, own = unlike_skin(there.pixels, there.face), unlike_skin(bent.pixels, goal, bent.there)
        toned, mask = _toned(bent, there, goal, np.maximum(theirs, own)), _mask(bent, goal, theirs, own)
        pixels = target.pixels.copy()
        pixels[top:bottom, left:right] = alpha_blend(there.pixels, toned, mask)
        return Photo(pixels=pixels, name=target.name)

    def fused_face(self, source_face: Face, target_face: Face) -> Face:
        """Where the face lies in what `fuse` returns: the target's outline, the source's proportions."""
        goal = self._goal(source_face, target_face)
        return replace(target_face, mesh=goal, landmarks=goal[list(mesh.LANDMARKS)], embedding=None)

    def _goal(self, source: Face, target: Face) -> Floats:
        """(478, 2): where the source's mesh shall lie in the target's picture."""
        there = _points(target)
        weight = self._shape * _middleness(there)
        return np.asarray(there + weight[:, None] * (_posed(source, target) - there), np.float32)


def _need_mesh(photo: Photo, face: Face) -> None:
    if face.mesh is None:
        raise PhotoError(f"the face in {photo.name} is too small or too turned to be fused; choose another picture")


def _points(face: Face) -> Floats:
    assert face.mesh is not None  # noqa: S101  `fuse` has refused faces without one
    return face.mesh


def _window(target: Photo, face: Face) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) whole px around the face, inside the picture."""
    x, y = face.box.center
    half = _ROOM * max(face.box.width, face.box.height) / 2
    left, top = max(0, round(x - half)), max(0, round(y - half))
    return left, top, max(left + 1, min(target.width, round(x + half))), max(top + 1, min(target.height, round(y + half)))


def _shifted(target: Photo, face: Face, window: tuple[int, int, int, int]) -> _Side:
    left, top, right, bottom = window
    moved = geometry.move_face(face, np.array([[1.0, 0, -left], [0, 1, -top]]))
    pixels = np.ascontiguousarray(target.pixels[top:bottom, left:right])
    return _Side(pixels=pixels, face=moved, there=np.ones(pixels.shape[:2], np.float32))


def _aligned(source: Photo, face: Face, there: _Side) -> _Side:
    """The source brought over the target's face by turning, scaling and shifting: it is resampled well only here."""
    matrix = geometry.similarity(_points(face)[list(RIGID)], _points(there.face)[list(RIGID)])
    size = there.pixels.shape[1], there.pixels.shape[0]
    # Room around the window, since the bend may reach past it for a face at the picture's edge.
    room = max(size) // 2
    matrix = geometry.compose(np.array([[1.0, 0, room], [0, 1, room]]), matrix)
    size = size[0] + 2 * room, size[1] + 2 * room
    seen = geometry.warp(np.ones((source.height, source.width), np.float32), matrix, size, geometry.BLACK)
    pixels = geometry.warp(source.pixels, matrix, size, geometry.REPLICATE)
    return _Side(pixels=pixels, face=geometry.move_face(face, matrix), there=np.clip(seen, 0, 1))


def _posed(source: Face, target: Face) -> Floats:
    """(478, 2): the source's mesh, rigidly turned into the target's pose; flat where a depth is not known.

    The rotation, scale and shift are fitted on points that no expression moves (Umeyama 1991, in three dimensions).
    """
    if source.depth is None or target.depth is None:
        rigid = list(RIGID)
        return geometry.transform_points(
            _points(source), geometry.similarity(_points(source)[rigid], _points(target)[rigid])
        )
    here = np.column_stack([_points(source), source.depth]).astype(np.float64)
    there = np.column_stack([_points(target), target.depth]).astype(np.float64)
    rigid_here, rigid_there = here[list(RIGID)], there[list(RIGID)]
    middle_here, middle_there = rigid_here.mean(0), rigid_there.mean(0)
    spread = ((rigid_here - middle_here) ** 2).sum()
    left, stretch, right = np.linalg.svd((rigid_there - middle_there).T @ (rigid_here - middle_here))
    sign = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
    turn = (left * sign) @ right * ((stretch * sign).sum() / spread)
    return np.asarray(((here - middle_here) @ turn.T + middle_there)[:, :2], np.float32)


def _middleness(points: Floats) -> Floats:
    """(478,): 1 well inside the face's outline, 0 on it, with a smooth slope between."""
    outline = np.ascontiguousarray(points[list(mesh.OVAL)], np.float32)
    inside = np.array([cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y in points])
    share = np.clip(inside / (_TAPER * float(np.ptp(outline[:, 0]))), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


def _bent(here: _Side, there: _Side, goal: Face) -> _Side:
    """The source bent onto the goal, in the target's window."""
    source, target = _points(here.face), _points(goal)
    turns = [head_turn(face) for face in (here.face, there.face)]
    frontal = source if turns[0] and turns[1] and turns[0].frontality > turns[1].frontality else target
    triangles = mesh_warp.triangulate(frontal)
    hidden = mesh_warp.turned_over(source, triangles) | mesh_warp.turned_over(target, triangles)
    bend = mesh_warp.warp_map(source, target, triangles[~hidden], there.pixels.shape[:2])
    inside = mesh_warp.bend(np.rint(here.there * 255).astype(np.uint8)[..., None].repeat(3, axis=2), bend.came_from)
    width = masks.face_width(goal)
    beyond = np.isnan(bend.came_from[..., 0])  # outside the outline, which has its own soft edge
    fineness = np.where(beyond, 1.0, bend.fineness).astype(np.float32)
    fine = cv2.GaussianBlur(fineness, (0, 0), max(0.5, 0.02 * width))
    low, high = _STRETCHED
    shown = ((inside[..., 0] > 252) | beyond) * np.clip((fine - low) / (high - low), 0, 1)
    return _Side(pixels=mesh_warp.bend(here.pixels, bend.came_from), face=goal, there=np.asarray(shown, np.float32))


def _mask(bent: _Side, goal: Face, theirs: Floats, own: Floats) -> Floats:
    """(height, width) 0-1: where the bent source is taken; `theirs` and `own` are what is not skin in target and source."""
    shape = own.shape
    width = masks.face_width(goal)
    shown = masks.feather_inside(bent.there, 0.04 * width)
    rim = 1 - masks.feather(masks.erode(masks.face_mask(goal, shape), _RIM * width), _RIM * width / 2)
    covered = np.maximum(np.maximum(theirs, own) * (1 - below_brows(goal, shape)), own * rim)
    covered = masks.feather(masks.dilate(covered, 0.015 * width), 0.05 * width)
    outline = masks.feather_inside(masks.face_mask(goal, shape), _FEATHER * width)
    return np.asarray(outline * shown * (1 - covered), np.float32)


def _toned(bent: _Side, there: _Side, goal: Face, other: Floats) -> Pixels:
    """The bent source in the target's light: the skins' blurred Lab difference is added.

    The blur is normalised by what is skin in both pictures, so that eyes, lips and hair neither give nor take light. It
    is narrower towards the outline, where both must meet.
    """
    shape, width = there.pixels.shape[:2], masks.face_width(goal)
    lab = color.to_lab(bent.pixels)
    both = np.minimum(masks.skin_mask(goal, shape), masks.skin_mask(there.face, shape)) * bent.there
    weight = both * (1 - other) + 1e-4 * both  # some light even where nothing passes for skin
    difference = (color.to_lab(there.pixels) - lab) * weight[..., None]
    coarse = color.spread(difference, weight, _COARSE * width)
    fine = color.spread(difference, weight, _FINE * width)
    edge = 1 - masks.feather(masks.erode(masks.face_mask(goal, shape), 0.12 * width), 0.12 * width)
    return color.from_lab(lab + coarse + edge[..., None] * (fine - coarse))
