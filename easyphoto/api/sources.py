"""Pictures named by their address on the web: off unless it was allowed, and never from a private network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

from easyphoto.api.outbound import AddressRefused, Answer, Limits, Message, Unreachable, check_url, send

MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ENDINGS = {
    "image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/gif": ".gif", "image/bmp": ".bmp",
    "image/tiff": ".tif", "image/heic": ".heic", "image/heif": ".heif", "image/avif": ".avif",
}  # fmt: skip
_UNTOLD = frozenset({"", "application/octet-stream", "binary/octet-stream"})
"""Content types of servers that do not know; the decoder decides."""
_LONGEST_NAME = 80


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What may be fetched."""

    allow_urls: bool = False
    """Off unless the server's owner said otherwise."""
    allow_private: bool = False
    """Addresses of this machine and of private networks too."""
    max_bytes: int = 20 * 1024 * 1024
    """Of one picture's file."""
    seconds: float = 30.0
    """For each hop."""


def fetch_picture(url: str, options: SourceOptions) -> tuple[str, bytes]:
    """The file at an address, under a name that is safe to show; blocks, so call it in a thread where others wait.

    The bytes are not looked into: whether they are a picture is for `imaging.io` to say.

    Raises:
        AddressRefused: Addresses are not allowed here, or this one (or one it redirects to) is not.
        Unreachable: No answer, not the wanted one, too slow or too large.
    """
    if not options.allow_urls:
        raise AddressRefused(
            "pictures from web addresses are turned off here; send the picture itself, or start the server with --allow-urls"
        )
    limits = Limits(seconds=options.seconds, max_bytes=options.max_bytes)
    place = url
    for _ in range(MOST_REDIRECTS + 1):
        target = check_url(place, options.allow_private)
        answer = send(target, Message(headers={"Accept": "image/*"}), limits)
        if answer.status not in _REDIRECTS:
            return _picture(place, target.host, answer)
        place = _next(place, answer)
    raise AddressRefused(f"the address redirects more than {MOST_REDIRECTS} times; give the picture's own address")


def _next(place: str, answer: Answer) -> str:
    """Where a redirect leads; it is checked like any other address."""
    location = answer.headers.get("location", "")
    if not location:
        raise Unreachable("the address redirects to nowhere; give the picture's own address")
    try:
        following = urljoin(place, location)
    except ValueError as error:
        raise AddressRefused("the address redirects to one that cannot be understood; give the picture's own") from error
    if urlsplit(place).scheme == "https" and not following.startswith("https:"):
        raise AddressRefused("the address redirects from https to a connection without encryption; give the picture's own")
    return following


def _picture(place: str, host: str, answer: Answer) -> tuple[str, bytes]:
    if answer.status != 200:
        raise Unreachable(f"{host} answers with status {answer.status} instead of a picture; check the address")
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind.startswith("image/") or kind in _UNTOLD):
        raise Unreachable(f"{host} answers with {kind[:40]!r} instead of a picture; give the picture's own address")
    if not answer.body:
        raise Unreachable(f"{host} answers with an empty file; check the address")
    return _name(place, kind), answer.body


def _name(place: str, kind: str) -> str:
    """The last part of the path, free of what no file name has, with an ending that fits."""
    written = PurePosixPath(unquote(urlsplit(place).path)).name
    plain = re.sub(r"[^\w.-]+", "_", written).strip("._")[-_LONGEST_NAME:] or "picture"
    return plain if PurePosixPath(plain).suffix else plain + _ENDINGS.get(kind, ".jpg")
