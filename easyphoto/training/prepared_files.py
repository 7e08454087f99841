"""A prepared set on disk: what the parent process hands to the training process.

    set.json                verdicts, scores, boxes, warnings; schema_version
    arrays.safetensors      embedding, and for each photo its landmarks, mesh, depth and embedding
    0000.crop.png ...       crops and originals, lossless
    0000.original.png ...
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from easyphoto import files
from easyphoto.errors import NotFound, PhotoError
from easyphoto.imaging.io import load_photo, save_png
from easyphoto.records import Box, Face, Floats, PhotoScores, PreparedPhoto, PreparedSet, Reason, Verdict

_SCHEMA = 1
_INDEX = "set.json"
_ARRAYS = "arrays.safetensors"
_FACE_ARRAYS = ("landmarks", "mesh", "depth", "body", "embedding")


def write_prepared(prepared: PreparedSet, folder: Path) -> None:
    """Write a set into a folder, which is made; what lies there under the same names is replaced.

    The index is written last: a folder with an index is whole.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.storage_error(folder, error) from error
    arrays: dict[str, Floats] = {"embedding": prepared.embedding}
    for number, item in enumerate(prepared.photos):
        save_png(folder / f"{number:04d}.crop.png", item.crop.pixels)
        save_png(folder / f"{number:04d}.original.png", item.original.pixels)
        for name in _FACE_ARRAYS:
            values = getattr(item.face, name, None)
            if values is not None:
                arrays[f"{number:04d}.{name}"] = np.ascontiguousarray(values, np.float32)
    files.write_bytes(folder / _ARRAYS, safetensors.numpy.save(arrays))
    files.write_text(folder / _INDEX, json.dumps(_index(prepared), ensure_ascii=False, indent=1))


def has_prepared(folder: Path) -> bool:
    """Whether the folder holds a whole set."""
    return (folder / _INDEX).is_file()


def read_prepared(folder: Path) -> PreparedSet:
    """The set that `write_prepared` wrote, equal to the bit.

    Raises:
        NotFound: The folder holds no set.
        PhotoError: A file of it is broken.
    """
    path = folder / _INDEX
    if not path.is_file():
        raise NotFound(f"{folder} holds no prepared photos; prepare them again")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        arrays = safetensors.numpy.load_file(folder / _ARRAYS)
        return PreparedSet(
            photos=tuple(_photo(folder, number, entry, arrays) for number, entry in enumerate(index["photos"])),
            verdicts=tuple(_verdict(entry) for entry in index["verdicts"]),
            reference=index["reference"],
            embedding=arrays["embedding"],
            warnings=tuple(index["warnings"]),
        )
    except (ValueError, KeyError, TypeError, OSError, RecursionError, safetensors.SafetensorError) as error:
        raise PhotoError(f"the prepared photos in {folder} are broken ({error}); prepare them again") from error


def _index(prepared: PreparedSet) -> dict[str, Any]:
    return {
        "schema_version": _SCHEMA,
        "reference": prepared.reference,
        "warnings": list(prepared.warnings),
        "verdicts": [{**asdict(verdict), "reason": verdict.reason.name} for verdict in prepared.verdicts],
        "photos": [
            {
                "name": item.name,
                "box": asdict(item.face.box) if item.face else None,
                "score": item.face.score if item.face else None,
                "scores": asdict(item.scores),
                "caption": item.caption,
            }
            for item in prepared.photos
        ],
    }


def _photo(folder: Path, number: int, entry: dict[str, Any], arrays: dict[str, Any]) -> PreparedPhoto:
    found = {name: arrays.get(f"{number:04d}.{name}") for name in _FACE_ARRAYS}
    face = None
    if entry["box"] is not None:
        landmarks = arrays[f"{number:04d}.landmarks"]
        face = Face(box=Box(**entry["box"]), score=entry["score"], **{**found, "landmarks": landmarks})
    return PreparedPhoto(
        name=entry["name"],
        original=load_photo(folder / f"{number:04d}.original.png"),
        crop=load_photo(folder / f"{number:04d}.crop.png"),
        face=face,
        scores=PhotoScores(**entry["scores"]),
        caption=entry.get("caption", ""),
    )


def _verdict(entry: dict[str, Any]) -> Verdict:
    known = {**entry, "reason": Reason[entry["reason"]], "scores": PhotoScores(**entry["scores"])}
    return Verdict(**known)
