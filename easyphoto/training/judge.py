"""Decides on every photo: taken or left out, with the reason in one sentence and the scores it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from easyphoto.records import PhotoScores, Reason, Verdict
from easyphoto.training.duplicates import twins
from easyphoto.training.identity import MainPerson
from easyphoto.training.quality import FaceQuality
from easyphoto.training.survey import Seen, SeenFace

LEAST_FACE_PX = 48.0
"""Longer side of the face box. Below it even an enlarged face has no eyes to learn."""
LEAST_SHARPNESS = 0.33
"""Measured: 80 news photos 0.45-0.67, 60 portraits 0.43-0.67; the same blurred by 3 % of the face's width 0.17-0.34."""
MOST_YAW = 55.0
MOST_PITCH = 38.0
"""Degrees; further away half of the face is not seen."""
SURELY_ANOTHER = 0.75
"""A distance that no bad picture of the same person explains."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """One photo with the face that is judged."""

    seen: Seen
    face: SeenFace | None
    distance: float | None
    """Of that face to the person's median; None where there is nothing to compare it with."""

    @property
    def scores(self) -> PhotoScores:
        """What is known, for the verdict."""
        if self.face is None:
            return PhotoScores(faces=self.seen.count)
        quality = self.face.quality
        return PhotoScores(
            face_px=quality.face_px, sharpness=quality.sharpness, frontality=quality.frontality,
            identity=None if self.distance is None else 1.0 - self.distance, faces=self.seen.count,
        )  # fmt: skip

    @property
    def worth(self) -> float:
        """How good a photo it is: frontality x identity x sharpness, as for the reference, and the face's size."""
        scores = self.scores
        if scores.frontality is None or scores.sharpness is None or scores.face_px is None:
            return 0.0
        size = min(1.0, scores.face_px / 256.0)
        return likeness(scores) * (0.5 + 0.5 * size)


def likeness(scores: PhotoScores) -> float:
    """Frontality x identity x sharpness: the best of it is the reference photo."""
    identity = 1.0 if scores.identity is None else max(0.0, scores.identity)
    return (scores.frontality or 0.0) * identity * (scores.sharpness or 0.0)


def judge(
    photos: Sequence[Seen], person: MainPerson, override: frozenset[str], most: int
) -> tuple[tuple[Candidate, Verdict], ...]:
    """A verdict on every photo, in the order given.

    Args:
        photos: What the survey saw.
        person: Whose photos they are.
        override: File names that are taken whatever is found, if a face is.
        most: How many photos are taken at most; the best are.
    """
    pairs = []
    for photo, index, away in zip(photos, person.faces, person.distances):
        compared = away if sum(bool(each.faces) for each in photos) > 1 else None
        candidate = Candidate(seen=photo, face=None if index is None else photo.faces[index], distance=compared)
        pairs.append((candidate, _first_verdict(candidate, person.limit, override)))
    _settle_duplicates(pairs)
    _settle_surplus(pairs, most)
    return tuple(pairs)


def _first_verdict(candidate: Candidate, limit: float, override: frozenset[str]) -> Verdict:
    """What one photo alone gives reason for."""
    name, seen = candidate.seen.name, candidate.seen
    if seen.trouble:
        return Verdict(photo=name, accepted=False, reason=Reason.UNREADABLE, sentence=seen.trouble)
    if candidate.face is None:
        sentence = f"No face was found in {name}; take one that shows the face from the front."
        return Verdict(photo=name, accepted=False, reason=Reason.NO_FACE, sentence=sentence, scores=candidate.scores)
    reason, why = _fault(candidate.face.quality, candidate.distance, limit)
    if reason is not None and name in override:
        sentence = f"Taken because you said so; it would have been left out as {reason.value}."
        return Verdict(photo=name, accepted=True, reason=Reason.OVERRIDDEN, sentence=sentence, scores=candidate.scores)
    if reason is not None:
        return Verdict(photo=name, accepted=False, reason=reason, sentence=why, scores=candidate.scores)
    others = seen.count - 1
    beside = f", chosen among {seen.count} faces" if others else ""
    sentence = f"A good photo: the face is {candidate.face.quality.face_px:.0f} px, sharp and clearly seen{beside}."
    return Verdict(photo=name, accepted=True, reason=Reason.GOOD, sentence=sentence, scores=candidate.scores)


def _fault(quality: FaceQuality, away: float | None, limit: float) -> tuple[Reason | None, str]:
    """The first gate a face does not pass, with its sentence; (None, "") if it passes all.

    Size, blur and cover spoil the identity vector too, so they are told first, unless the face is so far off that it
    cannot be the same person.
    """
    other = "This is another person's face"
    if away is not None and away >= SURELY_ANOTHER:
        return Reason.OTHER_PERSON, f"{other} (distance {away:.2f}, this person's stay below {limit:.2f}); leave it out."
    if quality.face_px < LEAST_FACE_PX:
        return Reason.TOO_SMALL, (
            f"The face is only {quality.face_px:.0f} px; at least {LEAST_FACE_PX:.0f} px are needed, so take a closer one."
        )
    if abs(quality.yaw) > MOST_YAW or abs(quality.pitch) > MOST_PITCH:
        return Reason.COVERED, "The face is turned too far away; take one that looks more towards the camera."
    if quality.sharpness < LEAST_SHARPNESS:
        return Reason.BLURRED, (
            f"The face is blurred (sharpness {quality.sharpness:.2f}, at least {LEAST_SHARPNESS}); take a sharper one."
        )
    if quality.cover and quality.cover.what:  # after blur, which flattens eyes and mouth too
        return Reason.COVERED, f"Something covers {quality.cover.what}; take one with nothing before the face."
    if away is not None and away >= limit:
        return Reason.OTHER_PERSON, (
            f"{other}, or a very unlike picture (distance {away:.2f}, this person's stay below {limit:.2f}); "
            "take it by name if it is the same person."
        )
    return None, ""


def _settle_duplicates(pairs: list[tuple[Candidate, Verdict]]) -> None:
    """Of photos that are one picture the best is kept; one that was taken by name stays."""
    free = [place for place, (_, verdict) in enumerate(pairs) if verdict.accepted]
    faces = [(place, face) for place in free if (face := pairs[place][0].face) is not None]
    worth = [pairs[place][0].worth + 10.0 * (pairs[place][1].reason is Reason.OVERRIDDEN) for place, _ in faces]
    for worse, better in twins([face.look for _, face in faces], worth).items():
        place, twin = faces[worse][0], pairs[faces[better][0]][0].seen.name
        candidate, verdict = pairs[place]
        if verdict.reason is not Reason.OVERRIDDEN:
            sentence = f"The same picture as {twin}, which is kept as the better one."
            pairs[place] = candidate, replace(verdict, accepted=False, reason=Reason.DUPLICATE, sentence=sentence)


def _settle_surplus(pairs: list[tuple[Candidate, Verdict]], most: int) -> None:
    """Beyond `most` photos the least good are left out."""
    taken = [place for place, (_, verdict) in enumerate(pairs) if verdict.accepted]
    ranked = sorted(taken, key=lambda place: (pairs[place][1].reason is not Reason.OVERRIDDEN, -pairs[place][0].worth))
    for place in ranked[most:]:
        candidate, verdict = pairs[place]
        sentence = f"A good photo, but {most} better ones are enough."
        pairs[place] = candidate, replace(verdict, accepted=False, reason=Reason.SURPLUS, sentence=sentence)
