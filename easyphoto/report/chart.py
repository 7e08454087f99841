"""Score and loss over steps as one inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from easyphoto.specs import CheckpointScore

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 220, 48, 16, 16, 32

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The chart's area: which steps and scores its edges stand for."""

    last: float
    low: float
    high: float

    def place(self, step: float, score: float) -> Point:
        """Where a score at a step lies, in the SVG's units."""
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / self.last
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (self.high - score) / (self.high - self.low)

    def level(self, share: float) -> float:
        """The score at a share of the height, 0 at the bottom."""
        return self.low + (self.high - self.low) * share


def score_chart(marks: Sequence[CheckpointScore], chosen: int, losses: Sequence[float]) -> str:
    """An SVG with the identity score of every checkpoint (line and dots) over the smoothed loss (grey)."""
    frame = _frame(marks, len(losses))
    dots = [frame.place(mark.step, mark.score) for mark in marks]
    line = [dot for dot, mark in zip(dots, marks, strict=True) if not mark.merged]
    labels = "".join(_label(frame, share) for share in (0.1, 0.5, 0.9))
    circles = "".join(_circle(dot, mark, index == chosen) for index, (dot, mark) in enumerate(zip(dots, marks)))
    steps = "".join(_step(dot, mark) for dot, mark in zip(dots, marks, strict=True) if not mark.merged)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="identity score over steps">'
        f'{labels}<polyline class="loss" points="{_points(_scaled(_smooth(losses), frame))}"/>'
        f'<polyline class="score" points="{_points(line)}"/>{circles}{steps}</svg>'
        '<p class="legend"><span class="dot"></span>identity score of each checkpoint '
        '<span class="bar"></span>training loss (its own scale)</p>'
    )


def _frame(marks: Sequence[CheckpointScore], losses: int) -> Frame:
    scores = [mark.score for mark in marks]
    pad = max(0.02, (max(scores) - min(scores)) * 0.25)
    last = max([mark.step for mark in marks] + [losses, 1])
    return Frame(last=last, low=min(scores) - pad, high=max(scores) + pad)


def _circle(dot: Point, mark: CheckpointScore, chosen: bool) -> str:
    name = "merged" if mark.merged else f"step {mark.step}"
    kind = " ".join(filter(None, ("merged" if mark.merged else "", "chosen" if chosen else "")))
    return (
        f'<circle cx="{dot[0]:.1f}" cy="{dot[1]:.1f}" r="{6 if chosen else 4}" class="{kind}">'
        f"<title>{name}: {mark.score:.3f}</title></circle>"
    )


def _step(dot: Point, mark: CheckpointScore) -> str:
    return f'<text x="{dot[0]:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{mark.step}</text>'


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _label(frame: Frame, share: float) -> str:
    _, y = frame.place(0, frame.level(share))
    return (
        f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{frame.level(share):.2f}</text>'
    )


def _smooth(values: Sequence[float], share: float = 0.9) -> list[float]:
    """Exponential mean, corrected for its start."""
    smoothed, mean, weight = [], 0.0, 0.0
    for value in values:
        mean = share * mean + (1 - share) * value
        weight = share * weight + (1 - share)
        smoothed.append(mean / weight)
    return smoothed


def _scaled(values: Sequence[float], frame: Frame) -> list[Point]:
    """The loss stretched to the middle of the chart's height: its shape matters, not its unit."""
    if not values:
        return []
    bottom, span = min(values), (max(values) - min(values)) or 1.0
    levels = (frame.level((value - bottom) / span * 0.6 + 0.2) for value in values)
    return [frame.place((index + 1) * frame.last / len(values), level) for index, level in enumerate(levels)]
