"""Results onto the disk: whole and right, or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from easyphoto import errors
from easyphoto.client import BadAnswer, Client, Unreachable
from easyphoto.client.reading import read
from easyphoto.store.codec import to_json
from easyphoto.work import JobKind, JobResult, ResultFile
from tests.client.conftest import Caller
from tests.client.rough_server import Rough, answer, drop, raw, truncated

CONTENT = b"picture" * 1000


def result(*names: str, content: bytes = CONTENT) -> JobResult:
    digest = hashlib.sha256(content).hexdigest()
    files = tuple(ResultFile(name=name, media_type="image/png", size=len(content), sha256=digest) for name in names)
    return JobResult(id="r1", kind=JobKind.PORTRAITS, owner="local", created="2026-01-01T00:00:00Z", files=files)


def left_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_all_files_come_whole_over_a_connection_that_breaks(call: Caller, rough: Rough, tmp_path: Path) -> None:
    rough.on("results/r1", answer(to_json(result("a.png", "ü 2.png"))))
    rough.on("results/r1/files/a.png", drop, truncated(CONTENT[:3000], len(CONTENT)), raw(CONTENT))
    rough.on("results/r1/files/%C3%BC%202.png", answer({}, 503), raw(CONTENT))
    paths = call("download", "r1", tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["a.png", "ü 2.png"]
    assert left_in(tmp_path / "new" / "folder") == {"a.png": CONTENT, "ü 2.png": CONTENT}


def test_what_is_there_already_is_not_fetched_again(call: Caller, rough: Rough, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(CONTENT)
    assert call("download", result("a.png"), tmp_path) == (tmp_path / "a.png",)
    assert not rough.seen


def test_another_file_is_replaced_only_when_that_was_said(call: Caller, rough: Rough, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"mine")
    rough.on("results/r1/files/a.png", raw(CONTENT))
    with pytest.raises(errors.Conflict, match="replace=True"):
        call("download", result("a.png"), tmp_path)
    assert left_in(tmp_path) == {"a.png": b"mine"}
    call("download", result("a.png"), tmp_path, replace=True)
    assert left_in(tmp_path) == {"a.png": CONTENT}


@pytest.mark.parametrize("sent", [CONTENT[:-1] + b"X", CONTENT + b"more", b""])
def test_a_file_that_is_not_what_was_told_is_not_kept(call: Caller, rough: Rough, tmp_path: Path, sent: bytes) -> None:
    rough.on("results/r1/files/a.png", raw(sent))
    with pytest.raises(BadAnswer, match="not kept"):
        call("download", result("a.png"), tmp_path)
    assert left_in(tmp_path) == {}


def test_a_download_that_cannot_be_finished_leaves_nothing(call: Caller, rough: Rough, tmp_path: Path) -> None:
    rough.on("results/r1/files/a.png", truncated(CONTENT[:3000], len(CONTENT)))
    with pytest.raises(Unreachable):
        call("download", result("a.png"), tmp_path)
    assert left_in(tmp_path) == {}


def test_an_interrupted_download_leaves_nothing(rough: Rough, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rough.on("results/r1/files/a.png", raw(CONTENT))

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("easyphoto.client.downloads.PartFile.write", interrupt)
    with Client(rough.url) as client, pytest.raises(KeyboardInterrupt):
        client.download(result("a.png"), tmp_path)
    assert left_in(tmp_path) == {}


@pytest.mark.parametrize("name", ["../a.png", "/etc/a", "a\\b", "..", "", "C:a", "a\0b", "a/b", "a\nb"])
def test_a_server_cannot_write_elsewhere(call: Caller, rough: Rough, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadAnswer, match="no plain file name"):
        call("download", result("good.png", name), tmp_path / "in")
    assert not rough.seen
    assert left_in(tmp_path / "in") == {}


def test_an_empty_file_is_a_file(call: Caller, rough: Rough, tmp_path: Path) -> None:
    rough.on("results/r1/files/log.txt", raw(b""))
    call("download", result("log.txt", content=b""), tmp_path)
    assert left_in(tmp_path) == {"log.txt": b""}


def test_a_folder_that_cannot_be_made_is_told(call: Caller, rough: Rough, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.EasyPhotoError):
        call("download", result("a.png"), tmp_path / "file" / "in")


def test_results_of_a_newer_server_can_be_read() -> None:
    data = {**to_json(result("a.png")), "kind": "video", "mood": "good"}
    assert read(JobResult, data).kind.value == "video"
