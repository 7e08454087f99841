"""Renders all templates of a judgement at once on a GPU, while the LoRA stays where the training has it.

Everything that a judgement computes lies in three CUDA graphs, captured once: the words, a denoising step of all pictures,
and the way out of the autoencoder. Weights, maps and noise lie where they lay, so a judgement only replays them,
and the capturing can be done by a thread while the training takes its steps. The pictures are those of the plain engine,
but for rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from easyphoto.engine.base import StepListener
from easyphoto.engine.denoise import Guide, Kept, Schedule, Track, follow, lay_track, predict_noise, reads_text
from easyphoto.engine.models import Models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.engine.text import TextStates, added_conditions, encode_tokens, tokenize
from easyphoto.families import Family
from easyphoto.records import InpaintJob, Pixels
from easyphoto.training.branches import Branches, Control
from easyphoto.training.decoding import Decoder

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class _Open:
    """What every judgement uses again, wherever the weights under training lie."""

    track: Track
    painted: Tensor
    """As in `denoise.Kept`."""
    images: Tensor
    """(pictures, height, width, 3) float32 in 0-255: the templates' own pixels."""
    shares: Tensor
    """(pictures, height, width, 1) float32: how much of each is painted."""
    words: _Words
    branches: Branches
    decode: _Decode


class Renderer(StandaloneEngine):
    """Renders jobs that differ in picture, maps, words and seed alone: size, steps, guidance and kinds of maps are the same."""

    def __init__(self, models: Models, jobs: Sequence[InpaintJob]) -> None:
        super().__init__(models)
        self._jobs = tuple(jobs)
        # Here and not in a thread: a tokenizer serves one at a time.
        self._words = _Words(models, jobs)
        self._open: _Open | None = None
        self._steps: _Steps | None = None

    def open(self, dtype: Any, beside: bool = False) -> _Open:  # noqa: ANN401 (torch.dtype)
        """What can be done before the training's first step, if it was not done yet; on the thread's current stream.

        Args:
            dtype: What will be computed in.
            beside: Something else is computed meanwhile, which goes on to choose its kernels in its own way.
        """
        import torch

        if self._open is not None:
            return self._open
        with torch.inference_mode(), contextlib.nullcontext() if beside else _few_pictures():
            kept = Kept(
                latents=torch.cat([self._encode(job.image) for job in self._jobs]),
                painted=torch.cat([self._latent_mask(job.mask) for job in self._jobs]),
            )
            noises = [torch.Generator("cpu").manual_seed(job.seed) for job in self._jobs]
            job, words = self._jobs[0], self._words
            self._open = _Open(
                track=lay_track(self.models, Schedule(steps=job.steps, strength=job.strength), noises, kept),
                painted=kept.painted, words=words, branches=Branches(self.models.unet, self._controls(words.halves, dtype)),
                decode=_Decode(self.models, kept.latents, beside),
                images=_stacked([job.image for job in self._jobs], self.models.device),
                shares=_stacked([job.mask for job in self._jobs], self.models.device)[..., None],
            )  # fmt: skip
            if beside:
                self._rehearse(self._open, dtype)
        return self._open

    def _rehearse(self, opened: _Open, dtype: Any) -> None:  # noqa: ANN401 (torch.dtype)
        """Run the ControlNets once: loading a kernel waits for all that the GPU has been sent, which is little as yet."""
        import torch

        models, words = self.models, opened.words
        if models.text_encoder_2 is not None:
            return
        latents = torch.zeros_like(opened.track.start, dtype=dtype).repeat(words.halves, 1, 1, 1)
        width = models.unet.config.cross_attention_dim
        states = torch.zeros(len(latents), models.tokenizer.model_max_length, width, device=latents.device, dtype=dtype)
        guide = Guide(states=states, guidance=1.0, controls=opened.branches.controls)
        with opened.branches.fast_nets():
            opened.branches.residuals(
                guide, latents.contiguous(memory_format=torch.channels_last), opened.track.times[0], words.halves
            )

    def prepare(self, place: object, beside: bool = False) -> tuple[_Open, _Steps]:
        """Everything but the replaying, if it was not done for this place yet; on the thread's current stream.

        Args:
            place: Equal as long as the weights lie where they lay; what was captured at another place is thrown away.
            beside: The GPU works on something else meanwhile.
        """
        import torch

        opened = self.open(self.models.dtype, beside)
        if self._steps is None or self._steps.place != place:
            self._steps = None
            with torch.inference_mode(), _few_pictures():
                self._steps = _Steps(self.models, opened, place, beside)
        return opened, self._steps

    def render(self, place: object, on_step: StepListener | None = None) -> list[Pixels]:
        """The pictures, (height, width, 3) uint8 RGB each.

        Args:
            place: As for `prepare`.
            on_step: Called after every step has been sent on its way.
        """
        import torch

        opened, steps = self.prepare(place)
        with torch.inference_mode():
            latents = follow(self.models, steps.read(), opened.track, opened.painted, on_step, steps.predict)
            painted = opened.decode(latents)
            if not bool(torch.isfinite(painted).all()):
                painted = opened.decode.fully(latents)
            painted = ((painted.float().clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1)
            mixed = opened.images + opened.shares * (painted - opened.images)
            pictures: list[Pixels] = list(mixed.round().to(torch.uint8).cpu().numpy())
        return pictures

    def _controls(self, halves: int, dtype: Any) -> tuple[Control, ...]:  # noqa: ANN401 (torch.dtype)
        """Each net with the maps of all pictures, as many rows as it is given."""
        import torch

        controls = []
        for number, condition in enumerate(self._jobs[0].conditions):
            if condition.weight == 0:
                continue
            net = self.models.controlnet(condition.kind)
            maps = [torch.from_numpy(job.conditions[number].image.copy()).permute(2, 0, 1) / 255 for job in self._jobs]
            image = torch.stack(maps).to(self.models.device, dtype)
            if reads_text(net):
                image = image.repeat(halves, 1, 1, 1)
            controls.append((net, image, condition.weight))
        return tuple(controls)


def _few_pictures() -> AbstractContextManager[None]:
    """Few are painted in all: trying every way to compute a convolution would take longer than it saves."""
    import torch

    found: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=True)
    return found


def _stacked(arrays: Sequence[Any], device: str) -> Tensor:
    import torch

    return torch.stack([torch.from_numpy(array.copy()) for array in arrays]).to(device).float()


class _Words:
    """The words of all pictures, encoded anew for each judgement, as the text encoders may have learnt."""

    def __init__(self, models: Models, jobs: Sequence[InpaintJob]) -> None:
        import torch

        self._models, self._job = models, jobs[0]
        texts = [job.prompt for job in jobs]
        if self._job.guidance != 1.0:
            texts = [job.negative for job in jobs] + texts
        self.halves = len(texts) // len(jobs)
        different = list(dict.fromkeys(texts))
        self._tokens = tokenize(models, different)
        self._rows = torch.tensor([different.index(text) for text in texts], device=models.device)
        # As in the plain engine: SDXL reads zeros in place of no words.
        negatives = len(texts) - len(jobs)
        empty = [models.text_encoder_2 is not None and at < negatives and not text.strip() for at, text in enumerate(texts)]
        self._sizes: Tensor | None = None
        self._kept = (1 - torch.tensor(empty, device=models.device).float())[:, None] if any(empty) else None

    def read(self) -> Guide:
        """Words alone: maps are no matter of each judgement."""
        encoded = encode_tokens(self._models, self._tokens)
        states, pooled = encoded.states[self._rows], None if encoded.pooled is None else encoded.pooled[self._rows]
        if self._kept is not None:
            kept = self._kept.to(states.dtype)
            states, pooled = states * kept[..., None], None if pooled is None else pooled * kept
        return Guide(states=states, added=self._added(states, pooled), guidance=self._job.guidance, controls=())

    def _added(self, states: Tensor, pooled: Tensor | None) -> dict[str, Tensor] | None:
        """SDXL's pooled text and sizes; the latter are brought over once."""
        if pooled is None:
            return None
        if self._sizes is None:
            image = self._job.image
            text = TextStates(states=states, pooled=pooled)
            self._sizes = (added_conditions(self._models, text, (image.shape[0], image.shape[1])) or {})["time_ids"]
        return {"text_embeds": pooled, "time_ids": self._sizes}


class _Steps:
    """Words and denoising steps, computed from tensors that stay where they are: on a GPU two graphs, elsewhere plain calls."""

    def __init__(self, models: Models, opened: _Open, place: object, beside: bool) -> None:
        import torch

        self.place = place
        self._models, self._branches = models, opened.branches
        start = opened.track.start
        self._latents, self._time = torch.zeros_like(start), torch.zeros((), dtype=torch.int64, device=start.device)

        def read() -> Guide:
            return replace(opened.words.read(), controls=self._branches.controls)

        self._read, self._step = read, self._run_fast
        self._guide = read()
        if models.device.startswith("cuda"):
            captured = _Captured(beside)
            self._read = captured.capture(read)
            self._guide = self._read()
            with self._branches.fast():
                self._step = captured.capture(self._run)

    def _run_fast(self) -> Tensor:
        with self._branches.fast():
            return self._run()

    def _run(self) -> Tensor:
        # Another view each time: what the training's blocks compute from the words is remembered by the very tensor.
        guide = replace(self._guide, states=self._guide.states.view(self._guide.states.shape))
        return predict_noise(self._models, guide, self._latents, self._time, self._branches.residuals)

    def read(self) -> Guide:
        """The words as they are encoded now."""
        self._guide = self._read()
        return self._guide

    def predict(self, _models: Models, _guide: Guide, latents: Tensor, timestep: Tensor) -> Tensor:
        """As `denoise.predict_noise`; the result is good until the next step."""
        self._latents.copy_(latents)
        self._time.copy_(timestep)
        return self._step()


class _Decode:
    """The way out of the autoencoder: on a GPU a graph, elsewhere a plain call."""

    def __init__(self, models: Models, latents: Tensor, beside: bool) -> None:
        import torch

        on_gpu = models.device.startswith("cuda")
        decoder = Decoder(models.vae, halved=on_gpu and models.family is not Family.SDXL)
        self.fully: Callable[[Tensor], Tensor] = decoder.fully
        self._latents = torch.zeros_like(latents)
        self._out: Callable[[], Tensor] = lambda: decoder(self._latents)
        if decoder.halved:  # in float32 it takes too much memory to keep that
            self._out = _Captured(beside).capture(self._out)

    def __call__(self, latents: Tensor) -> Tensor:
        """(pictures, 3, height, width), -1 to 1; good until the next judgement."""
        self._latents.copy_(latents)
        return self._out()


class _Captured:
    """Turns calls into CUDA graphs, which use the same memory one after the other."""

    def __init__(self, beside: bool) -> None:
        """`beside`: the GPU works on something else meanwhile, which waiting for it or giving memory back would hold up."""
        import torch

        self._beside = beside
        self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool: tuple[Any, ...] = ()

    def capture(self, run: Callable[[], Any]) -> Callable[[], Any]:
        """Warm up and capture; what is returned replays, and gives the very tensors of the first time."""
        import torch

        side = self._side
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run()
        torch.cuda.current_stream().wait_stream(side)
        if not self._beside:
            torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(side):
            graph.capture_begin(*self._pool, capture_error_mode="thread_local")  # type: ignore[misc]
            try:
                result = run()
            finally:
                graph.capture_end()
        self._pool = (graph.pool(),)

        def replay(_whose: object = run) -> Any:  # noqa: ANN401 (whatever was captured)
            # What the graph reads belongs to `run`, and lies where it lay for as long as that is kept.
            graph.replay()
            return result

        return replay
