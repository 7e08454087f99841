"""Calls over a real socket to a server that misbehaves: what is tried again, what is told, what is made of the answers."""

from __future__ import annotations

import email.utils
import json
import logging
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from easyphoto import errors
from easyphoto.client import (
    ApiError,
    BadAnswer,
    Client,
    Consent,
    JobState,
    Retry,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from tests.client import made
from tests.client.conftest import QUICK, Caller
from tests.client.rough_server import Rough, answer, drop, raw, reset, slow, truncated

JOB = made.job()
BUSY = answer({"title": "busy", "code": "not_ready"}, 503)


@pytest.mark.parametrize("trouble", [drop, reset, truncated(b'{"sta', 50), BUSY, answer({}, 502), slow(0.8, drop)])
def test_a_trouble_that_passes_is_never_noticed(call: Caller, rough: Rough, trouble) -> None:
    call.settings["timeout"] = 0.4
    rough.on("health", trouble, answer({"status": "ok"}))
    assert call("health").status == "ok"
    assert len(rough.seen) == 2


def test_a_trouble_that_stays_is_told_after_all_tries(call: Caller, rough: Rough) -> None:
    rough.on("health", drop)
    with pytest.raises(Unreachable, match=r"after 4 tries.*check that the server runs"):
        call("health")
    assert len(rough.seen) == QUICK.tries


def test_pauses_grow_between_tries(call: Caller, rough: Rough) -> None:
    call.settings["retry"] = Retry(tries=4, first_pause=0.1, longest_pause=5)
    rough.on("health", BUSY)
    with pytest.raises(Unavailable):
        call("health")
    gaps = [after.at - before.at for before, after in pairwise(rough.seen)]
    assert all(least <= gap for least, gap in zip((0.05, 0.1, 0.2), gaps))


def test_the_pause_is_spread_and_bounded() -> None:
    retry = Retry(first_pause=1.0, longest_pause=8.0)
    assert {0.5 <= retry.pause(1) <= 1.0, 4.0 <= retry.pause(30) <= 8.0} == {True}
    assert len({retry.pause(3) for _ in range(50)}) > 40
    assert all(retry.pause(1, asked=3.0) >= 3.0 for _ in range(50))


@pytest.mark.parametrize("written", ["1", "date"])
def test_the_server_is_left_alone_as_long_as_it_asks(call: Caller, rough: Rough, written: str) -> None:
    call.settings["retry"] = replace(QUICK, longest_pause=5.0)
    after = written if written == "1" else email.utils.formatdate(time.time() + 2, usegmt=True)
    limit = answer({"title": "slower", "code": "too_many_requests"}, 429, {"Retry-After": after})
    rough.on("health", limit, answer({"status": "ok"}))
    assert call("health").status == "ok"
    assert rough.seen[1].at - rough.seen[0].at >= 0.9


def test_a_server_that_asks_for_too_long_a_pause_is_told_at_once(call: Caller, rough: Rough) -> None:
    rough.on("health", answer({"title": "slower"}, 429, {"Retry-After": "3600"}))
    with pytest.raises(TooManyRequests) as caught:
        call("health")
    assert caught.value.problem.retry_after == 3600
    assert len(rough.seen) == 1


def test_what_is_not_installed_is_not_waited_for(call: Caller, rough: Rough) -> None:
    rough.on("models", answer({"code": "tool_missing", "detail": "torch is not installed; install it"}, 503))
    with pytest.raises(errors.ToolMissing, match="torch is not installed"):
        call("models")
    assert len(rough.seen) == 1


def test_nobody_listening_is_told_as_unreachable() -> None:
    client = Client("http://127.0.0.1:9", retry=replace(QUICK, tries=2))
    with client, pytest.raises(Unreachable, match="cannot be reached"):
        client.health()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "not_found", errors.NotFound), (409, "conflict", errors.Conflict), (422, "bad_photo", errors.PhotoError),
        (422, "bad_name", errors.NameRefused), (422, "bad_input", errors.InputError), (400, "bad_request", errors.InputError),
        (413, "too_large", errors.InputError), (415, "bad_content_type", errors.InputError),
        (507, "storage", errors.StorageError), (401, "no_token", Unauthorized), (403, "forbidden", Unauthorized),
        (405, "bad_method", ApiError), (500, "error", ApiError),
    ],
)  # fmt: skip
def test_refusals_are_the_errors_of_our_tree_with_the_whole_problem(
    rough: Rough, status: int, code: str, kind: type[errors.EasyPhotoError]
) -> None:
    fields = [{"field": "photos[2]", "message": "is no picture"}]
    said = {"title": "No", "status": status, "detail": "that cannot be", "code": code, "errors": fields, "new": 1}
    rough.on("people/anna", answer(said, status))
    with Client(rough.url) as client, pytest.raises(kind) as caught:
        client.person("anna")
    assert isinstance(caught.value, ApiError)
    assert (caught.value.status, caught.value.code, caught.value.problem.errors[0].field) == (status, code, "photos[2]")
    assert str(caught.value) == "that cannot be - photos[2]: is no picture"
    assert len(rough.seen) == 1


def test_a_proxys_own_error_page_is_not_repeated(rough: Rough) -> None:
    rough.on("health", raw(b"<html>secret</html>", 500, {"Content-Type": "text/html"}))
    with Client(rough.url) as client, pytest.raises(ApiError, match="status 500") as caught:
        client.health()
    assert "html" not in str(caught.value)


def test_redirects_are_told_and_never_followed(rough: Rough) -> None:
    rough.on("health", raw(b"", 308, {"Location": "https://elsewhere.example/"}))
    with Client(rough.url) as client, pytest.raises(ApiError, match=r"https://elsewhere\.example/"):
        client.health()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"null", b"{}", b'{"status": 7}', b"\xff", b""])
def test_answers_of_something_else_are_refused_in_a_sentence(rough: Rough, body: bytes) -> None:
    rough.on("health", raw(body))
    with Client(rough.url) as client, pytest.raises(BadAnswer, match="check"):
        client.health()


def test_a_job_is_asked_for_under_one_key_however_often_it_is_sent(call: Caller, rough: Rough, tmp_path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"picture")
    rough.on("checks", drop, reset, BUSY, answer(JOB, 202))
    assert call("check", tmp_path).id == JOB["id"]
    keys = {seen.headers["idempotency-key"] for seen in rough.seen}
    assert len(rough.seen) == 4
    assert len(keys) == 1
    call("check", tmp_path)
    call("check", tmp_path, idempotency_key="mine")
    assert [seen.headers["idempotency-key"] for seen in rough.seen[4:]][1] == "mine"
    assert rough.seen[4].headers["idempotency-key"] not in keys
    assert all(seen.body.count(b"picture") == 1 for seen in rough.seen)


def test_a_deletion_whose_answer_was_lost_counts_as_done(call: Caller, rough: Rough) -> None:
    gone = answer({"code": "not_found", "title": "no such person"}, 404)
    rough.on("people/anna", drop, gone)
    assert call("delete_person", "anna").removed == ()
    rough.on("people/anna", gone)
    with pytest.raises(errors.NotFound):
        call("delete_person", "anna")


def test_deletions_say_what_went(call: Caller, rough: Rough) -> None:
    rough.on("people/anna", answer({"removed": ["people/anna", "results/1"]}))
    rough.on("results/r1", answer({"removed": ["results/r1"]}))
    assert call("delete_person", "anna", results=True).removed == ("people/anna", "results/1")
    assert rough.seen[-1].target.endswith("/people/anna?results=true")
    assert call("delete_result", "r1").removed == ("results/r1",)


def test_people_are_listed_over_all_pages(call: Caller, rough: Rough) -> None:
    first = {"items": [made.person("Anna")], "next": "a/b=?&"}
    second = {"items": [made.person("Bo", consent={"given_by": "Bo", "given_at": "2026"})], "next": None}
    rough.on("people", answer(first), BUSY, answer(second))
    anna, bo = call("people")
    assert (anna.name, bo.name, bo.consent) == ("Anna", "Bo", Consent(given_by="Bo", given_at="2026"))
    assert rough.seen[-1].target.endswith("cursor=a%2Fb%3D%3F%26")


def test_a_server_that_turns_in_circles_is_left(call: Caller, rough: Rough) -> None:
    rough.on("people", answer({"items": [made.person()], "next": "1"}))
    with pytest.raises(BadAnswer, match="again and again"):
        call("people")


def test_no_more_jobs_are_fetched_than_asked_for(call: Caller, rough: Rough) -> None:
    rough.on("jobs", answer({"items": [JOB] * 100, "next": "1"}), answer({"items": [JOB] * 100, "next": "2"}))
    assert len(call("jobs", state=JobState.QUEUED, kind="training", person="Ä b", limit=120)) == 120
    assert rough.seen[1].target.endswith("?state=queued&kind=training&person=%C3%84%20b&limit=20&cursor=1")


def test_a_person_is_found_by_name(call: Caller, rough: Rough) -> None:
    rough.on("people", answer({"items": [made.person("Anna"), made.person("Zoë")], "next": None}))
    assert call("find", "Zoë").id == "zoë-0123456789"
    with pytest.raises(errors.NotFound, match=r"'Max'.*Anna, Zoë"):
        call("find", "Max")


def test_changes_are_sent_as_they_are_meant(call: Caller, rough: Rough) -> None:
    rough.on("people/anna%2F1", answer(made.person("Änne")))
    call("rename", "anna/1", "Änne")
    call("consent", "anna/1", Consent(given_by="Anna", given_at="2026-01-01"))
    bodies = [json.loads(seen.body) for seen in rough.seen]
    assert bodies == [{"name": "Änne"}, {"consent": {"given_by": "Anna", "given_at": "2026-01-01", "note": ""}}]
    assert {seen.method for seen in rough.seen} == {"PATCH"}


@pytest.mark.parametrize("strange", ["", ".", ".."])
def test_an_id_that_would_lead_elsewhere_is_not_sent(rough: Rough, strange: str) -> None:
    with Client(rough.url) as client, pytest.raises(errors.NotFound, match="no id"):
        client.delete_person(strange)
    assert not rough.seen


def test_the_result_of_a_job_without_one_says_why(call: Caller, rough: Rough) -> None:
    for job, kind in (
        (made.failed(), errors.JobFailed), (made.job(JobState.CANCELLED), errors.Cancelled),
        (made.job(JobState.RUNNING), errors.Conflict), (made.job(JobState.DONE), errors.NotFound),
    ):  # fmt: skip
        rough.on(f"jobs/{JOB['id']}", answer(job))
        with pytest.raises(kind):
            call("result", JOB["id"])
    rough.on(f"jobs/{JOB['id']}", answer({"code": "not_found", "title": "no such job"}, 404))
    with pytest.raises(errors.NotFound, match="nothing here"):
        call("result", JOB["id"])


def test_the_token_travels_in_its_header_alone(
    call: Caller, rough: Rough, caplog: pytest.LogCaptureFixture, tmp_path
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "1.jpg").write_bytes(b"picture")
    rough.on("health", drop, answer({"status": "ok"}))
    rough.on("checks", answer({"title": "no"}, 401))
    call("health")
    with pytest.raises(Unauthorized) as caught:
        call("check", tmp_path)
    assert all(seen.headers["authorization"] == "Bearer t0ken" for seen in rough.seen)
    assert not any("t0ken" in seen.target for seen in rough.seen)
    assert "t0ken" not in caplog.text + repr(caught.value) + str(caught.value)


def test_metrics_and_pictures_come_as_they_are(call: Caller, rough: Rough) -> None:
    rough.on("metrics", raw(b"easyphoto_jobs 3\n"))
    rough.on("templates/a%20b", raw(b"\x89PNG"))
    rough.on("people/p/reference", raw(b"\x89PN"))
    rough.on("jobs/j/files/x.png", raw(b"\x89P"))
    assert call("metrics") == "easyphoto_jobs 3\n"
    assert call("template", "a b") + call("reference", "p") + call("preview", "j", "x.png") == b"\x89PNG\x89PN\x89P"
