"""Templates, models, figures; and what a pages' cursor is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyphoto.api.options import ApiOptions, Limits, Rates
from easyphoto.api.paging import page_of
from easyphoto.api.problems import Refused
from easyphoto.api.rates import RateLimit
from easyphoto.errors import EasyPhotoError, SpecError
from easyphoto.jobs.folders import End, now
from easyphoto.jobs.store import NewJob
from easyphoto.jobs.turns import Turns
from easyphoto.orders import DrillOrder
from easyphoto.store.templates import list_templates
from easyphoto.work import JobState
from tests.api.rig import UNHURRIED, Rig, served
from tests.tiny import make_tiny_base


def test_the_gallery_is_listed_and_shown(rig: Rig) -> None:
    gallery = list_templates(rig.service.settings.templates)
    first = rig.mine.get("/templates", params={"limit": 5}).json()
    second = rig.mine.get("/templates", params={"limit": 200, "cursor": first["next"]}).json()
    assert [item["name"] for item in (*first["items"], *second["items"])] == [template.name for template in gallery]
    picture = rig.mine.get(f"/templates/{gallery[0].name}")
    assert (picture.content, picture.headers["content-type"]) == (gallery[0].path.read_bytes(), "image/jpeg")
    etag = picture.headers["etag"]
    assert rig.mine.get(f"/templates/{gallery[0].name}", headers={"If-None-Match": etag}).status_code == 304


def test_models_are_the_servers_own_and_those_of_the_folder(tmp_path: Path) -> None:
    make_tiny_base(tmp_path / "models" / "tiny")
    (tmp_path / "models" / "no-model").mkdir()
    with served(tmp_path / "home", ApiOptions(models=tmp_path / "models", rates=UNHURRIED)) as rig:
        assert rig.mine.get("/models").json() == {
            "items": [
                {"id": "base-256", "family": "embedded", "default": True},
                {"id": "tiny", "family": "embedded", "default": False},
            ],
            "next": None,
        }  # fmt: skip


def test_figures_are_told_to_prometheus(rig: Rig) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    time.sleep(0.3)  # until the server has had its first look: what ended before is not counted
    job = rig.service.store.submit(NewJob(order=DrillOrder()))
    turns = Turns(rig.service.store)
    turn = turns.claim(only=job.id)
    assert turn is not None
    turns.finish(turn, End(state=JobState.CANCELLED, ended=now(), started=turn.job.started, attempt=1))
    rig.service.store.submit(NewJob(order=DrillOrder()))
    rig.mine.get("/jobs")
    rig.mine.get(f"/jobs/{job.id}")
    rig.mine.get("/nothing/at/all")

    def figures() -> dict[tuple[str, ...], float]:
        answer = rig.mine.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    for _ in range(50):
        found = figures()
        if found.get(("easyphoto_job_seconds_count", "drill", "cancelled")):
            break
        time.sleep(0.05)
    assert found["easyphoto_jobs", "drill", "queued"] == found["easyphoto_jobs", "drill", "cancelled"] == 1
    assert found["easyphoto_job_seconds_count", "drill", "cancelled"] == found["easyphoto_job_wait_seconds_count", "drill"] == 1
    assert found["easyphoto_requests_total", "GET", "/easyphoto/v1/jobs/{job_id}", "200"] == 1
    assert found["easyphoto_requests_total", "GET", "other", "404"] == 1
    assert found["easyphoto_worker_alive",] == 0
    assert job.id not in str(found)


@given(names=st.lists(st.text(), unique=True, max_size=40), limit=st.integers(1, 10))
def test_pages_give_every_item_once_and_in_order(names: list[str], limit: int) -> None:
    names = sorted(name.encode("utf-8", "replace").decode() for name in names)
    keys = sorted(f"{name}\n{place:04d}" for place, name in enumerate(names))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        items, cursor = page_of(keys, keys, limit, cursor)
        seen.extend(items)
        if cursor is None:
            break
    assert seen == keys


@given(cursor=st.text())
def test_a_cursor_that_is_none_is_refused_or_harmless(cursor: str) -> None:
    try:
        page_of(["a", "b"], ["a", "b"], 1, cursor)
    except EasyPhotoError as error:
        assert error.http_status == 422


def test_a_bucket_fills_steadily_and_never_over() -> None:
    now_at = 0.0
    limit = RateLimit(Rates(reads=2, reads_burst=4), clock=lambda: now_at)

    def passes() -> int:
        count = 0
        try:
            while True:
                limit.take("anna", makes_job=False)
                count += 1
        except Refused as error:
            assert error.headers["Retry-After"] == "1"
        return count

    assert passes() == 4
    now_at = 1.0
    assert passes() == 2
    now_at = 1000.0
    assert passes() == 4


def test_limits_and_rates_that_make_no_sense_are_refused() -> None:
    for kind, wrong in (
        (Limits, {"files": 0}),
        (Rates, {"reads": -1}),
        (Rates, {"posts_burst": 0}),
        (ApiOptions, {"port": 70000}),
    ):
        with pytest.raises(SpecError):
            kind(**wrong)
