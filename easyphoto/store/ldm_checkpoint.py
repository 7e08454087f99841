"""A base model in diffusers' layout, written as the one checkpoint file that a WebUI loads, with its ControlNets beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyphoto.errors import InputError, NotFound
from easyphoto.files import write_bytes, write_text
from easyphoto.store.ldm_layout import (
    LDM_GROUPS,
    Tensors,
    clip_tensors,
    controlnet_tensors,
    lora_name,
    unet_tensors,
    vae_tensors,
)
from easyphoto.store.lora_file import LoraFile, serialize
from easyphoto.store.paths import make_folder

CONTROLNET_PREFIX = "easyphoto_embedded_"
"""Its ControlNets are called this and their kind, so that none is taken for an SD1.5 one."""
_WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class LdmFiles:
    """Where a checkpoint was written."""

    checkpoint: Path
    """For `models/Stable-diffusion`."""
    config: Path
    """Sizes of the network; the WebUI finds it beside the checkpoint by its name."""
    text: Path
    """Folder with the text encoder's sizes and its tokenizer."""
    controlnets: tuple[Path, ...]
    """For `models/ControlNet`."""


def write_ldm(model: Path, checkpoints: Path, controlnets: Path, name: str = "", extension: bool = True) -> LdmFiles:
    """Write the checkpoint, its config and its ControlNets.

    Args:
        model: Folder in diffusers' layout.
        checkpoints: The WebUI's folder of checkpoints.
        controlnets: The WebUI's folder of ControlNets.
        name: The checkpoint's name without its ending; the model's own when empty.
        extension: ControlNets for AUTOMATIC1111's extension; otherwise for Forge.

    Raises:
        NotFound: A part of the model is not there.
        InputError: It cannot be read.
        StorageError: A file cannot be written.
    """
    name = name or f"easyphoto-{model.name}"
    text = make_folder(checkpoints / f"{name}.text")
    checkpoint, config = checkpoints / f"{name}.safetensors", checkpoints / f"{name}.yaml"
    make_folder(controlnets)
    write_bytes(checkpoint, serialize(checkpoint_tensors(model), {"modelspec.title": name, "format": "pt"}))
    _write_text_model(model, text)
    write_text(config, json.dumps(ldm_config(model, text), indent=2) + "\n")
    written = []
    for folder in sorted(path.parent for path in model.glob("controlnet/*/config.json")):
        path = controlnets / f"{CONTROLNET_PREFIX}{folder.name}.safetensors"
        write_bytes(path, serialize(controlnet_file(folder, extension), {"format": "pt"}))
        written.append(path)
    return LdmFiles(checkpoint=checkpoint, config=config, text=text, controlnets=tuple(written))


def checkpoint_tensors(model: Path) -> Tensors:
    """UNet, autoencoder and text encoder under LDM's names."""
    unet, vae = read_config(model / "unet"), read_config(model / "vae")
    parts = (
        ("model.diffusion_model.", unet_tensors(_load(model / "unet" / _WEIGHTS), unet["layers_per_block"])),
        (
            "first_stage_model.",
            vae_tensors(_load(model / "vae" / _WEIGHTS), len(vae["block_out_channels"]), vae["norm_num_groups"]),
        ),
        ("cond_stage_model.transformer.", clip_tensors(_load(model / "text_encoder" / "model.safetensors"))),
    )
    return {prefix + key: tensor for prefix, tensors in parts for key, tensor in tensors.items()}


def controlnet_file(folder: Path, extension: bool = True) -> Tensors:
    """A ControlNet under its authors' names; see `ldm_layout.controlnet_tensors`."""
    config = read_config(folder)
    return controlnet_tensors(_load(folder / _WEIGHTS), config["layers_per_block"], config["cross_attention_dim"], extension)


def ldm_lora(file: LoraFile, layers: int) -> LoraFile:
    """A LoRA whose UNet modules have the names that a WebUI finds in a UNet with so many residual blocks a level."""
    tensors = {}
    for key, tensor in file.tensors.items():
        module, end = key.split(".", 1)
        tensors[f"{lora_name(module, layers)}.{end}"] = tensor
    return LoraFile(tensors=tensors, metadata=file.metadata)


def ldm_config(model: Path, text: Path) -> dict[str, Any]:
    """The sizes of the network as LDM's config files give them; JSON is YAML too."""
    unet, vae = read_config(model / "unet"), read_config(model / "vae")
    schedule = read_config(model / "scheduler", "scheduler_config.json")
    idle = {"target": "torch.nn.Identity"}
    first = {
        "target": "ldm.models.autoencoder.AutoencoderKL",
        "params": {"embed_dim": vae["latent_channels"], "ddconfig": _vae_config(vae), "lossconfig": idle},
    }
    params = {
        "linear_start": schedule["beta_start"], "linear_end": schedule["beta_end"],
        "timesteps": schedule["num_train_timesteps"], "num_timesteps_cond": 1, "log_every_t": 200,
        "first_stage_key": "jpg", "cond_stage_key": "txt",
        "image_size": unet["sample_size"], "channels": unet["in_channels"], "cond_stage_trainable": False,
        "conditioning_key": "crossattn", "monitor": "val/loss_simple_ema", "scale_factor": vae["scaling_factor"],
        "use_ema": False, "first_stage_config": first,
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": unet_config(unet)},
        "cond_stage_config": {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder", "params": {"version": str(text)}},
    }  # fmt: skip
    return {"model": {"base_learning_rate": 1e-4, "target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}}


def unet_config(unet: dict[str, Any]) -> dict[str, Any]:
    """LDM's words for the sizes of a UNet whose heads are equally wide in all levels."""
    channels, heads = unet["block_out_channels"], unet["attention_head_dim"]
    heads = heads if isinstance(heads, list) else [heads] * len(channels)
    attended = [2**level for level, kind in enumerate(unet["down_block_types"]) if "CrossAttn" in kind]
    params = {
        "image_size": unet["sample_size"], "in_channels": unet["in_channels"], "out_channels": unet["out_channels"],
        "model_channels": channels[0], "channel_mult": [channel // channels[0] for channel in channels],
        "num_res_blocks": unet["layers_per_block"], "attention_resolutions": attended, "use_spatial_transformer": True,
        "transformer_depth": 1, "context_dim": unet["cross_attention_dim"], "use_checkpoint": False, "legacy": False,
    }  # fmt: skip
    # Despite its name, diffusers' attention_head_dim is the number of heads in SD1's layout.
    widths = {channel // count for channel, count in zip(channels, heads)}
    return params | ({"num_head_channels": widths.pop()} if len(widths) == 1 else {"num_heads": heads[0]})


def _vae_config(vae: dict[str, Any]) -> dict[str, Any]:
    channels = [channel * LDM_GROUPS // vae["norm_num_groups"] for channel in vae["block_out_channels"]]
    return {
        "double_z": True, "z_channels": vae["latent_channels"], "resolution": vae["sample_size"],
        "in_channels": vae["in_channels"], "out_ch": vae["out_channels"], "ch": channels[0],
        "ch_mult": [channel // channels[0] for channel in channels], "num_res_blocks": vae["layers_per_block"],
        "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip


def _write_text_model(model: Path, folder: Path) -> None:
    """The text encoder's sizes, and its tokenizer as files that transformers 4 reads as well as 5."""
    write_text(folder / "config.json", (model / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    tokenizer = read_config(model / "tokenizer", "tokenizer.json")["model"]
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in tokenizer["merges"]]
    write_text(folder / "vocab.json", json.dumps(tokenizer["vocab"], ensure_ascii=False))
    write_text(folder / "merges.txt", "\n".join(("#version: 0.2", *merges)) + "\n")
    kept = {"bos_token", "eos_token", "pad_token", "unk_token", "model_max_length", "do_lower_case", "errors"}
    own = read_config(model / "tokenizer", "tokenizer_config.json")
    settings = {"tokenizer_class": "CLIPTokenizer", **{key: value for key, value in own.items() if key in kept}}
    write_text(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """One of the model's JSON files; raises InputError where it is missing or broken."""
    try:
        loaded = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder / name} cannot be read ({error}); fetch the base model again") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{folder / name} holds no JSON object; fetch the base model again")
    return loaded


def _load(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist; fetch the base model again") from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}); fetch the base model again") from error
