"""Small pieces of HTML.

Whatever a person or a file says goes through `said`; what we say ourselves is a text of its own, so that the page can put it
into another language.
"""

from __future__ import annotations

from html import escape

from easyphoto.report.page import SAME_PERSON_BELOW

ROOT = "easyphoto_tabs"
"""Id of the element that everything of ours lies in."""


def said(text: object) -> str:
    """Somebody's words, harmless in HTML and never translated."""
    return f"<span translate='no'>{escape(str(text))}</span>"


def attribute(text: object) -> str:
    """Somebody's words as the value of an attribute in double quotes."""
    return escape(str(text), quote=True)


def words(text: str, kind: str = "") -> str:
    """Our own words."""
    return f'<span class="{kind}">{escape(text)}</span>' if kind else f"<span>{escape(text)}</span>"


def notice(text: str, kind: str = "error") -> str:
    """A sentence that stands out: "error", "warning" or "good"."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="easyphoto-notice easyphoto-{kind}" role="{role}">{escape(text)}</p>' if text else ""


def image(uri: str | None, alt: str, kind: str = "") -> str:
    """A picture from a data URI; a grey square with a question mark where it cannot be shown."""
    css = f' class="{kind}"' if kind else ""
    if uri is None:
        return f'<div class="easyphoto-unreadable {kind}" role="img" aria-label="{attribute(alt)}">?</div>'
    return f'<img{css} alt="{attribute(alt)}" src="{uri}">'


def score(similarity: float | None) -> str:
    """How near a face came, with a colour."""
    if similarity is None:
        return words("no face found", "easyphoto-score easyphoto-none")
    same = 1.0 - similarity < SAME_PERSON_BELOW
    kind, word = ("good", "same person") if same else ("weak", "not verified")
    return f'<span class="easyphoto-score easyphoto-{kind}">{words(word)} <b>{similarity:.2f}</b></span>'


def duration(seconds: float) -> str:
    """A time span as people say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def day(stamp: str | None) -> str:
    """An ISO time to the minute, in UTC."""
    return (stamp or "")[:16].replace("T", " ")


def megabytes(size: int) -> str:
    """A file's size."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{max(1, size // 1000)} kB"


def choice(target: str, value: str, inner: str, kind: str, pressed: bool = False) -> str:
    """A button that tells the server `value`: the page writes it into the text `target` and presses `target` + "_go"."""
    state = "true" if pressed else "false"
    return (
        f'<button type="button" class="{kind}" aria-pressed="{state}" data-easyphoto-choose="{target}" '
        f'data-value="{attribute(value)}">{inner}</button>'
    )


def tick(target: str, value: str, checked: bool, inner: str) -> str:
    """A checkbox of several that fill the text `target` with a JSON list of the ticked values."""
    on = " checked" if checked else ""
    return (
        f'<label class="easyphoto-tick"><input type="checkbox" data-easyphoto-list="{target}" '
        f'value="{attribute(value)}"{on}>{inner}</label>'
    )
