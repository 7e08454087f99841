"""Following a job over a real socket that breaks: every event once, in order, whatever happens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyphoto.client import ApiError, AsyncClient, BadAnswer, Client, Event, JobState, Unreachable, WaitTimeout
from easyphoto.client.streams import Message, Parser
from easyphoto.errors import NotFound
from tests.client import made
from tests.client.conftest import QUICK, Caller
from tests.client.rough_server import Rough, answer, drop, raw, reset, slow, stream

EVENTS = "jobs/j/events"
STEPS = [made.message(number, step=number, total=6) for number in range(1, 7)]


def steps(events: Sequence[Event]) -> list[int]:
    return [event.step for event in events]


def test_every_event_comes_once_over_a_connection_that_breaks_anywhere(call: Caller, rough: Rough) -> None:
    half = STEPS[3][:20]
    rough.on(
        EVENTS, drop, stream([b"retry: 10\n\n", STEPS[0], STEPS[1]]), answer({}, 502),
        stream([b": ping\n\n", STEPS[2], half]), reset, stream([*STEPS[3:], made.end()], whole=True),
    )  # fmt: skip
    assert steps(call.events("j")) == [1, 2, 3, 4, 5, 6]
    assert [seen.headers.get("last-event-id") for seen in rough.seen] == [None, None, "2", "2", "3", "3"]
    assert rough.seen[-1].target.endswith("?after=3")


def test_a_server_that_starts_over_does_not_say_events_twice(call: Caller, rough: Rough) -> None:
    rough.on(EVENTS, stream([b"retry: 10\n\n", *STEPS[:3]]), stream([*STEPS, made.end()], whole=True))
    assert steps(call.events("j")) == [1, 2, 3, 4, 5, 6]


def test_events_can_be_taken_up_at_a_number(call: Caller, rough: Rough) -> None:
    rough.on(EVENTS, stream([*STEPS, made.end()], whole=True))
    assert steps(call.events("j", after=4)) == [5, 6]
    assert rough.seen[0].headers["last-event-id"] == "4"


def test_a_stream_that_falls_silent_is_taken_up_anew(call: Caller, rough: Rough) -> None:
    call.settings["retry"] = replace(QUICK, silence=0.2)
    rough.on(EVENTS, stream([STEPS[0], 1.0]), stream([STEPS[1], made.end()], whole=True))
    assert steps(call.events("j")) == [1, 2]


def test_an_event_is_handed_on_when_it_comes_and_not_when_the_stream_ends(rough: Rough) -> None:
    rough.on(EVENTS, stream([STEPS[0], 1.5, made.end()], whole=True))
    began = time.monotonic()
    with Client(rough.url, retry=QUICK) as client:
        assert next(client.events("j")).step == 1
    assert time.monotonic() - began < 1.2


def test_waiting_gives_the_ended_job_and_tells_each_event(call: Caller, rough: Rough) -> None:
    rough.on(EVENTS, stream([b"retry: 10\n\n", *STEPS[:3]]), stream([*STEPS[3:], made.end(JobState.FAILED)], whole=True))
    told: list[Event] = []
    job = call("wait", "j", on_event=told.append)
    assert (job.state, steps(told)) == (JobState.FAILED, [1, 2, 3, 4, 5, 6])


def test_an_asynchronous_listener_is_awaited(rough: Rough) -> None:
    rough.on(EVENTS, stream([*STEPS, made.end()], whole=True))
    told: list[int] = []

    async def listen(event: Event) -> None:
        await anyio.sleep(0)
        told.append(event.step)

    async def follow() -> None:
        async with AsyncClient(rough.url) as client:
            await client.wait("j", on_event=listen)

    anyio.run(follow)
    assert told == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("pings", [[], [b": ping\n\n", 0.1] * 40])
def test_waiting_ends_in_time_whether_the_server_pings_or_is_silent(
    call: Caller, rough: Rough, pings: list[bytes | float]
) -> None:
    rough.on(EVENTS, stream([STEPS[0], *pings, 4.0]))
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"job j has not ended within 0\.8 s") as caught:
        call("wait", "j", timeout=0.8)
    assert isinstance(caught.value, WaitTimeout)
    assert 0.75 < time.monotonic() - began < 1.6
    assert len(rough.seen) < 30


def test_a_job_that_ends_at_the_last_moment_has_ended(call: Caller, rough: Rough) -> None:
    rough.on(EVENTS, stream([*[b": ping\n\n", 0.1] * 6, made.end()], whole=True))
    assert call("wait", "j", timeout=5).state is JobState.DONE


def test_a_server_that_is_gone_for_long_is_given_up(call: Caller, rough: Rough) -> None:
    rough.on(EVENTS, stream([STEPS[0]]), drop)
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"for \d s"):
        call("wait", "j")
    assert QUICK.outage <= time.monotonic() - began < QUICK.outage + 3


def test_a_server_that_only_refuses_for_long_is_given_up_with_its_own_words(call: Caller, rough: Rough) -> None:
    call.settings["retry"] = replace(QUICK, outage=0.2)
    rough.on(EVENTS, answer({"detail": "we move house"}, 503))
    with pytest.raises(ApiError, match="we move house"):
        call.events("j")


def test_following_a_job_that_is_not_there_ends_at_once(call: Caller, rough: Rough) -> None:
    gone = answer({"code": "not_found", "detail": "it was deleted"}, 404)
    rough.on(EVENTS, stream([b"retry: 10\n\n", STEPS[0]], whole=True), gone)
    with pytest.raises(NotFound, match="it was deleted"):
        call.events("j")


@pytest.mark.parametrize("behaviour", [raw(b"<html>", headers={"Content-Type": "text/html"}), raw(b"", 204)])
def test_a_page_instead_of_a_stream_is_refused(call: Caller, rough: Rough, behaviour) -> None:
    rough.on(EVENTS, behaviour)
    with pytest.raises(BadAnswer, match="stream of events"):
        call.events("j")


def test_kinds_and_fields_of_a_newer_server_are_let_through(call: Caller, rough: Rough) -> None:
    dreamt = made.message(1, "dreamt", message="of sheep", depth=3)
    rough.on(EVENTS, stream([dreamt, made.message(2, "progress", step=1, mood="good"), made.end()], whole=True))
    first, second = call.events("j")
    assert (first.kind, first.message, first.extra) == ("log", "of sheep", {"kind": "dreamt"})
    assert second.step == 1


def test_a_cancelled_task_leaves_no_connection_behind(rough: Rough) -> None:
    rough.on(EVENTS, stream([STEPS[0], 3.0]))
    rough.on("health", slow(0.0, answer({"status": "ok"})))

    async def cancelled() -> None:
        async with AsyncClient(rough.url, retry=QUICK) as client:
            with anyio.move_on_after(0.3) as scope:
                async for _ in client.events("j"):
                    """Until the time is over."""
            assert scope.cancel_called
            assert (await client.health()).status == "ok"
            assert len(client._http._transport._pool.connections) == 1

    anyio.run(cancelled)


def test_breaking_off_an_iteration_closes_its_connection(rough: Rough) -> None:
    rough.on(EVENTS, stream([*STEPS, 3.0]))
    with Client(rough.url, retry=QUICK) as client:
        for event in client.events("j"):
            if event.step == 2:
                break
        assert not client._http._transport._pool.connections


LINES = st.lists(
    st.sampled_from([
        b"data: a", b"data:b", b"data", b"id: 1", b"id: 2", b"id", b"event: x", b": comment", b"", b"retry: 5", b"retry: x",
        "data: ü€😀".encode(), b"other: 1", b"id: \x00", b"data:  two", b"\xff\xfe",
    ]),
    max_size=14,
)  # fmt: skip


def parsed(pieces: Sequence[bytes]) -> tuple[list[Message], str]:
    parser = Parser()
    return [message for piece in pieces for message in parser.feed(piece)], parser.last_id


@given(lines=LINES, ends=st.sampled_from([b"\n", b"\r\n", b"\r"]), cuts=st.lists(st.integers(0, 200), max_size=8))
def test_the_stream_means_the_same_however_it_is_cut(lines: list[bytes], ends: bytes, cuts: list[int]) -> None:
    # One more comment, so that even a final CR is known to be whole.
    whole = b"".join(line + ends for line in lines) + b": end\n"
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    pieces = [whole[low:high] for low, high in pairwise(places)]
    assert parsed(pieces) == parsed([whole]) == parsed([whole.replace(ends, b"\n")])


def test_the_standards_own_examples_are_understood() -> None:
    text = b"\xef\xbb\xbfdata: first\ndata: second\n\n: test\n\ndata:third\nid: 1\n\n"
    text += b"event: add\ndata\ndata\n\nid\n\ndata: left over\n"
    messages, last = parsed([text])
    assert [(message.name, message.data) for message in messages] == [
        ("message", "first\nsecond"), ("message", "third"), ("add", "\n"),
    ]  # fmt: skip
    assert last == ""


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    parser = Parser()
    with pytest.raises(BadAnswer, match="without end"):
        for _ in range(100):
            list(parser.feed(b"x" * 100_000))
