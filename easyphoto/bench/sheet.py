"""One sheet with every picture of a bench, for eyes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from easyphoto.imaging.io import save_jpeg
from easyphoto.records import Photo, Pixels

CELL, HEAD, GAP = 256, 28, 4
INK = (60, 54, 50)


def save_sheet(path: Path, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Photo]]]) -> None:
    """Write a JPEG with one row for each (name, pictures) under a line of column names."""
    width = len(columns) * (CELL + GAP) + GAP
    head = np.full((HEAD, width, 3), 255, np.uint8)
    for index, name in enumerate(columns):
        _write(head, name, GAP + index * (CELL + GAP))
    lines = [head, *(_line(name, pictures, width) for name, pictures in rows)]
    save_jpeg(path, np.vstack(lines), 88)


def _line(name: str, pictures: Sequence[Photo], width: int) -> Pixels:
    line = np.full((CELL + GAP + HEAD, width, 3), 255, np.uint8)
    for index, photo in enumerate(pictures):
        left = GAP + index * (CELL + GAP)
        line[:CELL, left : left + CELL] = fitted(photo.pixels)
    _write(line[CELL:], name, GAP)
    return line


def fitted(pixels: Pixels) -> Pixels:
    """(CELL, CELL, 3): the whole picture, shrunk and centred on white."""
    scale = CELL / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    shrunk = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    cell = np.full((CELL, CELL, 3), 255, np.uint8)
    top, left = (CELL - size[1]) // 2, (CELL - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = shrunk
    return cell


def _write(where: Pixels, text: str, left: int) -> None:
    cv2.putText(where, text, (left + 4, HEAD - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
