"""The names of SDXL's second text encoder as OpenCLIP has them, from transformers' names."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WHOLE = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
}  # fmt: skip
_INNER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
_THIRDS = {"q_proj": 0, "k_proj": 1, "v_proj": 2}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a parameter's values lie."""

    key: str
    third: int | None = None
    """Which third of the tensor's rows; OpenCLIP has query, key and value in one."""
    transposed: bool = False


def open_clip_origin(name: str) -> Origin:
    """Where OpenCLIP has a parameter of transformers' CLIPTextModelWithProjection.

    Raises:
        KeyError: It has no such parameter.
    """
    if name == "text_projection.weight":
        return Origin(key="text_projection", transposed=True)
    name = name.removeprefix("text_model.")
    if name in _WHOLE:
        return Origin(key=_WHOLE[name])
    match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if match is None:
        raise KeyError(name)
    number, inner, end = match.groups()
    block = f"transformer.resblocks.{number}"
    if inner in _INNER:
        return Origin(key=f"{block}.{_INNER[inner]}.{end}")
    return Origin(key=f"{block}.attn.in_proj_{end}", third=_THIRDS[inner.removeprefix("self_attn.")])
