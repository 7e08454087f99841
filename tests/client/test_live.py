"""The client and the project's own server, as two processes."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest

from easyphoto import errors
from easyphoto.client import ApiError, AsyncClient, Client, Event, JobKind, JobState, Retry, Unauthorized, Upload
from easyphoto.jobs.store import JobStore, NewJob
from easyphoto.orders import DrillOrder
from tests.client.live import Live, live_server


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_server(tmp_path_factory.mktemp("live")) as server:
        yield server


def drill(live: Live, steps: int, seconds: float) -> str:
    """A job of nothing but time, handed in beside the server."""
    store = JobStore(live.home)
    try:
        return store.submit(NewJob(order=DrillOrder(steps=steps, seconds=seconds, needs_gpu=False))).id
    finally:
        store.close()


def test_the_server_shows_what_it_has(live: Live) -> None:
    with live.client() as client:
        assert client.health().status == "ok"
        assert client.people() == ()
        (model,) = client.models()
        assert (model.id, model.default) == (live.base.name, True)
        gallery = client.templates()
        assert len(client.template(gallery[0].name)) > 1000
        assert "easyphoto_jobs" in client.metrics()


def test_without_the_token_only_the_health_is_told(live: Live) -> None:
    for token in (None, "another"):
        with Client(live.url, token) as client:
            assert client.health().status == "ok"
            with pytest.raises(Unauthorized, match="token"):
                client.people()


def test_a_drill_is_followed_to_its_end(live: Live) -> None:
    identifier = drill(live, steps=8, seconds=0.05)
    told: list[Event] = []
    with live.client() as client:
        job = client.wait(identifier, on_event=told.append, timeout=60)
        again = list(client.events(identifier))
        assert [job.id for job in client.jobs(kind=JobKind.DRILL, state=JobState.DONE)][:1] == [identifier]
    assert (job.state, job.kind) == (JobState.DONE, JobKind.DRILL)
    assert told == again
    assert [event.step for event in told if event.kind == "progress"][-1] == 8


def test_a_running_job_can_be_cancelled(live: Live) -> None:
    identifier = drill(live, steps=1000, seconds=0.05)

    async def cancel() -> JobState:
        async with AsyncClient(live.url, live.token) as client:
            async for _ in client.events(identifier):
                await client.cancel(identifier)
                break
            return (await client.wait(identifier, timeout=60)).state

    assert anyio.run(cancel) is JobState.CANCELLED
    with live.client() as client, pytest.raises(errors.Cancelled):
        client.result(identifier)


def test_following_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    with live_server(tmp_path) as live:
        identifier = drill(live, steps=60, seconds=0.1)
        told: list[int] = []
        states: list[JobState] = []
        began = threading.Event()

        def follow() -> None:
            with Client(live.url, live.token, retry=Retry(first_pause=0.05)) as client:
                states.append(client.wait(identifier, on_event=lambda event: (told.append(event.step), began.set())).state)

        thread = threading.Thread(target=follow)
        thread.start()
        assert began.wait(60)
        live.stop(signal.SIGKILL)
        time.sleep(0.5)
        live.start(port=urlsplit(live.url).port or 0)
        thread.join(90)
        assert states == [JobState.DONE]
        assert told[-1] == 60


def test_photos_are_judged_and_told_by_their_names(live: Live, sample_people: Path) -> None:
    photos = sorted((sample_people / "woman").glob("*.jpg"))[:3]
    strange = Upload("ä \"1\" 😀.jpg", photos[0].read_bytes())
    with live.client() as client:
        job = client.check([*photos[1:], strange, Upload("broken.jpg", b"no picture")], idempotency_key="once")
        assert client.check([*photos[1:], strange, Upload("broken.jpg", b"no picture")], idempotency_key="once").id == job.id
        verdicts = client.result(client.wait(job, timeout=120)).verdicts
    assert len(verdicts) == 4
    assert verdicts[3].sentence
    assert not verdicts[3].accepted
    assert "😀" in verdicts[2].photo


def test_one_key_for_two_requests_is_a_conflict(live: Live, sample_people: Path) -> None:
    photo = sample_people / "man" / "00.jpg"
    with live.client() as client:
        client.cancel(client.check(photo, idempotency_key="two"))
        with pytest.raises(errors.Conflict):
            client.check(photo, retouch=False, idempotency_key="two")


def test_refusals_name_the_field(live: Live, sample_people: Path) -> None:
    with live.client() as client:
        with pytest.raises(errors.InputError) as caught:
            client.train("A/B", sample_people / "man")
        assert isinstance(caught.value, ApiError)
        assert caught.value.problem.errors[0].field == "name"
        with pytest.raises(errors.InputError) as caught:
            client.train("Anna", sample_people / "man", settings={"lora": {"rank": 0}})
        assert isinstance(caught.value, ApiError)
        assert caught.value.problem.errors[0].field == "settings.lora.rank"
        with pytest.raises(errors.EasyPhotoError, match=r"no person"):
            client.portrait("nobody-0123456789", "studio-woman")
        with pytest.raises(errors.NotFound):
            client.job("0" * 16)


def test_a_body_that_is_too_large_is_refused_with_the_servers_sentence(live: Live, tmp_path: Path) -> None:
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(80 * 1024 * 1024)
    with live.client() as client, pytest.raises(errors.InputError) as caught:
        client.check(tmp_path / "large.jpg")
    assert isinstance(caught.value, ApiError)
    assert caught.value.status == 413


def test_the_token_is_in_no_log(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with live.client() as client:
        client.people()
    assert live.token not in caplog.text
