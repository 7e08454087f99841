"""Webhooks as a receiver gets them."""

from __future__ import annotations

import json
import time

import pytest

from easyphoto.client import BadAnswer, BadSignature, JobState, ended_job
from easyphoto.signing import new_secret, signed_headers
from tests.client import made

SECRET = new_secret()


def signed(content: object) -> tuple[dict[str, str], bytes]:
    body = json.dumps(content).encode()
    return signed_headers(SECRET, "msg_1", int(time.time()), body), body


def test_a_genuine_webhook_gives_its_job_whatever_a_newer_server_adds() -> None:
    job = ended_job(SECRET, *signed({"type": "job.done", "job": {**made.job(JobState.DONE), "mood": 1}, "more": 2}))
    assert job.state is JobState.DONE


def test_a_changed_webhook_is_refused_before_it_is_read() -> None:
    headers, body = signed({"job": made.job()})
    for changed in (body + b" ", b"{", b""):
        with pytest.raises(BadSignature):
            ended_job(SECRET, headers, changed)
    with pytest.raises(BadSignature):
        ended_job(new_secret(), headers, body)


@pytest.mark.parametrize("content", [{}, [], 3, {"job": {}}, {"job": None}])
def test_a_genuine_webhook_about_something_else_is_told(content: object) -> None:
    with pytest.raises(BadAnswer, match="holds no job"):
        ended_job(SECRET, *signed(content))
