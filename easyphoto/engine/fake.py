"""An engine for tests of other rooms: keeps the contract of `engine.base`, paints noise, needs no model."""

from __future__ import annotations

import hashlib

import numpy as np

from easyphoto.engine.base import StepListener
from easyphoto.errors import LoraError, ToolMissing
from easyphoto.families import Family
from easyphoto.records import Condition, ConditionKind, Floats, InpaintJob, LoraUse, Pixels, TextJob


class FakeEngine:
    """Paints each mask with noise that everything in the job decides; remembers the jobs it was given."""

    def __init__(
        self,
        family: Family = Family.EMBEDDED,
        conditions: frozenset[ConditionKind] = frozenset(ConditionKind),
        enlargers: tuple[str, ...] = (),
        knows_faces: bool = True,
    ) -> None:
        self.enlargers = enlargers
        self._knows_faces = knows_faces
        self._family = family
        self._conditions = conditions
        self.jobs: list[InpaintJob | TextJob] = []
        """Every job, in order."""

    @property
    def name(self) -> str:
        """Says that nothing was really painted."""
        return "fake"

    @property
    def family(self) -> Family:
        """The family it was made with."""
        return self._family

    @property
    def conditions(self) -> frozenset[ConditionKind]:
        """The ControlNets it was made with."""
        return self._conditions

    def inpaint(self, job: InpaintJob, on_step: StepListener | None = None) -> Pixels:
        """`job.image` with noise where the mask holds: the more, the higher the strength."""
        self._begin(job)
        _count(max(1, int(job.steps * job.strength + 1e-6)), on_step)
        noise = _noise(job, job.image.shape, hashlib.sha256(job.image.tobytes() + job.mask.tobytes()))
        painted = job.image + job.strength * (noise - job.image)
        return np.asarray(np.rint(job.image + job.mask[..., None] * (painted - job.image)), np.uint8)

    def text(self, job: TextJob, on_step: StepListener | None = None) -> Pixels:
        """Noise."""
        self._begin(job)
        _count(job.steps, on_step)
        return _noise(job, (job.height, job.width, 3), hashlib.sha256()).astype(np.uint8)

    def check_likeness(self) -> None:
        """Refused where it was made without an IP-Adapter."""
        if not self._knows_faces:
            raise ToolMissing("the fake engine has no IP-Adapter")

    def enlarge(self, pixels: Pixels, way: str, on_step: StepListener | None = None) -> Pixels:
        """Four times as large, its colours turned round, so that anybody sees it."""
        if way not in self.enlargers:
            raise ToolMissing(f"the fake engine has no upscaler {way}")
        _count(2, on_step)
        return np.asarray(255 - pixels.repeat(4, axis=0).repeat(4, axis=1), np.uint8)

    def _begin(self, job: InpaintJob | TextJob) -> None:
        self.jobs.append(job)
        for condition in job.conditions:
            if condition.kind not in self._conditions:
                raise ToolMissing(f"the fake engine has no {condition.kind.value} ControlNet")
        if isinstance(job, InpaintJob) and job.likeness:
            self.check_likeness()


def _count(steps: int, on_step: StepListener | None) -> None:
    for done in range(1, steps + 1):
        if on_step:
            on_step(done, steps)


def _noise(job: InpaintJob | TextJob, shape: tuple[int, ...], digest: hashlib._Hash) -> Floats:
    """Whole numbers 0-255 as float32, decided by the job alone."""
    digest.update(repr((job.prompt, job.negative, job.steps, job.guidance, job.seed)).encode())
    for condition in job.conditions:
        digest.update(_condition_bytes(condition))
    if isinstance(job, InpaintJob) and job.likeness and job.likeness.weight:
        digest.update(repr(job.likeness.weight).encode() + job.likeness.image.tobytes())
    for use in job.loras:
        digest.update(_lora_bytes(use))
    generator = np.random.default_rng(int.from_bytes(digest.digest()[:8], "little"))
    return generator.integers(0, 256, shape).astype(np.float32)


def _condition_bytes(condition: Condition) -> bytes:
    return f"{condition.kind.value} {condition.weight}".encode() + condition.image.tobytes()


def _lora_bytes(use: LoraUse) -> bytes:
    try:
        return repr(use.weight).encode() + use.path.read_bytes() if use.weight else b""
    except OSError as error:
        raise LoraError(f"the LoRA {use.path} cannot be read ({error.strerror})") from error
