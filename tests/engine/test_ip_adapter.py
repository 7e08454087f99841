"""The ID control on our own engine: found files, a real resampler and a real CLIP in small, and a UNet left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.engine.ip_adapter import AdapterFiles, as_clip_sees, find_adapter
from easyphoto.engine.models import Models, load_models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.errors import Cancelled, InputError, ToolMissing
from easyphoto.families import Family
from easyphoto.records import Condition, ConditionKind, ImagePrompt, InpaintJob
from tests.engine.contract import picture, square_mask
from tests.engine.face_files import write_adapter, write_encoder
from tests.tiny_xl import make_tiny_sdxl

NAMES = {
    Family.SD15: "ip-adapter-plus-face_sd15.safetensors", Family.SDXL: "ip-adapter-plus-face_sdxl_vit-h.safetensors",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tiny_models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of IP-Adapters, as somebody who fetched them has it."""
    folder = tmp_path_factory.mktemp("adapters")
    write_encoder(folder / "image_encoder")
    write_adapter(folder / NAMES[Family.SD15], tiny_models)
    return folder


@pytest.fixture()
def engine(tiny_models: Models, folder: Path) -> Iterator[StandaloneEngine]:
    found = find_adapter(tiny_models.folder, Family.SD15, folder)
    with StandaloneEngine(replace(tiny_models, ip_adapter=found)) as engine:
        yield engine


def job(likeness: ImagePrompt | None = None, guidance: float = 3.0) -> InpaintJob:
    held = Condition(kind=ConditionKind.CANNY, image=picture(64, 5), weight=0.5)
    return InpaintJob(
        image=picture(64), mask=square_mask(64), prompt="a woman", strength=0.8, steps=4, guidance=guidance, conditions=(held,),
        seed=1, likeness=likeness,
    )  # fmt: skip


def prompt(seed: int, weight: float = 0.8) -> ImagePrompt:
    noise = np.random.default_rng(seed).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    return ImagePrompt(image=noise, weight=weight)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_face_decides_the_picture_and_leaves_no_trace_in_the_next(engine: StandaloneEngine, guidance: float) -> None:
    import torch

    before = engine.inpaint(job(guidance=guidance))
    unet = engine.models.unet
    weights = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    processors = dict(unet.attn_processors)
    one, again = (engine.inpaint(job(prompt(0), guidance)) for _ in range(2))
    other, weaker = engine.inpaint(job(prompt(1), guidance)), engine.inpaint(job(prompt(0, 0.1), guidance))
    np.testing.assert_array_equal(one, again)
    assert (one != before).any()
    assert (one != other).any()
    assert (one != weaker).any()
    np.testing.assert_array_equal(engine.inpaint(job(prompt(0, 0.0), guidance)), before)
    np.testing.assert_array_equal(engine.inpaint(job(guidance=guidance)), before)
    assert unet.attn_processors == processors
    assert unet.encoder_hid_proj is None
    assert unet.config.encoder_hid_dim_type is None
    assert weights.keys() == unet.state_dict().keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in unet.state_dict().items())


def test_a_stop_in_the_middle_takes_it_out_too(engine: StandaloneEngine) -> None:
    def stop(done: int, _total: int) -> None:
        raise Cancelled(f"stopped after {done}")

    before = engine.inpaint(job())
    with pytest.raises(Cancelled):
        engine.inpaint(job(prompt(0)), stop)
    np.testing.assert_array_equal(engine.inpaint(job()), before)


def test_a_persons_lora_goes_in_and_out_beside_it(engine: StandaloneEngine, tiny_lora: Path) -> None:
    from easyphoto.records import LoraUse

    before, both = engine.inpaint(job()), replace(job(prompt(0)), loras=(LoraUse(path=tiny_lora),))
    first = engine.inpaint(both)
    assert (first != engine.inpaint(job(prompt(0)))).any()
    np.testing.assert_array_equal(engine.inpaint(both), first)
    np.testing.assert_array_equal(engine.inpaint(job()), before)


def test_it_paints_as_diffusers_own_pipeline_code_is_given_it(engine: StandaloneEngine) -> None:
    """The UNet with diffusers' own loader and its own states for both halves predicts the same noise."""
    import torch
    from safetensors.torch import load_file
    from transformers import CLIPVisionModelWithProjection

    from easyphoto.engine.denoise import predict_noise
    from easyphoto.engine.models import load_models as load

    files = engine.models.ip_adapter
    assert files is not None
    held, latents, time = prompt(3, 0.6), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(300)
    bare = replace(job(), conditions=())
    with torch.inference_mode(), engine._adapter().in_unet(held.weight):
        guide = replace(engine._guide(bare), likeness=engine._adapter().states(held, guided=True))
        ours = predict_noise(engine.models, guide, latents, time)
    unet = load(engine.models.folder, "cpu").unet
    parts: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in load_file(str(files.adapter)).items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    unet._load_ip_adapter_weights([parts])
    for processor in unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.6]
    encoder = CLIPVisionModelWithProjection.from_pretrained(files.encoder)
    face = torch.from_numpy(as_clip_sees(held.image, 16))[None]
    with torch.inference_mode():
        states = torch.cat([encoder(one, output_hidden_states=True).hidden_states[-2] for one in (face * 0, face)])[:, None]
        noise = unet(
            latents.repeat(2, 1, 1, 1), time, encoder_hidden_states=guide.states, added_cond_kwargs={"image_embeds": [states]},
        ).sample  # fmt: skip
    negative, positive = noise.chunk(2)
    torch.testing.assert_close(ours, negative + 3.0 * (positive - negative), rtol=1e-3, atol=1e-4)


def test_the_picture_is_seen_as_clips_own_processor_shows_it() -> None:
    from transformers import CLIPImageProcessor

    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    theirs = CLIPImageProcessor(**sizes)(pixels, return_tensors="np")["pixel_values"][0]
    assert np.abs(as_clip_sees(pixels, 32) - theirs).max() < 0.04


def test_a_full_face_adapter_is_read_too(tiny_models: Models, folder: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "ip-adapter-full-face_sd15.safetensors", tiny_models, full=True)
    found = AdapterFiles(family=Family.SD15, adapter=adapter, encoder=folder / "image_encoder")
    with StandaloneEngine(replace(tiny_models, ip_adapter=found)) as engine:
        assert (engine.inpaint(job(prompt(0))) != engine.inpaint(job())).any()


def test_sdxl_takes_it_beside_its_sizes(folder: Path, tmp_path: Path) -> None:
    models = load_models(make_tiny_sdxl(tmp_path / "xl"), "cpu")
    write_adapter(tmp_path / "more" / NAMES[Family.SDXL], models)
    write_encoder(tmp_path / "more" / "image_encoder")
    found = find_adapter(models.folder, models.family, tmp_path / "more")
    with StandaloneEngine(replace(models, ip_adapter=found)) as engine:
        engine.check_likeness()
        plain = replace(job(), conditions=())
        before, held = engine.inpaint(plain), engine.inpaint(replace(plain, likeness=prompt(0)))
        assert (held != before).any()
        np.testing.assert_array_equal(engine.inpaint(plain), before)


def test_what_is_missing_is_named_with_its_place(tiny_models: Models, folder: Path, tmp_path: Path) -> None:
    base = tiny_models.folder
    with pytest.raises(ToolMissing, match=r"ip-adapter-plus-face_sd15.safetensors.*EASYPHOTO_IPADAPTER_DIR"):
        find_adapter(base, Family.SD15, tmp_path).check()
    (tmp_path / NAMES[Family.SD15]).write_bytes((folder / NAMES[Family.SD15]).read_bytes())
    write_encoder(tmp_path / "bigger", width=32)  # of another CLIP: the adapter could not read it
    with pytest.raises(ToolMissing, match=r"image encoder that belongs to ip-adapter-plus-face_sd15.safetensors"):
        find_adapter(base, Family.SD15, tmp_path).check()
    write_encoder(tmp_path / "clip" / "vit-h")
    assert find_adapter(base, Family.SD15, tmp_path).check()[1] == tmp_path / "clip" / "vit-h"
    assert find_adapter(base, Family.SD15, controlnets=tmp_path).check()[0].parent == tmp_path
    with pytest.raises(ToolMissing, match=r"sdxl_vit-h"):
        find_adapter(base, Family.SDXL, tmp_path).check()
    with pytest.raises(ToolMissing, match="none for the embedded family"):
        find_adapter(base, Family.EMBEDDED, tmp_path).check()
    with pytest.raises(InputError, match="EASYPHOTO_IPADAPTER_DIR"):
        find_adapter(base, Family.SD15, tmp_path / "nowhere")


def test_an_engine_without_files_refuses_before_it_paints(tiny_models: Models) -> None:
    with StandaloneEngine(tiny_models) as engine, pytest.raises(ToolMissing, match="embedded"):
        engine.check_likeness()
    with StandaloneEngine(tiny_models) as engine, pytest.raises(ToolMissing, match="embedded"):
        engine.inpaint(job(prompt(0)))


@pytest.mark.parametrize("damage", ["cut", "foreign", "shape"])
def test_a_broken_adapter_is_told_in_one_sentence_and_the_model_goes_on(
    tiny_models: Models, folder: Path, tmp_path: Path, damage: str
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    adapter, whole = tmp_path / "ip-adapter-plus-face_sd15.safetensors", load_file(str(folder / NAMES[Family.SD15]))
    last = max(name for name in whole if name.endswith("to_v_ip.weight"))
    if damage == "foreign":
        whole["something.else"] = torch.zeros(1)
    elif damage == "shape":
        whole[last] = torch.zeros(3, 3)
    else:
        del whole[last]
    save_file(whole, str(adapter))
    found = AdapterFiles(family=Family.SD15, adapter=adapter, encoder=folder / "image_encoder")
    with StandaloneEngine(replace(tiny_models, ip_adapter=found)) as engine:
        before = engine.inpaint(job())
        with pytest.raises(InputError, match=r"the IP-Adapter .* cannot be loaded"):
            engine.inpaint(job(prompt(0)))
        np.testing.assert_array_equal(engine.inpaint(job()), before)
