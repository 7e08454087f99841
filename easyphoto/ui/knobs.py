"""Every setting that the tabs offer, as a table: what it is called, its range, and which field of the records it sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from easyphoto.errors import SpecError
from easyphoto.extras import IdControl, SuperResolution
from easyphoto.families import PROFILES, Family, PassRow
from easyphoto.kinds import spec_for
from easyphoto.portrait.enlarge import AUTO, LANCZOS
from easyphoto.portrait.lcm import GUIDANCE, faster
from easyphoto.presets import Preset, with_preset
from easyphoto.records import TrainKind
from easyphoto.specs import PassRequest, PortraitSettings
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
    CHOICE = "choice"


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
    choices: tuple[str, ...] = ()
    """Of a choice: what there is in any case; a page may offer more."""


@dataclass(frozen=True, kw_only=True)
class Switch:
    """A checkbox that turns one of the settings off; which value it has meanwhile, its own control remembers."""

    name: str
    """Also the end of its element's id."""
    label: str
    path: str
    """The field of the record that it turns off."""
    off: float | None
    """What the field holds then."""
    on: bool = False
    """Whether it is on unless somebody turns it."""


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
        Knob(name="loraplus_ratio", label="LoRA+ ratio", path="optim.loraplus_ratio", low=1, high=16, step=0.5,
             info="How much faster one half of the LoRA learns than the other."),
        Knob(name="face_weight", label="Weight of the face", path="optim.face_weight", low=1, high=16, step=0.5,
             info="How much more an error on the face counts than one beside it."),
        Knob(name="warmup", label="Warm-up", path="optim.warmup", low=0, high=0.5, step=0.05,
             info="Share of the steps over which the rates grow."),
        Knob(name="ema", label="Running average", path="optim.ema", low=0, high=0.99, step=0.01,
             info="Decay of an average of the LoRA that is kept in its place; 0 turns it off."),
    )),
)  # fmt: skip
SCENE_MAIN = KnobGroup(title="", knobs=(
    Knob(name="crop_ratio", label="Crop around a face", path="data.crop_ratio", low=0, high=6, step=0.1,
         info="Side of the square that is kept, in face sizes; below 1 whole pictures are."),
))  # fmt: skip
"""What scenes and clothes have besides."""
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
    KnobGroup(title="Finish", knobs=(
        Knob(name="makeup_ratio", label="Makeup transfer ratio", path="makeup", low=0.05, high=1, step=0.05,
             info="How much of the makeup on the template's face."),
        Knob(name="retouch_ratio", label="Skin retouching ratio", path="retouch", low=0.05, high=1, step=0.05),
        Knob(name="background_strength", label="Background restore denoising strength", path="background", low=0.05, high=0.6,
             step=0.05),
        Knob(name="super_resolution_ratio", label="Super resolution ratio", path="super_resolution.ratio", step=0.05,
             info="Share of the upscaler's picture; the rest is plainly resized."),
        Knob(name="super_resolution_way", label="The super resolution way you use", path="super_resolution.way",
             shape=Shape.CHOICE, choices=(AUTO, LANCZOS)),
    )),
    KnobGroup(title="Likeness", knobs=(
        Knob(name="lora_weight", label="LoRA weight of the person", path="lora_weight", low=0, high=1.3, step=0.05),
        Knob(name="guidance", label="Guidance scale", path="guidance", low=1, high=20, step=0.5),
        Knob(name="crop_ratio", label="Crop around the face", path="crop_ratio", low=1, high=4, step=0.05,
             info="Side of the square that is worked on, in face sizes."),
        Knob(name="id_weight", label="Weight of the ID control", path="id_control.weight", low=0.1, high=1, step=0.05,
             info="By an IP-Adapter whose file is installed; SD1.5 and SDXL."),
        _check("lcm", "LCM accelerate", "lcm", "Few steps by the LCM-LoRA in the folder of LoRAs; SD1.5 and SDXL."),
        _check("crop_face", "Crop face preprocess", "crop_face", "Off works on the whole picture at once."),
        _check("face_shape_match", "Face shape match", "face_shape_match",
               "The first pass paints around the face too, so that its outline is the person's."),
    )),
)  # fmt: skip
PORTRAIT_SWITCHES = (
    Switch(name="fusion_before", label="Apply face fusion before", path="fuse_before", off=0.0, on=True),
    Switch(name="fusion_after", label="Apply face fusion after", path="fuse_after", off=0.0, on=True),
    Switch(name="second", label="Enable second diffusion", path="second", off=None, on=True),
    Switch(name="retouch", label="Photo skin retouching", path="retouch", off=0.0),
    Switch(name="makeup", label="Makeup transfer", path="makeup", off=0.0),
    Switch(name="background", label="Background restore", path="background", off=0.0),
    Switch(name="id_control", label="ID control by IP-Adapter", path="id_control", off=None),
    Switch(name="super_resolution", label="Super resolution at last", path="super_resolution", off=None),
)
SWITCHED_ON = {switch.name: switch.on for switch in PORTRAIT_SWITCHES}
"""The switches as a page begins with them."""
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
SCENE_KNOBS = (*TRAIN_KNOBS, *SCENE_MAIN.knobs)
PORTRAIT_KNOBS = knobs_of((PORTRAIT_MAIN, *PORTRAIT_GROUPS))


def train_data(
    person: str, model: Path, family: Family, device: str = "auto", kind: TrainKind = TrainKind.PERSON, prompt: str = "",
    preset: Preset = Preset.BALANCED,
) -> dict[str, Any]:  # fmt: skip
    """A family's training of a kind as JSON data of a TrainSpec; presets are for people, and a scene's is left out."""
    own = replace(spec_for(kind, family, person, model, prompt), device=device)
    data: dict[str, Any] = to_json(with_preset(own, preset) if kind is TrainKind.PERSON else own)
    return data


def portrait_data(family: Family) -> dict[str, Any]:
    """A family's portrait as JSON data of PortraitSettings, every switch on, nothing left open but the passes' conditions."""
    row = PROFILES[family]
    settings = PortraitSettings(
        guidance=row.guidance, crop_ratio=row.crop_ratio, first=_asked(row.first), second=_asked(row.second),
        # What the switches turn on; the small embedded model knows faces, and softens a room that it paints over for long.
        makeup=0.5, retouch=0.5, background=0.2 if family is Family.EMBEDDED else 0.35, super_resolution=SuperResolution(),
        id_control=IdControl(),
    )  # fmt: skip
    data: dict[str, Any] = to_json(settings)
    return data


def lcm_values(family: Family, fast: bool) -> dict[str, Value]:
    """What some controls show once LCM is turned on, or off again."""
    row = PROFILES[family]
    first, second = faster(row.first, row.second) if fast else (row.first, row.second)
    return {
        "first_steps": first.steps, "first_strength": first.strength, "second_steps": second.steps,
        "guidance": GUIDANCE if fast else row.guidance,
    }  # fmt: skip


def _asked(row: PassRow) -> PassRequest:
    return PassRequest(strength=row.strength, steps=row.steps)


def values_of(knobs: Sequence[Knob], data: Mapping[str, Any]) -> dict[str, Value]:
    """What the controls show for some JSON data; what is None there shows as the knob's least value."""
    found: dict[str, Value] = {}
    for knob in knobs:
        value = _inside(data, knob.path)
        found[knob.name] = knob.low if value is None else value
    return found


def train_defaults(
    family: Family, kind: TrainKind = TrainKind.PERSON, preset: Preset = Preset.BALANCED
) -> dict[str, Value]:  # fmt: skip
    """What the Train tab's controls show for a family, a kind and a preset."""
    return values_of(SCENE_KNOBS, train_data("", Path(), family, kind=kind, preset=preset))


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


def switched(data: Mapping[str, Any], switches: Mapping[str, bool]) -> dict[str, Any]:
    """JSON data of PortraitSettings with what is switched off turned off; a switch that is not named is as at the beginning."""
    off = {one.path: one.off for one in PORTRAIT_SWITCHES if not switches.get(one.name, one.on)}
    return {**data, **off}


def switches_of(data: Mapping[str, Any]) -> dict[str, bool]:
    """How the switches stand for some JSON data."""
    return {one.name: data[one.path] != one.off for one in PORTRAIT_SWITCHES}


def _fitting(knob: Knob, value: object, default: object) -> Value | None:
    """What a control holds, as the record wants it."""
    if knob.shape in (Shape.TEXT, Shape.CHOICE):
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
