"""Tiny SD1.5 and SDXL models with LDM's own structure, as a diffusers folder and as the one file it would be shared as."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from easyphoto.store.ldm_layout import Tensors, clip_tensors, controlnet_name, unet_tensors, vae_tensors
from easyphoto.store.lora_file import serialize
from tests.tiny import _wake, make_tiny_base
from tests.tiny_xl import make_tiny_sdxl


def make_sd15(folder: Path, layers: int = 1) -> Path:
    """SD1.5's four levels and 768-wide words, 32 and 64 channels, with 32 groups as LDM has everywhere."""
    import torch
    from diffusers import ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    base = make_tiny_base(folder.parent / f"{folder.name}-parts")
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("controlnet", "unet", "text_encoder"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=64, in_channels=4, out_channels=4, block_out_channels=(32, 32, 64, 64), layers_per_block=2,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), attention_head_dim=8, cross_attention_dim=768,
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        )
        unet.save_pretrained(folder / "unet")
        for kind in ("canny", "openpose", "color", "tile"):
            net = ControlNetModel.from_unet(unet)
            _wake(net)
            net.save_pretrained(folder / "controlnet" / kind)
        CLIPTextModel(CLIPTextConfig(
            hidden_size=768, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=12, vocab_size=514,
            max_position_embeddings=77, bos_token_id=512, eos_token_id=513, pad_token_id=1,
        )).save_pretrained(folder / "text_encoder")
    write_vae(folder, 0.18215)
    return folder


def make_sdxl(folder: Path) -> Path:
    """`tiny_xl`'s model with an autoencoder as LDM builds it."""
    make_tiny_sdxl(folder)
    write_vae(folder, 0.13025)
    return folder


def write_vae(folder: Path, scale: float) -> None:
    import torch
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        AutoencoderKL(
            block_out_channels=(32, 32, 32, 64), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, scaling_factor=scale,
        ).save_pretrained(folder / "vae")


def ldm_tensors(folder: Path) -> Tensors:
    """The whole model under LDM's names."""
    unet = unet_tensors(weights(folder / "unet"), 2)
    vae = vae_tensors(weights(folder / "vae"), 4, 32)
    words = clip_tensors(weights(folder / "text_encoder"))
    named = {f"model.diffusion_model.{name}": tensor for name, tensor in unet.items()}
    named |= {f"first_stage_model.{name}": tensor for name, tensor in vae.items()}
    if not (folder / "text_encoder_2").is_dir():
        return named | {f"cond_stage_model.transformer.{name}": tensor for name, tensor in words.items()}
    named |= {f"conditioner.embedders.0.transformer.{name}": tensor for name, tensor in words.items()}
    second = open_clip_tensors(weights(folder / "text_encoder_2"))
    return named | {f"conditioner.embedders.1.model.{name}": tensor for name, tensor in second.items()}


def open_clip_tensors(tensors: Tensors) -> Tensors:
    """A CLIPTextModelWithProjection as OpenCLIP has it, written out by hand."""
    plain = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    named = {
        "token_embedding.weight": plain["embeddings.token_embedding.weight"],
        "positional_embedding": plain["embeddings.position_embedding.weight"],
        "ln_final.weight": plain["final_layer_norm.weight"], "ln_final.bias": plain["final_layer_norm.bias"],
        "text_projection": plain["text_projection.weight"].T, "logit_scale": np.array(4.6, np.float32),
    }
    layers = 1 + max(int(name.split(".")[2]) for name in plain if name.startswith("encoder.layers."))
    for layer in range(layers):
        own, other = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for end in ("weight", "bias"):
            parts = [plain[f"{own}.self_attn.{part}_proj.{end}"] for part in "qkv"]
            named[f"{other}.attn.in_proj_{end}"] = np.concatenate(parts)
            named[f"{other}.attn.out_proj.{end}"] = plain[f"{own}.self_attn.out_proj.{end}"]
            named[f"{other}.ln_1.{end}"] = plain[f"{own}.layer_norm1.{end}"]
            named[f"{other}.ln_2.{end}"] = plain[f"{own}.layer_norm2.{end}"]
            named[f"{other}.mlp.c_fc.{end}"] = plain[f"{own}.mlp.fc1.{end}"]
            named[f"{other}.mlp.c_proj.{end}"] = plain[f"{own}.mlp.fc2.{end}"]
    return named


def controlnet_tensors(folder: Path) -> Tensors:
    """A ControlNet under LDM's names."""
    return {controlnet_name(name, 2): tensor for name, tensor in weights(folder).items()}


def weights(folder: Path) -> dict[str, Any]:
    """A network's tensors from its own folder."""
    from safetensors.numpy import load_file

    return load_file(next(folder.glob("*.safetensors")))


def write(path: Path, tensors: Tensors, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(serialize(tensors, metadata))
    return path


def write_header(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A whole safetensors file of half precision zeros that take no room on the disk."""
    end, entries = 0, {}
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        entries[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return path
