"""Records as the server writes them."""

from __future__ import annotations

from typing import Any

from easyphoto.store.codec import to_json
from easyphoto.work import Failure, Job, JobKind, JobState


def job(state: JobState = JobState.QUEUED, **more: Any) -> dict[str, Any]:
    """A job's JSON."""
    made = Job(id="0123456789abcdef", kind=JobKind.TRAINING, owner="local", state=state, created="2026-01-01T00:00:00Z", **more)
    return dict(to_json(made))


def failed() -> dict[str, Any]:
    """A failed job's JSON."""
    return job(JobState.FAILED, failure=Failure(code="bad_photo", sentence="no photo shows a face; take others"))


def person(name: str = "Anna", **more: Any) -> dict[str, Any]:
    """A person's JSON."""
    return {
        "id": f"{name.lower()}-0123456789", "name": name, "family": "embedded", "created": "2026-01-01T00:00:00Z", "score": 0.6,
        "photos": 10, "consent": None, **more,
    }  # fmt: skip


def message(number: int, kind: str = "progress", **fields: Any) -> bytes:
    """One server-sent event."""
    import json

    return f"id: {number}\nevent: {kind}\ndata: {json.dumps({'kind': kind, **fields})}\n\n".encode()


def end(state: JobState = JobState.DONE) -> bytes:
    """The last message of a stream."""
    import json

    return f"event: end\ndata: {json.dumps(job(state))}\n\n".encode()
