from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from easyphoto.app import App
from easyphoto.families import Family
from easyphoto.jobs.store import JobStore
from easyphoto.privacy.erase import erase_person
from easyphoto.specs import TrainSpec
from easyphoto.store.codec import dumps
from easyphoto.store.lora_file import SPEC_KEY, LoraFile, write_lora
from easyphoto.store.shelf import copy_lora
from tests.ui.made import make_studio, publish


def test_a_copy_holds_the_same_bytes_and_takes_the_place_of_older_ones(tmp_path: Path) -> None:
    lora, folder = tmp_path / "Anna B [x].safetensors", tmp_path / "Lora"
    other = folder / "easyphoto" / "easyphoto-Anna-0123abcd.safetensors"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"somebody else's")
    for data in (b"one", b"two", b"two"):
        lora.write_bytes(data)
        copy = copy_lora(lora, folder)
        assert copy.read_bytes() == data
        assert sorted(folder.rglob("*.safetensors")) == sorted([other, copy])
    assert copy.name.startswith("easyphoto-Anna_B__x_-")


def test_who_is_deleted_is_gone_from_the_folder_too(tmp_path: Path) -> None:
    studio, folder = make_studio(tmp_path / "home"), tmp_path / "Lora"
    spec = TrainSpec(person="Anna", base_model=Path("/models/base"), family=Family.EMBEDDED)
    person = publish(studio, "Anna")
    tensors = {"lora_unet_x.alpha": np.float32(2), "lora_unet_x.lora_down.weight": np.ones((2, 8), np.float32)}
    metadata = {SPEC_KEY: dumps(spec), "sshs_model_hash": "00"}
    write_lora(person.lora, LoraFile(tensors={key: np.asarray(value) for key, value in tensors.items()}, metadata=metadata))
    copy = copy_lora(person.lora, folder)
    app = App(replace(studio.app.settings, lora_folder=folder))
    store = JobStore(app.settings.home)
    erase_person(app, store, "Anna", results=True)
    store.close()
    studio.store.close()
    assert not copy.exists()
