"""Where bodies wait for their job: a folder in the home, away from everything else, emptied whatever happens."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from easyphoto.errors import Conflict
from easyphoto.store.locks import locked
from easyphoto.store.paths import make_folder

FOLDER = "uploads"
"""In the home; holds faces for the length of a request."""
_LOCK = "server.lock"


@dataclass(frozen=True, kw_only=True)
class Handed:
    """One picture as it was handed in."""

    label: str
    """What its sender calls it; any letters, never a path."""
    data: bytes | Path
    """The file's content, or where it was put down."""
    field: str = ""
    """Where in the request it was: "photos[2]"."""

    def read(self) -> bytes:
        """The whole file."""
        return self.data if isinstance(self.data, bytes) else self.data.read_bytes()


class UploadRoom:
    """One server's folder for bodies on their way; what a killed server left is removed by the next."""

    def __init__(self, home: Path) -> None:
        self._root = home / FOLDER
        self._own = self._root / secrets.token_hex(8)
        self._held = ExitStack()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Where the files of one request go, not made yet; removed with all that is in it.

        Raises:
            StorageError: Nothing can be put down there.
        """
        self._open()
        folder = self._own / secrets.token_hex(8)
        try:
            yield folder
        finally:
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what servers left that are no more: the system lets their locks go."""
        for other in self._root.iterdir() if self._root.is_dir() else ():
            if other == self._own:
                continue
            try:
                with locked(other / _LOCK, "an upload"):
                    pass
            except Conflict:
                continue
            shutil.rmtree(other, ignore_errors=True)

    def close(self) -> None:
        """Let go of the folder and remove it."""
        self._held.close()
        shutil.rmtree(self._own, ignore_errors=True)

    def _open(self) -> None:
        if not self._own.is_dir():
            make_folder(self._own)
            self._held.enter_context(locked(self._own / _LOCK, "an upload"))
