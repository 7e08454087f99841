"""Jobs and results on the wire: lists, states, cancelling, files; each owner sees their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from easyphoto.jobs.folders import End, now
from easyphoto.jobs.results import ResultFolder
from easyphoto.jobs.store import NewJob
from easyphoto.jobs.turns import Turns
from easyphoto.orders import DrillOrder
from easyphoto.store.codec import to_json
from easyphoto.store.paths import person_id
from easyphoto.work import FaceScore, Job, JobResult, JobState, Picture
from tests.api.rig import Rig, fields_of, jpeg, problem_of

NOBODY = "0123456789abcdef"


def drill(rig: Rig, owner: str = "local", priority: int = 0) -> Job:
    return rig.service.store.submit(NewJob(order=DrillOrder(), owner=owner, priority=priority))


def finished(rig: Rig, name: str = "über uns.png", person: str = "Anna") -> JobResult:
    """A portrait job that has left one picture."""
    job = drill(rig)
    turns = Turns(rig.service.store)
    turn = turns.claim(only=job.id)
    assert turn is not None
    folder = ResultFolder(rig.service.home("local"), job.id)
    file = folder.add(name, jpeg())
    picture = Picture(
        file=file, template="a.jpg", seed=1, infotext="Steps: 1", faces=(FaceScore(person=person, similarity=0.5),)
    )
    result = JobResult(id=job.id, kind=job.kind, owner="local", created=now(), person=person, pictures=(picture,))
    result = folder.commit(result)
    turns.finish(turn, End(state=JobState.DONE, ended=now(), started=turn.job.started, attempt=1), result)
    return result


def test_jobs_are_listed_newest_first_in_pages(rig: Rig) -> None:
    jobs = [drill(rig) for _ in range(5)]
    drill(rig, owner=person_id("Berta"))
    first = rig.mine.get("/jobs", params={"limit": 3}).json()
    second = rig.mine.get("/jobs", params={"limit": 3, "cursor": first["next"]}).json()
    assert [job["id"] for job in (*first["items"], *second["items"])] == [job.id for job in reversed(jobs)]
    assert second["next"] is None
    assert first["items"][0] == to_json(jobs[-1])


def test_jobs_are_found_by_state_kind_and_person(rig: Rig) -> None:
    check = rig.mine.post("/checks", files=[("photos", ("a.jpg", jpeg()))]).json()
    training = rig.mine.post("/people", data={"name": "Änne"}, files=[("photos", ("a.jpg", jpeg()))]).json()
    rig.mine.delete(f"/jobs/{check['id']}")

    def ids(**query: str) -> list[str]:
        return [job["id"] for job in rig.mine.get("/jobs", params=query).json()["items"]]

    assert ids(state="cancelled") == ids(kind="check") == [check["id"]]
    assert ids(state="queued") == ids(person="Änne") == [training["id"]]
    assert ids(person="Berta") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"state": "gone"}, "state"), ({"kind": "video"}, "kind"), ({"limit": "0"}, "limit"), ({"limit": "x"}, "limit"),
        ({"limit": "1000"}, "limit"), ({"cursor": "x"}, "cursor"), ({"token": "x"}, "token"), ({"person": "a/b"}, "person"),
    ],
)  # fmt: skip
def test_what_no_list_knows_is_refused(rig: Rig, query: dict[str, str], field: str) -> None:
    assert fields_of(rig.mine.get("/jobs", params=query)) == [field]


def test_a_parameter_that_comes_twice_is_refused(rig: Rig) -> None:
    assert fields_of(rig.mine.get("/jobs?limit=1&limit=2")) == ["limit"]


def test_a_job_is_its_record_and_its_owners_alone(rig: Rig) -> None:
    job = drill(rig)
    assert rig.mine.get(f"/jobs/{job.id}").json() == to_json(job)
    for path in ("", "/events", "/files/a.png"):
        assert problem_of(rig.theirs.get(f"/jobs/{job.id}{path}"), 404)["code"] == "not_found"
    assert problem_of(rig.theirs.delete(f"/jobs/{job.id}"), 404)
    assert rig.service.store.get(job.id).state is JobState.QUEUED


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_soon(rig: Rig) -> None:
    waiting, running = drill(rig), drill(rig)
    assert Turns(rig.service.store).claim(only=running.id) is not None
    answer = rig.mine.delete(f"/jobs/{waiting.id}")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    answer = rig.mine.delete(f"/jobs/{running.id}")
    assert (answer.status_code, answer.json()["state"], answer.json()["cancel_asked"]) == (202, "running", True)
    assert rig.mine.delete(f"/jobs/{waiting.id}").status_code == 200


def test_only_pictures_of_a_job_are_shown(rig: Rig, tmp_path: Path) -> None:
    job = rig.mine.post("/checks", files=[("photos", ("a.jpg", jpeg()))]).json()
    folder = rig.service.store.folder(job["id"])
    (folder / "preview-1.jpg").write_bytes(jpeg())
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    (folder / "link.jpg").symlink_to(secret)
    (folder / "folder.jpg").mkdir()
    shown = rig.mine.get(f"/jobs/{job['id']}/files/preview-1.jpg")
    assert (shown.content, shown.headers["content-type"]) == (jpeg(), "image/jpeg")
    for name in (
        "order.json", "log.txt", "link.jpg", "folder.jpg", "inputs/0000/a.jpg", "inputs%2F0000%2Fa.jpg", "..%2F..%2Fx.jpg",
        "%2e%2e%2f%2e%2e%2fsecret.jpg", "..%5c..%5cx.jpg", ".shown.jpg", "none.jpg", "a%00.jpg", "preview-1.jpg%00",
    ):  # fmt: skip
        problem_of(rig.mine.get(f"/jobs/{job['id']}/files/{name}"), 404)


@pytest.mark.parametrize(
    "strange", ["..", "%2e%2e", "..%2f..%2ftokens.json", "x" * 3000, "%00", "%ff%fe", "' OR 1=1 --", NOBODY]
)
@pytest.mark.parametrize("place", ["jobs", "results", "people", "templates"])
def test_no_id_reaches_anything_else(rig: Rig, place: str, strange: str) -> None:
    (rig.service.settings.home / "tokens.json").exists()
    answer = rig.mine.get(f"/{place}/{strange}")
    # The client itself shortens "..", and then asks for another route.
    assert answer.status_code == 404 or strange in ("..", "%2e%2e")
    assert b"sha256" not in answer.content


def test_a_result_is_its_record_with_an_etag(rig: Rig) -> None:
    result = finished(rig)
    answer = rig.mine.get(f"/results/{result.id}")
    assert answer.json() == to_json(result)
    again = rig.mine.get(f"/results/{result.id}", headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", answer.headers["etag"])
    assert rig.theirs.get(f"/results/{result.id}").status_code == 404
    waiting = drill(rig)
    assert problem_of(rig.mine.get(f"/results/{waiting.id}"), 404)


def test_a_results_file_comes_with_name_type_and_etag(rig: Rig) -> None:
    result = finished(rig)
    [entry] = result.files
    path = f"/results/{result.id}/files/{entry.name}"
    answer = rig.mine.get(path)
    assert (answer.content, answer.headers["content-type"]) == (jpeg(), "image/png")
    assert answer.headers["etag"] == f'"{entry.sha256}"'
    assert answer.headers["content-disposition"].startswith("inline; filename=")
    assert "filename*=UTF-8''" in answer.headers["content-disposition"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"].startswith("private")
    assert rig.mine.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert rig.theirs.get(path).status_code == 404
    for name in ("result.json", "..%2fresult.json", "%2e%2e", "none.png"):
        assert rig.mine.get(f"/results/{result.id}/files/{name}").status_code in (404, 405)


def test_a_file_that_was_taken_away_is_not_found(rig: Rig) -> None:
    result = finished(rig)
    (rig.service.home("local").results / result.id / result.files[0].name).unlink()
    problem_of(rig.mine.get(f"/results/{result.id}/files/{result.files[0].name}"), 404)


def test_results_are_listed_in_pages_and_by_person(rig: Rig) -> None:
    made = [finished(rig, person=name) for name in ("Anna", "Berta", "Anna")]
    first = rig.mine.get("/results", params={"limit": 2}).json()
    second = rig.mine.get("/results", params={"limit": 2, "cursor": first["next"]}).json()
    assert [entry["id"] for entry in (*first["items"], *second["items"])] == [result.id for result in reversed(made)]
    berta = rig.mine.get("/results", params={"person": "Berta"}).json()["items"]
    assert [entry["id"] for entry in berta] == [made[1].id]
    assert rig.theirs.get("/results").json()["items"] == []


def test_a_deleted_result_is_gone_with_its_files(rig: Rig) -> None:
    result = finished(rig)
    assert rig.theirs.delete(f"/results/{result.id}").status_code == 404
    removed = rig.mine.delete(f"/results/{result.id}").json()["removed"]
    assert f"results/{result.id}/{result.files[0].name}" in removed
    assert not (rig.service.home("local").results / result.id).exists()
    assert rig.mine.get(f"/results/{result.id}").status_code == 404
    assert rig.mine.delete(f"/results/{result.id}").status_code == 404
