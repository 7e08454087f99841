from __future__ import annotations

import xml.etree.ElementTree as ET

from easyphoto.events import Event
from easyphoto.ui.curve import curve
from easyphoto.ui.story import Mark, Stories, Story


def events(*found: Event):
    return tuple(enumerate(found, start=1))


def training(step: int, loss: float = 0.5, total: int = 40) -> Event:
    return Event(kind="progress", stage="training", step=step, total=total, loss=loss, seconds_left=40.0 - step)


def test_a_training_is_told_by_its_events() -> None:
    story = Story().and_then(
        events(
            Event(kind="progress", stage="checking photos", step=3, total=3),
            training(1, 0.9), training(2, 0.8),
            Event(kind="sample", stage="validating", step=2, path="preview-1-0001.png", score=0.41),
            Event(kind="checkpoint", stage="training", step=2, total=40, score=0.41),
            Event(kind="merged", stage="merging", step=2, score=0.45),
            Event(kind="log", message="going on"),
        )
    )  # fmt: skip
    assert story.losses == ((1, 0.9), (2, 0.8))
    assert story.train_total == 40
    assert story.marks == (Mark(step=2, score=0.41), Mark(step=2, score=0.45, merged=True))
    assert [(sample.name, sample.score) for sample in story.samples] == [("preview-1-0001.png", 0.41)]
    assert story.log == ("checking photos", "training", "step 2: 0.410", "the best checkpoints merged: 0.450", "going on")
    assert story.seen == 7


def portrait(stage: str, step: int = 0, total: int = 0) -> Event:
    return Event(kind="progress", stage=stage, step=step, total=total)


def painted(stage: str, done: int) -> Event:
    return Event(kind="sample", stage=stage, step=done, total=3, path=f"{stage}.jpg")


def test_portraits_are_counted_and_the_bar_never_goes_back() -> None:
    told = (
        portrait("plan"), portrait("first pass", 7, 14), painted("first pass", 0), portrait("second pass", 5, 5),
        portrait("picture 1 of 3: first pass", 1, 14), painted("finished", 1), portrait("plan"), portrait("first pass", 14, 14),
    )  # fmt: skip
    shares, story = [], Story()
    for number, event in enumerate(told, start=1):
        story = story.and_then(((number, event),))
        shares.append(story.pictures + story.within)
    assert shares == sorted(shares)
    assert (story.pictures, story.pictures_total) == (1, 3)
    assert 1.4 < shares[-1] < 1.5
    assert shares[3] > 0.9


def test_steps_that_are_trained_again_after_a_crash_count_once() -> None:
    story = Story().and_then(events(training(1), training(2), training(3, 0.3), training(2, 0.2), training(3, 0.1)))
    assert story.losses == ((1, 0.5), (2, 0.2), (3, 0.1))


def test_however_many_pages_ask_each_event_is_read_once() -> None:
    written = [training(1), training(2)]
    asked: list[int] = []

    def read(_job: str, after: int):
        asked.append(after)
        return tuple(enumerate(written, start=1))[after:]

    stories = Stories(read)
    assert stories.of("a") == stories.of("a")
    written.append(training(3))
    assert stories.of("a").losses[-1] == (3, 0.5)
    assert asked == [0, 2, 2]
    stories.forget()
    assert stories.of("a").seen == 3


def test_the_chart_is_empty_until_there_is_something_and_well_formed_then() -> None:
    assert curve((), (), 40) == ""
    one, other = Mark(step=1, score=0.2), Mark(step=2, score=0.4, merged=True)
    for losses, marks in (((1, 0.5),), ()), (((1, 0.5), (2, 0.4)), (one, other)), ((), (one,)):
        drawn = curve(losses, marks, 40)
        ET.fromstring(f"<div>{drawn}</div>")  # noqa: S314 (our own)
        assert "nan" not in drawn.lower()


def test_the_chart_reaches_as_far_as_the_training_will() -> None:
    drawn = curve(((1, 0.5), (20, 0.4)), (), 40)
    last_point = drawn.split('points="')[1].split('"')[0].split()[-1]
    x = float(last_point.split(",")[0])
    assert 350 < x < 420
