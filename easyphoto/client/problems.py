"""What can go wrong between a program and the server, as exceptions that carry the whole answer.

EasyPhotoError
  ApiError             the server refused; `problem` is its answer (RFC 9457)
    Remote<Name>         also the class of `easyphoto.errors` with the same code: NotFound, PhotoError, Conflict ...
    Unauthorized         no token, a wrong one, or not for this                            HTTP 401, 403
    TooManyRequests      slower, please; still so after all retries                        HTTP 429
    Unavailable          the server or what stands before it is not ready, after retries   HTTP 502, 503, 504
  Unreachable          no answer at all, after retries
    Disconnected         one try that broke off; retried, so that programs seldom see it
  BadAnswer            an answer that is not this API's, or is cut short
  WaitTimeout          the job has not ended in the time given (also Python's TimeoutError)

Catch `easyphoto.errors.NotFound` and the like for what is about the request, `ApiError` for every refusal, and
`EasyPhotoError` for everything.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from easyphoto import errors
from easyphoto.client.reading import read
from easyphoto.errors import EasyPhotoError


@dataclass(frozen=True, kw_only=True)
class FieldError:
    """What is wrong with one field of a request."""

    field: str = ""
    """Where it is: "settings.optim.max_steps", "photos[3]" ..."""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Problem details (RFC 9457) as the server sent them."""

    status: int = 0
    code: str = ""
    """Stable, for programs; that of `easyphoto.errors` where there is one."""
    title: str = ""
    detail: str = ""
    instance: str = ""
    type: str = "about:blank"
    errors: tuple[FieldError, ...] = ()
    retry_after: float | None = None
    """Seconds that the server wants to be left alone, from its Retry-After header."""

    def sentence(self) -> str:
        """The problem for people, fields included."""
        said = self.detail or self.title or f"the server answered with status {self.status} and no explanation"
        fields = [f"{error.field}: {error.message}" for error in self.errors if error.message and error.message not in said]
        return " - ".join([said, "; ".join(fields)]) if fields else said


class ApiError(EasyPhotoError):
    """The server refused."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.sentence())
        self.problem = problem
        self.after_loss = False
        """An earlier try broke off, and what it did is not known."""
        self.code = problem.code or type(self).code
        self.http_status = problem.status

    @property
    def status(self) -> int:
        """The answer's HTTP status."""
        return self.problem.status


class Unauthorized(ApiError):
    """No token, a wrong one, or one that may not do this."""

    code = "unauthorized"


class TooManyRequests(ApiError):
    """The server wants fewer requests from this token."""

    code = "rate_limited"


class Unavailable(ApiError):
    """The server, or a proxy before it, is not ready."""

    code = "unavailable"


class Unreachable(EasyPhotoError):
    """No answer came, however often it was tried."""

    code = "unreachable"
    http_status = 503


class Disconnected(Unreachable):
    """One try broke off: no connection, a lost one, or silence for too long."""

    def __init__(self, sentence: str, *, sent: bool) -> None:
        super().__init__(sentence)
        self.sent = sent
        """The server may have seen the request."""


class BadAnswer(EasyPhotoError):
    """The answer is not one of this API."""

    code = "bad_answer"
    http_status = 502


class WaitTimeout(EasyPhotoError, TimeoutError):
    """The job has not ended in the time that the caller gave; it goes on all the same."""

    code = "timeout"
    http_status = 504


def _remote(base: type[EasyPhotoError]) -> type[ApiError]:
    """`base` as the server's answer, so that `except errors.NotFound` catches it like one raised here."""
    return type(f"Remote{base.__name__}", (ApiError, base), {"__doc__": base.__doc__, "__module__": __name__})


_TREE = (
    errors.InputError, errors.PhotoError, errors.NameRefused, errors.TemplateError, errors.LoraError, errors.SpecError,
    errors.NotFound, errors.Conflict, errors.ToolMissing, errors.StorageError, errors.JobFailed, errors.Cancelled,
)  # fmt: skip
_BY_CODE: Mapping[str, type[ApiError]] = {base.code: _remote(base) for base in _TREE}
_BY_STATUS: Mapping[int, type[ApiError]] = {
    **dict.fromkeys((400, 413, 415, 422), _BY_CODE[errors.InputError.code]),
    **dict.fromkeys((401, 403), Unauthorized),
    404: _BY_CODE[errors.NotFound.code],
    409: _BY_CODE[errors.Conflict.code],
    429: TooManyRequests,
    499: _BY_CODE[errors.Cancelled.code],
    **dict.fromkeys((502, 503, 504), Unavailable),
    507: _BY_CODE[errors.StorageError.code],
}
PASSING = frozenset({429, 502, 503, 504})
"""Statuses of a trouble that may pass by itself."""


def error_of(problem: Problem) -> ApiError:
    """The exception for a refusal: by its code where we know it, else by its status."""
    kind = _BY_CODE.get(problem.code) or _BY_STATUS.get(problem.status) or ApiError
    return kind(problem)


def problem_of(status: int, headers: Mapping[str, str], body: bytes) -> Problem:
    """The problem in an answer, whoever gave it: ours by its JSON, a proxy's by its status alone."""
    known = _json_problem(body)
    if known is None:
        known = Problem(detail=_plain_sentence(status, headers))
    return replace(known, status=status, retry_after=_seconds(headers.get("retry-after")))


def _json_problem(body: bytes) -> Problem | None:
    try:
        loaded = json.loads(body)
        return read(Problem, loaded) if isinstance(loaded, Mapping) and {"title", "detail", "code"} & set(loaded) else None
    except ValueError:
        return None


def _plain_sentence(status: int, headers: Mapping[str, str]) -> str:
    if 300 <= status < 400:
        return f"the server sends us on to {headers.get('location', 'another address')}; give that address to the client"
    return f"the server answered with status {status} and no explanation; see its log, or whatever proxy stands before it"


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After as seconds from now: it is written as a number or as a date."""
    if not retry_after:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
