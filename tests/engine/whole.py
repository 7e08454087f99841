"""The networks of SD1.5 and SDXL at their true size, without weights: shapes alone, on torch's meta device."""

from __future__ import annotations

from pathlib import Path

from easyphoto.engine.models import Models
from easyphoto.families import Family

CLIP = {"vocab_size": 49408, "max_position_embeddings": 77}
FIRST = CLIP | {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
SECOND = CLIP | {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280,
}
UNET = {
    Family.SD15: {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    Family.SDXL: {
        "sample_size": 128, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2, 10), "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
"""What their authors published, in diffusers' words, where it is not diffusers' default."""


def whole_models(family: Family) -> Models:
    """The family's UNet and text encoders."""
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        second = CLIPTextModelWithProjection(CLIPTextConfig(**SECOND)) if family is Family.SDXL else None
        return Models(
            folder=Path(), family=family, device="meta", dtype=torch.float16, vae=None,
            unet=UNet2DConditionModel(**UNET[family]), text_encoder=CLIPTextModel(CLIPTextConfig(**FIRST)),
            text_encoder_2=second, tokenizer=None, scheduler_config={}, controlnets={},
        )
