"""Infotexts go through the WebUI's own pattern and come back whole."""

from __future__ import annotations

import json
import re

import pytest

from easyphoto.portrait.infotext import lora_tags, read_infotext, write_infotext

WEBUI_PATTERN = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""`re_param` of the WebUI's modules/infotext_utils.py."""


def as_the_webui_reads(text: str) -> dict[str, str]:
    """What the WebUI's `parse_generation_parameters` makes of it, without its defaults."""
    *lines, last = text.strip().split("\n")
    assert len(WEBUI_PATTERN.findall(last)) >= 3, "the WebUI takes a shorter last line for part of the prompt"
    prompt, negative, in_negative = "", "", False
    for line in lines:
        stripped = line.strip()
        if stripped.startswith("Negative prompt:"):
            in_negative, stripped = True, stripped[16:].strip()
        if in_negative:
            negative += ("" if negative == "" else "\n") + stripped
        else:
            prompt += ("" if prompt == "" else "\n") + stripped
    fields = {"Prompt": prompt, "Negative prompt": negative}
    for key, value in WEBUI_PATTERN.findall(last):
        fields[key] = json.loads(value) if value.startswith('"') and value.endswith('"') else value
    return fields


FIELDS = {"Steps": 50, "Sampler": "DPM++ 2M SDE Karras", "CFG scale": 4, "Seed": 7}


@pytest.mark.parametrize("value", ["plain", "a, b", "a: b", 'say "hi", then go', "Zoë 王", "back\\slash, comma", "two\nlines"])
def test_any_value_comes_back(value: str) -> None:
    text = write_infotext("a woman", "blurry", {**FIELDS, "EasyPhoto people": value})
    assert as_the_webui_reads(text)["EasyPhoto people"] == value
    assert read_infotext(text)[2]["EasyPhoto people"] == value


def test_prompt_and_negative_come_back() -> None:
    text = write_infotext("a woman, <lora:Ada:0.9>", "hat: none", FIELDS)
    theirs = as_the_webui_reads(text)
    assert theirs["Prompt"] == "a woman, <lora:Ada:0.9>"
    assert theirs["Negative prompt"] == "hat: none"
    assert read_infotext(text) == ("a woman, <lora:Ada:0.9>", "hat: none", {key: str(value) for key, value in FIELDS.items()})


def test_without_a_negative_there_is_no_such_line() -> None:
    text = write_infotext("a woman", "", FIELDS)
    assert text == "a woman\nSteps: 50, Sampler: DPM++ 2M SDE Karras, CFG scale: 4, Seed: 7"
    assert read_infotext(text)[1] == ""


def test_line_breaks_in_a_prompt_do_not_break_the_form() -> None:
    assert as_the_webui_reads(write_infotext("a\nwoman\nSteps: 3", "x", FIELDS))["Steps"] == "50"


def test_lora_tags() -> None:
    assert lora_tags([("Ada", 0.9), ("Ben", 1.0)]) == "<lora:Ada:0.9>, <lora:Ben:1>"
