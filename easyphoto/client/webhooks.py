"""What a program does with a webhook that comes in."""

from __future__ import annotations

import json
from collections.abc import Mapping

from easyphoto.client.problems import BadAnswer
from easyphoto.client.reading import read
from easyphoto.signing import verify
from easyphoto.work import Job


def ended_job(secret: str, headers: Mapping[str, str], body: bytes) -> Job:
    """The job that a webhook tells of, once its signature was found genuine and fresh.

    Args:
        secret: What `easyphoto webhooks secret` shows.
        headers: Of the request; case does not matter.
        body: The request's bytes exactly as they came.

    Raises:
        BadSignature: It is not from the server, was changed on its way, or is old; answer with 401.
        BadAnswer: It is from the server and tells of no job that this client understands.
    """
    verify(secret, headers, body)
    try:
        told = json.loads(body)
        return read(Job, told["job"] if isinstance(told, Mapping) else None)
    except (ValueError, KeyError) as error:
        raise BadAnswer(f"the webhook holds no job ({error}); update this client") from error
