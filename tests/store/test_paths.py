from __future__ import annotations

import unicodedata

import pytest

from easyphoto.errors import NameRefused
from easyphoto.store.paths import LONGEST_NAME, check_name, lora_name, person_id


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("", "empty"),
        ("   \t ", "empty"),
        ("../x", "slash"),
        ("a/b", "slash"),
        ("a\\b", "slash"),
        ("..", "dots"),
        (".", "dots"),
        ("x" * 300, "300"),
        ("x" * (LONGEST_NAME + 1), str(LONGEST_NAME)),
        ("a\nb", "000A"),
        ("a\x00b", "0000"),
        ("a\u202eb", "202E"),
        ("\ud800", "D800"),
    ],
)
def test_refused_names_are_told_why(name: str, word: str) -> None:
    with pytest.raises(NameRefused, match=word):
        check_name(name)


@pytest.mark.parametrize(
    "name",
    ["Anna", "王小明", "👩🏽‍🚀", "José María", "O'Brien, Jr.", "x" * LONGEST_NAME, "con", "🏴\U000e0067\U000e0062\U000e007f"],
)
def test_real_names_are_kept(name: str) -> None:
    assert check_name(f" {name} ") == name


def test_one_name_however_its_accents_are_encoded() -> None:
    decomposed = unicodedata.normalize("NFD", "José")
    assert check_name(decomposed) == "José"
    assert person_id(decomposed) == person_id("José") == person_id("JOSÉ")


def test_ids_are_safe_on_every_file_system() -> None:
    names = ["con", "NUL", "王小明", "王小红", "👩🏽‍🚀", "a b", "a_b", "a.b", "A: <b>|?*", "x" * LONGEST_NAME, "...a", "-"]
    ids = [person_id(name) for name in names]
    assert len(set(ids)) == len(names)
    for identifier in ids:
        assert set(identifier) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert identifier == identifier.lower()
        assert len(identifier) <= 40
        assert identifier not in {"con", "nul"}
    assert person_id("王小明").startswith("person-")
    assert person_id("José María").startswith("jose-maria-")


def test_lora_names_fit_the_prompt_syntax_and_stay_apart() -> None:
    assert lora_name("Anna") == "Anna"
    assert lora_name("王小明") == "王小明"
    assert lora_name("a b").startswith("a_b_")
    assert len({lora_name(name) for name in ("a b", "a:b", "a_b", "a<b", "con", "Con.")}) == 6
    assert not set(":<>|?*/\\ .") & set(lora_name("a:<b>|?*. c"))
    assert lora_name("con") != "con"
