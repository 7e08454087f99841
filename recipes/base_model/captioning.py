"""Captions of crops as token ids, several wordings each."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from recipes.base_model.captions import Person, caption, low_quality
from recipes.base_model.crops import Crops, Frames

Tokens = npt.NDArray[np.int16]


def framing_word(ratio: float) -> str:
    """Name a framing by the crop's side in face sizes."""
    return "close-up" if ratio < 1.75 else "portrait" if ratio < 2.7 else "half-body portrait"


def describe_crop(frames: Frames, crops: Crops, row: int, people: list[Person]) -> Person:
    """Combine the face's person and the frame's person into the facts of one crop."""
    face, frame = (people[i] for i in frames.origin[crops.frame[row]])
    identities = face.identities if face is frame else (*face.identities, *frame.identities)
    return replace(
        face, identities=identities, age=round((2 * face.age + frame.age) / 3), scene=frame.scene,
        smile=face.smile if face.smile == frame.smile else "", framing=framing_word(float(crops.ratio[row])),
    )  # fmt: skip


def tokenize(tokenizer: Any, texts: list[str]) -> Tokens:
    """Return N x 77 token ids, padded as diffusers pads."""
    unique = sorted(set(texts))
    ids = tokenizer(unique, padding="max_length", max_length=77, truncation=True).input_ids
    table = np.asarray(ids, np.int16)
    row_of = {text: row for row, text in enumerate(unique)}
    return np.asarray(table[[row_of[text] for text in texts]], np.int16)


def caption_crops(
    frames: Frames, crops: Crops, people: list[Person], spoiled: npt.NDArray[np.bool_], wordings: int, tokenizer: Any
) -> Tokens:
    """Return N x wordings x 77 token ids; spoiled crops are called blurry and of low quality."""
    rng = random.Random(len(crops))  # noqa: S311 - captions, not secrets
    texts = []
    for row in range(len(crops)):
        person = describe_crop(frames, crops, row, people)
        word = low_quality if spoiled[row] else caption
        texts += [word(person, rng) for _ in range(wordings)]
    return tokenize(tokenizer, texts).reshape(len(crops), wordings, 77)
