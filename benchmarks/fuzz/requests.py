"""Raw requests into the whole application, in this process: never a 5xx, always a problem document for a refusal.

An input is a request as HTTP/1.1 writes it, its lines ended by \\n: method and target, headers, an empty line, the body.
`{job}` in the target stands for a job that is there.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import random
import re
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import unquote

import numpy as np

from benchmarks.fuzz.broken_json import spoil
from benchmarks.fuzz.target import Mutate, Target
from easyphoto.api.application import create_app
from easyphoto.api.options import ApiOptions, Rates
from easyphoto.api.service import Service
from easyphoto.families import Family
from easyphoto.files import write_bytes, write_text
from easyphoto.imaging.io import encode_png
from easyphoto.jobs.store import JobQuery, NewJob
from easyphoto.orders import DrillOrder
from easyphoto.settings import PROJECT_ROOT, Settings
from easyphoto.specs import Person
from easyphoto.store.codec import dumps
from easyphoto.store.lora_file import LoraFile, write_lora
from easyphoto.store.paths import Home, person_id

with contextlib.suppress(ImportError):
    import pillow_heif  # noqa: F401 (now, before memory is limited)
PREFIX = "/easyphoto/v1"
_MEMORY = Path("/dev/shm")  # noqa: S108 (where it exists, it spares the disk)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_OWN = (b"host", b"content-length")
_PATIENCE = 10
_MOST_JOBS = 100
_LONGEST_DETAIL = 2000
_PNG = encode_png(np.zeros((2, 3, 3), np.uint8))


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


class _Keep(logging.Handler):
    """Keeps the errors that were logged whole: those that nobody foresaw."""

    def __init__(self, kept: list[BaseException]) -> None:
        super().__init__()
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self._kept.append(record.exc_info[1])


class Server:
    """The application over a home in memory, with one person and one job, and no worker."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-api-", dir=_MEMORY if _MEMORY.is_dir() else None)
        self.home = Home(Path(self._folder.name)).make()
        settings = Settings(
            home=self.home.root, base_model=PROJECT_ROOT / "models" / "base-256", templates=PROJECT_ROOT / "templates",
            device="cpu",
        )  # fmt: skip
        self.service = Service(settings, ApiOptions(no_auth=True, rates=Rates(reads=0, posts=0)))
        self.app = create_app(self.service)
        self.loop = asyncio.new_event_loop()
        self.unforeseen: list[BaseException] = []
        logging.getLogger("easyphoto.api.problems").addHandler(_Keep(self.unforeseen))
        self.tidy()

    def ask(self, scope: dict[str, Any], body: bytes) -> Answer:
        """The answer to one request; whoever asked hangs up when the body is sent."""
        found, pieces = Answer(), [body[: len(body) // 2], body[len(body) // 2 :]]

        async def receive() -> dict[str, Any]:
            if not pieces:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Any) -> None:  # noqa: ANN401 (ASGI's own kind)
            if message["type"] == "http.response.start":
                assert not found.status, "two answers to one request"
                found.status, found.headers = message["status"], dict(message["headers"])
            else:
                found.body += message.get("body", b"")

        self.unforeseen.clear()
        with mock.patch("socket.getaddrinfo", _somewhere), mock.patch("easyphoto.api.legacy._LOOK", 0.01):
            self.loop.run_until_complete(asyncio.wait_for(self.app(scope, receive, send), _PATIENCE))
        if self.unforeseen:
            raise AssertionError(f"{found.status}: {scope['method']} {scope['path']}") from self.unforeseen[0]
        return found

    def close(self) -> None:
        """Let go of everything, and remove the home."""
        self.service.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self._folder.cleanup()

    def tidy(self) -> None:
        """The person and the job are there again, and not too many others."""
        if not (self.home.people / person_id("Anna") / "person.json").exists():
            self._publish("Anna")
        jobs = self.service.store.list(JobQuery(limit=_MOST_JOBS))
        if len(jobs) == _MOST_JOBS:
            for job in jobs:
                self.service.store.cancel(job.id)
            self.service.store.forget([job.id for job in jobs])
            jobs = ()
        self.job = jobs[-1].id if jobs else self.service.store.submit(NewJob(order=DrillOrder())).id

    def _publish(self, name: str) -> None:
        folder = self.home.people / person_id(name)
        folder.mkdir(parents=True)
        write_lora(folder / "a.safetensors", LoraFile(tensors={"a.lora_down.weight": np.ones((1, 1), np.float32)}))
        write_bytes(folder / "reference.png", _PNG)
        write_text(folder / "verdicts.json", "[]")
        write_text(folder / "person.json", dumps(Person(
            name=name, person_id=person_id(name), folder=Path(), family=Family.EMBEDDED, lora=Path("a.safetensors"),
            reference=Path("reference.png"), face_id_picture=Path("reference.png"), embedding=(0.0,) * 128,
            created="2026-11-21T00:00:00+00:00",
        )))  # fmt: skip


_ask_for = socket.getaddrinfo


def _somewhere(host: object, port: object, *more: Any, **named: Any) -> Any:  # noqa: ANN401 (the signature of socket's own)
    """Every name lies at one public address, so that nobody is asked; what is an address already stays."""
    try:
        return _ask_for(host, port, *more, **{**named, "flags": socket.AI_NUMERICHOST})  # type: ignore[arg-type]
    except socket.gaierror:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port or 0))]


@cache
def server() -> Server:
    """The one application of this process."""
    return Server()


def check(data: bytes) -> None:
    """Ask, and hold the answer against what every answer keeps."""
    here = server()
    scope, body = _request(data, here.job)
    answer = here.ask(scope, body)
    assert 200 <= answer.status < 500, f"{answer.status}: {answer.body[:300]!r}"
    for name, value in answer.headers.items():
        assert _TOKEN.fullmatch(name), f"a header called {name!r}"
        assert not _CONTROL.search(value), f"the header {name!r} is {value!r}"
    if answer.status >= 400:
        _check_problem(answer)
    if answer.status == 202 and scope["method"] == "POST":
        job = json.loads(answer.body)
        here.service.store.order(job["id"])
        assert answer.headers[b"location"].endswith(job["id"].encode())
    if scope["method"] in ("POST", "PATCH", "DELETE") and answer.status < 400:
        here.tidy()


def _check_problem(answer: Answer) -> None:
    assert answer.headers[b"content-type"].startswith(b"application/problem+json"), answer.headers
    problem = json.loads(answer.body)
    assert set(problem) == {"type", "title", "status", "detail", "instance", "code", "errors"}
    assert problem["status"] == answer.status
    assert 0 < len(problem["detail"]) <= _LONGEST_DETAIL, f"a detail of {len(problem['detail'])} characters"
    for fault in problem["errors"]:
        assert set(fault) == {"field", "message"}
        assert 0 < len(fault["message"]) <= _LONGEST_DETAIL


def _request(data: bytes, job: str) -> tuple[dict[str, Any], bytes]:
    """The ASGI scope as a server makes it of a request; what no server would let pass is left out."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, rest = first.partition(b" ")
    target = re.sub(rb"[^\x21-\x7e]", b"", rest).replace(b"{job}", job.encode()) or b"/"
    path, _, query = target.partition(b"?")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    kept = [
        (name, value) for name, value in headers
        if _TOKEN.fullmatch(name) and name not in _OWN and not _CONTROL.search(value)
    ]  # fmt: skip
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "http",
        "method": method.decode().upper() if re.fullmatch(rb"[A-Za-z]{1,20}", method) else "POST",
        "path": unquote(path.decode("ascii")), "raw_path": path, "query_string": query, "root_path": "",
        "headers": [(b"host", b"127.0.0.1:7861"), (b"content-length", str(len(body)).encode()), *kept],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 7861),
    }, body  # fmt: skip


def seeds() -> dict[str, bytes]:
    """One request to every route, and each kind of body."""
    made = {f"get-{number}": f"GET {PREFIX}{path}\n\n".encode() for number, path in enumerate(_GETS)}
    for name, (method, path, body) in _json_requests().items():
        made[name] = f"{method} {PREFIX}{path}\nContent-Type: application/json\n\n".encode() + json.dumps(body).encode()
    made.update(_forms())
    made["delete-job"] = f"DELETE {PREFIX}/jobs/{{job}}\n\n".encode()
    made["delete-person"] = f"DELETE {PREFIX}/people/{person_id('Anna')}?results=true\n\n".encode()
    made["delete-result"] = f"DELETE {PREFIX}/results/{{job}}\n\n".encode()
    for name in ("train", "infer", "video_infer"):
        made[f"legacy-{name}"] = f"POST /easyphoto/easyphoto_{name}_forward\n\n".encode() + json.dumps(_LEGACY).encode()
    made["foreign"] = f"POST {PREFIX}/checks\nOrigin: http://evil.example\n\n{{}}".encode()
    return made


_ANNA = person_id("Anna")
_GETS = (
    "/people", "/people?limit=1&cursor=x", f"/people/{_ANNA}", f"/people/{_ANNA}/photos", f"/people/{_ANNA}/reference", "/jobs",
    "/jobs?state=queued&kind=drill&person=Anna&limit=2", "/jobs/{job}", "/jobs/{job}/events?after=3", "/jobs/{job}/files/a.png",
    "/results", "/results/{job}", "/results/{job}/files/a.png", "/templates", "/models", "/health", "/metrics",
)
_LEGACY: dict[str, object] = {
    "user_id": "Ben", "user_ids": ["Anna"], "sd_model_checkpoint": "base-256", "resolution": 512, "max_train_steps": 800,
    "instance_images": [base64.b64encode(_PNG).decode()], "init_image": base64.b64encode(_PNG).decode(), "seed": -1,
    "first_diffusion_steps": 50, "first_denoising_strength": 0.45, "color_shift_middle": True,
}  # fmt: skip


def _json_requests() -> dict[str, tuple[str, str, object]]:
    picture = {"name": "a.png", "data": base64.b64encode(_PNG).decode()}
    consent = {"given_by": "Anna", "given_at": "2026-11-21", "note": ""}
    settings = {
        "lora": {"rank": 4, "alpha": 2.0}, "optim": {"max_steps": 2}, "data": {"size": 64}, "validate": {"every": 0},
        "seed": 1, "base_model": "base-256",
    }  # fmt: skip
    people = {"name": "Ben", "photos": [picture, picture], "settings": settings, "take": ["a.png"], "consent": consent}
    portraits = {
        "people": [_ANNA, None], "templates": [picture], "priority": 1,
        "settings": {"seed": None, "count": 2, "first": {"weights": [["canny", 0.5]]}, "second": None},
    }  # fmt: skip
    return {
        "people": ("POST", "/people", {**people, "retouch": True, "replace": False, "priority": -1}),
        "webhook": ("POST", "/checks", {"photos": [picture], "webhook": "https://example.org/hook"}),
        "url": ("POST", "/checks", {"photos": [{"url": "http://127.0.0.1/a.png"}]}),
        "portraits": ("POST", "/portraits", portraits),
        "change": ("PATCH", f"/people/{_ANNA}", {"consent": consent}),
    }


def _forms() -> Iterator[tuple[str, bytes]]:
    people = {b'name="name"': b"Ben", b'name="settings"': b'{"lora": {"rank": 4}}', b'name="photos"; filename="a.png"': _PNG}
    portraits = {b'name="request"': json.dumps({"people": [_ANNA]}).encode(), b'name="templates"; filename="../b.png"': _PNG}
    checks = {b'name="photos"; filename="a.jpg"': _PNG, b"name=\"photos\"; filename*=utf-8''%E4%BA%BA.png": _PNG}
    for name, parts in (("people", people), ("portraits", portraits), ("checks", checks)):
        lines = [b"--xX\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % part for part in parts.items()]
        head = f"POST {PREFIX}/{name}\nIdempotency-Key: {name}\nContent-Type: multipart/form-data; boundary=xX\n\n"
        yield f"form-{name}", head.encode() + b"".join(lines) + b"--xX--\r\n"


def mutate(data: bytes, longest: int, draw: random.Random, native: Mutate) -> bytes:
    """Half native, half one thing of a JSON body made wrong."""
    head, gap, body = data.partition(b"\n\n")
    choice = draw.random()
    if choice < 0.3:
        return native(data, longest)
    if choice < 0.4:
        return (native(head, 500) + gap + body)[:longest]
    if choice < 0.6:
        return (head + gap + native(body, longest))[:longest]
    return (head + gap + spoil(body, draw, _WORDS))[:longest]


_WORDS = (
    b"name", b"photos", b"settings", b"lora", b"optim", b"data", b"validate", b"url", b"gallery", b"webhook", b"consent",
    b"people", b"templates", b"seed", b"first", b"second", b"weights", b"priority", b"base-256", b"Anna", b"take",
    b"data:image/png;base64,", b"http://127.0.0.1/", b"https://example.org/", b"file:///etc/passwd", b"../..", b"%2e%2e%2f",
    b"%00", b"{job}", b"Content-Type: application/json", b"multipart/form-data; boundary=", b"filename*=utf-8''",
    b"Content-Disposition", b"Idempotency-Key: ", b"Last-Event-ID: ", b"If-None-Match: ", b"Range: bytes=0-", b"Origin: ",
    b"?after=", b"?limit=", b"?cursor=", b"?state=", b"\r\n--xX\r\n", b"Content-Transfer-Encoding: base64",
    b"Accept: text/event-stream",
)

TARGET = Target(check=check, seeds=lambda: dict(seeds()), mutate=mutate, longest=8192, memory_mb=128, words=_WORDS)
