"""A studio over a home of its own, people with real LoRA files, and jobs that somebody else has run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from easyphoto.app import App
from easyphoto.events import Event
from easyphoto.families import Family
from easyphoto.imaging.io import encode_png
from easyphoto.jobs.eventlog import append_event
from easyphoto.jobs.folders import End, QueueFolder, now
from easyphoto.jobs.results import ResultFolder
from easyphoto.jobs.turns import Turns
from easyphoto.orders import Consent
from easyphoto.records import Reason, Verdict
from easyphoto.settings import Settings
from easyphoto.specs import Person, TrainSpec
from easyphoto.store.lora_file import LoraFile, write_lora
from easyphoto.store.paths import person_id
from easyphoto.ui.studio import Studio
from easyphoto.work import FaceScore, Failure, Job, JobKind, JobResult, JobState, Picture
from tests.store.test_people import finished_job, prepared_set

STAGES = ("original", "fused", "first pass", "second pass", "result")


def make_studio(home: Path, owner: str = "local") -> Studio:
    return Studio(App(replace(Settings.from_env({}), home=home, device="cpu"), owner))


def publish(studio: Studio, name: str = "Anna", consent: Consent | None = None) -> Person:
    """A person with a LoRA that can be read."""
    store = studio.app.people
    store.home.make()
    result = finished_job(store.home.jobs / f"{person_id(name)}-made-{len(list(store.home.jobs.iterdir()))}")
    down, up = np.ones((2, 8), np.float32), np.ones((8, 2), np.float32)
    tensors = {"lora_unet_x.lora_down.weight": down, "lora_unet_x.lora_up.weight": up, "lora_unet_x.alpha": np.float32(2)}
    write_lora(result.lora, LoraFile(tensors={key: np.asarray(value) for key, value in tensors.items()}))
    spec = TrainSpec(person=name, base_model=Path("/models/base"), family=Family.EMBEDDED)
    return store.publish(spec, prepared_set(), result, consent)


def photos(folder: Path, count: int = 3) -> tuple[Path, ...]:
    """Small pictures, each of another shade."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{number:02d}.jpg" for number in range(count))
    for number, path in enumerate(paths):
        Image.new("RGB", (40, 40), (20 * number, 90, 90)).save(path)
    return paths


def claim(studio: Studio, job: Job) -> None:
    """Let a job run."""
    Turns(studio.store).claim((), job.id)


def say(studio: Studio, job: Job, *events: Event) -> None:
    """Let a job say something."""
    for event in events:
        append_event(QueueFolder(studio.store.folder(job.id)).events, event)


def finish(studio: Studio, job: Job, result: JobResult | None = None, failure: Failure | None = None) -> None:
    """Bring a job to its end: done with a result, else failed or cancelled."""
    turns = Turns(studio.store)
    turn = turns.claim((), job.id)
    assert turn is not None
    state = JobState.DONE if result else JobState.FAILED if failure else JobState.CANCELLED
    if result is not None:
        result = ResultFolder(studio.app.home, job.id).commit(result)
    turns.finish(turn, End(state=state, ended=now(), started=now(), attempt=1, failure=failure), result)


def finish_portraits(studio: Studio, job: Job, template: str, names: Sequence[str], score: float = 0.7) -> JobResult:
    """Bring portraits to their end: one picture with the stages of its first face."""
    folder = ResultFolder(studio.app.home, job.id)
    pixels = np.full((48, 36, 3), 120, np.uint8)
    stem = f"001-{Path(template).stem}-7"
    file = folder.add(f"{stem}.png", encode_png(pixels, {"parameters": "Steps: 5, Seed: 7"}))
    for shade, name in enumerate(STAGES):
        stage = np.full((16, 16, 3), 40 * shade, np.uint8)
        folder.add(f"{stem}-face0-{name.replace(' ', '-')}.png", encode_png(stage))
    picture = Picture(
        file=file, template=template, seed=7, infotext="Steps: 5, Seed: 7", seconds=(("first pass", 1.5),),
        faces=tuple(FaceScore(person=name, similarity=score) for name in names),
    )  # fmt: skip
    turns = Turns(studio.store)
    turn = turns.claim((), job.id)
    assert turn is not None
    blank = JobResult(id=job.id, kind=JobKind.PORTRAITS, owner=studio.owner, created=now(), person=names[0])
    result = folder.commit(replace(blank, pictures=(picture,)))
    turns.finish(turn, End(state=JobState.DONE, ended=now(), started=now(), attempt=1), result)
    return result


def verdict(name: str, accepted: bool = True, reference: bool = False) -> Verdict:
    reason = Reason.GOOD if accepted else Reason.BLURRED
    return Verdict(photo=name, accepted=accepted, reason=reason, sentence=f"About {name}.", is_reference=reference)
