"""A checkpoint of one's own on the command line: named, examined, and found wanting in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from easyphoto.cli.main import main, parser
from easyphoto.settings import Settings
from tests.engine.ldm_files import controlnet_tensors, ldm_tensors, make_sd15, write, write_header


@pytest.fixture()
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a WebUI has it, with two of its ControlNets."""
    folder = make_sd15(tmp_path / "sd15")
    for kind in ("canny", "tile"):
        tensors = controlnet_tensors(folder / "controlnet" / kind)
        write(tmp_path / "models" / "ControlNet" / f"control_v11p_sd15_{kind}.safetensors", tensors)
    monkeypatch.setenv("EASYPHOTO_TOKENIZER", str(folder / "tokenizer"))
    return write(tmp_path / "models" / "Stable-diffusion" / "own.safetensors", ldm_tensors(folder))


def test_both_names_of_the_option_mean_the_same() -> None:
    for name in ("--checkpoint", "--base-model"):
        assert parser().parse_args(["doctor", name, "a.safetensors"]).base_model == Path("a.safetensors")


def test_the_doctor_says_what_a_checkpoint_is_and_which_controlnets_go_with_it(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", "--json", "--home", str(tmp_path / "home"), "--checkpoint", str(checkpoint)])
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["base model"]["found"] == f"{checkpoint} (sd15)"
    assert findings["CLIP's vocabulary"]["ok"]
    assert (findings["ControlNets"]["ok"], findings["ControlNets"]["found"]) == (False, "canny, tile")
    assert "openpose, color missing" in findings["ControlNets"]["remedy"]
    assert "EASYPHOTO_CONTROLNET_DIR" in findings["ControlNets"]["remedy"]


def test_another_checkpoint_is_refused_before_anything_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
    }
    path = write_header(tmp_path / "v2-1.safetensors", shapes)
    status = main(["train", str(tmp_path), "--person", "Ada", "--home", str(tmp_path / "home"), "--checkpoint", str(path)])
    assert status == 2
    assert "Stable Diffusion 2" in capsys.readouterr().err


def test_the_environment_names_controlnets_and_words(tmp_path: Path) -> None:
    settings = Settings.from_env({"EASYPHOTO_CONTROLNET_DIR": str(tmp_path), "EASYPHOTO_TOKENIZER": "~/words"})
    assert settings.controlnets == tmp_path
    assert settings.tokenizer == Path.home() / "words"
    assert Settings.from_env({}).controlnets is None
