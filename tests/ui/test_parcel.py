from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from easyphoto.errors import Conflict, InputError, NotFound
from easyphoto.orders import Consent
from easyphoto.store.people import PeopleStore
from easyphoto.ui import parcel
from easyphoto.ui.parcel import export_person, import_person, size_of
from easyphoto.ui.studio import Studio
from tests.ui.made import make_studio, publish

Files = dict[str, bytes]
CONSENT = Consent(given_by="Anna", given_at="2026-01-01")


@pytest.fixture
def other(tmp_path: Path) -> PeopleStore:
    """Another home, to which people move."""
    made = make_studio(tmp_path / "other")
    made.store.close()
    return made.app.people


@pytest.fixture
def exported(studio: Studio, tmp_path: Path) -> Path:
    publish(studio, "Änna <b>", CONSENT)
    return export_person(studio.app.people, "Änna <b>", tmp_path / "out")


def files_of(path: Path) -> Files:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_a_person_moves_whole(studio: Studio, other: PeopleStore, exported: Path) -> None:
    before, after = studio.app.people.get("Änna <b>"), import_person(other, exported)
    assert (after.name, after.person_id, after.score, after.embedding) == (
        before.name, before.person_id, before.score, before.embedding,
    )  # fmt: skip
    assert after.lora.read_bytes() == before.lora.read_bytes()
    for one, two in ((before.reference, after.reference), (before.face_id_picture, after.face_id_picture)):
        assert np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(two)))
    assert other.training(after.name).checkpoints[0].pictures[0].is_file()
    assert other.verdicts_path(after.name).read_text() == studio.app.people.verdicts_path(before.name).read_text()
    assert other.consent(after.name) == CONSENT
    assert size_of(after) > 1000


def test_nobody_is_overwritten(studio: Studio, exported: Path) -> None:
    with pytest.raises(Conflict, match="trained already"):
        import_person(studio.app.people, exported)


def test_nobody_is_exported_who_is_not_there(studio: Studio, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        export_person(studio.app.people, "Bob", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def _person(change: Callable[[dict], None]) -> Callable[[Files], None]:
    def changed(files: Files) -> None:
        data = json.loads(files["person.json"])
        change(data)
        files["person.json"] = json.dumps(data).encode()

    return changed


def _other_picture(files: Files) -> None:
    training = json.loads(files["training.json"])
    training["checkpoints"][0]["pictures"] = ["../../../etc/passwd"]
    files["training.json"] = json.dumps(training).encode()


HOSTILE: dict[str, Callable[[Files], object]] = {
    "a path upwards": lambda files: files.__setitem__("../evil.json", b"{}"),
    "an absolute path": lambda files: files.__setitem__("/etc/evil", b"x"),
    "a path upwards below the validation": lambda files: files.__setitem__("validation/../../evil.png", b"x"),
    "a Windows path": lambda files: files.__setitem__("validation\\..\\evil.png", b"x"),
    "a hidden LoRA path": lambda files: files.__setitem__("a\\b.safetensors", files.pop(_lora(files))),
    "a file nobody has": lambda files: files.__setitem__("run.py", b"print(1)"),
    "two LoRAs": lambda files: files.__setitem__("two.safetensors", files[_lora(files)]),
    "no LoRA": lambda files: files.pop(_lora(files)),
    "a LoRA that is none": lambda files: files.__setitem__(_lora(files), b"not safetensors"),
    "no person": lambda files: files.pop("person.json"),
    "no reference": lambda files: files.pop("reference.png"),
    "a reference that is none": lambda files: files.__setitem__("reference.png", b"<script>"),
    "a record that is none": lambda files: files.__setitem__("person.json", b"[]"),
    "verdicts that are none": lambda files: files.__setitem__("verdicts.json", b"{}"),
    "a record in another coding": lambda files: files.__setitem__("person.json", b"\xff\xfe"),
    "a record nested too deep": lambda files: files.__setitem__("training.json", b"[" * 100_000),
    "pictures elsewhere": _other_picture,
    "a name that is a path": _person(lambda data: data.__setitem__("name", "../../up")),
    "half an identity": _person(lambda data: data.__setitem__("embedding", [0.1] * 64)),
    "a field we do not have": _person(lambda data: data.__setitem__("run", "rm -rf /")),
}


def _lora(files: Files) -> str:
    return next(name for name in files if name.endswith(".safetensors"))


@pytest.mark.parametrize("what", HOSTILE)
def test_what_has_no_place_in_a_person_is_refused_and_leaves_nothing(
    other: PeopleStore, exported: Path, tmp_path: Path, what: str
) -> None:
    files = files_of(exported)
    HOSTILE[what](files)
    with pytest.raises(InputError):
        import_person(other, packed(tmp_path / "hostile.zip", files))
    left = [path for path in other.home.root.rglob("*") if path.is_file() and ".locks" not in path.parts]
    assert not [path for path in left if "queue" not in path.parts]
    assert not (tmp_path / "evil.json").exists()


def test_a_link_in_a_file_is_refused(other: PeopleStore, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "link.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files_of(exported).items():
            entry = zipfile.ZipInfo(name)
            if name == "reference.png":
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                data = b"/etc/passwd"
            archive.writestr(entry, data)
    with pytest.raises(InputError, match="no person has"):
        import_person(other, path)


def test_a_file_that_unpacks_to_more_than_its_kind_may_is_refused(
    other: PeopleStore, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parcel._LARGEST, ".json", 1 << 20)
    files = files_of(exported)
    files["verdicts.json"] = b" " * (50 << 20)
    path = packed(tmp_path / "bomb.zip", files)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match="more than 1 MiB"):
        import_person(other, path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice_is_refused(other: PeopleStore, exported: Path, tmp_path: Path) -> None:
    path = packed(tmp_path / "twice.zip", files_of(exported))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("person.json", b"{}")
    with pytest.raises(InputError, match="twice"):
        import_person(other, path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"<html>", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_zip_file_is_refused(other: PeopleStore, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    with pytest.raises(InputError):
        import_person(other, path)


def test_a_damaged_file_is_refused(other: PeopleStore, exported: Path) -> None:
    data = bytearray(exported.read_bytes())
    data[200:400] = bytes(200)
    exported.write_bytes(bytes(data))
    with pytest.raises(InputError):
        import_person(other, exported)


def test_a_picture_comes_in_as_pixels_alone(other: PeopleStore, exported: Path, tmp_path: Path) -> None:
    files = files_of(exported)
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    files["reference.png"] = stream.getvalue() + b"<script>secret</script>"
    person = import_person(other, packed(tmp_path / "tail.zip", files))
    assert b"secret" not in person.reference.read_bytes()
