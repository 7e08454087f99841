"""Training itself: one loss, one update, and the loop that calls them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from easyphoto.engine.models import Models
from easyphoto.errors import JobFailed, SpecError
from easyphoto.specs import TrainSpec
from easyphoto.store.lora_file import Array
from easyphoto.training.dataset import LatentCache, batch_places, generator
from easyphoto.training.lora import LoraLayer, LoraNetwork

if TYPE_CHECKING:
    from torch import Generator, Tensor

_OPTIMIZER = "optimizer"
"""Beginning of the optimiser's keys in the state file."""
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_WEIGHT_DECAY = 0.01


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls; each may raise Cancelled."""

    before_step: Callable[[], None]
    """Asked before every step whether to go on."""
    after_step: Callable[[int, float], None]
    """Told the steps done and the last loss."""
    checkpoint: Callable[[Training], None]
    """Saves and judges what has been learnt so far."""


class Training:
    """A LoRA on its way: models, factors, optimiser, and how far it has come."""

    def __init__(self, models: Models, network: LoraNetwork, cache: LatentCache, spec: TrainSpec) -> None:
        import torch
        from diffusers import DDPMScheduler

        self.models = models
        self.network = network
        self.cache = cache
        self.spec = spec
        self.step = 0
        self.losses: list[float] = []
        self.total = spec.optim.steps_for(cache.photos)
        config = {key: value for key, value in models.scheduler_config.items() if not key.startswith("_")}
        self._schedule = DDPMScheduler.from_config(config)
        self._kept: Tensor = self._schedule.alphas_cumprod.to(models.device)
        self._tokens = models.tokenizer(
            [spec.data.caption], padding="max_length", max_length=models.tokenizer.model_max_length, truncation=True,
            return_tensors="pt",
        ).input_ids.to(models.device)  # fmt: skip
        self._states = None if self._trains_text else self._encode_caption().detach()
        self.optimizer = self._make_optimizer()
        self._scaler = torch.amp.GradScaler(enabled=models.dtype == torch.float16)

    @property
    def _trains_text(self) -> bool:
        return bool(self.network.text_layers) and self.spec.optim.text_learning_rate > 0

    @property
    def _parameters(self) -> list[Any]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def loss(self, part: int = 0) -> Tensor:
        """Mean squared error of the predicted noise (arXiv 2006.11239, equation 14), at this step's own draw.

        Args:
            part: Which micro-batch of the step.
        """
        import torch

        optim = self.spec.optim
        noise = generator(self.spec.seed, "step", self.step, part)
        drawn = (self.step * optim.accumulation + part) * optim.batch_size
        latents = self.cache.draw(batch_places(self.cache.photos, optim.batch_size, drawn, self.spec.seed), noise)
        target = torch.randn(latents.shape, generator=noise).to(latents.device)
        times = spread_timesteps(optim.batch_size, len(self._kept), noise, optim.timestep_power).to(latents.device)
        noisy = self._schedule.add_noise(latents, target, times)
        predicted = self.models.unet(
            noisy.to(self.models.dtype).contiguous(memory_format=torch.channels_last), times,
            encoder_hidden_states=self._caption_states().expand(optim.batch_size, -1, -1), return_dict=False,
        )[0]  # fmt: skip
        if self._schedule.config.prediction_type == "v_prediction":
            target = self._schedule.get_velocity(latents, target, times)
        errors = (predicted.float() - target).square().mean(dim=(1, 2, 3))
        mean: Tensor = (errors * self._weights(times)).mean()
        return mean

    def update(self) -> float:
        """One step of the optimiser; returns the loss before it.

        Raises:
            JobFailed: The loss or its gradient is no number any more; the factors are as before the step.
        """
        import torch

        optim = self.spec.optim
        total = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(optim.accumulation):
            loss = self.loss(part) / optim.accumulation
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        self._scaler.unscale_(self.optimizer)
        length = float(torch.nn.utils.clip_grad_norm_(self._parameters, optim.max_grad_norm))
        # Half precision overflows now and then: the scaler leaves such a step out and goes on with a smaller scale.
        if not math.isfinite(total) or not (math.isfinite(length) or self._scaler.is_enabled()):
            raise JobFailed(f"the loss is no number any more after step {self.step}; train again with a lower learning rate")
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.step += 1
        self.losses.append(total)
        return total

    def state_dict(self) -> dict[str, Array]:
        """Everything that going on needs, in full precision."""
        state = dict(self.network.state_dict(np.float32))
        for number, parameter in enumerate(self._parameters):
            for name in _MOMENTS:
                if parameter in self.optimizer.state:
                    state[f"{_OPTIMIZER}.{number}.{name}"] = self.optimizer.state[parameter][name].detach().cpu().numpy()
        state["losses"] = np.array(self.losses, np.float64)
        return state

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Go on where a state was saved.

        Raises:
            LoraError: It belongs to another training.
        """
        import torch

        self.network.load_state_dict(state)
        for number, parameter in enumerate(self._parameters):
            keys = {name: f"{_OPTIMIZER}.{number}.{name}" for name in _MOMENTS}
            self.optimizer.state[parameter] = {
                name: torch.from_numpy(np.array(state[key])).to(parameter.device) for name, key in keys.items() if key in state
            }
        self.losses = [float(loss) for loss in state["losses"]]
        self.step = len(self.losses)

    def _make_optimizer(self) -> Any:  # noqa: ANN401 (torch.optim.AdamW)
        import torch

        optim = self.spec.optim
        groups = [{"params": _factors(self.network.unet_layers), "lr": optim.learning_rate}]
        if self._trains_text:
            groups.append({"params": _factors(self.network.text_layers), "lr": optim.text_learning_rate})
        return torch.optim.AdamW(groups, weight_decay=_WEIGHT_DECAY, fused=self.models.device != "mps")

    def _caption_states(self) -> Tensor:
        """(1, tokens, width): kept where the text encoder is frozen, else one row a step for the whole batch."""
        return self._encode_caption() if self._states is None else self._states

    def _encode_caption(self) -> Tensor:
        states: Tensor = self.models.text_encoder(self._tokens)[0]
        return states

    def _weights(self, times: Tensor) -> Tensor:
        """(batch,) Min-SNR weights (arXiv 2303.09556, section 3.4), or ones."""
        import torch

        gamma = self.spec.optim.snr_gamma
        if gamma is None:
            return torch.ones(len(times), device=times.device)
        ratio = self._kept[times] / (1 - self._kept[times])
        clipped = ratio.clamp(max=gamma)
        if self._schedule.config.prediction_type == "v_prediction":
            return clipped / (ratio + 1)
        return clipped / ratio


def _factors(layers: Sequence[LoraLayer]) -> list[Tensor]:
    return [factor for layer in layers for factor in (layer.down, layer.up)]


def fit(training: Training, every: int, hooks: Hooks) -> None:
    """Train to the end; checkpoints come every so many steps and after the last.

    Raises:
        Cancelled: A hook wanted to stop.
        JobFailed: The loss stopped being a number.
    """
    while training.step < training.total:
        hooks.before_step()
        loss = training.update()
        hooks.after_step(training.step, loss)
        if training.step in checkpoint_steps(training.total, every):
            hooks.checkpoint(training)


def checkpoint_steps(total: int, every: int) -> tuple[int, ...]:
    """The steps that end with a checkpoint: every so many and the last, but none shortly before the last."""
    return (*(step for step in range(every, total, every) if total - step >= every / 2), total)


def checkpoint_every(spec: TrainSpec, total: int) -> int:
    """Steps between checkpoints; without judging, a quarter of the way, so that a killed training loses no more."""
    return spec.validate.every or max(1, math.ceil(total / 4))


def spread_timesteps(batch: int, steps: int, noise: Generator, power: float = 1.0) -> Tensor:
    """(batch,) timesteps of 0 .. steps - 1, one from each of `batch` equally likely parts.

    Each part is hit in every batch, so the loss varies less from step to step than with independent draws (stratified
    sampling; the low-discrepancy sampler of arXiv 2107.00630 does so for continuous time).

    Args:
        batch: How many.
        steps: Length of the noise schedule.
        noise: CPU generator.
        power: 1 is uniform, more favours early timesteps, which have little noise.
    """
    import torch

    places = (torch.arange(batch) + torch.rand(batch, generator=noise)) / batch
    return (places**power * steps).long().clamp(max=steps - 1)


def check_prediction(models: Models) -> None:
    """Refuse a base model that predicts what we cannot train.

    Raises:
        SpecError: It predicts neither noise nor velocity.
    """
    kind = models.scheduler_config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise SpecError(f"the base model predicts {kind!r}; only epsilon and v_prediction can be trained")
