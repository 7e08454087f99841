"""What each family of base models wants, in one table: sizes in pixels, ratios in face sizes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Family(str, Enum):
    """A family of base models; LoRAs and ControlNets fit only their own family."""

    EMBEDDED = "embedded"
    SD15 = "sd15"
    SDXL = "sdxl"


@dataclass(frozen=True, kw_only=True)
class PassRow:
    """A diffusion pass as a family wants it, for whatever `specs.PassRequest` leaves open."""

    strength: float
    steps: int
    weights: tuple[tuple[str, float], ...]
    """(condition kind, ControlNet weight)."""


_FIRST = PassRow(strength=0.45, steps=50, weights=(("canny", 0.5), ("openpose", 0.5), ("color", 0.85)))
_SECOND = PassRow(strength=0.30, steps=20, weights=(("canny", 1.0), ("tile", 1.0)))


@dataclass(frozen=True, kw_only=True)
class FamilyProfile:
    """Working sizes and training defaults of one family."""

    crop_ratio: float
    """Side of the square crop around a face, as a multiple of the face box's longer side."""
    first_size: int
    """Side in px of the crop in the first pass; a multiple of 32."""
    second_size: int
    """Side in px of the crop in the second pass; a multiple of 32."""
    train_size: int
    """Side in px of a training crop."""
    rank: int
    alpha: float
    learning_rate: float
    text_learning_rate: float
    steps_per_photo: int
    max_steps: int
    validation_steps: int
    """A checkpoint is saved and judged every so many steps."""
    timestep_power: float
    """See `OptimSpec.timestep_power`."""
    crops: int
    """Cached random crops of each photo, besides the centred one."""
    validation_templates: int
    """How many templates each checkpoint is rendered on."""
    validation_render_steps: int
    """Steps of the schedule of such a rendering."""
    guidance: float
    """Classifier-free guidance scale (arXiv 2207.12598); 1 runs without the negative prompt."""
    cosine: bool = False
    """The learning rates grow over the first twentieth of a person's training and fall along half a cosine to nothing."""
    loraplus_ratio: float = 1.0
    """See `OptimSpec.loraplus_ratio`; of people alone, as is the next."""
    face_weight: float = 1.0
    """See `OptimSpec.face_weight`."""
    karras: bool = True
    """Noise levels as in arXiv 2206.00364, equation 5; else evenly spaced timesteps. The embedded model was trained with
    min-SNR weights, which leave it weak near the end: Karras' many nearly noise-free steps show there as mottled skin."""

    first: PassRow = _FIRST
    second: PassRow = _SECOND

    @property
    def sampler(self) -> str:
        """The sampler's name in the WebUI."""
        return "DPM++ 2M SDE Karras" if self.karras else "DPM++ 2M SDE"


PROFILES: dict[Family, FamilyProfile] = {
    Family.EMBEDDED: FamilyProfile(
        crop_ratio=1.55,
        first_size=256,
        second_size=384,
        train_size=192,
        rank=32,
        alpha=32.0,
        learning_rate=1.5e-3,
        # Training its text encoder changed no score, and takes a tenth of the time.
        text_learning_rate=0.0,
        steps_per_photo=16,
        max_steps=200,
        validation_steps=40,
        timestep_power=2.0,
        # Of some thirty recipes on six people the likeliest that takes no longer (docs/performance.md, "Quality per step").
        cosine=True,
        loraplus_ratio=8.0,
        face_weight=4.0,
        crops=1,
        validation_templates=3,
        validation_render_steps=12,
        # ControlNets and LoRA hold it well enough without a negative half, in half the time.
        guidance=1.0,
        karras=False,
        # A small model forgets a face sooner than SD1.5 does: at 0.45 and half weights the mouth closes and the eyes move.
        first=PassRow(strength=0.35, steps=40, weights=(("canny", 1.0), ("openpose", 0.5), ("color", 1.0))),
        second=PassRow(strength=0.10, steps=50, weights=(("canny", 1.0), ("tile", 1.0))),
    ),
    Family.SD15: FamilyProfile(
        crop_ratio=3.0,
        first_size=512,
        second_size=640,
        train_size=512,
        rank=128,
        alpha=64.0,
        learning_rate=1e-4,
        text_learning_rate=5e-5,
        steps_per_photo=200,
        max_steps=800,
        validation_steps=100,
        timestep_power=1.0,
        crops=2,
        validation_templates=4,
        validation_render_steps=20,
        guidance=7.0,
    ),
    Family.SDXL: FamilyProfile(
        crop_ratio=3.0,
        first_size=1024,
        second_size=1024,
        train_size=1024,
        rank=32,
        alpha=16.0,
        learning_rate=1e-4,
        text_learning_rate=5e-5,
        steps_per_photo=200,
        max_steps=600,
        validation_steps=100,
        timestep_power=1.0,
        crops=2,
        validation_templates=4,
        validation_render_steps=20,
        guidance=7.0,
    ),
}
