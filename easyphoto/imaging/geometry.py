"""Where things are: affine maps, square crops, and faces that move with them.

Conventions: points are (x, y) px, continuous: pixel (i, j) covers i..i+1, j..j+1, so its middle is at .5. A matrix is
(2, 3) float64 and takes source points to target points: target = matrix[:, :2] @ source + matrix[:, 2]. Pictures are
RGB, or one channel; boxes are half open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from easyphoto.errors import InputError
from easyphoto.imaging import mesh
from easyphoto.records import Box, Face, Floats, Photo

Matrix = NDArray[np.float64]
Raster = TypeVar("Raster", bound=NDArray[Any])

REFLECT = cv2.BORDER_REFLECT_101
REPLICATE = cv2.BORDER_REPLICATE
WHITE = (255, 255, 255)
BLACK = (0, 0, 0)
Border = int | tuple[int, int, int]
"""What lies beyond the picture: REFLECT, REPLICATE, or one colour."""

_MOST_SHIFT = 0.15
"""A square may leave its face's middle by this share of its side to stay inside the picture; further looks lopsided."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Crop:
    """A square cut out of a photo, and the way back."""

    photo: Photo
    matrix: Matrix
    """(2, 3), from the original's points to the crop's."""
    inverse: Matrix
    """(2, 3), from the crop's points to the original's."""
    face: Face
    """The face it was cut around, in the crop's coordinates."""


def similarity(source: ArrayLike, target: ArrayLike) -> Matrix:
    """The rotation, one scale and shift that bring `source` nearest to `target` (Umeyama 1991, section III).

    Args:
        source: (n, 2) points, n >= 2, not all alike.
        target: (n, 2) points.

    Returns:
        (2, 3) matrix without mirroring, least squares.
    """
    here, there = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if here.shape != there.shape or here.ndim != 2 or here.shape[1] != 2 or len(here) < 2:
        raise InputError(f"similarity needs two equal lists of at least two points, got {here.shape}, {there.shape}")
    middle_here, middle_there = here.mean(0), there.mean(0)
    spread = float(((here - middle_here) ** 2).sum() / len(here))
    if spread < 1e-12:
        raise InputError("similarity needs points that are not all in one place")
    left, stretch, right = np.linalg.svd((there - middle_there).T @ (here - middle_here) / len(here))
    sign = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    linear = (left * sign) @ right * float((stretch * sign).sum()) / spread
    return np.column_stack([linear, middle_there - linear @ middle_here])


def transform_points(points: ArrayLike, matrix: Matrix) -> Floats:
    """(n, 2) points taken through a (2, 3) matrix, float32."""
    moved = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(moved, np.float32)


def invert(matrix: Matrix) -> Matrix:
    """The way back."""
    return compose(np.asarray(cv2.invertAffineTransform(matrix), np.float64), np.eye(2, 3))


def compose(after: Matrix, before: Matrix) -> Matrix:
    """One matrix for `before` followed by `after`."""
    return np.column_stack([after[:, :2] @ before[:, :2], after[:, :2] @ before[:, 2] + after[:, 2]])


def scale_of(matrix: Matrix) -> float:
    """Target pixels for each source pixel."""
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))


def warp(pixels: Raster, matrix: Matrix, size: tuple[int, int], border: Border = REFLECT) -> Raster:
    """The picture as `matrix` moves it.

    Shrinking averages areas first, so that nothing aliases; enlarging is cubic.

    Args:
        pixels: (height, width[, channels]) uint8 or float32.
        matrix: (2, 3), from `pixels` to the result.
        size: (width, height) of the result in px.
        border: What is seen beyond the picture.
    """
    scale = scale_of(matrix)
    pixels, matrix = _needed(pixels, matrix, size)
    if scale < 0.75:
        height, width = pixels.shape[:2]
        small_size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = _raster(cv2.resize(pixels, small_size, interpolation=cv2.INTER_AREA), pixels)
        grow = np.diag([width / small_size[0], height / small_size[1]])
        matrix = compose(matrix, np.column_stack([grow, np.zeros(2)]))
    # OpenCV counts from the middle of the first pixel, we from its corner.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5]])
    to_cv = compose(invert(half), compose(matrix, half))
    mode, value = (border, 0) if isinstance(border, int) else (cv2.BORDER_CONSTANT, border)
    moved = cv2.warpAffine(pixels, to_cv, size, flags=cv2.INTER_CUBIC, borderMode=mode, borderValue=value)
    return _raster(moved, pixels)


def square_around(box: Box, ratio: float, width: int, height: int) -> Box:
    """The square `ratio` times the box's longer side around its middle, moved inside a picture where that is near.

    It shrinks to the picture's shorter side where it would be larger, but never below 1.3 boxes; what then sticks
    out is the caller's to fill.
    """
    longer = max(box.width, box.height)
    side = min(longer * ratio, max(float(min(width, height)), longer * min(ratio, 1.3)))
    x, y = box.center
    x, y = _inside(x, side, width), _inside(y, side, height)
    return Box(left=x - side / 2, top=y - side / 2, right=x + side / 2, bottom=y + side / 2)


def crop_square(
    photo: Photo, face: Face, ratio: float, side: int, upright: bool = False, border: Border = REFLECT
) -> Crop:
    """Cut the square around a face out of its photo and bring it to `side` x `side` px.

    Args:
        photo: The photo that `face` was found in.
        face: Where to cut.
        ratio: Side of the square in longer sides of the face box.
        side: Side of the crop in px.
        upright: Turn the crop so that the eyes are level.
        border: What is seen beyond the photo.
    """
    if upright:
        level = upright_matrix(face)
        box = move_face(face, level).box
        square = square_around(box, ratio, 10 * photo.width, 10 * photo.height)  # the turned photo has no edges
    else:
        level = np.eye(2, 3)
        square = square_around(face.box, ratio, photo.width, photo.height)
    zoom = side / square.width
    matrix = compose(np.array([[zoom, 0, -square.left * zoom], [0, zoom, -square.top * zoom]]), level)
    pixels = warp(photo.pixels, matrix, (side, side), border)
    cut = Photo(pixels=pixels, name=photo.name)
    return Crop(photo=cut, matrix=matrix, inverse=invert(matrix), face=move_face(face, matrix))


def crop_whole(photo: Photo, face: Face, side: int, border: Border = REFLECT) -> Crop:
    """The whole photo in the middle of a square of `side` px; `border` says what is seen beyond it."""
    zoom = side / max(photo.width, photo.height)
    left, top = (side - photo.width * zoom) / 2, (side - photo.height * zoom) / 2
    matrix = np.array([[zoom, 0, left], [0, zoom, top]], np.float64)
    cut = Photo(pixels=warp(photo.pixels, matrix, (side, side), border), name=photo.name)
    return Crop(photo=cut, matrix=matrix, inverse=invert(matrix), face=move_face(face, matrix))


def move_face(face: Face, matrix: Matrix) -> Face:
    """The same face after its picture went through `matrix`; nothing is detected again."""
    points = None if face.mesh is None else transform_points(face.mesh, matrix)
    depth = None if face.depth is None else np.asarray(face.depth * scale_of(matrix), np.float32)
    body = None
    if face.body is not None:
        body = np.column_stack([transform_points(face.body[:, :2], matrix), face.body[:, 2]]).astype(np.float32)
    if points is not None:
        box = box_of(points[list(mesh.OVAL)])
    else:
        box = face.box
        corners = [(x, y) for x in (box.left, box.right) for y in (box.top, box.bottom)]
        box = box_of(transform_points(corners, matrix))
    landmarks = transform_points(face.landmarks, matrix)
    return replace(face, box=box, landmarks=landmarks, mesh=points, depth=depth, body=body)


def box_of(points: Floats) -> Box:
    """The smallest box around (n, 2) points."""
    (left, top), (right, bottom) = points.min(0), points.max(0)
    return Box(left=float(left), top=float(top), right=float(right), bottom=float(bottom))


def roll_of(face: Face) -> float:
    """How far the eyes' line is turned, in radians; positive turns clockwise as seen."""
    across = face.landmarks[1] - face.landmarks[0]
    return math.atan2(float(across[1]), float(across[0]))


def upright_matrix(face: Face) -> Matrix:
    """Turns the picture around the face's middle so that the eyes are level."""
    angle, (x, y) = -roll_of(face), face.box.center
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]])


def _inside(middle: float, side: float, length: int) -> float:
    """The square's middle, moved towards the picture by at most `_MOST_SHIFT` of the side."""
    wanted = length / 2 if side >= length else min(max(middle, side / 2), length - side / 2)
    return middle + min(max(wanted - middle, -_MOST_SHIFT * side), _MOST_SHIFT * side)


def _needed(pixels: Raster, matrix: Matrix, size: tuple[int, int]) -> tuple[Raster, Matrix]:
    """Only the part of the picture that a warp reads, with the matrix from there: a small crop of a large photo is cheap.

    Beyond the picture's edge a border may mirror what lies inside, so as much is kept inside as sticks out.
    """
    height, width = pixels.shape[:2]
    corners = np.array([(0, 0), (size[0], 0), (0, size[1]), size], np.float64)
    reach = transform_points(corners, invert(matrix))
    low, high = reach.min(0), reach.max(0)
    beyond = max(0.0, *(-low), float(high[0]) - width, float(high[1]) - height)
    margin = beyond + 4 / max(scale_of(matrix), 1e-6) + 4
    left, top = (int(edge) for edge in np.clip(np.floor(low - margin), 0, (width - 1, height - 1)))
    right, bottom = (int(edge) for edge in np.clip(np.ceil(high + margin), (left + 1, top + 1), (width, height)))
    part = pixels[top:bottom, left:right]
    return part, compose(matrix, np.array([[1.0, 0, left], [0, 1, top]]))  # type: ignore[return-value]


def _raster(result: object, like: Raster) -> Raster:
    """OpenCV's result with the type of its input; OpenCV is not typed and drops a single channel's axis."""
    array = np.asarray(result)
    if array.ndim < like.ndim:
        array = array[..., None]
    return array  # type: ignore[return-value]
