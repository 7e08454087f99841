"""The names of a latent diffusion model's parts as CompVis' LDM has them, and with it every WebUI, from diffusers' names.

Both describe the same network (arXiv 2112.10752, section 3); LDM numbers a UNet's blocks through from the first to the last,
diffusers counts within each level. All of this is renaming; where LDM fixes a size that we chose otherwise (32 groups of the
group norms, the widths of a ControlNet's embedding of the map, an attention that we left out), the tensors are filled up with
zeros in such a way that the network computes exactly the same.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Tensors = dict[str, Array]

LDM_GROUPS = 32
"""Groups of every group norm in LDM."""
LDM_CONTROLS = 12
"""Blocks of the down half that a ControlNet of SD1 answers for; the extension counts on this number."""
CONTEXT_KEY = "input_blocks.5.1.transformer_blocks.0.attn2.to_k.weight"
"""Where the ControlNet extension reads the width of the text states."""
LDM_HINT_WIDTHS = (16, 32, 96, 256)
"""Channels of a ControlNet's embedding of the map in LDM."""
_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0", "conv_out": "out.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
_LAST = ("out_layers.3.weight", "out_layers.3.bias")
"""A residual block whose last convolution is zero adds nothing."""
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_CHANGED_ENDS = {"conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut"}


def unet_name(name: str, layers: int, attended: Container[str] = ()) -> str:
    """LDM's name of a parameter of diffusers' UNet (or of the down half, in a ControlNet).

    Args:
        name: Such as `down_blocks.1.attentions.0.proj_in.weight`.
        layers: Residual blocks in each level of the down half.
        attended: Which levels of the up half have attention; upsamplers stand behind it.
    """
    for diffusers, ldm in _UNET_ENDS.items():
        if name.startswith(f"{diffusers}."):
            return ldm + name[len(diffusers) :]
    if match := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.+)", name):
        return f"output_blocks.{int(match[1]) * (layers + 1) + layers}.{2 if match[1] in attended else 1}.conv.{match[2]}"
    block, part, inner = _unet_place(name, layers)
    return f"{block}.{part}.{_resnet_inner(inner) if '.resnets.' in name else inner}"


def _unet_place(name: str, layers: int) -> tuple[str, str, str]:
    """(LDM's block, the layer's place in it, the rest of the name)."""
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name):
        kind, index, inner = match.groups()
        return "middle_block", "1" if kind == "attentions" else str(2 * int(index)), inner
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", name):
        half, level, kind, index, inner = match.groups()
        place = int(level) * (layers + 1) + int(index) + (half == "down")
        return f"{'input' if half == 'down' else 'output'}_blocks.{place}", "1" if kind == "attentions" else "0", inner
    if match := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.+)", name):
        return f"input_blocks.{(int(match[1]) + 1) * (layers + 1)}", "0.op", match[2]
    raise KeyError(name)


def _resnet_inner(inner: str) -> str:
    part, end = inner.rsplit(".", 1)
    return f"{_RESNET[part]}.{end}"


def unet_names(names: Iterable[str], layers: int) -> dict[str, str]:
    """LDM's name of each parameter of a whole UNet."""
    own = tuple(names)
    attended = {match[1] for name in own if (match := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}
    return {name: unet_name(name, layers, attended) for name in own}


def unet_tensors(tensors: Mapping[str, Array], layers: int) -> Tensors:
    """A UNet's parameters under LDM's names."""
    names = unet_names(tensors, layers)
    return {names[name]: tensor for name, tensor in tensors.items()}


def vae_tensors(tensors: Mapping[str, Array], levels: int, groups: int) -> Tensors:
    """An autoencoder's parameters under LDM's names, with `LDM_GROUPS` groups in each norm and an attention in the middle."""
    renamed = {vae_name(name, levels): _vae_shape(name, tensor) for name, tensor in tensors.items()}
    if groups != LDM_GROUPS:
        renamed = {name: _widened(name, tensor, LDM_GROUPS // groups) for name, tensor in renamed.items()}
    for half in ("encoder", "decoder"):
        if f"{half}.mid.attn_1.norm.weight" not in renamed:
            width = renamed[f"{half}.mid.block_1.norm1.weight"].shape[0]
            renamed |= _idle_vae_attention(f"{half}.mid.attn_1", width, renamed[f"{half}.conv_in.weight"].dtype)
    return renamed


def vae_name(name: str, levels: int) -> str:
    """LDM's name of a parameter of diffusers' AutoencoderKL with so many levels."""
    for diffusers, ldm in _CHANGED_ENDS.items():
        name = name.replace(diffusers, ldm)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda found: f"up.{levels - 1 - int(found[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{levels - 1 - int(found[1])}.upsample", name)
    if "mid_block.attentions.0." in name:
        head, inner = name.split("mid_block.attentions.0.")
        part, end = inner.rsplit(".", 1)
        name = f"{head}mid.attn_1.{_VAE_ATTENTION[part]}.{end}"
    return name


def _vae_shape(name: str, tensor: Array) -> Array:
    """LDM has the attention's matrices as 1 x 1 convolutions."""
    return tensor[..., None, None] if ".attentions." in name and tensor.ndim == 2 else tensor


def _widened(name: str, tensor: Array, times: int) -> Array:
    """`times` as many channels inside, the new ones zero throughout; what enters and leaves a half keeps its channels.

    The old channels stay first, so that the first of LDM's groups are exactly the old ones.
    """
    if name.startswith(("quant_conv", "post_quant_conv")):
        return tensor
    factors = [times] * min(tensor.ndim, 2)
    if ".conv_out." in name:
        factors[0] = 1
    if ".conv_in." in name and tensor.ndim > 1:
        factors[1] = 1
    return _filled(tensor, tuple(size * factor for size, factor in zip(tensor.shape, factors)))


def _filled(tensor: Array, sizes: tuple[int, ...]) -> Array:
    """The tensor in the corner of a larger one of zeros; `sizes` are those of its first dimensions."""
    wide = np.zeros((*sizes, *tensor.shape[len(sizes) :]), tensor.dtype)
    wide[tuple(slice(size) for size in tensor.shape)] = tensor
    return wide


def _idle_vae_attention(prefix: str, width: int, kind: np.dtype[Any]) -> Tensors:
    """An attention that adds nothing."""
    made: Tensors = {f"{prefix}.norm.weight": np.ones(width, kind), f"{prefix}.norm.bias": np.zeros(width, kind)}
    for part in ("q", "k", "v", "proj_out"):
        made[f"{prefix}.{part}.weight"] = np.zeros((width, width, 1, 1), kind)
        made[f"{prefix}.{part}.bias"] = np.zeros(width, kind)
    return made


def clip_tensors(tensors: Mapping[str, Array]) -> Tensors:
    """A CLIP text encoder's parameters as transformers named them up to version 4, which is what LDM has."""
    named = {name if name.startswith("text_model.") else f"text_model.{name}": tensor for name, tensor in tensors.items()}
    tokens = named["text_model.embeddings.position_embedding.weight"].shape[0]
    named.setdefault("text_model.embeddings.position_ids", np.arange(tokens, dtype=np.int64)[None])
    return named


def controlnet_tensors(tensors: Mapping[str, Array], layers: int, context: int, extension: bool = True) -> Tensors:
    """A ControlNet's parameters under the names of its authors (arXiv 2302.05543), with the attentions that their code expects.

    Args:
        tensors: A diffusers ControlNetModel.
        layers: Residual blocks in each level.
        context: Width of the text states.
        extension: For the ControlNet extension, which takes SD1's number of blocks for granted; Forge counts them in the file.
    """
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        hint = name.startswith("controlnet_cond_embedding.")
        renamed[controlnet_name(name, layers)] = _filled(tensor, _hint_sizes(name, tensor)) if hint else tensor
    _complete_controlnet(renamed, context)
    return _moved_back(renamed, context) if extension else renamed


def controlnet_name(name: str, layers: int) -> str:
    """LDM's name of a parameter of diffusers' ControlNetModel."""
    if match := re.match(r"controlnet_cond_embedding\.(conv_in|conv_out|blocks\.(\d+))\.(.+)", name):
        place = {"conv_in": 0, "conv_out": 14}.get(match[1]) if match[2] is None else 2 * (int(match[2]) + 1)
        return f"input_hint_block.{place}.{match[3]}"
    if name.startswith("controlnet_down_blocks."):
        return re.sub(r"controlnet_down_blocks\.(\d+)", r"zero_convs.\1.0", name)
    if name.startswith("controlnet_mid_block."):
        return name.replace("controlnet_mid_block", "middle_block_out.0")
    return unet_name(name, layers)


def _hint_sizes(name: str, tensor: Array) -> tuple[int, ...]:
    """The sizes that a layer of the map's embedding has in LDM; zero channels stay zero through all layers."""
    narrow, wide, broad, full = LDM_HINT_WIDTHS
    inner = [(narrow, narrow), (wide, narrow), (wide, wide), (broad, wide), (broad, broad), (full, broad)]
    part = name.removeprefix("controlnet_cond_embedding.").rsplit(".", 1)[0]
    if part == "conv_in":
        sizes = (narrow, tensor.shape[-3] if tensor.ndim == 4 else 0)
    elif part == "conv_out":
        sizes = (tensor.shape[0], full)
    else:
        sizes = inner[int(part.split(".")[1])]
    return sizes[: min(tensor.ndim, 2)]


def _complete_controlnet(tensors: Tensors, context: int) -> None:
    """Add what their code always has: attention and second residual block in the middle, attention in the last level.

    Each adds zero to what passes through, so nothing changes.
    """
    kind = tensors["middle_block.0.in_layers.0.weight"].dtype
    width = tensors["middle_block.0.in_layers.0.weight"].shape[0]
    if "middle_block.1.norm.weight" not in tensors:
        tensors |= _idle_transformer("middle_block.1", width, context, kind)
    if "middle_block.2.in_layers.0.weight" not in tensors:
        first = {name: tensor for name, tensor in tensors.items() if name.startswith("middle_block.0.")}
        for name, tensor in first.items():
            inner = name.removeprefix("middle_block.0.")
            tensors[f"middle_block.2.{inner}"] = np.zeros_like(tensor) if inner in _LAST else tensor
    block = max(int(name.split(".")[1]) for name in tensors if name.startswith("input_blocks."))
    if f"input_blocks.{block}.1.norm.weight" not in tensors:
        tensors |= _idle_transformer(f"input_blocks.{block}.1", width, context, kind)


def _moved_back(tensors: Tensors, context: int) -> Tensors:
    """The same ControlNet with `LDM_CONTROLS` blocks: idle ones behind the first, so that the real ones answer last.

    The extension takes the answers from the last to the first, as the up half of the UNet needs them, and takes no more of
    them than the UNet has blocks.
    """
    more = LDM_CONTROLS - sum(name.startswith("zero_convs.") and name.endswith(".weight") for name in tensors)
    if more <= 0:
        return tensors
    moved: Tensors = {}
    for name, tensor in tensors.items():
        head, *rest = name.split(".")
        if head == "zero_convs" or (head == "input_blocks" and rest[0] != "0"):
            rest[0] = str(int(rest[0]) + more)
        moved[".".join((head, *rest))] = tensor
    start = "input_blocks.1.0."
    first = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    for block in range(more):
        for end in ("weight", "bias"):
            moved[f"zero_convs.{block}.0.{end}"] = np.zeros_like(tensors[f"zero_convs.0.0.{end}"])
        for inner, tensor in first.items():
            moved[f"input_blocks.{block + 1}.0.{inner}"] = np.zeros_like(tensor) if inner in _LAST else tensor
    # The extension reads the width of the text states here, whether or not there is such an attention.
    moved.setdefault(CONTEXT_KEY, np.zeros((1, context), first["in_layers.0.weight"].dtype))
    return moved


def _idle_transformer(prefix: str, width: int, context: int, kind: np.dtype[Any]) -> Tensors:
    """A spatial transformer whose last projection is zero."""

    def ones(*shape: int) -> Array:
        return np.ones(shape, kind)

    def zeros(*shape: int) -> Array:
        return np.zeros(shape, kind)

    made = {f"{prefix}.norm.weight": ones(width), f"{prefix}.norm.bias": zeros(width)}
    for part in ("proj_in", "proj_out"):
        made |= {f"{prefix}.{part}.weight": zeros(width, width, 1, 1), f"{prefix}.{part}.bias": zeros(width)}
    inner = f"{prefix}.transformer_blocks.0"
    for number in (1, 2, 3):
        made |= {f"{inner}.norm{number}.weight": ones(width), f"{inner}.norm{number}.bias": zeros(width)}
    for part, seen in (("attn1", width), ("attn2", context)):
        made |= {f"{inner}.{part}.to_q.weight": zeros(width, width), f"{inner}.{part}.to_k.weight": zeros(width, seen)}
        made |= {f"{inner}.{part}.to_v.weight": zeros(width, seen)}
        made |= {f"{inner}.{part}.to_out.0.weight": zeros(width, width), f"{inner}.{part}.to_out.0.bias": zeros(width)}
    made |= {f"{inner}.ff.net.0.proj.weight": zeros(8 * width, width), f"{inner}.ff.net.0.proj.bias": zeros(8 * width)}
    return made | {f"{inner}.ff.net.2.weight": zeros(width, 4 * width), f"{inner}.ff.net.2.bias": zeros(width)}


def lora_name(module: str, layers: int) -> str:
    """A LoRA module under the name that follows from LDM's blocks.

    The WebUI translates diffusers' names itself, but only for SD's two residual blocks a level; it takes LDM's as they are.
    """
    match = re.match(r"lora_unet_(down|up)_blocks_(\d+)_attentions_(\d+)_(.+)", module)
    if match:
        half, level, index, inner = match.groups()
        place = int(level) * (layers + 1) + int(index) + (half == "down")
        return f"lora_unet_{'input' if half == 'down' else 'output'}_blocks_{place}_1_{inner}"
    return re.sub(r"^lora_unet_mid_block_attentions_0_", "lora_unet_middle_block_1_", module)
