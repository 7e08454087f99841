"""What each kind of training wants: its own defaults over those of the base model's family, and its captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from easyphoto.families import Family
from easyphoto.records import CAPTION, TrainKind
from easyphoto.specs import DataSpec, RateSchedule, TrainSpec

CAPTIONS: Mapping[TrainKind, str] = {
    TrainKind.PERSON: CAPTION,
    TrainKind.SCENE: "special_scene, scene",
    TrainKind.CLOTH: "easyphoto, 1thing",
}
"""What every training of a kind is called up with; a prompt of one's own comes before it."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """What a kind has otherwise than a person of the same family."""

    size: int
    rank: int
    alpha: float
    max_steps: int
    steps_per_photo: int = 200
    look_every: int
    """Steps between checkpoints, each with a picture to look at."""
    crops: int = 2
    flip: bool = True
    text_encoder: bool = True


_ROWS: Mapping[tuple[TrainKind, Family], _Row] = {
    # A scene is told by small things anywhere in the picture, so its pictures are larger and its LoRAs thicker than a face's.
    (TrainKind.SCENE, Family.EMBEDDED): _Row(size=256, rank=32, alpha=32.0, max_steps=200, steps_per_photo=16, look_every=100),
    (TrainKind.SCENE, Family.SD15): _Row(size=768, rank=256, alpha=128.0, max_steps=800, look_every=200),
    (TrainKind.SCENE, Family.SDXL): _Row(
        size=1024, rank=32, alpha=16.0, max_steps=600, look_every=200, text_encoder=False
    ),
    # A garment is one thing, seen whole, and no mirror image of itself: its buttons are on one side.
    (TrainKind.CLOTH, Family.EMBEDDED): _Row(
        size=192, rank=32, alpha=32.0, max_steps=100, steps_per_photo=100, look_every=50, crops=0, flip=False
    ),
    (TrainKind.CLOTH, Family.SD15): _Row(size=512, rank=128, alpha=64.0, max_steps=200, look_every=100, crops=0, flip=False),
    (TrainKind.CLOTH, Family.SDXL): _Row(
        size=1024, rank=32, alpha=16.0, max_steps=200, look_every=100, crops=0, flip=False, text_encoder=False
    ),
}  # fmt: skip
_TEXT_RATE = 1e-4
"""Of the text encoder, where people are trained without it: words tell one scene's captions apart."""
_AROUND_FACE = 3.0
"""Side of what is kept around a face in a scene, in face sizes."""


def spec_for(kind: TrainKind, family: Family, name: str, base_model: Path, prompt: str = "") -> TrainSpec:
    """The defaults of a kind on a family.

    Args:
        kind: What is learnt.
        family: Of the base model.
        name: Of the person, scene or garment.
        base_model: What it is trained on.
        prompt: Words for every picture that has no caption of its own; the kind's own words follow them.
    """
    own = TrainSpec.for_family(name, base_model, family)
    if kind is TrainKind.PERSON:
        return own
    row = _ROWS[kind, family]
    return replace(
        own,
        kind=kind,
        lora=replace(own.lora, rank=row.rank, alpha=row.alpha, text_encoder=row.text_encoder),
        # What a picture is made of is decided at high noise levels as much as at low ones.
        optim=replace(
            own.optim, steps_per_photo=row.steps_per_photo, max_steps=row.max_steps, timestep_power=1.0,
            # What people were found to learn best with is about faces.
            schedule=RateSchedule.CONSTANT, warmup=0.0, loraplus_ratio=1.0, face_weight=1.0,
            text_learning_rate=own.optim.text_learning_rate or _TEXT_RATE,
        ),
        data=DataSpec(
            size=row.size, crops=row.crops, flip=row.flip, caption=caption_for(kind, prompt),
            crop_ratio=_AROUND_FACE if kind is TrainKind.SCENE else 0.0,
        ),
        validate=replace(own.validate, every=row.look_every, templates=1, steps=25),
    )  # fmt: skip


def caption_for(kind: TrainKind, prompt: str) -> str:
    """The caption of pictures that have none of their own."""
    words = " ".join(prompt.split()).strip(" ,")
    return ", ".join(part for part in (words, CAPTIONS[kind]) if part)


def is_bare(spec: TrainSpec) -> bool:
    """Whether nobody said what the pictures show: the caption is the kind's own."""
    return spec.data.caption == CAPTIONS[spec.kind]
