"""Requests as the older EasyPhoto extension's clients write them, made into our orders.

Every field may be missing, null, or a number written as text, as that extension tolerates it; unknown ones are ignored.

Its defaults are those of Stable Diffusion 1.5, and its clients send them whether their users chose them or not: crops of
512 px, 800 steps, rank 128. For another family of base models they mean nothing: on the embedded one, which works on
192 px, they would take hours and spoil the likeness. So, unless the base model is of that very family:

| what was sent | what is taken |
|---|---|
| exactly that extension's default, or nothing | the family's (`families.py`) |
| anything else | what was sent |
| `rank` and `network_alpha` | as above, but both of them or neither |
| `train_batch_size` 1 with `gradient_accumulation_steps` 4 | always four pictures at once: the same step, made faster |
| `before_` and `after_face_fusion_ratio` 0.5 or 0.6 | always our own: those are ratios of another method |

A scene (`Train Scene Lora`) has the defaults of `kinds.py` wherever a field holds one of that extension's, of its route
(512 px, rank 128) or of its page (768 px, rank 256); its photos are trained with `training_prefix_prompt`.

What there is no counterpart for is left out; where a user must have asked for it, a line of the message says so.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from easyphoto.api.jsonbody import text_fault
from easyphoto.errors import InputError, SpecError
from easyphoto.extras import IdControl, SuperResolution
from easyphoto.families import Family
from easyphoto.records import TrainKind
from easyphoto.specs import (
    DataSpec,
    LoraSpec,
    OptimSpec,
    PassRequest,
    PortraitSettings,
    TrainSpec,
    ValidateSpec,
)

Value = object
"""What JSON can hold."""
_NO = frozenset({"", "0", "false", "no", "off", "none", "null"})
_LORA_TAG = re.compile(r"<lora:[^<>]*>", re.IGNORECASE)
_LONGEST_TEXT = 8_000
"""Characters of a prompt or a name."""
_RANDOM_SEEDS = 65536
"""That extension draws below it; a seed one can type again."""
_RETOUCH = 0.5
"""That extension retouches or does not; this is how much ours does then."""


class Answered(InputError):
    """The request ends here; the text is the answer's whole `message`, in that extension's own words."""

    code = "legacy"


@dataclass(frozen=True)
class Fields:
    """A request's body."""

    body: Mapping[str, Value]

    def text(self, name: str, default: str) -> str:
        """As text; anything but text and numbers is the default. Raises SpecError for text that cannot be kept."""
        value = self.body.get(name)
        return _sound(str(value), name) if isinstance(value, str | int | float) else default

    def number(self, name: str, default: float) -> float:
        """As a finite number; raises SpecError if it is none."""
        value = self.body.get(name)
        if value is None:
            return default
        try:
            number = float(value) if isinstance(value, str | int | float) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise SpecError(f"{name} must be a number, got {str(value)[:40]!r}")
        return number

    def whole(self, name: str, default: int) -> int:
        """As a whole number, fractions cut off; raises SpecError if it is none."""
        return int(self.number(name, default))

    def flag(self, name: str, default: bool) -> bool:
        """As yes or no; text that says no is no."""
        value = self.body.get(name)
        if value is None:
            return default
        return value.strip().lower() not in _NO if isinstance(value, str) else bool(value)

    def items(self, name: str) -> tuple[Value, ...]:
        """As a list; one thing alone is a list of it."""
        value = self.body.get(name)
        if value is None or value == "":
            return ()
        return tuple(value) if isinstance(value, list) else (value,)


def user_id(fields: Fields) -> str:
    """Whom to train; raises Answered where that extension refuses the name."""
    name = fields.text("user_id", "tmp" if "user_id" not in fields.body else "").strip()
    if not name:
        raise Answered("User id cannot be set to empty.")
    if name == "none":
        raise Answered("User id cannot be set to none.")
    return name


def user_ids(fields: Fields) -> tuple[str | None, ...]:
    """Who goes into the faces from left to right; None leaves a face. Raises Answered if nobody was named."""
    names = ["" if item is None else _sound(str(item), "user_ids").strip() for item in fields.items("user_ids")]
    people = tuple(None if name in ("none", "") else name for name in names)
    if not any(people):
        raise Answered("Please choose a user id.")
    return people


def train_spec(fields: Fields, own: TrainSpec) -> TrainSpec:
    """The training that was asked for.

    Args:
        fields: The request.
        own: The family's defaults for this person.

    Raises:
        Answered: The rank is smaller than alpha.
        SpecError: A number is none, or out of range.
    """
    scene = own.kind is TrainKind.SCENE
    keep = scene or own.family is not Family.SD15
    return TrainSpec(
        person=own.person, base_model=own.base_model, family=own.family, seed=own.seed, device=own.device, kind=own.kind,
        lora=_lora(fields, own.lora, keep, scene),
        optim=_optim(fields, own.optim, keep),
        data=_data(fields, own.data, keep, scene),
        validate=own.validate if scene else _validate(fields, own.validate, keep),
    )  # fmt: skip


def train_notes(fields: Fields) -> tuple[str, ...]:
    """What was asked for and is left out of a training."""
    return ("enable_rl is not available here and was left out.",) if fields.flag("enable_rl", False) else ()


def train_kind(fields: Fields) -> TrainKind:
    """What is to be learnt."""
    scene = fields.text("train_mode_choose", "Train Human Lora") == "Train Scene Lora"
    return TrainKind.SCENE if scene else TrainKind.PERSON


def scene_prompt(fields: Fields) -> str:
    """What a scene's photos show, in that extension's words."""
    return fields.text("training_prefix_prompt", "")


def portrait_settings(fields: Fields, family: Family) -> PortraitSettings:
    """How the portraits are to be made.

    Raises:
        SpecError: A number is none, or out of range.
    """
    seed = fields.whole("seed", -1)
    return PortraitSettings(
        prompt=_words(fields, "additional_prompt"),
        negative=_words(fields, "additional_neg_prompt"),
        seed=secrets.randbelow(_RANDOM_SEEDS) if seed == -1 else seed,
        count=fields.whole("batch_size", 1),
        lora_weight=fields.number("lora_weights", 0.9),
        first=_pass(fields, "first", (0.45,), 50, family),
        second=_pass(fields, "second", (0.35, 0.30), 20, family)
        if fields.flag("enable_second_diffusion", True)
        else None,
        fuse_before=_fusion(fields, "before", PortraitSettings.fuse_before),
        fuse_after=_fusion(fields, "after", PortraitSettings.fuse_after),
        color_shift_first=fields.flag("color_shift_middle", True),
        color_shift_last=fields.flag("color_shift_last", True),
        crop_face=fields.flag("crop_face_preprocess", True),
        face_shape_match=fields.flag("face_shape_match", False),
        lcm=_lcm(fields, family),
        makeup=_where(fields, "makeup_transfer", "makeup_transfer_ratio", 0.5),
        retouch=_RETOUCH if fields.flag("skin_retouching_bool", False) else 0.0,
        background=_where(fields, "background_restore", "background_restore_denoising_strength", 0.35),
        super_resolution=_enlargement(fields),
        id_control=IdControl(weight=fields.number("ipa_weight", IdControl.weight)) if _id_control(fields, family) else None,
    )  # fmt: skip


def portrait_notes(fields: Fields, family: Family) -> tuple[str, ...]:
    """What was asked for and is left out of a portrait."""
    left = []
    if fields.flag("lcm_accelerate", False) and not _lcm(fields, family):
        left.append("lcm_accelerate is not available for the embedded base model and was left out.")
    if _wants_id(fields) and _by_instantid(fields):
        left.append("InstantID is not available and was left out.")
    elif _wants_id(fields) and not _id_control(fields, family):
        left.append("id_control is not available for the embedded base model and was left out.")
    return tuple(left)


def lora_tags(fields: Fields) -> tuple[str, ...]:
    """The tags of LoRAs in a portrait's prompt, which `portrait_settings` leaves out."""
    return tuple(_LORA_TAG.findall(fields.text("additional_prompt", "")))


def tab(fields: Fields) -> int:
    """Where the templates stand: 0 the gallery's, 1 one picture, 2 several, 3 none, for they are made from text."""
    try:
        return fields.whole("tabs", 1)
    except SpecError:
        return -1


def wants_scores(fields: Fields) -> bool:
    """Whether the answer shows how near each face came; there the ID control, on by default, turns it on."""
    return fields.flag("display_score", False) or fields.flag("id_control", True)


def gallery_name(value: str) -> str:
    """The template's name in a path of that extension's gallery: its last part without ending."""
    return Path(Path(value.replace("\\", "/")).name.strip("[]'\" ")).stem


def _lora(fields: Fields, own: LoraSpec, keep: bool, scene: bool) -> LoraSpec:
    rank, alpha = fields.whole("rank", 128), fields.number("network_alpha", 64)
    if rank < alpha:
        raise Answered(f"The network alpha {alpha:g} must not exceed rank {rank}. It will result in an unintended LoRA.")
    usual = (rank, alpha) == (128, 64) or (scene and (rank, alpha) == (256, 128))
    return own if keep and usual else LoraSpec(rank=rank, alpha=alpha, text_encoder=own.text_encoder)


def _optim(fields: Fields, own: OptimSpec, keep: bool) -> OptimSpec:
    rate = fields.number("learning_rate", 1e-4)
    own_rate = math.isclose(rate, 1e-4) and keep
    together = fields.whole("train_batch_size", 1), fields.whole("gradient_accumulation_steps", 4)
    batch, accumulation = (4, 1) if together == (1, 4) else together
    return replace(
        own,
        learning_rate=own.learning_rate if own_rate else rate,
        # Half for the text encoder, as there.
        text_learning_rate=own.text_learning_rate if own_rate else rate / 2,
        steps_per_photo=_own_or_sent(fields.whole("steps_per_photos", 200), 200, own.steps_per_photo, keep),
        max_steps=_own_or_sent(fields.whole("max_train_steps", 800), 800, own.max_steps, keep),
        batch_size=batch, accumulation=accumulation,
    )  # fmt: skip


def _data(fields: Fields, own: DataSpec, keep: bool, scene: bool) -> DataSpec:
    sent = fields.whole("resolution", 512)
    size = own.size if keep and (sent == 512 or (scene and sent == 768)) else sent
    ratio = max(0.0, fields.number("crop_ratio", 3)) if scene else None
    return DataSpec(size=size, flip=own.flip, crops=own.crops, caption=own.caption, crop_ratio=ratio)


def _validate(fields: Fields, own: ValidateSpec, keep: bool) -> ValidateSpec:
    every = _own_or_sent(fields.whole("val_and_checkpointing_steps", 100), 100, own.every, keep)
    return ValidateSpec(
        every=every if fields.flag("validation", True) else 0,
        templates=own.templates, strength=own.strength, steps=own.steps, merge_best=own.merge_best,
    )  # fmt: skip


def _sound(text: str, name: str) -> str:
    fault = text_fault(text, _LONGEST_TEXT)
    if fault:
        raise SpecError(f"{name} {fault}")
    return text


def _own_or_sent(sent: int, default: int, own: int, keep: bool) -> int:
    return own if keep and sent == default else sent


def _pass(fields: Fields, which: str, usual: tuple[float, ...], usual_steps: int, family: Family) -> PassRequest:
    """Args: `usual`: the strengths that the routes and the pages of that extension start with."""
    strength = fields.number(f"{which}_denoising_strength", usual[0])
    steps = fields.whole(f"{which}_diffusion_steps", usual_steps)
    # With LCM the usual numbers are those of a portrait without; what they become is settled with the rest.
    keep = family is not Family.SD15 or fields.flag("lcm_accelerate", False)
    return PassRequest(
        strength=None if keep and strength in usual else strength,
        steps=None if keep and steps == usual_steps else steps,
    )


def _lcm(fields: Fields, family: Family) -> bool:
    return fields.flag("lcm_accelerate", False) and family is not Family.EMBEDDED


def _wants_id(fields: Fields) -> bool:
    """Whether somebody asks for the ID control, by its name of today or the one before.

    It is on there unless somebody turns it off; without its files that would end every request of a client that says nothing.
    """
    return fields.flag("id_control", False) or fields.flag("ipa_control", False)


def _by_instantid(fields: Fields) -> bool:
    return "instant" in fields.text("id_control_method", "").lower()


def _id_control(fields: Fields, family: Family) -> bool:
    return _wants_id(fields) and not _by_instantid(fields) and family is not Family.EMBEDDED


def _fusion(fields: Fields, when: str, own: float) -> float:
    if not fields.flag(f"apply_face_fusion_{when}", True):
        return 0.0
    ratio = fields.number(f"{when}_face_fusion_ratio", 0.5)
    return own if ratio in (0.5, 0.6) else ratio


def _where(fields: Fields, switch: str, name: str, usual: float) -> float:
    """A share, where its switch is on."""
    return fields.number(name, usual) if fields.flag(switch, False) else 0.0


def _enlargement(fields: Fields) -> SuperResolution | None:
    """On by default there; its two ways are weights that are not here, so the best that there is does it."""
    if not fields.flag("super_resolution", True):
        return None
    return SuperResolution(ratio=fields.number("super_resolution_ratio", 0.5))


def _words(fields: Fields, name: str) -> str:
    return _LORA_TAG.sub("", fields.text(name, "")).strip(" ,")
