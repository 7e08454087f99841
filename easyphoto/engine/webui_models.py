"""What a person can be trained on and painted with in a WebUI: its own SD1.5 and SDXL checkpoints, and the embedded model.

The embedded model is written as a checkpoint of the host's when it is first painted with, so that a stock WebUI works at once.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from easyphoto.engine.detect import detect_family
from easyphoto.engine.webui_checkpoint import CheckpointFacts, read_facts
from easyphoto.errors import EasyPhotoError, NotFound
from easyphoto.families import Family
from easyphoto.files import storage_error
from easyphoto.store.ldm_checkpoint import CONTROLNET_PREFIX, LdmFiles, ldm_config, write_ldm
from easyphoto.store.paths import make_folder

_UNET = "unet/diffusion_pytorch_model.safetensors"
FOLDER = "zz-easyphoto"
"""In the host's folder of checkpoints. It sorts last: a host whose choice was never saved takes the first one it finds, and
that must not become ours."""


@dataclass(frozen=True, kw_only=True)
class HostModel:
    """A base model."""

    id: str
    """As it is shown; unique."""
    family: Family
    path: Path
    """A checkpoint file, or a folder in diffusers' layout."""


class HostModels:
    """The base models of one host."""

    def __init__(self, models: ModuleType, embedded: Path) -> None:
        """`models` is the host's `sd_models`, `embedded` the folder of the base model that we bring along."""
        self._models = models
        self._embedded = embedded
        self._facts: dict[object, CheckpointFacts | None] = {}

    @property
    def name(self) -> str:
        """What the embedded model is called among the host's checkpoints."""
        return f"easyphoto-{self._embedded.name}"

    @property
    def _folder(self) -> Path:
        return Path(self._models.model_path) / FOLDER

    def list(self) -> tuple[HostModel, ...]:
        """The host's chosen checkpoint first where it is one of ours, then the embedded model, then the others by name."""
        others = {model.path: model for model in self._checkpoints()}
        first = self._chosen()
        own = self._own()
        head = [others.pop(first)] if first in others else []
        return (*head, *own, *sorted(others.values(), key=lambda model: model.id.lower()))

    def fitting(self, families: set[Family]) -> str:
        """The checkpoint to paint people of these families with; empty for the one that is chosen in the host.

        Only the embedded model is chosen for a person: which of several checkpoints of a family paints is the host's choice.
        """
        if families != {Family.EMBEDDED} or self._family_of(self._chosen()) is Family.EMBEDDED:
            return ""
        return self.offer()

    def offer(self) -> str:
        """Have the embedded model among the host's checkpoints; returns its title there.

        Raises:
            NotFound, InputError: A part of the model is missing or broken, or the host does not list it.
            StorageError: A file cannot be written.
        """
        if detect_family(self._embedded) is not Family.EMBEDDED:
            return ""
        forge = hasattr(self._models, "forge_model_reload")
        if not self._is_written():
            write_ldm(self._embedded, make_folder(self._folder), self._controlnets, self.name, extension=not forge)
        if forge:
            teach_forge(self._embedded, self._folder, self.name)
        title = self._title()
        if title is None:
            self._models.list_models()
            title = self._title()
        if title is None:
            raise NotFound(f"the WebUI does not list {self._folder / self.name}.safetensors; refresh its list of checkpoints")
        return title

    def prepare(self) -> None:
        """Let a Forge in which the embedded model was offered before know it, so that its own tabs can load it too."""
        if hasattr(self._models, "forge_model_reload") and self._is_written():
            teach_forge(self._embedded, self._folder, self.name)

    @property
    def _controlnets(self) -> Path:
        return Path(self._models.model_path).parent / "ControlNet"

    def _title(self) -> str | None:
        path = self._folder / f"{self.name}.safetensors"
        infos = list(self._models.checkpoints_list.values())
        return next((str(info.title) for info in infos if Path(info.filename) == path), None)

    def _is_written(self) -> bool:
        """Whether it lies there whole, from this very model, and finds its text encoder where it is now."""
        try:
            said = json.loads((self._folder / f"{self.name}.yaml").read_text(encoding="utf-8"))
            newer = (self._folder / f"{self.name}.safetensors").stat().st_mtime >= (self._embedded / _UNET).stat().st_mtime
        except (OSError, ValueError):
            return False
        kinds = [path.parent.name for path in self._embedded.glob("controlnet/*/config.json")]
        whole = all((self._controlnets / f"{CONTROLNET_PREFIX}{kind}.safetensors").is_file() for kind in kinds)
        return newer and whole and said == ldm_config(self._embedded, self._folder / f"{self.name}.text")

    def _own(self) -> tuple[HostModel, ...]:
        with suppress(EasyPhotoError):
            return (HostModel(id=self._embedded.name, family=detect_family(self._embedded), path=self._embedded),)
        return ()

    def _checkpoints(self) -> Iterator[HostModel]:
        for info in list(self._models.checkpoints_list.values()):
            path = Path(info.filename)
            family = self._family_of(path)
            # The embedded model is offered as the folder it came from.
            if family is not None and family is not Family.EMBEDDED:
                yield HostModel(id=str(info.name), family=family, path=path)

    def _chosen(self) -> Path | None:
        with suppress(FileNotFoundError):
            info = self._models.select_checkpoint()
            return Path(info.filename) if info is not None else None
        return None

    def _family_of(self, path: Path | None) -> Family | None:
        """The family of a checkpoint; None for what is none of ours. Only the head of the file is read, and only once."""
        if path is None or path.suffix.lower() != ".safetensors":
            return None
        try:
            key = (path, path.stat().st_mtime_ns)
        except OSError:
            return None
        if key not in self._facts:
            try:
                self._facts[key] = read_facts(path)
            except EasyPhotoError:
                self._facts[key] = None
        facts = self._facts[key]
        return facts.family if facts else None


def teach_forge(model: Path, checkpoints: Path, name: str) -> None:
    """Let Forge know the embedded model: it has a list of models, and a folder of configs for each, instead of a config beside
    the checkpoint. The folder is ours, beside the checkpoint; nothing of Forge's own is changed but its list in memory.
    """
    guess: Any = importlib.import_module("huggingface_guess.model_list")
    own = checkpoints / f"{name}.forge"
    files = LdmFiles(
        checkpoint=checkpoints / f"{name}.safetensors", config=checkpoints / f"{name}.yaml",
        text=checkpoints / f"{name}.text", controlnets=(),
    )  # fmt: skip
    try:
        _write_configs(model, own, files)
    except OSError as error:
        raise storage_error(own, error) from error
    if any(getattr(known, "huggingface_repo", "") == str(own) for known in guess.models):
        return
    sizes = {**guess.SD15.unet_config, "context_dim": 256, "model_channels": 96}
    heads = {"num_heads": -1, "num_head_channels": 32}
    kind = {"huggingface_repo": str(own), "unet_config": sizes, "unet_extra_config": heads}
    guess.models.insert(0, type("EasyphotoEmbedded", (guess.SD15,), kind))


def _write_configs(model: Path, own: Path, files: LdmFiles) -> None:
    shutil.copytree(model, own, ignore=shutil.ignore_patterns("*.safetensors", "controlnet", "tokenizer"), dirs_exist_ok=True)
    shutil.copytree(files.text, own / "tokenizer", dirs_exist_ok=True)
    vae = json.loads((own / "vae" / "config.json").read_text(encoding="utf-8"))
    wide = json.loads(files.config.read_text(encoding="utf-8"))["model"]["params"]["first_stage_config"]["params"]["ddconfig"]
    vae |= {"norm_num_groups": 32, "block_out_channels": [wide["ch"] * factor for factor in wide["ch_mult"]]}
    (own / "vae" / "config.json").write_text(json.dumps(vae), encoding="utf-8")
