"""Our routes inside a WebUI's server: the service once, mounted into each application that the WebUI makes at a reload."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request

from easyphoto.api import auth
from easyphoto.api.application import mount
from easyphoto.api.options import ApiOptions
from easyphoto.api.service import BaseModel, Service
from easyphoto.api.webhooks import Dispatcher
from easyphoto.jobs.store import JobStore
from easyphoto.settings import Settings

FindModels = Callable[[], Iterable[Any]]
"""The host's base models; each has `id`, `family` and `path`."""
Pairs = Sequence[tuple[str, str]]
"""Names and passwords."""


class HostService(Service):
    """What the routes work with, where the base models are a host's."""

    def __init__(self, settings: Settings, options: ApiOptions, store: JobStore, worker_alive: Callable[[], bool]) -> None:
        super().__init__(settings, options, store, worker_alive)
        self.find_models: FindModels = tuple

    def models(self) -> tuple[BaseModel, ...]:
        """The host's, its chosen one first."""
        return tuple(BaseModel(id=model.id, family=model.family, path=model.path) for model in self.find_models())


_services: dict[JobStore, HostService] = {}
_making = threading.Lock()


def serve_in(app: FastAPI, room: Any, arguments: Any, logins: Pairs = ()) -> FastAPI:  # noqa: ANN401 (jobs.host.Room, the host's)
    """Mount our routes in an application of the host's, once; the service behind them is the same after every reload.

    Args:
        app: The host's; a new one after "Reload UI".
        room: Our room in this process, a `jobs.host.Room`.
        arguments: The host's command line, `shared.cmd_opts`.
        logins: Names and passwords of the host's own pages (`--gradio-auth`).

    Returns:
        Our application inside the host's.
    """
    with _making:
        service = _services.get(room.store)
        if service is None:
            service = HostService(room.settings, options_for(arguments), room.store, lambda: room.runner.alive)
            service.find_models = room.base_models
            Dispatcher(room.store).start()
            _services[room.store] = service
    return mount(app, service, authenticator_for(app, getattr(arguments, "api_auth", None), logins))


def options_for(arguments: Any) -> ApiOptions:  # noqa: ANN401 (the host's own class)
    """Where the host can be reached from: by this machine alone, or by others, under names that we do not know."""
    said = {name: getattr(arguments, name, None) for name in ("server_name", "listen", "share", "ngrok", "nowebui", "port")}
    # Under --nowebui the hosts listen on all addresses, whether --listen was said or not.
    elsewhere = said["listen"] or said["share"] or said["ngrok"] or (said["nowebui"] and not said["server_name"])
    host = "0.0.0.0" if elsewhere else said["server_name"] or "127.0.0.1"  # noqa: S104 (the host listens, not we)
    return ApiOptions(host=str(host), port=said["port"] or 7860)


def authenticator_for(app: FastAPI, api_auth: str | None, logins: Pairs) -> auth.Authenticator:
    """Who may ask: as `--api-auth` and `--gradio-auth` say; a login of the pages is also taken as a password.

    So that the routes stay closed under `--nowebui`, where there is no page to log in at.
    """
    pairs = ",".join([*filter(None, [api_auth]), *(f"{name}:{password}" for name, password in logins)])
    return auth.for_host(pairs or None, (lambda request: user_of(app, request)) if logins else None)


def user_of(app: FastAPI, request: Request) -> str | None:
    """Who has logged in to the host's pages with this request's cookies, as Gradio remembers it; None for nobody.

    Gradio 3 calls its cookie `access-token`, Gradio 4 adds an id of the server's; each has a twin for plain HTTP.
    """
    tokens = getattr(app, "tokens", None)
    if not isinstance(tokens, dict):
        return None
    said = [value for name, value in request.cookies.items() if name.startswith("access-token")]
    return next((str(tokens[value]) for value in said if value in tokens), None)
