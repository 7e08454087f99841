"""The example scripts as a user runs them, against the project's own server: one story from photos to deletion."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from easyphoto.client import JobKind, JobState
from easyphoto.settings import PROJECT_ROOT
from tests.client.live import Live, live_server

SCRIPTS = sorted(path.stem for path in (PROJECT_ROOT / "api_test").glob("*.py"))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_server(tmp_path_factory.mktemp("scripts")) as server:
        yield server


def few_photos(folder: Path, source: Path) -> Path:
    """Three photos in a folder of their own: judging ten takes longer than all the rest."""
    folder.mkdir()
    for path in sorted(source.glob("*.jpg"))[:3]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def trained(live: Live, sample_people: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of train.py, which later scripts build on."""
    photos = few_photos(tmp_path_factory.mktemp("photos") / "in", sample_people / "woman")
    return run(live, "train", "Änne", photos, "--max-steps", 2, "--no-validation", "--consent-by", "Änne")


def run(live: Live, script: str, *values: object, fails: bool = False) -> str:
    """What a script prints; its errors too if it is to fail."""
    command = [sys.executable, "-W", "error", "-m", f"api_test.{script}", *map(str, values)]
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, env=live.env(), capture_output=True, text=True, encoding="utf-8", timeout=180, check=False
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    assert fails or not done.stderr, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_explains_itself(live: Live, script: str) -> None:
    said = run(live, script, "--help")
    assert "EASYPHOTO_TOKEN" in said
    assert "usage:" in said


@pytest.mark.parametrize(("script", "values"), [("train", ("X", "nowhere")), ("infer", ("Nobody", "--templates", "x")),
                                                ("jobs", ("show", "0" * 16))])  # fmt: skip
def test_a_script_that_cannot_do_it_says_so_in_a_sentence(live: Live, script: str, values: tuple[str, ...]) -> None:
    said = run(live, script, *values, fails=True)
    assert said.startswith("not_found: ")
    assert "Traceback" not in said


def test_train_shows_progress_and_the_person_with_their_consent(live: Live, trained: str) -> None:
    assert "checking photos" in trained
    assert "Änne has the id" in trained
    with live.client() as client:
        consent = client.find("Änne").consent
    assert consent is not None
    assert consent.given_by == "Änne"


def test_photos_can_be_judged_alone(live: Live, sample_people: Path) -> None:
    said = run(live, "train", "X", sample_people / "man" / "00.jpg", "--check-only")
    assert "00.jpg - " in said


def test_infer_makes_portraits_from_the_gallery_and_from_a_file(
    live: Live, trained: str, templates: Path, tmp_path: Path
) -> None:
    assert "Änne" in run(live, "infer")
    picture = templates / "studio-woman.jpg"
    said = run(live, "infer", "Änne", "--templates", "living-room", picture, "--output", tmp_path, "--seed", 5, "--steps", 2)
    assert "seed 5" in said
    pictures = sorted(tmp_path.iterdir())
    assert len(pictures) == 2
    assert all(path.read_bytes().startswith(b"\x89PNG") and str(path) in said for path in pictures)


def test_older_clients_get_their_pictures(live: Live, trained: str, templates: Path, tmp_path: Path) -> None:
    picture = templates / "studio-woman.jpg"
    said = run(live, "legacy", "infer", "Änne", "--templates", picture, "--output", tmp_path, "--steps", 2, 2)
    assert "Template 1 Success." in said
    assert (tmp_path / "legacy-0.png").read_bytes().startswith(b"\x89PNG")


def test_older_clients_can_train(live: Live, sample_people: Path, tmp_path: Path) -> None:
    photos = few_photos(tmp_path / "in", sample_people / "man")
    said = run(live, "legacy", "train", "Old", photos, "--max-steps", 2, "--no-validation")
    assert "The training has been completed." in said
    again = run(live, "legacy", "train", "Old", photos, fails=True)
    assert "User id non-repeatability." in again


def test_jobs_are_listed_followed_and_deleted(live: Live, trained: str) -> None:
    with live.client() as client:
        training = client.jobs(kind=JobKind.TRAINING, person="Änne")[0]
        result = client.result(training)
    assert training.state is JobState.DONE
    assert training.id in run(live, "jobs", "list", "--kind", "training")
    assert '"kind": "done"' in run(live, "jobs", "follow", training.id)
    assert "done" in run(live, "jobs", "show", training.id)
    assert "done" in run(live, "jobs", "cancel", training.id)
    assert result.id in run(live, "jobs", "results")
    assert "result.json" in run(live, "jobs", "delete-result", result.id)
    removed = run(live, "jobs", "delete-person", "Änne", "--results")
    assert "people/" in removed
    assert "Änne" not in run(live, "infer").partition("templates:")[0]


def test_the_notebook_like_example_runs_from_its_first_cell_to_its_last(
    live: Live, sample_people: Path, tmp_path: Path
) -> None:
    photos = few_photos(tmp_path / "in", sample_people / "woman")
    chosen = {"NAME": "Example", "PHOTOS": str(photos), "STEPS": "2", "DELETE": "1"}
    env = {**live.env(), "PYTHONPATH": str(PROJECT_ROOT)}
    env.update({f"EASYPHOTO_EXAMPLE_{name}": value for name, value in chosen.items()})
    command = [sys.executable, "-W", "error", str(PROJECT_ROOT / "examples" / "first_portrait.py")]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "portraits").glob("*.png"))) == 2
    assert "removed people/" in done.stdout


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="curl or bash is not here")
def test_the_documents_lines_for_curl_make_a_portrait(live: Live, sample_people: Path, tmp_path: Path) -> None:
    photos = few_photos(tmp_path / "photos", sample_people / "woman")
    for number, path in enumerate(sorted(photos.iterdir()), 1):
        path.rename(photos / f"{number}.jpg")
    (block,) = re.findall(r"```sh\n(.*?)```", (PROJECT_ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)
    quick = "-F 'settings={\"optim\": {\"max_steps\": 2}, \"validate\": {\"every\": 0}}' -F name=Ada"
    assert "-F name=Ada" in block
    command = ["bash", "-euo", "pipefail", "-c", block.replace("-F name=Ada", quick)]
    done = subprocess.run(command, cwd=tmp_path, env=live.env(), capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "event: end" in done.stdout
    assert (tmp_path / "portrait.png").read_bytes().startswith(b"\x89PNG")
