"""Training as the textbooks write it, one person, one layer at a time: what the quick one is compared with."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from easyphoto.engine.models import Models
from easyphoto.engine.text import added_conditions, encode_prompts
from easyphoto.specs import RateSchedule
from easyphoto.training.dataset import batch_places, generator
from easyphoto.training.draws import Learner, spread_timesteps
from easyphoto.training.lora import LoraNetwork


class PlainTraining:
    """LoRA beside each layer by autograd, torch's own AdamW and clipping."""

    def __init__(self, models: Models, learner: Learner) -> None:
        self.models, self.learner, self.spec = models, learner, learner.spec
        network = LoraNetwork(models, self.spec.lora, (self.spec.seed,))
        self.layers = network.layers
        self.factors = {
            layer.name: (torch.nn.Parameter(layer.down[0].clone()), torch.nn.Parameter(layer.up[0].clone()))
            for layer in self.layers
        }
        unet, text = network.unet_layers, network.text_layers
        parts = [part for layer in unet for part in self.factors[layer.name]]
        groups = [{"params": parts, "lr": self.spec.optim.learning_rate}]
        if text and self.spec.optim.text_learning_rate:
            parts = [part for layer in text for part in self.factors[layer.name]]
            groups.append({"params": parts, "lr": self.spec.optim.text_learning_rate})
        self.optimizer = torch.optim.AdamW(self._with_ups(groups), weight_decay=0.01)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.averages = {name: [part.detach().clone() for part in pair] for name, pair in self.factors.items()}
        self.schedule = DDPMScheduler.from_config(models.scheduler_config)
        self.step = 0
        self.losses: list[float] = []

    def _with_ups(self, groups: list[dict]) -> list[dict]:
        """Every group as two: downs and ups, which LoRA+ gives rates of their own."""
        ratio, both = self.spec.optim.loraplus_ratio, []
        for group in groups:
            downs, ups = group["params"][::2], group["params"][1::2]
            both += [{"params": downs, "lr": group["lr"]}, {"params": ups, "lr": group["lr"] * ratio}]
        return both

    def __enter__(self) -> PlainTraining:
        for layer in self.layers:
            layer.module.forward = self._with_lora(layer)
        return self

    def __exit__(self, *_: object) -> None:
        for layer in self.layers:
            del layer.module.forward

    def _with_lora(self, layer):
        down, up = self.factors[layer.name]
        plain, scale, point = layer.module.forward, layer.scale, layer.module.weight.ndim == 4

        def forward(x, *_, **__):
            if point:
                return plain(x) + F.conv2d(F.conv2d(x, down[:, :, None, None]), up[:, :, None, None]) * scale
            return plain(x) + F.linear(F.linear(x, down), up) * scale

        return forward

    def loss(self, part: int = 0) -> torch.Tensor:
        optim, cache = self.spec.optim, self.learner.cache
        noise = generator(self.spec.seed, "step", self.step, part)
        first = (self.step * optim.accumulation + part) * optim.batch_size
        places = batch_places(cache.photos, optim.batch_size, first, self.spec.seed)
        crops = torch.randint(cache.variants, places.shape, generator=noise.clone_state())
        latents = cache.draw(places, noise)
        target = torch.randn(latents.shape, generator=noise)
        times = spread_timesteps(optim.batch_size, 1000, noise, optim.timestep_power)
        said = self.learner.captions or ("",) * cache.photos
        states = encode_prompts(self.models, [said[place] or self.spec.data.caption for place in places.tolist()])
        added = added_conditions(self.models, states, (self.spec.data.size, self.spec.data.size))
        noisy = self.schedule.add_noise(latents, target, times)
        predicted = self.models.unet(noisy, times, encoder_hidden_states=states.states, added_cond_kwargs=added)[0]
        squares = F.mse_loss(predicted, target, reduction="none")
        if cache.weight is not None:
            squares = squares * cache.weight[places, crops]
        errors = squares.mean(dim=(1, 2, 3))
        if optim.snr_gamma is not None:
            kept = self.schedule.alphas_cumprod[times]
            ratio = kept / (1 - kept)
            errors = errors * torch.minimum(ratio, torch.tensor(optim.snr_gamma)) / ratio
        return errors.mean()

    def share(self) -> float:
        """Warm-up in a straight line, then half a cosine."""
        optim, total = self.spec.optim, self.spec.optim.steps_for(self.learner.cache.photos)
        growing = math.ceil(optim.warmup * total)
        if self.step < growing:
            return (self.step + 1) / (growing + 1)
        done = (self.step - growing) / (total - growing)
        return (1 + math.cos(math.pi * done)) / 2 if optim.schedule is RateSchedule.COSINE else 1.0

    def average(self) -> None:
        """decay = min(ema, step / (step + 10)), as running averages are begun."""
        decay = min(self.spec.optim.ema, self.step / (self.step + 10))
        for name, pair in self.factors.items():
            self.averages[name] = [decay * old + (1 - decay) * new.detach() for old, new in zip(self.averages[name], pair)]

    def update(self) -> None:
        self.optimizer.zero_grad()
        total = 0.0
        for part in range(self.spec.optim.accumulation):
            loss = self.loss(part) / self.spec.optim.accumulation
            loss.backward()
            total += float(loss.detach())
        parts = [part for group in self.optimizer.param_groups for part in group["params"]]
        torch.nn.utils.clip_grad_norm_(parts, self.spec.optim.max_grad_norm)
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * self.share()
        self.optimizer.step()
        self.average()
        self.losses.append(total)
        self.step += 1
