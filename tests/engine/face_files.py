"""An IP-Adapter for faces and its image encoder, tiny and of random weights, in their makers' layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from easyphoto.engine.models import Models

ENCODER_WIDTH, PATCHES = 16, 5
"""Of the tiny CLIP: 2 x 2 patches and the class token."""
HEAD = 64
"""Width of a head in the resampler, which loaders take for granted."""


def write_encoder(folder: Path, width: int = ENCODER_WIDTH, seed: int = 0) -> Path:
    """transformers' folder of a CLIPVisionModelWithProjection of two layers."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2, image_size=16,
                patch_size=8, projection_dim=8,
            )
        ).save_pretrained(folder)  # fmt: skip
    return folder


def write_adapter(path: Path, models: Models, seed: int = 0, full: bool = False) -> Path:
    """h94's layout of a "plus" adapter (a resampler) or a "full" one (a small network) for that model's UNet."""
    import torch
    from safetensors.torch import save_file

    numbers = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Any:
        return torch.randn(shape, generator=numbers) * 0.2

    words = int(models.unet.config.cross_attention_dim)
    tensors = _full(draw, words) if full else _plus(draw, words)
    for place, name in enumerate(models.unet.attn_processors):
        if name.endswith("attn2.processor"):
            attention = models.unet.get_submodule(name.removesuffix(".processor"))
            inner = attention.to_k.weight.shape[0]
            tensors |= {f"ip_adapter.{place}.to_{which}_ip.weight": draw(inner, words) for which in "kv"}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def _plus(draw: Any, words: int, width: int = 32, tokens: int = 4) -> dict[str, Any]:
    front = {
        "latents": draw(1, tokens, width), "proj_in.weight": draw(width, ENCODER_WIDTH), "proj_in.bias": draw(width),
        "proj_out.weight": draw(words, width), "proj_out.bias": draw(words), "norm_out.weight": draw(words),
        "norm_out.bias": draw(words),
    }  # fmt: skip
    for layer in range(4):
        attention, feed = f"layers.{layer}.0.", f"layers.{layer}.1."
        front |= {f"{attention}{norm}.{end}": draw(width) for norm in ("norm1", "norm2") for end in ("weight", "bias")}
        front |= {
            f"{attention}to_q.weight": draw(HEAD, width), f"{attention}to_kv.weight": draw(2 * HEAD, width),
            f"{attention}to_out.weight": draw(width, HEAD), f"{feed}0.weight": draw(width), f"{feed}0.bias": draw(width),
            f"{feed}1.weight": draw(4 * width, width), f"{feed}3.weight": draw(width, 4 * width),
        }  # fmt: skip
    return {f"image_proj.{name}": tensor for name, tensor in front.items()}


def _full(draw: Any, words: int) -> dict[str, Any]:
    front = {
        "proj.0.weight": draw(ENCODER_WIDTH, ENCODER_WIDTH), "proj.0.bias": draw(ENCODER_WIDTH),
        "proj.2.weight": draw(words, ENCODER_WIDTH), "proj.2.bias": draw(words), "proj.3.weight": draw(words),
        "proj.3.bias": draw(words),
    }  # fmt: skip
    return {f"image_proj.{name}": tensor for name, tensor in front.items()}
