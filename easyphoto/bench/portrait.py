"""PortraitBench: real and sample people on templates of their sex, our portraits beside three rivals, measured alike."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from easyphoto.app import App, Watch
from easyphoto.bench.measures import Interval, Made, Score, Stage, Subject, measure, over_people
from easyphoto.bench.rivals import OURS, Materials, Rival, rivals
from easyphoto.bench.sheet import save_sheet
from easyphoto.demo import SAMPLES, matching_templates
from easyphoto.engine.detect import detect_family
from easyphoto.errors import NotFound, PhotoError
from easyphoto.events import Event
from easyphoto.faces.embed import distance
from easyphoto.files import write_text
from easyphoto.imaging.io import load_photo, photo_files
from easyphoto.orders import TrainOrder
from easyphoto.records import Floats, Photo
from easyphoto.settings import PROJECT_ROOT, Settings
from easyphoto.specs import TrainSpec
from easyphoto.store.codec import to_json
from easyphoto.store.templates import list_templates

REAL_PEOPLE = PROJECT_ROOT.parent / "shared" / "data" / "people"
SEX_OF_REAL = {"person_a": "woman", "person_b": "man", "person_c": "woman", "person_d": "man"}
TRAINED_ON = {20: 12, 10: 7}
"""How many of a person's photos are trained on; the rest is held out."""


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What the bench may be told."""

    output: Path
    real_people: Path | None = None
    """Folder with one folder for each real person; by default the development data beside the project, if it is there."""
    templates: int = 4
    only: tuple[str, ...] = ()
    sexes: tuple[tuple[str, str], ...] = tuple(SEX_OF_REAL.items())
    max_steps: int | None = None
    """Fewer training steps, for a quick look."""


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """All scores, and their table."""

    scores: tuple[Score, ...]
    stages: tuple[tuple[str, float], ...]
    """Mean seconds of each stage of our portraits."""

    def as_json(self) -> dict[str, Any]:
        """For programs, and for comparing runs."""
        return {"kind": "result", "scores": to_json(self.scores), "stages": dict(self.stages)}

    def table(self) -> str:
        """Markdown: one row for each rival, means over people with 95 % intervals."""
        people = len({score.person for score in self.scores})
        pictures = len(self.scores) // max(1, len({score.rival for score in self.scores}))
        head = (
            f"{people} people, {pictures} portraits a rival; means with 95 % intervals over people\n\n"
            "| rival | identity distance | below 0.6 | copying | seam | changed outside | seconds |\n"
            "|---|---|---|---|---|---|---|\n"
        )
        names = list(dict.fromkeys(score.rival for score in self.scores))
        rows = "\n".join(_row(name, [score for score in self.scores if score.rival == name]) for name in names)
        stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.stages)
        return f"{head}{rows}\n\nours, seconds a stage: {stages}\n"


def _row(rival: str, scores: Sequence[Score]) -> str:
    columns: list[Interval | None] = [
        over_people([(score.person, getattr(score, column)) for score in scores])
        for column in ("identity", "verified", "copying", "seam")
    ]
    cells = [str(column) if column else "-" for column in columns]
    seconds = float(np.mean([score.seconds for score in scores]))
    return f"| {rival} | {' | '.join(cells)} | {sum(score.outside for score in scores)} | {seconds:.1f} |"


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """One person's photos, split."""

    name: str
    sex: str
    training: tuple[Path, ...]
    held_out: tuple[Path, ...]


def entrants(options: BenchOptions) -> tuple[Entrant, ...]:
    """The sample people, and the real ones where they are."""
    real = options.real_people or (REAL_PEOPLE if REAL_PEOPLE.is_dir() else None)
    if options.real_people and not options.real_people.is_dir():
        raise NotFound(f"{options.real_people} does not exist; name a folder with one folder for each person")
    sexes = dict(options.sexes)
    folders = [(folder, sexes.get(folder.name, "")) for folder in sorted(real.iterdir()) if folder.is_dir()] if real else []
    folders += [(SAMPLES / sex, sex) for sex in ("woman", "man")]
    chosen = [_entrant(folder, sex) for folder, sex in folders if not options.only or folder.name in options.only]
    if not chosen:
        raise NotFound(f"nobody to bench: {', '.join(options.only)} is none of {[folder.name for folder, _ in folders]}")
    return tuple(chosen)


def _entrant(folder: Path, sex: str) -> Entrant:
    files = photo_files([folder])
    split = TRAINED_ON.get(len(files), max(1, len(files) * 6 // 10))
    return Entrant(name=folder.name, sex=sex, training=files[:split], held_out=files[split:])


def run_bench(settings: Settings, options: BenchOptions, watch: Watch) -> BenchReport:
    """Train and render everybody; writes table.md, results.json and sheet.jpg into `options.output`."""
    options.output.mkdir(parents=True, exist_ok=True)
    app = App(replace(settings, home=options.output / "home"))
    gallery = list_templates(settings.templates)
    report = BenchReport(scores=(), stages=())
    scores: list[Score] = []
    rows: list[tuple[str, list[Photo]]] = []
    stages: dict[str, list[float]] = {}
    for entrant in entrants(options):
        watch.listener(Event(kind="log", message=f"{entrant.name}: training"))
        materials = _materials(app, entrant, options, watch)
        for template in matching_templates(gallery, entrant.sex)[: options.templates]:
            stage = _stage(app, template.name, load_photo(template.path))
            made = {rival.name: _make(rival, materials, stage) for rival in rivals(app)}
            scores += [measure(materials.subject, name, stage, picture, app.tools) for name, picture in made.items()]
            rows.append((entrant.name, [materials.reference.original, *_photos(made)]))
            for name, seconds in made[OURS].stages:
                stages.setdefault(name, []).append(seconds)
        report = _written(options.output, scores, stages)
        save_sheet(options.output / "sheet.jpg", ["person", *(rival.name for rival in rivals(app))], rows)
    return report


def _written(folder: Path, scores: Sequence[Score], stages: Mapping[str, Sequence[float]]) -> BenchReport:
    """The report so far, on disk after every person: a bench that is cut off has not been for nothing."""
    means = tuple((name, float(np.mean(values))) for name, values in stages.items())
    report = BenchReport(scores=tuple(scores), stages=means)
    write_text(folder / "table.md", report.table())
    write_text(folder / "results.json", json.dumps(report.as_json(), indent=1))
    return report


def _make(rival: Rival, materials: Materials, stage: Stage) -> Made:
    began = time.perf_counter()
    made = rival.make(materials, stage)
    return replace(made, seconds=time.perf_counter() - began)


def _photos(made: dict[str, Made]) -> list[Photo]:
    return [Photo(pixels=picture.pixels, name=name) for name, picture in made.items()]


def _stage(app: App, name: str, photo: Photo) -> Stage:
    faces = app.tools.faces(photo)
    return Stage(name=name, photo=photo, face=max(faces, key=lambda face: face.box.width))


def _materials(app: App, entrant: Entrant, options: BenchOptions, watch: Watch) -> Materials:
    """Train one person with our recipe and with the plain one."""
    from easyphoto.bench.plain import train_plain

    family = detect_family(app.settings.base_model)
    spec = TrainSpec.for_family(entrant.name, app.settings.base_model, family, device=app.settings.device)
    if options.max_steps:
        spec = replace(spec, optim=replace(spec.optim, max_steps=options.max_steps))
    for person in app.people.list():
        if person.name == entrant.name:
            app.people.delete(person.name)
    trained = app.train(TrainOrder(photos=entrant.training, spec=spec), watch)
    watch.listener(Event(kind="log", message=f"{entrant.name}: training the plain rival"))
    crops = [item.crop for item in trained.prepared.photos]
    plain = train_plain(spec.base_model, spec.device, crops, trained.result.steps, spec.data.size)
    reference = trained.prepared.photos[trained.prepared.reference]
    if reference.own_face.embedding is None:
        raise PhotoError(f"{entrant.name}: the reference photo carries no identity vector; train again")
    held_out = _held_out(app, entrant, trained.prepared.embedding)
    subject = Subject(name=entrant.name, sex=entrant.sex, held_out=held_out, reference=reference.own_face.embedding)
    return Materials(subject=subject, person=trained.person, reference=reference, plain=plain)


def _vector(app: App, photo: Photo, person: Floats) -> Floats | None:
    """The identity vector of the photo's face that is nearest to the person; None if the photo shows no face."""
    vectors = [app.tools.with_embedding(photo, face).embedding for face in app.tools.faces(photo)]
    found = [vector for vector in vectors if vector is not None]
    return min(found, key=lambda vector: distance(vector, person)) if found else None


def _held_out(app: App, entrant: Entrant, person: Floats) -> tuple[Floats, ...]:
    vectors = (_vector(app, load_photo(path), person) for path in entrant.held_out)
    return tuple(vector for vector in vectors if vector is not None)
