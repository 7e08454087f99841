"""The tabs as one tab of a WebUI, with the WebUI's base models, and our section of its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import gradio as gr

from easyphoto.app import App
from easyphoto.errors import EasyPhotoError
from easyphoto.jobs.host_settings import HOST_OPTIONS, HostOption
from easyphoto.jobs.store import JobStore
from easyphoto.ui import gradio_versions as versions
from easyphoto.ui.markup import ROOT, notice
from easyphoto.ui.options import TabOptions
from easyphoto.ui.studio import BaseModel, Studio
from easyphoto.ui.tabs import TITLE, tabs

SECTION = ("easyphoto", TITLE)
SENT_TO = ("img2img", "inpaint", "extras")
"""The host's tabs that a finished portrait can be sent to."""
FindModels = Callable[[], Iterable[Any]]
"""The host's base models; each has `id`, `family` and `path`."""
HostTab = list[tuple[Any, str, str]]
"""Page, title and id."""


class HostStudio(Studio):
    """One owner's people, jobs and results, where the base models are a host's."""

    def __init__(self, app: App, store: JobStore, find_models: FindModels) -> None:
        super().__init__(app, store)
        self._find_models = find_models

    def models(self) -> tuple[BaseModel, ...]:
        """The host's, its chosen one first."""
        return tuple(BaseModel(id=model.id, family=model.family, path=model.path) for model in self._find_models())


def host_tabs(make_room: Callable[[], Any], paste: Any) -> HostTab:  # noqa: ANN401 (the host's own module)
    """What the host's `on_ui_tabs` wants; where nothing can work, a tab that says why.

    Args:
        make_room: Gives our room in this process, a `jobs.host.Room`.
        paste: The host's module that sends pictures from tab to tab.
    """
    try:
        room = make_room()
        studio = HostStudio(room.app, room.store, room.base_models)
        return tabs(studio, TabOptions(by_itself=False, send_to=lambda *parts: _buttons(paste, *parts)))
    except EasyPhotoError as error:
        return _saying(str(error))
    except ImportError as error:
        return _saying(f"{error.name} is not installed; start the WebUI again with a network, or run install.py by hand")


def _saying(sentence: str) -> HostTab:
    with versions.blocks() as page, gr.Column(elem_id=ROOT):
        gr.HTML(notice(sentence))
    return [(page, TITLE, "easyphoto")]


def _buttons(paste: Any, picture: Any, text: Any) -> None:  # noqa: ANN401 (the host's own classes)
    """Buttons that send the picture that is looked at, and how it was made, to the host's other tabs."""
    for name in SENT_TO:
        button = gr.Button(f"Send to {name}", elem_id=f"easyphoto_send_{name}", size="sm")
        said = {"source_text_component": text, "source_image_component": picture}
        paste.register_paste_params_button(paste.ParamBinding(paste_button=button, tabname=name, **said))


def add_settings(shared: Any) -> None:  # noqa: ANN401 (the host's own module)
    """Add our section to the host's settings; `shared` is its `modules.shared`."""
    for option in HOST_OPTIONS:
        shared.opts.add_option(option.key, _entry(option, shared.OptionInfo))


def _entry(option: HostOption, make: Callable[..., Any]) -> Any:  # noqa: ANN401 (the host's own class)
    component, details = gr.Textbox, dict[str, float]()
    if isinstance(option.default, bool):
        component = gr.Checkbox
    elif not isinstance(option.default, str):
        component, details = gr.Slider, {"minimum": 0, "maximum": option.most, "step": 1}
    entry = make(option.default, option.label, component, details, section=SECTION)
    if option.info:
        entry.info(option.info)
    if option.restart:
        entry.needs_restart()
    return entry
