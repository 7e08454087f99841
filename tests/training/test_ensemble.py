from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from easyphoto.specs import CheckpointScore
from easyphoto.store.lora_file import LoraFile
from easyphoto.training.ensemble import best_picture, choose, merge_weights

NAME = "lora_unet_a"


def score(step: int, value: float, pictures: tuple[float, ...] = ()) -> CheckpointScore:
    paths = tuple(Path(f"{step}-{number}.png") for number in range(len(pictures)))
    return CheckpointScore(step=step, score=value, pictures=paths, picture_scores=pictures)


def lora(step: int) -> LoraFile:
    """Rank one; its product is step everywhere, so a merge of several can be told by its value."""
    down, up = np.ones((1, 3), np.float32), np.full((2, 1), step, np.float32)
    return LoraFile(
        tensors={f"{NAME}.lora_down.weight": down, f"{NAME}.lora_up.weight": up, f"{NAME}.alpha": np.array(1.0, np.float32)}
    )


def judged(value: float):
    return lambda _file, step: CheckpointScore(step=step, score=value, pictures=(), picture_scores=(), merged=True)


SCORES = [score(50, 0.2), score(100, 0.5), score(150, 0.3)]


def test_the_merge_is_kept_where_it_scores_best() -> None:
    choice = choose(SCORES, 2, lora, judged(0.6))
    assert (choice.chosen, choice.steps) == (3, (100, 150))
    assert choice.checkpoints[3].merged
    wanted = (0.5 * 100 + 0.3 * 150) / 0.8
    np.testing.assert_allclose(choice.file.module(NAME).delta(), np.full((2, 3), wanted), rtol=1e-5)


def test_the_best_checkpoint_is_kept_where_the_merge_does_not_help() -> None:
    choice = choose(SCORES, 3, lora, judged(0.5))
    assert (choice.chosen, choice.steps) == (1, (100,))
    assert len(choice.checkpoints) == 4, "the merge's pictures are shown all the same"
    np.testing.assert_allclose(choice.file.module(NAME).delta(), 100)


def test_a_single_checkpoint_is_not_merged() -> None:
    def never(_file: LoraFile, _step: int) -> CheckpointScore:
        raise AssertionError

    assert choose(SCORES[:1], 3, lora, never).chosen == 0
    assert choose(SCORES, 1, lora, never).chosen == 1


def test_weights_follow_the_scores() -> None:
    assert merge_weights(SCORES) == pytest.approx([0.2, 0.5, 0.3])
    assert merge_weights([score(1, -0.2), score(2, 0.4)]) == [0.0, 1.0]
    assert merge_weights([score(1, 0.0), score(2, 0.0)]) == [0.5, 0.5]


def test_the_best_picture_shows_a_face() -> None:
    assert best_picture([score(1, 0.3, (0.2, 0.4)), score(2, 0.3, (0.3, 0.3))]) == Path("1-1.png")
    assert best_picture([score(1, 0.0, (0.0, 0.0))]) is None
    assert best_picture([]) is None
