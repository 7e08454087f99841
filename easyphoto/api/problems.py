"""Every refusal as a problem document (RFC 9457), whoever raised it: ours, FastAPI's, Starlette's, or nobody's."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from easyphoto.api.models import field_path
from easyphoto.api.wire import FieldProblem, Problem
from easyphoto.errors import EasyPhotoError, InputError
from easyphoto.store.codec import to_json

logger = logging.getLogger(__name__)

TITLES: Mapping[int, str] = {
    304: "Not modified", 400: "The request cannot be read", 401: "A token is needed", 403: "Forbidden", 404: "Not found",
    405: "This method is not offered here", 409: "Conflict", 413: "Too much in one request",
    415: "This kind of content is not taken", 421: "Not the name of this server", 422: "The request cannot be carried out",
    429: "Too many requests", 499: "Cancelled", 500: "Something went wrong in the server",
    503: "Something is not installed or not ready", 507: "The disk cannot take it",
}  # fmt: skip
CODES: Mapping[int, str] = {
    400: "bad_request", 401: "no_token", 403: "forbidden", 404: "not_found", 405: "bad_method", 409: "conflict",
    413: "too_large", 415: "bad_content_type", 421: "bad_host", 422: "bad_input", 429: "too_many_requests",
    500: "error", 503: "not_ready", 507: "storage",
}  # fmt: skip


class Refused(EasyPhotoError):
    """A request is refused for what it is, not for what it asks; carries its own status."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.http_status = status
        self.code = CODES[status]
        self.headers = dict(headers or {})


class BadFields(InputError):
    """Fields of a request cannot be used; says which."""

    def __init__(self, errors: Sequence[FieldProblem], code: str = "bad_input", status: int = 422) -> None:
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{first.field}: {first.message}{more}" if first.field else f"{first.message}{more}")
        self.errors = tuple(errors)
        self.code = code
        self.http_status = status


def bad_field(field: str, error: EasyPhotoError | str) -> BadFields:
    """One field that cannot be used, with the reason and its code."""
    found = [FieldProblem(field=field, message=str(error))]
    return BadFields(found, error.code, error.http_status) if isinstance(error, EasyPhotoError) else BadFields(found)


def problem(instance: str, status: int, code: str, detail: str, errors: Sequence[FieldProblem] = ()) -> Problem:
    """The document of a refusal."""
    return Problem(
        type=f"urn:easyphoto:problem:{code}", title=TITLES.get(status, "Refused"), status=status, detail=detail,
        instance=instance, code=code, errors=tuple(errors),
    )  # fmt: skip


def answer(instance: str, error: EasyPhotoError) -> Response:
    """The response for one of our errors; what is the server's own fault is logged too."""
    if error.http_status >= 500:
        logger.warning("%s at %s: %s", error.code, instance, error)
    found = problem(instance, error.http_status, error.code, str(error), getattr(error, "errors", ()))
    headers: Mapping[str, str] = getattr(error, "headers", {})
    return problem_response(found, headers)


def problem_response(found: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem document as a response."""
    content = json.dumps(to_json(found), ensure_ascii=False)
    # What was sent may hold half a surrogate pair; it goes back as "?".
    body = content.encode("utf-8", "replace")
    return Response(body, found.status, dict(headers or {}), "application/problem+json")


def internal(instance: str, error: BaseException) -> Response:
    """The response for an error that nobody foresaw: logged whole, told without a word of what is inside."""
    logger.error("an unforeseen error at %s", instance, exc_info=error)
    detail = "the server met an error that nobody foresaw; its log says more"
    return problem_response(problem(instance, 500, CODES[500], detail))


def add_handlers(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""
    app.add_exception_handler(EasyPhotoError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(Exception, _unforeseen)


async def _ours(request: Request, error: Exception) -> Response:
    if not isinstance(error, EasyPhotoError):
        raise error
    return answer(request.url.path, error)


async def _invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    # The first part says where the field came from ("query", "path"); people know it by its name.
    found = [
        FieldProblem(field=field_path(fault["loc"][1:]), message=str(fault["msg"])) for fault in error.errors()
    ]
    return answer(request.url.path, BadFields(found or [FieldProblem(field="", message="the request is not valid")]))


async def _plain(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, no such method, and whatever else has a status."""
    if not isinstance(error, HTTPException):
        raise error
    status, headers = error.status_code, dict(error.headers or {})
    detail = str(error.detail)
    if status == 404:
        detail = "there is no such route; GET /easyphoto/v1/openapi.json lists them"
    elif status == 405:
        allowed = allowed_methods(request)
        headers["Allow"] = allowed
        detail = f"{request.method} is not offered here; use {allowed}"
    found = problem(request.url.path, status, CODES.get(status, "error"), detail)
    return problem_response(found, headers)


def allowed_methods(request: Request) -> str:
    """The methods of all routes at the request's path, as the header `Allow` wants them."""
    methods: set[str] = set()
    for route in request.app.state.routes:
        matched: Any = route.path_regex.match(request.url.path)
        if matched:
            methods |= route.methods
    return ", ".join(sorted(methods)) or "GET"


async def _unforeseen(request: Request, error: Exception) -> Response:
    return internal(request.url.path, error)


