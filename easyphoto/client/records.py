"""What the server's views look like to a program; jobs, results, verdicts and events are the records used everywhere.

A newer server may send more fields: they are passed over. See `reading`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from easyphoto.families import Family
from easyphoto.orders import Consent
from easyphoto.records import TrainKind


@dataclass(frozen=True, kw_only=True)
class PersonView:
    """A trained person."""

    id: str
    name: str
    family: Family
    """Of the base model they were trained on."""
    created: str = ""
    """ISO 8601, UTC."""
    score: float | None = None
    """1 - dlib distance of the kept checkpoint's pictures to the person; None where nothing was judged."""
    photos: int = 0
    """How many photos were trained on."""
    consent: Consent | None = None


@dataclass(frozen=True, kw_only=True)
class SceneView:
    """A trained scene or garment."""

    id: str
    name: str
    kind: TrainKind
    family: Family
    """Of the base model it was trained on."""
    created: str = ""
    """ISO 8601, UTC."""
    photos: int = 0
    """How many photos were trained on."""
    prompt: str = ""
    """What it was trained with, and what calls it up."""
    lora: str = ""
    """What a portrait's prompt names it by: `<lora:NAME:0.8>`."""


@dataclass(frozen=True, kw_only=True)
class TemplateView:
    """One picture of the server's gallery."""

    name: str
    sex: str | None = None
    """"woman" or "man"; None where nobody said."""
    age: int | None = None
    words: str = ""
    """What the scene shows."""


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """One base model of the server."""

    id: str
    family: Family
    default: bool = False
    """Portraits, and trainings that name no other, are made with this one."""


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What a deletion removed."""

    removed: tuple[str, ...] = ()
    """Paths below the owner's home on the server. Empty also when the server's answer was lost on the way and a second try
    found nothing left."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """That the server answers."""

    status: str


class LoraSettings(TypedDict, total=False):
    """Fields of `easyphoto.specs.LoraSpec`; what is left out is as the base model's family wants it."""

    rank: int
    alpha: float
    text_encoder: bool
    rslora: bool


class OptimSettings(TypedDict, total=False):
    """Fields of `easyphoto.specs.OptimSpec`."""

    learning_rate: float
    text_learning_rate: float
    steps_per_photo: int
    max_steps: int
    batch_size: int
    accumulation: int
    max_grad_norm: float
    snr_gamma: float | None
    timestep_power: float
    schedule: str
    """"constant" or "cosine"."""
    warmup: float
    loraplus_ratio: float
    face_weight: float
    ema: float


class DataSettings(TypedDict, total=False):
    """Fields of `easyphoto.specs.DataSpec`."""

    size: int
    flip: bool
    crops: int
    caption: str
    crop_ratio: float | None


class ValidateSettings(TypedDict, total=False):
    """Fields of `easyphoto.specs.ValidateSpec`."""

    every: int
    templates: int
    strength: float
    steps: int
    merge_best: int


class TrainSettings(TypedDict, total=False):
    """How a person is trained; what is left out is as the preset and the base model's family want it."""

    preset: str
    """"fast", "balanced" or "best"."""
    lora: LoraSettings
    optim: OptimSettings
    data: DataSettings
    validate: ValidateSettings
    seed: int
    base_model: str
    """Id of one of `Client.models()`."""


class PassOptions(TypedDict, total=False):
    """Fields of `easyphoto.specs.PassRequest`."""

    strength: float | None
    steps: int | None
    weights: list[tuple[str, float]] | None


class SuperResolutionOptions(TypedDict, total=False):
    """Fields of `easyphoto.extras.SuperResolution`, where each is explained."""

    way: str
    ratio: float


class IdControlOptions(TypedDict, total=False):
    """Fields of `easyphoto.extras.IdControl`."""

    weight: float


class PortraitOptions(TypedDict, total=False):
    """Fields of `easyphoto.specs.PortraitSettings`, where each is explained."""

    prompt: str
    negative: str
    seed: int | None
    """None: drawn at random, and told with each picture of the result."""
    count: int
    lora_weight: float
    guidance: float | None
    first: PassOptions
    second: PassOptions | None
    fuse_before: float
    fuse_after: float
    color_shift_first: bool
    color_shift_last: bool
    crop_ratio: float | None
    crop_face: bool
    face_shape_match: bool
    lcm: bool
    id_control: IdControlOptions | None
    makeup: float
    retouch: float
    background: float
    super_resolution: SuperResolutionOptions | None


Options = Mapping[str, object]
"""Any of the settings above, as the wire carries them."""
