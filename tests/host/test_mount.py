"""Our routes in a host's application: once, behind the host's own passwords, the same after every reload of its pages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from easyphoto.api import mount as mounting
from easyphoto.api.application import Below
from easyphoto.api.mount import options_for, serve_in
from easyphoto.jobs.host import Room
from easyphoto.jobs.store import NewJob
from easyphoto.orders import DrillOrder
from tests.api.rig import listening

LOGINS = (("anna", "secret"), ("ben", "other"))


def arguments(**said: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"api_auth": None, "listen": False, "server_name": None, "port": None, "share": False, **said})


@pytest.fixture(autouse=True)
def own_services() -> Iterator[None]:
    yield
    for service in mounting._services.values():
        service.close()
    mounting._services.clear()


def test_mounting_twice_adds_one_route_and_a_reload_shows_the_same_jobs(room: Room) -> None:
    first, second = FastAPI(), FastAPI()
    assert serve_in(first, room, arguments()) is serve_in(first, room, arguments())
    assert sum(isinstance(route, Below) for route in first.router.routes) == 1
    serve_in(second, room, arguments())
    with listening(first) as old, listening(second) as new, httpx.Client(trust_env=False) as client:
        job = room.store.submit(NewJob(order=DrillOrder()))
        for port in (old, new):
            shown = client.get(f"http://127.0.0.1:{port}/easyphoto/v1/jobs").json()["items"]
            assert [item["id"] for item in shown] == [job.id]
        models = client.get(f"http://127.0.0.1:{new}/easyphoto/v1/models").json()["items"]
        assert [(model["id"], model["default"]) for model in models] == [("plain.safetensors", True), ("base-256", False)]
        metrics = client.get(f"http://127.0.0.1:{new}/easyphoto/v1/metrics").text
        assert "easyphoto" in metrics


def statuses(app: FastAPI, **said: Any) -> list[int]:
    """Of a route of v1 and of the peer's three."""
    with listening(app) as port, httpx.Client(trust_env=False, base_url=f"http://127.0.0.1:{port}/easyphoto", **said) as client:
        older = [client.post(f"/easyphoto_{name}_forward", json={}).status_code for name in ("train", "infer", "video_infer")]
        return [client.get("/v1/jobs").status_code, *older]


def test_api_auth_is_asked_for_on_every_route(room: Room) -> None:
    app = FastAPI()
    serve_in(app, room, arguments(api_auth="anna:secret,ben:other"))
    assert statuses(app) == [401] * 4
    assert statuses(app, auth=("anna", "wrong")) == [401] * 4
    assert statuses(app, auth=("ben", "other")) == [200] * 4


def test_gradio_auth_closes_the_routes_too_and_a_login_of_the_page_opens_them(room: Room) -> None:
    app = FastAPI()
    app.tokens = {"t0ken": "anna"}  # type: ignore[attr-defined]
    serve_in(app, room, arguments(), LOGINS)
    assert statuses(app) == [401] * 4
    assert statuses(app, cookies={"access-token": "made-up"}) == [401] * 4
    assert statuses(app, cookies={"session": "t0ken"}) == [401] * 4
    for name in ("access-token", "access-token-unsecure", "access-token-unsecure-Xy12"):
        assert statuses(app, cookies={name: "t0ken"}) == [200] * 4
    assert statuses(app, auth=LOGINS[1]) == [200] * 4


def test_under_nowebui_where_no_page_can_be_logged_in_to_the_password_still_closes_them(room: Room) -> None:
    app = FastAPI()
    serve_in(app, room, arguments(), LOGINS)
    assert statuses(app, cookies={"access-token": "t0ken"}) == [401] * 4
    assert statuses(app, auth=LOGINS[0]) == [200] * 4


def test_a_real_gradio_lets_in_who_has_logged_in(room: Room) -> None:
    gradio = pytest.importorskip("gradio")

    async def make() -> FastAPI:  # outside of a running event loop Gradio makes loops that it never closes
        with gradio.Blocks(analytics_enabled=False) as page:
            gradio.Markdown("the host's own page")
        return gradio.mount_gradio_app(FastAPI(), page, path="/", auth=list(LOGINS))

    app = asyncio.run(make())
    inner = next(route.app for route in app.router.routes if hasattr(getattr(route, "app", None), "tokens"))
    app.tokens = inner.tokens  # a host's application is Gradio's own
    serve_in(app, room, arguments(), LOGINS)
    with listening(app) as port, httpx.Client(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/easyphoto/v1/jobs").status_code == 401
        assert client.post("/login", data={"username": "anna", "password": "secret"}).status_code == 200
        assert client.get("/easyphoto/v1/jobs").status_code == 200


def test_where_the_host_listens_decides_which_names_it_may_be_called_by() -> None:
    assert options_for(arguments()).is_loopback
    assert options_for(arguments(server_name="127.0.0.1", port=7865)).port == 7865
    assert not options_for(arguments(listen=True)).is_loopback
    assert not options_for(arguments(share=True)).is_loopback
    assert not options_for(arguments(nowebui=True)).is_loopback
    assert options_for(arguments(nowebui=True, server_name="127.0.0.1")).is_loopback
    assert not options_for(arguments(server_name="photos.example")).is_loopback
