"""Who may use the routes: one token for each owner, kept as SHA-256 alone, in `tokens.json` of the home."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from easyphoto.errors import Conflict, InputError, NotFound, SpecError
from easyphoto.files import storage_error, write_text
from easyphoto.store.codec import dumps, loads
from easyphoto.store.locks import locked
from easyphoto.store.paths import check_name, make_folder, person_id
from easyphoto.work import LOCAL_OWNER

FILE = "tokens.json"


@dataclass(frozen=True, kw_only=True)
class TokenEntry:
    """One token, without the token."""

    name: str
    owner: str
    """Whose people, jobs and results it opens: "local", or the name of a folder in the home's `owners`."""
    sha256: str
    created: str
    """ISO 8601, UTC."""


@dataclass(frozen=True, kw_only=True)
class TokenFile:
    """What `tokens.json` holds."""

    tokens: tuple[TokenEntry, ...] = ()


class TokenStore:
    """Reads and writes the tokens of one home; a running server sees a change at the next request."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE
        self._seen: tuple[int, int, int] | None = None
        self._entries: tuple[TokenEntry, ...] = ()

    @property
    def exists(self) -> bool:
        """Tokens were made for this home before."""
        return self.path.is_file()

    def list(self) -> tuple[TokenEntry, ...]:
        """All tokens, oldest first.

        Raises:
            InputError: The file is broken.
        """
        mark = self._mark()
        if mark != self._seen:
            self._entries = self._read() if mark else ()
            self._seen = mark
        return self._entries

    def owner(self, token: str) -> str | None:
        """Whose token this is; takes the same time whichever it is, and for none at all."""
        digest = _digest(token)
        found = None
        for entry in self.list():
            if hmac.compare_digest(digest.encode(), entry.sha256.encode()):
                found = entry.owner
        return found

    def add(self, name: str) -> str:
        """Make a token and return it; it is shown nowhere again.

        The same name has the same owner, also after its token was removed and made anew.

        Raises:
            Conflict: There is a token of that name.
            NameRefused: Nobody can have that name.
            StorageError: It cannot be written.
        """
        kept = check_name(name)
        owner = LOCAL_OWNER if kept == LOCAL_OWNER else person_id(kept)
        token = secrets.token_urlsafe(32)
        made = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._change():
            if any(entry.owner == owner for entry in self.list()):
                raise Conflict(f"there is a token of the name {kept!r}; remove it first, or choose another name")
            entry = TokenEntry(name=kept, owner=owner, sha256=_digest(token), created=made)
            self._write((*self.list(), entry))
        return token

    def remove(self, name: str) -> None:
        """Make a token worthless; what its owner has stays.

        Raises:
            NotFound: There is no token of that name.
        """
        kept = check_name(name)
        with self._change():
            left = tuple(entry for entry in self.list() if entry.name != kept)
            if len(left) == len(self.list()):
                raise NotFound(f"there is no token of the name {kept!r}; see easyphoto tokens list")
            self._write(left)

    def _change(self) -> AbstractContextManager[None]:
        return locked(self.path.with_suffix(".lock"), "a change of the tokens")

    def _mark(self) -> tuple[int, int, int] | None:
        """Something that is another whenever the file was written."""
        with suppress(OSError):
            found = self.path.stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
        return None

    def _read(self) -> tuple[TokenEntry, ...]:
        try:
            return loads(TokenFile, self.path.read_text(encoding="utf-8")).tokens
        except (OSError, ValueError, SpecError) as error:
            raise InputError(f"{self.path} cannot be read ({error}); correct it, or remove it and make new tokens") from error

    def _write(self, entries: tuple[TokenEntry, ...]) -> None:
        make_folder(self.path.parent)
        write_text(self.path, dumps(TokenFile(tokens=entries)))
        try:
            self.path.chmod(0o600)
        except OSError as error:
            raise storage_error(self.path, error) from error


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
