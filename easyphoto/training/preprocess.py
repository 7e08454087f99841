"""From any photos to a person's training set: every photo judged, every taken one cropped, cleared and cleaned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from easyphoto.errors import PhotoError, SpecError
from easyphoto.events import Event, Listener, ignore
from easyphoto.faces.embed import median_embedding
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging import geometry, masks
from easyphoto.imaging.io import load_photo
from easyphoto.records import Face, Floats, Photo, PreparedPhoto, PreparedSet, Reason, Verdict
from easyphoto.training.identity import MainPerson, find_main_person
from easyphoto.training.judge import Candidate, judge
from easyphoto.training.prepared_files import read_prepared, write_prepared
from easyphoto.training.reference import choose_reference
from easyphoto.training.survey import Seen, survey

__all__ = ["NoUsablePhoto", "PrepareOptions", "prepare", "read_prepared", "write_prepared"]

_RETOUCH = 0.5
_KEPT_PIXELS = 1_500_000
"""An original is shrunk to this many pixels to be shown; the crop is made before."""
_STRANGERS = "no two faces are alike; take photos of one person, or name those that are to be taken anyway"
_FEW = 5
_WHITE = 255.0


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How photos are prepared."""

    override: frozenset[str] = frozenset()
    """File names that are taken whatever the verdict, if they show a face."""
    retouch: bool = True
    max_photos: int = 30
    """The best so many are taken."""
    size: int = 256
    """Side of the training crops in px."""
    crop_ratio: float = 1.8
    """Side of a crop in longer sides of the face; `families.PROFILES` says each family's."""
    templates: tuple[Path, ...] = ()
    """Pictures on which the likeliest photos are tried as reference; without any, the likeliest is taken."""
    listener: Listener = ignore

    def __post_init__(self) -> None:
        if not 1 <= self.max_photos <= 1000:
            raise SpecError(f"max_photos must be within 1-1000, got {self.max_photos}")
        if not 64 <= self.size <= 2048:
            raise SpecError(f"size must be within 64-2048 px, got {self.size}")
        if not 1.0 <= self.crop_ratio <= 6.0:
            raise SpecError(f"crop_ratio must be within 1-6 face sizes, got {self.crop_ratio}")


class NoUsablePhoto(PhotoError):
    """Not one photo can be trained on; each photo's own verdict says why."""

    def __init__(self, sentence: str, verdicts: tuple[Verdict, ...]) -> None:
        super().__init__(sentence)
        self.verdicts = verdicts


def prepare(paths: Sequence[Path], tools: FaceTools, options: PrepareOptions | None = None) -> PreparedSet:
    """Judge every photo and prepare those that are taken.

    Args:
        paths: Photo files; see `imaging.io.photo_files` for folders.
        tools: The face tools.
        options: How; see `PrepareOptions`.

    Returns:
        The prepared photos with a verdict on each photo handed in, in that order.

    Raises:
        NoUsablePhoto: Not one can be used, or they show different people.
        PhotoError: There are no photos.
        ToolMissing: A face tool is not installed.
    """
    options = options or PrepareOptions()
    if not paths:
        raise PhotoError("no photos were given; name pictures or a folder with pictures")
    seen = survey(paths, tools, options.listener)
    person = _main_person(seen, tools.recognizer.same_person_below)
    pairs = judge(seen, person, options.override, options.max_photos) if person else _no_faces(seen)
    _refuse_strangers(seen, person, pairs, options.override)
    taken = [candidate for candidate, verdict in pairs if verdict.accepted]
    if person is None or not taken:
        verdicts = tuple(verdict for _, verdict in pairs)
        raise NoUsablePhoto(_why_none(verdicts), verdicts)
    photos = []
    for step, candidate in enumerate(taken, start=1):
        photos.append(_prepare_one(candidate, tools, options))
        options.listener(Event(kind="progress", stage="preparing photos", step=step, total=len(taken)))
    middle = _median(photos)
    reference = choose_reference(photos, middle, options.templates, tools, options.crop_ratio)
    return PreparedSet(
        photos=tuple(photos),
        verdicts=_with_reference(pairs, taken[reference]),
        reference=reference,
        embedding=middle,
        warnings=_warnings(seen, person, len(photos)),
    )


def _main_person(seen: Sequence[Seen], limit: float) -> MainPerson | None:
    """Whose photos these are, None if no photo shows a face."""
    sightings = [[face.sighting for face in photo.faces] for photo in seen]
    return find_main_person(sightings, limit) if any(sightings) else None


def _refuse_strangers(
    seen: Sequence[Seen], person: MainPerson | None, pairs: Sequence[tuple[Candidate, Verdict]], override: frozenset[str]
) -> None:
    """Refuse three or more photos no two of which show the same person, unless photos were taken by name."""
    with_faces = sum(bool(photo.faces) for photo in seen)
    if person is None or with_faces <= 2 or person.agreeing >= 2 or override & {photo.name for photo in seen}:
        return
    verdicts = tuple(
        replace(verdict, accepted=False, reason=Reason.OTHER_PERSON, sentence=f"{_STRANGERS.capitalize()}.")
        if verdict.accepted or verdict.reason is Reason.OTHER_PERSON else verdict
        for _, verdict in pairs
    )  # fmt: skip
    raise NoUsablePhoto(f"the {with_faces} photos show different people: {_STRANGERS}", verdicts)


def _no_faces(seen: Sequence[Seen]) -> tuple[tuple[Candidate, Verdict], ...]:
    """The verdicts where no photo shows any face."""
    nobody = MainPerson(
        embedding=np.zeros(128, np.float32), faces=(None,) * len(seen), distances=(None,) * len(seen),
        limit=0.0, agreeing=0, rival=0,
    )  # fmt: skip
    return judge(seen, nobody, frozenset(), len(seen))


def _why_none(verdicts: Sequence[Verdict]) -> str:
    """One sentence that counts the reasons; a single photo's own sentence."""
    if len(verdicts) == 1:
        return verdicts[0].sentence
    reasons = [verdict.reason for verdict in verdicts]
    counted = ", ".join(f"{reasons.count(reason)} {reason.value}" for reason in dict.fromkeys(reasons))
    return (
        f"none of the {len(verdicts)} photos can be used ({counted}); take sharp photos that show one person's face "
        f"from the front; the first says: {verdicts[0].sentence}"
    )


def _prepare_one(candidate: Candidate, tools: FaceTools, options: PrepareOptions) -> PreparedPhoto:
    assert candidate.face is not None  # noqa: S101  a photo without a face is not accepted
    photo = load_photo(candidate.seen.path)
    cut, others = _cut(photo, candidate, options)
    shown = geometry.warp(np.ones(photo.pixels.shape[:2], np.float32), cut.matrix, _size(cut.photo), geometry.BLACK)
    crop, face = _on_white(cut.photo, cut.face, others, np.clip(shown, 0, 1), tools), cut.face
    if options.retouch:
        crop = tools.retoucher.retouch(crop, face, _RETOUCH)
    if crop.width < options.size:
        zoom = options.size / crop.width
        crop = tools.enhancer.enhance(crop, zoom)
        face = geometry.move_face(face, np.array([[zoom, 0, 0], [0, zoom, 0]]))
    return PreparedPhoto(
        name=photo.name, original=_shrunk(photo), crop=crop, face=face, scores=candidate.scores
    )


def _cut(photo: Photo, candidate: Candidate, options: PrepareOptions) -> tuple[geometry.Crop, list[Face]]:
    """The upright square around the face, at its own resolution or the training size, whichever is smaller."""
    assert candidate.face is not None  # noqa: S101  see `_prepare_one`
    face = candidate.face.face
    upright = geometry.move_face(face, geometry.upright_matrix(face))
    own = math.ceil(options.crop_ratio * max(upright.box.width, upright.box.height))
    cut = geometry.crop_square(
        photo, face, options.crop_ratio, min(own, options.size), upright=True, border=geometry.REPLICATE
    )
    others = [geometry.move_face(other.face, cut.matrix) for other in candidate.seen.faces if other.face is not face]
    return cut, others


def _size(photo: Photo) -> tuple[int, int]:
    return photo.width, photo.height


def _on_white(crop: Photo, face: Face, others: Sequence[Face], seen: Floats, tools: FaceTools) -> Photo:
    """The person on white.

    What is nearer to another face, what is not joined to this one, and what lies beyond the photo is not the person.
    """
    mask = tools.segmenter.person_mask(crop) * _own_ground(crop, face, others)
    mask = _joined_to(face, mask) * seen
    pixels = crop.pixels * mask[..., None] + _WHITE * (1 - mask[..., None])
    return Photo(pixels=np.asarray(np.rint(pixels), np.uint8), name=crop.name)


def _joined_to(face: Face, mask: Floats) -> Floats:
    """The mask without islands: strangers and ghosts in the background that do not touch the person."""
    count, labels = cv2.connectedComponents((mask > 0.5).astype(np.uint8))
    height, width = mask.shape
    x = min(max(int(face.landmarks[2, 0]), 0), width - 1)
    y = min(max(int(face.landmarks[2, 1]), 0), height - 1)
    if count <= 2 or labels[y, x] == 0:
        return mask
    body = masks.dilate((labels == labels[y, x]).astype(np.float32), 0.04 * masks.face_width(face))
    return np.asarray(mask * masks.feather(body, 0.03 * masks.face_width(face)), np.float32)


def _own_ground(crop: Photo, face: Face, others: Sequence[Face]) -> Floats:
    """(height, width) 0-1: nearer to `face` than to any other, in face sizes; soft over a tenth of a face."""
    y, x = np.mgrid[: crop.height, : crop.width] + 0.5
    ground = np.ones((crop.height, crop.width), np.float32)
    own = _away(face, x, y)
    for other in others:
        ground = np.minimum(ground, np.clip((_away(other, x, y) - own) / 0.1 + 0.5, 0, 1))
    return np.asarray(ground, np.float32)


def _away(face: Face, x: Floats, y: Floats) -> Floats:
    middle, size = face.box.center, max(face.box.width, face.box.height)
    return np.asarray(np.hypot(x - middle[0], y - middle[1]) / size, np.float32)


def _shrunk(photo: Photo) -> Photo:
    scale = math.sqrt(_KEPT_PIXELS / (photo.width * photo.height))
    if scale >= 1:
        return photo
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    matrix = np.array([[size[0] / photo.width, 0, 0], [0, size[1] / photo.height, 0]])
    return Photo(pixels=geometry.warp(photo.pixels, matrix, size, geometry.REPLICATE), name=photo.name)


def _median(photos: Sequence[PreparedPhoto]) -> Floats:
    return median_embedding(np.stack([known for item in photos if (known := item.own_face.embedding) is not None]))


def _with_reference(pairs: Sequence[tuple[Candidate, Verdict]], reference: Candidate) -> tuple[Verdict, ...]:
    return tuple(replace(verdict, is_reference=candidate is reference) for candidate, verdict in pairs)


def _warnings(seen: Sequence[Seen], person: MainPerson, taken: int) -> tuple[str, ...]:
    """What a person should know before training."""
    warnings = []
    if taken == 1:
        warnings.append("Only one photo is used: the likeness will be weak; 5 to 20 photos give a good one.")
    elif taken < _FEW:
        warnings.append(f"Only {taken} photos are used; 5 to 20 give a better likeness.")
    if person.agreeing < 2 and sum(bool(photo.faces) for photo in seen) > 1:
        warnings.append("The photos show different people; check that the right one was taken.")
    elif person.agreeing > 1 and person.rival >= person.agreeing:
        warnings.append(
            f"Two people are in {person.agreeing} photos each; the one more in front was taken: check that it is right."
        )
    if len(seen) == 1 and seen[0].count > 1:
        warnings.append(f"The only photo shows {seen[0].count} faces; the one most in front was taken.")
    return tuple(warnings)

