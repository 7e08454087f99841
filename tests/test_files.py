"""Files are whole or not there, and a disk that cannot take them is told in one sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from easyphoto import files
from easyphoto.errors import NotFound, StorageError


def test_bytes_and_text_come_back_as_written(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "a.bin", b"\x00\r\n\xff")
    files.write_text(tmp_path / "人 😀.txt", "ä\n人\r\n")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\r\n\xff"
    assert (tmp_path / "人 😀.txt").read_bytes() == "ä\n人\r\n".encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "人 😀.txt"]


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files.write_bytes(path, b"old")
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_the_longest_name_a_disk_takes_works(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".png")
    files.write_bytes(path, b"1")
    assert path.read_bytes() == b"1"


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "may not be written to")],
)
def test_a_failing_disk_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    path = tmp_path / "a"
    files.write_bytes(path, b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=says):
        files.write_bytes(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_the_systems_own_error_of_a_full_disk_is_known() -> None:
    with pytest.raises(OSError) as caught, Path("/dev/full").open("wb", buffering=0) as device:
        device.write(b"x")
    assert isinstance(files.storage_error(Path("/x/y"), caught.value), StorageError)
    assert "the disk is full" in str(files.storage_error(Path("/x/y"), caught.value))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="may not be written to"):
        files.write_bytes(tmp_path / "a", b"1")


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        files.write_bytes(tmp_path / "no" / "a", b"1")
