"""What people can be trained on in a host, and how the embedded model gets there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from easyphoto.engine.webui_models import FOLDER, HostModels
from easyphoto.errors import NotFound
from easyphoto.families import Family
from tests.engine.host_standin import StandIn
from tests.engine.test_webui import write_checkpoint


@pytest.fixture
def guess(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The list of models that Forge knows."""
    package, listing = ModuleType("huggingface_guess"), ModuleType("huggingface_guess.model_list")
    listing.SD15 = type("SD15", (), {"huggingface_repo": "sd15", "unet_config": {"context_dim": 768, "model_channels": 320}})
    listing.models = [listing.SD15]
    monkeypatch.setitem(sys.modules, "huggingface_guess", package)
    monkeypatch.setitem(sys.modules, "huggingface_guess.model_list", listing)
    return listing


@pytest.fixture
def models(host: StandIn, guess: ModuleType, base_model: Path) -> HostModels:
    sd_models = sys.modules["modules.sd_models"]
    folder = Path(sd_models.model_path)
    folder.mkdir(parents=True)
    for name, width, channels in (("b-xl", 2048, 4), ("a-other", 768, 4), ("c-sd2", 1024, 4), ("d-inpaint", 768, 9)):
        host.add_checkpoint(f"{name}.safetensors", write_checkpoint(folder / f"{name}.safetensors", width, channels))
    (folder / "old.ckpt").write_bytes(b"a pickle, which is never opened")
    host.add_checkpoint("old.ckpt", folder / "old.ckpt")
    return HostModels(sd_models, base_model)


def test_the_chosen_checkpoint_comes_first_then_the_embedded_model_then_the_others(models: HostModels) -> None:
    assert [(model.id, model.family) for model in models.list()] == [
        ("plain.safetensors", Family.SD15), ("base-256", Family.EMBEDDED), ("a-other.safetensors", Family.SD15),
        ("b-xl.safetensors", Family.SDXL),
    ]  # fmt: skip


def test_a_host_without_a_checkpoint_still_has_the_embedded_model(host: StandIn, models: HostModels) -> None:
    host.infos.clear()

    def none() -> None:
        raise FileNotFoundError("No checkpoints found")

    sys.modules["modules.sd_models"].select_checkpoint = none
    assert [model.id for model in models.list()] == ["base-256"]


def test_only_people_of_the_embedded_family_change_the_checkpoint(host: StandIn, models: HostModels) -> None:
    assert models.fitting({Family.SD15}) == models.fitting({Family.SDXL}) == ""
    assert models.fitting({Family.SD15, Family.EMBEDDED}) == ""
    assert "list models" not in host.calls
    title = models.fitting({Family.EMBEDDED})
    assert Path(host.infos[title].filename).parts[-2:] == (FOLDER, "easyphoto-base-256.safetensors")
    host.options.sd_model_checkpoint = title
    assert models.fitting({Family.EMBEDDED}) == "", "it is chosen already"
    checkpoint = Path(host.infos[title].filename)
    os.utime(checkpoint, (0, 0))
    assert models.fitting({Family.EMBEDDED}) == ""
    assert checkpoint.stat().st_mtime > 0, "written anew, since it was older than the model"
    assert models.list()[0].id == "base-256"


def test_the_embedded_model_is_written_once_and_again_where_the_folder_has_moved(
    host: StandIn, models: HostModels, tmp_path: Path
) -> None:
    title = models.offer()
    checkpoint = Path(host.infos[title].filename)
    nets = sorted(path.name for path in (host.folder / "models" / "ControlNet").iterdir())
    assert nets == [f"easyphoto_embedded_{kind}.safetensors" for kind in ("canny", "color", "openpose", "tile")]
    before = checkpoint.stat().st_mtime_ns
    assert models.offer() == title
    assert checkpoint.stat().st_mtime_ns == before
    config = checkpoint.with_suffix(".yaml")
    config.write_text(config.read_text().replace(str(host.folder), str(tmp_path / "elsewhere")))
    assert models.offer() == title
    assert checkpoint.stat().st_mtime_ns > before
    (host.folder / "models" / "ControlNet" / nets[0]).unlink()
    models.offer()
    assert (host.folder / "models" / "ControlNet" / nets[0]).is_file()


def test_its_folder_sorts_behind_whatever_a_host_would_take_first(models: HostModels, host: StandIn) -> None:
    title = models.offer()
    assert max(("sdxl/b.safetensors", "v1-5-pruned.safetensors", "realistic.safetensors", title), key=str.lower) == title


def test_forge_is_taught_once_and_nothing_is_written_into_its_own_folders(
    host: StandIn, models: HostModels, guess: ModuleType
) -> None:
    models.prepare()
    assert len(guess.models) == 1, "nothing was offered yet"
    models.offer()
    models.offer()
    models.prepare()
    if host.version != "forge":
        assert len(guess.models) == 1
        return
    first, second = guess.models
    assert second is guess.SD15
    folder = Path(first.huggingface_repo)
    assert folder.is_absolute(), "Forge joins it to its own folder, and an absolute path stays what it is"
    assert folder.is_relative_to(host.folder / "models")
    assert (folder / "model_index.json").is_file()
    assert list(folder.rglob("*.safetensors")) == []
    assert first.unet_config["context_dim"] == 256
    assert guess.SD15.unet_config["context_dim"] == 768


def test_a_host_that_does_not_list_it_is_told_what_to_do(models: HostModels) -> None:
    sys.modules["modules.sd_models"].list_models = lambda: None
    with pytest.raises(NotFound, match="refresh its list"):
        models.offer()


def test_a_checkpoint_that_was_replaced_is_looked_at_again(models: HostModels, host: StandIn) -> None:
    def families() -> dict[str, Family]:
        return {model.id: model.family for model in models.list()}

    assert families()["a-other.safetensors"] is Family.SD15
    path = Path(host.infos["a-other.safetensors"].filename)
    write_checkpoint(path, 2048)
    assert families()["a-other.safetensors"] is Family.SDXL
    host.infos["gone.safetensors"] = SimpleNamespace(filename=str(path.with_name("gone.safetensors")), name="gone.safetensors")
    assert "gone.safetensors" not in families()


def test_forge_is_told_of_our_checkpoint_where_it_is_the_chosen_one_already(
    host: StandIn, models: HostModels, guess: ModuleType
) -> None:
    host.options.sd_model_checkpoint = models.offer()
    guess.models[:] = [guess.SD15]  # as after the host's next start
    assert models.fitting({Family.EMBEDDED}) == ""
    assert len(guess.models) == (2 if host.version == "forge" else 1)
