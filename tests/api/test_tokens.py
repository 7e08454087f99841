"""The file of tokens, and who is let in by what."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from starlette.requests import Request

from easyphoto.api import auth
from easyphoto.api.tokens import TokenStore
from easyphoto.errors import Conflict, InputError, NameRefused, NotFound
from easyphoto.store.paths import person_id


def test_a_token_is_kept_as_a_digest_in_a_file_of_the_owners_alone(tmp_path: Path) -> None:
    store = TokenStore(tmp_path)
    token = store.add("local")
    assert len(token) >= 43
    assert token not in store.path.read_text(encoding="utf-8")
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert store.owner(token) == "local"
    assert store.owner(f"{token}x") is None
    assert store.owner("") is None
    assert store.owner("\ud800") is None


def test_each_name_is_an_owner_and_stays_the_same_one(tmp_path: Path) -> None:
    store = TokenStore(tmp_path)
    first = store.add("王小明")
    assert store.owner(first) == person_id("王小明")
    with pytest.raises(Conflict):
        store.add("王小明")
    store.remove("王小明")
    assert store.owner(first) is None
    second = store.add("王小明")
    assert second != first
    assert store.owner(second) == person_id("王小明")
    with pytest.raises(NotFound):
        store.remove("nobody")
    with pytest.raises(NameRefused):
        store.add("../x")


def test_another_process_sees_a_change(tmp_path: Path) -> None:
    here, there = TokenStore(tmp_path), TokenStore(tmp_path)
    assert here.list() == ()
    token = there.add("Anna")
    assert here.owner(token) is not None
    there.remove("Anna")
    assert here.owner(token) is None


def test_a_broken_file_is_an_error_and_not_an_open_door(tmp_path: Path) -> None:
    store = TokenStore(tmp_path)
    token = store.add("local")
    store.path.write_text('{"tokens": [', encoding="utf-8")
    with pytest.raises(InputError, match=r"tokens\.json"):
        TokenStore(tmp_path).owner(token)


def asked(authorization: str | None = None) -> Request:
    headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers, "query_string": b""})


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


def test_a_host_with_api_auth_wants_one_of_its_pairs() -> None:
    way = auth.for_host("anna:secret, berta:with:colon")
    assert way.owner(asked(basic("anna:secret"))) == "local"
    assert way.owner(asked(basic("berta:with:colon"))) == "local"
    for wrong in (None, basic("anna:wrong"), basic("anna"), basic(":"), "Basic §", "Bearer secret", basic("anna:secret ")):
        assert way.owner(asked(wrong)) is None
    assert way.challenge.startswith("Basic")


def test_a_host_whose_api_auth_cannot_be_understood_lets_nobody_in() -> None:
    assert auth.for_host("nonsense").owner(asked(basic("nonsense:"))) is None


def test_a_host_with_gradio_auth_wants_somebody_it_knows() -> None:
    way = auth.for_host(None, lambda request: request.headers.get("authorization"))
    assert way.owner(asked("anna")) == "local"
    assert way.owner(asked()) is None


def test_a_host_with_both_takes_either_and_one_with_none_asks_nobody() -> None:
    both = auth.for_host("anna:secret", lambda request: "x" if request.headers.get("authorization") == "session" else None)
    assert both.owner(asked(basic("anna:secret"))) == both.owner(asked("session")) == "local"
    assert both.owner(asked("other")) is None
    assert auth.for_host(None).owner(asked()) == "local"
