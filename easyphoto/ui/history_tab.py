"""The History tab: where its controls stand, and which event goes to which function of its desk."""

from __future__ import annotations

import gradio as gr

from easyphoto.ui.desk import NOBODY
from easyphoto.ui.history_desk import FILTER, LIST, HistoryPage
from easyphoto.ui.layout import Controls, elem_id
from easyphoto.ui.tab_desks import Desks

_QUESTION = "<p class='easyphoto-question'><span>Delete this portrait and those made in the same go?</span></p>"


def hidden(controls: Controls) -> None:
    """What the page's script uses."""
    controls.state("history_page", HistoryPage())
    controls.hidden_button("history_refresh")
    controls.hidden_choice("history_picked")
    controls.html("history_saved")


def build(controls: Controls) -> None:
    """Lay the tab out."""
    with gr.Tab("History", id="history", elem_id=elem_id("history_tab")) as tab, gr.Row(elem_id=elem_id("history_row")):
        controls.keep("history_tab", tab)
        with gr.Column(scale=6, min_width=380):
            with gr.Row():
                for name, label in (("history_person", "Person"), ("history_template", "Template")):
                    choice = gr.Dropdown([NOBODY], value=NOBODY, label=label, elem_id=elem_id(name), min_width=140)
                    controls.keep(name, choice)
            controls.html("history_list")
            controls.button("history_more", "Show more", visible=False)
        with gr.Column(scale=5, min_width=340):
            controls.html("history_notice")
            controls.html("history_compare")
            with gr.Row(elem_id=elem_id("history_buttons")):
                controls.button("history_save", "Download PNG", visible=False, min_width=90)
                controls.button("history_use", "Use again", visible=False, min_width=90)
                controls.button("history_delete", "Delete", "stop", visible=False, min_width=90)
            with controls.keep("history_confirm", gr.Column(visible=False, elem_id=elem_id("history_confirm"))):
                controls.html("history_question", _QUESTION)
                with gr.Row():
                    controls.button("history_really", "Yes, delete", "stop")
                    controls.button("history_keep", "Keep")
            controls.html("history_facts")
            controls.html("history_strip")


def wire(controls: Controls, desks: Desks) -> None:
    """Connect the events."""
    desk = desks.history
    on, choose, parts, page = controls.on, controls.choose, controls.parts, ("history_page",)
    on(parts["history_refresh"].click, desk.refresh, FILTER, LIST)
    on(parts["history_tab"].select, desk.refresh, FILTER, LIST)
    for name in ("history_person", "history_template"):
        choose(parts[name].input, desk.narrow, FILTER, LIST)
    on(parts["history_more"].click, desk.more, FILTER, LIST)
    choose(parts["history_picked_go"].click, desk.choose, (*FILTER, "history_picked"), LIST)
    on(parts["history_save"].click, desk.save, page, ("history_notice", "history_saved"))
    on(parts["history_delete"].click, desk.ask, page, ("history_notice", "history_confirm"))
    on(parts["history_keep"].click, desk.keep, page, ("history_notice", "history_confirm"))
    on(parts["history_really"].click, desk.delete, FILTER, LIST)
