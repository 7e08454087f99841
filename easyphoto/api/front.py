"""Pages of a server of our own: the routes below /easyphoto, the pages everywhere else, one door before both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from easyphoto.api.application import ROOT, Below
from easyphoto.api.guard import check_host, check_origin
from easyphoto.api.options import ApiOptions
from easyphoto.api.problems import Refused

AddPages = Callable[[FastAPI], object]
"""Adds pages to an application, at paths that are not ours."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
}


def with_pages(api: FastAPI, options: ApiOptions, add: AddPages) -> FastAPI:
    """An application that shows pages around our routes, and lives as long as they do."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with api.router.lifespan_context(api):
            yield

    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    add(outer)
    # In front: the pages take every path.
    outer.router.routes.insert(0, Below(ROOT, api))
    outer.add_middleware(Door, options=options)
    return outer


class Door:
    """Lets no page of elsewhere in: neither by a name of its own for this machine, nor by a form that it sends here.

    Our routes have a stricter guard of their own behind it.
    """

    def __init__(self, app: ASGIApp, options: ApiOptions) -> None:
        self._app = app
        self._options = options

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
            except Refused as error:
                await PlainTextResponse(f"{error}\n", error.http_status)(scope, receive, send_dressed)
                return
        await self._app(scope, receive, send_dressed)
