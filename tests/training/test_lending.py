"""One process trains one person after the other on one base model: each learns what they would have learnt alone."""

from __future__ import annotations

import gc
import io
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from easyphoto.engine.models import Models
from easyphoto.errors import Cancelled
from easyphoto.families import PROFILES
from easyphoto.records import Condition, ConditionKind, InpaintJob, PreparedSet
from easyphoto.specs import LoraSpec, TrainSpec, ValidateSpec
from easyphoto.store.lora_file import read_lora
from easyphoto.training import run
from easyphoto.training.job import JobFolder, JobOrder, new_job
from easyphoto.training.lending import Lender
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.planner import Course
from easyphoto.training.prepared_files import write_prepared
from easyphoto.training.progress import Reporter, Stop
from easyphoto.training.trainer import Training
from easyphoto.training.validation import Judge, Trial


@pytest.fixture
def go(tmp_path: Path, prepared: PreparedSet) -> Callable[[TrainSpec, Lender | None], JobFolder]:
    """Trains in this process."""

    def train(spec: TrainSpec, lender: Lender | None = None) -> JobFolder:
        job = new_job(tmp_path / "jobs", spec, JobOrder(templates=(), created=time.time()))
        write_prepared(prepared, job.prepared)
        run.run_job(job, Reporter(job.events, io.StringIO()), Stop(job.cancel), lender=lender)
        return job

    return train


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Models]:
    """Every base model that was read."""
    found: list[Models] = []
    real = run.load_training_models

    def load(spec: TrainSpec) -> Models:
        found.append(real(spec))
        return found[-1]

    monkeypatch.setattr(run, "load_training_models", load)
    return found


def others(spec: TrainSpec) -> tuple[TrainSpec, ...]:
    """People with recipes that change different parts of the model."""
    small = replace(spec.lora, rank=1, text_encoder=False)
    return spec, replace(spec, person="Berta", seed=7), replace(spec, person="Carl", lora=small), replace(spec, person="Dora")


def same(one: JobFolder, other: JobFolder) -> None:
    ours, theirs = (read_lora(job.lora).tensors for job in (one, other))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert one.read_result().losses == other.read_result().losses


class Looking:
    """In place of the face tools."""

    def faces(self, _photo) -> tuple[()]:
        return ()


def make_judge(models: Models, _tools, person, spec: TrainSpec, _templates) -> Judge:
    """Renders noise through the ControlNets."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), np.float32)
    mask[16:-16, 16:-16] = 1
    maps = tuple(
        Condition(kind=ConditionKind(kind), image=image, weight=weight) for kind, weight in PROFILES[spec.family].first.weights
    )
    job = InpaintJob(
        image=image, mask=mask, prompt=spec.data.caption, negative="", strength=0.6, steps=3, guidance=2.0, conditions=maps,
        seed=1,
    )  # fmt: skip
    return Judge(models, Looking(), person, [Trial(name="noise", job=job)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_whoever_comes_later_learns_what_they_learn_in_a_process_of_their_own(
    go, spec: TrainSpec, loads: list[Models], monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Also where a training rounds the weights that it was lent, as on a GPU."""
    monkeypatch.setattr(run, "training_dtype", lambda _device: dtype)
    monkeypatch.setattr(run, "make_judge", make_judge)
    judged = replace(spec, validate=ValidateSpec(every=3, merge_best=1))
    lender = Lender(keeps=True)
    together = [go(each, lender) for each in others(judged)]
    assert len(loads) == 1
    for each, job in zip(others(judged), together):
        same(job, go(each))


def test_the_model_comes_back_bit_for_bit_as_it_was_read(
    go, spec: TrainSpec, loads: list[Models], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "training_dtype", lambda _device: torch.bfloat16)
    lean = (Course(micro=1, merged=False, checkpointing=True),)
    lender = Lender(keeps=True)
    go(spec, lender)
    (models,) = loads
    fresh = run.load_training_models(spec)
    monkeypatch.setattr(run, "courses", lambda *_: lean)
    go(spec, lender)
    for own, other in zip((models.unet, models.vae, models.text_encoder), (fresh.unet, fresh.vae, fresh.text_encoder)):
        wanted = other.state_dict()
        for name, tensor in own.state_dict().items():
            assert tensor.dtype == wanted[name].dtype, name
            assert torch.equal(tensor, wanted[name]), name
        assert [name for name, module in own.named_modules() if "forward" in vars(module)] == []
        assert not any(getattr(module, "gradient_checkpointing", False) for module in own.modules())
    assert models.dtype == fresh.dtype


def test_nothing_of_a_person_stays_in_the_process(go, spec: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref] = []
    for kind in (LoraNetwork, Training):
        real = kind.__init__

        def begin(self, *args, real=real, **kwargs) -> None:
            seen.append(weakref.ref(self))
            real(self, *args, **kwargs)

        monkeypatch.setattr(kind, "__init__", begin)
    lender = Lender(keeps=True)
    tensors = []
    for _ in range(5):
        go(spec, lender)
        lender.tidy()
        tensors.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
    assert len(seen) == 10
    assert not any(each() for each in seen)
    assert len(set(tensors)) == 1, tensors


def test_another_model_a_failure_and_want_of_memory_have_it_read_anew(
    go, spec: TrainSpec, loads: list[Models], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lender = Lender(keeps=True)
    go(spec, lender)
    (link := tmp_path / "other").symlink_to(tiny_base)
    go(replace(spec, base_model=link), lender)
    assert len(loads) == 2

    def stopped(_self) -> float:
        raise Cancelled("stop")

    with monkeypatch.context() as patch, pytest.raises(Cancelled):
        patch.setattr(Training, "update", stopped)
        go(replace(spec, base_model=link), lender)
    go(replace(spec, base_model=link), lender)
    assert len(loads) == 3

    real = Training.update

    def short(self: Training) -> float:
        self._say("the GPU's memory does not hold it")
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "update", short)
        go(replace(spec, base_model=link), lender)
    assert len(loads) == 3
    go(replace(spec, base_model=link), lender)
    assert len(loads) == 4


def test_a_process_with_one_training_keeps_nothing(go, spec: TrainSpec, loads: list[Models]) -> None:
    lender = Lender()
    go(spec, lender)
    go(replace(spec, lora=LoraSpec(rank=1, alpha=1.0)), lender)
    assert len(loads) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_model_comes_back_as_it_was_read_and_memory_stays_flat(go, spec: TrainSpec, loads: list[Models]) -> None:
    spec = replace(spec, device="cuda", validate=ValidateSpec(every=0))
    lender, taken, jobs = Lender(keeps=True), [], []
    for _ in range(5):
        jobs.append(go(spec, lender))
        lender.tidy()
        taken.append(torch.cuda.memory_allocated())
    (models,) = loads
    fresh = run.load_training_models(spec)
    for own, other in zip((models.unet, models.vae, models.text_encoder), (fresh.unet, fresh.vae, fresh.text_encoder)):
        wanted = other.state_dict()
        assert all(tensor.dtype == wanted[name].dtype for name, tensor in own.state_dict().items())
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in own.state_dict().items())
    losses = [job.read_result().losses for job in (*jobs, go(spec))]
    np.testing.assert_allclose(losses, [losses[-1]] * 6, rtol=2e-2)
    assert taken[-1] - taken[1] < 2**20, taken
