"""The shapes of every part of the embedded base model, in diffusers' own classes."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

CONTROLS = ("canny", "openpose", "color", "tile")
_WIDTHS = (96, 192, 288)
_HEADS = (3, 6, 9)
"""Heads a level, so that each head has 32 channels (diffusers reads `attention_head_dim` as the number of heads)."""
_TEXT_WIDTH = 256


def build_vae(widths: tuple[int, ...] = (48, 96, 192, 192)) -> AutoencoderKL:
    """Autoencoder of factor 8 with 4 latent channels and no attention in the middle."""
    levels = len(widths)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=16,
        sample_size=256,
        mid_block_add_attention=False,
    )


def build_unet(widths: tuple[int, ...] = _WIDTHS) -> UNet2DConditionModel:
    """Denoiser: three levels, one residual block a level, cross-attention at the lower two."""
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=_TEXT_WIDTH,
        attention_head_dim=_HEADS,
    )


def build_text_encoder(vocabulary_size: int, layers: int = 4) -> CLIPTextModel:
    """Small CLIP text model; the last two tokens of the vocabulary are begin and end of text."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary_size,
            hidden_size=_TEXT_WIDTH,
            intermediate_size=4 * _TEXT_WIDTH,
            projection_dim=_TEXT_WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=vocabulary_size - 2,
            eos_token_id=vocabulary_size - 1,
            pad_token_id=vocabulary_size - 1,
        )
    )


def build_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """ControlNet of `unet` without attention (a fifth of the denoiser's size); starts from the denoiser's weights."""
    widths = tuple(unet.config.block_out_channels)
    net = ControlNetModel(
        in_channels=4,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * len(widths),
        mid_block_type="UNetMidBlock2D",
        cross_attention_dim=_TEXT_WIDTH,
        attention_head_dim=_HEADS,
        conditioning_embedding_out_channels=(8, 16, 32, 64),
    )
    ours, theirs = net.state_dict(), unet.state_dict()
    shared = {key: value for key, value in theirs.items() if key in ours and ours[key].shape == value.shape}
    net.load_state_dict(shared, strict=False)
    return net


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, predicting the noise."""
    return DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}


def count_parameters(module: Any) -> int:
    """Return the number of parameters of a torch module."""
    return sum(parameter.numel() for parameter in module.parameters())
