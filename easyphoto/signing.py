"""Signatures of webhooks by the Standard Webhooks scheme, for who sends them and for who receives them.

A message has an id, the second it was sent, and a body. Its signature is the HMAC-SHA256 of "id.second.body", keyed with
the bytes of the secret, which is written as `whsec_` and base64 (https://www.standardwebhooks.com, specification 1.0).

A receiver calls `verify(secret, request.headers, request_body)` with the body exactly as it came, before reading it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping

from easyphoto.errors import EasyPhotoError, SpecError

PREFIX = "whsec_"
TOLERANCE = 300
"""Seconds a message may be old, or ahead of our clock."""
_VERSION = "v1"
_KEY_BYTES = 32


class BadSignature(EasyPhotoError):
    """A message is not from whom it says, was changed on its way, or is old."""

    code = "bad_signature"
    http_status = 401


def new_secret() -> str:
    """A fresh secret, 256 bits by the system's own generator."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode("ascii")


def sign(secret: str, message_id: str, second: int, body: bytes) -> str:
    """The value of the header `webhook-signature`.

    Args:
        secret: As `new_secret` gives it.
        message_id: The same for every attempt to deliver one message; may hold no dot.
        second: Unix time of this attempt.
        body: Exactly the bytes that are sent.

    Raises:
        SpecError: The secret is none, or the id holds a dot.
    """
    if "." in message_id or not message_id:
        raise SpecError(f"the id of a message may not be empty or hold a dot, got {message_id!r}")
    signed = b".".join((message_id.encode("utf-8"), str(second).encode("ascii"), body))
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return f"{_VERSION},{base64.b64encode(digest).decode('ascii')}"


def signed_headers(secret: str, message_id: str, second: int, body: bytes) -> dict[str, str]:
    """The three headers that a message travels with."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(second),
        "webhook-signature": sign(secret, message_id, second, body),
    }


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float | None = None) -> None:
    """Pass if the message is genuine and fresh; do so before anything in the body is believed.

    Remember the `webhook-id` of what you have worked through: a delivery whose answer got lost is sent again.

    Args:
        secret: As `easyphoto webhooks secret` prints it on the server.
        headers: Of the request; case does not matter.
        body: The request's bytes, untouched.
        now: Unix time; the clock's where left out.

    Raises:
        BadSignature: A header is missing, the time is off by more than five minutes, or no signature fits.
        SpecError: The secret is none.
    """
    small = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, stamp, given = (small[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as error:
        raise BadSignature(f"the message has no header {error}; it is no signed webhook") from None
    _check_time(stamp, time.time() if now is None else now)
    if "." in message_id or not message_id:
        raise BadSignature("the message's id is empty or holds a dot; it is no signed webhook")
    expected = sign(secret, message_id, int(stamp), body).encode("ascii")
    # All are compared, and each in constant time: a sender in the middle of changing secrets signs with both.
    matches = [hmac.compare_digest(expected, one.encode("utf-8")) for one in given.split(" ")]
    if not any(matches):
        raise BadSignature("no signature of the message fits; the secret is another one, or the message was changed")


def _check_time(stamp: str, now: float) -> None:
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 12):
        raise BadSignature(f"the message's time {stamp[:20]!r} is no whole number of seconds")
    if abs(now - int(stamp)) > TOLERANCE:
        raise BadSignature(f"the message is {now - int(stamp):.0f} seconds old; it may be a copy, or a clock is wrong")


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SpecError(f"a webhook secret is {PREFIX} and base64; this one is not, so copy it again") from error
    if len(key) < 16:
        raise SpecError("a webhook secret has at least 16 bytes; this one is shorter, so copy it again")
    return key
