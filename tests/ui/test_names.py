from __future__ import annotations

import json
from pathlib import Path

import pytest

from easyphoto.errors import InputError
from easyphoto.jobs.store import input_name
from easyphoto.ui.names import MOST_FILES, file_names, hand_in, input_paths, read_list


def test_files_of_one_name_get_numbers() -> None:
    files = [Path("/a/me.jpg"), Path("/b/ME.jpg"), Path("/c/me.jpg"), Path("/d/you.jpg")]
    assert file_names(files) == ("me.jpg", "ME (2).jpg", "me (3).jpg", "you.jpg")


@pytest.mark.parametrize("name", ["<script>.jpg", "a:b|c?.jpg", "con.jpg", "王.heic", "x" * 300 + ".png", "..jpg"])
def test_every_name_is_one_that_the_queue_takes(name: str) -> None:
    (item,) = hand_in([Path("somewhere") / name])
    number, _, last = item.name.partition("/")
    assert item.name == input_name(int(number), last)
    assert input_paths([item]) == (Path("inputs") / item.name,)


def test_too_many_files_are_refused() -> None:
    with pytest.raises(InputError, match=str(MOST_FILES)):
        hand_in([Path(f"{number}.jpg") for number in range(MOST_FILES + 1)])


def test_a_list_of_a_page_is_read_once_each() -> None:
    assert read_list(json.dumps(["a", "b", "a"])) == ("a", "b")
    assert read_list("") == read_list(None) == ()


@pytest.mark.parametrize("text", ["{}", "[1]", "[[]]", "no json", "[" * 5000, '["' + "a" * 200_000 + '"]', 7, ["a"]])
def test_what_is_no_list_of_texts_is_refused(text: object) -> None:
    with pytest.raises(InputError, match="reload"):
        read_list(text)
