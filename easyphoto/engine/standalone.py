"""The engine that runs by itself: diffusers' networks and scheduler, our own loop."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from easyphoto.engine.base import StepListener
from easyphoto.engine.denoise import LATENT_FACTOR, Guide, Kept, Schedule, denoise, embed_controls
from easyphoto.engine.ip_adapter import AdapterFiles, FaceAdapter
from easyphoto.engine.lora_patch import lora_key, patched
from easyphoto.engine.models import Models
from easyphoto.engine.text import TextStates, added_conditions, encode_prompts, join
from easyphoto.engine.upscalers import load_upscaler
from easyphoto.errors import ToolMissing
from easyphoto.families import Family
from easyphoto.records import ConditionKind, Floats, InpaintJob, LoraUse, Pixels, TextJob

if TYPE_CHECKING:
    from torch import Generator, Tensor

_PROMPTS_KEPT = 32


class StandaloneEngine:
    """Runs jobs on loaded models; see `engine.base` for the contract. Not for use from two threads at once.

    The LoRAs of the last job stay merged until a job asks for others, so that a batch merges once; `close` (or leaving the
    `with` block) restores the base weights bit for bit.
    """

    def __init__(self, models: Models) -> None:
        self.models = models
        self._merged = contextlib.ExitStack()
        self._merged_key: tuple[object, ...] = ()
        self._states: OrderedDict[tuple[object, ...], TextStates] = OrderedDict()
        self._face_adapter: FaceAdapter | None = None

    def __enter__(self) -> StandaloneEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The name of the base model's folder or file."""
        return self.models.name

    @property
    def family(self) -> Family:
        """The family of the loaded base model."""
        return self.models.family

    @property
    def conditions(self) -> frozenset[ConditionKind]:
        """Which ControlNets are there."""
        return self.models.conditions

    def close(self) -> None:
        """Take the last job's LoRAs out of the weights and forget cached text states."""
        self._merged_key = ()
        self._states.clear()
        self._merged.close()

    def inpaint(self, job: InpaintJob, on_step: StepListener | None = None) -> Pixels:
        """(height, width, 3) uint8 RGB; outside the mask the job's own pixels."""
        import torch

        self._use_loras(job.loras)
        held = job.likeness if job.likeness and job.likeness.weight else None
        with torch.inference_mode(), self._adapter().in_unet(held.weight) if held else contextlib.nullcontext():
            guide = self._guide(job)
            if held:
                guide = replace(guide, likeness=self._adapter().states(held, guided=len(guide.states) > 1))
            kept = Kept(latents=self._encode(job.image), painted=self._latent_mask(job.mask))
            schedule = Schedule(steps=job.steps, strength=job.strength, lcm=job.lcm)
            latents = denoise(self.models, guide, schedule, _noise(job.seed), kept, on_step)
            painted = self._decode(latents)
        return composite(job.image, painted, job.mask)

    def text(self, job: TextJob, on_step: StepListener | None = None) -> Pixels:
        """(height, width, 3) uint8 RGB."""
        import torch

        self._use_loras(job.loras)
        shape = (1, self.models.unet.config.in_channels, job.height // LATENT_FACTOR, job.width // LATENT_FACTOR)
        with torch.inference_mode():
            blank = torch.zeros(shape, device=self.models.device)
            schedule = Schedule(steps=job.steps, strength=1.0)
            latents = denoise(self.models, self._guide(job), schedule, _noise(job.seed), blank, on_step)
            return np.rint(self._decode(latents)).astype(np.uint8)

    def check_likeness(self) -> None:
        """Refuse the ID control where its files are not here; nothing is loaded."""
        self._adapter_files().check()

    @property
    def enlargers(self) -> tuple[str, ...]:
        """The upscalers' files that were found, by name."""
        return tuple(self.models.upscalers)

    def enlarge(self, pixels: Pixels, way: str, on_step: StepListener | None = None) -> Pixels:
        """The picture larger by the upscaler's own factor; it is read anew each time, and takes no memory afterwards."""
        if way not in self.models.upscalers:
            raise ToolMissing(f"there is no upscaler {way}; there are: {', '.join(self.models.upscalers) or 'none'}")
        return load_upscaler(self.models.upscalers[way], self.models.device).enlarge(pixels, on_step)

    def _adapter_files(self) -> AdapterFiles:
        return self.models.ip_adapter or AdapterFiles(family=self.family)

    def _adapter(self) -> FaceAdapter:
        """For the ID control; what it needs is read when it is first used."""
        if self._face_adapter is None:
            models = self.models
            self._face_adapter = FaceAdapter(self._adapter_files(), models.unet, models.device, models.dtype)
        return self._face_adapter

    def _use_loras(self, loras: tuple[LoraUse, ...]) -> None:
        """Have exactly these LoRAs in the weights."""
        loras = tuple(use for use in loras if use.weight != 0)
        key = lora_key(loras)
        if key != self._merged_key:
            self.close()
            self._merged.enter_context(patched(self.models, loras))
            self._merged_key = key

    def _guide(self, job: InpaintJob | TextJob) -> Guide:
        rows = [self._text_states(job.prompt)]
        if job.guidance != 1.0:
            rows.insert(0, self._negative_states(job.negative))
        text = join(rows)
        height, width = (job.height, job.width) if isinstance(job, TextJob) else job.image.shape[:2]
        return Guide(
            states=text.states, added=added_conditions(self.models, text, (height, width)), guidance=job.guidance,
            controls=embed_controls(self.models, job.conditions),
        )  # fmt: skip

    def _negative_states(self, text: str) -> TextStates:
        """SDXL was trained with zeros for words that were left out; SD1.5 with the states of no words."""
        encoded = self._text_states(text)
        if encoded.pooled is None or text.strip():
            return encoded
        return TextStates(states=encoded.states * 0, pooled=encoded.pooled * 0)

    def _text_states(self, text: str) -> TextStates:
        """One prompt's states, kept for the next job with the same LoRAs."""
        key = (text, self._merged_key)
        if key not in self._states:
            self._states[key] = encode_prompts(self.models, [text])
            if len(self._states) > _PROMPTS_KEPT:
                self._states.popitem(last=False)
        return self._states[key]

    def _encode(self, pixels: Pixels) -> Tensor:
        """(1, 4, height / 8, width / 8) latents: the mean of the autoencoder's distribution, so that nothing is random."""
        import torch

        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(self.models.device) / 127.5 - 1
        vae = self.models.vae
        mean = vae.encode(image.contiguous(memory_format=torch.channels_last)).latent_dist.mode()
        scaled: Tensor = mean * vae.config.scaling_factor
        return scaled

    def _decode(self, latents: Tensor) -> Floats:
        """(height, width, 3) float32 in 0-255."""
        vae = self.models.vae
        image = vae.decode(latents / vae.config.scaling_factor).sample[0]
        picture: Floats = ((image.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).cpu().numpy()
        return picture

    def _latent_mask(self, mask: Floats) -> Tensor:
        """(1, 1, height / 8, width / 8) of 0 and 1; a cell is painted if the mask holds for any of its pixels."""
        import torch

        cells = torch.nn.functional.max_pool2d(torch.from_numpy(np.ascontiguousarray(mask))[None, None].float(), LATENT_FACTOR)
        return (cells > 0.1).float().to(self.models.device)


def _noise(seed: int) -> Generator:
    import torch

    return torch.Generator("cpu").manual_seed(seed)


def composite(image: Pixels, painted: Floats, mask: Floats) -> Pixels:
    """`painted` where the mask holds, `image` bit for bit where it is 0."""
    share = mask[..., None].astype(np.float32)
    return np.asarray(np.rint(image + share * (painted - image)), np.uint8)
