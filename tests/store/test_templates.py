from __future__ import annotations

import json
from pathlib import Path

import pytest

from easyphoto.errors import InputError, NotFound
from easyphoto.store.templates import Template, get_template, list_templates


def test_bare_pictures_are_a_gallery(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"x")
    assert [template.name for template in list_templates(tmp_path)] == ["a", "b"]
    assert get_template(tmp_path, "a") == Template(name="a", path=tmp_path / "a.jpg")
    with pytest.raises(NotFound, match="a, b"):
        get_template(tmp_path, "c")


def test_the_index_gives_order_and_facts(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"x")
    (tmp_path / "2.jpg").write_bytes(b"x")
    entries = [{"file": "2.jpg", "name": "office", "sex": "woman", "age": 30, "words": "in an office"}, {"file": "1.jpg"}]
    (tmp_path / "templates.json").write_text(json.dumps(entries), encoding="utf-8")
    first, second = list_templates(tmp_path)
    assert first == Template(name="office", path=tmp_path / "2.jpg", sex="woman", age=30, words="in an office")
    assert second == Template(name="1", path=tmp_path / "1.jpg")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", InputError),
        pytest.param("[" * 100_000, InputError, id="deep"),
        ("{}", InputError),
        ("[3]", InputError),
        ('[{"file": "../x.jpg"}]', InputError),
        ('[{"file": "no.jpg"}]', NotFound),
    ],
)
def test_a_broken_index_is_told(tmp_path: Path, text: str, error: type[Exception]) -> None:
    (tmp_path / "templates.json").write_text(text, encoding="utf-8")
    with pytest.raises(error):
        list_templates(tmp_path)


def test_a_missing_gallery_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        list_templates(tmp_path / "no")
