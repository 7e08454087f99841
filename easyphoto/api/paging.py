"""Lists in pages: so many at a time, and a cursor for what follows that nobody needs to understand."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi import Query

from easyphoto.api.problems import bad_field

Item = TypeVar("Item")
LIMIT: Any = Query(50, ge=1, le=200, description="Most entries of one page.")
CURSOR: Any = Query(None, max_length=400, description="`next` of the page before.")


def page_of(items: Sequence[Item], keys: Sequence[str], limit: int, cursor: str | None) -> tuple[Sequence[Item], str | None]:
    """The items behind the cursor and the cursor behind them; `keys` are the items' places in their order, ascending.

    Raises:
        BadFields: The cursor is none.
    """
    begin = 0 if cursor is None else bisect_right(keys, _decoded(cursor))
    end = begin + limit
    following = _encoded(keys[end - 1]) if end < len(items) else None
    return items[begin:end], following


def checked_cursor(cursor: str | None) -> str | None:
    """A cursor of the queue's, which are numbers.

    Raises:
        BadFields: It is none.
    """
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise bad_field("cursor", "is none of ours; take it from `next` of the page before")
    return cursor


def _encoded(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode("ascii")


def _decoded(cursor: str) -> str:
    try:
        return base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise bad_field("cursor", "is none of ours; take it from `next` of the page before") from error
