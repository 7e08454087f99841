"""What a job has said so far, gathered from its events into what a page shows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from threading import Lock

from easyphoto.events import Event
from easyphoto.work import Job, JobResult, JobState

_LOG_LINES = 200
_REMEMBERED = 64
"""Jobs whose stories are kept."""
_PASSAGES = {
    "plan": (0.0, 0.02), "fuse": (0.02, 0.05), "first pass": (0.05, 0.48), "fuse again": (0.48, 0.5),
    "second pass": (0.5, 0.92), "paste back": (0.92, 0.97), "score": (0.97, 1.0),
}  # fmt: skip
"""Where in the making of a portrait each stage begins and ends, as its seconds are usually shared out."""
_FINISHED = "finished"
"""The stage of a sample that is a portrait in its last state."""
Events = Iterable[tuple[int, Event]]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture that was made on the way."""

    name: str
    """Among the job's files."""
    step: int
    score: float | None
    stage: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A judged checkpoint."""

    step: int
    score: float
    merged: bool = False


@dataclass(frozen=True, kw_only=True)
class Story:
    """A job's events, told in short."""

    seen: int = 0
    """Number of the last event."""
    stage: str = ""
    step: int = 0
    total: int = 0
    seconds_left: float | None = None
    train_total: int = 0
    """Steps of the whole training; 0 until it is known."""
    losses: tuple[tuple[int, float], ...] = ()
    """(step, loss)"""
    marks: tuple[Mark, ...] = ()
    pictures: int = 0
    """Portraits that are finished."""
    pictures_total: int = 0
    """Portraits that were ordered; 0 until it is known."""
    within: float = 0.0
    """How far the next portrait is, 0 to 1."""
    samples: tuple[Sample, ...] = ()
    log: tuple[str, ...] = ()

    def and_then(self, events: Events) -> Story:
        """The story with more events."""
        story = self
        for number, event in events:
            story = replace(_next(story, event), seen=number)
        return story


@dataclass(frozen=True, kw_only=True)
class View:
    """A job as a page shows it at one moment."""

    job: Job
    story: Story = Story()
    before: int = 0
    """Jobs that go first, while it waits."""
    result: JobResult | None = None
    can_resume: bool = False

    @property
    def under_way(self) -> bool:
        """It waits or runs."""
        return not self.job.state.ended

    @property
    def done(self) -> bool:
        """It came to a good end."""
        return self.job.state is JobState.DONE


class Stories:
    """The stories of the jobs that pages follow; each event is read once, however many pages there are."""

    def __init__(self, read: Callable[[str, int], Events]) -> None:
        self._read = read
        self._stories: OrderedDict[str, Story] = OrderedDict()
        self._lock = Lock()

    def of(self, job_id: str) -> Story:
        """All that was said until now."""
        with self._lock:
            before = self._stories.get(job_id, Story())
            story = self._stories[job_id] = before.and_then(self._read(job_id, before.seen))
            self._stories.move_to_end(job_id)
            while len(self._stories) > _REMEMBERED:
                self._stories.popitem(last=False)
            return story

    def forget(self) -> None:
        """Let go of all stories: somebody's job is gone."""
        with self._lock:
            self._stories.clear()


def _next(story: Story, event: Event) -> Story:
    if event.kind == "log":
        return _logged(story, event.message or "")
    if event.kind == "sample" and event.path:
        sample = Sample(name=event.path, step=event.step, score=event.score, stage=event.stage)
        left = event.seconds_left if event.seconds_left is not None else story.seconds_left
        return _painted(replace(story, samples=(*story.samples, sample), seconds_left=left), event)
    if event.kind in ("checkpoint", "merged"):
        return _judged(story, event)
    if event.kind == "progress":
        return _progressed(_moved(story, event), event)
    return _logged(story, event.message) if event.message else story


def _moved(story: Story, event: Event) -> Story:
    """The story with where the work stands now; a stage that is new goes into the log."""
    if event.stage and event.stage != story.stage:
        story = _logged(story, event.stage)
    left = event.seconds_left if event.seconds_left is not None else story.seconds_left
    return replace(story, stage=event.stage or story.stage, step=event.step, total=event.total, seconds_left=left)


def _painted(story: Story, event: Event) -> Story:
    """The story with how many portraits there are; a training's pictures come without a total."""
    if not event.total:
        return story
    within = 0.0 if event.stage == _FINISHED else story.within
    return replace(story, pictures=event.step, pictures_total=event.total, within=within)


def _progressed(story: Story, event: Event) -> Story:
    begin, end = _PASSAGES.get(event.stage.rpartition(": ")[2], (0.0, 0.0))
    if end:
        # Several faces go through the same stages: the bar waits rather than going back.
        reached = begin + (end - begin) * (event.step / event.total if event.total else 0.0)
        return replace(story, within=max(story.within, reached))
    if event.stage != "training":
        return story
    story = replace(story, train_total=event.total)
    if event.loss is None:
        return story
    # A training that goes on after a crash tells some steps a second time.
    kept = story.losses
    while kept and kept[-1][0] >= event.step:
        kept = kept[:-1]
    return replace(story, losses=(*kept, (event.step, event.loss)))


def _judged(story: Story, event: Event) -> Story:
    merged = event.kind == "merged"
    if event.score is None:
        return _logged(story, f"step {event.step}")
    mark = Mark(step=event.step, score=event.score, merged=merged)
    kept = tuple(other for other in story.marks if (other.step, other.merged) != (mark.step, mark.merged))
    words = "the best checkpoints merged" if merged else f"step {event.step}"
    return _logged(replace(story, marks=(*kept, mark)), f"{words}: {event.score:.3f}")


def _logged(story: Story, line: str) -> Story:
    return replace(story, log=(*story.log, line)[-_LOG_LINES:])
