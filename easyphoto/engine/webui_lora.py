"""Our LoRAs in the WebUI's own folder, where its prompts find them by name.

Each is copied to `<LoRA folder>/easyphoto/`; its name ends in the beginning of its content's digest, so that the host, which
remembers LoRAs by name, never takes an old one for a new. The copy stays there, for the host's other tabs, until the person is
trained again or `remove_copies` is called.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from easyphoto.engine.lora_patch import lora_key
from easyphoto.families import Family
from easyphoto.files import write_bytes
from easyphoto.records import LoraUse
from easyphoto.store.ldm_checkpoint import ldm_lora
from easyphoto.store.lora_file import check_lora, read_lora, serialize
from easyphoto.store.paths import make_folder

FOLDER = "easyphoto"


class LoraShelf:
    """The copies in one LoRA folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._names: dict[object, str] = {}

    def tag(self, use: LoraUse, family: Family, layers: int) -> str:
        """What asks for the LoRA in a prompt, such as `<lora:easyphoto-anna-0123abcd:0.9>`; a missing copy is made.

        Args:
            use: File and weight.
            family: The checkpoint's.
            layers: Residual blocks in each level of the checkpoint's UNet.

        Raises:
            NotFound: There is no such file.
            LoraError: It is broken, or of another family than the checkpoint.
            StorageError: The copy cannot be written.
        """
        return f"<lora:{self.name(use, family, layers)}:{use.weight:g}>"

    def name(self, use: LoraUse, family: Family, layers: int) -> str:
        """The name of the copy, which is there when this returns."""
        # The key holds size and time of the file, and raises NotFound for a missing one.
        key = (lora_key((use,))[0], family, layers)
        name = self._names.get(key)
        if name is None or not self._path(name).is_file():
            name = self._names[key] = self._copy(use.path, family, layers)
        return name

    def remove_copies(self, lora: Path) -> tuple[Path, ...]:
        """Remove every copy of the LoRA file of that name; what was removed."""
        return self._remove(f"{_safe(lora.stem)}-", keep="")

    def _copy(self, path: Path, family: Family, layers: int) -> str:
        file = read_lora(path)
        check_lora(file, family=family)
        # SD's own names are translated by the host; our small model has another number of blocks.
        file = ldm_lora(file, layers) if family is Family.EMBEDDED else file
        data = serialize(file.tensors, file.metadata)
        name = f"{FOLDER}-{_safe(path.stem)}-{hashlib.sha256(data).hexdigest()[:8]}"
        make_folder(self._folder)
        if not self._path(name).is_file():
            write_bytes(self._path(name), data)
        self._remove(f"{_safe(path.stem)}-", keep=name)
        return name

    def _remove(self, start: str, keep: str) -> tuple[Path, ...]:
        pattern = re.compile(rf"{FOLDER}-{re.escape(start)}[0-9a-f]{{8}}")
        old = [path for path in self._folder.glob("*.safetensors") if pattern.fullmatch(path.stem) and path.stem != keep]
        for path in old:
            # Windows lets nobody remove a file that the host still has open; it is removed the next time.
            with suppress(PermissionError):
                path.unlink(missing_ok=True)
        return tuple(old)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"


def _safe(stem: str) -> str:
    """Letters and digits of any script, `-`, `_` and `.`: what else there is could end a prompt's tag."""
    return re.sub(r"[^\w.-]", "_", stem)
