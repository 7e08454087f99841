"""A person's LoRA in a WebUI's folder, a copy or a link, known by what its header says and not by its name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from easyphoto.errors import EasyPhotoError
from easyphoto.privacy.traces import Census, at, same
from easyphoto.records import TrainKind
from easyphoto.specs import TrainSpec
from easyphoto.store.codec import from_json
from easyphoto.store.lora_file import SPEC_KEY
from easyphoto.store.paths import person_id
from easyphoto.store.people import PeopleStore

_LONGEST_HEADER = 64 << 20
"""Bytes; no LoRA's header comes near."""


@dataclass(frozen=True, kw_only=True)
class HostLora:
    """One LoRA of ours that lies elsewhere."""

    path: Path
    person: str
    """Whom it was trained for, by the name of then."""
    subject: TrainKind
    """What that names."""
    made: datetime | None
    digest: str
    """The hash of its weights that the WebUI shows."""


def loras_in(folder: Path | None) -> Iterator[HostLora]:
    """Every LoRA of ours in a folder and those below it."""
    if folder is None or not folder.is_dir():
        return
    for path in sorted(folder.rglob("*.safetensors")):
        header = _header(path)
        with suppress(ValueError, EasyPhotoError, RecursionError, OverflowError):
            spec = from_json(TrainSpec, json.loads(header.get(SPEC_KEY, "")))
            ended = float(header.get("ss_training_finished_at", 0.0))
            made = at(ended) if ended > 0 else None
            digest = header.get("sshs_model_hash", "")
            yield HostLora(path=path, person=spec.person, subject=spec.kind, made=made, digest=digest)


def is_of(lora: HostLora, person: str, census: Census, others: tuple[Census, ...]) -> bool:
    """Whether the LoRA is that person's. Where another owner has somebody of the same name, the weights decide."""
    if lora.subject is not census.subject or not same(census.holder(lora.person, lora.made), person):
        return False
    others = tuple(other for other in others if other.subject is census.subject)
    rivals = [other for other in others if any(other.holder(lora.person, lora.made) == name for name, _ in other.people)]
    return not rivals or lora.digest in own_digests(census, person)


def own_digests(census: Census, person: str) -> set[str]:
    """The hashes of all LoRA files of a person that lie in their own home."""
    folders = [census.home.people / person_id(person), *PeopleStore(census.home).job_folders(person)]
    found = (_header(path).get("sshs_model_hash", "") for folder in folders for path in folder.rglob("*.safetensors"))
    return {digest for digest in found if digest}


def _header(path: Path) -> Mapping[str, str]:
    """The text fields of a safetensors file's header; none for a file that is broken or of another kind."""
    with suppress(OSError, ValueError, AttributeError, RecursionError), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length <= _LONGEST_HEADER:
            found = json.loads(file.read(length)).get("__metadata__") or {}
            return {str(key): str(value) for key, value in found.items()}
    return {}
