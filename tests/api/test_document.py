"""The OpenAPI document: it is the committed one, and says what the records say."""

from __future__ import annotations

import importlib.metadata
import json
import warnings
from dataclasses import fields
from typing import Any

import pytest

from easyphoto.api import wire
from easyphoto.api.application import document_text
from easyphoto.api.models import MODERN, docs_of, faults, model_of, schemas
from easyphoto.settings import PROJECT_ROOT
from easyphoto.specs import LoraSpec, PortraitSettings
from easyphoto.work import Job, JobResult

REQUESTS = (
    wire.PeopleRequest, wire.ScenesRequest, wire.SceneChange, wire.ChecksRequest, wire.PortraitsRequest, wire.PersonChange,
)  # fmt: skip


def _pinned(package: str) -> bool:
    wanted = f"{package}=={importlib.metadata.version(package)};"
    return f'{wanted} python_version >= "3.11"' in (PROJECT_ROOT / "requirements.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document_text())
    return found


@pytest.mark.skipif(not _pinned("fastapi"), reason="the document is written by the FastAPI of requirements.txt")
def test_the_committed_document_is_this_one() -> None:
    committed = (PROJECT_ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")
    assert committed == document_text(), "write it anew: easyphoto serve --print-openapi > docs/openapi.json"


def test_every_operation_has_words_examples_and_problems(document: dict[str, Any]) -> None:
    operations = [(path, method, found) for path, item in document["paths"].items() for method, found in item.items()]
    assert len(operations) == 29
    for path, method, operation in operations:
        assert operation["summary"], path
        assert operation["description"], path
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert "example" in content or "properties" in content["schema"], path
        good = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        for kind, content in ((kind, content) for answer in good for kind, content in answer["content"].items()):
            assert kind != "application/json" or "example" in content, path
        assert {"401", "422", "429", "500"} <= set(operation["responses"]), (path, method)
        for status, answer in operation["responses"].items():
            if status.startswith(("4", "5")):
                told = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
                assert list(told["content"]) == ["application/problem+json"]
    assert len({operation["operationId"] for _, _, operation in operations}) == len(operations)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    known = document["components"]["schemas"]
    text = json.dumps(document)
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= set(known)


def test_schemas_are_the_records(document: dict[str, Any]) -> None:
    known = document["components"]["schemas"]
    for record in (*REQUESTS, Job, JobResult, wire.PersonView, wire.Problem, LoraSpec, PortraitSettings):
        assert list(known[record.__name__]["properties"]) == sorted(field.name for field in fields(record))
        assert known[record.__name__]["additionalProperties"] is False
    assert known["PortraitSettings"]["properties"]["count"]["description"] == docs_of(PortraitSettings)["count"]
    assert known["PortraitSettings"]["properties"]["lora_weight"]["default"] == PortraitSettings().lora_weight
    assert "default" not in known["LoraSpec"]["properties"]["rank"], "a rank that is left out is the family's"
    assert "None" not in json.dumps(known)


@pytest.mark.skipif(not MODERN, reason="pydantic 1 knows one schema of a model")
def test_answers_have_all_their_fields(document: dict[str, Any]) -> None:
    known = document["components"]["schemas"]
    for record in (Job, JobResult, wire.PersonView, wire.JobPage):
        assert sorted(known[record.__name__]["required"]) == sorted(field.name for field in fields(record))


def test_examples_of_requests_are_requests(document: dict[str, Any]) -> None:
    by_name = {record.__name__: record for record in REQUESTS}
    found = 0
    for item in document["paths"].values():
        for operation in item.values():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is not None:
                assert faults(by_name[content["schema"]["$ref"].rpartition("/")[2]], content["example"]) == ()
                found += 1
    assert found == len(REQUESTS)


def test_models_warn_of_nothing_and_refuse_what_is_unknown() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schemas(REQUESTS, (Job, JobResult))
        model_of(wire.TrainSettings)
    [fault] = faults(wire.TrainSettings, {"validate": {"evrey": 1}})
    assert fault.field == "validate.evrey"
    assert faults(wire.TrainSettings, {"validate": {"every": 1}}) == ()
