"""How often each token may ask: a bucket that fills steadily and is emptied by requests."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from easyphoto.api.options import Rates
from easyphoto.api.problems import Refused


@dataclass
class Bucket:
    """What one owner has left; changes with every request."""

    left: float
    at: float
    """When it was filled last, in seconds of the clock."""


class RateLimit:
    """Two buckets for each owner: one for requests that make a job, one for all others."""

    def __init__(self, rates: Rates, clock: Callable[[], float] = time.monotonic) -> None:
        self._rates = rates
        self._clock = clock
        self._buckets: dict[tuple[str, bool], Bucket] = {}

    def take(self, owner: str, makes_job: bool) -> None:
        """Count one request.

        Raises:
            Refused: 429, with the seconds to wait in `Retry-After`.
        """
        rates = self._rates
        speed, most = (rates.posts, rates.posts_burst) if makes_job else (rates.reads, rates.reads_burst)
        if not speed:
            return
        now = self._clock()
        bucket = self._buckets.setdefault((owner, makes_job), Bucket(left=most, at=now))
        bucket.left = min(most, bucket.left + (now - bucket.at) * speed)
        bucket.at = now
        if bucket.left < 1:
            wait = math.ceil((1 - bucket.left) / speed)
            what = "handed in" if makes_job else "asked"
            raise Refused(429, f"this token has {what} too often; wait {wait} s", {"Retry-After": str(wait)})
        bucket.left -= 1
