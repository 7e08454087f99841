from __future__ import annotations

import numpy as np
import pytest

from easyphoto.errors import LoraError, SpecError
from easyphoto.store.lora_file import LoraFile
from easyphoto.store.lora_merge import merge_loras

LINEAR, POINT, WIDE = "lora_unet_a", "lora_unet_b", "lora_unet_c"
SHAPES = {LINEAR: (24, 32), POINT: (20, 16, 1, 1), WIDE: (12, 10, 3, 3)}


def checkpoint(seed: int, rank: int = 4, alpha: float = 2.0, names: tuple[str, ...] = (LINEAR, POINT, WIDE)) -> LoraFile:
    rng = np.random.default_rng(seed)
    tensors = {}
    for name in names:
        outputs, *inputs = SHAPES[name]
        tensors[f"{name}.lora_down.weight"] = rng.normal(size=(rank, *inputs)).astype(np.float32)
        tensors[f"{name}.lora_up.weight"] = rng.normal(size=(outputs, rank, *(1,) * (len(inputs) - 1))).astype(np.float32)
        tensors[f"{name}.alpha"] = np.array(alpha, np.float32)
    return LoraFile(tensors=tensors, metadata={"ss_steps": str(seed)})


def test_the_merge_of_one_is_itself() -> None:
    file = checkpoint(1)
    merged = merge_loras([file], [1.0])
    for name in SHAPES:
        np.testing.assert_allclose(merged.module(name).delta(), file.module(name).delta(), atol=2e-5)
        for part in ("lora_down.weight", "lora_up.weight"):
            assert merged.tensors[f"{name}.{part}"].shape == file.tensors[f"{name}.{part}"].shape
    assert merged.metadata == file.metadata


def test_the_merge_is_the_weighted_sum_where_the_rank_allows() -> None:
    """Two checkpoints that share their downs: the sum of their products has the same rank again."""
    first, second = checkpoint(1), checkpoint(2)
    shared = {**second.tensors, **{key: value for key, value in first.tensors.items() if "lora_down" in key}}
    second = LoraFile(tensors=shared)
    merged = merge_loras([first, second], [0.7, 0.3])
    for name in SHAPES:
        wanted = 0.7 * first.module(name).delta() + 0.3 * second.module(name).delta()
        np.testing.assert_allclose(merged.module(name).delta(), wanted, atol=2e-5)


def test_a_larger_file_gives_its_rank_to_the_merge() -> None:
    small, large = checkpoint(1, rank=2), checkpoint(2, rank=8, alpha=8.0)
    empty = {key: np.zeros_like(value) if "lora_up" in key else value for key, value in large.tensors.items()}
    merged = merge_loras([small, LoraFile(tensors=empty)], [1.0, 1.0])
    for name in SHAPES:
        assert merged.module(name).rank == 8
        np.testing.assert_allclose(merged.module(name).delta(), small.module(name).delta(), atol=2e-5)


def test_the_cut_to_rank_is_the_nearest_there_is() -> None:
    """Eckart and Young: what is lost are the smaller singular values, so no cut of that rank is nearer."""
    files = [checkpoint(seed) for seed in range(3)]
    merged = merge_loras(files, [0.5, 0.3, 0.2])
    for name in SHAPES:
        wanted = sum(weight * file.module(name).delta() for weight, file in zip((0.5, 0.3, 0.2), files))
        flat = wanted.reshape(len(wanted), -1)
        lost = np.linalg.svd(flat, compute_uv=False)[4:]
        got = merged.module(name).delta().reshape(flat.shape)
        assert np.linalg.norm(got - flat) == pytest.approx(np.linalg.norm(lost), rel=1e-4)


def test_averaging_the_factors_would_be_something_else() -> None:
    first, second = checkpoint(1), checkpoint(2)
    averaged = LoraFile(tensors={key: (first.tensors[key] + second.tensors[key]) / 2 for key in first.tensors})
    wanted = (first.module(LINEAR).delta() + second.module(LINEAR).delta()) / 2
    merged = merge_loras([first, second], [0.5, 0.5])
    error = np.linalg.norm(merged.module(LINEAR).delta() - wanted)
    assert error < 0.8 * np.linalg.norm(averaged.module(LINEAR).delta() - wanted)


def test_a_module_that_one_file_lacks_counts_as_zero() -> None:
    merged = merge_loras([checkpoint(1, names=(LINEAR,)), checkpoint(2)], [1.0, 0.5])
    np.testing.assert_allclose(merged.module(POINT).delta(), 0.5 * checkpoint(2).module(POINT).delta(), atol=2e-5)


def test_precision_is_kept_and_ranks_above_the_width_are_fine() -> None:
    half = LoraFile(tensors={key: value.astype(np.float16) for key, value in checkpoint(1, rank=16).tensors.items()})
    merged = merge_loras([half, half], [0.5, 0.5])
    assert {merged.tensors[f"{name}.lora_up.weight"].dtype for name in SHAPES} == {np.dtype(np.float16)}
    for name in SHAPES:
        assert merged.module(name).rank == 16
        np.testing.assert_allclose(merged.module(name).delta(), half.module(name).delta(), atol=3e-2)


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(SpecError, match="one weight for each"):
        merge_loras([], [])
    with pytest.raises(SpecError, match="2 files and 1 weights"):
        merge_loras([checkpoint(1), checkpoint(2)], [1.0])
    other = {
        key: np.zeros((4, 7) if "down" in key else value.shape, np.float32)
        for key, value in checkpoint(1, names=(LINEAR,)).tensors.items()
    }
    with pytest.raises(LoraError, match="different shapes"):
        merge_loras([checkpoint(2), LoraFile(tensors=other)], [1.0, 1.0])
