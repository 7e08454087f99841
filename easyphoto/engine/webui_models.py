"""What a person can be trained on and painted with in a WebUI: its own SD1.5 and SDXL checkpoints, and the embedded model.

The embedded model is written as a checkpoint of the host's when it is first painted with, so that a stock WebUI works at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from easyphoto.engine.detect import detect_family
from easyphoto.engine.webui_checkpoint import CheckpointFacts, read_facts
from easyphoto.engine.webui_teaching import teacher
from easyphoto.errors import EasyPhotoError, NotFound
from easyphoto.families import Family
from easyphoto.store.ldm_checkpoint import CONTROLNET_PREFIX, ldm_config, write_ldm
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

    @property
    def _checkpoint(self) -> Path:
        return self._folder / f"{self.name}.safetensors"

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
        chosen = self._chosen()
        if families != {Family.EMBEDDED} or (chosen != self._checkpoint and self._family_of(chosen) is Family.EMBEDDED):
            return ""
        # Also where ours is chosen: an earlier version may have written it, or the host not been told of it yet.
        title = self.offer()
        return "" if chosen == self._checkpoint else title

    def offer(self) -> str:
        """Have the embedded model among the host's checkpoints; returns its title there.

        Raises:
            NotFound, InputError: A part of the model is missing or broken, or the host does not list it.
            StorageError: A file cannot be written.
        """
        if detect_family(self._embedded) is not Family.EMBEDDED:
            return ""
        teach = teacher(self._models)
        if not self._is_written():
            write_ldm(self._embedded, make_folder(self._folder), self._controlnets, self.name, extension=teach is None)
        if teach:
            teach(self._embedded, self._folder, self.name)
        title = self._title()
        if title is None:
            self._models.list_models()
            title = self._title()
        if title is None:
            raise NotFound(f"the WebUI does not list {self._checkpoint}; refresh its list of checkpoints")
        return title

    def prepare(self) -> None:
        """Let a host in which the embedded model was offered before know it, so that its own tabs can load it too."""
        teach = teacher(self._models)
        if teach and self._checkpoint.is_file():  # also one that an earlier version wrote
            teach(self._embedded, self._folder, self.name)

    @property
    def _controlnets(self) -> Path:
        return Path(self._models.model_path).parent / "ControlNet"

    def _title(self) -> str | None:
        infos = list(self._models.checkpoints_list.values())
        return next((str(info.title) for info in infos if Path(info.filename) == self._checkpoint), None)

    def _is_written(self) -> bool:
        """Whether it lies there whole, from this very model, and finds its text encoder where it is now."""
        try:
            said = json.loads((self._folder / f"{self.name}.yaml").read_text(encoding="utf-8"))
            newer = self._checkpoint.stat().st_mtime >= (self._embedded / _UNET).stat().st_mtime
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
