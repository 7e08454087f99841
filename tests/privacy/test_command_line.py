"""What people type about their faces, and what comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from easyphoto.cli.main import main
from easyphoto.store.paths import Home, person_id
from easyphoto.store.people import PeopleStore
from tests.privacy.conftest import BEA, ZOE


def say(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> tuple[int, str]:
    status = main([*words, "--home", str(home)])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_the_audit_lists_every_file_of_everybody_and_sums_up(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    status, out = say(capsys, home, "audit")
    assert status == 0
    for words in ("LoRA", "embedding", "photo", "crop", "validation picture", "portrait", "log line", "job row"):
        assert words in out
    assert f"{ZOE}: " in out.splitlines()[-1]


def test_the_audit_of_one_person_lists_that_one_alone_as_json(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    status, out = say(capsys, home, "audit", "--person", ZOE.upper(), "--json")
    found = json.loads(out)
    assert status == 0
    assert {trace["person"] for trace in found["traces"]} == {ZOE}
    files = {trace["path"] for trace in found["traces"]}
    assert f"people/{person_id(ZOE)}/person.json" in files
    assert all((home / path).is_file() for path in files)


def test_delete_prints_what_was_removed_and_what_was_kept(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    status, out = say(capsys, home, "people", "delete", ZOE)
    assert status == 0
    assert f"people/{person_id(ZOE)}/person.json" in out
    assert "remove them too with --results" in out
    status, out = say(capsys, home, "people", "delete", ZOE, "--results", "--json")
    erased = json.loads(out)
    assert status == 0
    assert erased["kept"] == []
    assert any(path.endswith("result.json") for path in erased["removed"])
    status, out = say(capsys, home, "people", "delete", ZOE)
    assert (status, BEA in out) == (3, True)


def test_rename_and_consent_are_told_and_kept(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert "Ylva" in say(capsys, home, "people", "rename", ZOE, "Ylva")[1]
    assert PeopleStore(Home(home)).get("Ylva").lora.name == "Ylva.safetensors"
    assert f"consent by {ZOE} herself" in say(capsys, home, "people", "consent", "Ylva")[1]
    assert "nobody's consent" in say(capsys, home, "people", "consent", BEA)[1]
    say(capsys, home, "people", "consent", BEA, "--by", "Bea's mother", "--at", "2026-07-01", "--note", "team page")
    assert "Bea's mother, 2026-07-01 (team page)" in say(capsys, home, "people", "consent", BEA)[1]
    assert "nobody's consent" in say(capsys, home, "people", "consent", BEA, "--withdraw")[1]
    assert say(capsys, home, "people", "rename", BEA, "Ylva")[0] == 4
