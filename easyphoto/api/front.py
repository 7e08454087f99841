"""Pages of a server of our own: the routes below /easyphoto, the pages everywhere else, one door before both."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from easyphoto.api.application import ROOT, Below
from easyphoto.api.guard import check_host, check_origin
from easyphoto.api.options import ApiOptions, Rates
from easyphoto.api.problems import Refused
from easyphoto.api.rates import RateLimit
from easyphoto.errors import SpecError

AddPages = Callable[[FastAPI], object]
"""Adds pages to an application, at paths that are not ours."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
}
_LOGIN = "/login"
_TRIES = Rates(reads=0.2, reads_burst=10)
"""Logins that are tried from one address: ten, then one in five seconds. A password is not as long as a token."""
_SHORTEST_PASSWORD = 8


def with_pages(api: FastAPI, options: ApiOptions, add: AddPages) -> ASGIApp:
    """An application that shows pages around our routes, and lives as long as they do.

    Our routes have a guard of their own, stricter than the pages' door, and are reached past all that belongs to the pages.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with api.router.lifespan_context(api):
            yield

    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    add(outer)
    outer.add_middleware(Door, options=options)
    below = Below(ROOT, api)

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        await (api if below.is_ours(scope) else outer)(scope, receive, send)

    return front


def users_of(said: str) -> tuple[tuple[str, str], ...]:
    """(name, password) of each "NAME:PASSWORD"; several stand behind each other with commas, or in lines of their own.

    Raises:
        SpecError: One has no name, or a password that is guessed too soon.
    """
    users = []
    for pair in filter(None, (piece.strip() for line in said.splitlines() for piece in line.split(","))):
        name, colon, password = pair.partition(":")
        if not (name.strip() and colon):
            raise SpecError("--auth wants NAME:PASSWORD, several with commas between them; a password holds no comma")
        if len(password) < _SHORTEST_PASSWORD:
            raise SpecError(f"the password of {name.strip()} is too short; take one of {_SHORTEST_PASSWORD} letters or more")
        users.append((name.strip(), password))
    if said and not users:
        raise SpecError("--auth names nobody; say NAME:PASSWORD")
    return tuple(users)


class Doorman:
    """Knows names and passwords; its answer takes as long for a near miss as for a wild guess."""

    def __init__(self, users: Sequence[tuple[str, str]]) -> None:
        self._users = [f"{name}:{password}".encode() for name, password in users]

    def __call__(self, name: str, password: str) -> bool:
        """Whether somebody may come in."""
        said = f"{name}:{password}".encode("utf-8", "surrogatepass")
        # Every pair is looked at, so that the time does not tell which was nearly right.
        known = [hmac.compare_digest(said, user) for user in self._users]
        return any(known)


class Door:
    """Lets no page of elsewhere in: neither by a name of its own for this machine, nor by a form that it sends here.

    Nor anybody who tries one password after the other.

    Our routes have a stricter guard of their own behind it.
    """

    def __init__(self, app: ASGIApp, options: ApiOptions) -> None:
        self._app = app
        self._options = options
        self._tries = RateLimit(_TRIES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""

        async def send_dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] == "http":
            try:
                check_host(Request(scope), self._options)
                check_origin(Request(scope))
                self._count(scope)
            except Refused as error:
                await PlainTextResponse(f"{error}\n", error.http_status)(scope, receive, send_dressed)
                return
        await self._app(scope, receive, send_dressed)

    def _count(self, scope: Scope) -> None:
        if scope["method"] != "POST" or scope["path"].rstrip("/") != _LOGIN:
            return
        try:
            self._tries.take((scope.get("client") or ("",))[0], makes_job=False)
        except Refused as error:
            raise Refused(429, "too many tries to log in; wait a minute", error.headers) from error
