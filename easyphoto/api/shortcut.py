"""The short way to routes that read nothing but their path: past the layers that FastAPI has for all others.

Two thirds of what a question for a job's state costs were those layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_type_hints

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send


class Shortcut:
    """A middleware that calls such a route's function itself; everything else goes on as always.

    It stands behind the guard, which answers for whatever the function raises.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[APIRoute]) -> None:
        """Args: what answers everything else; all its routes, in the order in which they are tried."""
        self._app = app
        self._ways: dict[tuple[str, int], list[_Way]] = {}
        for route in routes:
            way = _Way(route=route, parts=tuple(route.path.split("/")), short=_reads_its_path_alone(route))
            for method in route.methods or ():
                self._ways.setdefault((method, len(way.parts)), []).append(way)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        # A query is refused by name, or read, by the long way.
        way = None if scope["type"] != "http" or scope["query_string"] or scope.get("root_path") else self._find(scope)
        if way is None or not way.short:
            await self._app(scope, receive, send)
            return
        scope["route"] = way.route
        said = zip(way.parts, scope["path"].split("/"))
        named = {part[1:-1]: word for part, word in said if part.startswith("{")}
        response = await way.route.endpoint(Request(scope, receive, send), **named)
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> _Way | None:
        """The way to the first route that takes the request."""
        said = scope["path"].split("/")
        for way in self._ways.get((scope["method"], len(said)), ()):
            if all(part == word or (word and part.startswith("{")) for part, word in zip(way.parts, said)):
                return way
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Way:
    route: APIRoute
    parts: tuple[str, ...]
    """Of its path, those in braces standing for any word."""
    short: bool


def _reads_its_path_alone(route: APIRoute) -> bool:
    """Whether the route's function takes the request and pieces of the path, as they are, and returns the response itself."""
    kinds, parts = get_type_hints(route.endpoint), route.path.split("/")
    names = list(inspect.signature(route.endpoint).parameters)
    if not inspect.iscoroutinefunction(route.endpoint) or kinds.get("return") is not Response or route.dependencies:
        return False
    asks = bool(names) and kinds.get(names[0]) is Request
    return asks and all(kinds.get(name) is str and f"{{{name}}}" in parts for name in names[1:])
