"""Headers that strangers wrote: read, or refused in a sentence, whatever they hold."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyphoto.errors import InputError, NotFound
from easyphoto.families import Family
from easyphoto.store.ldm_family import UNET, VAE, Refused, ldm_family
from easyphoto.store.ldm_header import read_header, under
from easyphoto.store.ldm_sizes import controlnet_sizes, unet_sizes, vae_sizes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries({"dtype": JSON, "shape": JSON, "data_offsets": JSON}) | JSON
NAMES = st.sampled_from([
    "__metadata__", f"{UNET}input_blocks.0.0.weight", f"{UNET}label_emb.0.0.weight", f"{UNET}input_blocks.3.0.op.weight",
    f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", f"{UNET}input_blocks.1.0.out_layers.3.weight",
    f"{VAE}encoder.conv_in.weight", "cond_stage_model.transformer.x", "lora_unet_x.alpha", "input_hint_block.0.weight", "x",
])  # fmt: skip
SIDES = st.lists(st.integers(-2, 2**40), max_size=5).map(tuple)


def file(path: Path, header: bytes, weights: int = 0) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(weights))
    return path


def test_names_shapes_and_metadata_are_read_without_the_weights(tmp_path: Path) -> None:
    entry = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}
    path = file(tmp_path / "a.safetensors", json.dumps({"__metadata__": {"n": 1}, "a.b": entry}).encode(), 12)
    found = read_header(path)
    assert (found.shapes, found.metadata) == ({"a.b": (2, 3)}, {"n": "1"})
    assert under(found.shapes, "a.") == {"b": (2, 3)}
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="5 bytes"):
        read_header(path)
    with pytest.raises(NotFound):
        read_header(tmp_path / "b.safetensors")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(header=st.binary(max_size=64) | st.dictionaries(NAMES, ENTRY, max_size=4).map(lambda value: json.dumps(value).encode()))
def test_any_header_is_read_or_refused(tmp_path: Path, header: bytes) -> None:
    with contextlib.suppress(InputError, Refused):
        ldm_family(read_header(file(tmp_path / "a.safetensors", header)).shapes)


@settings(deadline=None)
@given(shapes=st.dictionaries(NAMES, SIDES, max_size=8), family=st.sampled_from([Family.SD15, Family.SDXL]))
def test_any_shapes_are_a_family_or_refused_and_give_sizes_or_the_errors_that_are_named(
    shapes: dict[str, tuple[int, ...]], family: Family
) -> None:
    with contextlib.suppress(Refused):
        ldm_family(shapes)
    for sizes in (unet_sizes, controlnet_sizes, vae_sizes):
        with contextlib.suppress(ValueError, KeyError, IndexError):
            sizes(under(shapes, UNET) | under(shapes, VAE), family)
