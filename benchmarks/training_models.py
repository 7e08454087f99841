"""Base models of the true shapes with random weights, and latents of made-up photos: speed does not depend on either."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from easyphoto.engine.models import Models
from easyphoto.families import PROFILES, Family
from easyphoto.records import ConditionKind
from easyphoto.specs import DataSpec, LoraSpec, OptimSpec, TrainSpec
from easyphoto.training.dataset import LatentCache

SCHEDULER = {
    "_class_name": "DDPMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "clip_sample": False, "steps_offset": 1, "prediction_type": "epsilon",
}  # fmt: skip
TOKENS = 77


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a model's networks, as arguments of their classes."""

    family: Family
    unet: dict[str, Any]
    texts: tuple[dict[str, Any], ...]
    vae: dict[str, Any]


_VAE = {
    "in_channels": 3, "out_channels": 3, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4, "latent_channels": 4,
}  # fmt: skip
_CLIP = {
    "max_position_embeddings": TOKENS, "vocab_size": 49_408, "bos_token_id": 49_406, "eos_token_id": 49_407, "pad_token_id": 1,
}  # fmt: skip
_LARGE = {
    **_CLIP, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "quick_gelu", "projection_dim": 768,
}  # fmt: skip
SD15 = Shape(
    family=Family.SD15,
    unet={
        "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "cross_attention_dim": 768,
        "attention_head_dim": 8, "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    },
    texts=(_LARGE,), vae={**_VAE, "sample_size": 512, "scaling_factor": 0.18215},
)  # fmt: skip
SDXL = Shape(
    family=Family.SDXL,
    unet={
        "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20), "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
        "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",), "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    },
    texts=(
        _LARGE,
        {**_CLIP, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
         "hidden_act": "gelu", "projection_dim": 1280},
    ),
    vae={**_VAE, "sample_size": 1024, "scaling_factor": 0.13025},
)  # fmt: skip
TINY = Shape(
    family=Family.EMBEDDED,
    unet={
        "sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32,
        "attention_head_dim": 4, "norm_num_groups": 8, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
    texts=({**_CLIP, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4},),
    vae={
        "block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1, "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4, "sample_size": 64,
    },
)  # fmt: skip
"""For trying the benchmark itself on a CPU."""


class Words:
    """Stands in for a tokenizer: the length of the text decides the numbers."""

    model_max_length = TOKENS

    def __call__(self, texts: list[str], **_: object) -> Any:  # noqa: ANN401 (transformers' BatchEncoding)
        """Rows of numbers, as CLIP's tokenizer fills them up."""
        rows = [[49_406, *(1000 + (7 * len(text) + at) % 900 for at in range(8)), *[49_407] * (TOKENS - 9)] for text in texts]
        return type("Encoding", (), {"input_ids": torch.tensor(rows)})()


def make_models(shape: Shape, device: str, dtype: torch.dtype) -> Models:
    """The networks in memory, frozen, channels last; no autoencoder: latents are made up."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel(**shape.unet)
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        texts = [kind(CLIPTextConfig(**sizes)) for kind, sizes in zip(kinds, shape.texts)]
    for network in (unet, *texts):
        torch.nn.Module.to(network.requires_grad_(False).eval(), dtype=dtype, memory_format=torch.channels_last)
    two = len(texts) == 2
    return Models(
        folder=Path("random"), family=shape.family, device=device, dtype=dtype, unet=unet, vae=None, text_encoder=texts[0],
        tokenizer=Words(), text_encoder_2=texts[1] if two else None, tokenizer_2=Words() if two else None,
        scheduler_config=SCHEDULER, controlnets={},
    )  # fmt: skip


def make_cache(device: str, side: int, photos: int = 10, variants: int = 6, seed: int = 0) -> LatentCache:
    """Latents of made-up photos."""
    noise = torch.Generator().manual_seed(seed)
    shape = (photos, variants, 4, side // 8, side // 8)
    return LatentCache(mean=torch.randn(shape, generator=noise).to(device), deviation=torch.full(shape, 0.05, device=device))


def make_spec(shape: Shape, batch: int, rank: int, text: bool, side: int, seed: int = 0) -> TrainSpec:
    """What the peer trains by default, of that size."""
    return TrainSpec(
        person=f"person {seed}", base_model=Path("random"), family=shape.family, seed=seed,
        lora=LoraSpec(rank=rank, alpha=rank / 2, text_encoder=text),
        optim=OptimSpec(batch_size=batch, steps_per_photo=10_000, max_steps=100_000), data=DataSpec(size=side),
    )  # fmt: skip


def default_side(shape: Shape) -> int:
    """Side of a training crop in px."""
    return 64 if shape is TINY else PROFILES[shape.family].train_size


def write_base(shape: Shape, folder: Path, device: str) -> Path:
    """The same model on disk in diffusers' layout, in half precision."""
    from diffusers import AutoencoderKL

    models = make_models(shape, device, torch.float16)
    with torch.device(device):
        vae = AutoencoderKL(**shape.vae).half()
    models.unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    names = ("text_encoder", "text_encoder_2")
    for name, encoder in zip(names, models.text_encoders):
        encoder.save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER), encoding="utf-8")
    _write_index(folder, len(models.text_encoders) == 2)
    return folder


def write_controlnets(shape: Shape, base: Path, device: str) -> None:
    """Random ControlNets of the true size beside a base model, one for each kind; one file on the disk."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    with torch.device(device):
        unet = UNet2DConditionModel(**shape.unet)
        net = ControlNetModel.from_unet(unet, load_weights_from_unet=False).half()
    first, *others = (base / "controlnet" / kind.value for kind in ConditionKind)
    net.save_pretrained(first)
    for other in others:
        other.mkdir()
        for path in first.iterdir():
            os.link(path, other / path.name)


def _write_index(folder: Path, two: bool) -> None:
    from tests.tiny import _write_tokenizer

    encoders = {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    _write_tokenizer(folder / "tokenizer")
    if two:
        _write_tokenizer(folder / "tokenizer_2")
        encoders["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
        encoders["tokenizer_2"] = ["transformers", "CLIPTokenizer"]
    index = {
        "_class_name": "StableDiffusionXLPipeline" if two else "StableDiffusionPipeline", "_diffusers_version": "0.30.0",
        "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"], "feature_extractor": [None, None], **encoders,
        **({"image_encoder": [None, None]} if two else {"safety_checker": [None, None], "requires_safety_checker": False}),
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
