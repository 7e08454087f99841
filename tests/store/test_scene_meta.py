"""What a scene's LoRA says of itself: as the EasyPhoto extension writes it, and so that it reads ours."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.errors import NotFound, SpecError
from easyphoto.families import Family
from easyphoto.kinds import spec_for
from easyphoto.records import LoraUse, TrainKind
from easyphoto.store.lora_file import DOWN, UP, LoraFile, read_lora, write_lora
from easyphoto.store.lora_meta import TrainingFacts, kohya_metadata, renamed, scene_prompts, spec_of, with_hashes
from easyphoto.store.named_loras import find_lora, tags_in, take_out
from easyphoto.store.paths import Home
from easyphoto.store.people import PeopleStore
from tests.api.test_scenes import scene_in

SCENE = spec_for(TrainKind.SCENE, Family.SD15, "Harbour", Path("/m/base.safetensors"), "a harbour")


def extensions_choice(metadata: dict[str, str]) -> list[str]:
    """The prompts that the extension takes from a LoRA's metadata; none for what it takes for no scene."""
    if not str(metadata.get("ep_lora_version", "")).startswith("scene"):
        return []
    prompt = str(metadata.get("ep_prompt", ""))
    return re.findall(r"'(.*?)'", prompt) if prompt[0] == "[" and prompt[-1] == "]" else [prompt]


def test_one_prompt_is_written_as_it_is() -> None:
    metadata = kohya_metadata(SCENE, TrainingFacts(steps=4, photos=3))
    assert extensions_choice(metadata) == ["a harbour, special_scene, scene"]
    assert scene_prompts(metadata) == ("a harbour, special_scene, scene",)
    assert metadata["ss_tag_frequency"] == '{"easyphoto": {"a harbour, special_scene, scene": 3}}'


def test_several_captions_are_the_list_that_the_extension_chooses_from() -> None:
    facts = TrainingFacts(steps=4, photos=3, captions=("boats", "", "the captain's boats"))
    metadata = kohya_metadata(SCENE, facts)
    said = ["boats", "a harbour, special_scene, scene", "the captain\u2019s boats"]
    assert extensions_choice(metadata) == said
    assert scene_prompts(metadata) == tuple(said)
    assert '"the captain\'s boats": 1' in metadata["ss_tag_frequency"]


def test_the_extensions_own_scenes_are_known_and_no_others() -> None:
    assert scene_prompts({"ep_lora_version": "scene", "ep_prompt": "a forest"}) == ("a forest",)
    assert scene_prompts({"ep_lora_version": "scene_v2", "ep_prompt": "['a', 'b', 'a']"}) == ("a", "b")
    assert scene_prompts({"ep_lora_version": "scene"}) == ()
    assert scene_prompts({"ep_prompt": "a forest"}) is None
    person = replace(SCENE, kind=TrainKind.PERSON, data=replace(SCENE.data, crop_ratio=None))
    assert scene_prompts(kohya_metadata(person, TrainingFacts(steps=4, photos=3))) is None


def test_a_renamed_scene_keeps_its_prompt_and_what_it_is(tmp_path: Path) -> None:
    tensors = {f"lora_unet_x.{part}": np.ones((2, 2), np.float32) for part in (DOWN, UP)}
    write_lora(tmp_path / "a.safetensors", with_hashes(tensors, kohya_metadata(SCENE, TrainingFacts(steps=4, photos=3))))
    again = renamed(read_lora(tmp_path / "a.safetensors"), "Quay")
    assert scene_prompts(again.metadata) == ("a harbour, special_scene, scene",)
    spec = spec_of(again)
    assert spec is not None
    assert (spec.kind, spec.person) == (TrainKind.SCENE, "Quay")


def test_tags_are_read_as_the_webui_reads_them() -> None:
    assert tags_in("a, <lora:Old_harbour:0.8>, b <lora:x> <LORA: y : te=0.5:unet=0.5>") == (
        ("Old_harbour", 0.8), ("x", 1.0), ("y", 0.5),
    )  # fmt: skip
    for wrong in ("<lora:>", "<lora:x:much>", "<lora:x:0.5:0.7>"):
        with pytest.raises(SpecError, match="is no tag we can follow"):
            tags_in(wrong)


def test_a_name_means_a_scene_first_and_then_a_file_of_the_folder(tmp_path: Path) -> None:
    scene = scene_in(tmp_path / "home", tmp_path / "made", "Old harbour")
    shelves = (PeopleStore(Home(tmp_path / "home").shelf(TrainKind.SCENE)),)
    folder = tmp_path / "loras" / "deep"
    folder.mkdir(parents=True)
    tensors = {f"lora_unet_x.{part}": np.ones((2, 2), np.float32) for part in (DOWN, UP)}
    write_lora(folder / "Film.safetensors", LoraFile(tensors=tensors))
    for name in ("Old harbour", scene.lora.stem, scene.lora.stem.upper()):
        assert find_lora(name, shelves, None) == scene.lora
    prompt = f"stone, <lora:{scene.lora.stem}:0.8>, <lora:Film:0.3>, boats"
    assert take_out(prompt, shelves, tmp_path / "loras") == (
        "stone, boats",
        (LoraUse(path=scene.lora, weight=0.8), LoraUse(path=folder / "Film.safetensors", weight=0.3)),
    )
    assert take_out("no, tag", shelves, None) == ("no, tag", ())
    with pytest.raises(NotFound, match=r"'Film'.*scenes: Old_harbour"):
        take_out(prompt, shelves, None)
    kept, uses = take_out(prompt, shelves, tmp_path / "loras", leave_others=True)
    assert (kept, len(uses)) == ("stone, <lora:Film:0.3>, boats", 1)
