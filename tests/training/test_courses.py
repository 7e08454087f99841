"""Whatever way a step is computed, the result is the plain recipe's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from easyphoto.engine.models import Models, load_models
from easyphoto.errors import JobFailed, SpecError
from easyphoto.families import Family
from easyphoto.records import PreparedSet
from easyphoto.specs import LoraSpec, OptimSpec, TrainSpec
from easyphoto.training.dataset import LatentCache, cache_latents
from easyphoto.training.draws import Learner
from easyphoto.training.factors import FactorBlock
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.memory import placed, set_aside
from easyphoto.training.optimizer import Optimizer
from easyphoto.training.planner import WEIGHTS, Course, choose, ladder, needed_gib
from easyphoto.training.streaming import LEAST_SLOTS
from easyphoto.training.trainer import Training
from tests.tiny_xl import make_tiny_sdxl
from tests.training.plain import PlainTraining

STEPS = 4
LOW = Course(micro=1, merged=False, checkpointing=True, offload=True)
STREAMED = replace(LOW, streamed=2)
COURSES = [
    Course(),
    Course(micro=1),
    Course(merged=False),
    Course(checkpointing=True),
    Course(micro=2, merged=False, checkpointing=True),
    LOW,
    STREAMED,
    replace(LOW, streamed=4),
    Course(micro=2, merged=False, streamed=3, offload=True),
]


@pytest.fixture(scope="module")
def tiny_xl(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return load_models(make_tiny_sdxl(tmp_path_factory.mktemp("xl") / "base"), "cpu")


@pytest.fixture
def steady(spec: TrainSpec) -> TrainSpec:
    """Small steps: what rounding does to a first step of Adam must not grow."""
    optim = OptimSpec(learning_rate=1e-4, text_learning_rate=1e-4, batch_size=2, accumulation=2, steps_per_photo=10)
    return replace(spec, optim=optim)


def learner(models: Models, prepared: PreparedSet, spec: TrainSpec) -> Learner:
    return Learner(cache=cache_latents(models, prepared, spec, lambda _done, _total: None), spec=spec)


def trained(models: Models, learners: list[Learner], course: Course, steps: int = STEPS) -> Training:
    """A training after some steps; the models are as before."""
    seeds = [each.spec.seed for each in learners]
    network = LoraNetwork(models, learners[0].spec.lora, seeds, course.merged)
    network.attach()
    try:
        training = Training(models, network, learners, (course,))
        for _ in range(steps):
            training.update()
    finally:
        network.detach()
        models.unet.disable_gradient_checkpointing()
    return training


def compare(training: Training, plain: PlainTraining, person: int = 0) -> None:
    np.testing.assert_allclose([row[person] for row in training.history], plain.losses, rtol=2e-5)
    for layer in training.network.layers:
        for own, wanted in zip((layer.down[person], layer.up[person]), plain.factors[layer.name]):
            # Adam's first steps are a rate long whichever way the gradient points: a few of a rate are many roundings.
            assert float((own - wanted.detach()).norm()) <= 2e-3 * float(wanted.detach().norm()) + 1e-6, layer.name


def plain_run(models: Models, one: Learner) -> PlainTraining:
    with PlainTraining(models, one) as plain:
        for _ in range(STEPS):
            plain.update()
    return plain


@pytest.mark.parametrize("course", COURSES, ids=str)
def test_every_course_is_the_plain_recipe(models: Models, prepared: PreparedSet, steady: TrainSpec, course: Course) -> None:
    one = learner(models, prepared, steady)
    compare(trained(models, [one], course), plain_run(models, one))


@pytest.mark.parametrize("text", [True, False], ids=["text trained", "text frozen"])
@pytest.mark.parametrize("course", [Course(), LOW, STREAMED], ids=str)
def test_sdxl_too(tiny_xl: Models, prepared: PreparedSet, steady: TrainSpec, course: Course, text: bool) -> None:
    optim = replace(steady.optim, text_learning_rate=1e-4 if text else 0.0)
    spec = replace(steady, family=Family.SDXL, optim=optim, lora=LoraSpec(rank=2, alpha=1.0, text_encoder=text))
    one = learner(tiny_xl, prepared, spec)
    training = trained(tiny_xl, [one], course)
    compare(training, plain_run(tiny_xl, one))
    names = {layer.name.split("_text_")[0] for layer in training.network.text_layers}
    assert names == ({"lora_te1", "lora_te2"} if text else set())


def test_large_ranks_take_the_gradient_of_the_whole_weight(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    small, large = (LoraNetwork(models, LoraSpec(rank=rank, alpha=1.0)).blocks[0] for rank in (1, 32))
    assert any(group.products is None for group in small.groups)
    assert all(group.products is not None for group in large.groups)
    spec = replace(steady, lora=LoraSpec(rank=32, alpha=16.0))
    one = learner(models, prepared, spec)
    compare(trained(models, [one], Course()), plain_run(models, one))


@pytest.mark.parametrize("course", [Course(), Course(merged=False)], ids=str)
def test_people_side_by_side_learn_what_each_learns_alone(
    models: Models, prepared: PreparedSet, steady: TrainSpec, course: Course
) -> None:
    fewer = replace(prepared, photos=prepared.photos[1:], verdicts=prepared.verdicts[1:])
    specs = [replace(steady, seed=seed, data=replace(steady.data, caption=f"person {seed}")) for seed in (3, 4, 5)]
    people = [learner(models, photos, spec) for photos, spec in zip((prepared, fewer, prepared), specs)]
    together = trained(models, people, course)
    for number, one in enumerate(people):
        alone = trained(models, [one], course)
        np.testing.assert_allclose([row[number] for row in together.history], alone.losses, rtol=1e-6)
        for layer, own in zip(together.network.layers, alone.network.layers):
            for side in ("down", "up"):
                torch.testing.assert_close(getattr(layer, side)[number], getattr(own, side)[0], rtol=1e-6, atol=1e-6)
        assert set(together.network.state_dict(person=number)) == set(alone.network.state_dict())


def test_people_are_resumed_bit_for_bit(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    people = [learner(models, prepared, replace(steady, seed=seed)) for seed in (3, 4)]
    whole = trained(models, people, Course())
    half = trained(models, people, Course(), STEPS // 2)
    network = LoraNetwork(models, steady.lora, (8, 9))
    network.attach()
    again = Training(models, network, people)
    again.load_state_dict(half.state_dict())
    while again.step < STEPS:
        again.update()
    network.detach()
    assert again.history == whole.history
    assert torch.equal(network.blocks[0].values, whole.network.blocks[0].values)


def test_running_out_of_memory_goes_on_one_rung_down_and_says_so(
    models: Models, prepared: PreparedSet, steady: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, told = learner(models, prepared, steady), []
    wanted = trained(models, [one], Course())
    network = LoraNetwork(models, steady.lora, (steady.seed,))
    network.attach()
    training = Training(models, network, [one], (Course(), Course(micro=1, merged=False, checkpointing=True)), told.append)
    real = Training._whole_step

    def full(self: Training) -> torch.Tensor:
        if self.step == 2 and self.course.merged:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self)

    monkeypatch.setattr(Training, "_whole_step", full)
    for _ in range(STEPS):
        training.update()
    network.detach()
    models.unet.disable_gradient_checkpointing()
    assert len(told) == 1
    assert "going on with 1 picture at once, checkpointing, one copy of the weights" in told[0]
    np.testing.assert_allclose(training.losses, wanted.losses, rtol=2e-5)


def test_the_last_rung_says_what_went_wrong(
    models: Models, prepared: PreparedSet, steady: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Training) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Training, "_whole_step", full)
    with pytest.raises(JobFailed, match=r"does not hold this training \(all pictures at once\); close what else uses the GPU"):
        trained(models, [learner(models, prepared, steady)], Course(), 1)


def test_the_ladder_leads_to_where_least_is_needed(steady: TrainSpec) -> None:
    rungs = ladder(4)
    assert rungs[0] == Course(micro=4)
    assert rungs[-1].offload
    assert [rung.micro for rung in ladder(6)][:4] == [6, 3, 2, 1]
    for family in WEIGHTS:
        spec = TrainSpec.for_family("a", Path("base"), family)
        needs = [needed_gib(rung, spec) for rung in ladder(4)]
        assert needs[0] == max(needs)
        assert needs[-1] == min(needs)
        assert choose(spec, 1000.0)[0] == Course(micro=4)
        with pytest.raises(SpecError, match=r"the GPU has 0.01 GiB for this training, which takes .* GiB at least"):
            choose(spec, 0.01)
        for memory in (4.0, 6.0, 8.0, 12.0, 24.0):
            chosen = choose(spec, memory)
            assert needed_gib(chosen[0], spec) <= memory or len(chosen) == 1
    assert choose(steady, None) == (Course(),)


@pytest.mark.parametrize("text", [True, False], ids=["text trained", "text frozen"])
def test_sdxl_is_planned_for_small_cards(text: bool) -> None:
    spec = TrainSpec.for_family("a", Path("base"), Family.SDXL)
    spec = replace(spec, lora=replace(spec.lora, text_encoder=text))
    slots = []
    for memory in (3.0, 4.0, 6.0):
        rungs = choose(spec, memory)
        slots.append(rungs[0].streamed)
        assert needed_gib(rungs[0], spec) <= memory
        assert [rung.streamed for rung in rungs] == sorted((rung.streamed for rung in rungs), reverse=True)
        assert rungs[-1].streamed == LEAST_SLOTS
    assert 0 < slots[0] <= slots[1] < slots[2] < 70
    with pytest.raises(SpecError, match=r"the GPU has 1.80 GiB for this training, .*1024 px, rank 32"):
        choose(spec, 1.8)
    assert choose(spec, 24.0)[0].streamed == 0



def test_half_precision_leaves_an_overflowing_step_out_and_goes_on() -> None:
    block = FactorBlock([torch.nn.Linear(4, 4)], rank=2, scale=1.0)
    block.values.data.fill_(1.0)
    half = Optimizer([block], [0.1], 1.0, half=True)
    scale, before = float(half.scale), block.values.detach().clone()
    block.grad.fill_(float("inf"))
    half.step(torch.ones(1))
    assert torch.equal(block.values, before)
    assert (float(half.scale), float(half.broken)) == (scale / 2, 0.0)
    block.grad.fill_(float(half.scale))
    half.step(torch.ones(1))
    assert not torch.equal(block.values, before)
    half.step(torch.full((1,), float("nan")))
    assert float(half.broken) == 1.0, "a loss that is no number is no overflow"


def test_parts_come_back_from_where_they_were_placed(models: Models) -> None:
    set_aside(models, [models.vae])
    with placed(models, [models.vae]):
        assert next(models.vae.parameters()).device.type == "cpu"
    assert models.vae.device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graph_computes_what_single_kernels_compute(tiny_base: Path, prepared: PreparedSet, steady: TrainSpec) -> None:
    models = load_models(tiny_base, "cuda", torch.float32)
    one = learner(models, prepared, steady)
    runs = [trained(models, [one], Course(graphed=graphed)) for graphed in (True, False)]
    for training in runs:
        training.flush()
    np.testing.assert_allclose(runs[0].losses, runs[1].losses, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_no_number_on_the_gpu_keeps_the_factors_of_the_last_good_step(
    tiny_base: Path, prepared: PreparedSet, steady: TrainSpec
) -> None:
    models = load_models(tiny_base, "cuda", torch.float32)
    training = trained(models, [learner(models, prepared, steady)], Course(), 1)
    training.flush()
    training.network.attach()
    before = training.network.blocks[0].values.detach().clone()
    training._dealer.mean.fill_(float("nan"))
    with pytest.raises(JobFailed, match="after step 1"):
        for _ in range(4):
            training.update()
    training.network.detach()
    assert torch.equal(before, training.network.blocks[0].values)


def test_the_table_of_latents_is_every_persons(models: Models, prepared: PreparedSet, steady: TrainSpec) -> None:
    one = learner(models, prepared, steady)
    cache: LatentCache = one.cache
    training = Training(models, LoraNetwork(models, steady.lora, (0, 1)), [one, one])
    assert len(training._dealer.mean) == 2 * cache.photos * cache.variants
    draw = training._dealer.deal(0)
    assert draw.rows.shape == (2, 4)
    assert int(draw.rows[1].min()) >= cache.photos * cache.variants
