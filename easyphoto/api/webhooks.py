"""Tells others that a job has ended: one signed POST to the address that was handed in with the job, tried until it is taken.

What has to be told stands in the queue, so it outlives a restart; a message may come twice, but always under the same
`webhook-id`. The body is `{"type": "job.done" | "job.failed" | "job.cancelled", "timestamp", "job"}`, where `job` is what
GET /jobs/{id} gives. Any answer from 200 to 299 means taken; redirects are not followed, and private addresses are spoken
to only where that was allowed. Receivers check with `easyphoto.signing.verify`.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from easyphoto.api.outbound import AddressRefused, Limits, Message, check_url, send
from easyphoto.errors import Conflict, EasyPhotoError, NotFound
from easyphoto.files import storage_error, write_text
from easyphoto.jobs.store import WEBHOOK_TRIES, Delivery, JobStore
from easyphoto.signing import new_secret, signed_headers
from easyphoto.store.codec import to_json
from easyphoto.store.locks import locked, waiting_lock
from easyphoto.store.paths import owner_home
from easyphoto.work import LOCAL_OWNER

logger = logging.getLogger(__name__)

PAUSES = (0.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 12 * 3600.0, 24 * 3600.0)
"""Seconds to wait before each try; the last one again where there are more tries."""
_AT_ONCE = 4
"""Deliveries under way together, so that one slow receiver does not hold up the others."""
_GONE = 410
"""The receiver wants no more of these (RFC 9110, section 15.5.11)."""
_LOCK = ".webhooks.lock"


@dataclass(frozen=True, kw_only=True)
class WebhookOptions:
    """How webhooks are told."""

    allow_private: bool = False
    """Receivers on this machine and in private networks too."""
    pauses: tuple[float, ...] = PAUSES
    seconds: float = 10.0
    """A receiver has to answer within."""
    every: float = 1.0
    """Seconds between two looks into the queue."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a message was not taken."""

    reason: str
    final: bool
    """It never will be: it is not tried again."""


def webhook_secret(home: Path, owner: str = LOCAL_OWNER) -> str:
    """What an owner's webhooks are signed with; made when it is first asked for, in a file that the owner alone can read.

    Args:
        home: The root of all homes.
        owner: Whose jobs are told.

    Raises:
        StorageError: It cannot be written or read.
    """
    folder = owner_home(home, owner).root / "secrets"
    path = folder / "webhook"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with waiting_lock(folder / ".lock", "the making of a webhook secret"):
            if not path.is_file():
                write_text(path, new_secret() + "\n")
                path.chmod(0o600)
            return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise storage_error(path, error) from error


class Dispatcher:
    """Delivers the webhooks of one home from a thread of its own; of several dispatchers of one home, one works."""

    def __init__(
        self, store: JobStore, options: WebhookOptions | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._options = options or WebhookOptions()
        self._clock = clock
        self._stopping = threading.Event()
        self._guard = threading.Lock()
        self._busy: set[str] = set()
        self._due: dict[str, float] = {}
        """Job: when it is tried again, by our clock."""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; more than once is fine."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="easyphoto-webhooks", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End, after the deliveries that are under way."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._take_turn()

    def _take_turn(self) -> None:
        """Work, or wait a moment because another dispatcher of this home does or the queue cannot be read."""
        try:
            with locked(self._store.queue / _LOCK, "telling webhooks"):
                self._work()
        except Conflict:
            self._stopping.wait(self._options.every)
        except EasyPhotoError as error:
            logger.warning("webhooks cannot be told at the moment: %s", error)
            self._stopping.wait(max(self._options.every, 1.0))
        finally:
            self._busy.clear()

    def _work(self) -> None:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="easyphoto-webhook") as pool:
            while not self._stopping.is_set():
                for delivery in self._ready():
                    pool.submit(self._deliver, delivery)
                self._stopping.wait(self._options.every)
            pool.shutdown(cancel_futures=True)

    def _ready(self) -> list[Delivery]:
        """What is to be told now, marked as under way; at most a few for each free place, the oldest first."""
        now = self._clock()
        with self._guard:
            # Under the guard: a delivery is written down before it stops being busy, so none is seen as neither.
            pending = self._store.pending_webhooks()
            self._due = {item.job.id: self._due[item.job.id] for item in pending if item.job.id in self._due}
            waiting = [item for item in pending if item.job.id not in self._busy and self._due.get(item.job.id, now) <= now]
            chosen = waiting[: max(0, 2 * _AT_ONCE - len(self._busy))]
            self._busy |= {item.job.id for item in chosen}
        return chosen

    def _deliver(self, delivery: Delivery) -> None:
        identifier = delivery.job.id
        try:
            refusal = self._try(delivery)
            tries = delivery.tries + 1
            with self._guard:
                self._due[identifier] = self._clock() + self._options.pauses[min(tries, len(self._options.pauses) - 1)]
            self._store.webhook_done(identifier, ok=refusal is None, final=refusal is not None and refusal.final)
            if refusal is not None:
                left = "given up" if refusal.final or tries >= WEBHOOK_TRIES else f"try {tries} of {WEBHOOK_TRIES}"
                logger.warning("the webhook of job %s was not taken (%s): %s", identifier, left, refusal.reason)
        except NotFound:
            logger.info("the job %s was forgotten while its webhook was told", identifier)
        except EasyPhotoError as error:
            logger.warning("the webhook of job %s is told again, because this cannot be written down: %s", identifier, error)
        except Exception:
            # The border of the thread: the pool would swallow it, and the job be told never again.
            logger.exception("the webhook of job %s met an error that nobody foresaw", identifier)
        finally:
            with self._guard:
                self._busy.discard(identifier)

    def _try(self, delivery: Delivery) -> Refusal | None:
        """None if the message was taken, else why not."""
        try:
            target = check_url(delivery.url, self._options.allow_private)
            answer = send(target, self._message(delivery), Limits(seconds=self._options.seconds))
        except EasyPhotoError as error:
            # An address that may not be spoken to stays one: private networks are not asked again and again.
            return Refusal(reason=str(error), final=isinstance(error, AddressRefused))
        if 200 <= answer.status < 300:
            return None
        return Refusal(reason=f"{target.host} answered with status {answer.status}", final=answer.status == _GONE)

    def _message(self, delivery: Delivery) -> Message:
        job = delivery.job
        content = {"type": f"job.{job.state.value}", "timestamp": job.ended, "job": to_json(job)}
        body = json.dumps(content, ensure_ascii=False).encode("utf-8")
        secret = webhook_secret(self._store.root, job.owner)
        headers = signed_headers(secret, f"msg_{job.id}", int(time.time()), body)
        return Message(method="POST", headers={"Content-Type": "application/json", **headers}, body=body)
