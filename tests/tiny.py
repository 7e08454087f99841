"""A tiny base model with random weights, in the layout of the embedded one; written in about a second.

    from tests.tiny import make_tiny_base
    base = make_tiny_base(tmp_path / "base")

Two levels instead of three, 32 and 64 channels, a text encoder of one layer, four ControlNets that do act on the result
(their zero convolutions are not zero). Nothing in it has been trained: pictures are noise, but every shape and file is real.
"""

from __future__ import annotations

import json
from pathlib import Path

WIDTH = 32
"""Width of the text encoder and of the cross-attention."""
CONTROLS = ("canny", "openpose", "color", "tile")


def make_tiny_base(folder: Path, seed: int = 0) -> Path:
    """Write the model below `folder` in diffusers layout and return `folder`; a folder that has one is left alone."""
    import torch
    from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, UNet2DConditionModel

    if (folder / "model_index.json").exists():
        return folder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(32, 64),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
        )
        unet.save_pretrained(folder / "unet")
        AutoencoderKL(
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            sample_size=64,
            mid_block_add_attention=False,
        ).save_pretrained(folder / "vae")
        _write_text_encoder(folder)
        for kind in CONTROLS:
            net = ControlNetModel.from_unet(unet, conditioning_channels=3, conditioning_embedding_out_channels=(8, 8, 8, 8))
            _wake(net)
            net.save_pretrained(folder / "controlnet" / kind)
    DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        prediction_type="epsilon",
    ).save_pretrained(folder / "scheduler")
    _write_index(folder)
    return folder


def _write_text_encoder(folder: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    tokens = _write_tokenizer(folder / "tokenizer")
    CLIPTextModel(
        CLIPTextConfig(
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=1,
            num_attention_heads=4,
            vocab_size=tokens,
            max_position_embeddings=77,
            bos_token_id=tokens - 2,
            eos_token_id=tokens - 1,
            pad_token_id=tokens - 1,
        )
    ).save_pretrained(folder / "text_encoder")


def _wake(controlnet) -> None:
    """Give the zero convolutions small random weights, so that the net changes the picture as a trained one does."""
    import torch

    for layer in (
        *controlnet.controlnet_down_blocks,
        controlnet.controlnet_mid_block,
        controlnet.controlnet_cond_embedding.conv_out,
    ):
        torch.nn.init.normal_(layer.weight, std=0.05)


def _write_tokenizer(folder: Path) -> int:
    """CLIP's byte alphabet without merges: each letter is a token of its own; returns the number of tokens."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "unk_token": "<|endoftext|>",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    return len(words)


def _byte_letters() -> list[str]:
    """The 256 printable stand-ins for bytes of GPT-2's byte-level coding."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + place) for place in range(len(hidden))]


def _write_index(folder: Path) -> None:
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.30.0",
        "requires_safety_checker": False,
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
