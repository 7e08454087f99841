"""Everything in which Gradio 3.41, 4.40 and 6 differ, and nothing else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from easyphoto.errors import InputError, ToolMissing

MAJOR = int(gr.__version__.partition(".")[0])
CLAY = {
    "c50": "#fdf5f0", "c100": "#f9e5da", "c200": "#f1cab5", "c300": "#e8a985", "c400": "#e58a5c", "c500": "#c4602f",
    "c600": "#b5532a", "c700": "#954422", "c800": "#78381f", "c900": "#62301d", "c950": "#35170b",
}  # fmt: skip
"""The accent of all our pages, light to dark."""
_PAUSE = 0.05
"""Seconds between two looks of Gradio's queue at itself, as long as up to Gradio 4. Gradio 6 looks a thousand times a second,
twice, which costs the server 5 % of a core and every other thread its turns; our events take no place in that queue."""
Part = Any
"""A component; Gradio has no type for it that all versions share."""


@dataclass(frozen=True, kw_only=True)
class Dress:
    """How a page of our own looks."""

    title: str
    css: str
    script: str


def blocks(dress: Dress | None = None) -> Part:
    """The page; without a dress it is a part of a host's, which has its own."""
    if MAJOR < 3:
        raise ToolMissing(f"gradio {gr.__version__} is too old for the tabs; install gradio 3.41 or newer")
    if dress is None:
        return gr.Blocks(analytics_enabled=False)
    look: dict[str, Any] = {} if MAJOR >= 6 else {"theme": theme(), "css": dress.css}
    # Uploads of closed pages are not kept for longer than a day.
    kept: dict[str, Any] = {"delete_cache": (3600, 86_400)} if MAJOR >= 4 else {}
    return gr.Blocks(title=dress.title, analytics_enabled=False, **look, **kept)


def theme() -> Part:
    """The look of a page of our own: warm, and with the system's letters, so that nothing is fetched."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    clay = gr.themes.Color(**CLAY, name="clay")
    return gr.themes.Default(primary_hue=clay, secondary_hue=clay, neutral_hue="stone", **fonts)


def served(dress: Dress) -> dict[str, Any]:
    """What `launch` and `mount_gradio_app` want to hear of the dress."""
    plain = {"run_history": False, "ssr_mode": False, "footer_links": []}
    return {"theme": theme(), "css": dress.css, **plain} if MAJOR >= 6 else {}


def calm(page: Part) -> None:
    """Let a served page's queue rest while nothing is in it."""
    page._queue.sleep_when_free = _PAUSE
    page._queue.progress_update_sleep_when_free = _PAUSE


def run_script(page: Part, script: str) -> None:
    """Run JavaScript when the page is opened."""
    code = f"() => {{ {script} }}"
    page.load(None, None, None, **({"_js": code} if MAJOR < 4 else {"js": code}))


def listen(
    event: Callable[..., Any], call: Callable[..., Any], inputs: set[Part], outputs: Sequence[Part], latest: bool = False
) -> None:
    """Let an event call a function with a dict of values, at once and without a place in the queue.

    While its answer is awaited Gradio 4 and newer drop the event when it happens again; `latest` lets the last one of these
    happen afterwards. Gradio 3 lets all of them happen at once.
    """
    hidden: dict[str, Any] = {"api_visibility": "private"} if MAJOR >= 6 else {"api_name": False}
    again = {"trigger_mode": "always_last"} if latest and MAJOR >= 4 else {}
    event(call, inputs, list(outputs), queue=False, show_progress="hidden", **hidden, **again)


def upload(label: str, many: bool, endings: Sequence[str], **more: Any) -> Part:  # noqa: ANN401 (a component's settings)
    """A place for files."""
    kind = {} if MAJOR < 4 else {"type": "filepath"}
    return gr.File(label=label, file_count="multiple" if many else "single", file_types=list(endings), **kind, **more)


def upload_folder(label: str, **more: Any) -> Part:  # noqa: ANN401 (a component's settings)
    """A button that takes a folder of files."""
    kind = {} if MAJOR < 4 else {"type": "filepath"}
    return gr.UploadButton(label, file_count="directory", **kind, **more)


def files(value: object) -> tuple[Path, ...]:
    """The files that an upload brought; InputError if one lies where no upload does."""
    if value is None:
        return ()
    found = tuple(Path(str(getattr(item, "name", item))) for item in (value if isinstance(value, list) else [value]))
    rooms = [Path(place).resolve() for place in (tempfile.gettempdir(), os.environ.get("GRADIO_TEMP_DIR")) if place]
    for path in found:
        if not any(path.resolve().is_relative_to(place) for place in rooms):
            raise InputError(f"{path.name[:80]} was not uploaded; upload it")
    return found


def update(fields: dict[str, Any]) -> Part:
    """A change of some of a component's settings."""
    return gr.update(**fields)
