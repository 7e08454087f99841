from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.app import App
from easyphoto.errors import LoraError, NotFound
from easyphoto.families import Family
from easyphoto.jobs.store import JobStore
from easyphoto.privacy.audit import audit
from easyphoto.privacy.erase import erase_person
from easyphoto.privacy.traces import Kind
from easyphoto.records import LoraUse
from easyphoto.specs import TrainSpec
from easyphoto.store.codec import dumps
from easyphoto.store.lora_file import SPEC_KEY, LoraFile, read_lora, write_lora
from easyphoto.store.shelf import LoraShelf
from tests.ui.made import make_studio, publish

MODULES = (
    "lora_unet_down_blocks_1_attentions_0_proj_in", "lora_unet_mid_block_attentions_0_proj_in",
    "lora_unet_up_blocks_0_attentions_1_proj_in", "lora_te_text_model_encoder_layers_0_mlp_fc1",
)  # fmt: skip


def write(path: Path, family: Family, value: float = 1.0) -> Path:
    """A LoRA as a training writes it: its spec in the header, a module in every attention."""
    tensors = {f"{name}.lora_{end}.weight": np.full((2, 2), value, np.float32) for name in MODULES for end in ("down", "up")}
    spec = TrainSpec(person="Anna", base_model=Path("/models/base"), family=family)
    write_lora(path, LoraFile(tensors=tensors, metadata={SPEC_KEY: dumps(spec), "sshs_model_hash": "00"}))
    return path


def copies(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL])
def test_what_the_webui_reads_by_itself_is_copied_byte_for_byte(tmp_path: Path, family: Family) -> None:
    lora, folder = write(tmp_path / "Anna B [x].safetensors", family), tmp_path / "Lora"
    copy = LoraShelf(folder).put(lora)
    assert copy.read_bytes() == lora.read_bytes()
    assert copies(folder) == [copy]
    assert copy.name.startswith("easyphoto-Anna_B__x_-")


def test_a_lora_of_the_embedded_model_is_written_with_the_names_that_the_webui_finds(tmp_path: Path) -> None:
    lora = write(tmp_path / "Anna.safetensors", Family.EMBEDDED)
    copy = read_lora(LoraShelf(tmp_path / "Lora").put(lora))
    assert set(copy.module_names()) == {
        "lora_unet_input_blocks_3_1_proj_in", "lora_unet_middle_block_1_proj_in", "lora_unet_output_blocks_1_1_proj_in",
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
    }  # fmt: skip
    assert copy.metadata == read_lora(lora).metadata


@pytest.mark.parametrize("family", [Family.EMBEDDED, Family.SD15])
def test_who_publishes_and_who_paints_write_one_and_the_same_copy(tmp_path: Path, family: Family) -> None:
    lora, folder = write(tmp_path / "Anna.safetensors", family), tmp_path / "Lora"
    published = LoraShelf(folder).put(lora, family)
    before = published.stat()
    assert LoraShelf(folder).tag(LoraUse(path=lora, weight=0.9), family) == f"<lora:{published.stem}:0.9>"
    assert copies(folder) == [published]
    assert copies(folder) == [LoraShelf(folder).put(lora)], "the same again from the file's own word for its family"
    assert (published.stat().st_ino, published.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "it was not touched"


def test_a_new_training_takes_the_place_of_the_old_one_and_of_nothing_else(tmp_path: Path) -> None:
    lora, folder = tmp_path / "Anna.safetensors", tmp_path / "Lora"
    others = [folder / "easyphoto" / f"easyphoto-{name}-0123abcd.safetensors" for name in ("Annabel", "Anna-B")]
    others[0].parent.mkdir(parents=True)
    for other in others:
        other.write_bytes(b"somebody else's")
    write(lora, Family.EMBEDDED)
    digest = hashlib.sha256(lora.read_bytes()).hexdigest()[:8]
    (folder / "easyphoto" / f"easyphoto-Anna-{digest}.safetensors").write_bytes(lora.read_bytes())  # as an earlier version did
    assert any("input_blocks" in name for name in read_lora(LoraShelf(folder).put(lora)).module_names())
    shelf = LoraShelf(folder)
    names = []
    for value in (1.0, 2.0, 2.0):
        copy = shelf.put(lora if names[1:] else write(lora, Family.EMBEDDED, value))
        names.append(copy.name)
        assert copies(folder) == sorted([*others, copy])
    assert names[0] != names[1] == names[2]


def test_a_copy_that_somebody_removed_is_written_again(tmp_path: Path) -> None:
    lora, shelf = write(tmp_path / "Anna.safetensors", Family.SD15), LoraShelf(tmp_path / "Lora")
    copy = shelf.put(lora)
    copy.unlink()
    assert shelf.put(lora) == copy
    assert copy.is_file()


def test_broken_missing_and_foreign_files_leave_the_shelf_as_it_was(tmp_path: Path) -> None:
    lora, folder = write(tmp_path / "Anna.safetensors", Family.SD15), tmp_path / "Lora"
    copy = LoraShelf(folder).put(lora)
    with pytest.raises(LoraError, match="sdxl"):
        LoraShelf(folder).put(lora, Family.SDXL)
    lora.write_bytes(lora.read_bytes()[:-3])
    with pytest.raises(LoraError, match="cut off"):
        LoraShelf(folder).put(lora)
    lora.unlink()
    with pytest.raises(NotFound, match="Anna"):
        LoraShelf(folder).put(lora)
    assert copies(folder) == [copy]


@pytest.mark.parametrize("family", [Family.EMBEDDED, Family.SD15])
def test_the_audit_finds_the_copy_and_who_is_deleted_is_gone_from_the_folder_too(tmp_path: Path, family: Family) -> None:
    studio, folder = make_studio(tmp_path / "home"), tmp_path / "Lora"
    person = publish(studio, "Anna")
    copy = LoraShelf(folder).put(write(person.lora, family))
    app = App(replace(studio.app.settings, lora_folder=folder))
    store = JobStore(app.settings.home)
    found = audit(app.settings.home, store, folder)
    assert (copy.as_posix(), Kind.LORA) in [(trace.path, trace.kind) for trace in found.of("Anna")]
    erase_person(app, store, "Anna", results=True)
    store.close()
    studio.store.close()
    assert not copy.exists()
