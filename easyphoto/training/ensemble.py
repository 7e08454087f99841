"""The end of a training: merge the best checkpoints, look at the merge, and keep what is best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from easyphoto.specs import CheckpointScore
from easyphoto.store.lora_file import LoraFile
from easyphoto.store.lora_merge import merge_loras


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """What a training is left with."""

    file: LoraFile
    checkpoints: tuple[CheckpointScore, ...]
    """All that were judged; the merge last."""
    chosen: int
    """Index into `checkpoints`."""
    steps: tuple[int, ...]
    """Steps of the checkpoints in `file`: one, or those merged."""


def choose(
    scores: Sequence[CheckpointScore],
    merge_best: int,
    read: Callable[[int], LoraFile],
    judge: Callable[[LoraFile, int], CheckpointScore],
    merge: Callable[[Sequence[LoraFile], Sequence[float]], LoraFile] = merge_loras,
) -> Choice:
    """The best checkpoint, or the merge of the best where that scores higher.

    Args:
        scores: At least one judged checkpoint.
        merge_best: How many of the best to merge.
        read: The LoRA of a checkpoint, by its step.
        judge: Renders and scores a LoRA; the number is the last step in it.
        merge: Merges LoRAs with a weight each.
    """
    ranked = sorted(scores, key=lambda score: (-score.score, -score.step))
    best, leaders = ranked[0], ranked[:merge_best]
    if len(leaders) > 1:
        merged = merge([read(leader.step) for leader in leaders], merge_weights(leaders))
        judged = judge(merged, max(leader.step for leader in leaders))
        scores = [*scores, judged]
        if judged.score > best.score:
            steps = tuple(sorted(leader.step for leader in leaders))
            return Choice(file=merged, checkpoints=tuple(scores), chosen=len(scores) - 1, steps=steps)
    return Choice(file=read(best.step), checkpoints=tuple(scores), chosen=list(scores).index(best), steps=(best.step,))


def merge_weights(scores: Sequence[CheckpointScore]) -> list[float]:
    """Weights in proportion to the scores, adding up to one; a score below zero counts as nothing."""
    kept = [max(score.score, 0.0) for score in scores]
    total = sum(kept)
    return [value / total for value in kept] if total > 0 else [1 / len(kept)] * len(kept)


def best_picture(scores: Sequence[CheckpointScore]) -> Path | None:
    """The rendering nearest to the person; None where no rendering shows a face."""
    pictures = [pair for score in scores for pair in zip(score.picture_scores, score.pictures)]
    value, path = max(pictures, key=lambda pair: pair[0], default=(0.0, None))
    return path if value > 0 else None
