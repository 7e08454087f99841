"""The OpenAPI document: FastAPI's account of the routes, with bodies and answers from our records."""

from __future__ import annotations

import copy
import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from easyphoto.__version__ import __version__
from easyphoto.api import wire
from easyphoto.api.answers import PROBLEM
from easyphoto.api.models import Schema, schemas
from easyphoto.api.options import Limits
from easyphoto.api.problems import TITLES
from easyphoto.events import Event
from easyphoto.work import Job, JobResult

_REQUESTS = (
    wire.PeopleRequest, wire.ScenesRequest, wire.ChecksRequest, wire.PortraitsRequest, wire.PersonChange, wire.SceneChange,
)  # fmt: skip
_ANSWERS = (
    wire.PersonPage, wire.VerdictPage, wire.JobPage, wire.ResultPage, wire.TemplatePage, wire.ModelPage, wire.Removed,
    wire.Health, wire.Problem, wire.PersonView, wire.SceneView, wire.ScenePage, Job, JobResult, Event,
)  # fmt: skip
_WORDS = """From a person's photos to portraits of them.

Hand photos in (`POST /people`), wait for the job (`GET /jobs/{id}`, or its events as they come), hand templates in
(`POST /portraits`), wait, fetch the pictures (`GET /results/{id}`, and its files). A job's id is its result's id.

Everything belongs to the token's owner; what is another's answers 404. Refusals are problem documents (RFC 9457).
A POST with the header `Idempotency-Key` may be sent again: it makes one job.
"""


def json_body(record: type, example: object) -> dict[str, Any]:
    """FastAPI's `openapi_extra` of a route that takes JSON."""
    schema = {"$ref": f"#/components/schemas/{record.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}


def json_or_form(record: type, files: str, example: object, whole: str = "") -> dict[str, Any]:
    """The same for a route that takes a form too; `x-form` is made into the form's schema by `describe`."""
    body = json_body(record, example)
    form = {"x-form": record.__name__, "x-files": files, "x-whole": whole}
    body["requestBody"]["content"]["multipart/form-data"] = {"schema": form}
    return body


def describe(app: FastAPI, limits: Limits) -> dict[str, Any]:
    """The whole document of an application."""
    document: dict[str, Any] = copy.deepcopy(
        get_openapi(
            title="easyphoto", version=__version__, routes=app.routes, description=_WORDS, openapi_version=app.openapi_version
        )
    )
    parts = document.setdefault("components", {})
    parts["schemas"] = schemas(_REQUESTS, _ANSWERS)
    parts["responses"] = {
        str(status): {"description": words, "content": PROBLEM} for status, words in TITLES.items() if status >= 400
    }
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _finish(operation, parts["schemas"], limits)
            if method == "post":
                operation.setdefault("parameters", []).append(_KEY)
            if path.endswith("/health"):
                operation["security"] = []
    return document


_KEY: Schema = {
    "name": "Idempotency-Key", "in": "header", "required": False,
    "description": "1 to 255 printable ASCII characters; two requests with one key are one job.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}  # fmt: skip


def _finish(operation: dict[str, Any], known: dict[str, Schema], limits: Limits) -> None:
    operation["operationId"] = f"{operation['tags'][0]}_{operation['operationId'].partition('_easyphoto_')[0]}"
    for status in operation["responses"]:
        if status.startswith(("4", "5")):
            operation["responses"][status] = {"$ref": f"#/components/responses/{status}"}
    content = operation.get("requestBody", {}).get("content", {})
    form = content.get("multipart/form-data")
    if form is not None:
        form["schema"] = _form(known, form["schema"], limits)
        whole = form["schema"]["properties"].get("request")
        form["encoding"] = {"request": {"contentType": "application/json"}} if whole else {}
        if not whole:
            del form["encoding"]


def _form(known: dict[str, Schema], asked: dict[str, str], limits: Limits) -> Schema:
    """The form that has the same fields as the JSON body, with the pictures as files."""
    files = {
        "type": "array", "maxItems": limits.files, "items": {"type": "string", "format": "binary"},
        "description": f"Picture files of up to {limits.file_bytes:,} bytes; their names are kept as labels.",
    }  # fmt: skip
    if whole := asked["x-whole"]:
        request = {"$ref": f"#/components/schemas/{asked['x-form']}"}
        return {
            "type": "object", "additionalProperties": False, "required": [whole],
            "properties": {whole: request, asked["x-files"]: files},
        }  # fmt: skip
    schema = copy.deepcopy(known[asked["x-form"]])
    schema.pop("title", None)
    schema["properties"][asked["x-files"]] = files
    schema["required"] = sorted({*schema.get("required", ()), asked["x-files"]})
    return schema


def text(document: dict[str, Any]) -> str:
    """The document as it is committed."""
    return json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
