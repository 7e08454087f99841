"""What the desks behind the tabs have in common: open pages, changes of controls, troubles as sentences."""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Callable, Mapping
from threading import RLock
from typing import Any, TypeVar

from easyphoto.errors import EasyPhotoError
from easyphoto.ui.knobs import Knob, Value
from easyphoto.ui.markup import notice

logger = logging.getLogger(__name__)

Values = dict[str, Any]
"""Of controls, by name."""
Kind = TypeVar("Kind", bound="Page")
NOBODY = "—"
"""What stands in a list where nobody is chosen."""


class Page:
    """What the server remembers of one open page.

    Gradio copies the one it was given for each page that is opened, and gives the same copy to every event of that page. It
    is changed in place: events of one page overlap, and a late answer must not bring back what was before.
    """

    def __init__(self) -> None:
        self.token = secrets.token_hex(8)
        """Tells the clicks of one page from another's."""
        self.opened = False
        """Its first look at how things stand is over."""
        self.lock = RLock()

    def __deepcopy__(self: Kind, _memory: dict[int, object]) -> Kind:
        return type(self)()


class Change:
    """New settings of a control, such as `value`, `choices`, `visible`, `interactive`."""

    def __init__(self, **fields: Any) -> None:  # noqa: ANN401 (each setting has its own type)
        self.fields = fields

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Change) and other.fields == self.fields

    def __hash__(self) -> int:
        return hash(tuple(self.fields))

    def __repr__(self) -> str:
        return f"Change({self.fields})"


def handler(tab: str, quiet: bool = False) -> Callable[[Callable[..., Mapping[str, Any]]], Callable[..., Values]]:
    """One event of a tab at a time for each page; its troubles become a sentence in the tab's notice.

    Args:
        tab: Its values hold the page as `tab` + "_page"; `tab` + "_notice" is the notice.
        quiet: Leave the notice as it is when all goes well.
    """

    def around(call: Callable[..., Mapping[str, Any]]) -> Callable[..., Values]:
        @functools.wraps(call)
        def safe(desk: object, values: Values, *more: Any) -> Values:  # noqa: ANN401 (the handler's own)
            try:
                with values[f"{tab}_page"].lock:
                    found = call(desk, values, *more)
            except EasyPhotoError as error:
                return {f"{tab}_notice": notice(str(error))}
            except OSError as error:
                logger.exception("a tab could not do what it was asked")
                return {f"{tab}_notice": notice(f"a file cannot be read or written ({error.strerror or error}); try again")}
            return dict(found) if quiet else {f"{tab}_notice": "", **found}

        return safe

    return around


def knob_values(tab: str, knobs: tuple[Knob, ...], values: Mapping[str, Any]) -> dict[str, Value]:
    """The values of a tab's knobs, by the knobs' own names."""
    return {knob.name: values[f"{tab}_{knob.name}"] for knob in knobs}


def named(tab: str, values: Mapping[str, Any]) -> Values:
    """Values of knobs by the names of their controls."""
    return {f"{tab}_{name}": value for name, value in values.items()}
