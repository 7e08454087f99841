"""From any pictures to the training set of a scene or a garment: no face is wanted, every picture is judged as a whole.

Of a scene the whole picture is kept, or a square around its largest face where somebody asks for it. A garment's picture is
made square, so that no sleeve is cut off; one that is transparent around the garment has it on white, as every picture is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from easyphoto.errors import InputError, NotFound, PhotoError, ToolMissing
from easyphoto.events import Event, Listener, ignore
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging import geometry
from easyphoto.imaging.io import load_photo
from easyphoto.records import Floats, Photo, PhotoScores, Pixels, PreparedPhoto, PreparedSet, Reason, TrainKind, Verdict
from easyphoto.training.gallery import largest_face
from easyphoto.training.preprocess import NoUsablePhoto
from easyphoto.training.quality import picture_sharpness

LEAST_SHARE = 0.5
"""Of the training's size that the shorter side must have: what is enlarged more has nothing to learn from."""
LEAST_SHARPNESS = 0.42
"""Measured: 98 photos 0.55-0.89; the same blurred by 1 % of their shorter side 0-0.45, nineteen of twenty below 0.39."""
_SPARE = 1.2
"""A picture is kept this much larger than it is trained on, for crops that come nearer."""
_MOST = 200
_FEW = 5
_THUMB = 24
_SAME = 2.5
"""Mean difference in levels of two thumbnails below which two pictures are one."""
_WHITE = 255


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """How pictures are prepared."""

    kind: TrainKind = TrainKind.SCENE
    override: frozenset[str] = frozenset()
    """File names that are taken whatever the verdict."""
    size: int = 768
    """Side of the training crops in px."""
    crop_ratio: float = 0.0
    """Side of the square around a face, in face sizes; below 1 the whole picture is kept."""
    captions: tuple[str, ...] = ()
    """One for each picture, or none at all."""
    listener: Listener = ignore


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """One picture after the first look; pixels are not kept."""

    path: Path
    caption: str
    verdict: Verdict
    thumb: Floats | None = None


def prepare_scene(paths: Sequence[Path], tools: FaceTools, options: SceneOptions) -> PreparedSet:
    """Judge every picture and prepare those that are taken.

    Args:
        paths: Picture files.
        tools: Find faces, where a square around one is asked for.
        options: How.

    Raises:
        NoUsablePhoto: Not one can be used; each one's verdict says why.
        PhotoError: There are no pictures.
    """
    if not paths:
        raise PhotoError("no photos were given; name pictures or a folder with pictures")
    seen: list[_Seen] = []
    for step, path in enumerate(paths, start=1):
        caption = options.captions[step - 1] if options.captions else ""
        seen.append(_look(path, caption, options, seen))
        told = Event(kind="progress", stage="checking photos", step=step, total=len(paths), message=path.name)
        options.listener(told)
    taken = [one for one in seen if one.verdict.accepted]
    verdicts = tuple(one.verdict for one in seen)
    if not taken:
        raise NoUsablePhoto(_why_none(verdicts), verdicts)
    photos = []
    for step, one in enumerate(taken, start=1):
        photos.append(_prepare_one(one, tools, options))
        options.listener(Event(kind="progress", stage="preparing photos", step=step, total=len(taken)))
    first = taken[0].verdict
    return PreparedSet(
        photos=tuple(photos),
        verdicts=tuple(replace(verdict, is_reference=verdict is first) for verdict in verdicts),
        reference=0, embedding=np.zeros(0, np.float32), warnings=_warnings(taken, options),
    )  # fmt: skip


def _look(path: Path, caption: str, options: SceneOptions, before: Sequence[_Seen]) -> _Seen:
    name = path.name
    try:
        photo = load_photo(path)
    except (InputError, NotFound, ToolMissing) as error:
        unreadable = Verdict(photo=name, accepted=False, reason=Reason.UNREADABLE, sentence=str(error))
        return _Seen(path=path, caption=caption, verdict=unreadable)
    thumb = _thumb(photo.pixels)
    scores = PhotoScores(sharpness=round(picture_sharpness(photo.pixels), 4))
    reason, sentence = _fault(photo, scores, options.size)
    twin = next((one for one in before if one.verdict.accepted and one.thumb is not None and _alike(thumb, one.thumb)), None)
    if reason is None and twin is not None:
        reason, sentence = Reason.DUPLICATE, f"The same picture as {twin.path.name}, which is kept."
    elif reason is None and sum(one.verdict.accepted for one in before) >= _MOST:
        reason, sentence = Reason.SURPLUS, f"A good picture, but {_MOST} are enough."
    if reason is not None and name in options.override:
        sentence = f"Taken because you said so; it would have been left out as {reason.value}."
        reason, accepted = Reason.OVERRIDDEN, True
    else:
        accepted = reason is None
    verdict = Verdict(
        photo=name, accepted=accepted, reason=reason or Reason.GOOD, scores=scores,
        sentence=sentence or f"A good picture: {photo.width} x {photo.height} px and sharp.",
    )  # fmt: skip
    return _Seen(path=path, caption=caption, verdict=verdict, thumb=thumb)


def _fault(photo: Photo, scores: PhotoScores, size: int) -> tuple[Reason | None, str]:
    """The first gate the picture does not pass, with its sentence; (None, "") if it passes all."""
    least = math.ceil(LEAST_SHARE * size)
    if min(photo.width, photo.height) < least:
        return Reason.SMALL_PICTURE, (
            f"The picture has {photo.width} x {photo.height} px; its shorter side needs at least {least}, so take a larger one."
        )
    if (scores.sharpness or 0.0) < LEAST_SHARPNESS:
        return Reason.BLURRED, (
            f"The picture is blurred everywhere (sharpness {scores.sharpness:.2f}, at least {LEAST_SHARPNESS}); "
            "take a sharper one."
        )
    return None, ""


def _prepare_one(one: _Seen, tools: FaceTools, options: SceneOptions) -> PreparedPhoto:
    photo = load_photo(one.path)
    worn = options.kind is TrainKind.CLOTH
    shown = _squared(photo) if worn else _around_face(photo, tools, options.crop_ratio)
    kept = _no_larger(shown, math.ceil(_SPARE * options.size))
    return PreparedPhoto(
        name=photo.name, original=_no_larger(photo, options.size), crop=kept, face=None, scores=one.verdict.scores,
        caption=one.caption,
    )  # fmt: skip


def _around_face(photo: Photo, tools: FaceTools, ratio: float) -> Photo:
    """A square of `ratio` face sizes around the largest face, within the picture; the picture itself without one."""
    face = largest_face(tools, photo) if ratio >= 1 else None
    if face is None:
        return photo
    side = round(min(ratio * max(face.box.width, face.box.height), photo.width, photo.height))
    # A portrait has its face above the middle: three quarters of what is added lie below it.
    x, y = face.box.center[0], face.box.center[1] + (ratio - 1) / 4 * face.box.height
    left = round(min(max(x - side / 2, 0), photo.width - side))
    top = round(min(max(y - side / 2, 0), photo.height - side))
    return Photo(pixels=photo.pixels[top : top + side, left : left + side], name=photo.name)


def _squared(photo: Photo) -> Photo:
    """The picture in the middle of a white square."""
    side = max(photo.width, photo.height)
    square = np.full((side, side, 3), _WHITE, np.uint8)
    top, left = (side - photo.height) // 2, (side - photo.width) // 2
    square[top : top + photo.height, left : left + photo.width] = photo.pixels
    return Photo(pixels=square, name=photo.name)


def _no_larger(photo: Photo, shorter: int) -> Photo:
    """Shrunk so that the shorter side has no more px than that."""
    scale = shorter / min(photo.width, photo.height)
    if scale >= 1:
        return photo
    size = round(photo.width * scale), round(photo.height * scale)
    matrix = np.array([[size[0] / photo.width, 0, 0], [0, size[1] / photo.height, 0]])
    return Photo(pixels=geometry.warp(photo.pixels, matrix, size, geometry.REPLICATE), name=photo.name)


def _thumb(pixels: Pixels) -> Floats:
    return np.asarray(cv2.resize(pixels, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA), np.float32)


def _alike(one: Floats, other: Floats) -> bool:
    return bool(np.abs(one - other).mean() < _SAME)


def _why_none(verdicts: Sequence[Verdict]) -> str:
    if len(verdicts) == 1:
        return verdicts[0].sentence
    return f"none of the {len(verdicts)} pictures can be used; the first says: {verdicts[0].sentence}"


def _warnings(taken: Sequence[_Seen], options: SceneOptions) -> tuple[str, ...]:
    if options.kind is TrainKind.CLOTH or len(taken) >= _FEW:
        return ()
    return (f"Pictures used: only {len(taken)}; 15 to 20 teach a scene better.",)
