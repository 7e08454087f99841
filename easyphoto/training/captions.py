"""What the pictures of a scene show, in words: from text files beside them, or whoever handed them in said it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from easyphoto.errors import PhotoError
from easyphoto.kinds import is_bare
from easyphoto.specs import TrainSpec

ENDING = ".txt"
_LONGEST = 8_000
"""Characters; a text encoder reads about 300 of them."""


def captions_beside(photos: Sequence[Path]) -> tuple[str, ...]:
    """For each photo the text of the file of its name that ends in .txt; () if there is none for any of them.

    Raises:
        PhotoError: Such a file is no text.
    """
    found = tuple(_read(photo.with_suffix(ENDING)) for photo in photos)
    return found if any(found) else ()


def caption_of(data: bytes, name: str) -> str:
    """The whole text of a caption's file, as one line; raises PhotoError for what is no text."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PhotoError(f"{name} is no text in UTF-8, so it can be no caption; save it as UTF-8 or remove it") from error
    if len(text) > _LONGEST:
        raise PhotoError(f"{name} has {len(text):,} characters; a caption may have {_LONGEST:,}, so shorten it")
    return " ".join(text.split())


def settle_captions(spec: TrainSpec, names: Sequence[str], captions: Sequence[str]) -> tuple[str, ...]:
    """The captions of an order: one for each photo, or () where the training's own holds for all.

    Raises:
        PhotoError: Some photos have a caption and others have none, and there is no prompt that they could take.
    """
    if not any(captions):
        return ()
    bare = [name for name, caption in zip(names, captions) if not caption]
    if bare and is_bare(spec):
        raise PhotoError(
            f"{', '.join(bare[:5])}{' ...' if bare[5:] else ''} has no caption and other photos have; write one into "
            f"{Path(bare[0]).stem}{ENDING} beside it, or give a prompt for those without"
        )
    return tuple(captions)


def prompts_of(spec: TrainSpec, captions: Sequence[str]) -> tuple[str, ...]:
    """The different captions of a training, each once: what calls its LoRA up."""
    return tuple(dict.fromkeys(caption or spec.data.caption for caption in captions)) or (spec.data.caption,)


def _read(path: Path) -> str:
    try:
        return caption_of(path.read_bytes(), path.name)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise PhotoError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
