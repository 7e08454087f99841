"""A whole training as the worker runs it: from the start of the process to the LoRA on the disk.

    python benchmarks/training_whole.py FOLDER          run the job in that folder, which `prepare` made
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from easyphoto.engine.models import Models
from easyphoto.families import PROFILES
from easyphoto.records import (
    Box,
    Condition,
    ConditionKind,
    Face,
    Floats,
    InpaintJob,
    Photo,
    PhotoScores,
    PreparedPhoto,
    PreparedSet,
    Reason,
    Verdict,
)
from easyphoto.specs import TrainSpec
from easyphoto.training.job import JobFolder, JobOrder, new_job
from easyphoto.training.launch import worker_environment
from easyphoto.training.prepared_files import write_prepared
from easyphoto.training.validation import Judge, Trial


def prepare(folder: Path, base: Path, spec: TrainSpec, photos: int = 10, judged: bool = False) -> JobFolder:
    """A job with made-up photos; checkpoints are judged on made-up templates, or not at all."""
    spec = replace(spec, base_model=base, validate=replace(spec.validate, every=100 if judged else 0))
    folder.mkdir(parents=True)
    job = new_job(folder, spec, JobOrder(templates=(), created=time.time()))
    made = tuple(_photo(number, 2 * spec.data.size) for number in range(photos))
    verdicts = tuple(
        Verdict(photo=photo.name, accepted=True, reason=Reason.GOOD, sentence="Taken.", is_reference=number == 0)
        for number, photo in enumerate(made)
    )
    write_prepared(
        PreparedSet(photos=made, verdicts=verdicts, reference=0, embedding=np.ones(128, np.float32), warnings=()), job.prepared
    )
    return job


def _photo(number: int, side: int) -> PreparedPhoto:
    rng = np.random.default_rng(number)
    pixels = np.kron(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), np.ones((side // 16, side // 16, 1), np.uint8))
    photo = Photo(pixels=pixels, name=f"{number}.jpg")
    box = Box(left=side / 3, top=side / 3, right=side * 2 / 3, bottom=side * 2 / 3)
    face = Face(
        box=box, score=0.9, landmarks=rng.random((5, 2), np.float32), mesh=rng.random((478, 2), np.float32),
        embedding=rng.random(128, np.float32),
    )  # fmt: skip
    return PreparedPhoto(name=photo.name, original=photo, crop=photo, face=face, scores=PhotoScores(faces=1, identity=0.5))


def run_child(job: JobFolder, gpu: int = 0, shared_by: int = 1) -> dict[str, Any]:
    """Run a job in a process of its own, on one GPU or shared by several; seconds until its end, and where they went."""
    began, clock = time.perf_counter(), time.time()
    child = start_child(job, gpu, shared_by)
    code = child.wait()
    whole = time.perf_counter() - began
    if code:
        return {"error": f"exit code {code}", "tail": job.log.read_text(encoding="utf-8")[-2000:]}
    result = job.read_result()
    return {"whole_process_s": whole, "loss": result.losses[-1], "parts": breakdown(job, clock, whole)}


def breakdown(job: JobFolder, clock: float, whole: float) -> dict[str, Any]:
    """Seconds of each part of a process, from what it said and when."""
    events = [json.loads(line) for line in job.events.read_text(encoding="utf-8").splitlines()]
    zero = float((job.root / "zero").read_text(encoding="utf-8")) - clock

    def when(stage: str, last: bool, kind: str = "progress") -> float:
        found = [event["seconds"] for event in events if event["stage"] == stage and event["kind"] == kind]
        return zero + (found[-1 if last else 0] if found else math.nan)

    steps = [event for event in events if event["kind"] == "progress" and event["stage"] == "training"]
    marks = {
        "start of Python, imports": zero + events[0]["seconds"], "photos read": when("loading", last=False),
        "base model read": when("loading", last=True), "latents cached": when("caching", last=True),
        "waiting for kernels, factors, capture": zero + steps[0]["seconds"],
        "steps and checkpoints": zero + steps[-1]["seconds"], "saved, ended": whole,
    }  # fmt: skip
    ends = [*marks.values()]
    parts: dict[str, Any] = {name: round(end - before, 2) for name, end, before in zip(marks, ends, [0.0, *ends])}
    samples = [event["seconds"] for event in events if event["kind"] == "sample"]
    judged = [event for event in events if event["kind"] == "progress" and event["stage"] in ("validating", "merging")]
    if judged and samples:
        parts["pauses for validation"] = _pauses(events)
        merged = [event["seconds"] for event in judged if event["stage"] == "merging" and event["step"] == 0]
        if len(merged) > 1:
            parts["merging"] = round(merged[1] - merged[0], 2)
    return parts


def _pauses(events: list[dict[str, Any]]) -> list[float]:
    """Seconds from the beginning of each judgement until the training goes on."""
    pauses, began = [], None
    for event in events:
        if event["kind"] == "progress" and event["stage"] in ("validating", "merging") and event["step"] == 0:
            began = event["seconds"]
        elif began is not None and event["kind"] == "progress" and event["step"] == event["total"]:
            pauses.append(round(event["seconds"] - began, 2))
            began = None
    return pauses


def start_child(job: JobFolder, gpu: int, shared_by: int) -> subprocess.Popen[bytes]:
    """The process alone."""
    there = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7").split(",")
    environment = {**worker_environment(), "CUDA_VISIBLE_DEVICES": ",".join(there[gpu : gpu + shared_by])}
    with job.log.open("wb") as log:
        command = [sys.executable, __file__, str(job.root), str(shared_by)]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def made_up_judge(models: Models, _tools: object, person: Floats, spec: TrainSpec, _templates: object) -> Judge:
    """A judge of true-sized jobs on made-up pictures; looking for faces in noise takes what it takes."""
    profile, rng = PROFILES[spec.family], np.random.default_rng(0)
    side = profile.first_size
    mask = np.zeros((side, side), np.float32)
    mask[side // 4 : -side // 4, side // 4 : -side // 4] = 1
    trials = []
    for number in range(spec.validate.templates):
        coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        image = np.kron(coarse, np.ones((side // 16, side // 16, 1), np.uint8))
        conditions = tuple(
            Condition(kind=ConditionKind(kind), image=image, weight=weight) for kind, weight in profile.first.weights
        )
        job = InpaintJob(
            image=image, mask=mask, prompt=spec.data.caption, negative="", strength=spec.validate.strength,
            steps=spec.validate.steps, guidance=profile.guidance, conditions=conditions, seed=number,
        )  # fmt: skip
        trials.append(Trial(name=str(number), job=job))
    return Judge(models, Looking(), person, trials)


class Looking:
    """In place of the face tools, which may not be installed: takes what they took on one core of a slow processor."""

    def faces(self, _photo: Photo) -> tuple[()]:
        """No face; as long as looking for one and measuring it takes."""
        time.sleep(0.17)
        return ()


def main() -> int:
    """Run one job."""
    logging.basicConfig(level=logging.INFO)
    from easyphoto.training import run
    from easyphoto.training.precompile import capability
    from easyphoto.training.progress import Reporter, Stop
    from easyphoto.training.team import gathered, joined, leave

    job = JobFolder(Path(sys.argv[1]).absolute())
    os.chdir(Path(__file__).resolve().parents[1])  # as a worker does
    run.make_judge = made_up_judge
    (job.root / "zero").write_text(str(time.time()), encoding="utf-8")
    size = int(sys.argv[2])
    with gathered(job.root, size, lambda: os._exit(1)), joined(0, size, "cuda" if capability() else "cpu") as team:
        run.run_job(job, Reporter(job.events), Stop(job.cancel), team)
    if size > 1:
        leave(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
