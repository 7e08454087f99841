"""Silence for native libraries that write remarks straight to the process's standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_LOCK = threading.Lock()


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send file descriptor 2 nowhere for a moment.

    TensorFlow Lite and absl print banners when a graph starts, past Python's logging and past every switch they offer.
    What another thread writes to standard error meanwhile is lost too, so only start-up is wrapped, not work.
    """
    with _LOCK:
        sys.stderr.flush()
        try:
            saved = os.dup(2)
        except OSError:  # a service without standard error has nothing to silence
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)
