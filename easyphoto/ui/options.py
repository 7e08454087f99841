"""What the tabs may be told when they are built, and the files beside the package that they are dressed with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from easyphoto.errors import InputError, SpecError
from easyphoto.settings import PROJECT_ROOT

LANGUAGES = ("auto", "en", "zh")
STYLE = PROJECT_ROOT / "style.css"
SCRIPT = PROJECT_ROOT / "javascript" / "easyphoto.js"
CHINESE = PROJECT_ROOT / "localizations" / "zh_CN.json"


@dataclass(frozen=True, kw_only=True)
class TabOptions:
    """How the tabs are shown."""

    by_itself: bool = True
    """A page of our own, with our style, our script and a switch for the language; a host brings the first two itself."""
    language: str = "auto"
    """"en", "zh", or "auto": as the host or the browser has it."""
    send_to: Callable[[Any, Any], None] | None = None
    """In a host: called while the tabs are built, with the component that holds the picture that is looked at and the one
    that holds its infotext, to add buttons that send them to the host's other tabs."""

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise SpecError(f"language must be one of {', '.join(LANGUAGES)}, got {self.language!r}")


def chinese() -> dict[str, str]:
    """Our English texts in Chinese, in the WebUI's own format; a key with {} stands for every text of that form.

    Raises:
        InputError: The file is broken or missing.
    """
    try:
        found = json.loads(CHINESE.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{CHINESE} cannot be read ({error}); check the file out again") from error
    return {str(key): str(value) for key, value in found.items()}


def style() -> str:
    """Our style sheet; everything in it is below our own ids and classes."""
    return STYLE.read_text(encoding="utf-8")


def script() -> str:
    """Our page script."""
    return SCRIPT.read_text(encoding="utf-8")
