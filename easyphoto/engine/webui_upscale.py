"""The host's upscalers: those whose files are here, and a picture made larger by one of them.

The hosts list some that they would download when they are first used; these are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from easyphoto.engine import webui_versions as versions
from easyphoto.engine.webui_versions import Host
from easyphoto.errors import Cancelled, JobFailed, ToolMissing
from easyphoto.records import Pixels

FACTOR = 2
_LAST = ("anime", "nickelback", "ldsr")
"""Words in the names of those that are for drawings, or take minutes."""


def names(host: Host) -> tuple[str, ...]:
    """Names of the upscalers that are installed, those for photos first."""
    return tuple(_installed(host))


def upscale(host: Host, pixels: Pixels, way: str) -> Pixels:
    """The picture, `FACTOR` times as wide and high; whoever calls this holds the host.

    Raises:
        ToolMissing: No such upscaler is installed.
        JobFailed: The host could not use it.
        Cancelled: Somebody pressed Interrupt.
    """
    found = _installed(host).get(way)
    if found is None:
        raise ToolMissing(f"the WebUI has no upscaler {way} installed; choose one of: {', '.join(names(host)) or 'none'}")
    image = Image.fromarray(pixels)
    try:
        large = found.scaler.upscale(image, FACTOR, found.data_path)
    except Exception as error:  # the host's border: anything may come from there
        what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise JobFailed(f"the WebUI's upscaler {way} failed: {what}; its console says more") from error
    if versions.interrupted(host):
        raise Cancelled("stopped in the WebUI")
    if large.tobytes() == image.resize(large.size, Image.Resampling.LANCZOS).tobytes():
        # The hosts only print what keeps a file from being read, and then do this.
        raise JobFailed(f"the WebUI could not use its upscaler {way} and resized the picture alone; its console says why")
    return np.array(large.convert("RGB"), np.uint8)


def _installed(host: Host) -> dict[str, Any]:
    """The host's records of them by name."""
    found = {str(one.name): one for one in getattr(host.shared, "sd_upscalers", ()) if _is_here(one)}
    return dict(sorted(found.items(), key=lambda item: (any(word in item[0].lower() for word in _LAST), not _is_real(item[0]))))


def _is_here(upscaler: Any) -> bool:  # noqa: ANN401 (the host's own class)
    """Whether its file lies on this machine; its plain resizers have none, and what is yet to be fetched has an address."""
    path = getattr(upscaler, "local_data_path", None) or getattr(upscaler, "data_path", None)
    return bool(path) and not str(path).startswith("http") and Path(str(path)).is_file()


def _is_real(name: str) -> bool:
    return "r-esrgan" in name.lower() or "realesrgan" in name.lower().replace("_", "")
