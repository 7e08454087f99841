from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from easyphoto.errors import Conflict, InputError, NotFound, StorageError
from easyphoto.records import Box, Face, Photo, PhotoScores, PreparedPhoto, PreparedSet, Reason, Verdict
from easyphoto.settings import PROJECT_ROOT
from easyphoto.specs import CheckpointScore, TrainResult, TrainSpec
from easyphoto.store.paths import Home, person_id
from easyphoto.store.people import PeopleStore

NAMES = ["Anna", "王小明", "👩🏽‍🚀", "O'Brien: <x>|?*"]


def prepared_set(shade: int = 200) -> PreparedSet:
    photo = Photo(pixels=np.full((32, 32, 3), shade, np.uint8), name="a.jpg")
    face = Face(box=Box(left=4, top=4, right=28, bottom=28), score=1.0, landmarks=np.zeros((5, 2), np.float32))
    one = PreparedPhoto(name="a.jpg", original=photo, crop=photo, face=face, scores=PhotoScores())
    verdict = Verdict(photo="a.jpg", accepted=True, reason=Reason.GOOD, sentence="Taken.", is_reference=True)
    return PreparedSet(photos=(one,), verdicts=(verdict,), reference=0, embedding=np.linspace(-1, 1, 128, dtype=np.float32))


def finished_job(folder: Path, content: bytes = b"lora") -> TrainResult:
    (folder / "validation").mkdir(parents=True)
    (folder / "lora.safetensors").write_bytes(content)
    picture = folder / "validation" / "step-000004-office.png"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(picture)
    score = CheckpointScore(step=4, score=0.5, pictures=(picture,), picture_scores=(0.5,))
    return TrainResult(
        lora=folder / "lora.safetensors",
        steps=4,
        photos=1,
        checkpoints=(score,),
        chosen=0,
        face_id_picture=picture,
        seconds=1.0,
    )


@pytest.fixture
def store(tmp_path: Path) -> PeopleStore:
    return PeopleStore(Home(tmp_path / "home").make())


def publish(store: PeopleStore, name: str = "Anna", content: bytes = b"lora"):
    folder = store.home.jobs / f"{person_id(name)}-{len(list(store.home.jobs.iterdir()))}"
    spec = TrainSpec(person=name, base_model=Path("/models/base"))
    return store.publish(spec, prepared_set(), finished_job(folder, content))


@pytest.mark.parametrize("name", NAMES)
def test_a_published_person_is_found_again(store: PeopleStore, name: str) -> None:
    person = publish(store, name)
    assert store.get(name) == person == store.list()[0]
    assert person.name == name
    assert person.lora.read_bytes() == b"lora"
    assert person.lora.suffix == ".safetensors"
    assert np.asarray(Image.open(person.reference))[0, 0].tolist() == [200, 200, 200]
    assert np.asarray(Image.open(person.face_id_picture))[0, 0].tolist() == [1, 2, 3]
    assert person.embedding == tuple(np.linspace(-1, 1, 128, dtype=np.float32).tolist())
    assert (person.score, person.photos) == (0.5, 1)
    assert json.loads(store.verdicts_path(name).read_text(encoding="utf-8"))[0]["sentence"] == "Taken."
    training = store.training(name)
    assert training.checkpoints[0].pictures[0].is_file()
    assert training.lora == person.lora


def test_without_a_rendering_the_reference_stands_in(store: PeopleStore, tmp_path: Path) -> None:
    result = replace(finished_job(tmp_path / "job"), face_id_picture=None, checkpoints=(), chosen=-1)
    person = store.publish(TrainSpec(person="Anna", base_model=Path("/m")), prepared_set(), result)
    assert person.face_id_picture == person.reference
    assert person.score is None


def test_nothing_of_a_person_depends_on_where_the_home_lies(store: PeopleStore, tmp_path: Path) -> None:
    publish(store)
    shutil.move(tmp_path / "home", tmp_path / "moved")
    person = PeopleStore(Home(tmp_path / "moved")).get("Anna")
    assert person.lora.read_bytes() == b"lora"
    assert str(tmp_path / "home") not in "".join(path.read_text("utf-8") for path in person.folder.glob("*.json"))


def test_publishing_again_replaces_the_whole_person(store: PeopleStore) -> None:
    publish(store)
    person = publish(store, content=b"newer")
    assert person.lora.read_bytes() == b"newer"
    assert len(store.list()) == 1
    assert [path.name for path in store.home.people.iterdir() if path.name != ".locks"] == [person.person_id]


@pytest.mark.parametrize("calls", range(12))
def test_a_full_disk_at_any_moment_leaves_the_earlier_person(
    store: PeopleStore, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    publish(store)
    left, real = [calls], os.fsync

    def fsync(descriptor: int) -> None:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    try:
        publish(store, content=b"newer")
    except StorageError as error:
        assert "full" in str(error)
        assert store.get("Anna").lora.read_bytes() == b"lora"
    else:
        assert store.get("Anna").lora.read_bytes() == b"newer"
    assert not list(store.home.people.glob(".staging-*"))


def test_a_swap_cut_off_by_a_crash_still_shows_the_earlier_person(store: PeopleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    person = publish(store)
    person.folder.rename(store.home.people / f".old-{person.person_id}-0a1b2c3d")
    assert store.get("Anna").lora.read_bytes() == b"lora"
    assert [one.name for one in store.list()] == ["Anna"]
    publish(store, content=b"newer")
    assert store.get("Anna").lora.read_bytes() == b"newer"
    assert not list(store.home.people.glob(".old-*"))


def test_a_failing_second_rename_brings_the_earlier_person_back(store: PeopleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name.startswith(".staging-"):
            raise OSError(errno.EACCES, "Permission denied")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StorageError, match="permissions"):
        publish(store, content=b"newer")
    assert store.get("Anna").folder.name == person_id("Anna")
    assert store.get("Anna").lora.read_bytes() == b"lora"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_read_only_home_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="permissions"):
            Home(tmp_path / "home").make()
    finally:
        tmp_path.chmod(0o700)


def test_a_home_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("x", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot be written"):
        Home(tmp_path / "home").make()


def test_unknown_people_are_told_who_is_known(store: PeopleStore) -> None:
    with pytest.raises(NotFound, match="nobody yet"):
        store.get("Bob")
    publish(store, "Anna")
    publish(store, "王小明")
    with pytest.raises(NotFound, match="'Bob' has not been trained; trained: Anna, 王小明"):
        store.get("Bob")


@pytest.mark.parametrize("text", ["{", pytest.param("[" * 100_000, id="deep")])
def test_a_broken_person_is_told_and_left_out_of_the_list(store: PeopleStore, text: str) -> None:
    person = publish(store)
    publish(store, "Bob")
    (person.folder / "person.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="train the person again"):
        store.get("Anna")
    assert [one.name for one in store.list()] == ["Bob"]


def test_a_person_file_cannot_point_outside_its_folder(store: PeopleStore) -> None:
    person = publish(store)
    data = json.loads((person.folder / "person.json").read_text("utf-8"))
    data["lora"] = "../../secret"
    (person.folder / "person.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match="outside"):
        store.get("Anna")


def test_delete_removes_the_person_and_their_jobs_alone(store: PeopleStore) -> None:
    person = publish(store, "Anna")
    publish(store, "Anna B")
    removed = store.delete("Anna")
    assert person.lora in removed
    assert any(path.is_relative_to(store.home.jobs) for path in removed)
    assert not any(path.exists() for path in removed)
    assert [one.name for one in store.list()] == ["Anna B"]
    assert [path.name.rsplit("-", 1)[0] for path in store.home.jobs.iterdir()] == [person_id("Anna B")]
    with pytest.raises(NotFound):
        store.delete("Anna")


def test_two_at_once_conflict(store: PeopleStore) -> None:
    with store.lock("Anna"):
        with store.lock("Bob"):
            pass
        with pytest.raises(Conflict, match=f"'ANNA' is being done already by process {os.getpid()}"), store.lock("ANNA"):
            pass
        with pytest.raises(Conflict):
            store.delete("Anna")
        publish(store)
    with store.lock("Anna"):
        pass


HOLDER = """
import sys, time
from pathlib import Path
from easyphoto.store.paths import Home
from easyphoto.store.people import PeopleStore
with PeopleStore(Home(Path(sys.argv[1]))).lock("Anna"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_taken_over(store: PeopleStore) -> None:
    command = [sys.executable, "-c", HOLDER, str(store.home.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT_ROOT) as holder:
        assert holder.stdout
        assert holder.stdout.readline().strip() == b"held"
        with pytest.raises(Conflict, match=f"by process {holder.pid}"), store.lock("Anna"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with store.lock("Anna"):
            pass


RACER = """
import sys, time
from pathlib import Path
from easyphoto.errors import Conflict
from easyphoto.store.paths import Home
from easyphoto.store.people import PeopleStore
store = PeopleStore(Home(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
try:
    with store.lock("Anna"):
        print("held", flush=True)
        sys.stdin.readline()
except Conflict:
    print("refused", flush=True)
"""


def test_of_many_at_once_one_gets_the_lock(store: PeopleStore) -> None:
    command = [sys.executable, "-c", RACER, str(store.home.root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1, "cwd": PROJECT_ROOT}
    racers = [subprocess.Popen(command, **pipes) for _ in range(4)]
    try:
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 4
        for racer in racers:
            racer.stdin.write("go\n")
        assert sorted(racer.stdout.readline() for racer in racers) == ["held\n", *["refused\n"] * 3]
    finally:
        for racer in racers:
            racer.communicate()
