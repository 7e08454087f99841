"""The demo: train a sample person from photos of which some are spoiled, make portraits, write one page."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from easyphoto import __version__
from easyphoto.app import App, Trained, Watch, save_results
from easyphoto.engine.detect import detect_family
from easyphoto.errors import NotFound, PhotoError
from easyphoto.files import write_bytes, write_text
from easyphoto.imaging.io import load_photo, save_jpeg
from easyphoto.orders import TrainOrder
from easyphoto.records import Photo, Verdict
from easyphoto.report.page import PersonReport, PortraitEntry, RunFacts, write_page
from easyphoto.settings import PROJECT_ROOT, Settings
from easyphoto.specs import PortraitRequest, TrainSpec
from easyphoto.store.templates import Template, list_templates

SAMPLES = PROJECT_ROOT / "models" / "sample-people"
PERSON, OTHER = "woman", "man"
NAME = "Sample woman"


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What the demo may be told."""

    output: Path
    templates: int = 4
    max_steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class DemoSummary:
    """What the demo prints at its end."""

    page: Path
    training_score: float | None
    similarities: tuple[tuple[str, float | None], ...]
    """(template, 1 - dlib distance to the person's median embedding)."""
    seconds: tuple[tuple[str, float], ...]

    def text(self) -> str:
        """The summary for people."""
        lines = [f"training score  {_number(self.training_score)}"]
        lines += [f"{name:<15} {_number(score)}" for name, score in self.similarities]
        lines += [f"{part:<22} {seconds:6.1f} s" for part, seconds in self.seconds]
        return "\n".join(
            ["similarity (1 - distance; above 0.40 is the same person)", *lines, f"open {self.page} in a browser"]
        )

    def as_json(self) -> dict[str, Any]:
        """The summary for programs."""
        return {
            "kind": "result",
            "page": str(self.page),
            "training_score": self.training_score,
            "similarities": dict(self.similarities),
            "seconds": dict(self.seconds),
        }


def _number(score: float | None) -> str:
    return "no face found" if score is None else f"{score:.3f}"


def run_demo(settings: Settings, options: DemoOptions, watch: Watch) -> DemoSummary:
    """Run everything in `options.output`; people trained elsewhere are not touched."""
    options.output.mkdir(parents=True, exist_ok=True)
    app = App(replace(settings, home=options.output / "home"))
    _forget(app)
    began = time.perf_counter()
    folder = spoiled_photos(options.output / "photos")
    trained = app.train(TrainOrder(photos=(folder,), spec=_spec(app.settings, options)), watch)
    trained_at = time.perf_counter()
    entries = _portraits(app, trained, options, watch)
    times = (("checking and training", trained_at - began), ("portraits", time.perf_counter() - trained_at))
    page = options.output / "index.html"
    write_page(page, _report(trained, folder, entries), _facts(times))
    return DemoSummary(
        page=page,
        training_score=trained.person.score,
        similarities=tuple((entry.template_name, _similarity(entry)) for entry in entries),
        seconds=times,
    )


def _forget(app: App) -> None:
    """An earlier demo's person makes room; nobody else lives in the demo's home."""
    for person in app.people.list():
        app.people.delete(person.name)


def spoiled_photos(folder: Path) -> Path:
    """The sample person's ten photos and four that a careful system must leave out, in `folder`."""
    import cv2

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = sorted((SAMPLES / PERSON).glob("*.jpg"))
    if not source:
        raise NotFound(f"the sample photos are missing from {SAMPLES / PERSON}; restore them from the project")
    for path in source:
        write_bytes(folder / f"photo-{path.name}", path.read_bytes())
    write_bytes(folder / "someone-else.jpg", (SAMPLES / OTHER / "00.jpg").read_bytes())
    third, fourth = load_photo(source[2]).pixels, load_photo(source[3]).pixels
    smaller = cv2.resize(third, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    save_jpeg(folder / "the-same-again.jpg", smaller.astype(np.uint8), 75)
    blurred = cv2.GaussianBlur(fourth, (0, 0), fourth.shape[0] / 100)
    save_jpeg(folder / "out-of-focus.jpg", blurred.astype(np.uint8), 90)
    write_text(folder / "not-a-picture.jpg", "This file is named like a picture, and is none.\n")
    return folder


def _spec(settings: Settings, options: DemoOptions) -> TrainSpec:
    family = detect_family(settings.base_model)
    spec = TrainSpec.for_family(NAME, settings.base_model, family, device=settings.device)
    if options.max_steps is None:
        return spec
    every = min(spec.validate.every, max(1, options.max_steps // 2))
    return replace(
        spec,
        optim=replace(spec.optim, max_steps=options.max_steps),
        validate=replace(spec.validate, every=every),
    )


def _portraits(app: App, trained: Trained, options: DemoOptions, watch: Watch) -> tuple[PortraitEntry, ...]:
    """Portraits on templates of the sample person's sex, each with a seed of its own."""
    chosen = matching_templates(list_templates(app.settings.templates), PERSON)[: options.templates]
    entries: list[PortraitEntry] = []
    for seed, template in enumerate(chosen):
        photo = load_photo(template.path)
        request = PortraitRequest(template=photo, people=(trained.person,), seed=seed)
        results = app.portraits(request, watch)
        save_results(results, options.output / "portraits", template.name)
        entries.extend(PortraitEntry(template_name=template.name, template=photo, result=result) for result in results)
    return tuple(entries)


def matching_templates(templates: Sequence[Template], sex: str) -> tuple[Template, ...]:
    """The templates of a sex, or all where the gallery does not say."""
    return tuple(template for template in templates if template.sex == sex) or tuple(templates)


def _similarity(entry: PortraitEntry) -> float | None:
    return next((face.similarity for face in entry.result.faces), None)


def _report(trained: Trained, folder: Path, entries: tuple[PortraitEntry, ...]) -> PersonReport:
    return PersonReport(
        person=trained.person,
        photos=tuple(_readable(folder, verdict) for verdict in trained.prepared.verdicts),
        prepared=trained.prepared,
        training=trained.result,
        portraits=entries,
    )


def _readable(folder: Path, verdict: Verdict) -> Photo | None:
    try:
        return load_photo(folder / verdict.photo)
    except PhotoError:
        return None


def _facts(seconds: tuple[tuple[str, float], ...]) -> RunFacts:
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
    return RunFacts(command="make demo", machine=machine, version=__version__, seconds=seconds)
