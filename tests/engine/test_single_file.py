"""Checkpoints that are one file: told by their header, loaded weight for weight, used like the folder they were made of."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easyphoto.engine.detect import detect_family
from easyphoto.engine.models import Models, load_models
from easyphoto.engine.standalone import StandaloneEngine
from easyphoto.engine.vocabulary import find_vocabulary
from easyphoto.errors import EasyPhotoError, InputError, NotFound, ToolMissing
from easyphoto.families import Family
from easyphoto.records import Condition, ConditionKind, TextJob
from easyphoto.settings import Settings
from tests.engine.contract import picture
from tests.engine.ldm_files import controlnet_tensors, ldm_tensors, make_sd15, make_sdxl, weights, write, write_header

MAKERS = {Family.SD15: make_sd15, Family.SDXL: make_sdxl}
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module", params=list(MAKERS), ids=lambda family: family.value)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS[request.param](tmp_path_factory.mktemp("single") / request.param.value)


@pytest.fixture(scope="module")
def single(folder: Path) -> Path:
    """Where a WebUI has it."""
    return write(folder.parent / "models" / "Stable-diffusion" / "own" / f"{folder.name}.safetensors", ldm_tensors(folder))


@pytest.fixture()
def settings(folder: Path) -> Settings:
    return replace(Settings.from_env({}), tokenizer=folder / "tokenizer")


def load(path: Path, settings: Settings) -> Models:
    return load_models(path, "cpu", settings=settings)


def networks(models: Models) -> dict[str, Any]:
    return {name: network for name in NETWORKS if (network := getattr(models, name)) is not None}


def test_the_file_is_the_folder_weight_for_weight(folder: Path, single: Path, settings: Settings) -> None:
    import torch

    ours, theirs = load(single, settings), load(folder, settings)
    assert ours.family is theirs.family is detect_family(single)
    assert ours.name == folder.name
    assert networks(ours).keys() == networks(theirs).keys()
    for name, network in networks(theirs).items():
        own = getattr(ours, name).state_dict()
        assert own.keys() == network.state_dict().keys()
        assert all(torch.equal(own[key], tensor) for key, tensor in network.state_dict().items()), name
        assert not any(parameter.requires_grad for parameter in getattr(ours, name).parameters())
    assert ours.vae.config.scaling_factor == theirs.vae.config.scaling_factor


def test_diffusers_own_reader_finds_the_same_weights(folder: Path, single: Path, settings: Settings) -> None:
    import torch
    from diffusers.loaders import single_file_utils as reader
    from safetensors.torch import load_file

    ours = load(single, settings)
    theirs = {
        "unet": reader.convert_ldm_unet_checkpoint(load_file(single), dict(ours.unet.config)),
        "vae": reader.convert_ldm_vae_checkpoint(load_file(single), dict(ours.vae.config)),
    }
    if ours.text_encoder_2 is not None:
        prefix = "conditioner.embedders.1.model."
        theirs["text_encoder_2"] = reader.convert_open_clip_checkpoint(ours.text_encoder_2, load_file(single), prefix)
        theirs["text_encoder_2"].pop("text_model.embeddings.position_ids", None)
    for name, state in theirs.items():
        own = getattr(ours, name).state_dict()
        assert set(own) == set(state), name
        for key, tensor in own.items():
            assert torch.equal(tensor.flatten(), state[key].flatten()), key


def test_it_paints_what_the_folder_paints(folder: Path, single: Path, settings: Settings) -> None:
    job = TextJob(width=64, height=64, prompt="a woman", negative="blurry", steps=2, guidance=3.0)
    with StandaloneEngine(load(single, settings)) as one, StandaloneEngine(load(folder, settings)) as other:
        assert one.name == single.stem
        assert (one.text(job) == other.text(job)).all()


def test_a_webuis_controlnets_are_found_by_name_and_paint_the_same(folder: Path, single: Path, settings: Settings) -> None:
    nets = single.parents[2] / "ControlNet"
    names = {"sd15": ("control_v11p_sd15_canny", "control_v11f1e_sd15_tile"), "sdxl": ("diffusers_xl_canny_mid", "tile_xl")}
    canny, tile = names[folder.name]
    write(nets / f"{canny}.safetensors", {f"control_model.{name}": tensor for name, tensor in
                                          controlnet_tensors(folder / "controlnet" / "canny").items()})  # fmt: skip
    write(nets / f"{tile}.safetensors", weights(folder / "controlnet" / "tile"))
    write(nets / f"{names[folder.name][0]}_lora.safetensors", {"lora_controlnet": np.zeros(1, np.float32)})
    shutil.copytree(folder / "controlnet" / "openpose", nets / f"openpose_{folder.name}", dirs_exist_ok=True)
    models = load(single, settings)
    found = {kind.value: path.name for kind, path in models.controlnets.items()}
    assert found == {"canny": f"{canny}.safetensors", "tile": f"{tile}.safetensors", "openpose": f"openpose_{folder.name}"}
    maps = tuple(Condition(kind=kind, image=picture(64), weight=0.7) for kind in sorted(models.conditions))
    job = TextJob(width=64, height=64, prompt="a woman", steps=2, guidance=3.0, conditions=maps)
    with StandaloneEngine(models) as one, StandaloneEngine(load(folder, settings)) as other:
        drawn = one.text(job)
        assert (drawn == other.text(job)).all()
        assert (drawn != one.text(replace(job, conditions=()))).any()


def test_diffusers_own_reader_finds_the_same_controlnet(folder: Path, tmp_path: Path, settings: Settings) -> None:
    import torch
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
    from safetensors.torch import load_file

    path = write(tmp_path / f"control_{folder.name}_canny.safetensors", controlnet_tensors(folder / "controlnet" / "canny"))
    copy = tmp_path / "base"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("controlnet"))
    models = load(copy, replace(settings, controlnets=tmp_path))
    ours = models.controlnet(ConditionKind.CANNY)
    theirs = convert_controlnet_checkpoint(load_file(path), dict(ours.config))
    # diffusers' reader knows all but what SDXL is told of sizes.
    own = {name: tensor for name, tensor in ours.state_dict().items() if not name.startswith("add_embedding.")}
    assert set(theirs) == set(own)
    assert all(torch.equal(theirs[name], tensor) for name, tensor in own.items())


def test_a_controlnet_of_another_family_is_left_lying(tmp_path: Path) -> None:
    from easyphoto.engine.controlnets import find_controlnets

    sd15 = make_sd15(tmp_path / "sd15")
    write(tmp_path / "nets" / "control_xl_canny.safetensors", weights(sd15 / "controlnet" / "canny"))
    write(tmp_path / "nets" / "control_sd15_tile.safetensors", weights(sd15 / "controlnet" / "tile"))
    assert find_controlnets(tmp_path / "a.safetensors", Family.SDXL, tmp_path / "nets") == {}
    assert set(find_controlnets(tmp_path / "a.safetensors", Family.SD15, tmp_path / "nets")) == {ConditionKind.TILE}
    with pytest.raises(InputError, match="EASYPHOTO_CONTROLNET_DIR"):
        find_controlnets(tmp_path / "a.safetensors", Family.SD15, tmp_path / "nowhere")


def test_a_missing_controlnet_says_where_to_put_one(single: Path, settings: Settings) -> None:
    models = load(single, settings)
    with pytest.raises(ToolMissing, match="EASYPHOTO_CONTROLNET_DIR"):
        models.controlnet(ConditionKind.COLOR)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"width": 1024}, "Stable Diffusion 2"), ({"width": 1280}, "SDXL's refiner"), ({"width": 512}, "unknown family"),
        ({"width": 256}, "models/base-256"),
        ({"channels": 9}, "for inpainting only .*9 input channels"), ({"channels": 8}, "edits pictures by instructions"),
        ({"without": "first_stage_model."}, "no autoencoder inside"),
        ({"without": "cond_stage_model."}, "no text encoder inside"),
        ({"without": "model.diffusion_model."}, "holds an autoencoder alone"),
    ],
)  # fmt: skip
def test_other_checkpoints_are_refused_with_the_reason(tmp_path: Path, shapes: dict, words: str) -> None:
    width, channels = shapes.get("width", 768), shapes.get("channels", 4)
    whole = {
        "model.diffusion_model.input_blocks.0.0.weight": (320, channels, 3, 3),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, width),
        "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3), "cond_stage_model.transformer.final": (3,),
    }
    kept = {name: shape for name, shape in whole.items() if not name.startswith(shapes.get("without", "-"))}
    with pytest.raises(InputError, match=words):
        detect_family(write_header(tmp_path / "a.safetensors", kept))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lora_unet_mid_block_attentions_0_proj_in.alpha", "is a LoRA"),
        ("control_model.zero_convs.0.0.weight", "is a ControlNet"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "FLUX"), ("double_blocks.0.img_attn.qkv.weight", "FLUX"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "Stable Diffusion 3"),
        ("down_blocks.0.resnets.0.conv1.weight", "one network alone"), ("emb_params", "textual inversion"), ("a", "no UNet"),
    ],
)  # fmt: skip
def test_files_that_are_no_checkpoints_are_named_for_what_they_are(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        detect_family(write_header(tmp_path / "a.safetensors", {name: (4, 4)}))


@pytest.mark.parametrize(
    "damage",
    [b"", b"x", b"\xff" * 64, b"\x08" + bytes(7) + b"{}      ", b"\x02" + bytes(7) + b"[]", b"\x0a" + bytes(7) + b"[" * 10],
)
def test_damaged_files_are_refused_in_a_sentence(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(damage)
    with pytest.raises(InputError, match=r"broken\.safetensors"):
        detect_family(path)


def test_a_file_that_is_cut_off_is_told_by_its_header(single: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(single.read_bytes()[:-100])
    with pytest.raises(InputError, match="100 bytes of its weights are missing"):
        detect_family(path)


def test_a_missing_weight_is_never_filled_with_noise(folder: Path, tmp_path: Path, settings: Settings) -> None:
    tensors = ldm_tensors(folder)
    tensors.pop("model.diffusion_model.middle_block.0.in_layers.2.weight")
    with pytest.raises(InputError, match="1 weights are missing, mid_block"):
        load(write(tmp_path / "a.safetensors", tensors), settings)


def test_files_of_the_oldest_layout_and_of_half_precision_load(folder: Path, tmp_path: Path, settings: Settings) -> None:
    """Without the level `text_model`, and with the positions that half precision broke, as old merges have them."""
    import torch

    tensors = {name.replace("transformer.text_model.", "transformer."): tensor.astype(np.float16)
               for name, tensor in ldm_tensors(folder).items()}  # fmt: skip
    models = load(write(tmp_path / "old.safetensors", tensors), settings)
    plain = load(folder, settings)
    for name, network in networks(models).items():
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
        for key, tensor in getattr(plain, name).state_dict().items():
            assert torch.equal(network.state_dict()[key], tensor.half().float()), key


def test_a_ckpt_of_weights_alone_loads(folder: Path, single: Path, tmp_path: Path, settings: Settings) -> None:
    import torch
    from safetensors.torch import load_file

    tensors = load_file(single)
    torch.save({"state_dict": tensors, "global_step": 840000}, tmp_path / "new.ckpt")
    torch.save(tensors, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    wanted = load(folder, settings).unet.state_dict()
    for path in (tmp_path / "new.ckpt", tmp_path / "old.ckpt"):
        assert detect_family(path).value == folder.name
        unet = load(path, settings).unet.state_dict()
        assert all(torch.equal(unet[name], tensor) for name, tensor in wanted.items())


class Intruder:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("intruded"),)


def test_a_ckpt_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "callbacks": Intruder()}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="could run code"):
        detect_family(tmp_path / "a.ckpt")
    assert not Path("intruded").exists()


@pytest.mark.parametrize("data", [b"", b"x", b"PK\x03\x04 no zip at all", b"\x80\x02}q\x00."])
def test_a_broken_ckpt_is_refused_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "broken.ckpt").write_bytes(data)
    with pytest.raises(InputError, match=r"broken\.ckpt"):
        detect_family(tmp_path / "broken.ckpt")


def test_other_files_and_missing_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam")
    with pytest.raises(InputError, match=r"letter\.txt is no checkpoint"):
        detect_family(tmp_path / "letter.txt")
    with pytest.raises(NotFound, match=r"gone\.safetensors"):
        detect_family(tmp_path / "gone.safetensors")


def test_a_file_can_say_that_it_predicts_velocities(folder: Path, tmp_path: Path, settings: Settings) -> None:
    tensors = ldm_tensors(folder)
    marked = write(tmp_path / "a.safetensors", tensors | {"v_pred": np.zeros(0, np.float32), "ztsnr": np.zeros(0, np.float32)})
    told = write(tmp_path / "b.safetensors", tensors, **{"modelspec.prediction_type": "v"})
    schedules = [load(path, settings).scheduler_config for path in (marked, told, write(tmp_path / "c.safetensors", tensors))]
    assert [schedule["prediction_type"] for schedule in schedules] == ["v_prediction", "v_prediction", "epsilon"]
    assert [schedule["rescale_betas_zero_snr"] for schedule in schedules] == [True, False, False]


def test_without_clips_vocabulary_a_file_says_how_to_get_it(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import easyphoto.engine.vocabulary as room

    monkeypatch.setattr(room, "_PACKAGES", ("no_such_package",))
    with pytest.raises(ToolMissing, match="pip install --no-deps open-clip-torch"):
        load(single, Settings.from_env({}))


def test_a_tokenizer_of_more_words_than_the_model_knows_is_refused(single: Path) -> None:
    try:
        find_vocabulary()
    except ToolMissing:
        pytest.skip("CLIP's vocabulary is not installed")
    with pytest.raises(EasyPhotoError, match="knows 514 words, the tokenizer has 49408"):
        load(single, Settings.from_env({}))


def test_files_in_other_precisions_load(folder: Path, single: Path, tmp_path: Path, settings: Settings) -> None:
    """bfloat16 and eight bits, as some checkpoints are shared to save room."""
    import torch
    from safetensors.torch import load_file, save_file

    wanted = load(folder, settings).unet.state_dict()
    for kind in (torch.bfloat16, torch.float8_e4m3fn):
        save_file({name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in
                   load_file(single).items()}, tmp_path / "a.safetensors")  # fmt: skip
        unet = load(tmp_path / "a.safetensors", settings).unet.state_dict()
        assert all(torch.equal(unet[name], tensor.to(kind).float()) for name, tensor in wanted.items())


def test_a_folder_in_parts_and_its_half_precision_variant_load(folder: Path, tmp_path: Path, settings: Settings) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    whole = load_file(next((folder / "unet").glob("*.safetensors")))
    half, names = tmp_path / "half", sorted(whole)
    parts = tmp_path / "parts"
    for copy in (half, parts):
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("controlnet"))
        next((copy / "unet").glob("*.safetensors")).unlink()
    rounded = {name: tensor.half() for name, tensor in whole.items()}
    save_file(rounded, half / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    for number, some in enumerate((names[::2], names[1::2]), start=1):
        part = parts / "unet" / f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({name: whole[name] for name in some}, part)
    for copy, wanted in ((half, rounded), (parts, whole)):
        unet = load(copy, settings).unet.state_dict()
        assert all(torch.equal(unet[name], tensor.float()) for name, tensor in wanted.items())
    part.unlink()
    with pytest.raises(InputError, match="weights are missing"):
        load(parts, settings)
