"""What kohya calls the modules that a LoRA changes, in each family.

A UNet's modules keep diffusers' blocks (`lora_unet_down_blocks_1_attentions_0_proj_in`), but SDXL's have LDM's
(`lora_unet_input_blocks_4_1_proj_in`), because kohya trains that one in its authors' code. One text encoder is `lora_te`, two
are `lora_te1` and `lora_te2`.
"""

from __future__ import annotations

from collections.abc import Iterable

from easyphoto.families import Family
from easyphoto.store.ldm_layout import unet_names
from easyphoto.store.lora_file import TEXT_PREFIX, UNET_PREFIX, kohya_key


def text_prefix(family: Family, number: int = 0) -> str:
    """The beginning of a text encoder's modules.

    Args:
        family: SDXL has two encoders.
        number: 0 for the first, 1 for the second.
    """
    return f"{TEXT_PREFIX}{number + 1}" if family is Family.SDXL else TEXT_PREFIX


def text_key(name: str, family: Family, number: int = 0) -> str:
    """kohya's name of a text encoder's module, such as `lora_te_text_model_encoder_layers_0_mlp_fc1`."""
    return kohya_key(text_prefix(family, number), name)


def unet_keys(names: Iterable[str], family: Family, layers: int) -> dict[str, str]:
    """kohya's name of each of a UNet's modules.

    Args:
        names: All modules with weights, as diffusers' UNet names them.
        family: Decides whose blocks the names have.
        layers: Residual blocks in each level of the down half.
    """
    own, ldm = other_keys(names, layers)
    return ldm if family is Family.SDXL else own


def other_keys(names: Iterable[str], layers: int) -> tuple[dict[str, str], dict[str, str]]:
    """Each module's LoRA name after diffusers' blocks and after LDM's: files have the one or the other."""
    kept = tuple(names)
    in_ldm = unet_names([f"{name}.weight" for name in kept], layers)
    own = {name: kohya_key(UNET_PREFIX, name) for name in kept}
    ldm = {name: kohya_key(UNET_PREFIX, in_ldm[f"{name}.weight"].removesuffix(".weight")) for name in kept}
    return own, ldm
