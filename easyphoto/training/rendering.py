"""Renders all templates of a judgement at once on a GPU, while the LoRA stays where the training has it.

A step of the denoising loop is a few thousand small kernels, which a processor sends off more slowly than the GPU runs them. So
the pictures are one batch, and the step is one CUDA graph: captured at the first judgement, replayed at all others, as weights,
maps and caption lie where they lay. The pictures are those of the plain engine, but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from easyphoto.engine.base import StepListener
from easyphoto.engine.denoise import Guide, Kept, Schedule, denoise, predict_noise, reads_text
from easyphoto.engine.models import Models
from easyphoto.engine.standalone import StandaloneEngine, composite
from easyphoto.engine.text import TextStates, added_conditions, join
from easyphoto.records import InpaintJob, Pixels

if TYPE_CHECKING:
    from torch import Tensor

_WARM_UP = 2


class Renderer(StandaloneEngine):
    """Renders jobs that differ in picture, maps, words and seed alone: size, steps, guidance and kinds of maps are the same."""

    def __init__(self, models: Models, jobs: Sequence[InpaintJob]) -> None:
        super().__init__(models)
        self._jobs = tuple(jobs)
        self._kept: Kept | None = None
        self._graph: _Graph | None = None

    def render(self, place: object, on_step: StepListener | None = None) -> list[Pixels]:
        """The pictures, (height, width, 3) uint8 RGB each.

        Args:
            place: Equal as long as the weights lie where they lay; a graph of another place is thrown away.
            on_step: Called after every step.
        """
        import torch

        job = self._jobs[0]
        self.close()
        # Few pictures are painted in all: trying every way to compute a convolution would take longer than it saves.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=True):
            if self._kept is None:
                self._kept = self._all_kept()
            guide = self._all_guided()
            if self._graph is None or self._graph.place != place:
                self._graph = None
                self._graph = _Graph(self.models, replace(guide, controls=self._controls(guide)), self._kept.latents, place)
            schedule = Schedule(steps=job.steps, strength=job.strength)
            noises = [torch.Generator("cpu").manual_seed(job.seed) for job in self._jobs]
            latents = denoise(self.models, guide, schedule, noises, self._kept, on_step, self._graph)
            painted = [self._decode(one[None]) for one in latents]
        return [composite(job.image, pixels, job.mask) for job, pixels in zip(self._jobs, painted)]

    def _all_kept(self) -> Kept:
        import torch

        latents = torch.cat([self._encode(job.image) for job in self._jobs])
        return Kept(latents=latents, painted=torch.cat([self._latent_mask(job.mask) for job in self._jobs]))

    def _all_guided(self) -> Guide:
        """Words alone: the maps are in the graph."""
        job = self._jobs[0]
        rows: list[TextStates] = [self._text_states(job.prompt) for job in self._jobs]
        if job.guidance != 1.0:
            rows = [self._negative_states(job.negative) for job in self._jobs] + rows
        text = join(rows)
        added = added_conditions(self.models, text, (job.image.shape[0], job.image.shape[1]))
        return Guide(states=text.states, added=added, guidance=job.guidance, controls=())

    def _controls(self, guide: Guide) -> tuple[tuple[Any, Tensor, float], ...]:
        """Each net with the maps of all pictures, as many rows as it is given."""
        import torch

        controls = []
        for number, condition in enumerate(self._jobs[0].conditions):
            net = self.models.controlnet(condition.kind)
            maps = [torch.from_numpy(job.conditions[number].image.copy()).permute(2, 0, 1) / 255 for job in self._jobs]
            image = torch.stack(maps).to(self.models.device, self.models.dtype)
            if reads_text(net):
                image = image.repeat(len(guide.states) // len(maps), 1, 1, 1)
            controls.append((net, image, condition.weight))
        return tuple(control for control in controls if control[2])


class _Graph:
    """The prediction of one step as a CUDA graph."""

    def __init__(self, models: Models, guide: Guide, latents: Tensor, place: object) -> None:
        """Args: what is predicted from; the graph reads weights and maps where they lie and copies of the rest."""
        import torch

        self.place = place
        added = None if guide.added is None else {key: value.clone() for key, value in guide.added.items()}
        self._guide = replace(guide, states=guide.states.clone(), added=added)
        self._latents, self._time = torch.zeros_like(latents), torch.zeros((), dtype=torch.int64, device=latents.device)
        self._models = models
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=side, capture_error_mode="thread_local"):
            self._predicted = self._run()

    def _run(self) -> Tensor:
        # Another view each time: what the training's blocks compute from the words is remembered by the very tensor.
        states = self._guide.states.view(self._guide.states.shape)
        return predict_noise(self._models, replace(self._guide, states=states), self._latents, self._time)

    def __call__(self, _models: Models, guide: Guide, latents: Tensor, timestep: Tensor) -> Tensor:
        """As `predict_noise`."""
        self._guide.states.copy_(guide.states)
        for key, value in (guide.added or {}).items():
            if self._guide.added is not None:
                self._guide.added[key].copy_(value)
        self._latents.copy_(latents)
        self._time.copy_(timestep)
        self._graph.replay()
        return self._predicted.clone()
