"""Upscalers of the ESRGAN family, from files that a user brings: found by name, read whatever their layout.

The network is RRDBNet (arXiv 1809.00219, section 3.1; Real-ESRGAN, arXiv 2107.10833, puts a pixel-unshuffle before it for a
factor of 2). It is written out here, because the libraries that read such files need torchvision, which has to match torch to
the last digit, and these files have three layouts of one network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from easyphoto.engine.base import StepListener
from easyphoto.engine.pickled import ENDINGS, read_pickled
from easyphoto.errors import InputError, NotFound
from easyphoto.records import Pixels

if TYPE_CHECKING:
    from torch import Tensor

_WEBUI = ("ESRGAN", "RealESRGAN")
_UP = 4
"""How many folders above a checkpoint are looked into, as for ControlNets."""
_TILE, _MARGIN = 192, 16
"""Px of a tile, and of what the network sees around it."""
_UPSAMPLED = 4
"""The network itself enlarges by so much, whatever is done before it."""
_NAMES = (
    (r"^model\.0\.", "conv_first."),
    (r"^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.", r"body.\1.rdb\2.conv\3."),
    (r"^model\.1\.sub\.\d+\.(weight|bias)$", r"conv_body.\1"),
    (r"^model\.3\.", "conv_up1."), (r"^model\.6\.", "conv_up2."), (r"^model\.8\.", "conv_hr."), (r"^model\.10\.", "conv_last."),
    (r"^RRDB_trunk\.(\d+)\.RDB(\d)\.", r"body.\1.rdb\2."), (r"^trunk_conv\.", "conv_body."),
    (r"^upconv(\d)\.", r"conv_up\1."), (r"^HRconv\.", "conv_hr."),
)  # fmt: skip
"""Older layouts' names, as Real-ESRGAN calls the same."""
_PARTS = ("conv_first", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last")


def find_upscalers(base: Path, chosen: Path | None = None) -> dict[str, Path]:
    """Files by name, the likeliest first.

    Args:
        base: The base model's folder or file; a WebUI's upscalers are looked for around it.
        chosen: A folder of upscalers; None looks where a WebUI has its own, if the base model lies in one's folders.
    """
    found = {path.stem: path for folder in _places(base, chosen) for path in sorted(folder.iterdir()) if _is_weights(path)}
    return dict(sorted(found.items(), key=lambda item: ("real" not in item[0].lower(), item[0].lower())))


def _places(base: Path, chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        if not chosen.is_dir():
            raise InputError(f"the folder of upscalers {chosen} does not exist; name another with EASYPHOTO_UPSCALER_DIR")
        yield chosen
        return
    for above in base.absolute().parents[:_UP]:
        yield from (above / name for name in _WEBUI if (above / name).is_dir())


def _is_weights(path: Path) -> bool:
    return path.suffix.lower() in (".safetensors", *ENDINGS) and path.is_file()


@dataclass(frozen=True, kw_only=True, eq=False)
class Upscaler:
    """A network ready to run."""

    weights: Mapping[str, Tensor]
    """By Real-ESRGAN's names, where they are to be computed with."""
    blocks: int
    shrink: int
    """Px along a side that are folded into channels before the network."""

    @property
    def factor(self) -> int:
        """How many times as wide and high its result is."""
        return _UPSAMPLED // self.shrink

    def enlarge(self, pixels: Pixels, on_step: StepListener | None = None) -> Pixels:
        """`factor` times as large, tile by tile; the network sees RGB, as it was trained with.

        Args:
            pixels: (height, width, 3) RGB.
            on_step: Told of (tiles done, tiles to do); what it raises ends the work.
        """
        height, width = pixels.shape[:2]
        padded = np.pad(pixels, ((_MARGIN, _MARGIN + self.shrink), (_MARGIN, _MARGIN + self.shrink), (0, 0)), "symmetric")
        large = np.empty((height * self.factor, width * self.factor, 3), np.uint8)
        corners = [(top, left) for top in range(0, height, _TILE) for left in range(0, width, _TILE)]
        for done, (top, left) in enumerate(corners, start=1):
            rows, columns = min(_TILE, height - top), min(_TILE, width - left)
            bottom, right = top + _even(rows, self.shrink) + 2 * _MARGIN, left + _even(columns, self.shrink) + 2 * _MARGIN
            tile, edge = self._tile(padded[top:bottom, left:right]), _MARGIN * self.factor
            inside = tile[edge : edge + rows * self.factor, edge : edge + columns * self.factor]
            y, x = top * self.factor, left * self.factor
            large[y : y + rows * self.factor, x : x + columns * self.factor] = inside
            if on_step:
                on_step(done, len(corners))
        return large

    def _tile(self, pixels: Pixels) -> Pixels:
        import torch

        first = self.weights["conv_first.weight"]
        image = torch.from_numpy(np.ascontiguousarray(pixels)).to(first.device, first.dtype).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            large = self._network(image)[0].float().clamp(0, 1) * 255
        return large.round().permute(1, 2, 0).byte().cpu().numpy()

    def _network(self, image: Tensor) -> Tensor:
        from torch.nn.functional import interpolate, leaky_relu, pixel_unshuffle

        first = self._convolved("conv_first", pixel_unshuffle(image, self.shrink) if self.shrink > 1 else image)
        deep = first
        for block in range(self.blocks):
            deep = self._block(f"body.{block}", deep)
        seen = first + self._convolved("conv_body", deep)
        for name in ("conv_up1", "conv_up2"):
            seen = leaky_relu(self._convolved(name, interpolate(seen, scale_factor=2.0, mode="nearest")), 0.2)
        return self._convolved("conv_last", leaky_relu(self._convolved("conv_hr", seen), 0.2))

    def _block(self, name: str, seen: Tensor) -> Tensor:
        """A residual of three residual dense blocks (figure 4 of arXiv 1809.00219)."""
        through = seen
        for number in (1, 2, 3):
            through = self._dense(f"{name}.rdb{number}", through)
        return seen + 0.2 * through

    def _dense(self, name: str, seen: Tensor) -> Tensor:
        import torch
        from torch.nn.functional import leaky_relu

        known = seen
        for number in (1, 2, 3, 4):
            known = torch.cat([known, leaky_relu(self._convolved(f"{name}.conv{number}", known), 0.2)], dim=1)
        return seen + 0.2 * self._convolved(f"{name}.conv5", known)

    def _convolved(self, name: str, seen: Tensor) -> Tensor:
        from torch.nn.functional import conv2d

        return conv2d(seen, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], padding=1)


def load_upscaler(path: Path, device: str = "cpu") -> Upscaler:
    """Read a file.

    Args:
        path: `.safetensors`, or `.pth` that holds weights alone.
        device: As torch names it; half precision on a GPU.

    Raises:
        NotFound: There is no such file.
        InputError: It is broken, or no network of this family.
    """
    import torch

    weights = {_own_name(name): tensor for name, tensor in _read(path).items()}
    blocks = 1 + max((int(found[1]) for name in weights if (found := re.match(r"body\.(\d+)\.", name))), default=-1)
    if why := _refusal(weights, blocks):
        raise InputError(f"{path.name} is no upscaler that can be used ({why}); take an ESRGAN or Real-ESRGAN file")
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    shrink = math.isqrt(weights["conv_first.weight"].shape[1] // 3)
    return Upscaler(weights={name: one.to(device, dtype) for name, one in weights.items()}, blocks=blocks, shrink=shrink)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix.lower() in ENDINGS:
        return read_pickled(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise NotFound(f"the upscaler {path} does not exist; choose another one") from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"the upscaler {path} cannot be read ({error}); fetch it again") from error


def _own_name(name: str) -> str:
    for pattern, own in _NAMES:
        if re.match(pattern, name):
            return re.sub(pattern, own, name)
    return name


def _refusal(weights: Mapping[str, Tensor], blocks: int) -> str:
    """Why these are not the weights of an RRDBNet; empty if they are."""
    dense = [f"body.{block}.rdb{part}.conv{layer}" for block in range(blocks) for part in (1, 2, 3) for layer in range(1, 6)]
    missing = [name for name in (*_PARTS, *dense) for end in ("weight", "bias") if f"{name}.{end}" not in weights]
    if missing or not blocks:
        return f"it has no {missing[0]}" if missing else "it has no blocks"
    seen, shown = weights["conv_first.weight"].shape[1], weights["conv_last.weight"].shape[0]
    return "" if (seen, shown) in ((3, 3), (12, 3)) else f"it takes {seen} channels and gives {shown}"


def _even(length: int, step: int) -> int:
    return -(-length // step) * step
