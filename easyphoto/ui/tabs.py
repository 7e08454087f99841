"""All tabs in one page: by itself, or as a part of a host's.

How it is built: each `*_tab.py` lays its components out inside whatever `gradio.Blocks` is open and keeps them in one
`Controls`, by name; a component's element is called "easyphoto_" + name. Events take and give values by these names and go
to a desk (`*_desk.py`), which knows no Gradio; they run at once, without a place in Gradio's queue, and none is offered to
programs. What a page needs to remember lies in `gradio.State`s, one for each tab. The page's script (`javascript/easyphoto.js`)
presses hidden buttons to follow jobs and to hand over what was chosen in HTML of ours. A host loads `style.css` and
`javascript/` itself; a page of our own brings both (`dress`).
"""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from easyphoto.ui import gradio_versions as versions
from easyphoto.ui import history_tab, people_tab, portrait_tab, train_tab
from easyphoto.ui.desk import Change
from easyphoto.ui.gradio_versions import Dress
from easyphoto.ui.layout import Controls, elem_id
from easyphoto.ui.markup import ROOT, attribute
from easyphoto.ui.options import TabOptions, chinese, script, style
from easyphoto.ui.portrait_desk import FILLED, PEOPLE
from easyphoto.ui.studio import Studio
from easyphoto.ui.tab_desks import Desks

TITLE = "EasyPhoto"
_OWN_STYLE = "footer{display:none!important}"
"""What only a page of our own wants."""


def build(studio: Studio, options: TabOptions | None = None) -> versions.Part:
    """The page with all tabs.

    Args:
        studio: Whose people, jobs and results it shows. Somebody has to run the jobs: hold a `jobs.supervisor.Supervisor`.
        options: How it is shown.

    Returns:
        A `gradio.Blocks`.
    """
    options = options or TabOptions()
    desks = Desks.for_studio(studio)
    controls = Controls()
    page = versions.blocks(dress() if options.by_itself else None)
    with page, gr.Column(elem_id=ROOT):
        if options.by_itself:
            controls.html("head", _head())
        controls.html("words", _words(options))
        _hidden(controls)
        with controls.keep("modes", gr.Tabs(elem_id=elem_id("modes"))):
            train_tab.build(controls, studio)
            portrait_tab.build(controls, studio, desks, options)
            people_tab.build(controls)
            history_tab.build(controls)
        for tab in (train_tab, portrait_tab, people_tab, history_tab):
            tab.wire(controls, desks)
        _wire_between(controls, desks)
        if options.by_itself:
            versions.run_script(page, script())
    return page


def tabs(studio: Studio, options: TabOptions | None = None) -> list[tuple[Any, str, str]]:
    """What a WebUI's `on_ui_tabs` wants: page, title and id of one tab of the host's."""
    return [(build(studio, options or TabOptions(by_itself=False)), TITLE, "easyphoto")]


def dress() -> Dress:
    """How a page of our own looks."""
    return Dress(title=TITLE, css=style() + _OWN_STYLE, script=script())


def _head() -> str:
    return (
        '<header class="easyphoto-top"><h1>EasyPhoto</h1><label><span translate="no">English / 中文</span>'
        '<select data-easyphoto-language translate="no" aria-label="Language"><option value="en">English</option>'
        '<option value="zh">中文</option></select></label></header>'
    )


def _words(options: TabOptions) -> str:
    return (
        f'<div hidden data-easyphoto-words="{attribute(json.dumps(chinese(), ensure_ascii=False))}" '
        f'data-language="{options.language}" data-alone="{int(options.by_itself)}"></div>'
    )


def _hidden(controls: Controls) -> None:
    """What the page's script fills and presses; outside of the tabs, because a tab that was never opened is not there."""
    with gr.Row(elem_id=elem_id("hidden")):
        for tab in (train_tab, portrait_tab, people_tab, history_tab):
            tab.hidden(controls)


def _wire_between(controls: Controls, desks: Desks) -> None:
    """From one tab to another."""

    def use_person(values: dict[str, Any]) -> dict[str, Any]:
        name = desks.train.person(values["train_page"])
        return {**desks.portrait.use_person(values, name), "modes": Change(selected="inference")}

    def use_again(values: dict[str, Any]) -> dict[str, Any]:
        filled = desks.portrait.use_again(values, values["history_page"].chosen)
        return {**filled, "modes": Change(selected="inference")}

    pages = ("train_page", "portrait_page", "history_page")
    controls.on(controls["train_use"].click, use_person, pages, ("modes", "portrait_notice", *PEOPLE))
    controls.on(controls["history_use"].click, use_again, pages, ("modes", *FILLED))
