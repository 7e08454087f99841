"""Renaming a person, and the note of who consented."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from easyphoto.errors import Conflict, InputError, NotFound
from easyphoto.orders import Consent
from easyphoto.settings import PROJECT_ROOT
from easyphoto.specs import Person, TrainSpec
from easyphoto.store.lora_file import read_lora, write_lora
from easyphoto.store.lora_meta import TrainingFacts, kohya_metadata, spec_of, with_hashes
from easyphoto.store.paths import Home, person_id
from easyphoto.store.people import PeopleStore
from tests.store.test_people import finished_job, prepared_set

WORD = Consent(given_by="Anna herself", given_at="2026-11-21", note="by mail")
TENSORS = {
    "lora_unet_x.lora_down.weight": np.ones((2, 4), np.float32),
    "lora_unet_x.lora_up.weight": np.ones((4, 2), np.float32),
}


def spec_for(name: str) -> TrainSpec:
    return TrainSpec(person=name, base_model=Path("/models/base"))


def train(store: PeopleStore, name: str = "Anna", stamp: str = "20200101-000000", consent: Consent | None = None) -> Person:
    """Publish somebody with a real LoRA file and a training folder as it is left behind."""
    folder = store.home.jobs / f"{person_id(name)}-{stamp}"
    result, spec = finished_job(folder), spec_for(name)
    write_lora(result.lora, with_hashes(TENSORS, kohya_metadata(spec, TrainingFacts(steps=4, photos=1))))
    return store.publish(spec, prepared_set(), result, consent)


@pytest.fixture
def store(tmp_path: Path) -> PeopleStore:
    return PeopleStore(Home(tmp_path / "home").make())


def test_a_renamed_person_is_the_same_person_under_the_new_name_alone(store: PeopleStore) -> None:
    before = train(store)
    weights = read_lora(before.lora)
    person = store.rename("Anna", "王小明")
    assert (person.name, person.person_id) == ("王小明", person_id("王小明"))
    assert replace(person, name="", person_id="", folder=Path(), lora=Path(), reference=Path(), face_id_picture=Path()) == (
        replace(before, name="", person_id="", folder=Path(), lora=Path(), reference=Path(), face_id_picture=Path())
    )
    assert [one.name for one in store.list()] == ["王小明"]
    with pytest.raises(NotFound):
        store.get("Anna")
    assert not before.folder.exists()
    assert person.reference.is_file()
    assert store.training("王小明").lora == person.lora
    assert store.training("王小明").checkpoints[0].pictures[0].is_file()
    after = read_lora(person.lora)
    assert all(np.array_equal(after.tensors[key], weights.tensors[key]) for key in weights.tensors)


def test_the_lora_says_the_new_name_and_keeps_true_hashes(store: PeopleStore) -> None:
    train(store)
    person = store.rename("Anna", "Bea")
    file = read_lora(person.lora)
    assert person.lora.name == "Bea.safetensors"
    assert spec_of(file) == spec_for("Bea")
    assert file.metadata["ss_output_name"] == "Bea"
    assert b"Anna" not in person.lora.read_bytes()
    bare = {key: value for key, value in file.metadata.items() if not key.startswith("sshs_")}
    assert with_hashes(file.tensors, bare).metadata["sshs_model_hash"] == file.metadata["sshs_model_hash"]


def test_a_taken_name_is_refused_and_nothing_changes(store: PeopleStore) -> None:
    train(store)
    train(store, "Bea")
    with pytest.raises(Conflict, match="choose another name"):
        store.rename("Anna", "BEA")
    assert [one.name for one in store.list()] == ["Anna", "Bea"]
    with pytest.raises(NotFound):
        store.rename("Carl", "Dora")


@pytest.mark.parametrize("busy", ["Anna", "Bea"])
def test_nobody_is_renamed_while_a_training_of_either_name_runs(store: PeopleStore, busy: str) -> None:
    train(store)
    with store.lock(busy), pytest.raises(Conflict, match=f"a training of '{busy}'"):
        store.rename("Anna", "Bea")
    assert store.rename("Anna", "Bea").name == "Bea"


def test_a_name_may_change_its_case_alone(store: PeopleStore) -> None:
    train(store, "anna")
    assert store.rename("anna", "Anna").lora.name == "Anna.safetensors"
    assert [one.name for one in store.list()] == ["Anna"]


def test_a_freed_name_can_be_given_to_somebody_else_and_their_jobs_are_told_apart(store: PeopleStore) -> None:
    train(store, stamp="20200101-000000")
    store.rename("Anna", "Bea")
    train(store, stamp="29990101-000000")
    [hers] = store.job_folders("Bea")
    [others] = store.job_folders("Anna")
    assert (hers.name[-15:], others.name[-15:]) == ("20200101-000000", "29990101-000000")
    removed = store.delete("Bea")
    assert not hers.exists()
    assert others.exists()
    assert store.get("Anna").lora.is_file()
    assert any(path.is_relative_to(hers) for path in removed)


def test_names_come_and_go_in_a_chain(store: PeopleStore) -> None:
    train(store)
    store.rename("Anna", "Bea")
    store.rename("Bea", "Carl")
    assert [identity.name for identity in store.identities("Carl")] == ["Carl", "Anna", "Bea"]
    assert len(store.job_folders("Carl")) == 1
    assert store.job_folders("Anna") == ()


def test_nothing_bears_the_name_after_deletion_not_even_a_lock(store: PeopleStore) -> None:
    train(store)
    with store.lock("Anna"):
        pass
    store.delete("Anna")
    assert [path for path in store.home.root.rglob("*") if "anna" in path.name.lower()] == []


CRASHER = """
import os, sys
from pathlib import Path
from easyphoto.store.paths import Home
from easyphoto.store.people import PeopleStore
moment, home = int(sys.argv[1]), Path(sys.argv[2])
import shutil
left = moment
def dying(real):
    def call(*args, **kwargs):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return real(*args, **kwargs)
    return call
for name in ("rename", "replace", "fsync", "unlink", "rmdir"):
    setattr(os, name, dying(getattr(os, name)))
PeopleStore(Home(home)).rename("Anna", "Bea")
"""


def test_killed_at_any_moment_the_person_has_one_of_the_two_names_whole(tmp_path: Path) -> None:
    ended = False
    for moment in (*range(0, 40, 3), *range(40, 100, 7), 1000):
        store = PeopleStore(Home(tmp_path / f"home{moment}").make())
        train(store, consent=WORD)
        command = [sys.executable, "-c", CRASHER, str(moment), str(store.home.root)]
        ended = subprocess.run(command, cwd=PROJECT_ROOT, check=False).returncode == 0
        [person] = store.list()
        assert person.name in ("Anna", "Bea")
        assert store.get(person.name) == person
        assert spec_of(read_lora(person.lora)) == spec_for(person.name)
        assert store.consent(person.name) == WORD
        assert len(store.job_folders(person.name)) == 1
        if person.name == "Anna":
            person = store.rename("Anna", "Bea")
        train(store, "Anna", stamp="29990101-000000")
        assert [one.name for one in store.list()] == ["Anna", "Bea"]
        store.delete("Anna")
        store.delete("Bea")
        assert [path for path in store.home.root.rglob("*") if path.is_file()] == []
        if ended:
            break
    assert ended


def test_consent_is_kept_with_the_person_through_training_and_renaming(store: PeopleStore) -> None:
    train(store, consent=WORD)
    assert store.consent("Anna") == WORD
    train(store, stamp="20200102-000000")
    assert store.consent("Anna") == WORD
    store.rename("Anna", "Bea")
    assert store.consent("Bea") == WORD
    later = Consent(given_by="her agent", given_at="2026-12-01")
    train(store, "Bea", consent=later)
    assert store.consent("Bea") == later


def test_consent_can_be_written_down_and_taken_back_later(store: PeopleStore) -> None:
    train(store)
    assert store.consent("Anna") is None
    store.set_consent("Anna", WORD)
    assert store.consent("Anna") == WORD
    store.set_consent("Anna", None)
    assert store.consent("Anna") is None
    with pytest.raises(NotFound):
        store.set_consent("Bea", WORD)


def test_a_broken_note_is_told(store: PeopleStore) -> None:
    (train(store, consent=WORD).folder / "consent.json").write_text(json.dumps({"who": "?"}), encoding="utf-8")
    with pytest.raises(InputError, match=r"consent\.json cannot be read"):
        store.consent("Anna")
