"""Every setting that the tabs offer, as a table: what it is called, its range, and which field of the records it sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from easyphoto.errors import SpecError
from easyphoto.families import PROFILES, Family, PassRow
from easyphoto.specs import PassRequest, PortraitSettings, TrainSpec
from easyphoto.store.codec import to_json

LONGEST_TEXT = 8_000
"""Characters of a prompt or any other text."""

Value = bool | int | float | str
Values = Mapping[str, Any]
"""What the controls hold, by the names of their knobs."""


class Shape(Enum):
    """How a setting is shown."""

    SLIDER = "slider"
    NUMBER = "number"
    CHECKBOX = "checkbox"
    TEXT = "text"


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One setting."""

    name: str
    """Also the end of its element's id."""
    label: str
    path: str
    """Where it stands in the record's JSON, as "optim.max_steps"."""
    shape: Shape = Shape.SLIDER
    low: float = 0
    high: float = 1
    step: float = 1
    info: str = ""


@dataclass(frozen=True, kw_only=True)
class KnobGroup:
    """Settings that belong together, under one heading."""

    title: str
    knobs: tuple[Knob, ...]


def _check(name: str, label: str, path: str, info: str = "") -> Knob:
    return Knob(name=name, label=label, path=path, shape=Shape.CHECKBOX, info=info)


def _number(name: str, label: str, path: str, info: str = "") -> Knob:
    return Knob(name=name, label=label, path=path, shape=Shape.NUMBER, info=info)


TRAIN_GROUPS = (
    KnobGroup(title="Steps", knobs=(
        Knob(name="max_steps", label="Max train steps", path="optim.max_steps", low=10, high=3000, step=10),
        Knob(name="steps_per_photo", label="Max steps per photo", path="optim.steps_per_photo", low=1, high=500,
             info="The training has photos x this many steps, and never more than the maximum."),
        Knob(name="batch_size", label="Train batch size", path="optim.batch_size", low=1, high=16),
        Knob(name="accumulation", label="Gradient accumulation steps", path="optim.accumulation", low=1, high=16),
        _number("learning_rate", "Learning rate", "optim.learning_rate"),
        _number("text_learning_rate", "Learning rate of the text encoder", "optim.text_learning_rate"),
    )),
    KnobGroup(title="LoRA", knobs=(
        Knob(name="rank", label="Rank", path="lora.rank", low=1, high=256),
        Knob(name="alpha", label="Network alpha", path="lora.alpha", low=1, high=256, info="At most the rank."),
        _check("text_encoder", "Train the text encoder too", "lora.text_encoder"),
    )),
    KnobGroup(title="Photos", knobs=(
        Knob(name="size", label="Resolution", path="data.size", low=64, high=1536, step=32),
        Knob(name="crops", label="Random crops of each photo", path="data.crops", low=0, high=8),
        _check("flip", "Mirrored photos too", "data.flip"),
    )),
    KnobGroup(title="Judging", knobs=(
        Knob(name="every", label="Validation & save steps", path="validate.every", low=5, high=1000, step=5,
             info="After so many steps a checkpoint is saved, rendered on templates and compared with the photos."),
        Knob(name="templates", label="Templates for each checkpoint", path="validate.templates", low=1, high=16),
        Knob(name="render_steps", label="Steps of each rendering", path="validate.steps", low=4, high=50),
        Knob(name="merge_best", label="Best checkpoints to merge", path="validate.merge_best", low=1, high=8),
    )),
    KnobGroup(title="For experts", knobs=(
        _number("seed", "Seed", "seed"),
        Knob(name="snr_gamma", label="Min-SNR gamma", path="optim.snr_gamma", low=0, high=20, step=0.5,
             info="0 turns it off."),
        Knob(name="timestep_power", label="Timestep power", path="optim.timestep_power", low=0.25, high=4, step=0.05,
             info="Above 1 favours the low noise levels, where a likeness is decided."),
    )),
)  # fmt: skip
PORTRAIT_GROUPS = (
    KnobGroup(title="First pass", knobs=(
        Knob(name="first_steps", label="First diffusion steps", path="first.steps", low=4, high=100),
        Knob(name="first_strength", label="First diffusion denoising strength", path="first.strength", low=0.05, high=0.9,
             step=0.05),
        Knob(name="fuse_before", label="Face fusion ratio before", path="fuse_before", step=0.05,
             info="Share of the reference face before the first pass; 0 turns it off."),
        Knob(name="fuse_after", label="Face fusion ratio after", path="fuse_after", step=0.05,
             info="Share of the reference face after the first pass; 0 turns it off."),
        _check("color_shift_first", "Match the colours after the first pass", "color_shift_first"),
    )),
    KnobGroup(title="Second pass", knobs=(
        Knob(name="second_steps", label="Second diffusion steps", path="second.steps", low=4, high=100),
        Knob(name="second_strength", label="Second diffusion denoising strength", path="second.strength", low=0.05, high=0.9,
             step=0.05),
        _check("color_shift_last", "Match the colours at the end", "color_shift_last"),
    )),
    KnobGroup(title="Likeness", knobs=(
        Knob(name="lora_weight", label="LoRA weight of the person", path="lora_weight", low=0, high=1.3, step=0.05),
        Knob(name="guidance", label="Guidance scale", path="guidance", low=1, high=20, step=0.5),
        Knob(name="crop_ratio", label="Crop around the face", path="crop_ratio", low=1, high=4, step=0.05,
             info="Side of the square that is worked on, in face sizes."),
    )),
)  # fmt: skip
PORTRAIT_MAIN = KnobGroup(title="", knobs=(
    Knob(name="prompt", label="Additional prompt", path="prompt", shape=Shape.TEXT),
    Knob(name="negative", label="Additional negative prompt", path="negative", shape=Shape.TEXT),
    Knob(name="seed", label="Seed", path="seed", shape=Shape.NUMBER, info="-1 draws one at random."),
    Knob(name="count", label="Pictures of each template", path="count", low=1, high=32),
))  # fmt: skip


def knobs_of(groups: Sequence[KnobGroup]) -> tuple[Knob, ...]:
    """All settings of some groups, in order."""
    return tuple(knob for group in groups for knob in group.knobs)


TRAIN_KNOBS = knobs_of(TRAIN_GROUPS)
PORTRAIT_KNOBS = knobs_of((PORTRAIT_MAIN, *PORTRAIT_GROUPS))


def train_data(person: str, model: Path, family: Family, device: str = "auto") -> dict[str, Any]:
    """A family's training as JSON data of a TrainSpec."""
    data: dict[str, Any] = to_json(TrainSpec.for_family(person, model, family, device=device))
    return data


def portrait_data(family: Family) -> dict[str, Any]:
    """A family's portrait as JSON data of PortraitSettings, with nothing left open but the passes' conditions."""
    row = PROFILES[family]
    settings = PortraitSettings(
        guidance=row.guidance, crop_ratio=row.crop_ratio, first=_asked(row.first), second=_asked(row.second)
    )
    data: dict[str, Any] = to_json(settings)
    return data


def _asked(row: PassRow) -> PassRequest:
    return PassRequest(strength=row.strength, steps=row.steps)


def values_of(knobs: Sequence[Knob], data: Mapping[str, Any]) -> dict[str, Value]:
    """What the controls show for some JSON data; what is None there shows as the knob's least value."""
    found: dict[str, Value] = {}
    for knob in knobs:
        value = _inside(data, knob.path)
        found[knob.name] = knob.low if value is None else value
    return found


def train_defaults(family: Family) -> dict[str, Value]:
    """What the Train tab's controls show for a family."""
    return values_of(TRAIN_KNOBS, train_data("", Path(), family))


def portrait_defaults(family: Family) -> dict[str, Value]:
    """What the Inference tab's controls show for a family."""
    return {**values_of(PORTRAIT_KNOBS, portrait_data(family)), "seed": -1}


def laid_over(data: Mapping[str, Any], knobs: Sequence[Knob], values: Values) -> dict[str, Any]:
    """JSON data with what the controls hold laid over it.

    Raises:
        SpecError: A control is empty, no whole number where one is wanted, or holds too long a text.
    """
    result = _copied(data)
    for knob in knobs:
        *way, last = knob.path.split(".")
        inside = result
        for key in way:
            inside = inside[key]
        inside[last] = _fitting(knob, values.get(knob.name), inside[last])
    return result


def _fitting(knob: Knob, value: object, default: object) -> Value | None:
    """What a control holds, as the record wants it."""
    if knob.shape is Shape.TEXT:
        return short_text(knob.label, value)
    if knob.shape is Shape.CHECKBOX:
        return bool(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"{knob.label} is empty; give a number")
    if default is None:
        return float(value) or None
    if isinstance(default, int):
        if value != int(value):
            raise SpecError(f"{knob.label} must be a whole number, got {value}; round it")
        return int(value)
    return float(value)


def short_text(label: str, value: object) -> str:
    """A control's text; SpecError if it is no text, or too long to be meant."""
    text = "" if value is None else value
    if not isinstance(text, str):
        raise SpecError(f"{label} must be text; write it anew")
    if len(text) > LONGEST_TEXT:
        raise SpecError(f"{label} has {len(text):,} characters; shorten it to {LONGEST_TEXT:,}")
    return text


def _inside(data: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 (any JSON)
    value: Any = data
    for key in path.split("."):
        value = value[key]
    return value


def _copied(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in data.items()}


def widened(knob: Knob, value: Value) -> Knob:
    """The knob with a range that its value lies in, for records made elsewhere."""
    if knob.shape is not Shape.SLIDER or isinstance(value, str):
        return knob
    return replace(knob, low=min(knob.low, float(value)), high=max(knob.high, float(value)))
