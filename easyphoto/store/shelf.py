"""Copies of trained LoRAs in a folder that other programs read, such as a WebUI's `models/Lora`: who writes, names and replaces
them, be it when a person is published or when they are painted.

A copy lies in `<folder>/easyphoto/` under the person's name and the beginning of a SHA-256 over the trained file, so that a
program which remembers LoRAs by name never takes an old one for a new. It is what the WebUI can read: the WebUI translates
diffusers' names only for SD's two residual blocks a level, so a LoRA of the embedded family is written with LDM's names, every
other one byte for byte. Deleting a person removes it by what its header says (`privacy.erase`), which all copies keep.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from easyphoto.errors import SpecError
from easyphoto.families import Family
from easyphoto.files import write_bytes
from easyphoto.records import LoraUse, TrainKind
from easyphoto.store.ldm_checkpoint import ldm_lora
from easyphoto.store.lora_file import LoraFile, check_lora, read_lora, serialize
from easyphoto.store.lora_meta import spec_of
from easyphoto.store.paths import make_folder

FOLDER = "easyphoto"
_TRANSLATED = b"LDM's names"
"""Goes into the digest of a translated copy: earlier versions left untranslated ones under the trained file's own."""


class LoraShelf:
    """The copies in one LoRA folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._copies: dict[object, Path] = {}

    def tag(self, use: LoraUse, family: Family) -> str:
        """What asks for the LoRA in a prompt, such as `<lora:easyphoto-anna-0123abcd:0.9>`; a missing copy is made.

        Args:
            use: File and weight.
            family: The checkpoint's.

        Raises:
            NotFound: There is no such file.
            LoraError: It is broken, or of another family than the checkpoint.
            StorageError: The copy cannot be written.
        """
        return f"<lora:{self.put(use.path, family).stem}:{use.weight:g}>"

    def put(self, lora: Path, family: Family | None = None) -> Path:
        """The LoRA's copy, which is there when this returns; older copies of that name are gone.

        Args:
            lora: A person's file.
            family: The family that it has to be of; None takes each.

        Raises:
            NotFound: There is no such file.
            LoraError: It is broken, or of another family.
            StorageError: The copy cannot be written.
        """
        # Size and time of change tell a person who was trained again.
        key = (lora, family, *_stamp(lora))
        copy = self._copies.get(key)
        if copy is None or not copy.is_file():
            copy = self._copies[key] = self._write(lora, family)
        return copy

    def _write(self, lora: Path, family: Family | None) -> Path:
        data, digest, mark = _readable(lora, family)
        # Letters and digits of any script, `-`, `_` and `.`: what else there is could end a prompt's tag.
        stem = "-".join((f"{FOLDER}{mark}", re.sub(r"[^\w.-]", "_", lora.stem), ""))
        copy = make_folder(self._folder) / f"{stem}{digest[:8]}.safetensors"
        if not copy.is_file():
            write_bytes(copy, data)
        old = re.compile(rf"{re.escape(stem)}[0-9a-f]{{8}}\.safetensors")
        for path in self._folder.iterdir():
            if path != copy and old.fullmatch(path.name):
                # Windows lets nobody remove a file that the host still has open; it is removed the next time.
                with suppress(PermissionError):
                    path.unlink(missing_ok=True)
        return copy


def _stamp(lora: Path) -> tuple[int, int]:
    try:
        facts = lora.stat()
    except OSError:
        return (-1, -1)  # reading it says why
    return facts.st_size, facts.st_mtime_ns


def _readable(lora: Path, family: Family | None) -> tuple[bytes, str, str]:
    """The bytes of the copy, and the digest and the mark in its name.

    Not of the bytes: safetensors writes a header's fields in any order, so the same LoRA twice gives different files.
    """
    file = read_lora(lora)
    check_lora(file, family=family)
    data, mark = lora.read_bytes(), _mark(file)
    if (family or file.family) is not Family.EMBEDDED:
        return data, hashlib.sha256(data).hexdigest(), mark
    translated = ldm_lora(file, _layers(file))
    return serialize(translated.tensors, translated.metadata), hashlib.sha256(_TRANSLATED + data).hexdigest(), mark


def _mark(file: LoraFile) -> str:
    """Keeps a scene's copy apart from that of a person of its name."""
    with suppress(SpecError):
        spec = spec_of(file)
        return f".{spec.kind.value}" if spec is not None and spec.kind is not TrainKind.PERSON else ""
    return ""


def _layers(file: LoraFile) -> int:
    """Residual blocks in each level of the UNet that it was trained for.

    A trained LoRA has a module in every attention, and the up half of a UNet has one more of them a level.
    """
    ups = (re.match(r"lora_unet_up_blocks_\d+_attentions_(\d+)_", name) for name in file.module_names())
    return max((int(match[1]) for match in ups if match), default=1)
