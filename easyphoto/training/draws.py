"""What chance decides in a step: which photos, which of their crops, how much noise and which.

Everything depends on the seed and the step alone, so a resumed training draws what it would have drawn. On a GPU the noise
is drawn there, from a generator of its own that is set to the step's place; the few whole numbers come from the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easyphoto.specs import TrainSpec
from easyphoto.training.dataset import LatentCache, batch_places, generator, place_seed

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """What is drawn for some pictures; several people's lie one after the other."""

    rows: Tensor
    """(P, n) int64: which latent of the table."""
    times: Tensor
    """(P, n) int64 timesteps."""
    sample: Tensor
    """(P, n, 4, height, width) float32: where in a latent's distribution."""
    noise: Tensor
    """(P, n, 4, height, width) float32: what is added, and what is to be predicted."""

    def split(self, size: int) -> Iterator[Draw]:
        """The same in parts of so many pictures a person."""
        for start in range(0, self.rows.shape[1], size):
            yield self.part(start, start + size)

    def part(self, start: int, end: int) -> Draw:
        """The pictures of that range."""
        here = slice(start, end)
        return Draw(rows=self.rows[:, here], times=self.times[:, here], sample=self.sample[:, here], noise=self.noise[:, here])


@dataclass(frozen=True, kw_only=True, eq=False)
class Learner:
    """One person whose LoRA is trained."""

    cache: LatentCache
    spec: TrainSpec
    captions: tuple[str, ...] = ()
    """Of each photo; an empty one is the spec's; () where all are."""


class Dealer:
    """Draws for every step of one training of one or several people."""

    def __init__(self, learners: Sequence[Learner], schedule: int) -> None:
        """Args: the people, and the length of the noise schedule."""
        import torch

        self._learners, self._schedule = learners, schedule
        self.mean = torch.cat([learner.cache.mean.flatten(0, 1) for learner in learners])
        """(latents, 4, height, width): the table that `Draw.rows` speaks of."""
        self.deviation = torch.cat([learner.cache.deviation.flatten(0, 1) for learner in learners])
        weights = [learner.cache.weight.flatten(0, 1) for learner in learners if learner.cache.weight is not None]
        self.weight = torch.cat(weights) if weights else None
        """(latents, 1, height, width): how much each cell counts; None: all alike."""
        counts = [learner.cache.photos * learner.cache.variants for learner in learners]
        self._offsets = [sum(counts[:number]) for number in range(len(counts))]
        optim = learners[0].spec.optim
        self.pictures = optim.batch_size * optim.accumulation
        """A step and person."""
        device = self.mean.device
        self._noise = torch.Generator(device) if device.type == "cuda" else None
        if self._noise is not None:
            many = (len(learners), self.pictures)
            whole = torch.zeros(*many, dtype=torch.int64, device=device)
            shape = (*many, *self.mean.shape[1:])
            self._kept = Draw(
                rows=whole, times=whole.clone(),
                sample=torch.empty(shape, device=device), noise=torch.empty(shape, device=device),
            )  # fmt: skip
            self._numbers = torch.zeros(4, 2, *many, dtype=torch.int64).pin_memory()

    def deal(self, step: int) -> Draw:
        """The draw of a step; on a GPU always the same tensors, filled anew."""
        return self._on_cpu(step) if self._noise is None else self._on_device(step, self._noise)

    def _on_cpu(self, step: int) -> Draw:
        import torch

        people = []
        for learner, offset in zip(self._learners, self._offsets):
            parts = [self._part(learner, offset, step, part) for part in range(learner.spec.optim.accumulation)]
            people.append([torch.cat(found) for found in zip(*parts)])
        rows, times, sample, noise = (torch.stack(found).to(self.mean.device) for found in zip(*people))
        return Draw(rows=rows, times=times, sample=sample, noise=noise)

    def _part(self, learner: Learner, offset: int, step: int, part: int) -> tuple[Tensor, ...]:
        import torch

        source, rows = self._rows(learner, offset, step, part)
        shape = (len(rows), *self.mean.shape[1:])
        sample, noise = torch.randn(shape, generator=source), torch.randn(shape, generator=source)
        return rows, self._times(learner, source), sample, noise

    def _on_device(self, step: int, own: Generator) -> Draw:
        # A ring: the copy of an earlier step may still be on its way.
        numbers, kept = self._numbers[step % len(self._numbers)], self._kept
        for person, (learner, offset) in enumerate(zip(self._learners, self._offsets)):
            optim = learner.spec.optim
            for part in range(optim.accumulation):
                here = slice(part * optim.batch_size, (part + 1) * optim.batch_size)
                source, rows = self._rows(learner, offset, step, part)
                numbers[0, person, here], numbers[1, person, here] = rows, self._times(learner, source)
                own.manual_seed(place_seed(learner.spec.seed, "noise", step, part))
                for tensor in (kept.sample, kept.noise):
                    tensor[person, here].normal_(generator=own)
        kept.rows.copy_(numbers[0], non_blocking=True)
        kept.times.copy_(numbers[1], non_blocking=True)
        return kept

    def _rows(self, learner: Learner, offset: int, step: int, part: int) -> tuple[Generator, Tensor]:
        import torch

        spec, cache = learner.spec, learner.cache
        source = generator(spec.seed, "step", step, part)
        drawn = (step * spec.optim.accumulation + part) * spec.optim.batch_size
        places = batch_places(cache.photos, spec.optim.batch_size, drawn, spec.seed)
        crops = torch.randint(cache.variants, places.shape, generator=source)
        return source, offset + places * cache.variants + crops

    def _times(self, learner: Learner, source: Generator) -> Tensor:
        optim = learner.spec.optim
        return spread_timesteps(optim.batch_size, self._schedule, source, optim.timestep_power)


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
