"""`easyphoto serve` and `easyphoto tokens` as real processes, with a real worker behind the routes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from easyphoto.jobs.store import JobStore, NewJob
from easyphoto.orders import DrillOrder
from easyphoto.settings import PROJECT_ROOT
from easyphoto.store.templates import list_templates
from easyphoto.work import JobState

FIRST_LINE = re.compile(r"easyphoto: (http://[^ ]+/easyphoto/v1) \((.*)\)\n")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "easyphoto", *arguments]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "EASYPHOTO_HOME": str(home), "PYTHONUNBUFFERED": "1", "EASYPHOTO_DEVICE": "cpu"}


def said_by(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(home), cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@dataclass(frozen=True, kw_only=True)
class Running:
    process: subprocess.Popen[str]
    url: str
    about: str
    """What its first line says of the token."""
    output: list[str]
    """Everything it has printed."""

    def client(self) -> httpx.Client:
        token = self.about.rpartition(": ")[2]
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False)


@contextmanager
def running(home: Path, *arguments: str) -> Iterator[Running]:
    process = subprocess.Popen(
        command("serve", "--no-tabs", "--port", "0", *arguments), env=environment(home), cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    output: list[str] = []
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        output.append(first)
        found = FIRST_LINE.fullmatch(first)
        assert found, first
        reader = threading.Thread(target=lambda: output.extend(process.stdout or ()))
        reader.start()
        wait_for(lambda: answers(found[1]))
        yield Running(process=process, url=found[1], about=found[2], output=output)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)
        reader.join()
        if process.stdout:
            process.stdout.close()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def wait_for(true: Any, seconds: float = 60.0) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come true in time")


def ended(client: httpx.Client, job_id: str, seconds: float = 120.0) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
        return job if job["state"] in ("done", "failed", "cancelled") else None

    found: dict[str, Any] = wait_for(look, seconds)
    return found


def test_the_first_start_shows_a_token_that_no_later_start_and_no_log_shows(tmp_path: Path) -> None:
    with running(tmp_path, "--log-requests") as server, server.client() as client:
        token = str(client.headers["authorization"]).removeprefix("Bearer ")
        assert client.get("/jobs").status_code == 200
        assert client.get("/jobs", params={"token": token}).status_code == 422
        assert httpx.get(f"{server.url}/jobs?token={token}", trust_env=False).status_code == 401
        assert httpx.get(f"{server.url}/nothing?a={token}", trust_env=False).status_code == 401
    assert server.process.returncode == 0
    assert sum(token in line for line in server.output) == 1
    assert any("GET /easyphoto/v1/jobs 200" in line for line in server.output)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path
    with running(tmp_path) as server:
        assert "shown at the first start" in server.about
        assert httpx.get(f"{server.url}/jobs", headers={"Authorization": f"Bearer {token}"}, trust_env=False).status_code == 200
        assert token not in "".join(server.output)


def test_tokens_are_made_listed_and_removed(tmp_path: Path) -> None:
    token = said_by(tmp_path, "tokens", "add", "Anna").stdout.strip()
    assert len(token) >= 43
    made = json.loads(said_by(tmp_path, "tokens", "add", "Berta", "--json").stdout)
    assert made["name"] == "Berta"
    listed = said_by(tmp_path, "tokens", "list").stdout
    assert "Anna" in listed
    assert token not in listed
    assert "sha256" not in said_by(tmp_path, "tokens", "list", "--json").stdout
    assert said_by(tmp_path, "tokens", "remove", "Anna").returncode == 0
    assert said_by(tmp_path, "tokens", "remove", "Anna").returncode == 3
    assert said_by(tmp_path, "tokens", "add", "Berta").returncode == 4


def test_a_port_that_is_taken_and_an_open_door_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = said_by(tmp_path, "serve", "--port", str(port))
    assert (found.returncode, found.stderr) == (
        4, f"easyphoto: port {port} is taken by another program; choose another one with --port\n",
    )  # fmt: skip
    found = said_by(tmp_path, "serve", "--host", "::", "--no-auth")
    assert found.returncode == 2
    assert "--no-auth" in found.stderr
    assert said_by(tmp_path, "serve", "--host", "203.0.113.7").returncode == 2
    assert not (tmp_path / "tokens.json").exists()


def test_a_server_that_is_told_to_stop_ends_streams_and_worker_and_its_job_goes_on_next_time(tmp_path: Path) -> None:
    with running(tmp_path, "--no-auth") as server, server.client() as client:
        store = JobStore(tmp_path)
        job = store.submit(NewJob(order=DrillOrder(steps=1000, seconds=0.02, needs_gpu=False)))
        wait_for(lambda: store.get(job.id).state is JobState.RUNNING)
        assert "easyphoto_worker_alive 1.0" in client.get("/metrics").text
        with client.stream("GET", f"/jobs/{job.id}/events") as answer:
            lines = answer.iter_lines()
            assert any(line.startswith("event: progress") for line in lines)
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            for _ in lines:
                pass
            assert time.monotonic() - began < 3
        assert server.process.wait(40) == 0
    assert not any("Traceback" in line for line in server.output), "".join(server.output)
    waiting = store.get(job.id)
    assert waiting.state in (JobState.QUEUED, JobState.RUNNING)
    with running(tmp_path, "--no-auth") as server, server.client() as client:
        wait_for(lambda: client.get(f"/jobs/{job.id}").json()["state"] == "running")
        assert client.delete(f"/jobs/{job.id}").status_code == 202
        assert ended(client, job.id)["state"] == "cancelled"
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(40) == 0
    store.close()


def test_photos_are_judged_by_the_worker_and_the_verdicts_come_back(tmp_path: Path, sample_people: Path) -> None:
    photos = sorted((sample_people / "woman").glob("*.jpg"))[:4]
    files = [("photos", (path.name, path.read_bytes(), "image/jpeg")) for path in photos]
    files.append(("photos", ("no-picture.jpg", b"text", "image/jpeg")))
    with running(tmp_path) as server, server.client() as client:
        job = client.post("/checks", files=files).json()
        assert ended(client, job["id"])["state"] == "done"
        result = client.get(f"/results/{job['id']}").json()
        verdicts = {verdict["photo"]: verdict for verdict in result["verdicts"]}
        assert list(verdicts) == [*(path.name for path in photos), "no-picture.jpg"]
        assert sum(verdict["accepted"] for verdict in verdicts.values()) >= 3
        assert verdicts["no-picture.jpg"]["reason"] == "cannot be read"
        picture = client.get(f"/results/{job['id']}/files/{result['files'][0]['name']}")
        assert picture.status_code == 200
        kinds = [line for line in client.get(f"/jobs/{job['id']}/events").text.splitlines() if line.startswith("event: ")]
        assert kinds[-1] == "event: end"


@pytest.mark.slow
def test_a_person_is_trained_and_put_into_a_template_over_the_wire(tmp_path: Path, sample_people: Path) -> None:
    photos = sorted((sample_people / "woman").glob("*.jpg"))[:5]
    files = [("photos", (path.name, path.read_bytes(), "image/jpeg")) for path in photos]
    settings = {
        "lora": {"rank": 4, "alpha": 4}, "optim": {"max_steps": 4, "batch_size": 1}, "data": {"crops": 0},
        "validate": {"every": 0},
    }  # fmt: skip
    with running(tmp_path / "home") as server, server.client() as client:
        form = {"name": "Anna", "settings": json.dumps(settings), "consent": '{"given_by": "Anna", "given_at": "2026-07-01"}'}
        job = client.post("/people", data=form, files=files).json()
        assert ended(client, job["id"], 300)["state"] == "done", client.get(f"/jobs/{job['id']}").text
        [person] = client.get("/people").json()["items"]
        assert (person["name"], person["consent"]["given_by"]) == ("Anna", "Anna")
        gallery = list_templates(PROJECT_ROOT / "templates")[0]
        body = {
            "people": [person["id"]], "templates": [{"gallery": gallery.name}],
            "settings": {"first": {"steps": 2}, "second": None, "seed": 3},
        }  # fmt: skip
        job = client.post("/portraits", json=body).json()
        assert ended(client, job["id"], 300)["state"] == "done", client.get(f"/jobs/{job['id']}").text
        result = client.get(f"/results/{job['id']}").json()
        assert result["pictures"][0]["seed"] == 3
        picture = client.get(f"/results/{job['id']}/files/{result['pictures'][0]['file']}")
        assert picture.content[:8] == b"\x89PNG\r\n\x1a\n"
        assert client.get("/results", params={"person": person["id"]}).json()["items"][0]["id"] == job["id"]
        removed = client.delete(f"/people/{person['id']}", params={"results": "true"}).json()["removed"]
        assert any(path.endswith(".safetensors") for path in removed)
        assert client.get(f"/results/{job['id']}").status_code == 404
    shutil.rmtree(tmp_path / "home")
