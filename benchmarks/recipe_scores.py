"""What the pictures of `recipes.py` are worth: scores of each, and the tables made of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.recipe_people import Subject, read_people

if TYPE_CHECKING:
    from easyphoto.faces.tools import FaceTools


@dataclass(frozen=True, kw_only=True)
class Score:
    """Of one picture."""

    recipe: str
    person: str
    step: int
    template: str
    likeness: float
    """1 - dlib distance to the median of the photos trained on, as the product scores checkpoints; 0 without a face."""
    held_out: float | None
    """The same to the median of photos held out."""
    sharpness: float
    """0-1, of the face: a likeness drawn as mush scores well with dlib and badly here."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which pictures are scored; all where nothing is said."""

    recipes: Sequence[str] = ()
    people: Sequence[str] = ()
    steps: Sequence[int] = ()
    part: tuple[int, int] = (0, 1)

    def holds(self, recipe: str, person: str, step: int) -> bool:
        """Whether a picture is among them."""
        pairs = ((recipe, self.recipes), (person, self.people), (step, self.steps))
        return all(not some or one in some for one, some in pairs)


def score_all(work: Path, wanted: Wanted) -> list[Score]:
    """Scores of the pictures that are wanted and of those that were scored before."""
    from easyphoto.faces.tools import FaceTools

    people, tools = {one.name: one for one in read_people(work / "people")}, FaceTools()
    known = {path: score for file in sorted(work.glob("scores-*.json")) for path, score in _known(file)}
    number, parts = wanted.part
    todo = []
    for path in sorted((work / "pictures").glob("*/*.jpg")):
        person, step, _ = _said(path)
        if _key(path) not in known and wanted.holds(path.parent.name, person, step):
            todo.append(path)
    known |= {_key(path): _score(path, people, tools) for path in todo[number::parts]}
    written = {key: asdict(score) for key, score in known.items()}
    (work / f"scores-{number}-of-{parts}.json").write_text(json.dumps(written), encoding="utf-8")
    return [*known.values()]


def _key(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _said(path: Path) -> tuple[str, int, str]:
    """Person, step and template of a picture."""
    person, step, template = path.stem.split("-", 2)
    return person, int(step), template


def _known(file: Path) -> Iterator[tuple[str, Score]]:
    for key, fields in json.loads(file.read_text(encoding="utf-8")).items():
        yield key, Score(**fields)


def _score(path: Path, people: Mapping[str, Subject], tools: FaceTools) -> Score:
    from easyphoto.imaging.io import load_photo
    from easyphoto.training.gallery import largest_face
    from easyphoto.training.quality import face_quality

    person, step, template = _said(path)
    photo, subject = load_photo(path), people[person]
    face = largest_face(tools, photo)
    likeness, held_out, sharp = 0.0, None if subject.held_out is None else 0.0, 0.0
    if face is not None:
        vector = np.asarray(tools.with_embedding(photo, face).embedding)
        likeness = 1 - float(np.linalg.norm(vector - subject.prepared.embedding))
        held_out = None if subject.held_out is None else 1 - float(np.linalg.norm(vector - subject.held_out))
        sharp = face_quality(photo, face).sharpness
    return Score(
        recipe=path.parent.name, person=person, step=step, template=template, likeness=round(likeness, 4),
        held_out=held_out if held_out is None else round(held_out, 4), sharpness=round(sharp, 4),
    )  # fmt: skip


def tables(work: Path, scores: Sequence[Score], chosen_by: Sequence[str]) -> str:
    """A table for the people that the choice was made by and one for the others; writes results.json."""
    names = sorted({score.person for score in scores})
    groups = {"chosen by": [name for name in names if name in chosen_by], "others": [n for n in names if n not in chosen_by]}
    parts, written = [], {}
    for title, group in groups.items():
        own = [score for score in scores if score.person in group]
        if own:
            parts.append(f"\n{title}: {', '.join(group)}\n{_table(work, own)}")
            written[title] = _curves(own)
    written["scores"] = [asdict(score) for score in scores]
    (work / "results.json").write_text(json.dumps(written), encoding="utf-8")
    return "\n".join(parts)


def _curves(scores: Sequence[Score]) -> dict[str, dict[int, float]]:
    """Mean likeness by recipe and step."""
    found: dict[str, dict[int, list[float]]] = {}
    for score in scores:
        found.setdefault(score.recipe, {}).setdefault(score.step, []).append(score.likeness)
    return {recipe: {step: fmean(values) for step, values in sorted(steps.items())} for recipe, steps in found.items()}


def _table(work: Path, scores: Sequence[Score]) -> str:
    curves = _curves(scores)
    steps = sorted({step for curve in curves.values() for step in curve})
    goal = max(curves["today"].values()) if "today" in curves else max(max(curve.values()) for curve in curves.values())
    lines = [
        f"S = {goal:.3f}: the best of today's recipe",
        f"| recipe | {' | '.join(map(str, steps))} | steps to S | seconds to S | held out, last | sharpness, last |",
        "|---" * (len(steps) + 5) + "|",
    ]
    for recipe, curve in sorted(curves.items(), key=lambda item: -max(item[1].values())):
        last = [score for score in scores if score.recipe == recipe and score.step == max(curve)]
        out = [score.held_out for score in last if score.held_out is not None]
        reached, each = steps_to(curve, goal), _seconds(work, recipe)
        cells = [f"{curve[step]:.3f}" if step in curve else "-" for step in steps]
        seconds = "-" if reached is None or each is None else f"{reached * each:.1f}"
        lines.append(
            f"| {recipe} | {' | '.join(cells)} | {'-' if reached is None else f'{reached:.0f}'} | {seconds} | "
            f"{f'{fmean(out):.3f}' if out else '-'} | {fmean(score.sharpness for score in last):.3f} |"
        )
    return "\n".join(lines)


def steps_to(curve: Mapping[int, float], goal: float) -> float | None:
    """The step at which a curve first reaches the goal, in a straight line between two; None if it never does."""
    before: tuple[int, float] | None = None
    for step, value in sorted(curve.items()):
        if value >= goal:
            if before is None or value == before[1]:
                return float(step)
            return before[0] + (goal - before[1]) / (value - before[1]) * (step - before[0])
        before = step, value
    return None


def _seconds(work: Path, recipe: str) -> float | None:
    """A step's seconds, all people of a run together."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in (work / "pictures" / recipe).glob("times-*.json")]
    return fmean(times["seconds"] / times["steps"] for times in found) if found else None
