"""Which family a checkpoint in LDM layout is of, from the names and shapes of its tensors; every refusal gives its reason."""

from __future__ import annotations

from easyphoto.families import Family
from easyphoto.store.ldm_header import Shapes

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP = "cond_stage_model.transformer."
"""SD1.5's text encoder."""
CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
"""SDXL's two."""
_SD2_WIDTH, _REFINER_WIDTH, _SD15_WIDTH, _EMBEDDED_WIDTH = 1024, 1280, 768, 256
_CHANNELS = {
    5: "follows depth maps", 7: "enlarges pictures", 8: "edits pictures by instructions", 9: "is for inpainting only",
}  # fmt: skip
_ALONE = (
    ("double_blocks.", "is a FLUX model"), ("joint_blocks.", "is a Stable Diffusion 3 model"), ("lora_", "is a LoRA"),
    ("control_model.", "is a ControlNet"), ("input_hint_block.", "is a ControlNet"),
    ("controlnet_cond_embedding.", "is a ControlNet"), ("down_blocks.", "holds one network alone, in diffusers' names"),
    (VAE, "holds an autoencoder alone"), ("decoder.", "holds an autoencoder alone"), (CLIP, "holds a text encoder alone"),
    ("emb_params", "is a textual inversion"), ("string_to_param", "is a textual inversion"),
)  # fmt: skip
"""Part of a tensor's name, and what a file without LDM's UNet is then."""


class Refused(Exception):
    """Why a file cannot be our base model, as the second half of a sentence that begins with its name."""


def ldm_family(shapes: Shapes) -> Family:
    """The family of a checkpoint.

    Raises:
        Refused: It is none that we run, or lacks a part.
    """
    family = _unet_family(shapes)
    encoders = (CLIP_XL, OPEN_CLIP_XL) if family is Family.SDXL else (CLIP,)
    for prefix, what in ((VAE, "autoencoder"), *((prefix, "text encoder") for prefix in encoders)):
        if not any(name.startswith(prefix) for name in shapes):
            raise Refused(f"has no {what} inside; choose a checkpoint that is whole")
    return family


def _unet_family(shapes: Shapes) -> Family:
    first = shapes.get(f"{UNET}input_blocks.0.0.weight", ())
    if len(first) != 4:
        raise Refused(f"{_other(shapes)}; choose an SD1.5 or SDXL checkpoint")
    if first[1] != 4:
        what = _CHANNELS.get(first[1], "is of an unknown kind")
        raise Refused(f"{what} (its UNet has {first[1]} input channels); choose a plain SD1.5 or SDXL checkpoint")
    width = context_width(shapes)
    if width == _SD15_WIDTH:
        return Family.SD15
    if width == _SD2_WIDTH:
        raise Refused("is a Stable Diffusion 2 model, whose LoRAs and ControlNets fit no other; choose an SD1.5 or SDXL one")
    if width == _REFINER_WIDTH:
        raise Refused("is SDXL's refiner, which only finishes pictures; choose an SDXL base model")
    if width == _EMBEDDED_WIDTH:
        raise Refused("looks like the embedded model's copy for a WebUI; choose the folder models/base-256 instead")
    if f"{UNET}label_emb.0.0.weight" in shapes:
        return Family.SDXL
    raise Refused(f"is of an unknown family (text width {width}); choose an SD1.5 or SDXL checkpoint")


def context_width(shapes: Shapes) -> int | None:
    """How wide the text states are that the cross-attention of a UNet or ControlNet reads; None without cross-attention."""
    end = ".attn2.to_k.weight"
    return next((shape[1] for name, shape in shapes.items() if name.endswith(end) and len(shape) == 2), None)


def _other(shapes: Shapes) -> str:
    names = tuple(name.removeprefix(UNET) for name in shapes)
    for part, what in _ALONE:
        if any(name.startswith(part) for name in names):
            return what
    return "holds no UNet in LDM layout"
