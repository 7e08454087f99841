"""Answers as responses, and the words about them in the OpenAPI document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from easyphoto.api.problems import TITLES
from easyphoto.api.threads import in_thread
from easyphoto.errors import NotFound
from easyphoto.store.codec import to_json
from easyphoto.work import Job

PREFIX = "/easyphoto/v1"
PICTURES = ("image/png", "image/jpeg", "image/webp")
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
"""The document's words about the content of every refusal."""
Documented = dict[int | str, dict[str, Any]]
"""What FastAPI calls `responses`."""


def record(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A record as JSON, exactly as `to_json` gives it."""
    body = json.dumps(to_json(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(body.encode("utf-8", "replace"), status, dict(headers or {}), "application/json")


def accepted(job: Job) -> Response:
    """A job that was taken, with where to ask for it."""
    return record(job, 202, {"Location": f"{PREFIX}/jobs/{job.id}"})


def tagged(request: Request, value: object) -> Response:
    """A record with an ETag, or 304 for who has it already."""
    body = json.dumps(to_json(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    if is_known(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return Response(body, 200, {"ETag": tag}, "application/json")


async def file(request: Request, path: Path, media_type: str, sha256: str | None = None) -> Response:
    """A file with an ETag, or 304 for who has it already.

    Raises:
        NotFound: It is gone, or no plain file.
    """
    if sha256 is not None and is_known(request, f'"{sha256}"'):
        return Response(status_code=304, headers={"ETag": f'"{sha256}"'})
    data = await in_thread(_read, path)
    tag = f'"{sha256 or hashlib.sha256(data).hexdigest()}"'
    if is_known(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    shown = "inline" if media_type.startswith("image/") and "svg" not in media_type else "attachment"
    headers = {"ETag": tag, "Content-Disposition": disposition(shown, path.name)}
    return Response(data, 200, headers, media_type)


def is_known(request: Request, tag: str) -> bool:
    """Whether `If-None-Match` names this tag (RFC 9110, section 13.1.2)."""
    said = request.headers.get("if-none-match", "")
    return said.strip() == "*" or tag in {part.strip().removeprefix("W/") for part in said.split(",")}


def disposition(kind: str, name: str) -> str:
    """A Content-Disposition with a name in any letters (RFC 6266, RFC 5987)."""
    plain = name.encode("ascii", "replace").decode("ascii").replace("?", "_").replace('"', "_").replace("\\", "_")
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _read(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise NotFound(f"there is no file {path.name!r} here")
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFound(f"there is no file {path.name!r} here any more") from error


def says(kind: type, example: object, words: str, status: int = 200) -> Documented:
    """The document's words about an answer in JSON."""
    content = {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}, "example": to_json(example)}
    return {status: {"description": words, "content": {"application/json": content}}}


def says_file(words: str, *media_types: str) -> Documented:
    """The document's words about an answer that is a file of one of these types."""
    tag = {"ETag": {"description": "Changes with the content.", "schema": {"type": "string"}}}
    content = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {200: {"description": words, "content": content, "headers": tag}}


def says_text(media_type: str, words: str, example: str) -> Documented:
    """The document's words about an answer that is text, and is another one each time."""
    return {200: {"description": words, "content": {media_type: {"schema": {"type": "string"}, "example": example}}}}


def says_events(words: str, example: str) -> Documented:
    """The document's words about a stream; the schema is that of one server-sent event."""
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in ("id", "event", "data", "retry")}}
    return {200: {"description": words, "content": {"text/event-stream": {"schema": schema, "example": example}}}}


def refuses(*statuses: int) -> Documented:
    """The document's words about refusals; 401, 403, 421, 429 and 500 may meet any request."""
    found = sorted({400, 401, 403, 421, 422, 429, 500, 503, *statuses} - {304})
    told: Documented = {status: {"description": TITLES[status], "content": PROBLEM} for status in found}
    if 304 in statuses:
        told[304] = {"description": TITLES[304]}
    return told
