"""The People tab: where its controls stand, and which event goes to which function of its desk."""

from __future__ import annotations

from typing import Any

import gradio as gr

from easyphoto.ui import gradio_versions as versions
from easyphoto.ui.layout import Controls, elem_id
from easyphoto.ui.people_desk import LIST, SHELVES, PeoplePage
from easyphoto.ui.tab_desks import Desks


def hidden(controls: Controls) -> None:
    """What the page's script uses."""
    controls.state("people_page", PeoplePage())
    controls.hidden_button("people_refresh")
    controls.hidden_choice("people_chosen")


def build(controls: Controls) -> None:
    """Lay the tab out."""
    with gr.Tab("People", id="people", elem_id=elem_id("people_tab")) as tab, gr.Row(elem_id=elem_id("people_row")):
        controls.keep("people_tab", tab)
        with gr.Column(scale=7, min_width=380):
            kind = gr.Radio(list(SHELVES), value="People", label="Show", elem_id=elem_id("people_kind"))
            controls.keep("people_kind", kind)
            controls.html("people_list")
        with gr.Column(scale=4, min_width=300):
            controls.html("people_notice")
            with controls.keep("people_tools", gr.Column(visible=False, elem_id=elem_id("people_tools"))):
                name = gr.Textbox(label="Name", max_lines=1, elem_id=elem_id("people_name"))
                controls.keep("people_name", name)
                with gr.Row():
                    controls.button("people_rename", "Rename", min_width=80)
                    controls.button("people_export", "Export", min_width=80)
                    controls.button("people_delete", "Delete", "stop", min_width=80)
                controls.keep("people_parcel", gr.File(label="Exported person", visible=False, interactive=False,
                                                       elem_id=elem_id("people_parcel")))  # fmt: skip
                _confirm(controls)
            parcel = versions.upload("Import a person", False, [".zip"], elem_id=elem_id("people_import"), height=150)
            controls.keep("people_import", parcel)


def wire(controls: Controls, desks: Desks) -> None:
    """Connect the events."""
    desk = desks.people

    def take_in(values: dict[str, Any]) -> dict[str, Any]:
        return {**desk.take_in(values, versions.files(values["people_import"])), "people_import": None}

    on, choose, parts, page = controls.on, controls.choose, controls.parts, ("people_page",)
    on(parts["people_refresh"].click, desk.refresh, page, LIST)
    on(parts["people_tab"].select, desk.refresh, page, LIST)
    choose(parts["people_kind"].input, desk.choose_kind, (*page, "people_kind"), LIST)
    choose(parts["people_chosen_go"].click, desk.choose, (*page, "people_chosen"), LIST)
    on(parts["people_rename"].click, desk.rename, (*page, "people_name"), LIST)
    on(parts["people_export"].click, desk.export, page, LIST)
    on(parts["people_import"].upload, take_in, (*page, "people_import"), (*LIST, "people_import"))
    on(parts["people_delete"].click, desk.ask, page, LIST)
    on(parts["people_keep"].click, desk.keep, page, LIST)
    on(parts["people_really"].click, desk.delete, (*page, "people_with_results"), LIST)


def _confirm(controls: Controls) -> None:
    with controls.keep("people_confirm", gr.Column(visible=False, elem_id=elem_id("people_confirm"))):
        controls.html("people_question")
        too = gr.Checkbox(label="The finished portraits too", value=True, elem_id=elem_id("people_with_results"))
        controls.keep("people_with_results", too)
        with gr.Row():
            controls.button("people_really", "Yes, delete", "stop", min_width=80)
            controls.button("people_keep", "Keep", min_width=80)
