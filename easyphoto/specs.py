"""What people ask for and what they get back: training and portrait requests, and their results.

Frozen, keyword-only, refused at construction when contradictory. JSON in and out by `easyphoto.store.codec`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from easyphoto.errors import SpecError
from easyphoto.extras import PortraitExtras, check_id_picture
from easyphoto.families import PROFILES, Family
from easyphoto.records import CAPTION, LoraUse, Photo, TrainKind

SCHEMA_VERSION = 1


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SpecError(f"{name} must be within {low}-{high}, got {value}")


@dataclass(frozen=True, kw_only=True)
class LoraSpec:
    """Shape of the LoRA (arXiv 2106.09685)."""

    rank: int = 128
    alpha: float = 64.0
    text_encoder: bool = True
    """Train the text encoder's attention and MLP too."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) (arXiv 2312.03732), so that a larger rank does not learn more slowly."""

    def __post_init__(self) -> None:
        _within("rank", self.rank, 1, 512)
        _within("alpha", self.alpha, 0.01, self.rank)

    @property
    def scale(self) -> float:
        """Of the product of both factors."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def file_alpha(self) -> float:
        """The alpha that a file carries: every loader divides it by the rank, and gets our scale."""
        return self.scale * self.rank


class RateSchedule(str, Enum):
    """How the learning rates change along the way."""

    CONSTANT = "constant"
    COSINE = "cosine"
    """Down to nothing along half a cosine (arXiv 1608.03983, without restarts)."""


@dataclass(frozen=True, kw_only=True)
class OptimSpec:
    """How the LoRA is optimised; steps = min(photos * steps_per_photo, max_steps)."""

    learning_rate: float = 1e-4
    text_learning_rate: float = 5e-5
    steps_per_photo: int = 200
    max_steps: int = 800
    batch_size: int = 4
    accumulation: int = 1
    max_grad_norm: float = 1.0
    snr_gamma: float | None = None
    """Min-SNR weighting (arXiv 2303.09556); None trains with plain MSE."""
    timestep_power: float = 1.0
    """Timesteps are drawn as u ** power of the schedule, u uniform: 1 treats all noise levels alike, more favours the low
    and middle ones, where inpainting begins and a likeness is decided."""
    schedule: RateSchedule = RateSchedule.CONSTANT
    warmup: float = 0.0
    """Share of all steps over which the rates grow from nothing."""
    loraplus_ratio: float = 1.0
    """Ups learn at so many times the rate of the downs (LoRA+, arXiv 2402.12354)."""
    face_weight: float = 1.0
    """An error on the face counts so many times as much as one beside it."""
    ema: float = 0.0
    """What is kept is a running average of the factors with this decay, shorter at the beginning; 0 keeps them as they are."""

    def __post_init__(self) -> None:
        _within("learning_rate", self.learning_rate, 1e-8, 1.0)
        _within("text_learning_rate", self.text_learning_rate, 0.0, 1.0)
        _within("steps_per_photo", self.steps_per_photo, 1, 10_000)
        _within("max_steps", self.max_steps, 1, 100_000)
        _within("batch_size", self.batch_size, 1, 64)
        _within("accumulation", self.accumulation, 1, 64)
        _within("timestep_power", self.timestep_power, 0.25, 4.0)
        _within("warmup", self.warmup, 0.0, 0.5)
        _within("loraplus_ratio", self.loraplus_ratio, 1.0, 64.0)
        _within("face_weight", self.face_weight, 1.0, 16.0)
        _within("ema", self.ema, 0.0, 0.9999)
        if self.snr_gamma is not None:
            _within("snr_gamma", self.snr_gamma, 0.1, 100.0)

    def steps_for(self, photos: int) -> int:
        """Optimiser steps for so many accepted photos."""
        return min(photos * self.steps_per_photo, self.max_steps)


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What of the photos is trained on."""

    size: int = 512
    """Side of a training crop in px, a multiple of 32."""
    flip: bool = True
    crops: int = 2
    """Cached random crops of each photo, besides the centred one."""
    caption: str = CAPTION
    """For every picture that has none of its own."""
    crop_ratio: float | None = None
    """Of a scene: side of the square that is kept around a face, in face sizes; below 1, or without a face, the whole
    picture is. None is a person's: as the family wants it."""

    def __post_init__(self) -> None:
        if self.size % 32:
            raise SpecError(f"size must be a multiple of 32 px, got {self.size}")
        _within("crop_ratio", self.crop_ratio or 0.0, 0.0, 16.0)
        _within("size", self.size, 64, 2048)
        _within("crops", self.crops, 0, 16)


@dataclass(frozen=True, kw_only=True)
class ValidateSpec:
    """How checkpoints are judged while training runs."""

    every: int = 100
    """Steps between checkpoints; 0 trains without judging and keeps the last."""
    templates: int = 4
    """How many templates of the gallery each checkpoint is rendered on."""
    strength: float = 0.65
    steps: int = 20
    merge_best: int = 3
    """How many of the best checkpoints are merged at the end."""

    def __post_init__(self) -> None:
        _within("every", self.every, 0, 100_000)
        _within("templates", self.templates, 1, 16)
        _within("strength", self.strength, 0.05, 1.0)
        _within("merge_best", self.merge_best, 1, 16)


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """Everything that decides a training; written into the LoRA file whole."""

    person: str
    base_model: Path
    family: Family = Family.EMBEDDED
    lora: LoraSpec = field(default_factory=LoraSpec)
    optim: OptimSpec = field(default_factory=OptimSpec)
    data: DataSpec = field(default_factory=DataSpec)
    validate: ValidateSpec = field(default_factory=ValidateSpec)
    seed: int = 0
    device: str = "auto"
    kind: TrainKind = TrainKind.PERSON
    """What is learnt; `kinds.spec_for` has the defaults of each."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.kind is TrainKind.PERSON and self.data.crop_ratio is not None:
            raise SpecError("crop_ratio is for scenes and clothes; a person's photos are cropped as the family wants it")

    @staticmethod
    def for_family(person: str, base_model: Path, family: Family, seed: int = 0, device: str = "auto") -> TrainSpec:
        """The defaults of a family's profile."""
        row = PROFILES[family]
        return TrainSpec(
            person=person, base_model=base_model, family=family, seed=seed, device=device,
            lora=LoraSpec(rank=row.rank, alpha=row.alpha),
            optim=OptimSpec(
                learning_rate=row.learning_rate, text_learning_rate=row.text_learning_rate,
                steps_per_photo=row.steps_per_photo, max_steps=row.max_steps, timestep_power=row.timestep_power,
                schedule=RateSchedule.COSINE if row.cosine else RateSchedule.CONSTANT, warmup=0.05 * row.cosine,
                loraplus_ratio=row.loraplus_ratio, face_weight=row.face_weight,
            ),
            data=DataSpec(size=row.train_size, crops=row.crops),
            validate=ValidateSpec(
                every=row.validation_steps, templates=row.validation_templates, steps=row.validation_render_steps
            ),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CheckpointScore:
    """One judged checkpoint."""

    step: int
    score: float
    """Mean over templates of 1 - dlib distance to the person's median embedding; higher is nearer."""
    pictures: tuple[Path, ...]
    """One rendering for each validation template."""
    picture_scores: tuple[float, ...]
    merged: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training leaves, all inside its job folder until it is published."""

    lora: Path
    steps: int
    photos: int
    checkpoints: tuple[CheckpointScore, ...]
    chosen: int
    """Index into `checkpoints` of the one (or the merge) that was kept; -1 when nothing was judged."""
    face_id_picture: Path | None
    """The best rendering: the face_id image of the portrait's openpose step."""
    seconds: float
    losses: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Person:
    """A published person; a scene or a piece of clothing lies on a shelf of its own, without an embedding."""

    name: str
    person_id: str
    """Folder name under the home's `people`: safe on every file system."""
    folder: Path
    family: Family
    lora: Path
    reference: Path
    """The reference photo's crop (PNG)."""
    face_id_picture: Path
    """The best validation picture; the reference where none was rendered."""
    embedding: tuple[float, ...]
    created: str
    """ISO 8601, UTC."""
    score: float | None = None
    photos: int = 0
    kind: TrainKind = TrainKind.PERSON
    prompt: str = ""
    """What it was trained with, and what calls it up; of a person nothing but the usual caption."""


@dataclass(frozen=True, kw_only=True)
class PassSettings:
    """One diffusion pass with nothing left open."""

    strength: float
    steps: int
    weights: tuple[tuple[str, float], ...]
    """(condition kind, ControlNet weight) in the order they are applied."""

    def __post_init__(self) -> None:
        _within("strength", self.strength, 0.01, 1.0)
        _within("steps", self.steps, 1, 1000)


@dataclass(frozen=True, kw_only=True)
class PassRequest:
    """What is asked of one diffusion pass; None takes the family's (`families.PROFILES`)."""

    strength: float | None = None
    steps: int | None = None
    weights: tuple[tuple[str, float], ...] | None = None
    """(condition kind, ControlNet weight) in the order they are applied."""

    def __post_init__(self) -> None:
        if self.strength is not None:
            _within("strength", self.strength, 0.01, 1.0)
        if self.steps is not None:
            _within("steps", self.steps, 1, 1000)


@dataclass(frozen=True, kw_only=True)
class PortraitSettings(PortraitExtras):
    """How portraits are made, whoever is in them."""

    prompt: str = ""
    negative: str = ""
    seed: int = 0
    count: int = 1
    """How many pictures; each has a seed of its own: seed, seed + 1, ..."""
    lora_weight: float = 0.9
    guidance: float | None = None
    """None takes the family's."""
    first: PassRequest = PassRequest()
    second: PassRequest | None = PassRequest()
    """None leaves the second pass out."""
    fuse_before: float = 0.8
    """Share of the fused reference face before the first pass; 0 turns it off."""
    fuse_after: float = 0.9
    """Share of the fused reference face after the first pass; 0 turns it off."""
    color_shift_first: bool = True
    color_shift_last: bool = True
    crop_ratio: float | None = None
    """None takes the family's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _within("count", self.count, 1, 64)
        _within("seed", self.seed, 0, 2**32 - 1)
        _within("lora_weight", self.lora_weight, 0.0, 1.5)
        _within("fuse_before", self.fuse_before, 0.0, 1.0)
        _within("fuse_after", self.fuse_after, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class PortraitRequest(PortraitSettings):
    """Put people into one template; batch over templates is the caller's loop."""

    template: Photo
    people: tuple[Person | None, ...]
    """One for each face of the template from left to right; None leaves that face; faces beyond the list are left."""
    loras: tuple[LoraUse, ...] = ()
    """Scenes and others, beside each person's own."""
    id_picture: Photo | None = None
    """Shows the one person for the ID control; None takes everybody's reference photo."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_id_picture(self.id_control, self.id_picture, self.people)
        if not any(self.people):
            raise SpecError("a portrait needs at least one person; name one with --person")


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceOutcome:
    """What became of one face of the template."""

    person: str
    similarity: float | None
    """1 - dlib distance between the result's face and the person's median embedding; None if no face was found."""
    stages: tuple[tuple[str, Photo], ...]
    """(name, picture) of the working crop: original, fused, first pass, second pass, result."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PortraitResult:
    """One finished picture."""

    picture: Photo
    changed: Photo
    """What was painted, grey, at the template's size: 0 where its pixels are kept bit for bit (before super resolution)."""
    seed: int
    faces: tuple[FaceOutcome, ...]
    infotext: str
    """The WebUI's infotext, written into the PNG under "parameters"."""
    seconds: tuple[tuple[str, float], ...]
    """(stage, seconds) in order."""
    warnings: tuple[str, ...] = ()
