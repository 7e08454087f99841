"""SD1.5 and SDXL at their true size, by names and shapes alone; real weights of that size are too large for a test."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from easyphoto.engine.detect import detect_family
from easyphoto.engine.lora_patch import lora_layers
from easyphoto.engine.models import Models
from easyphoto.families import Family
from easyphoto.store.ldm_layout import controlnet_name, unet_names
from easyphoto.store.ldm_open_clip import open_clip_origin
from easyphoto.store.ldm_sizes import clip_sizes, controlnet_sizes, open_clip_sizes, unet_sizes
from tests.engine.ldm_files import write_header
from tests.engine.whole import FIRST, SECOND, whole_models

KOHYAS = re.compile(r"transformer_blocks|_proj_in$|_proj_out$|self_attn|_mlp_fc")
"""What kohya's `networks.lora` changes: all in the UNet's Transformer2DModels, attention and MLP of the text encoders."""


@pytest.fixture(scope="module", params=[Family.SD15, Family.SDXL], ids=lambda family: family.value)
def whole(request: pytest.FixtureRequest) -> Models:
    return whole_models(request.param)


def ldm_shapes(models: Models) -> dict[str, tuple[int, ...]]:
    unet = {name: tuple(tensor.shape) for name, tensor in models.unet.state_dict().items()}
    names = unet_names(unet, 2)
    return {names[name]: shape for name, shape in unet.items()}


def test_sizes_are_read_off_the_shapes(whole: Models) -> None:
    pooled = SECOND["projection_dim"] if whole.family is Family.SDXL else 0
    sizes = unet_sizes(ldm_shapes(whole), whole.family, pooled)
    published = dict(whole.unet.config)
    for name, value in sizes.items():
        wanted = published[name]
        if name == "transformer_layers_per_block" and isinstance(wanted, int):
            wanted = (wanted,) * len(sizes["block_out_channels"])
        assert value == (tuple(wanted) if isinstance(wanted, list) else wanted), name


def test_text_encoders_sizes_are_read_off_the_shapes() -> None:
    models = whole_models(Family.SDXL)
    first = {name: tuple(tensor.shape) for name, tensor in models.text_encoder.state_dict().items()}
    assert {name: clip_sizes(first)[name] for name in FIRST} == FIRST
    second: dict[str, tuple[int, ...]] = {}
    for name, tensor in models.text_encoder_2.state_dict().items():
        origin = open_clip_origin(name)
        shape = tuple(tensor.shape)
        second[origin.key] = (3 * shape[0], *shape[1:]) if origin.third is not None else shape
    assert {name: open_clip_sizes(second)[name] for name in SECOND} == SECOND


def test_a_whole_checkpoint_is_told_by_its_header(whole: Models, tmp_path: Path) -> None:
    """The file says that it has gigabytes and has them, as holes."""
    shapes = {f"model.diffusion_model.{name}": shape for name, shape in ldm_shapes(whole).items()}
    encoders = {Family.SD15: ("cond_stage_model.transformer.",), Family.SDXL: ("conditioner.embedders.0.transformer.",
                                                                              "conditioner.embedders.1.model.")}  # fmt: skip
    shapes |= {f"{prefix}x": (1,) for prefix in (*encoders[whole.family], "first_stage_model.")}
    path = write_header(tmp_path / "whole.safetensors", shapes)
    assert path.stat().st_size > 1.7e9
    assert path.stat().st_blocks * 512 < 5e6
    assert detect_family(path) is whole.family


NETS = {
    "whole": {},
    "without attention": {"down_block_types": "DownBlock2D", "mid_block_type": "UNetMidBlock2D"},
    "narrow embedding of the map": {"conditioning_embedding_out_channels": (8, 16, 32, 64)},
}


@pytest.mark.parametrize("kind", list(NETS))
def test_a_controlnets_sizes_are_read_off_the_shapes(whole: Models, kind: str) -> None:
    """By the names that its authors gave it, and by diffusers'; SDXL's small ones have no attention."""
    import torch
    from diffusers import ControlNetModel

    changes: dict[str, Any] = dict(NETS[kind])
    if "down_block_types" in changes:
        changes["down_block_types"] = (changes["down_block_types"],) * len(whole.unet.config.block_out_channels)
    taken = {"block_out_channels", "layers_per_block", "attention_head_dim", "cross_attention_dim", "down_block_types",
             "transformer_layers_per_block", "use_linear_projection", "addition_embed_type", "addition_time_embed_dim",
             "projection_class_embeddings_input_dim"}  # fmt: skip
    with torch.device("meta"):
        net = ControlNetModel(**{name: whole.unet.config[name] for name in taken} | changes)
    shapes = {controlnet_name(name, 2): tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    pooled = SECOND["projection_dim"] if whole.family is Family.SDXL else 0
    with torch.device("meta"):
        made = ControlNetModel(**controlnet_sizes(shapes, whole.family, pooled))
    assert {name: tensor.shape for name, tensor in made.state_dict().items()} == {
        name: tensor.shape for name, tensor in net.state_dict().items()
    }
    assert made.config.attention_head_dim == whole.unet.config.attention_head_dim
    assert made.config.addition_time_embed_dim == net.config.addition_time_embed_dim


def test_kohyas_modules_are_all_there_by_name_and_number(whole: Models) -> None:
    names = [name for name in lora_layers(whole) if KOHYAS.search(name)]
    parts = Counter(name.split("_text_model")[0] if name.startswith("lora_te") else "lora_unet" for name in names)
    wanted = {"lora_unet": 192, "lora_te": 72} if whole.family is Family.SD15 else {
        "lora_unet": 722, "lora_te1": 72, "lora_te2": 192}  # fmt: skip
    assert parts == wanted


def test_diffusers_finds_each_module_by_our_name(whole: Models) -> None:
    """diffusers' own reader of kohya's files turns every name of ours back into the module it stands for."""
    import torch
    from diffusers.loaders import lora_conversion_utils as reader

    state: dict[str, Any] = {}
    for name in lora_layers(whole):
        if KOHYAS.search(name):
            state[f"{name}.lora_down.weight"] = torch.zeros(4, 1)
            state[f"{name}.lora_up.weight"] = torch.zeros(1, 4)
            state[f"{name}.alpha"] = torch.tensor(2.0)
    if whole.family is Family.SDXL:
        state = reader._maybe_map_sgm_blocks_to_diffusers(state, whole.unet.config)
    found, _ = reader._convert_non_diffusers_lora_to_diffusers(state)
    modules = {name for name, _ in whole.unet.named_modules()}
    unet = {key.removeprefix("unet.").rsplit(".lora", 1)[0] for key in found if key.startswith("unet.")}
    plain = {re.sub(r"\.processor\.(to_\w+)_lora.*", r".\1", name).replace(".to_out", ".to_out.0") for name in unet}
    plain = {re.sub(r"\.to_out\.0(\.0)*$", ".to_out.0", name) for name in plain}
    assert len(plain) == sum(name.startswith("lora_unet") for name in lora_layers(whole) if KOHYAS.search(name))
    assert plain <= modules, sorted(plain - modules)[:5]
