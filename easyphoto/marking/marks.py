"""The two calls that a finished portrait goes through: may it be shown, and what is it marked with."""

from __future__ import annotations

import numpy as np

from easyphoto.imaging.io import encode_png
from easyphoto.marking import Claims, MarkingSettings
from easyphoto.marking.provenance import sign
from easyphoto.marking.safety import look
from easyphoto.marking.watermark import SMALLEST, put_in
from easyphoto.records import Photo
from easyphoto.work import SafetyVerdict


def mark(picture: bytes, settings: MarkingSettings, claims: Claims) -> bytes:
    """The PNG with the marks that are switched on; the very bytes where none is.

    Args:
        picture: A PNG; its text chunks stay.
        settings: Which marks.
        claims: What they say.

    Raises:
        ToolMissing: A mark is switched on whose package is not installed.
        InputError: The certificate or its key cannot be used.
    """
    if settings.watermark:
        picture = put_in(picture, claims.id)
    # Last: a signature covers every byte before it.
    if settings.certificate is not None and settings.key is not None:
        picture = sign(picture, settings.certificate, settings.key, claims)
    return picture


def judge(photo: Photo, settings: MarkingSettings) -> SafetyVerdict | None:
    """Whether a portrait may be shown; None where nobody asked.

    Raises:
        ToolMissing: The check is switched on and its model is not installed.
    """
    return look(photo, settings.safety_limit) if settings.safety else None


def ready(settings: MarkingSettings) -> None:
    """Refuse before anything is painted what `mark` and `judge` would refuse afterwards.

    Raises:
        ToolMissing, InputError: As they say.
    """
    blank = Photo(pixels=np.zeros((SMALLEST, SMALLEST, 3), np.uint8), name="blank")
    mark(encode_png(blank.pixels), settings, Claims(id="00000000"))
    judge(blank, settings)
