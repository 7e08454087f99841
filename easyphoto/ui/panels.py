"""What a page shows of a job while it waits, runs and after it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable

from easyphoto.jobs.turns import WAITING
from easyphoto.ui.curve import curve
from easyphoto.ui.markup import attribute, duration, image, notice, said, score, words
from easyphoto.ui.story import Sample, View
from easyphoto.wording import one_line
from easyphoto.work import JobKind, JobState

Shown = Callable[[str], str | None]
"""A data URI of one of the job's files."""
_TITLES = {JobKind.TRAINING: "Training", JobKind.PORTRAITS: "Portraits", JobKind.CHECK: "Checking photos"}
_STATES = {
    JobState.QUEUED: "waiting", JobState.RUNNING: "running", JobState.DONE: "done", JobState.FAILED: "failed",
    JobState.CANCELLED: "stopped",
}  # fmt: skip
MOST_SAMPLES = 12
_TELL = '<p class="easyphoto-empty" data-easyphoto-awake><span>{}</span></p>'
NOTHING = {
    JobKind.TRAINING: _TELL.format("Nothing is being trained. Progress, scores and test pictures will appear here."),
    JobKind.PORTRAITS: _TELL.format("Nothing is being made. The portraits will appear here."),
}
"""Where there is no job to show; it also tells the page that it was heard."""


def live(view: View, poll: str) -> str:
    """The panel's head: what it is, how far it is, how long it still takes; asks the page to press `poll` while it runs."""
    job = view.job
    state = "stopping" if job.cancel_asked and view.under_way else _STATES[job.state]
    # The beat differs each time, so that the page knows its last question was answered.
    follow = f' data-easyphoto-poll="{poll}" data-beat="{time.monotonic_ns()}"' if view.under_way else ""
    person = said(job.person) if job.person else ""
    return (
        f'<div class="easyphoto-live easyphoto-{job.state.value}" data-easyphoto-awake{follow}>'
        f"<div class=\"easyphoto-head\"><h4>{words(_TITLES.get(job.kind, ''))} {person}</h4>"
        f"{words(state, f'easyphoto-state easyphoto-{job.state.value}')}</div>{_middle(view)}</div>"
    )


def _middle(view: View) -> str:
    if view.job.state is JobState.QUEUED:
        return f"<p>{words(_waiting(view.before))}</p>"
    if view.job.state is JobState.RUNNING:
        if view.story.stage == WAITING:
            return notice("The graphics card is busy with another job; this one goes on after it.", "warning")
        return _progress(view) + _chart(view)
    return _ended(view) + _chart(view)


def _waiting(before: int) -> str:
    if before == 0:
        return "It is the next one."
    return "One job goes first." if before == 1 else f"{before} jobs go first."


def _progress(view: View) -> str:
    story = view.story
    done, total = _share(view)
    percent = 100 * done / total if total else 0
    stage = story.stage.rpartition(": ")[2] if story.pictures_total else story.stage
    facts = [words(one_line(stage) or "starting")]
    if story.train_total and done:
        facts.append(words(f"step {done} of {total}"))
    elif story.total:
        facts.append(words(f"{story.step} of {story.total}"))
    if story.pictures_total > 1:
        facts.insert(0, words(f"picture {min(story.pictures + 1, story.pictures_total)} of {story.pictures_total}"))
    if story.seconds_left:
        facts.append(words(f"about {duration(story.seconds_left)} left"))
    bar = (
        f'<div class="easyphoto-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent:.0f}"><i style="width:{percent:.1f}%"></i></div>'
    )
    return f'{bar}<p class="easyphoto-facts">{" &middot; ".join(facts)}</p>'


def _share(view: View) -> tuple[float, int]:
    """(done, all) of what the bar stands for: a training's steps, the portraits, else the steps of the present stage."""
    story = view.story
    if story.pictures_total:
        return min(story.pictures + story.within, story.pictures_total), story.pictures_total
    if story.train_total:
        steps = [step for step, _ in story.losses[-1:]] + [mark.step for mark in story.marks]
        return min(max(steps, default=0), story.train_total), story.train_total
    return min(story.step, story.total), story.total


def _chart(view: View) -> str:
    return curve(view.story.losses, view.story.marks, view.story.train_total) if view.job.kind is JobKind.TRAINING else ""


def _ended(view: View) -> str:
    job, result = view.job, view.result
    if job.state is JobState.FAILED:
        return notice(job.failure.sentence if job.failure else "It failed.")
    if job.state is JobState.CANCELLED:
        return f"<p>{words('Stopped, because you asked.')}</p>"
    if result is None:
        return f"<p>{words('Its result was deleted.')}</p>"
    warnings = "".join(notice(text, "warning") for text in result.warnings)
    if job.kind is JobKind.TRAINING:
        near = f"{words('Identity score')} <b>{result.score:.3f}</b>" if result.score is not None else words("Not judged.")
        return f"<p>{words('The training has been completed.')} {near}</p>{warnings}"
    missed = "".join(notice(f"{item.template}: {item.sentence}", "warning") for item in result.missed)
    return warnings + missed


def samples(view: View, shown: Shown) -> str:
    """The newest pictures that were made on the way, with their scores."""
    newest = view.story.samples[-MOST_SAMPLES:]
    return f'<div class="easyphoto-samples">{"".join(_sample(sample, shown) for sample in newest)}</div>' if newest else ""


def _sample(sample: Sample, shown: Shown) -> str:
    number = f'<b class="easyphoto-num">{sample.score:.2f}</b>' if sample.score is not None else ""
    step = words(f"step {sample.step}") if sample.score is not None else words(sample.stage)
    return f"<figure>{image(shown(sample.name), sample.name)}<figcaption>{step} {number}</figcaption></figure>"


def best(view: View, uri: str | None) -> str:
    """The best picture of a training that is done."""
    if uri is None or view.result is None:
        return ""
    caption = f"<figcaption>{words('Best picture')}</figcaption>"
    return f'<figure class="easyphoto-best">{image(uri, "best picture")}{caption}</figure>'


def log(view: View) -> str:
    """What was said so far, the failure's end of the log behind it."""
    lines = [*view.story.log, *(view.job.failure.log_tail if view.job.failure else ())]
    text = attribute("\n".join(lines))
    return f'<pre class="easyphoto-log" translate="no">{text}</pre>' if lines else ""


def similarity_line(faces: tuple[tuple[str, float | None], ...]) -> str:
    """(person, similarity) of each face of a picture."""
    return "".join(f'<span class="easyphoto-face">{said(name)} {score(value)}</span>' for name, value in faces)
