"""What the server tells Prometheus: jobs, how long they took and waited, requests, and whether the worker lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from easyphoto.work import Job, JobKind, JobState

if TYPE_CHECKING:
    from easyphoto.jobs.store import JobStore

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600, 7200)
"""Upper ends of the histograms' classes."""


class Metrics:
    """A registry of our own: nothing of a host's is told, and nothing of ours elsewhere."""

    def __init__(self, store: JobStore, worker_alive: Callable[[], bool]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Standing(store, worker_alive))
        self._requests = Counter(
            "easyphoto_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "easyphoto_job_seconds", "Seconds from a job's begin to its end.", ("kind", "state"),
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._waited = Histogram(
            "easyphoto_job_wait_seconds", "Seconds from handing a job in to its begin.", ("kind",),
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip

    def request(self, route: str, method: str, status: int) -> None:
        """Count one request; `route` is the pattern, never the path itself."""
        known = method if method in ("GET", "POST", "PATCH", "DELETE") else "other"
        self._requests.labels(known, route, str(status)).inc()

    def ended(self, job: Job) -> None:
        """Count a job that has ended."""
        if job.started is None or job.ended is None:
            return
        began = _moment(job.started)
        self._seconds.labels(job.kind.value, job.state.value).observe(max(0.0, _moment(job.ended) - began))
        self._waited.labels(job.kind.value).observe(max(0.0, began - _moment(job.created)))

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return bytes(generate_latest(self._registry))


class _Standing(Collector):
    """What is looked up whenever somebody asks."""

    def __init__(self, store: JobStore, worker_alive: Callable[[], bool]) -> None:
        self._store = store
        self._worker_alive = worker_alive

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Jobs by state and kind, and the worker."""
        found = _counts(self._store)
        jobs = GaugeMetricFamily("easyphoto_jobs", "Jobs in the queue's book.", labels=("kind", "state"))
        for kind in JobKind:
            for state in JobState:
                jobs.add_metric((kind.value, state.value), found.get((kind.value, state.value), 0))
        yield jobs
        alive = GaugeMetricFamily("easyphoto_worker_alive", "1 while the process that runs the jobs lives.")
        alive.add_metric((), float(self._worker_alive()))
        yield alive


def _counts(store: JobStore) -> dict[tuple[str, str], int]:
    sql = "SELECT kind, state, count(*) FROM jobs GROUP BY kind, state"
    rows = store.database.read(lambda connection: connection.execute(sql).fetchall())
    return {(row[0], row[1]): int(row[2]) for row in rows}


def _moment(written: str) -> float:
    return datetime.fromisoformat(written.replace("Z", "+00:00")).timestamp()
