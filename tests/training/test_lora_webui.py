"""What the WebUI's loader makes of our keys on a model of SD1.5's shape (without its weights)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from easyphoto.engine.models import Models
from easyphoto.families import Family
from easyphoto.specs import LoraSpec
from easyphoto.training.lora import LoraNetwork

LDM_TRANSFORMERS = {
    *(f"input_blocks_{number}_1" for number in (1, 2, 4, 5, 7, 8)),
    "middle_block_1",
    *(f"output_blocks_{number}_1" for number in range(3, 12)),
}
"""Where Stable Diffusion 1.5 has a SpatialTransformer, in the LDM naming that the WebUI's model has."""
LDM_LAYERS = {
    "proj_in", "proj_out", "transformer_blocks_0_ff_net_0_proj", "transformer_blocks_0_ff_net_2",
    *(f"transformer_blocks_0_attn{number}_to_{end}" for number in (1, 2) for end in ("q", "k", "v", "out_0")),
}  # fmt: skip


@pytest.fixture(scope="module")
def network() -> LoraNetwork:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, cross_attention_dim=768,
            attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        )  # fmt: skip
        text = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        )
    models = Models(
        folder=Path("nowhere"), family=Family.SD15, device="meta", dtype=torch.float32, unet=unet, vae=None, text_encoder=text,
        tokenizer=None, scheduler_config={}, controlnets={},
    )  # fmt: skip
    return LoraNetwork(models, LoraSpec(rank=1, alpha=1.0))


def ldm_name(key: str) -> str:
    """The WebUI's renaming: three places a level, counted from 1 on the way down and from 0 on the way up."""
    found = re.fullmatch(r"lora_unet_(down|up)_blocks_(\d+)_attentions_(\d+)_(.+)", key)
    if found is None:
        return key.replace("lora_unet_mid_block_attentions_0_", "middle_block_1_")
    way, level, place, rest = found.groups()
    number = int(level) * 3 + int(place) + (way == "down")
    return f"{'input' if way == 'down' else 'output'}_blocks_{number}_1_{rest}"


def test_as_many_modules_as_kohya_makes(network: LoraNetwork) -> None:
    assert (len(network.unet_layers), len(network.text_layers)) == (192, 72)


def test_every_unet_key_falls_on_a_layer_of_the_webuis_model(network: LoraNetwork) -> None:
    names = {ldm_name(layer.name) for layer in network.unet_layers}
    assert names == {f"{place}_{layer}" for place in LDM_TRANSFORMERS for layer in LDM_LAYERS}


def test_every_text_key_falls_on_a_layer_of_the_webuis_model(network: LoraNetwork) -> None:
    ends = {*(f"self_attn_{end}_proj" for end in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2"}
    wanted = {f"lora_te_text_model_encoder_layers_{number}_{end}" for number in range(12) for end in ends}
    assert {layer.name for layer in network.text_layers} == wanted


def test_shapes_are_those_of_the_base_weights(network: LoraNetwork) -> None:
    for layer in network.layers:
        weight = layer.module.weight
        assert (layer.up.shape[1], layer.down.shape[2]) == tuple(weight.shape[:2])
