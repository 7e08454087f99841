"""The application: all routes behind the guard, by itself or inside a host's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from easyphoto.__version__ import __version__
from easyphoto.api import legacy
from easyphoto.api.auth import Anybody, Authenticator, ByToken
from easyphoto.api.document import describe, text
from easyphoto.api.guard import Guard
from easyphoto.api.options import Limits
from easyphoto.api.problems import add_handlers
from easyphoto.api.routes import jobs, people, portraits, results, scenes, server
from easyphoto.api.service import Service
from easyphoto.api.shortcut import Shortcut
from easyphoto.api.tokens import TokenStore

ROOT = "/easyphoto"
"""Everything of ours lies below it, the routes of the older extension too."""
ROUTERS = (people.router, scenes.router, portraits.router, jobs.router, results.router, server.router)


def create_app(
    service: Service, authenticator: Authenticator | None = None, background: AbstractContextManager[object] | None = None
) -> FastAPI:
    """The whole application.

    Args:
        service: What it serves.
        authenticator: Who may ask; by default tokens, or anybody where the options say so.
        background: Held as long as the application runs.
    """
    if authenticator is None:
        authenticator = Anybody() if service.options.no_auth else ByToken(TokenStore(service.settings.home))
    app = FastAPI(
        title="easyphoto", version=__version__, docs_url=None, redoc_url=None, openapi_url=None,
        lifespan=_lifespan(service, background or nullcontext()),
    )  # fmt: skip
    app.state.service = service
    app.router.redirect_slashes = False
    older = APIRouter()
    legacy.add_routes(older, service)
    for router in (*ROUTERS, older):
        app.include_router(router)
    app.state.routes = tuple(route for router in (*ROUTERS, older) for route in router.routes)
    add_handlers(app)
    app.add_middleware(Shortcut, routes=[route for route in app.state.routes if isinstance(route, APIRoute)])
    app.add_middleware(Guard, service=service, authenticator=authenticator)
    return app


def document_text() -> str:
    """The OpenAPI document as it lies in docs/openapi.json."""
    app = FastAPI(openapi_url=None)
    for router in ROUTERS:
        app.include_router(router)
    return text(describe(app, Limits()))


def mount(host: FastAPI, service: Service, authenticator: Authenticator) -> FastAPI:
    """Add all routes to a host's application, once; nothing of the host's is changed, no handler, no middleware.

    The host's own life is not ours: call `service.close` when it ends, and hold a `jobs.supervisor.Supervisor` for the worker.

    Returns:
        Our application inside the host's: the one that was mounted first, if one was.
    """
    for route in host.router.routes:
        if isinstance(route, Below):
            return route.app
    app = create_app(service, authenticator)
    service.uploads.sweep()
    # In front: a host may have a route that takes every path.
    host.router.routes.insert(0, Below(ROOT, app))
    return app


class Below(BaseRoute):
    """Hands everything below a path to an application, the path left as it is.

    Starlette's own `Mount` cuts the path off, and how it does so changed between the versions we live with.
    """

    def __init__(self, root: str, app: FastAPI) -> None:
        self.root = root
        self.app = app
        self.name = "easyphoto"

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is ours, as Starlette asks it."""
        return (Match.FULL if self.is_ours(scope) else Match.NONE), {}

    def is_ours(self, scope: Scope) -> bool:
        """Whether a request is for something below the path."""
        if scope["type"] != "http":
            return False
        path: str = scope["path"]
        return path == self.root or path.startswith(f"{self.root}/")

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let our application answer."""
        await self.app(scope, receive, send)


def _lifespan(
    service: Service, background: AbstractContextManager[object]
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(service.uploads.sweep)
        await run_in_threadpool(background.__enter__)
        service.hub.start()
        try:
            yield
        finally:
            service.hub.close()
            await run_in_threadpool(background.__exit__, None, None, None)

    return lifespan
