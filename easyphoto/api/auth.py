"""Who asks: by a token of ours, by the WebUI's own users, or anybody where that was said."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Sequence
from typing import Protocol

from starlette.datastructures import Headers
from starlette.requests import Request

from easyphoto.api.tokens import TokenStore
from easyphoto.work import LOCAL_OWNER


class Authenticator(Protocol):
    """Finds out whose request this is."""

    challenge: str
    """What `WWW-Authenticate` says to those who are refused."""

    def owner(self, request: Request) -> str | None:
        """Whose request it is; None refuses it with 401."""


class Anybody:
    """Everybody is the local owner: for a server that this machine alone can reach, and a WebUI without a password."""

    challenge = ""

    def owner(self, request: Request) -> str | None:  # noqa: ARG002 (it does not matter)
        """The local owner."""
        return LOCAL_OWNER


class ByToken:
    """`Authorization: Bearer TOKEN`, and nothing else: no cookie, no query."""

    challenge = 'Bearer realm="easyphoto"'

    def __init__(self, tokens: TokenStore) -> None:
        self._tokens = tokens

    def owner(self, request: Request) -> str | None:
        """The token's owner."""
        token = _credentials(request.headers, "bearer")
        return None if token is None else self._tokens.owner(token)


class ByPassword:
    """`Authorization: Basic ...` of a WebUI's `--api-auth user:password,...`; its users share what the tabs show."""

    challenge = 'Basic realm="easyphoto"'

    def __init__(self, users: Sequence[tuple[str, str]]) -> None:
        self._users = [f"{name}:{password}".encode() for name, password in users]

    def owner(self, request: Request) -> str | None:
        """The local owner, for whoever knows a name and its password."""
        coded = _credentials(request.headers, "basic")
        if coded is None:
            return None
        try:
            said = base64.b64decode(coded, validate=True)
        except (binascii.Error, ValueError):
            return None
        # Every pair is looked at, so that the time does not tell which was nearly right.
        known = [hmac.compare_digest(said, user) for user in self._users]
        return LOCAL_OWNER if any(known) else None


class ByHost:
    """Whoever has logged in to the host's own pages (`--gradio-auth`), as the host itself knows them."""

    challenge = 'Session realm="easyphoto"'

    def __init__(self, user: Callable[[Request], str | None]) -> None:
        self._user = user

    def owner(self, request: Request) -> str | None:
        """The local owner, for anybody whom the host knows."""
        return LOCAL_OWNER if self._user(request) else None


class AnyOf:
    """Several ways, each of which is enough."""

    def __init__(self, ways: Sequence[Authenticator]) -> None:
        self._ways = tuple(ways)
        self.challenge = ", ".join(way.challenge for way in ways if way.challenge)

    def owner(self, request: Request) -> str | None:
        """The owner by the first way that knows one."""
        return next((found for way in self._ways if (found := way.owner(request)) is not None), None)


def for_host(
    api_auth: str | None, user: Callable[[Request], str | None] | None = None
) -> Authenticator:
    """As a WebUI was told: `--api-auth` as its text ("name:password,name:password"), and who is logged in by `--gradio-auth`.

    Where the WebUI asks nobody, neither do we; where it has both, either is enough.
    """
    ways: list[Authenticator] = []
    if api_auth:
        pairs = [pair.strip().partition(":") for pair in api_auth.split(",")]
        ways.append(ByPassword([(name, password) for name, colon, password in pairs if colon]))
    if user is not None:
        ways.append(ByHost(user))
    return AnyOf(ways) if ways else Anybody()


def _credentials(headers: Headers, scheme: str) -> str | None:
    said, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() if said.lower() == scheme and credentials.strip() else None
