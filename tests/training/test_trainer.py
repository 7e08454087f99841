from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from easyphoto.engine.models import Models
from easyphoto.errors import Cancelled, JobFailed, LoraError, SpecError
from easyphoto.records import PreparedSet
from easyphoto.specs import LoraSpec, OptimSpec, TrainSpec
from easyphoto.training.dataset import LatentCache, cache_latents, generator
from easyphoto.training.draws import Learner, spread_timesteps
from easyphoto.training.focus import snr_weights
from easyphoto.training.lora import LoraNetwork
from easyphoto.training.trainer import (
    Hooks,
    Training,
    check_prediction,
    checkpoint_every,
    checkpoint_steps,
    fit,
)


@pytest.fixture
def cache(models: Models, prepared: PreparedSet, spec: TrainSpec) -> LatentCache:
    return cache_latents(models, prepared, spec, lambda _done, _total: None)


@pytest.fixture
def begin(models: Models, cache: LatentCache, spec: TrainSpec):
    """Makes trainings; each takes its LoRA off at the end."""
    made: list[LoraNetwork] = []

    def make(spec: TrainSpec = spec, models: Models = models) -> Training:
        for network in made:
            network.detach()
        made.append(LoraNetwork(models, spec.lora, (spec.seed,)))
        made[-1].attach()
        return Training(models, made[-1], (Learner(cache=cache, spec=spec),))

    yield make
    for network in made:
        network.detach()


def nothing(**changes) -> Hooks:
    kept = {"before_step": lambda: None, "after_step": lambda _step, _loss: None, "checkpoint": lambda _training: None}
    return Hooks(**{**kept, **changes})


def test_timesteps_are_spread_over_the_whole_schedule() -> None:
    times = spread_timesteps(4, 1000, generator(0))
    assert [int(time) // 250 for time in times] == [0, 1, 2, 3]
    many = torch.cat([spread_timesteps(4, 1000, generator(0, number)) for number in range(500)])
    assert many.min() >= 0
    assert many.max() <= 999
    assert float(many.float().mean()) == pytest.approx(499.5, abs=8)
    early = torch.cat([spread_timesteps(4, 1000, generator(0, number), 2.0) for number in range(500)])
    assert float(early.float().mean()) == pytest.approx(1000 / 3, abs=8), "the mean of u squared"


def test_the_loop_calls_in_order_and_ends_with_a_checkpoint(begin) -> None:
    told: list[str] = []
    training = begin()
    fit(training, 4, nothing(
        before_step=lambda: told.append("go"), after_step=lambda step, _loss: told.append(str(step)),
        checkpoint=lambda training: told.append(f"save {training.step}"),
    ))  # fmt: skip
    assert told == ["go", "1", "go", "2", "go", "3", "go", "4", "save 4", "go", "5", "go", "6", "save 6"]
    assert len(training.losses) == 6


def test_only_the_factors_learn_and_only_what_is_asked_for(begin, models: Models, spec: TrainSpec) -> None:
    base = {name: value.clone() for name, value in models.unet.state_dict().items()}
    training = begin()
    fit(training, 100, nothing())
    assert all(torch.equal(value, base[name]) for name, value in models.unet.state_dict().items())
    assert all(layer.up.abs().max() > 0 for layer in training.network.layers)
    frozen = begin(replace(spec, optim=replace(spec.optim, text_learning_rate=0.0)))
    fit(frozen, 100, nothing())
    assert all(layer.up.abs().max() > 0 for layer in frozen.network.unet_layers)
    assert all(layer.up.abs().max() == 0 for layer in frozen.network.text_layers)
    without = begin(replace(spec, lora=LoraSpec(rank=2, alpha=1.0, text_encoder=False)))
    assert without.network.text_layers == []
    fit(without, 100, nothing())


def test_the_caption_is_encoded_once_when_the_text_encoder_is_frozen(begin, models: Models, spec: TrainSpec) -> None:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    handle = models.text_encoder.register_forward_hook(count)
    try:
        fit(begin(replace(spec, optim=replace(spec.optim, text_learning_rate=0.0))), 100, nothing())
        assert calls == 1
        fit(begin(), 100, nothing())
        assert calls == 1 + 6, "one row a step, not one for each picture"
    finally:
        handle.remove()


def test_it_learns(begin, spec: TrainSpec) -> None:
    """The same draws cost less after training than before."""
    training = begin(replace(spec, optim=OptimSpec(learning_rate=1e-2, steps_per_photo=20, max_steps=60, batch_size=4)))

    def measured() -> float:
        step, losses = training.step, []
        with torch.no_grad():
            for training.step in range(10_000, 10_020):
                losses.append(float(training.loss()))
        training.step = step
        return float(np.mean(losses))

    before = measured()
    fit(training, 1000, nothing())
    assert measured() < 0.95 * before


@pytest.mark.parametrize("stop_at", [1, 4])
def test_a_resumed_training_ends_bit_for_bit_as_one_that_was_never_stopped(begin, stop_at: int) -> None:
    whole = begin()
    fit(whole, 100, nothing())
    wanted = whole.network.state_dict(np.float32)

    def stop() -> None:
        if first.step == stop_at:
            raise Cancelled("stop")

    first = begin()
    with pytest.raises(Cancelled):
        fit(first, 100, nothing(before_step=stop))
    state = first.state_dict()
    second = begin()
    second.load_state_dict(state)
    assert second.step == stop_at
    fit(second, 100, nothing())
    for key, value in second.network.state_dict(np.float32).items():
        np.testing.assert_array_equal(value, wanted[key])
    assert second.losses == whole.losses


def test_a_state_of_another_training_is_refused(begin, spec: TrainSpec) -> None:
    state = begin().state_dict()
    with pytest.raises(LoraError, match="start it anew"):
        begin(replace(spec, lora=LoraSpec(rank=4, alpha=1.0))).load_state_dict(state)


def test_a_loss_that_is_no_number_stops_before_it_spoils_the_factors(begin) -> None:
    training = begin()
    training.update()
    factors = training.network.state_dict(np.float32)
    training._dealer.mean[:] = float("nan")
    with pytest.raises(JobFailed, match=r"no number any more after step 1; .* lower learning rate"):
        training.update()
    for key, value in training.network.state_dict(np.float32).items():
        np.testing.assert_array_equal(value, factors[key])


def test_min_snr_weights_are_the_papers() -> None:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)[[10, 500, 999]]
    ratio = kept / (1 - kept)
    noise = snr_weights(torch.tensor(kept), 5.0, velocity=False)
    np.testing.assert_allclose(noise.numpy(), np.minimum(ratio, 5) / ratio, rtol=1e-6)
    velocity = snr_weights(torch.tensor(kept), 5.0, velocity=True)
    np.testing.assert_allclose(velocity.numpy(), np.minimum(ratio, 5) / (ratio + 1), rtol=1e-6)


def test_velocity_models_are_trained_on_velocity(begin, models: Models, spec: TrainSpec) -> None:
    velocity = replace(models, scheduler_config={**models.scheduler_config, "prediction_type": "v_prediction"})
    check_prediction(velocity)
    assert float(begin(models=velocity).loss().detach()) != float(begin().loss().detach())
    with pytest.raises(SpecError, match="'sample'"):
        check_prediction(replace(models, scheduler_config={"prediction_type": "sample"}))


def test_micro_batches_add_up_to_one_step(begin, spec: TrainSpec) -> None:
    """The gradient of two parts is the mean of the parts' gradients."""
    training = begin(replace(spec, optim=replace(spec.optim, accumulation=2)))
    parts = [float(training.loss(part).detach()) for part in range(2)]
    assert training.update() == pytest.approx(np.mean(parts), rel=1e-5)
    assert training.step == 1


def test_no_checkpoint_comes_shortly_before_the_last() -> None:
    assert checkpoint_steps(176, 40) == (40, 80, 120, 176)
    assert checkpoint_steps(180, 40) == (40, 80, 120, 160, 180)
    assert checkpoint_steps(160, 40) == (40, 80, 120, 160)
    assert checkpoint_steps(3, 40) == (3,)


def test_checkpoints_come_by_quarters_where_nothing_is_judged(spec: TrainSpec) -> None:
    assert checkpoint_every(spec, 10) == 3
    assert checkpoint_every(replace(spec, validate=replace(spec.validate, every=50)), 10) == 50
