"""Names of uploaded files, and texts that a page sends us as JSON: nothing of them is believed unseen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from easyphoto.errors import InputError
from easyphoto.jobs.store import Input, input_name

MOST_FILES = 200
"""Photos or templates of one job."""
_LONGEST_LIST = 100_000
"""Characters of a list that a page sends."""


def hand_in(files: Sequence[Path]) -> tuple[Input, ...]:
    """Uploaded files as a job's inputs, each under a name of its own that people know it by.

    Raises:
        InputError: There are too many.
    """
    if len(files) > MOST_FILES:
        raise InputError(f"these are {len(files)} files; hand in at most {MOST_FILES}")
    named = zip(file_names(files), files)
    return tuple(Input(name=f"{index:04d}/{name}", data=path) for index, (name, path) in enumerate(named))


def file_names(files: Sequence[Path]) -> tuple[str, ...]:
    """The name under which each file appears in a job: its own, made safe, with a number where two are called the same."""
    taken: set[str] = set()
    names = []
    for path in files:
        name = own = input_name(0, path.name).partition("/")[2]
        copy = 1
        while name.casefold() in taken:
            copy += 1
            name = input_name(0, f"{Path(own).stem} ({copy}){Path(own).suffix}").partition("/")[2]
        taken.add(name.casefold())
        names.append(name)
    return tuple(names)


def input_paths(inputs: Sequence[Input]) -> tuple[Path, ...]:
    """Where an order finds the inputs."""
    return tuple(Path("inputs") / item.name for item in inputs)


def read_list(text: object) -> tuple[str, ...]:
    """The texts in a JSON list that a page's checkboxes wrote; () for an empty text.

    Raises:
        InputError: It is something else.
    """
    if not text:
        return ()
    try:
        found = json.loads(text) if isinstance(text, str) and len(text) <= _LONGEST_LIST else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise InputError("what the page chose cannot be read; reload the page and choose again")
    return tuple(dict.fromkeys(found))
