"""Signed webhooks: genuine ones pass, changed, old and foreign ones do not; others' libraries would agree."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easyphoto.errors import SpecError
from easyphoto.signing import PREFIX, BadSignature, new_secret, sign, signed_headers, verify

SECRET = PREFIX + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
BODY = b'{"type":"job.done"}'


def test_the_published_example_of_standard_webhooks_comes_out() -> None:
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    assert sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_signature_is_plain_hmac_over_id_time_and_body() -> None:
    digest = hmac.new(b"0123456789abcdef0123456789abcdef", b"msg_1.1700000000." + BODY, hashlib.sha256).digest()
    assert sign(SECRET, "msg_1", 1_700_000_000, BODY) == "v1," + base64.b64encode(digest).decode()


@given(st.binary(max_size=200), st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True))
def test_what_was_signed_verifies_with_headers_in_any_case(body: bytes, name: str) -> None:
    headers = {key.title(): value for key, value in signed_headers(SECRET, name, 1000, body).items()}
    verify(SECRET, headers, body, now=1000 + 299)


@pytest.mark.parametrize("field", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_message_without_one_of_its_headers_is_none(field: str) -> None:
    headers = signed_headers(SECRET, "msg_1", 1000, BODY)
    del headers[field]
    with pytest.raises(BadSignature, match=field):
        verify(SECRET, headers, BODY, now=1000)


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ({}, BODY + b" "),
        ({}, b""),
        ({"webhook-id": "msg_2"}, BODY),
        ({"webhook-id": "msg.1"}, BODY),
        ({"webhook-id": ""}, BODY),
        ({"webhook-timestamp": "1001"}, BODY),
        ({"webhook-timestamp": "１０００"}, BODY),
        ({"webhook-timestamp": "soon"}, BODY),
        ({"webhook-signature": ""}, BODY),
        ({"webhook-signature": "v1,"}, BODY),
        ({"webhook-signature": "v1,ümlaut"}, BODY),
    ],
)
def test_anything_changed_on_the_way_is_found(change: dict[str, str], body: bytes) -> None:
    headers = signed_headers(SECRET, "msg_1", 1000, BODY) | change
    with pytest.raises(BadSignature):
        verify(SECRET, headers, body, now=1000)


@pytest.mark.parametrize("now", [1301, 699])
def test_a_copy_of_an_old_message_is_refused(now: int) -> None:
    with pytest.raises(BadSignature, match="seconds old"):
        verify(SECRET, signed_headers(SECRET, "msg_1", 1000, BODY), BODY, now=now)


def test_another_secret_does_not_fit() -> None:
    with pytest.raises(BadSignature, match="no signature"):
        verify(new_secret(), signed_headers(SECRET, "msg_1", 1000, BODY), BODY, now=1000)


def test_one_of_several_signatures_is_enough() -> None:
    headers = signed_headers(SECRET, "msg_1", 1000, BODY)
    other = sign(new_secret(), "msg_1", 1000, BODY)
    verify(SECRET, headers | {"webhook-signature": f"{other} {headers['webhook-signature']}"}, BODY, now=1000)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!!", "whsec_c2hvcnQ="])
def test_what_is_no_secret_is_told(secret: str) -> None:
    with pytest.raises(SpecError):
        sign(secret, "msg_1", 1000, BODY)


def test_secrets_are_long_and_never_the_same() -> None:
    made = {new_secret() for _ in range(50)}
    assert len(made) == 50
    assert all(len(base64.b64decode(secret.removeprefix(PREFIX))) == 32 for secret in made)
