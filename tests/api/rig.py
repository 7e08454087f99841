"""A real server on a free port, with a real home and queue behind it, and made pictures and people to fill them."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from PIL import Image

from easyphoto.api.application import create_app
from easyphoto.api.options import ApiOptions, Rates
from easyphoto.api.service import Service
from easyphoto.api.tokens import TokenStore
from easyphoto.records import Box, Face, Photo, PhotoScores, PreparedPhoto, PreparedSet, Reason, Verdict
from easyphoto.settings import PROJECT_ROOT, Settings
from easyphoto.specs import Person, TrainResult, TrainSpec
from easyphoto.store.lora_file import DOWN, UP, LoraFile, write_lora
from easyphoto.store.paths import Home
from easyphoto.store.people import PeopleStore

V1 = "/easyphoto/v1"
UNHURRIED = Rates(reads=0, posts=0)


@dataclass(frozen=True, kw_only=True)
class Rig:
    """A server and what it serves."""

    service: Service
    port: int
    mine: httpx.Client
    """With the local owner's token."""
    theirs: httpx.Client
    """With another owner's."""
    nobody: httpx.Client
    """Without any."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def settings_in(home: Path, base_model: Path | None = None) -> Settings:
    base = base_model or PROJECT_ROOT / "models" / "base-256"
    return Settings(home=home, base_model=base, templates=PROJECT_ROOT / "templates", device="cpu")


@contextmanager
def listening(app: Any, http: Any = "h11") -> Iterator[int]:
    """The port of a server that runs in a thread; a WebUI's environment has no other HTTP than h11."""
    config = uvicorn.Config(app, port=0, http=http, log_config=None, lifespan="on", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def served(home: Path, options: ApiOptions | None = None, base_model: Path | None = None) -> Iterator[Rig]:
    """A server with two owners, which reads HTTP as ours does."""
    from easyphoto.api.protocol import Protocol

    tokens = TokenStore(home)
    mine, theirs = tokens.add("local"), tokens.add("Berta")
    service = Service(settings_in(home, base_model), options or ApiOptions(rates=UNHURRIED))
    try:
        with listening(create_app(service), Protocol) as port:
            clients = [_client(port, token) for token in (mine, theirs, None)]
            yield Rig(service=service, port=port, mine=clients[0], theirs=clients[1], nobody=clients[2])
            for client in clients:
                client.close()
    finally:
        service.close()


def _client(port: int, token: str | None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=f"http://127.0.0.1:{port}{V1}", headers=headers, timeout=30, trust_env=False)


def jpeg(shade: int = 120, size: tuple[int, int] = (48, 64)) -> bytes:
    """A small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 90, 60)).save(buffer, "JPEG")
    return buffer.getvalue()


def person_in(home: Path, folder: Path, name: str = "Anna") -> Person:
    """A published person without anything that was computed."""
    folder.mkdir(parents=True, exist_ok=True)
    lora = folder / "lora.safetensors"
    tensors = {f"lora_unet_x.{part}": np.zeros((2, 2), np.float32) for part in (DOWN, UP)}
    write_lora(lora, LoraFile(tensors=tensors))
    photo = Photo(pixels=np.full((32, 32, 3), 200, np.uint8), name="a.jpg")
    face = Face(box=Box(left=4, top=4, right=28, bottom=28), score=1.0, landmarks=np.zeros((5, 2), np.float32))
    one = PreparedPhoto(name="a.jpg", original=photo, crop=photo, face=face, scores=PhotoScores())
    verdict = Verdict(photo="a.jpg", accepted=True, reason=Reason.GOOD, sentence="Taken.", is_reference=True)
    prepared = PreparedSet(photos=(one,), verdicts=(verdict,), reference=0, embedding=np.linspace(-1, 1, 128, dtype=np.float32))
    result = TrainResult(lora=lora, steps=4, photos=1, checkpoints=(), chosen=-1, face_id_picture=None, seconds=1.0)
    return PeopleStore(Home(home).make()).publish(TrainSpec(person=name, base_model=Path("/models/base")), prepared, result)


def problem_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of a refusal, checked for its form (RFC 9457)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert set(found) == {"type", "title", "status", "detail", "instance", "code", "errors"}
    assert found["status"] == status
    assert found["instance"].startswith("/")
    assert found["detail"]
    return found


def fields_of(answer: httpx.Response, status: int = 422) -> list[str]:
    """The fields that a refusal complains of."""
    return [fault["field"] for fault in problem_of(answer, status)["errors"]]
