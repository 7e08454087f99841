"""The Inference tab: where its controls stand, and which event goes to which function of its desk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from easyphoto.imaging.io import EXTENSIONS
from easyphoto.ui import gradio_versions as versions
from easyphoto.ui.desk import NOBODY, Change
from easyphoto.ui.knobs import PORTRAIT_GROUPS, PORTRAIT_MAIN, PORTRAIT_SWITCHES, portrait_defaults
from easyphoto.ui.layout import Controls, elem_id
from easyphoto.ui.options import TabOptions
from easyphoto.ui.portrait_desk import (
    CHOSEN,
    FACES,
    FORM,
    GALLERY,
    ID_PICTURE,
    LISTS,
    PANEL,
    PEOPLE,
    SINGLE,
    SOURCES,
    UPSCALERS,
    WAYS,
    PortraitDesk,
    PortraitPage,
)
from easyphoto.ui.studio import Studio
from easyphoto.ui.tab_desks import Desks

Handler = Callable[[dict[str, Any]], dict[str, Any]]
SENT = ("portrait_send_picture", "portrait_send_text")
_PLACES = ("Face 1, from the left", "Face 2", "Face 3", "Face 4", "Face 5")


def hidden(controls: Controls) -> None:
    """What the page's script uses."""
    controls.state("portrait_page", PortraitPage())
    for name in ("portrait_poll", "portrait_refresh"):
        controls.hidden_button(name)
    for name in ("portrait_chosen", "portrait_picked"):
        controls.hidden_choice(name)
    controls.html("portrait_saved")


def build(controls: Controls, studio: Studio, desks: Desks, options: TabOptions) -> None:
    """Lay the tab out."""
    with gr.Tab("Inference", id="inference", elem_id=elem_id("portrait_tab")) as tab, gr.Row(elem_id=elem_id("portrait_row")):
        controls.keep("portrait_tab", tab)
        with gr.Column(scale=6, min_width=380):
            _templates(controls, desks)
            _people(controls)
            _settings(controls, studio)
        with gr.Column(scale=5, min_width=340):
            _output(controls)
            if options.send_to is not None:
                _send(controls, options.send_to)


def wire(controls: Controls, desks: Desks) -> None:
    """Connect the events."""
    desk = desks.portrait
    page = ("portrait_page",)
    on, choose, parts = controls.on, controls.choose, controls.parts
    sent = tuple(name for name in SENT if name in parts)
    ways = _with_files(desk.templates)
    on(parts["portrait_source"].change, _switched(ways), WAYS, (*FACES, "portrait_shelf", "portrait_one", "portrait_many"))
    choose(parts["portrait_chosen_go"].click, ways, WAYS, FACES)
    for name in ("portrait_upload", "portrait_batch"):
        on(parts[name].change, ways, WAYS, FACES)
    on(parts["portrait_generate"].click, _sending(sent, desk, _with_files(desk.generate)), FORM, (*PANEL, *sent))
    on(parts["portrait_stop"].click, _sending(sent, desk, desk.stop), page, (*PANEL, *sent))
    on(parts["portrait_poll"].click, _sending(sent, desk, desk.poll), page, (*PANEL, *sent))
    on(parts["portrait_refresh"].click, desk.refresh, (*page, *PEOPLE, UPSCALERS), LISTS)
    on(parts["portrait_tab"].select, desk.refresh, (*page, *PEOPLE, UPSCALERS), LISTS)
    choose(parts["portrait_lcm"].input, desk.accelerate, (*page, "portrait_lcm"), LISTS)
    choose(parts[PEOPLE[0]].input, desk.choose_person, (*page, *PEOPLE), LISTS)
    picked = _sending(sent, desk, desk.choose)
    choose(parts["portrait_picked_go"].click, picked, (*page, "portrait_picked"), ("portrait_notice", *CHOSEN, *sent))
    on(parts["portrait_save"].click, desk.save, page, ("portrait_notice", "portrait_saved"))


def _templates(controls: Controls, desks: Desks) -> None:
    source = gr.Radio(list(SOURCES), value=GALLERY, label="Template", elem_id=elem_id("portrait_source"))
    controls.keep("portrait_source", source)
    endings = sorted(EXTENSIONS)
    with controls.keep("portrait_shelf", gr.Column(elem_id=elem_id("portrait_shelf"))):
        controls.html("portrait_gallery", desks.portrait.gallery())
    with controls.keep("portrait_one", gr.Column(visible=False, elem_id=elem_id("portrait_one"))):
        one = versions.upload("Upload a picture", False, endings, elem_id=elem_id("portrait_upload"), height=150)
        controls.keep("portrait_upload", one)
    with controls.keep("portrait_many", gr.Column(visible=False, elem_id=elem_id("portrait_many"))):
        many = versions.upload("Upload pictures", True, endings, elem_id=elem_id("portrait_batch"), height=150)
        controls.keep("portrait_batch", many)
    controls.html("portrait_faces")


def _people(controls: Controls) -> None:
    with gr.Row(elem_id=elem_id("portrait_people")):
        for number, (name, place) in enumerate(zip(PEOPLE, _PLACES)):
            # Who there is comes when the page is opened: a page built long ago must not name people who were deleted since.
            choice = gr.Dropdown(
                [NOBODY], value=NOBODY, label=place, visible=number == 0, elem_id=elem_id(name), min_width=140,
            )  # fmt: skip
            controls.keep(name, choice)
    controls.html("portrait_hint", "<p class='easyphoto-hint'><span>— leaves a face as it is.</span></p>")


def _settings(controls: Controls, studio: Studio) -> None:
    values = portrait_defaults(studio.family)
    controls.knobs("portrait", PORTRAIT_MAIN.knobs, values)
    with gr.Accordion("Advanced", open=False, elem_id=elem_id("portrait_advanced")):
        _switches(controls)
        for group in PORTRAIT_GROUPS:
            controls.group("portrait", group, values)
        picture = versions.upload(
            "Picture for the ID control, in place of the person's reference photo", False, sorted(EXTENSIONS),
            elem_id=elem_id(ID_PICTURE), height=150,
        )  # fmt: skip
        controls.keep(ID_PICTURE, picture)


def _switches(controls: Controls) -> None:
    """Every step that can be left out, two in a row."""
    boxes = {switch.name: {"label": switch.label, "value": switch.on} for switch in PORTRAIT_SWITCHES}
    boxes["stages"] = dict(label="Keep the pictures of every stage", value=True)  # noqa: C408 (texts are found by keyword)
    names = list(boxes)
    for start in range(0, len(names), 2):
        with gr.Row():
            for name in (f"portrait_{one}" for one in names[start : start + 2]):
                controls.keep(name, gr.Checkbox(elem_id=elem_id(name), **boxes[name.removeprefix("portrait_")]))


def _output(controls: Controls) -> None:
    with gr.Row(elem_id=elem_id("portrait_buttons")):
        controls.button("portrait_generate", "Generate", "primary")
        controls.button("portrait_stop", "Stop", "stop", visible=False)
    for name in ("portrait_notice", "portrait_live", "portrait_samples", "portrait_compare"):
        controls.html(name)
    controls.button("portrait_save", "Download PNG", visible=False)
    for name in ("portrait_facts", "portrait_results", "portrait_strip"):
        controls.html(name)
    with gr.Accordion("Log", open=False, elem_id=elem_id("portrait_log_box")):
        controls.html("portrait_log")


def _send(controls: Controls, send_to: Callable[[Any, Any], None]) -> None:
    """The picture that is looked at and its infotext, where a host's buttons find them."""
    with gr.Row(elem_id=elem_id("portrait_send")):
        with gr.Group(elem_id=elem_id("portrait_send_from")):
            controls.keep("portrait_send_picture", gr.Image(type="pil", elem_id=elem_id("portrait_send_picture")))
            controls.keep("portrait_send_text", gr.Textbox(elem_id=elem_id("portrait_send_text")))
        send_to(controls["portrait_send_picture"], controls["portrait_send_text"])


def _with_files(call: Handler) -> Handler:
    """The handler with uploads as paths."""

    def called(values: dict[str, Any]) -> dict[str, Any]:
        uploads = ("portrait_upload", "portrait_batch", ID_PICTURE)
        found = {name: versions.files(values[name]) for name in uploads if name in values}
        return call({**values, **found})

    return called


def _switched(call: Handler) -> Handler:
    """The handler, with the place for the chosen way of giving templates shown, and the others not."""

    def called(values: dict[str, Any]) -> dict[str, Any]:
        source = values["portrait_source"]
        places = {"portrait_shelf": source == GALLERY, "portrait_one": source == SINGLE}
        places["portrait_many"] = not any(places.values())
        return {**call(values), **{name: Change(visible=visible) for name, visible in places.items()}}

    return called


def _sending(sent: tuple[str, ...], desk: PortraitDesk, call: Handler) -> Handler:
    """The handler, with what a host's buttons send on filled in whenever another picture is looked at."""

    def called(values: dict[str, Any]) -> dict[str, Any]:
        found = call(values)
        if not sent or "portrait_compare" not in found:
            return found
        return {**found, **dict(zip(SENT, desk.to_send(values["portrait_page"])))}

    return called
