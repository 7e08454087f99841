"""What long work says while it runs: one JSON object a line, from the worker to whoever watches.

The worker writes these to its standard output and to `events.jsonl` in its job folder; the parent reads them back with
`parse`. Nothing else travels between the two processes but files and a cancel mark.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from easyphoto.errors import JobFailed


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of progress; fields that a kind does not use stay None."""

    kind: str
    """One of KINDS."""
    stage: str = ""
    """What is being done, in words a person reads: "caching", "training", "validating", "merging", "first pass" ..."""
    step: int = 0
    total: int = 0
    loss: float | None = None
    rate: float | None = None
    """Learning rate of the UNet's LoRA."""
    seconds: float | None = None
    """Seconds since the job began."""
    seconds_left: float | None = None
    memory_mb: float | None = None
    """Resident memory of the process, or the GPU's allocated memory where there is one."""
    path: str | None = None
    """A file this event speaks of (a picture, a checkpoint), absolute."""
    score: float | None = None
    """Identity score of `path`: 1 - dlib distance, higher is nearer."""
    message: str | None = None
    code: str | None = None
    """For `failed`: the error's code of the tree in `errors`."""
    extra: dict[str, Any] = field(default_factory=dict)

    KINDS = ("started", "progress", "sample", "checkpoint", "merged", "done", "failed", "cancelled", "log")

    def __post_init__(self) -> None:
        if self.kind not in self.KINDS:
            raise JobFailed(f"event kind must be one of {self.KINDS}, got {self.kind!r}")

    def line(self) -> str:
        """The event as one line of JSON without the fields that are None or empty."""
        kept = {key: value for key, value in asdict(self).items() if value is not None and value not in ("", {})}
        return json.dumps(kept, ensure_ascii=True)


Listener = Callable[[Event], None]
"""Receives each event; may raise `Cancelled` to stop the work at once."""


def parse(line: str) -> Event | None:
    """The event in one line of a worker's output, or None for a line that is something else."""
    try:
        loaded = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(loaded, dict) or loaded.get("kind") not in Event.KINDS:
        return None
    known = {key: value for key, value in loaded.items() if key in Event.__dataclass_fields__}
    return Event(**known)


def ignore(_event: Event) -> None:
    """A listener for callers that do not watch."""
