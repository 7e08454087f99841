"""The Train tab: where its controls stand, and which event goes to which function of its desk."""

from __future__ import annotations

from typing import Any

import gradio as gr

from easyphoto.imaging.io import EXTENSIONS
from easyphoto.records import TrainKind
from easyphoto.training.captions import ENDING
from easyphoto.ui import gradio_versions as versions
from easyphoto.ui.knobs import SCENE_MAIN, TRAIN_GROUPS, train_defaults
from easyphoto.ui.layout import Controls, elem_id
from easyphoto.ui.studio import Studio
from easyphoto.ui.tab_desks import Desks
from easyphoto.ui.train_desk import FORM, HINTS, KINDS, KNOBS, OPENED, PANEL, PHOTOS, PRESETS, TrainPage

_KIND = ("train_prompt", "train_retouch", "train_preset", "train_hint")
"""What changes with the kind, besides the knobs."""


def hidden(controls: Controls) -> None:
    """What the page's script uses."""
    controls.state("train_page", TrainPage())
    controls.hidden_button("train_poll")
    controls.hidden_choice("train_take")


def build(controls: Controls, studio: Studio) -> None:
    """Lay the tab out."""
    with gr.Tab("Train", id="train", elem_id=elem_id("train_tab")), gr.Row(elem_id=elem_id("train_row")):
        with gr.Column(scale=6, min_width=380):
            _person(controls, list(studio.labels()))
            _photos(controls)
            with gr.Accordion("Advanced", open=False, elem_id=elem_id("train_advanced")):
                _advanced(controls, train_defaults(studio.family))
        with gr.Column(scale=5, min_width=340):
            with gr.Row(elem_id=elem_id("train_buttons")):
                controls.button("train_start", "Start training", "primary")
                controls.button("train_stop", "Stop", "stop", visible=False)
                controls.button("train_resume", "Resume", visible=False)
            controls.html("train_notice")
            controls.html("train_live")
            controls.html("train_best")
            controls.button("train_use", "Use in Inference", "primary", visible=False)
            controls.html("train_samples")
            with gr.Accordion("Log", open=False, elem_id=elem_id("train_log_box")):
                controls.html("train_log")


def wire(controls: Controls, desks: Desks) -> None:
    """Connect the events."""
    desk = desks.train

    def upload(values: dict[str, Any]) -> dict[str, Any]:
        return {**desk.upload(values, versions.files(values["train_upload"])), "train_upload": None}

    def folder(values: dict[str, Any]) -> dict[str, Any]:
        return desk.upload(values, versions.files(values["train_folder"]))

    page = ("train_page",)
    controls.on(controls["train_upload"].upload, upload, (*page, "train_upload"), ("train_upload", *PHOTOS))
    controls.on(controls["train_folder"].upload, folder, (*page, "train_folder"), PHOTOS)
    controls.on(controls["train_clear"].click, desk.clear, page, PHOTOS)
    controls.on(controls["train_check"].click, desk.check, FORM, (*PHOTOS, "train_check"))
    controls.on(controls["train_start"].click, desk.start, FORM, PANEL)
    controls.on(controls["train_stop"].click, desk.stop, page, PANEL)
    controls.on(controls["train_resume"].click, desk.resume, page, PANEL)
    controls.on(controls["train_poll"].click, desk.poll, page, OPENED)
    kinds = (*page, "train_model", "train_kind", "train_preset")
    controls.choose(controls["train_preset"].input, desk.choose_model, kinds, ("train_notice", *KNOBS))
    controls.choose(controls["train_model"].input, desk.choose_model, kinds, ("train_notice", *KNOBS))
    controls.choose(controls["train_kind"].input, desk.choose_kind, kinds, ("train_notice", *_KIND, *KNOBS))


def _photos(controls: Controls) -> None:
    controls.html("train_hint", HINTS[TrainKind.PERSON])
    place = versions.upload("Photos", True, [*sorted(EXTENSIONS), ENDING], elem_id=elem_id("train_upload"), height=150)
    controls.keep("train_upload", place)
    with gr.Row(elem_id=elem_id("train_photo_buttons")):
        controls.keep("train_folder", versions.upload_folder("Upload a folder", elem_id=elem_id("train_folder"), size="sm"))
        controls.button("train_check", "Check photos", size="sm")
        controls.button("train_clear", "Clear photos", size="sm")
    controls.html("train_checked")
    controls.html("train_photos")


def _person(controls: Controls, models: list[str]) -> None:
    with gr.Row():
        name = gr.Textbox(label="Name", max_lines=1, elem_id=elem_id("train_name"), placeholder="Anna")
        controls.keep("train_name", name)
        model = gr.Dropdown(models, value=models[0] if models else None, label="Base model", elem_id=elem_id("train_model"))
        controls.keep("train_model", model)
    with gr.Row():
        kind = gr.Radio(list(KINDS), value="Person", label="Kind", elem_id=elem_id("train_kind"))
        controls.keep("train_kind", kind)
        again = gr.Checkbox(
            label="Train again and replace", elem_id=elem_id("train_replace"),
            info="For somebody of this name who was trained before.",
        )  # fmt: skip
        controls.keep("train_replace", again)
    preset = gr.Radio(
        list(PRESETS), value="Balanced", label="Preset", elem_id=elem_id("train_preset"),
        info="How long and how carefully; it sets the controls under Advanced.",
    )  # fmt: skip
    controls.keep("train_preset", preset)
    prompt = gr.Textbox(
        label="Prompt", max_lines=4, visible=False, elem_id=elem_id("train_prompt"), placeholder="old harbour at dusk",
        info="What the photos show, for those without a caption of their own; it calls the scene up later.",
    )  # fmt: skip
    controls.keep("train_prompt", prompt)


def _advanced(controls: Controls, values: dict[str, Any]) -> None:
    with gr.Row():
        judged = gr.Checkbox(label="Validation", value=True, elem_id=elem_id("train_validation"))
        controls.keep("train_validation", judged)
        smooth = gr.Checkbox(label="Train skin retouching", value=True, elem_id=elem_id("train_retouch"))
        controls.keep("train_retouch", smooth)
    controls.knobs("train", SCENE_MAIN.knobs, values, visible=False)
    for group in TRAIN_GROUPS:
        controls.group("train", group, values)
    consent = gr.Textbox(
        label="Consent given by", max_lines=1, elem_id=elem_id("train_consent"),
        info="Who said that these photos may be used; kept with the person.",
    )  # fmt: skip
    controls.keep("train_consent", consent)
