"""A whole training as the worker runs it: from the start of the process to the LoRA on the disk.

    python benchmarks/training_whole.py FOLDER          run the job in that folder, which `prepare` made
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from easyphoto.records import Box, Face, Photo, PhotoScores, PreparedPhoto, PreparedSet, Reason, Verdict
from easyphoto.specs import TrainSpec, ValidateSpec
from easyphoto.training.job import JobFolder, JobOrder, new_job
from easyphoto.training.prepared_files import write_prepared


def prepare(folder: Path, base: Path, spec: TrainSpec, photos: int = 10) -> JobFolder:
    """A job with made-up photos; nothing is judged."""
    spec = replace(spec, base_model=base, validate=ValidateSpec(every=0))
    folder.mkdir()
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


def run_child(job: JobFolder, gpu: int = 0) -> dict[str, float | str]:
    """Run a job in a process of its own, on one GPU; seconds from its start to its end."""
    began = time.perf_counter()
    child = start_child(job, gpu)
    code = child.wait()
    whole = time.perf_counter() - began
    if code:
        return {"error": f"exit code {code}", "tail": job.log.read_text(encoding="utf-8")[-2000:]}
    return {"whole_process_s": whole, "worker_s": job.read_result().seconds, "loss": job.read_result().losses[-1]}


def start_child(job: JobFolder, gpu: int) -> subprocess.Popen[bytes]:
    """The process alone."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu)}
    with job.log.open("wb") as log:
        return subprocess.Popen([sys.executable, __file__, str(job.root)], env=environment, stdout=log, stderr=log)


def main() -> int:
    """Run one job."""
    from easyphoto.training.progress import Reporter, Stop
    from easyphoto.training.run import run_job

    job = JobFolder(Path(sys.argv[1]))
    run_job(job, Reporter(job.events), Stop(job.cancel))
    return 0


if __name__ == "__main__":
    sys.exit(main())
