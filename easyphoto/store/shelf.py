"""Copies of trained LoRAs in a folder that other programs read, such as a WebUI's `models/Lora`."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from easyphoto.files import write_bytes
from easyphoto.store.paths import make_folder

FOLDER = "easyphoto"


def copy_lora(lora: Path, folder: Path) -> Path:
    """Copy a LoRA to `folder/easyphoto/easyphoto-NAME-DIGEST.safetensors`, byte for byte; older copies of that name go.

    Who remembers LoRAs by name never takes an old one for a new. Deleting a person removes it by what its header says
    (`privacy.erase`).

    Raises:
        StorageError: The copy cannot be written.
    """
    data = lora.read_bytes()
    stem = "-".join((FOLDER, re.sub(r"[^\w.-]", "_", lora.stem), ""))
    copy = make_folder(folder / FOLDER) / f"{stem}{hashlib.sha256(data).hexdigest()[:8]}.safetensors"
    write_bytes(copy, data)
    old = re.compile(rf"{re.escape(stem)}[0-9a-f]{{8}}\.safetensors")
    for path in copy.parent.iterdir():
        if path != copy and old.fullmatch(path.name):
            path.unlink(missing_ok=True)
    return copy
