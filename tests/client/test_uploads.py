"""Forms as a server reads them: any names, any sizes, from the disk while they are sent."""

from __future__ import annotations

import email
import email.policy
import json
import os
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyphoto.client import Client, Consent, PersonView, Upload
from easyphoto.client.uploads import Form, collect
from easyphoto.errors import EasyPhotoError, InputError, NotFound, PhotoError
from easyphoto.families import Family
from easyphoto.specs import PortraitSettings
from tests.client import made
from tests.client.conftest import Caller
from tests.client.rough_server import Rough, Seen, answer

JOB = answer(made.job(), 202)


def parts(seen: Seen) -> list[tuple[str, str | None, bytes]]:
    """(field, file name, content) of each part, as Python's own mail parser reads them."""
    assert len(seen.body) == int(seen.headers["content-length"])
    text = f"Content-Type: {seen.headers['content-type']}\r\n\r\n".encode() + seen.body
    whole = email.message_from_bytes(text, policy=email.policy.HTTP)
    found = []
    for part in whole.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        found.append((name, part.get_filename(), part.get_payload(decode=True)))
    return found


def names(seen: Seen) -> list[str | None]:
    return [name for field, name, _ in parts(seen) if field == "photos"]


def test_a_folder_sends_its_pictures_alone_and_in_natural_order(call: Caller, rough: Rough, tmp_path: Path) -> None:
    rough.on("people", JOB)
    for name in ("10.jpg", "2.JPG", "1.heic", "notes.txt", ".hidden.jpg", "Thumbs.db"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "deeper.jpg").mkdir()
    call("train", "Anna", tmp_path)
    assert names(rough.seen[0]) == ["1.heic", "2.JPG", "10.jpg"]
    assert parts(rough.seen[0])[0] == ("name", None, b"Anna")


def test_everything_that_is_asked_for_is_in_the_form(call: Caller, rough: Rough, tmp_path: Path) -> None:
    rough.on("people", JOB)
    (tmp_path / "a.jpg").write_bytes(b"\r\n--x\r\n\0\xff")
    call(
        "train", "Zoë ☀", [tmp_path / "a.jpg", Upload("b.png", b"inside")], settings={"optim": {"max_steps": 3}, "seed": 4},
        consent=Consent(given_by="Zoë", given_at="2026-01-02"), take=["a.jpg", "b.png"], retouch=False, replace=True,
        priority=-3, webhook="https://example.org/hook",
    )  # fmt: skip
    found = parts(rough.seen[0])
    texts = [(field, content.decode()) for field, name, content in found if name is None]
    assert texts == [
        ("name", "Zoë ☀"), ("take", "a.jpg"), ("take", "b.png"), ("retouch", "false"), ("priority", "-3"),
        ("webhook", "https://example.org/hook"), ("settings", '{"optim": {"max_steps": 3}, "seed": 4}'),
        ("consent", '{"given_by": "Zo\\u00eb", "given_at": "2026-01-02", "note": ""}'), ("replace", "true"),
    ]  # fmt: skip
    assert [entry for entry in found if entry[1]] == [("photos", "a.jpg", b"\r\n--x\r\n\0\xff"), ("photos", "b.png", b"inside")]


@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=40))
def test_any_name_arrives(name: str) -> None:
    body = b"".join(Form([], [("photos", Upload(name, b"x"))]).pieces())
    line = next(line for line in body.split(b"\r\n") if line.startswith(b"Content-Disposition"))
    sent = line.decode("utf-8").split('filename="', 1)[1].removesuffix('"')
    # A name that itself looks escaped reads as what it looks like; browsers send it so too.
    assert _plain(sent) == _plain(name)


def _plain(name: str) -> str:
    return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_file_whose_name_is_no_text_is_sent_all_the_same(rough: Rough, tmp_path: Path) -> None:
    rough.on("checks", JOB)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff.jpg")).write_bytes(b"x")
    with Client(rough.url) as client:
        client.check(tmp_path)
    assert b'filename="odd\xef\xbf\xbd.jpg"' in rough.seen[0].body


def test_large_files_are_never_in_memory_whole_and_few_are_open(tmp_path: Path) -> None:
    with (tmp_path / "large.tif").open("wb") as file:
        file.truncate(200 * 1024 * 1024)
    for number in range(2000):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    form = Form([], [("photos", file) for file in collect(tmp_path)])
    tracemalloc.start()
    sent, peak_files = 0, 0
    for count, piece in enumerate(form.pieces()):
        sent += len(piece)
        if count % 500 == 0 and Path("/proc/self/fd").is_dir():
            peak_files = max(peak_files, len(list(Path("/proc/self/fd").iterdir())))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sent == form.length > 200 * 1024 * 1024
    assert peak < 8 * 1024 * 1024
    assert peak_files < 200


def test_a_file_that_changes_while_it_is_sent_is_told(call: Caller, rough: Rough, tmp_path: Path) -> None:
    rough.on("checks", JOB)
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x" * 10)
    form = Form([], [("photos", path)])
    for content in (b"x" * 9, b"x" * 11):
        path.write_bytes(content)
        with pytest.raises(PhotoError, match=r"a\.jpg changed while it was sent"):
            list(form.pieces())
    path.unlink()
    with pytest.raises(NotFound, match="is gone"):
        list(form.pieces())


def test_a_file_that_vanishes_between_two_tries_ends_the_call_in_a_sentence(call: Caller, rough: Rough, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    rough.on("checks", lambda handler: (path.unlink(), setattr(handler, "close_connection", True)))
    with pytest.raises(NotFound, match="is gone"):
        call("check", path)


@pytest.mark.parametrize("nothing", [[], "missing.jpg"])
def test_nothing_to_send_is_told_before_anything_is_sent(call: Caller, rough: Rough, nothing) -> None:
    with pytest.raises(EasyPhotoError, match=r"no photos|does not exist"):
        call("check", nothing)
    assert not rough.seen


def test_templates_are_files_names_of_the_gallery_or_addresses(call: Caller, rough: Rough, tmp_path: Path) -> None:
    rough.on("portraits", JOB)
    picture = tmp_path / "beach 1.jpg"
    picture.write_bytes(b"sand")
    anna = PersonView(id="anna-1", name="Anna", family=Family.EMBEDDED)
    call("portrait", anna, ["woman-3", "https://example.org/a.jpg"], settings={"seed": None, "first": {"steps": 4}}, priority=1)
    call("portrait", ["anna-1", None], [str(picture), "woman-3", Upload("c.png", b"c")], settings=PortraitSettings(seed=3))
    plain = json.loads(rough.seen[0].body)
    assert plain == {
        "people": ["anna-1"], "settings": {"seed": None, "first": {"steps": 4}}, "priority": 1,
        "templates": [{"gallery": "woman-3"}, {"url": "https://example.org/a.jpg"}],
    }  # fmt: skip
    request, *files = parts(rough.seen[1])
    loaded = json.loads(request[2])
    assert (loaded["people"], loaded["templates"]) == (["anna-1", None], [{"gallery": "woman-3"}])
    assert loaded["settings"]["seed"] == 3
    assert files == [("templates", "beach 1.jpg", b"sand"), ("templates", "c.png", b"c")]


def test_settings_that_no_json_can_hold_are_refused(rough: Rough) -> None:
    with Client(rough.url) as client, pytest.raises(InputError, match="cannot be sent as JSON"):
        client.portrait("anna", "woman-1", settings={"guidance": float("nan")})
    assert not rough.seen
