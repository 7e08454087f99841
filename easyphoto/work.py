"""Jobs and what comes out of them, as everybody sees them: queue, command line, routes, client.

Times are ISO 8601 in UTC. JSON in and out by `easyphoto.store.codec`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from easyphoto.records import TrainKind, Verdict

LOCAL_OWNER = "local"
"""Owner of what the command line makes, and of the first token."""


class JobKind(str, Enum):
    """What a job does."""

    TRAINING = "training"
    PORTRAITS = "portraits"
    CHECK = "check"
    DRILL = "drill"
    """Nothing but time: for trying the queue."""


class JobState(str, Enum):
    """Where a job stands; the last three are ends that never change."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Nothing will happen to it any more."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class JobProgress:
    """How far a running job is."""

    stage: str = ""
    """In words a person reads: "checking photos", "training", "first pass" ..."""
    step: int = 0
    total: int = 0
    seconds_left: float | None = None
    preview: str | None = None
    """Name of the newest picture, among the job's files."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job failed."""

    code: str
    """Of the tree in `errors`."""
    sentence: str
    """What, why, what to do."""
    log_tail: tuple[str, ...] = ()
    """The last lines of the job's log."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work."""

    id: str
    kind: JobKind
    owner: str
    state: JobState
    created: str
    priority: int = 0
    """Higher goes first; equal ones in the order they came."""
    started: str | None = None
    ended: str | None = None
    attempt: int = 0
    """How often it was begun; above 1 after a crash."""
    progress: JobProgress = JobProgress()
    failure: Failure | None = None
    person: str | None = None
    """Name of the person it trains, checks or shows (the first one); of a scene or a garment where `subject` says so."""
    subject: TrainKind = TrainKind.PERSON
    """What `person` names."""
    idempotency_key: str | None = None
    cancel_asked: bool = False
    version: int = 0
    """Grows with every change of any job: what changed since a version is what has a larger one."""


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """One file of a result."""

    name: str
    """Its name in the result's folder, safe on every file system."""
    media_type: str
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, kw_only=True)
class FaceScore:
    """How near one face of a picture came."""

    person: str
    similarity: float | None
    """1 - dlib distance to the person's median embedding; None if no face was found."""


@dataclass(frozen=True, kw_only=True)
class SafetyVerdict:
    """Whether a picture may be shown."""

    score: float
    """How probable sexual content is, 0 to 1."""
    label: str
    """"safe", "unsure" or "refused"; a refused picture is not kept."""
    sentence: str
    """For the person: what was found, what to do."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One portrait."""

    file: str
    """Name among the result's files."""
    template: str
    seed: int
    infotext: str
    """Parameters as the WebUI writes them."""
    faces: tuple[FaceScore, ...] = ()
    seconds: tuple[tuple[str, float], ...] = ()
    """(stage, seconds) in order."""
    warnings: tuple[str, ...] = ()
    safety: SafetyVerdict | None = None
    """None where the check is switched off."""


@dataclass(frozen=True, kw_only=True)
class Missed:
    """A template of a batch that gave no picture."""

    template: str
    code: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What a finished job left; its id is the job's."""

    id: str
    kind: JobKind
    owner: str
    created: str
    person: str | None = None
    subject: TrainKind = TrainKind.PERSON
    """What `person` names."""
    score: float | None = None
    """Of a training: the kept checkpoint's identity score."""
    verdicts: tuple[Verdict, ...] = ()
    pictures: tuple[Picture, ...] = ()
    missed: tuple[Missed, ...] = ()
    files: tuple[ResultFile, ...] = ()
    warnings: tuple[str, ...] = ()
