"""Merging layers of one shape together is merging them one by one; the very code that runs on a GPU, here on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from easyphoto.errors import LoraError, SpecError
from easyphoto.store.lora_file import LoraFile
from easyphoto.store.lora_merge import merge_loras
from easyphoto.training.merging import merge_for, merge_on, nearest

SHAPES = {"a": (40, 32), "b": (40, 32), "c": (20, 48, 1, 1), "d": (6, 10), "e": (40, 32)}
WEIGHTS = [0.5, 0.3, 0.2]


def checkpoint(seed: int, rank: int = 4, names: str = "abcde", kind: type[np.floating] = np.float32) -> LoraFile:
    """Like checkpoints of one training: most of what is learnt is the same in all of them."""
    common, own = np.random.default_rng(0), np.random.default_rng(seed + 1)
    tensors = {}
    for name, (outputs, *inputs) in SHAPES.items():
        down = common.normal(size=(rank, *inputs)) + 0.1 * own.normal(size=(rank, *inputs))
        up = common.normal(size=(outputs, rank)) + 0.2 * own.normal(size=(outputs, rank))
        if name in names:
            tensors[f"{name}.lora_down.weight"] = down.astype(kind)
            tensors[f"{name}.lora_up.weight"] = up.reshape(outputs, rank, *(1,) * (len(inputs) - 1)).astype(kind)
            tensors[f"{name}.alpha"] = np.array(2.0, kind)
    return LoraFile(tensors=tensors, metadata={"ss_steps": str(seed)})


def products_are_equal(one: LoraFile, other: LoraFile, share: float) -> None:
    assert set(one.tensors) == set(other.tensors)
    for name in one.module_names():
        assert all(
            one.tensors[f"{name}.{end}"].shape == other.tensors[f"{name}.{end}"].shape for end in ("lora_up.weight", "alpha")
        )
        wanted = other.module(name).delta()
        assert np.linalg.norm(one.module(name).delta() - wanted) <= share * np.linalg.norm(wanted), name


def test_together_is_one_by_one() -> None:
    files = [checkpoint(seed) for seed in range(3)]
    found = merge_on("cpu", files, WEIGHTS)
    products_are_equal(found, merge_loras(files, WEIGHTS), 1e-5)
    assert found.metadata == files[0].metadata


def test_factors_are_alike_in_size() -> None:
    """Half precision wants no side of a product much larger than the other."""
    found = merge_on("cpu", [checkpoint(seed) for seed in range(3)], WEIGHTS)
    for name in found.module_names():
        module = found.module(name)
        up, down = module.up.reshape(len(module.up), -1) * module.scale, module.down.reshape(len(module.down), -1)
        np.testing.assert_allclose(np.linalg.norm(up, axis=0), np.linalg.norm(down, axis=1), rtol=1e-4, atol=1e-6)


def test_half_precision_stays_half_precision() -> None:
    files = [checkpoint(seed, kind=np.float16) for seed in range(3)]
    found = merge_on("cpu", files, WEIGHTS)
    assert {tensor.dtype for tensor in found.tensors.values()} == {np.dtype(np.float16)}
    products_are_equal(found, merge_loras(files, WEIGHTS), 3e-3)


def test_ranks_above_the_width_and_files_that_lack_a_layer_are_fine() -> None:
    files = [checkpoint(0, rank=16), checkpoint(1, rank=16, names="abc"), checkpoint(2, rank=8)]
    products_are_equal(merge_on("cpu", files, WEIGHTS), merge_loras(files, WEIGHTS), 1e-5)


def test_what_was_never_learnt_stays_nothing() -> None:
    """Ups begin as zero, and equal checkpoints have columns that repeat: no root of nothing may make a number of it."""
    blank = LoraFile(tensors={key: value * ("up" not in key) for key, value in checkpoint(0).tensors.items()})
    found = merge_on("cpu", [blank, blank], [0.5, 0.5])
    assert all(np.isfinite(tensor).all() for tensor in found.tensors.values())
    assert all(not found.module(name).delta().any() for name in found.module_names())
    one = checkpoint(0)
    products_are_equal(merge_on("cpu", [one, one, one], WEIGHTS), one, 1e-5)


def test_it_is_the_nearest_of_its_rank() -> None:
    rng = torch.Generator().manual_seed(0)
    up, down = (torch.randn(2, size, 12, generator=rng, dtype=torch.float64) for size in (30, 50))
    new_up, new_down = nearest(up, down, 4)
    whole = up @ down.mT
    lost = torch.linalg.svdvals(whole)[:, 4:].square().sum(1).sqrt()
    torch.testing.assert_close(torch.linalg.matrix_norm(whole - new_up @ new_down), lost)


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(SpecError, match="one weight for each"):
        merge_on("cpu", [checkpoint(0)], WEIGHTS)
    other = {
        key: np.zeros((4, 7), np.float32) if "down" in key else value for key, value in checkpoint(1, names="a").tensors.items()
    }
    with pytest.raises(LoraError, match="different shapes"):
        merge_on("cpu", [checkpoint(0), LoraFile(tensors=other)], [1.0, 1.0])


def test_it_is_said_when_merging_begins() -> None:
    said: list[str] = []
    files = [checkpoint(seed) for seed in range(2)]
    found = merge_for("cpu", lambda: said.append("begins"))(files, [0.5, 0.5])
    assert said == ["begins"]
    products_are_equal(found, merge_loras(files, [0.5, 0.5]), 0)
