"""The kernels that are compiled beforehand are those that a training calls."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from easyphoto.families import Family
from easyphoto.settings import PROJECT_ROOT
from easyphoto.training import precompile

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
    widths, layers = precompile._UNETS[family]
    assert (tuple(unet.config.block_out_channels), unet.config.layers_per_block) == (widths, layers)
    assert seen_norms(unet, side) == precompile.norm_shapes(widths, layers, side)


def test_each_kernel_is_compiled_once() -> None:
    calls = precompile.calls(Family.SD15, 512, (9, 0))
    assert len({repr((name, fixed)) for name, _, fixed in calls}) == len(calls)
    assert {name for name, _, _ in calls} >= {"norm_whole", "norm_apply_back", "gate", "add_bias", "add_change"}


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_nothing_is_compiled_for_other_devices(device: str) -> None:
    assert precompile.start(Family.SD15, 512, device, 8).children == ()


def test_a_second_training_finds_the_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precompile, "capability", lambda _number=0: (9, 0))
    monkeypatch.setattr(precompile.importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr(precompile.importlib.metadata, "version", lambda _name: "3.6.0")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    precompile._mark(Family.SD15, 512, (9, 0)).touch()
    assert precompile.start(Family.SD15, 512, "cuda", 8).children == ()
    assert precompile._mark(Family.SDXL, 1024, (9, 0)).exists() is False
