"""Our routes inside a host's application: there, and nothing else changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from easyphoto.api import auth
from easyphoto.api.application import mount
from easyphoto.api.options import ApiOptions
from easyphoto.api.service import Service
from easyphoto.jobs.folders import End, now
from easyphoto.jobs.store import NewJob
from easyphoto.jobs.turns import Turns
from easyphoto.orders import DrillOrder
from easyphoto.work import JobState
from tests.api.rig import UNHURRIED, listening, problem_of, settings_in


class Item(BaseModel):
    size: int


def make_host() -> FastAPI:
    host = FastAPI()

    @host.post("/sdapi/item")
    def item(given: Item) -> dict[str, int]:
        return {"size": given.size}

    @host.get("/sdapi/broken")
    def broken() -> None:
        raise RuntimeError("the host's own")

    @host.get("/{path:path}")
    def everything(path: str) -> dict[str, str]:
        return {"host": path}

    return host


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(settings_in(tmp_path / "home"), ApiOptions(host="::", rates=UNHURRIED))
    yield made
    made.close()


def test_our_routes_answer_and_the_hosts_answer_as_before(service: Service) -> None:
    plain, host = make_host(), make_host()
    ours = mount(host, service, auth.for_host(None))
    assert mount(host, service, auth.for_host(None)) is ours
    assert len(host.router.routes) == len(plain.router.routes) + 1
    assert host.user_middleware == plain.user_middleware
    assert set(host.exception_handlers) == set(plain.exception_handlers)
    with listening(plain) as before, listening(host) as after, httpx.Client(trust_env=False) as client:
        for method, path, body in (
            ("POST", "/sdapi/item", {"size": 3}), ("POST", "/sdapi/item", {"size": "x"}), ("PUT", "/sdapi/item", None),
            ("GET", "/sdapi/broken", None), ("GET", "/anything", None), ("GET", "/easyphotos", None), ("GET", "/docs", None),
        ):  # fmt: skip
            one, two = (
                httpx.request(method, f"http://127.0.0.1:{port}{path}", json=body, trust_env=False) for port in (before, after)
            )
            assert (one.status_code, one.content) == (two.status_code, two.content)
            assert set(one.headers) == set(two.headers)
        url = f"http://127.0.0.1:{after}/easyphoto/v1"
        assert client.get(f"{url}/health").json() == {"status": "ok"}
        assert client.get(f"{url}/jobs").json() == {"items": [], "next": None}
        assert problem_of(client.get(f"{url}/nothing"), 404)
        assert problem_of(client.get(f"http://127.0.0.1:{after}/easyphoto"), 404)
        assert client.get(f"{url}/openapi.json").json()["paths"]
        assert "/easyphoto/v1/jobs" not in client.get(f"http://127.0.0.1:{after}/openapi.json").json()["paths"]


def test_streams_work_in_a_host_that_knows_nothing_of_them(service: Service) -> None:
    host = make_host()
    mount(host, service, auth.for_host(None))
    job = service.store.submit(NewJob(order=DrillOrder()))
    turns = Turns(service.store)
    turn = turns.claim(only=job.id)
    assert turn is not None
    with (
        listening(host) as port,
        httpx.stream("GET", f"http://127.0.0.1:{port}/easyphoto/v1/jobs/{job.id}/events", trust_env=False) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines).startswith("retry")
        time.sleep(0.3)
        turns.finish(turn, End(state=JobState.CANCELLED, ended=now(), started=turn.job.started, attempt=1))
        assert "event: end" in list(lines)


def test_a_hosts_password_is_asked_for(service: Service) -> None:
    host = make_host()
    mount(host, service, auth.for_host("anna:secret"))
    with listening(host) as port, httpx.Client(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}/easyphoto/v1/jobs"
        assert client.get(url, auth=("anna", "secret")).status_code == 200
        refused = client.get(url, auth=("anna", "wrong"))
        assert problem_of(refused, 401)
        assert refused.headers["www-authenticate"].startswith("Basic")
        assert client.get(f"http://127.0.0.1:{port}/anything").status_code == 200
        # A browser would send the password along with a foreign page's request.
        assert client.delete(f"{url}/x", auth=("anna", "secret"), headers={"Origin": "http://evil.example"}).status_code == 403
