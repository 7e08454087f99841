"""A picture from a scene's own words, to look at while it is learnt: nobody is in it whose likeness could be scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from easyphoto.engine.models import Models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.families import PROFILES
from easyphoto.imaging.io import save_png
from easyphoto.records import TextJob, TrainKind
from easyphoto.specs import TrainSpec

_GUIDANCE = 5.0
"""The embedded family paints portraits at 1, held by ControlNets; words alone need more."""


def wants_looks(spec: TrainSpec) -> bool:
    """Whether checkpoints are rendered to be looked at, and not to be scored."""
    return spec.kind is not TrainKind.PERSON and spec.validate.every > 0


def look_path(folder: Path, step: int) -> Path:
    """Where the picture of a checkpoint lies."""
    return folder / f"look-{step:06d}.png"


def newest_look(folder: Path, step: int) -> Path | None:
    """The last picture up to a step; None where none was made."""
    found = [path for path in sorted(folder.glob("look-*.png")) if path <= look_path(folder, step)]
    return found[-1] if found else None


def take_look(models: Models, spec: TrainSpec, prompt: str, path: Path, before_step: Callable[[], None]) -> None:
    """Paint the prompt with the weights as they are, always from the same noise.

    Args:
        models: The models under training, with what was learnt in their weights.
        spec: Size, steps and seed.
        prompt: What to paint.
        path: Where the picture goes.
        before_step: Asked at every step; may raise Cancelled.
    """
    side = spec.data.size
    job = TextJob(
        width=side, height=side, prompt=prompt, steps=spec.validate.steps, seed=spec.seed,
        guidance=max(PROFILES[spec.family].guidance, _GUIDANCE),
    )  # fmt: skip
    with StandaloneEngine(models) as engine:
        save_png(path, engine.text(job, lambda _done, _total: before_step()))
