"""The parts of a base model in diffusers' layout: a folder for each part, with its sizes in config.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyphoto.engine.detect import read_config
from easyphoto.engine.loading import Take, Weights, filled, open_weights
from easyphoto.engine.parts import Parts
from easyphoto.families import Family

if TYPE_CHECKING:
    from torch import Tensor

NETWORK, ENCODER = "diffusion_pytorch_model", "model"
"""What the weight files of diffusers' and of transformers' networks are called."""
_OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""How diffusers called an autoencoder's attention before 0.12; SD1.5's own folder still does."""


def load_parts(folder: Path, family: Family, device: str, dtype: Any) -> Parts:  # noqa: ANN401 (torch.dtype)
    """Every part but the ControlNets.

    Raises:
        InputError: A config cannot be read.
        ValueError, OSError, SafetensorError: Weights are missing or broken (see `loading.readable`).
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizerFast

    def tokenizer(name: str) -> Any:  # noqa: ANN401
        return CLIPTokenizerFast.from_pretrained(folder / name, local_files_only=True)

    two = family is Family.SDXL
    return Parts(
        unet=load_network(UNet2DConditionModel, folder / "unet", device, dtype),
        vae=load_network(AutoencoderKL, folder / "vae", device, torch.float32),
        text_encoder=_load_encoder(CLIPTextModel, folder / "text_encoder", device, dtype),
        text_encoder_2=_load_encoder(CLIPTextModelWithProjection, folder / "text_encoder_2", device, dtype) if two else None,
        tokenizer=tokenizer("tokenizer"), tokenizer_2=tokenizer("tokenizer_2") if two else None,
        scheduler_config=read_config(folder / "scheduler" / "scheduler_config.json"),
    )  # fmt: skip


def load_network(kind: Any, folder: Path, device: str, dtype: Any) -> Any:  # noqa: ANN401 (diffusers ships no types)
    """A network of diffusers' from its own folder."""
    config = read_config(folder / "config.json")
    with open_weights(weight_files(folder, NETWORK, _is_half(dtype))) as weights:
        return filled(lambda: kind.from_config(config), take_first(weights, _diffusers_names), device, dtype)


def _load_encoder(kind: Any, folder: Path, device: str, dtype: Any) -> Any:  # noqa: ANN401
    from transformers import CLIPTextConfig

    config = CLIPTextConfig.from_pretrained(folder, local_files_only=True)
    with open_weights(weight_files(folder, ENCODER, _is_half(dtype))) as weights:
        return filled(lambda: kind(config), take_first(weights, encoder_names), device, dtype)


def _is_half(dtype: Any) -> bool:  # noqa: ANN401 (torch.dtype)
    return bool(dtype.itemsize < 4)


def weight_files(folder: Path, stem: str, half: bool) -> tuple[Path, ...]:
    """The safetensors files of one network, whole or in parts.

    Args:
        folder: Where they lie.
        stem: What they are called.
        half: Take the half precision variant where both are there; it is taken too where it is the only one.

    Raises:
        OSError: There are none.
    """
    all_files = sorted(folder.glob(f"{stem}*.safetensors"))
    plain = tuple(path for path in all_files if path.name.removeprefix(stem)[0] in ".-" and path.name.count(".") == 1)
    halves = tuple(path for path in all_files if ".fp16" in path.name)
    chosen = (halves or plain) if half else (plain or halves)
    if not chosen:
        raise OSError(f"there is no {stem}.safetensors in {folder.name}")
    whole = tuple(path for path in chosen if "-of-" not in path.name)
    return whole[:1] or chosen


def take_first(weights: Weights, names: Callable[[str], tuple[str, ...]]) -> Take:
    """Take a weight under the first of its possible names that the file has."""

    def take(name: str) -> Tensor:
        return weights[next((other for other in names(name) if other in weights), name)]()

    return take


def _diffusers_names(name: str) -> tuple[str, ...]:
    for new, old in _OLD_ATTENTION.items():
        if f".attentions.0.{new}." in name:
            return name, name.replace(f".{new}.", f".{old}.")
    return (name,)


def encoder_names(name: str) -> tuple[str, ...]:
    """transformers 5 dropped the level `text_model` from some of CLIP's names; files and networks may have it or not."""
    return name, f"text_model.{name}", name.removeprefix("text_model.")
