"""The sizes of a checkpoint's networks, read off its tensors' shapes, as the words of diffusers' and transformers' configs.

LDM's files have no config inside. What shapes cannot say is the same throughout a family: the number of attention heads
(8 in every level of SD1.5, 64 channels each in SDXL and CLIP), 32 groups in each norm, the scale of the latents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from easyphoto.families import Family
from easyphoto.store.ldm_family import context_width
from easyphoto.store.ldm_header import Shapes

_SCALES = {Family.SD15: 0.18215, Family.SDXL: 0.13025}
"""What the autoencoder's latents are multiplied with."""
_SIDES = {Family.SD15: 64, Family.SDXL: 128}
"""Latent cells along the side of the pictures that it was trained on."""
_HEADS, _HEAD_WIDTH = 8, 64
_SIZE_NUMBERS = 6
"""How many numbers SDXL is told of a picture's size; see `engine.text`."""


def unet_sizes(shapes: Shapes, family: Family, pooled: int = 0) -> dict[str, Any]:
    """For UNet2DConditionModel.

    Args:
        shapes: The UNet's tensors under LDM's names, without their prefix.
        family: Decides the heads.
        pooled: Width of SDXL's pooled text.

    Raises:
        ValueError, KeyError, IndexError: They are no UNet's.
    """
    sizes = _half(shapes, family, pooled)
    kinds = [kind.replace("Down", "Up") for kind in reversed(sizes["down_block_types"])]
    return sizes | {"up_block_types": tuple(kinds), "out_channels": shapes["out.2.weight"][0], "sample_size": _SIDES[family]}


def controlnet_sizes(shapes: Shapes, family: Family, pooled: int = 0) -> dict[str, Any]:
    """For ControlNetModel; as `unet_sizes`."""
    hints = sorted({int(name.split(".")[1]) for name in shapes if name.startswith("input_hint_block.")})
    widths = [shapes[f"input_hint_block.{number}.weight"][0] for number in hints]
    return _half(shapes, family, pooled) | {
        "conditioning_channels": shapes["input_hint_block.0.weight"][1],
        # Each level of the map's embedding has two layers, the second of which widens it for the next.
        "conditioning_embedding_out_channels": tuple(widths[0:-1:2]),
        "mid_block_type": "UNetMidBlock2DCrossAttn" if "middle_block.1.proj_in.weight" in shapes else "UNetMidBlock2D",
    }


def _half(shapes: Shapes, family: Family, pooled: int) -> dict[str, Any]:
    """What UNet and ControlNet have in common: the down half and the middle."""
    levels = _levels(shapes)
    channels, depths = tuple(width for width, _ in levels), tuple(depth for _, depth in levels)
    middle = _depth(shapes, "middle_block.1")
    heads = tuple(max(1, width // _HEAD_WIDTH) for width in channels) if family is Family.SDXL else _HEADS
    sizes: dict[str, Any] = {
        "in_channels": shapes["input_blocks.0.0.weight"][1], "block_out_channels": channels,
        "layers_per_block": _layers(shapes), "attention_head_dim": heads, "cross_attention_dim": context_width(shapes) or 0,
        "down_block_types": tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths),
        # The middle is as deep as the last level; where that one has no attention, the number is the middle's alone.
        "transformer_layers_per_block": (*(depth or 1 for depth in depths[:-1]), depths[-1] or middle or 1),
        "use_linear_projection": any(name.endswith(".1.proj_in.weight") and len(shapes[name]) == 2 for name in shapes),
    }  # fmt: skip
    if "label_emb.0.0.weight" not in shapes:
        return sizes
    wide = shapes["label_emb.0.0.weight"][1]
    return sizes | {
        "addition_embed_type": "text_time", "addition_time_embed_dim": (wide - pooled) // _SIZE_NUMBERS,
        "projection_class_embeddings_input_dim": wide,
    }  # fmt: skip


def _layers(shapes: Shapes) -> int:
    """Residual blocks in the first level."""
    first = min((_block(name) for name in shapes if name.endswith(".0.op.weight")), default=None)
    if first is None:
        raise ValueError("its UNet has a single level")
    return first - 1


def _levels(shapes: Shapes) -> list[tuple[int, int]]:
    """(channels, transformer blocks in each attention) of each level."""
    last = max(_block(name) for name in shapes if name.startswith("input_blocks."))
    blocks = range(1, last + 1, _layers(shapes) + 1)
    widths = [shapes[f"input_blocks.{block}.0.out_layers.3.weight"][0] for block in blocks]
    return [(width, _depth(shapes, f"input_blocks.{block}.1")) for width, block in zip(widths, blocks)]


def _depth(shapes: Shapes, attention: str) -> int:
    return _count(shapes, rf"{re.escape(attention)}\.transformer_blocks\.(\d+)\.")


def _block(name: str) -> int:
    match = re.match(r"input_blocks\.(\d+)\.", name)
    return int(match[1]) if match else 0


def _count(names: Iterable[str], pattern: str) -> int:
    """How many different numbers stand at the pattern's group."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def vae_sizes(shapes: Shapes, family: Family) -> dict[str, Any]:
    """For AutoencoderKL, from tensors under LDM's names without their prefix."""
    levels = _count(shapes, r"encoder\.down\.(\d+)\.")
    channels = tuple(shapes[f"encoder.down.{level}.block.0.conv2.weight"][0] for level in range(levels))
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1], "out_channels": shapes["decoder.conv_out.weight"][0],
        "block_out_channels": channels, "layers_per_block": _count(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        "latent_channels": shapes["decoder.conv_in.weight"][1], "scaling_factor": _SCALES[family],
        "down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels,
        "sample_size": 512,
    }  # fmt: skip


def clip_sizes(shapes: Shapes) -> dict[str, Any]:
    """For CLIPTextConfig, from transformers' names with or without `text_model.`."""
    plain = {name.removeprefix("text_model."): shape for name, shape in shapes.items()}
    return _encoder_sizes(
        words=plain["embeddings.token_embedding.weight"], places=plain["embeddings.position_embedding.weight"],
        wide=plain["encoder.layers.0.mlp.fc1.weight"][0], layers=_count(plain, r"encoder\.layers\.(\d+)\."),
    ) | {"hidden_act": "quick_gelu", "pad_token_id": 1}  # fmt: skip


def open_clip_sizes(shapes: Shapes) -> dict[str, Any]:
    """For CLIPTextConfig, from OpenCLIP's names."""
    return _encoder_sizes(
        words=shapes["token_embedding.weight"], places=shapes["positional_embedding"],
        wide=shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        layers=_count(shapes, r"transformer\.resblocks\.(\d+)\."),
    ) | {"hidden_act": "gelu", "pad_token_id": 0, "projection_dim": shapes["text_projection"][1]}  # fmt: skip


def _encoder_sizes(words: tuple[int, ...], places: tuple[int, ...], wide: int, layers: int) -> dict[str, Any]:
    count, width = words
    return {
        "vocab_size": count, "hidden_size": width, "intermediate_size": wide, "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // _HEAD_WIDTH), "max_position_embeddings": places[0],
        # CLIP's marks of the beginning and the end are its last two words.
        "bos_token_id": count - 2, "eos_token_id": count - 1, "layer_norm_eps": 1e-5,
    }  # fmt: skip
