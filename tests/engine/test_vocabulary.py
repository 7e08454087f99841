"""CLIP's words from the file its authors published; the literal numbers are those of their own tokenizer."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from easyphoto.engine.vocabulary import find_vocabulary, load_tokenizer
from easyphoto.errors import InputError, ToolMissing


@pytest.fixture(scope="module")
def vocabulary() -> Path:
    try:
        return find_vocabulary()
    except ToolMissing:
        pytest.skip("CLIP's vocabulary is not installed")


@pytest.fixture(scope="module")
def tokenizer(vocabulary: Path) -> Any:
    return load_tokenizer(vocabulary)


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("A Photo, of  München!", [320, 1125, 267, 539, 41235, 8983, 256]),
        ("easyphoto_face, easyphoto, 1person", [18308, 1125, 318, 1710, 267, 18308, 1125, 267, 272, 2533]),
        ("naïve 日本語 😀 don't", [1097, 35689, 563, 39121, 44353, 34002, 508, 7334, 847, 713]),
    ],
)
def test_words_become_clips_numbers(tokenizer: Any, words: str, numbers: list[int]) -> None:
    assert tokenizer(words).input_ids == [49406, *numbers, 49407]


def test_prompts_are_filled_up_to_77_as_each_encoder_wants(tokenizer: Any, vocabulary: Path) -> None:
    second = load_tokenizer(vocabulary, "!")
    for one, pad in ((tokenizer, 49407), (second, 0)):
        numbers = one(["a"], padding="max_length", max_length=one.model_max_length, truncation=True).input_ids[0]
        assert numbers == [49406, 320, 49407] + [pad] * 74


def test_a_tokenizers_folder_can_be_chosen_instead(tiny_base: Path, tmp_path: Path) -> None:
    folder = tiny_base / "tokenizer"
    assert find_vocabulary(folder) == folder
    assert len(load_tokenizer(folder)) == 514
    with pytest.raises(InputError, match="EASYPHOTO_TOKENIZER"):
        find_vocabulary(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("data", [b"", b"no gzip", gzip.compress(b"a b\nc d\n"), gzip.compress(b"\xff\xfe")])
def test_another_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "words.txt.gz").write_bytes(data)
    with pytest.raises(InputError, match=r"words\.txt\.gz"):
        load_tokenizer(tmp_path / "words.txt.gz")
