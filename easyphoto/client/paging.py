"""Answers as records, and lists that the server gives page by page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from easyphoto.client.problems import BadAnswer
from easyphoto.client.reading import read
from easyphoto.client.retry import Retry, exchange
from easyphoto.client.steps import Answer, Request, Steps
from easyphoto.errors import NotFound

Record = TypeVar("Record")
_PAGE = 100
"""Items asked for at a time."""


def path(*parts: str) -> str:
    """Parts of an address as its path, each percent-encoded.

    Raises:
        NotFound: A part is empty or made of dots, so that the address would be another one.
    """
    for part in parts:
        if not part.strip("."):
            raise NotFound(f"{part!r} is no id or name; give the one that the server told")
    return "/".join(quote(part, safe="", errors="surrogatepass") for part in parts)


def record(kind: type[Record], answer: Answer) -> Record:
    """The record in an answer's body.

    Raises:
        BadAnswer: There is none of that kind.
    """
    try:
        return read(kind, json_of(answer))
    except ValueError as error:
        raise _strange(kind.__name__, error) from error


def json_of(answer: Answer) -> Any:  # noqa: ANN401 (it is whatever the server says)
    """The JSON in an answer's body.

    Raises:
        BadAnswer: There is none.
    """
    try:
        return json.loads(answer.body)
    except ValueError as error:
        kind = answer.headers.get("content-type", "nothing")
        raise BadAnswer(f"JSON was asked for and {kind} came; check that the address is that of an easyphoto server") from error


def get(kind: type[Record], where: str, retry: Retry) -> Steps[Record]:
    """The record at a path."""
    answer = yield from exchange(Request(method="GET", path=where), retry)
    return record(kind, answer)


def pages(
    kind: type[Record], where: str, retry: Retry, query: Sequence[tuple[str, str | None]] = (), limit: int | None = None
) -> Steps[tuple[Record, ...]]:
    """The records of a list in the server's order, over all its pages or until there are `limit`."""
    found: list[Record] = []
    cursor: str | None = None
    seen: set[str] = set()
    while limit is None or len(found) < limit:
        # Short lists know no limit and would refuse it; where all is wanted the server's own page is as good.
        size = None if limit is None else str(min(_PAGE, limit - len(found)))
        asked = [*query, ("limit", size), ("cursor", cursor)]
        kept = tuple((name, value) for name, value in asked if value is not None)
        answer = yield from exchange(Request(method="GET", path=where, query=kept), retry)
        items, cursor = _page(kind, answer)
        found.extend(items)
        if cursor is None:
            break
        if cursor in seen:
            raise BadAnswer(f"the server gives the same page of {where} again and again; update it")
        seen.add(cursor)
    return tuple(found[:limit])


def _page(kind: type[Record], answer: Answer) -> tuple[tuple[Record, ...], str | None]:
    loaded = json_of(answer)
    if not isinstance(loaded, Mapping) or not isinstance(loaded.get("items"), list):
        raise BadAnswer("a list was asked for and something else came; check the address")
    try:
        items = tuple(read(kind, item) for item in loaded["items"])
    except ValueError as error:
        raise _strange(kind.__name__, error) from error
    following = loaded.get("next")
    return items, None if following is None else str(following)


def _strange(kind: str, error: ValueError) -> BadAnswer:
    return BadAnswer(f"the server's answer is not a {kind} ({error}); check the address, or update this client")
