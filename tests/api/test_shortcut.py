"""The short way to routes that read nothing but their path answers as FastAPI's own way does."""

from __future__ import annotations

import httpx
import pytest

from easyphoto.api.shortcut import Shortcut
from easyphoto.jobs.store import NewJob
from easyphoto.orders import DrillOrder
from tests.api.rig import Rig

JOB = "JOB"
ASKED = (
    ("GET", f"/jobs/{JOB}", {}),
    ("GET", f"/jobs/{'0' * 16}", {}),
    ("GET", f"/jobs/{JOB}/", {}),
    ("GET", "/jobs//files/a.png", {}),
    ("GET", f"/jobs/{JOB}/files/..%2forder.json", {}),
    ("GET", f"/jobs/{JOB}/files/%F0%9F%98%80.png", {}),
    ("GET", f"/jobs/{JOB}?more=1", {}),
    ("PUT", f"/jobs/{JOB}", {}),
    ("HEAD", f"/jobs/{JOB}", {}),
    ("GET", "/models", {}),
    ("GET", "/people/nobody", {}),
    ("GET", "/people", {}),
    ("PATCH", "/people/nobody", {"json": {"name": ""}}),
    ("DELETE", "/people/nobody", {}),
    ("GET", "/results/nothing/files/x.png", {}),
    ("POST", "/checks", {"json": {"photos": []}}),
    ("POST", "/checks", {"json": {"photo": []}}),
    ("POST", "/checks", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    ("POST", "/checks", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
    ("POST", "/portraits", {"json": {"people": ["nobody"], "templates": [{"gallery": "none"}]}}),
    ("GET", "/nothing/here", {}),
)


def told(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    return answer.status_code, answer.content, {name: value for name, value in answer.headers.items() if name != "date"}


@pytest.mark.parametrize(("method", "path", "more"), ASKED, ids=[f"{method} {path}" for method, path, _ in ASKED])
def test_both_ways_answer_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, method: str, path: str, more: dict
) -> None:
    job = rig.service.store.submit(NewJob(order=DrillOrder(steps=1)))
    path = path.replace(JOB, job.id)
    short = told(rig.mine.request(method, path, **more))
    with monkeypatch.context() as patch:
        patch.setattr(Shortcut, "_find", lambda *_: None)
        assert told(rig.mine.request(method, path, **more)) == short


def test_what_is_asked_the_short_way_is_counted_by_its_route(rig: Rig) -> None:
    job = rig.service.store.submit(NewJob(order=DrillOrder(steps=1)))
    for _ in range(3):
        assert rig.mine.get(f"/jobs/{job.id}").json()["id"] == job.id
    counted = 'easyphoto_requests_total{method="GET",route="/easyphoto/v1/jobs/{job_id}",status="200"} 3.0'
    assert counted in rig.mine.get("/metrics").text.splitlines()


def test_the_short_way_is_taken(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("FastAPI was asked")

    monkeypatch.setattr("fastapi.routing.APIRoute.handle", refuse)
    job = rig.service.store.submit(NewJob(order=DrillOrder(steps=1)))
    assert rig.mine.get(f"/jobs/{job.id}").status_code == 200
    assert rig.mine.get("/jobs").status_code == 500
