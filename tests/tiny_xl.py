"""A tiny SDXL base model with random weights: two text encoders, pooled text, sizes; written in about a second.

    from tests.tiny_xl import make_tiny_sdxl
    base = make_tiny_sdxl(tmp_path / "sdxl")

SDXL's three levels, its linear projections and its depth that grows with the level, all 32 to 64 channels wide. The second
tokenizer fills up with "!", as SDXL's does.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.tiny import _wake, make_tiny_base

CONTROLS = ("canny", "openpose", "color", "tile")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What may be wider than it needs to be."""

    channels: tuple[int, int, int] = (32, 64, 64)
    depth: tuple[int, int, int] = (1, 1, 2)
    words: tuple[int, int] = (32, 32)
    """Width of each text encoder; the cross-attention sees both side by side."""
    pooled: int = 16
    waves: int = 8
    vocabulary: int = 514
    layers: int = 2


TINY = Sizes()


def make_tiny_sdxl(folder: Path, seed: int = 0, sizes: Sizes = TINY) -> Path:
    """Write the model below `folder` in diffusers layout and return `folder`; a folder that has one is left alone."""
    import torch
    from diffusers import ControlNetModel, UNet2DConditionModel

    if (folder / "model_index.json").exists():
        return folder
    base = make_tiny_base(folder.parent / f"{folder.name}-parts", seed)
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("controlnet", "unet", "text_encoder", "model_index.json"))
    shutil.rmtree(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=sizes.channels, layers_per_block=2,
            norm_num_groups=32, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=sum(sizes.words),
            attention_head_dim=tuple(max(1, width // 64) for width in sizes.channels), use_linear_projection=True,
            transformer_layers_per_block=sizes.depth, addition_embed_type="text_time", addition_time_embed_dim=sizes.waves,
            projection_class_embeddings_input_dim=6 * sizes.waves + sizes.pooled,
        )
        unet.save_pretrained(folder / "unet")
        for kind in CONTROLS:
            net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 8, 8))
            _wake(net)
            net.save_pretrained(folder / "controlnet" / kind)
        _write_encoders(folder, sizes)
    _write_index(folder)
    return folder


def _write_encoders(folder: Path, sizes: Sizes) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    first, second = (
        {
            "hidden_size": width, "intermediate_size": 64, "num_hidden_layers": sizes.layers, "max_position_embeddings": 77,
            "num_attention_heads": max(1, width // 64), "vocab_size": sizes.vocabulary,
            "bos_token_id": sizes.vocabulary - 2, "eos_token_id": sizes.vocabulary - 1,
        }
        for width in sizes.words
    )
    CLIPTextModel(CLIPTextConfig(**first, pad_token_id=sizes.vocabulary - 1)).save_pretrained(folder / "text_encoder")
    projected = CLIPTextConfig(**second, pad_token_id=0, hidden_act="gelu", projection_dim=sizes.pooled)
    CLIPTextModelWithProjection(projected).save_pretrained(folder / "text_encoder_2")
    shutil.copytree(folder / "tokenizer", folder / "tokenizer_2")
    settings = folder / "tokenizer_2" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "pad_token": "!"}))


def _write_index(folder: Path) -> None:
    parts = {
        "scheduler": "DDPMScheduler", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection", "tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer",
    }
    library = {name: "transformers" if name.startswith("t") else "diffusers" for name in parts}
    index = {"_class_name": "StableDiffusionXLPipeline", "_diffusers_version": "0.30.0", "force_zeros_for_empty_prompt": True}
    index |= {name: [library[name], kind] for name, kind in parts.items()}
    index |= {"feature_extractor": [None, None], "image_encoder": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
