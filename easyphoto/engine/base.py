"""The engine contract: whoever runs diffusion for us (the WebUI host, diffusers, a fake for tests) keeps it.

Contract, held by `tests/engine/contract.py` for every engine:
- the result has the job's size; with an all-zero mask it is the job's image up to the autoencoder's error;
- same job, same seed: same picture within one level; another seed: another picture;
- pixels do not depend on other jobs run before; LoRAs of one job leave no trace in the next;
- `on_step` is called after every denoising step with (steps done, steps to do) and may raise `Cancelled`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from easyphoto.families import Family
from easyphoto.records import ConditionKind, InpaintJob, Pixels, TextJob

StepListener = Callable[[int, int], None]


class Engine(Protocol):
    """Runs diffusion jobs one at a time."""

    @property
    def name(self) -> str:
        """The base model's name, as pictures' infotexts show it."""

    @property
    def family(self) -> Family:
        """The family of the loaded base model."""

    @property
    def conditions(self) -> frozenset[ConditionKind]:
        """Which ControlNets are there."""

    def inpaint(self, job: InpaintJob, on_step: StepListener | None = None) -> Pixels:
        """(height, width, 3) uint8 RGB; raises LoraError, ToolMissing, Cancelled."""

    def check_likeness(self) -> None:
        """Refuse a job's `likeness` before anything is computed; raises ToolMissing where no IP-Adapter for faces is there."""

    @property
    def enlargers(self) -> tuple[str, ...]:
        """Names of the upscalers it can use, the best first; often none."""

    def enlarge(self, pixels: Pixels, way: str, on_step: StepListener | None = None) -> Pixels:
        """The picture larger by the upscaler's own factor, (height, width, 3) uint8 RGB; raises ToolMissing, Cancelled."""

    def text(self, job: TextJob, on_step: StepListener | None = None) -> Pixels:
        """(height, width, 3) uint8 RGB."""
