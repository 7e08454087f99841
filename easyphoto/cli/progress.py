"""What a person sees while long work runs: one line that rewrites itself, or JSON lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from easyphoto.events import Event, Listener

BAR = 28


class ProgressLine:
    """A bar with the stage, the loss and the time left, on one line of a terminal; plain lines elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._stage = ""
        self._width = 0

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "log":
            self._write_line(event.message or "")
        elif event.total and self._live:
            self._rewrite(_bar(event))
        elif event.stage and event.stage != self._stage:
            self._write_line(event.stage)
        self._stage = event.stage or self._stage

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        if self._width:
            self._stream.write("\n")
            self._width = 0

    def _rewrite(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)

    def _write_line(self, text: str) -> None:
        self.close()
        self._stream.write(text + "\n")
        self._stream.flush()


def _bar(event: Event) -> str:
    done = min(BAR, BAR * event.step // event.total)
    parts = [f"{event.stage:<12} [{'#' * done}{'.' * (BAR - done)}] {event.step}/{event.total}"]
    if event.loss is not None:
        parts.append(f"loss {event.loss:.4f}")
    if event.score is not None:
        parts.append(f"score {event.score:.3f}")
    if event.seconds_left is not None:
        parts.append(f"{event.seconds_left // 60:.0f}:{event.seconds_left % 60:02.0f} left")
    return "  ".join(parts)


@contextmanager
def watching(as_json: bool) -> Iterator[Listener]:
    """A listener for the length of one command: JSON lines on standard output, or a bar on standard error."""
    if as_json:
        yield lambda event: print(event.line(), flush=True)
        return
    line = ProgressLine(sys.stderr)
    try:
        yield line
    finally:
        line.close()
