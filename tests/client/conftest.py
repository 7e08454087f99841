"""The client as tests use it: one fixture, every test on the blocking and on the asynchronous client."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from easyphoto.client import AsyncClient, Client, Event, Retry
from tests.client.rough_server import Rough, rough_server

QUICK = Retry(tries=4, first_pause=0.01, longest_pause=0.6, outage=1.5, silence=2.0, chance=random.Random(3))  # noqa: S311 (no secret)


class Caller:
    """Calls methods by name on a fresh client of one of the kinds."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.settings: dict[str, Any] = {"url": url, "token": "t0ken", "retry": QUICK, "timeout": 2.0}

    def __call__(self, method: str, *values: Any, **named: Any) -> Any:
        if self.kind == "blocking":
            with Client(**self.settings) as client:
                return getattr(client, method)(*values, **named)
        return self._run(self._call, method, values, named)

    def events(self, *values: Any, **named: Any) -> list[Event]:
        if self.kind == "blocking":
            with Client(**self.settings) as client:
                return list(client.events(*values, **named))
        return self._run(self._events, values, named)

    def _run(self, *values: Any) -> Any:
        return anyio.run(*values)

    async def _call(self, method: str, values: Any, named: Any) -> Any:
        async with AsyncClient(**self.settings) as client:
            return await getattr(client, method)(*values, **named)

    async def _events(self, values: Any, named: Any) -> list[Event]:
        async with AsyncClient(**self.settings) as client:
            return [event async for event in client.events(*values, **named)]


@pytest.fixture
def rough(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rough]:
    monkeypatch.delenv("EASYPHOTO_TOKEN", raising=False)
    monkeypatch.delenv("EASYPHOTO_URL", raising=False)
    with rough_server() as server:
        yield server


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest, rough: Rough) -> Caller:
    """Calls to the rough server."""
    return Caller(request.param, rough.url)
