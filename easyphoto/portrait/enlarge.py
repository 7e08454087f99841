"""The finished picture twice as wide and high: by the engine's own upscalers, the face tools', or by arithmetic alone."""

from __future__ import annotations

import cv2
import numpy as np

from easyphoto.engine.base import Engine, StepListener
from easyphoto.errors import ToolMissing
from easyphoto.extras import SuperResolution
from easyphoto.faces import enhance
from easyphoto.faces.tools import FaceTools
from easyphoto.imaging.blend import alpha_blend
from easyphoto.records import Photo, Pixels

FACTOR = 2
AUTO, LANCZOS = "auto", "lanczos"
_TOOLS = {LANCZOS: "classical", enhance.RealEsrgan.name: enhance.RealEsrgan.name}
"""Ways that the face tools know, by the name of the backend that does them."""
_NOTHING_INSTALLED = (
    "no upscaler is installed, so the picture is enlarged by Lanczos alone, which adds no detail; "
    "put an ESRGAN or Real-ESRGAN file into a folder that EASYPHOTO_UPSCALER_DIR names (in a WebUI: into models/RealESRGAN)"
)


def ways(of_engine: tuple[str, ...]) -> tuple[str, ...]:
    """Every way of enlarging that there is here, the best first.

    Args:
        of_engine: The engine's own.
    """
    return (*of_engine, *((enhance.RealEsrgan.name,) if enhance.is_installed() else ()), LANCZOS)


def choose_enlarger(wanted: SuperResolution | None, engine: Engine, warnings: list[str]) -> str:
    """The way that is taken; empty where nothing is to be enlarged.

    Raises:
        ToolMissing: The way that was named is not here.
    """
    if wanted is None:
        return ""
    there = ways(engine.enlargers)
    if wanted.way == AUTO:
        if there[0] == LANCZOS:
            warnings.append(_NOTHING_INSTALLED)
        return there[0]
    if wanted.way not in there:
        raise ToolMissing(f"there is no upscaler {wanted.way!r} here; choose auto or one of: {', '.join(there)}")
    return wanted.way


def enlarge(picture: Photo, way: str, ratio: float, engine: Engine, tools: FaceTools, on_step: StepListener) -> Pixels:
    """The picture, `FACTOR` times as wide and high.

    Args:
        picture: (height, width, 3).
        way: From `choose_enlarger`.
        ratio: Share of the upscaler's picture; 0 is the plainly resized one, bit for bit.
        engine: May have upscalers.
        tools: May have one too.
        on_step: Told of each part that is done.

    Raises:
        InputError: The upscaler's file cannot be used.
    """
    size = picture.width * FACTOR, picture.height * FACTOR
    plain = np.asarray(cv2.resize(picture.pixels, size, interpolation=cv2.INTER_LANCZOS4), np.uint8)
    if ratio <= 0:
        return plain
    if way in engine.enlargers:
        sharp = fitted(engine.enlarge(picture.pixels, way, on_step), size)
    else:
        sharp = tools.enhancer_named(_TOOLS[way]).enhance(picture, FACTOR).pixels
    return alpha_blend(plain, sharp, np.full(plain.shape[:2], ratio, np.float32))


def fitted(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """An upscaler's picture at the (width, height) that is wanted: most enlarge by 4."""
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    how = cv2.INTER_AREA if size[0] < pixels.shape[1] else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(pixels, size, interpolation=how), np.uint8)
