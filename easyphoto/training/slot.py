"""A place at the GPU, and the worker that stays there from one training to the next while more people wait. No torch.

A new process imports, reads the base model and has kernels chosen before its first step. So a worker whose training ended well
is kept for the next one, but at nobody's cost: it goes as soon as nobody waits for a training, before anything else uses that
GPU, and after a while in any case.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from easyphoto.specs import TrainSpec
from easyphoto.training.child import Child

logger = logging.getLogger(__name__)

_IDLE = 60.0
"""Seconds that a worker waits at most, as for photos that are still being checked."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a worker was started for; a training of anything else needs another one."""

    python: str
    base_model: Path
    files: tuple[tuple[str, int, int], ...]
    """(name, bytes, ns since 1970) of each of the base model's files."""
    family: str
    device: str

    @staticmethod
    def of(spec: TrainSpec, python: Path | None) -> Fit:
        """What a training needs."""
        base = spec.base_model
        found = sorted(base.rglob("*")) if base.is_dir() else [base]
        facts = [(path, path.stat()) for path in found if path.is_file()]
        return Fit(
            python=str(python or sys.executable), base_model=base, family=spec.family.value, device=spec.device,
            files=tuple((str(path.relative_to(base)), stat.st_size, stat.st_mtime_ns) for path, stat in facts),
        )  # fmt: skip


class WorkerSlot:
    """One place: the GPUs of it, and at most one worker that waits there."""

    def __init__(self, wanted: Callable[[], bool], number: int = 0, places: int = 1, gpus: str | None = None) -> None:
        """Args: whether somebody waits for a training; which place of how many; its GPUs, as CUDA_VISIBLE_DEVICES has them."""
        self.number, self.places, self.gpus = number, places, gpus
        self._wanted = wanted
        self._guard = threading.Lock()
        self._kept: tuple[Fit, Child, float] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the worker that waits here; None if there is none."""
        kept = self._kept
        return None if kept is None else kept[1].pid

    def take(self, fit: Fit) -> Child | None:
        """The worker that waits for such a training, if there is one; one that waits for another kind is ended."""
        with self._guard:
            kept, self._kept = self._kept, None
        if kept is not None and kept[0] != fit:
            kept[1].end()
            return None
        return None if kept is None else kept[1]

    def keep(self, fit: Fit, child: Child) -> bool:
        """Let a worker wait here; False if there is nobody whom it could wait for."""
        if not self._wanted():
            return False
        with self._guard:
            self._kept = fit, child, time.monotonic()
        return True

    def tidy(self, changed: bool) -> None:
        """End a worker that has waited long enough; with `changed`, one that nobody wants any more."""
        kept = self._kept
        if kept is not None and (time.monotonic() - kept[2] > _IDLE or (changed and not self._wanted())):
            self.close()

    def close(self) -> None:
        """End the worker that waits here: the GPU's memory is free when this returns."""
        with self._guard:
            kept, self._kept = self._kept, None
        if kept is not None:
            logger.info("the training process %d, which was kept for another training, is ended", kept[1].pid)
            kept[1].end()


def slots(places: int, gpus: int, device: str, wanted: Callable[[], bool]) -> tuple[WorkerSlot, ...]:
    """The places of a machine.

    Args:
        places: How many trainings run at once; one where the device names a GPU by its number.
        gpus: Of each.
        device: As in the settings.
        wanted: See `WorkerSlot`.
    """
    if places == 1 or ":" in device:
        return (WorkerSlot(wanted),)
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = seen.split(",") if seen else [str(number) for number in range(places * gpus)]
    parts = [there[place * gpus : (place + 1) * gpus] for place in range(places)]
    full = [",".join(part) for part in parts if len(part) == gpus]
    return tuple(WorkerSlot(wanted, number, len(full), part) for number, part in enumerate(full)) or (WorkerSlot(wanted),)
