"""Raw requests, odd ones too, into the whole application: never a 5xx, always a problem document for a refusal."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from benchmarks.fuzz import requests
from benchmarks.fuzz.broken_json import spoil


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    yield
    requests.server().close()
    requests.server.cache_clear()


@pytest.mark.parametrize("name", requests.seeds())
def test_every_route_answers_as_it_promises(name: str) -> None:
    requests.check(requests.seeds()[name])


def test_bodies_with_one_thing_wrong_are_taken_or_refused() -> None:
    draw = random.Random(3)  # noqa: S311 (no secret)
    posts = [data for data in requests.seeds().values() if data.startswith((b"POST", b"PATCH"))]
    for _ in range(100):
        head, gap, body = draw.choice(posts).partition(b"\n\n")
        requests.check(head + gap + spoil(body, draw, requests.TARGET.words))


@pytest.mark.parametrize(
    "data",
    [
        b"GET /easyphoto/v\x001/jobs\n\n",
        b"GET /easyphoto/v%001/jobs%0d%0aX: y\n\n",
        b"POST /easyphoto/v1/people\nContent-Type: application/json\n\n" + b"[" * 8000,
        b"POST /easyphoto/v1/people\nContent-Type: multipart/form-data; boundary=\n\n--",
        b"PATCH /easyphoto/v1/people/%ed%a0%80\nContent-Type: application/json\n\n{}",
        b"\xff\xfe /\n:\n\n\n",
        b"",
    ],
)
def test_what_is_hardly_a_request_is_refused(data: bytes) -> None:
    requests.check(data)
