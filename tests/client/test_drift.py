"""The client's own definitions say the same as the server's and the records'."""

from __future__ import annotations

import dataclasses
from typing import get_type_hints

import pytest

from easyphoto.api import wire
from easyphoto.client import problems, records
from easyphoto.extras import IdControl, SuperResolution
from easyphoto.specs import DataSpec, LoraSpec, OptimSpec, PassRequest, PortraitSettings, ValidateSpec


@pytest.mark.parametrize("name", ["PersonView", "SceneView", "TemplateView", "ModelView", "Removed", "Health"])
def test_views_have_the_servers_fields(name: str) -> None:
    assert get_type_hints(getattr(records, name)) == get_type_hints(getattr(wire, name))


def test_problems_have_the_servers_fields_and_the_pause_of_the_header() -> None:
    ours = {field.name for field in dataclasses.fields(problems.Problem)}
    assert ours - {"retry_after"} == {field.name for field in dataclasses.fields(wire.Problem)}


@pytest.mark.parametrize(
    ("given", "record"),
    [
        (records.LoraSettings, LoraSpec), (records.OptimSettings, OptimSpec), (records.DataSettings, DataSpec),
        (records.ValidateSettings, ValidateSpec), (records.PassOptions, PassRequest),
        (records.SuperResolutionOptions, SuperResolution), (records.IdControlOptions, IdControl),
        (records.PortraitOptions, PortraitSettings),
        (records.TrainSettings, wire.TrainSettings),
    ],
)  # fmt: skip
def test_settings_have_the_records_fields(given: type, record: type) -> None:
    assert set(get_type_hints(given)) == {field.name for field in dataclasses.fields(record)}
