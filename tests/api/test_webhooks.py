"""Webhooks: signed, delivered at least once, tried again over restarts, never to where nobody allowed it."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from easyphoto.api.tokens import TokenStore
from easyphoto.api.webhooks import PAUSES, Dispatcher, WebhookOptions, webhook_secret
from easyphoto.cli.main import main
from easyphoto.jobs.folders import End
from easyphoto.jobs.rows import settle
from easyphoto.jobs.store import WEBHOOK_TRIES, JobStore, NewJob
from easyphoto.orders import DrillOrder
from easyphoto.signing import BadSignature, verify
from easyphoto.store.codec import to_json
from easyphoto.work import Failure, Job, JobState
from tests.api.small_internet import PUBLIC, Heard, Internet, Site, answer, internet, site

__all__ = ["internet"]
EAGER = WebhookOptions(allow_private=True, pauses=(0.0,), every=0.02, seconds=2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    made = JobStore(tmp_path)
    yield made
    made.close()


def ended(store: JobStore, url: str, state: JobState = JobState.CANCELLED, owner: str = "local") -> Job:
    """A job that has just ended and wants `url` to be told."""
    job = store.submit(NewJob(order=DrillOrder(), webhook=url, owner=owner))
    if state is JobState.CANCELLED:
        return store.cancel(job.id)
    failure = Failure(code="job_failed", sentence="It broke.") if state is JobState.FAILED else None
    end = End(state=state, ended="2026-01-02T03:04:05.678+00:00", failure=failure)
    store.database.write(lambda connection: settle(connection, job.id, end))
    return store.get(job.id)


@contextmanager
def running(store: JobStore, options: WebhookOptions = EAGER) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(store, options)
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        dispatcher.stop()


def wait_for(true: Callable[[], object], seconds: float = 60) -> None:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it did not happen"
        time.sleep(0.01)


def address(place: Site) -> str:
    return f"http://127.0.0.1:{place.port}/hook?for=me"


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED, JobState.CANCELLED])
def test_an_ended_job_is_told_once_and_signed(store: JobStore, tmp_path: Path, state: JobState) -> None:
    with site(answer(204)) as place, running(store):
        job = ended(store, address(place), state)
        wait_for(lambda: not store.pending_webhooks())
        time.sleep(0.2)
    (heard,) = place.heard
    verify(webhook_secret(tmp_path), heard.headers, heard.body)
    assert (heard.method, heard.path) == ("POST", "/hook?for=me")
    assert heard.headers["content-type"] == "application/json"
    assert heard.headers["webhook-id"] == f"msg_{job.id}"
    assert json.loads(heard.body) == {"type": f"job.{state.value}", "timestamp": job.ended, "job": to_json(job)}


def test_a_job_that_runs_on_or_wants_nobody_told_is_not_told(store: JobStore) -> None:
    with site(answer(200)) as place, running(store):
        store.submit(NewJob(order=DrillOrder(), webhook=address(place)))
        store.cancel(store.submit(NewJob(order=DrillOrder())).id)
        time.sleep(0.3)
        assert place.heard == []


def test_what_was_changed_on_its_way_does_not_verify(store: JobStore, tmp_path: Path) -> None:
    with site(answer(200)) as place, running(store):
        ended(store, address(place))
        wait_for(lambda: place.heard)
    (heard,) = place.heard
    with pytest.raises(BadSignature):
        verify(webhook_secret(tmp_path), heard.headers, heard.body.replace(b"cancelled", b"done"))


def test_each_owner_has_a_secret_of_their_own_that_nobody_else_can_read(store: JobStore, tmp_path: Path) -> None:
    with site(answer(200)) as place, running(store):
        ended(store, address(place), owner="anna-1")
        wait_for(lambda: place.heard)
    verify(webhook_secret(tmp_path, "anna-1"), place.heard[0].headers, place.heard[0].body)
    with pytest.raises(BadSignature):
        verify(webhook_secret(tmp_path), place.heard[0].headers, place.heard[0].body)
    path = tmp_path / "owners" / "anna-1" / "secrets" / "webhook"
    assert webhook_secret(tmp_path, "anna-1") == path.read_text().strip()
    if os.name != "nt":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_command_line_shows_an_owners_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TokenStore(tmp_path).add("Anna")
    (owner,) = [entry.owner for entry in TokenStore(tmp_path).list()]
    for words, whose in (([], "local"), (["Anna"], owner)):
        assert main(["webhooks", "secret", *words, "--home", str(tmp_path)]) == 0
        assert capsys.readouterr().out == webhook_secret(tmp_path, whose) + "\n"
    assert main(["webhooks", "secret", "nobody", "--home", str(tmp_path)]) == 3


def test_a_secret_asked_for_by_many_at_once_is_one(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(webhook_secret(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_receiver_that_fails_is_tried_again_under_the_same_id(store: JobStore) -> None:
    def twice_down(handler: BaseHTTPRequestHandler) -> None:
        answer(503 if len(place.heard) < 3 else 200)(handler)

    with site(twice_down) as place, running(store):
        ended(store, address(place))
        wait_for(lambda: not store.pending_webhooks())
    assert len(place.heard) == 3
    assert len({heard.headers["webhook-id"] for heard in place.heard}) == 1
    assert len({heard.body for heard in place.heard}) == 1


def test_the_number_of_tries_outlives_the_dispatcher_and_the_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    slow = WebhookOptions(allow_private=True, pauses=(0.0, 3600.0), every=0.02)
    with site(answer(500)) as place, caplog.at_level(logging.WARNING):
        for again in range(WEBHOOK_TRIES):
            store = JobStore(tmp_path)
            if not again:
                ended(store, address(place))
            assert [delivery.tries for delivery in store.pending_webhooks()] == [again]
            with running(store, slow):
                wait_for(lambda: len(place.heard) == again + 1)  # noqa: B023 (called at once)
            store.close()
        store = JobStore(tmp_path)
        assert store.pending_webhooks() == ()
        with running(store, slow):
            time.sleep(0.2)
        store.close()
    assert len(place.heard) == WEBHOOK_TRIES
    assert "given up" in caplog.messages[-1]
    assert "status 500" in caplog.messages[-1]


def test_pauses_grow_and_are_kept(store: JobStore) -> None:
    clock = [1000.0]
    options = WebhookOptions(allow_private=True, every=0.02)
    with site(answer(500)) as place:
        dispatcher = Dispatcher(store, options, clock=lambda: clock[0])
        dispatcher.start()
        ended(store, address(place))
        for tries in range(1, WEBHOOK_TRIES):
            wait_for(lambda: [delivery.tries for delivery in store.pending_webhooks()] == [tries])  # noqa: B023
            clock[0] += PAUSES[tries] - 1
            time.sleep(0.1)
            assert len(place.heard) == tries
            clock[0] += 2
        wait_for(lambda: not store.pending_webhooks())
        dispatcher.stop()
    assert list(PAUSES) == sorted(PAUSES)
    assert len(place.heard) == WEBHOOK_TRIES


def test_this_machine_is_not_told_unless_allowed(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    with site(answer(200)) as place, caplog.at_level(logging.WARNING):
        with running(store, WebhookOptions(pauses=(0.0,), every=0.02)):
            ended(store, address(place))
            wait_for(lambda: not store.pending_webhooks())
        assert place.heard == []
    (said,) = caplog.messages
    assert "this machine itself" in said
    assert "given up" in said


def test_a_receiver_that_is_gone_is_told_once(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    with site(answer(410)) as place, caplog.at_level(logging.WARNING):
        with running(store, WebhookOptions(allow_private=True, pauses=(0.0,), every=0.02)):
            job = ended(store, address(place))
            wait_for(lambda: not store.pending_webhooks())
        assert len(place.heard) == 1
    assert "given up" in caplog.messages[0]
    assert (store.folder(job.id) / "told").read_text(encoding="utf-8") == "given up\n"


def test_a_redirect_into_the_private_network_is_not_followed(store: JobStore, internet: Internet) -> None:
    internet.names["hooks.example"] = [PUBLIC]
    internet.routes[PUBLIC] = "127.0.0.1"
    with site(answer(200)) as inside, site(answer(307, Location=f"http://127.0.0.1:{inside.port}/")) as outside:
        with running(store, WebhookOptions(pauses=(0.0,), every=0.02)):
            ended(store, f"http://hooks.example:{outside.port}/")
            wait_for(lambda: not store.pending_webhooks())
        assert inside.heard == []
        assert len(outside.heard) == WEBHOOK_TRIES


def test_one_slow_receiver_does_not_hold_up_the_others(store: JobStore) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(1)
        answer(200)(handler)

    with site(slow) as slow_place, site(answer(200)) as quick_place, running(store):
        ended(store, address(slow_place))
        wait_for(lambda: slow_place.heard)
        ended(store, address(quick_place))
        wait_for(lambda: quick_place.heard, seconds=0.9)


def test_two_dispatchers_of_one_home_tell_once(tmp_path: Path) -> None:
    first, second = JobStore(tmp_path), JobStore(tmp_path)
    heard: list[Heard] = []
    with site(answer(200)) as place, running(first), running(second):
        for _ in range(10):
            ended(first, address(place))
        wait_for(lambda: not first.pending_webhooks())
        time.sleep(0.1)
        heard = list(place.heard)
    first.close()
    second.close()
    assert len(heard) == len({one.headers["webhook-id"] for one in heard}) == 10


def test_the_second_dispatcher_takes_over_when_the_first_ends(tmp_path: Path) -> None:
    first, second = JobStore(tmp_path), JobStore(tmp_path)
    with site(answer(200)) as place, running(second):
        with running(first):
            time.sleep(0.1)
        ended(first, address(place))
        wait_for(lambda: place.heard)
    first.close()
    second.close()
