"""Work that blocks, beside the server's loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MOST = 32
"""Requests that may read and write at once; those behind them wait."""
_POOL = ThreadPoolExecutor(_MOST, "easyphoto-api")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, done in a thread.

    As Starlette's `in_thread`, without the two more turns of the loop that anyio takes, which a small request feels. Whoever
    is cancelled while waiting does not wait for the thread.
    """
    if args or kwargs:
        return await asyncio.get_running_loop().run_in_executor(_POOL, functools.partial(work, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(_POOL, work)
