"""Whose photos these are: the one person that most photos show, found by identity vectors alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from easyphoto.faces.embed import distance, median_embedding
from easyphoto.records import Floats

_ROUNDS = 5
_TO_MEDIAN = 0.92
"""A median is steadier than one face, so the limit to it is this share of the limit between two faces. Measured on 80 news
photos of four people with dlib (limit 0.6): own faces up to 0.50 from the median of three photos or more, others' from 0.59."""
_TIGHTEST = 0.7
"""Nor does the limit get smaller than this share, however alike the photos are."""
_SPREADS = 4.0
_ENOUGH_TO_SPREAD = 5
"""From so many photos on, a face further out than the typical one by this many spreads (1.48 x median absolute deviation,
which is the standard deviation of a normal distribution) is another person's: faces drawn by one model lie closer together
than people's do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sighting:
    """One face of one photo, as far as telling people apart needs it."""

    embedding: Floats
    """(128,) identity vector."""
    prominence: float
    """How much of the photo's subject it is: larger and nearer to the middle is more; only breaks ties."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MainPerson:
    """Who most photos show."""

    embedding: Floats
    """(128,) geometric median of this person's faces."""
    faces: tuple[int | None, ...]
    """For each photo the index of its face nearest to this person; None where the photo shows no face."""
    distances: tuple[float | None, ...]
    """For each photo that face's distance to the median."""
    limit: float
    """Distance to the median from which a face is another person's."""
    agreeing: int
    """How many photos show this person."""
    rival: int
    """How many photos show the next most frequent person where that is somebody else, 0 if nobody."""


def find_main_person(photos: Sequence[Sequence[Sighting]], same_person_below: float) -> MainPerson:
    """The person that occurs in most photos.

    Every face is tried as a centre; it gathers from each photo the nearest face that passes for the same person. The
    centre with most photos wins, the more prominent faces where two are even (a couple that is in every picture). The
    median of what it gathered is refined a few times, so one odd photo does not decide.

    Args:
        photos: The faces of each photo.
        same_person_below: Distance under which two faces are taken for one person.

    Returns:
        The person; photos that show somebody else carry their nearest face and its distance.
    """
    every = [sighting for faces in photos for sighting in faces]
    votes = [_gather(photos, sighting.embedding, same_person_below) for sighting in every]
    best = max(votes, key=lambda chosen: _weight(photos, chosen))
    center = _median(photos, best)
    for _ in range(_ROUNDS):
        gathered = _gather(photos, center, same_person_below)
        if not any(index is not None for index in gathered):
            break
        best, center = gathered, _median(photos, gathered)
    nearest = _gather(photos, center, np.inf)
    away = tuple(
        None if index is None else distance(faces[index].embedding, center) for faces, index in zip(photos, nearest)
    )
    others = [chosen for chosen, seed in zip(votes, every) if distance(seed.embedding, center) > same_person_below]
    return MainPerson(
        embedding=center, faces=nearest, distances=away, limit=_limit(away, same_person_below),
        agreeing=_count(best), rival=max((_count(chosen) for chosen in others), default=0),
    )  # fmt: skip


def _gather(photos: Sequence[Sequence[Sighting]], center: Floats, below: float) -> tuple[int | None, ...]:
    """For each photo the index of the face nearest to `center`, None where none is below the limit."""
    chosen: list[int | None] = []
    for faces in photos:
        away = [distance(face.embedding, center) for face in faces]
        index = int(np.argmin(away)) if away else None
        chosen.append(index if index is not None and away[index] < below else None)
    return tuple(chosen)


def _limit(distances: Sequence[float | None], same_person_below: float) -> float:
    """The largest distance to the median at which a face is still this person's."""
    widest, tightest = _TO_MEDIAN * same_person_below, _TIGHTEST * same_person_below
    own = np.array([away for away in distances if away is not None and away < widest])
    if len(own) < _ENOUGH_TO_SPREAD:
        return widest
    typical = float(np.median(own))
    spread = 1.48 * float(np.median(np.abs(own - typical)))
    return float(np.clip(typical + _SPREADS * spread, tightest, widest))


def _weight(photos: Sequence[Sequence[Sighting]], chosen: tuple[int | None, ...]) -> tuple[int, float]:
    prominence = sum(faces[index].prominence for faces, index in zip(photos, chosen) if index is not None)
    return _count(chosen), prominence


def _count(chosen: tuple[int | None, ...]) -> int:
    return sum(index is not None for index in chosen)


def _median(photos: Sequence[Sequence[Sighting]], chosen: tuple[int | None, ...]) -> Floats:
    return median_embedding(np.stack([f[i].embedding for f, i in zip(photos, chosen) if i is not None]))
