"""Assemble the trained parts into one folder in diffusers' layout, fp16 safetensors.

    python -m recipes.base_model.export --weights WEIGHTS --tokenizer TOKENIZER OUT
    python -m recipes.base_model.export --random --tokenizer TOKENIZER OUT     # true shapes, no training

WEIGHTS holds vae.safetensors, unet.safetensors, text_encoder.safetensors, controlnet_NAME.safetensors and scale.json;
parts that are absent are left at their initial weights and named in the log.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from recipes.base_model.architecture import (
    CONTROLS,
    build_controlnet,
    build_scheduler,
    build_text_encoder,
    build_unet,
    build_vae,
)
from recipes.base_model.vocabulary import load_tokenizer

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def load_part(module: Any, weights: Path | None, name: str) -> Any:
    """Load `name`.safetensors into the module if it is there; says so if not."""
    path = weights / f"{name}.safetensors" if weights else None
    if path is None or not path.exists():
        print(f"{name}: initial weights")
        return module
    module.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return module


def build_parts(weights: Path | None, tokenizer_folder: Path) -> dict[str, Any]:
    """Return vae, unet, text_encoder, tokenizer, scheduler and one `controlnet_NAME` each, in float32 on the CPU."""
    tokenizer = load_tokenizer(tokenizer_folder)
    parts: dict[str, Any] = {"tokenizer": tokenizer, "scheduler": build_scheduler()}
    parts["vae"] = load_part(build_vae(), weights, "vae")
    scale = weights / "scale.json" if weights else None
    if scale is not None and scale.exists():
        parts["vae"].register_to_config(scaling_factor=json.loads(scale.read_text())["scaling_factor"])
    parts["unet"] = load_part(build_unet(), weights, "unet")
    parts["text_encoder"] = load_part(build_text_encoder(len(tokenizer)), weights, "text_encoder")
    for name in CONTROLS:
        parts[f"controlnet_{name}"] = load_part(build_controlnet(parts["unet"]), weights, f"controlnet_{name}")
    return parts


def pipeline(parts: dict[str, Any]) -> StableDiffusionPipeline:
    """Return the parts as a Stable Diffusion pipeline without safety checker."""
    from diffusers import StableDiffusionPipeline

    names = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
    return StableDiffusionPipeline(
        **{name: parts[name] for name in names}, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


def export(parts: dict[str, Any], out: Path) -> float:
    """Write everything as fp16 and return the folder's size in MB."""
    shutil.rmtree(out, ignore_errors=True)
    for name, part in parts.items():
        if isinstance(part, torch.nn.Module):
            part.to(dtype=torch.float16, memory_format=torch.contiguous_format)
            if name.startswith("controlnet_"):
                part.save_pretrained(out / "controlnet" / name.removeprefix("controlnet_"))
    pipeline(parts).save_pretrained(out)
    for path in out.rglob("*.json"):
        path.write_text(path.read_text().rstrip() + "\n")
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    """Run the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--random", action="store_true")
    args = parser.parse_args()
    if not args.random and args.weights is None:
        parser.error("give --weights or --random")
    torch.manual_seed(0)
    print(f"{export(build_parts(args.weights, args.tokenizer), args.out):.1f} MB in {args.out}")


if __name__ == "__main__":
    main()
