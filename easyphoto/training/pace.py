"""What changes from step to step, as numbers of the step alone: a resumed training goes on as it would have gone on."""

from __future__ import annotations

import math

from easyphoto.specs import OptimSpec, RateSchedule


def pace(optim: OptimSpec, step: int, total: int) -> float:
    """The share of the learning rates that a step learns at, 0-1.

    Args:
        optim: Schedule and warm-up.
        step: From 0.
        total: Steps of the whole training.
    """
    growing = math.ceil(optim.warmup * total)
    if step < growing:
        return (step + 1) / (growing + 1)
    if optim.schedule is RateSchedule.CONSTANT:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - growing) / (total - growing)))


def is_steady(optim: OptimSpec) -> bool:
    """Whether every step learns at the whole rate."""
    return optim.schedule is RateSchedule.CONSTANT and optim.warmup == 0


def newest_share(optim: OptimSpec, step: int) -> float:
    """How much of the running average is the newest factors: all at first, 1 - decay in the end."""
    return 1 - min(optim.ema, step / (step + 10))
