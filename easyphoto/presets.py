"""How long and how carefully a person is trained, by one word: each preset is laid over the family's own recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from easyphoto.errors import SpecError
from easyphoto.families import Family
from easyphoto.records import TrainKind
from easyphoto.specs import RateSchedule, TrainSpec


class Preset(str, Enum):
    """One word for a recipe; docs/performance.md has what each was measured to take and to give."""

    FAST = "fast"
    """For a first look."""
    BALANCED = "balanced"
    """The family's own recipe; on SD1.5 and SDXL sd-webui-EasyPhoto's numbers."""
    BEST = "best"
    """More time for a little more likeness."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """What a preset has otherwise than the family's own recipe."""

    learning_rate: float
    steps_per_photo: int
    max_steps: int
    every: int
    """Steps between checkpoints."""
    merge_best: int
    batch_size: int = 4
    schedule: RateSchedule = RateSchedule.CONSTANT
    """Not down to nothing for a short one: what it learns last it would hardly learn."""
    loraplus_ratio: float = 1.0
    face_weight: float = 1.0


_ROWS = {
    (Family.EMBEDDED, Preset.FAST): _Row(
        learning_rate=1.5e-3, steps_per_photo=12, max_steps=60, every=60, merge_best=1, loraplus_ratio=8.0, face_weight=4.0
    ),
    (Family.EMBEDDED, Preset.BEST): _Row(
        learning_rate=1.5e-3, steps_per_photo=20, max_steps=200, every=50, merge_best=3, batch_size=8,
        schedule=RateSchedule.COSINE, loraplus_ratio=8.0,
    ),
    (Family.SD15, Preset.FAST): _Row(learning_rate=2e-4, steps_per_photo=100, max_steps=400, every=200, merge_best=2),
    (Family.SD15, Preset.BEST): _Row(
        learning_rate=1e-4, steps_per_photo=300, max_steps=1200, every=100, merge_best=3, schedule=RateSchedule.COSINE
    ),
    (Family.SDXL, Preset.FAST): _Row(learning_rate=2e-4, steps_per_photo=100, max_steps=300, every=150, merge_best=2),
    (Family.SDXL, Preset.BEST): _Row(
        learning_rate=1e-4, steps_per_photo=300, max_steps=900, every=100, merge_best=3, schedule=RateSchedule.COSINE
    ),
}  # fmt: skip
"""Those of the embedded family were measured; those of the others carry their shape over; no likeness was measured there."""


def with_preset(spec: TrainSpec, preset: Preset) -> TrainSpec:
    """The family's training of a person as a preset wants it.

    Args:
        spec: As `TrainSpec.for_family` makes it.
        preset: `BALANCED` leaves it as it is.

    Raises:
        SpecError: A scene or a garment, which have one recipe each.
    """
    if preset is Preset.BALANCED:
        return spec
    if spec.kind is not TrainKind.PERSON:
        raise SpecError(f"the preset {preset.value} is for people; a {spec.kind.value} has one recipe, so leave it out")
    row = _ROWS[spec.family, preset]
    optim = replace(
        spec.optim, learning_rate=row.learning_rate, steps_per_photo=row.steps_per_photo, max_steps=row.max_steps,
        batch_size=row.batch_size, loraplus_ratio=row.loraplus_ratio, face_weight=row.face_weight,
        schedule=row.schedule, warmup=0.05,
    )  # fmt: skip
    return replace(spec, optim=optim, validate=replace(spec.validate, every=row.every, merge_best=row.merge_best))
