"""On a GPU: judging checkpoints is no part of learning."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from easyphoto.engine.models import Models
from easyphoto.records import Condition, ConditionKind, InpaintJob, Photo, Pixels, PreparedSet
from easyphoto.specs import TrainResult, TrainSpec, ValidateSpec
from easyphoto.training import run
from easyphoto.training.job import JobOrder, new_job
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.memory import give_back
from easyphoto.training.prepared_files import write_prepared
from easyphoto.training.progress import Reporter, Stop
from easyphoto.training.validation import Judge, JudgeHooks, Trial

DEVICE = "cuda"


class SeesNothing:
    """Face tools that find no face: every picture scores nothing."""

    def faces(self, _photo: Photo) -> tuple[()]:
        """None."""
        return ()


class SpoilingJudge(Judge):
    """Leaves no number in any memory that rendering has given back."""

    def paint_together(self, network: LoraNetwork, hooks: JudgeHooks) -> list[Pixels] | None:
        """As ever."""
        painted = super().paint_together(network, hooks)
        for _ in range(2):
            spoilt = [torch.full((2**size,), float("nan"), device=DEVICE) for size in range(7, 24) for _ in range(32)]
            del spoilt
            give_back(DEVICE)
        return painted


def judge_of_noise(models: Models, _tools: object, person: np.ndarray, spec: TrainSpec, _templates: object) -> Judge:
    """Renders two made-up templates as validation does, with a ControlNet."""
    rng, trials = np.random.default_rng(0), []
    for number in range(2):
        image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        mask = np.zeros((64, 64), np.float32)
        mask[16:48, 16:48] = 1
        job = InpaintJob(
            image=image, mask=mask, prompt=spec.data.caption, negative="", strength=0.6, steps=4, guidance=4.0,
            conditions=(Condition(kind=ConditionKind.TILE, image=image, weight=0.8),), seed=number,
        )  # fmt: skip
        trials.append(Trial(name=str(number), job=job))
    return SpoilingJudge(models, SeesNothing(), person, trials)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_training_that_is_judged_learns_what_one_that_is_not_learns(
    tmp_path: Path, spec: TrainSpec, prepared: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that a checkpoint's rendering moved or gave back once were read by every step after it."""
    monkeypatch.setattr(run, "make_judge", judge_of_noise)
    monkeypatch.setattr(run, "FaceTools", SeesNothing)
    optim = replace(spec.optim, learning_rate=1e-4, text_learning_rate=1e-4, steps_per_photo=10, max_steps=12)
    ends: list[TrainResult] = []
    for every in (0, 3):
        wanted = replace(spec, device=DEVICE, optim=optim, validate=ValidateSpec(every=every, merge_best=2))
        job = new_job(tmp_path / f"jobs-{every}", wanted, JobOrder(templates=(), created=time.time()))
        write_prepared(prepared, job.prepared)
        ends.append(run.run_job(job, Reporter(job.events, io.StringIO()), Stop(job.cancel)))
    assert len(ends[1].checkpoints) >= 4
    np.testing.assert_allclose(ends[0].losses, ends[1].losses, rtol=5e-3)
