"""The kernels that are compiled beforehand are those that a training calls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from easyphoto.families import Family
from easyphoto.settings import PROJECT_ROOT
from easyphoto.specs import TrainSpec
from easyphoto.training import precompile
from easyphoto.training.precompile import Gpu

SD15 = {
    "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "cross_attention_dim": 768, "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip


def seen_norms(unet: UNet2DConditionModel, side: int) -> set[tuple[int, int]]:
    """Channels and rows x columns of what every group norm is given, without computing anything."""
    seen: set[tuple[int, int]] = set()
    for module in unet.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.register_forward_pre_hook(lambda _module, given: seen.add((given[0].shape[1], given[0][0, 0].numel())))
    with torch.device("meta"):
        unet(torch.zeros(1, 4, side, side), torch.zeros(1), torch.zeros(1, 77, unet.config.cross_attention_dim))
    return seen


@pytest.mark.parametrize("family", [Family.SD15, Family.EMBEDDED])
def test_every_norm_of_a_unet_is_foreseen(family: Family) -> None:
    side = 64 if family is Family.SD15 else 24
    own = UNet2DConditionModel.load_config(PROJECT_ROOT / "models" / "base-256" / "unet")
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15) if family is Family.SD15 else UNet2DConditionModel.from_config(own)
    widths, layers = precompile.UNETS[family]
    assert (tuple(unet.config.block_out_channels), unet.config.layers_per_block) == (widths, layers)
    assert seen_norms(unet, side) == precompile.norm_shapes(widths, layers, side)


def test_each_kernel_is_compiled_once() -> None:
    calls = precompile.calls(Family.SD15, 512, (9, 0))
    assert len({repr((name, fixed)) for name, _, fixed in calls}) == len(calls)
    assert {name for name, _, _ in calls} >= {"norm_whole", "norm_apply_back", "gate", "add_bias", "add_change"}


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_nothing_is_compiled_for_other_devices(spec: TrainSpec, device: str) -> None:
    assert precompile.start(replace(spec, device=device), 8).children == ()


class Started:
    """In place of a process that ends well at once."""

    def __init__(self, command: list[str], cwd: Path, **_: object) -> None:
        self.module, self.words, self.folder = command[2], command[3:], cwd

    def wait(self, _patience: float | None = None) -> int:
        return 0

    def poll(self) -> int:
        return 0


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Says what GPU is there."""
    monkeypatch.setattr(precompile.importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr(precompile.importlib.metadata, "version", lambda _name: "3.6.0")
    monkeypatch.setattr(precompile.subprocess, "Popen", Started)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("CUDA_CACHE_PATH", str(tmp_path / "cuda"))

    def say(gib: float) -> None:
        monkeypatch.setattr(precompile, "find_gpu", lambda _number=0: Gpu(chip=(9, 0), gib=gib, driver=13000))

    return say


def modules(compiling: precompile.Compiling) -> list[str]:
    return [child.module.rpartition(".")[2] for child in compiling.children]


def test_a_second_training_finds_the_marks(spec: TrainSpec, gpu) -> None:
    gpu(140.0)
    wanted = replace(spec, device="cuda", family=Family.SD15)
    with precompile.start(wanted, 16) as compiling:
        assert modules(compiling) == 7 * ["precompile"] + 7 * ["rehearsal"]
        assert {child.folder for child in compiling.children} == {PROJECT_ROOT}, "where workers look for it"
        compiling.wait()
    assert precompile.start(wanted, 16).children == ()
    assert modules(precompile.start(replace(wanted, data=replace(wanted.data, size=768)), 16))
    other = replace(wanted, optim=replace(wanted.optim, batch_size=8))
    assert set(modules(precompile.start(other, 16))) == {"rehearsal"}, "ours do not ask how many pictures there are"


def test_a_driver_that_forgot_is_asked_again(spec: TrainSpec, gpu, tmp_path: Path) -> None:
    gpu(140.0)
    wanted = replace(spec, device="cuda", family=Family.SD15)
    precompile.start(wanted, 16).wait()
    (tmp_path / "cuda").rename(tmp_path / "away")
    assert set(modules(precompile.start(wanted, 16))) == {"rehearsal"}


def test_a_small_gpu_keeps_its_memory(spec: TrainSpec, gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = replace(spec, device="cuda", family=Family.SD15)
    for gib, processes in ((8.0, 0), (12.0, 1), (24.0, 1), (80.0, 5)):
        gpu(gib)
        assert modules(precompile.start(wanted, 16)).count("rehearsal") == processes
    monkeypatch.setenv("CUDA_CACHE_DISABLE", "1")
    assert set(modules(precompile.start(wanted, 16))) == {"precompile"}
