"""The job folder: everything that passes between the one who asks for a training and the worker process, as files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from easyphoto.errors import JobFailed, NotFound, SpecError
from easyphoto.files import write_text
from easyphoto.specs import TrainResult, TrainSpec
from easyphoto.store.codec import dumps, loads
from easyphoto.store.paths import make_folder, person_id


@dataclass(frozen=True, kw_only=True)
class JobOrder:
    """What the worker must know besides the spec."""

    templates: tuple[Path, ...]
    """Pictures that checkpoints may be judged on."""
    created: float
    """Seconds since 1970."""
    queued_as: str | None = None
    """Id of the queue's job that this training belongs to."""


@dataclass(frozen=True)
class JobFolder:
    """Where each thing of one training lies."""

    root: Path

    @property
    def spec(self) -> Path:
        """The TrainSpec as JSON."""
        return self.root / "spec.json"

    @property
    def order(self) -> Path:
        """The JobOrder as JSON."""
        return self.root / "order.json"

    @property
    def prepared(self) -> Path:
        """Folder of the prepared photos."""
        return self.root / "prepared"

    @property
    def events(self) -> Path:
        """Every event, one JSON object a line."""
        return self.root / "events.jsonl"

    @property
    def log(self) -> Path:
        """What the worker and its libraries said on their way."""
        return self.root / "log.txt"

    @property
    def checkpoints(self) -> Path:
        """Folder of the LoRA files on the way."""
        return self.root / "checkpoints"

    @property
    def validation(self) -> Path:
        """Folder of the pictures that checkpoints were judged by."""
        return self.root / "validation"

    @property
    def state(self) -> Path:
        """Factors, optimiser and step of the last checkpoint: where a killed training goes on."""
        return self.root / "state.safetensors"

    @property
    def scores(self) -> Path:
        """The checkpoints judged so far, as JSON."""
        return self.root / "scores.json"

    @property
    def lora(self) -> Path:
        """The finished LoRA."""
        return self.root / "lora.safetensors"

    @property
    def result(self) -> Path:
        """The TrainResult as JSON; written last, so a job with it is whole."""
        return self.root / "result.json"

    @property
    def lock(self) -> Path:
        """Held by the worker as long as it lives."""
        return self.root / "worker.lock"

    @property
    def cancel(self) -> Path:
        """As soon as this file exists the worker stops."""
        return self.root / "cancel"

    def checkpoint(self, step: int) -> Path:
        """The LoRA file after so many steps."""
        return self.checkpoints / f"step-{step:06d}.safetensors"

    def read_spec(self) -> TrainSpec:
        """What is to be trained; raises SpecError or NotFound."""
        return loads(TrainSpec, _read(self.spec))

    def read_order(self) -> JobOrder:
        """The rest of what the worker must know; raises SpecError or NotFound."""
        return loads(JobOrder, _read(self.order))

    def read_result(self) -> TrainResult:
        """What came out; raises JobFailed where the job is not whole."""
        try:
            return loads(TrainResult, _read(self.result))
        except (NotFound, SpecError) as error:
            raise JobFailed(f"the training left no result ({error}); see {self.log}") from error


def new_job(jobs: Path, spec: TrainSpec, order: JobOrder) -> JobFolder:
    """Make a job folder with its spec; its name begins with the person's id, so that it goes when they go.

    Raises:
        StorageError: It cannot be made.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(order.created))
    root, attempt = jobs / f"{person_id(spec.person)}-{stamp}", 1
    while root.exists():
        attempt += 1
        root = jobs / f"{person_id(spec.person)}-{stamp}-{attempt}"
    job = JobFolder(make_folder(root))
    for folder in (job.checkpoints, job.validation):
        make_folder(folder)
    write_text(job.spec, dumps(spec))
    write_text(job.order, dumps(order))
    return job


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise NotFound(f"{path} cannot be read ({error.strerror}); start the training anew") from error
