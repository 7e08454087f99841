"""Scenes on the command line: trained by a real worker on a tiny base model, listed, found, renamed, deleted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from easyphoto.cli.main import main
from easyphoto.imaging.io import save_png
from easyphoto.store.lora_file import read_lora
from tests.tiny import make_tiny_base

FEW = ("--max-steps", "2", "--rank", "2", "--alpha", "1", "--size", "64", "--batch-size", "1", "--no-validation")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(words)
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    made.mkdir()
    for number in range(3):
        coarse = np.random.default_rng(number).integers(0, 256, (12, 20, 3), dtype=np.uint8)
        save_png(made / f"{number}.png", np.kron(coarse, np.ones((8, 8, 1), np.uint8)))
    return made


def test_from_photos_with_captions_to_a_scene_and_away_again(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    base = make_tiny_base(tmp_path / "base")
    there = ("--home", str(tmp_path / "home"))
    (folder / "1.txt").write_text("two boats", encoding="utf-8")
    model = ("--base-model", str(base), "--device", "cpu")
    train = ("train", str(folder), "--kind", "scene", "--name", "Harbour", *model, *FEW, *there)
    status, _, err = run(capsys, *train)
    assert status != 0
    assert "0.png, 2.png has no caption" in err
    status, out, err = run(capsys, *train, "--prompt", "a harbour")
    assert status == 0, err
    assert "in a portrait's prompt: a harbour, special_scene, scene, <lora:Harbour:0.8>" in out
    [scene] = json.loads(run(capsys, "scenes", "list", "--json", *there)[1])
    assert (scene["name"], scene["kind"], scene["photos"]) == ("Harbour", "scene", 3)
    metadata = read_lora(Path(scene["lora"])).metadata
    assert metadata["ep_prompt"] == "['a harbour, special_scene, scene', 'two boats', 'a harbour, special_scene, scene']"
    assert "two boats, <lora:Harbour:0.8>" in run(capsys, "scenes", "show", scene["lora"], *there)[1]
    assert run(capsys, *train, "--prompt", "a harbour")[0] != 0, "it is there already"
    assert "nobody yet" in run(capsys, "people", "list", *there)[1]
    assert "scenes/" in run(capsys, "audit", "--name", "harbour", "--kind", "scene", *there)[1]
    assert run(capsys, "scenes", "rename", "Harbour", "Quay", *there)[0] == 0
    assert "Quay.safetensors" in run(capsys, "scenes", "show", "Quay", *there)[1]
    assert run(capsys, "scenes", "show", "Quay", "--kind", "cloth", *there)[0] == 3
    status, out, _ = run(capsys, "scenes", "delete", "Quay", "--results", *there)
    assert (status, "Quay.safetensors" in out) == (0, True)
    assert "no scene yet" in run(capsys, "scenes", "list", *there)[1]
    assert "nothing of anybody" in run(capsys, "audit", *there)[1]


def test_pictures_are_judged_alone_and_a_prompt_is_for_scenes(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    there = ("--home", str(tmp_path / "home"))
    cloth = ("train", str(folder), "--kind", "cloth", "--name", "Coat", "--check-only", "--size", "64")
    status, out, _ = run(capsys, *cloth, *there)
    assert status == 0
    assert out.count("A good picture") == 3
    status, _, err = run(capsys, "train", str(folder), "--person", "Anna", "--prompt", "x", *there)
    assert (status != 0, "--prompt is for scenes" in err) == (True, True)
