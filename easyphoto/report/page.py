"""The demo's page: photos with verdicts, validation over steps, and every stage of every portrait, in one HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from easyphoto.files import write_text
from easyphoto.records import Photo, Pixels, PreparedSet, Verdict
from easyphoto.report.chart import score_chart
from easyphoto.specs import CheckpointScore, FaceOutcome, Person, PortraitResult, TrainResult

SAME_PERSON_BELOW = 0.6
"""dlib's own threshold: two faces nearer than this are taken for one person."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PortraitEntry:
    """One finished portrait and the template it was made from."""

    template_name: str
    template: Photo
    result: PortraitResult


@dataclass(frozen=True, kw_only=True, eq=False)
class PersonReport:
    """Everything the page shows of one person."""

    person: Person
    photos: tuple[Photo | None, ...]
    """The photos as handed in, in the order of the verdicts; None for one that cannot be read."""
    prepared: PreparedSet
    training: TrainResult
    portraits: tuple[PortraitEntry, ...]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What was run where, shown at the foot of the page."""

    command: str
    machine: str
    version: str
    seconds: tuple[tuple[str, float], ...]
    """(part, seconds) in order."""


def write_page(path: Path, report: PersonReport, facts: RunFacts) -> None:
    """Write the page to `path`; pictures are inside it, nothing is loaded from elsewhere."""
    style, script = (_beside(name) for name in ("page.css", "page.js"))
    parts = (_hero(report), _photos(report), _training(report), _portraits(report), _foot(facts))
    write_text(
        path,
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.person.name)}: from photos to portraits</title><style>{style}</style></head>"
        f"<body>{''.join(parts)}<script>{script}</script></body></html>\n",
    )


def _beside(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def data_uri(pixels: Pixels, longest: int = 512, quality: int = 88) -> str:
    """A JPEG data URI of a picture, shrunk so that its longer side is at most `longest` px."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _image(pixels: Pixels, alt: str, longest: int = 512) -> str:
    return f'<img alt="{escape(alt)}" src="{data_uri(pixels, longest)}" loading="lazy">'


def _file_image(path: Path, alt: str, longest: int = 256) -> str:
    with Image.open(path) as opened:
        return _image(np.asarray(opened.convert("RGB")), alt, longest)


def _verdict_text(similarity: float | None) -> str:
    """Similarity (1 - distance) as words a person understands, with the number."""
    if similarity is None:
        return '<span class="score none">no face found</span>'
    same = 1.0 - similarity < SAME_PERSON_BELOW
    word = "same person" if same else "not verified"
    return (
        f'<span class="score {"good" if same else "weak"}" title="dlib distance {1 - similarity:.3f}; '
        f'below {SAME_PERSON_BELOW} is the same person">{word} &middot; {similarity:.2f}</span>'
    )


def _hero(report: PersonReport) -> str:
    best = sorted(report.portraits, key=_entry_score, reverse=True)[:1]
    pictures = "".join(_compare(entry) for entry in best)
    accepted = sum(verdict.accepted for verdict in report.prepared.verdicts)
    return (
        f'<header><div class="words"><p class="kicker">easyphoto</p><h1>{escape(report.person.name)}</h1>'
        f"<p>{accepted} of {len(report.prepared.verdicts)} photos were taken, {report.training.steps} training steps "
        f"in {report.training.seconds:.0f} seconds, and {len(report.portraits)} portraits. "
        f"Drag the line to see what was there before.</p></div>{pictures}</header>"
    )


def _entry_score(entry: PortraitEntry) -> float:
    return max((face.similarity or 0.0 for face in entry.result.faces), default=0.0)


def _compare(entry: PortraitEntry) -> str:
    return (
        f'<div class="compare"><img alt="template" src="{data_uri(entry.template.pixels, 768)}">'
        f'<img class="after" alt="portrait" src="{data_uri(entry.result.picture.pixels, 768)}">'
        '<input type="range" min="0" max="100" value="50" aria-label="before and after"></div>'
    )


def _section(title: str, words: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(words)}</p>{body}</section>"


def _photos(report: PersonReport) -> str:
    pairs = zip(report.prepared.verdicts, report.photos, strict=True)
    cards = "".join(_photo_card(verdict, photo) for verdict, photo in pairs)
    words = "Each photo with what was found out about it. The one with the golden edge became the reference."
    warnings = "".join(f'<p class="warning">{escape(warning)}</p>' for warning in report.prepared.warnings)
    crops = "".join(f"<figure>{_image(item.crop.pixels, item.name, 160)}</figure>" for item in report.prepared.photos)
    return _section(
        "The photos",
        words,
        f'{warnings}<div class="photos">{cards}</div><h3>What the training sees</h3><div class="crops">{crops}</div>',
    )


def _photo_card(verdict: Verdict, photo: Photo | None) -> str:
    picture = _image(photo.pixels, verdict.photo, 240) if photo else '<div class="unreadable">?</div>'
    scores = verdict.scores
    facts = [
        f"identity {scores.identity:.2f}" if scores.identity is not None else "",
        f"sharpness {scores.sharpness:.2f}" if scores.sharpness is not None else "",
        f"frontal {scores.frontality:.2f}" if scores.frontality is not None else "",
    ]
    kind = "reference" if verdict.is_reference else "taken" if verdict.accepted else "left"
    return (
        f'<figure class="photo {kind}">{picture}<figcaption><b>{escape(verdict.reason.value)}</b>'
        f"<span>{escape(verdict.sentence)}</span><small>{' &middot; '.join(filter(None, facts))}</small>"
        f"</figcaption></figure>"
    )


def _training(report: PersonReport) -> str:
    training = report.training
    if not training.checkpoints:
        return _section("The training", "This training was not judged while it ran; its last step was kept.", "")
    words = (
        "Every checkpoint was rendered on the same templates, through the ControlNets the portraits use, and compared "
        "with the photos. The best were merged; the chosen row is marked."
    )
    rows = "".join(_checkpoint_row(mark, index == training.chosen) for index, mark in enumerate(training.checkpoints))
    chart = score_chart(training.checkpoints, training.chosen, training.losses)
    return _section("The training", words, f'{chart}<div class="grid">{rows}</div>')


def _checkpoint_row(mark: CheckpointScore, chosen: bool) -> str:
    name = "merged" if mark.merged else f"step {mark.step}"
    pictures = "".join(
        f'<figure>{_file_image(path, name)}<figcaption class="num">{score:.2f}</figcaption></figure>'
        for path, score in zip(mark.pictures, mark.picture_scores, strict=True)
    )
    state = " chosen" if chosen else ""
    return f'<div class="row{state}"><div class="step"><b>{name}</b><span>{mark.score:.3f}</span></div>{pictures}</div>'


def _portraits(report: PersonReport) -> str:
    words = "From left to right: the template's crop, the fused reference, the first pass, the second pass, the result."
    return _section("The portraits", words, "".join(_portrait(entry) for entry in report.portraits))


def _portrait(entry: PortraitEntry) -> str:
    faces = "".join(_face_stages(face) for face in entry.result.faces)
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in entry.result.warnings)
    return (
        f'<article class="portrait"><h3>{escape(entry.template_name)}</h3><div class="pair">{_compare(entry)}'
        f'<div class="stages">{faces}{warnings}'
        f"<details><summary>parameters</summary><pre>{escape(entry.result.infotext)}</pre></details>"
        f"</div></div></article>"
    )


def _face_stages(face: FaceOutcome) -> str:
    pictures = "".join(
        f"<figure>{_image(photo.pixels, name, 384)}<figcaption>{escape(name)}</figcaption></figure>"
        for name, photo in face.stages
    )
    return f"<p>{_verdict_text(face.similarity)}</p><div class=strip>{pictures}</div>"


def _foot(facts: RunFacts) -> str:
    times = _rows((name, f"{seconds:.1f} s") for name, seconds in facts.seconds)
    return (
        f"<footer><table>{times}</table><p>easyphoto {escape(facts.version)} &middot; {escape(facts.machine)} "
        f"&middot; <code>{escape(facts.command)}</code></p><p>The people and templates on this page were drawn by the "
        "embedded base model; they are nobody.</p></footer>"
    )


def _rows(pairs: Iterable[Sequence[str]]) -> str:
    return "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in pair) + "</tr>" for pair in pairs)
