"""A finished job's files: gathered where nobody looks, then put in place in one step. That step is what "done" means.

The folder is named by the job's id, and a folder that holds something is never replaced by a rename: a job cannot come to
its end twice.
"""

from __future__ import annotations

import hashlib
import mimetypes
import shutil
import unicodedata
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from easyphoto.errors import EasyPhotoError
from easyphoto.files import write_new
from easyphoto.jobs.building import is_cut_off, put_in_place
from easyphoto.jobs.folders import DELETED, MAKING
from easyphoto.jobs.rows import result_path
from easyphoto.store.codec import dumps, loads
from easyphoto.store.paths import Home, make_folder
from easyphoto.work import JobResult, ResultFile

_LONGEST_STEM = 80
"""UTF-8 bytes of a file's name without its ending."""


class ResultFolder:
    """The files of one job's result, on their way."""

    def __init__(self, home: Home, job_id: str) -> None:
        self._place = home.results / job_id
        self._making = _making(home, job_id)
        self._files: list[ResultFile] = []
        drop_half_made(home, job_id)
        make_folder(self._making)

    def add(self, name: str, data: bytes) -> str:
        """Add a file under a safe name, which is returned; raises StorageError."""
        stem, dot, ending = name.rpartition(".")
        name = safe_stem(stem) + dot + ending
        write_new(self._making / name, data)
        media = mimetypes.guess_type(name)[0] or "application/octet-stream"
        digest = hashlib.sha256(data).hexdigest()
        self._files.append(ResultFile(name=name, media_type=media, size=len(data), sha256=digest))
        return name

    def commit(self, result: JobResult) -> JobResult:
        """Put the folder in place with `result`, the files filled in; returns what lies there then.

        Raises:
            StorageError: The disk is full or cannot be written.
        """
        result = replace(result, files=tuple(self._files))
        write_new(result_path(self._making), dumps(result).encode("utf-8"))
        known = read_result(self._place)
        if known is not None:
            shutil.rmtree(self._making, ignore_errors=True)
            return known
        put_in_place(self._making, self._place, (*(file.name for file in self._files), result_path(self._place).name))
        return result


def drop_half_made(home: Home, job_id: str) -> None:
    """Remove what was gathered for a job that failed or was stopped."""
    shutil.rmtree(_making(home, job_id), ignore_errors=True)


def _making(home: Home, job_id: str) -> Path:
    return home.results / f"{MAKING}{job_id}"


def read_result(folder: Path) -> JobResult | None:
    """The result in a folder; None where there is none, or no whole one."""
    with suppress(EasyPhotoError, OSError, ValueError):
        return loads(JobResult, result_path(folder).read_text(encoding="utf-8"))
    return None


def remove_half_made(home: Home) -> None:
    """Remove what a killed runner or a power cut left of results; only the runner of the home may call this."""
    for folder in home.results.glob("*"):
        if folder.name.startswith((MAKING, DELETED)) or is_cut_off(result_path(folder)):
            shutil.rmtree(folder, ignore_errors=True)


def safe_stem(text: str) -> str:
    """A file name's stem that every file system takes and no path hides in."""
    kept = "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in unicodedata.normalize("NFC", text))
    kept = kept.encode()[:_LONGEST_STEM].decode("utf-8", "ignore").strip(" .")
    return kept or "picture"
