"""The live chart: loss over the steps so far as a grey line, the checkpoints' identity scores as dots, one inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from easyphoto.ui.story import Mark

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 190, 44, 12, 14, 26
Point = tuple[float, float]


def curve(losses: Sequence[tuple[int, float]], marks: Sequence[Mark], total: int) -> str:
    """An SVG of a training with `total` steps; empty before there is anything to see."""
    if not losses and not marks:
        return ""
    merged = '<span class="easyphoto-dot easyphoto-merged"></span><span>merged</span> ' if any(m.merged for m in marks) else ""
    last = max([total, *(step for step, _ in losses), *(mark.step for mark in marks), 1])
    return (
        f'<svg class="easyphoto-chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="loss and identity score">'
        f"{_axis(last)}{_loss(losses, last)}{_scores(marks, last)}</svg>"
        '<p class="easyphoto-legend"><span class="easyphoto-dot"></span><span>identity score</span> '
        f"{merged}"
        '<span class="easyphoto-bar"></span><span>loss, on a scale of its own</span></p>'
    )


def _x(step: float, last: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * step / last


def _y(share: float) -> float:
    """Where a share of the chart's height lies, 0 at the bottom."""
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)


def _axis(last: int) -> str:
    ticks = "".join(
        f'<text x="{_x(step, last):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{step}</text>'
        for step in dict.fromkeys((0, last // 2, last))
    )
    return f'<line class="easyphoto-rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(0):.1f}" y2="{_y(0):.1f}"/>{ticks}'


def _loss(losses: Sequence[tuple[int, float]], last: int) -> str:
    if len(losses) < 2:
        return ""
    smooth = _smoothed([loss for _, loss in losses])
    bottom, span = min(smooth), (max(smooth) - min(smooth)) or 1.0
    points = " ".join(
        f"{_x(step, last):.1f},{_y(0.1 + 0.8 * (value - bottom) / span):.1f}" for (step, _), value in zip(losses, smooth)
    )
    return f'<polyline class="easyphoto-loss" points="{points}"/>'


def _scores(marks: Sequence[Mark], last: int) -> str:
    """Dots between the least and the best score, on their own scale, labelled at the left."""
    if not marks:
        return ""
    scores = [mark.score for mark in marks]
    pad = max(0.02, (max(scores) - min(scores)) * 0.25)
    low, high = min(scores) - pad, max(scores) + pad

    def place(mark: Mark) -> Point:
        return _x(mark.step, last), _y((mark.score - low) / (high - low))

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(mark) for mark in marks if not mark.merged))
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="easyphoto-{"merged" if mark.merged else "score"}">'
        f"<title>{mark.step}: {mark.score:.3f}</title></circle>"
        for mark in marks for x, y in (place(mark),)
    )  # fmt: skip
    labels = "".join(
        f'<text x="{LEFT - 8}" y="{_y((value - low) / (high - low)) + 4:.1f}" text-anchor="end">{value:.2f}</text>'
        for value in dict.fromkeys((round(min(scores), 2), round(max(scores), 2)))
    )
    return f'<polyline class="easyphoto-line" points="{line}"/>{dots}{labels}'


def _smoothed(values: Sequence[float], share: float = 0.9) -> list[float]:
    """Exponential mean, corrected for its start."""
    smooth, mean, weight = [], 0.0, 0.0
    for value in values:
        mean, weight = share * mean + (1 - share) * value, share * weight + (1 - share)
        smooth.append(mean / weight)
    return smooth
