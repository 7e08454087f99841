"""Finds photos that are the same picture twice: copied, resized, cropped, mirrored or saved again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from easyphoto.errors import InputError
from easyphoto.faces.embed import distance, face_chip
from easyphoto.records import Face, Floats, Photo

_SIDE = 48
"""Side in px of the face print; what survives a strong JPEG."""
_SAME_PRINT = 0.92
_SAME_IDENTITY = 0.42
"""Two prints are one picture above this correlation, if the identity vectors are nearer than this. Measured on 80 news
photos of four people: different photos of one person correlate by at most 0.86; copies that were saved at JPEG quality
40, shrunk, cropped, brightened or turned by at least 0.94, at a distance of at most 0.35."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Print:
    """What tells one picture of a face from the next one of a series."""

    digest: str
    """Of the photo's pixels."""
    values: Floats
    """(_SIDE, _SIDE) aligned grey face, mean 0, length 1: light and contrast do not count."""
    embedding: Floats
    """(128,) identity vector."""


def face_print(photo: Photo, face: Face) -> Print:
    """The print of a face that has its embedding."""
    if face.embedding is None:
        raise InputError("a face print needs the face's embedding")
    grey = cv2.cvtColor(face_chip(photo, face), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    small = small - small.mean()
    values = small / max(float(np.linalg.norm(small)), 1e-6)
    return Print(digest=photo.digest, values=np.asarray(values, np.float32), embedding=face.embedding)


def is_same_picture(first: Print, second: Print) -> bool:
    """Whether two photos are one picture."""
    if first.digest == second.digest:
        return True
    mirrored = second.values[:, ::-1]  # training mirrors every photo anyway, so a mirrored copy brings nothing new
    alike = max(float((first.values * seen).sum()) for seen in (second.values, mirrored))
    return alike > _SAME_PRINT and distance(first.embedding, second.embedding) < _SAME_IDENTITY


def twins(prints: Sequence[Print], worth: Sequence[float]) -> dict[int, int]:
    """Which photo repeats which: {index of the worse one: index of the one that is kept}; equal worth keeps the first."""
    order = sorted(range(len(prints)), key=lambda index: (-worth[index], index))
    kept: list[int] = []
    repeats: dict[int, int] = {}
    for index in order:
        twin = next((other for other in kept if is_same_picture(prints[index], prints[other])), None)
        if twin is None:
            kept.append(index)
        else:
            repeats[index] = twin
    return repeats
