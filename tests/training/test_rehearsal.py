"""What is computed beforehand is what a step computes by cuDNN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from easyphoto.families import Family
from easyphoto.settings import PROJECT_ROOT
from easyphoto.training import rehearsal
from easyphoto.training.precompile import UNETS
from easyphoto.training.rehearsal import Attention, Convolution, Reading
from tests.training.test_precompile import SD15

SDXL = {
    "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20), "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
}  # fmt: skip
CONFIGS = {
    Family.SD15: SD15, Family.SDXL: SDXL,
    Family.EMBEDDED: UNet2DConditionModel.load_config(PROJECT_ROOT / "models" / "base-256" / "unet"),
}  # fmt: skip
SIDES = {Family.SD15: 64, Family.SDXL: 128, Family.EMBEDDED: 24}


def watched(family: Family) -> tuple[set[Attention], set[Convolution]]:
    """Every attention and convolution of a UNet's forward pass, without computing anything."""
    attentions: set[Attention] = set()
    convolutions: set[Convolution] = set()
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(CONFIGS[family])

    def on_attention(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        states, words = given[0], named.get("encoder_hidden_states")
        attentions.add(
            Attention(heads=module.heads, width=module.inner_dim, tokens=states.shape[1], words=words is not None)
        )

    def on_convolution(module: Any, given: tuple[Any, ...]) -> None:
        if module.kernel_size == (3, 3):
            side, stride = given[0].shape[-1], module.stride[0]
            convolutions.add(Convolution(inputs=module.in_channels, outputs=module.out_channels, side=side, stride=stride))

    for module in unet.modules():
        if type(module).__name__ == "Attention":
            module.register_forward_pre_hook(on_attention, with_kwargs=True)
        elif isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(on_convolution)
    side, width = SIDES[family], unet.config.cross_attention_dim
    with torch.device("meta"):
        unet(torch.zeros(1, 4, side, side), torch.zeros(1), torch.zeros(1, 77, width))
    return attentions, convolutions


@pytest.mark.parametrize("family", list(CONFIGS))
def test_every_attention_and_convolution_of_a_unet_is_foreseen(family: Family) -> None:
    attentions, convolutions = watched(family)
    side = SIDES[family]
    assert convolutions == set(rehearsal.convolutions(*UNETS[family], side))
    foreseen = set(rehearsal.attentions(family, side))
    assert foreseen <= attentions
    # SD1.5's lowest level alone is left out: heads of 160 numbers are none of cuDNN's.
    assert all(each.width // each.heads > 128 for each in attentions - foreseen)


def test_the_text_encoders_heads_are_foreseen() -> None:
    from transformers import CLIPTextConfig

    config = CLIPTextConfig.from_pretrained(PROJECT_ROOT / "models" / "base-256" / "text_encoder")
    heads = config.num_attention_heads
    wanted = Reading(heads=heads, each=config.hidden_size // heads, learning=True)
    assert wanted in rehearsal.work_of(Family.EMBEDDED, 192, True)


@pytest.mark.parametrize("learning", [True, False])
def test_all_of_it_can_be_computed(learning: bool) -> None:
    work = [each for each in rehearsal.work_of(Family.EMBEDDED, 64, learning) if not isinstance(each, Convolution)]
    work += [Convolution(inputs=4, outputs=8, side=8), Convolution(inputs=8, outputs=8, side=8, stride=2)]
    for each in work:
        rehearsal.compute(each, 2, "cpu", torch.float32)
