"""Where the server is and who asks."""

from __future__ import annotations

import pydoc
import threading

import httpx
import pytest

from easyphoto.client import AsyncClient, Client
from easyphoto.client.connection import connection
from easyphoto.client.steps import Request
from easyphoto.errors import SpecError
from tests.client.rough_server import Rough, answer

NO = {"url": None, "token": None, "login": None, "timeout": 1.0}


def made(env: dict[str, str] | None = None, **given):
    return connection(**{**NO, **given}, env=env or {})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://host:7861", "http://host:7861"), ("https://host/", "https://host"), ("http://host/a/b/", "http://host/a/b"),
        ("http://host/easyphoto/v1/", "http://host"), ("https://h/x/easyphoto/v1", "https://h/x"), ("http://[::1]:1", "http://[::1]:1"),
    ],
)  # fmt: skip
def test_addresses_are_understood_as_people_write_them(given: str, kept: str) -> None:
    there = made(url=given)
    assert there.url == kept
    assert there.address(Request(method="GET", path="jobs", query=(("a", "b c"),))) == f"{kept}/easyphoto/v1/jobs?a=b%20c"


@pytest.mark.parametrize("given", ["host:7861", "ftp://host", "http://", "http://host?a=1", "http://host:x", "file:///etc"])
def test_other_addresses_are_refused(given: str) -> None:
    with pytest.raises(SpecError, match="address"):
        made(url=given)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(SpecError) as caught:
        made(url="https://me:secret@host")
    assert "secret" not in str(caught.value)


def test_what_is_left_open_comes_from_the_environment() -> None:
    env = {"EASYPHOTO_URL": "https://there", "EASYPHOTO_TOKEN": " abc\n"}
    assert (made(env).url, made(env).credentials) == ("https://there", "Bearer abc")
    assert (made(env, token="x").credentials, made(env, url="http://h").url) == ("Bearer x", "http://h")  # noqa: S106
    assert (made().url, made().credentials) == ("http://127.0.0.1:7861", None)


@pytest.mark.parametrize("token", ["a b", "a\nb", "ä", "  "])
def test_a_token_that_no_header_can_carry_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(SpecError, match="copy it again"):
        made(token=token)


def test_a_webuis_name_and_password_take_the_tokens_place() -> None:
    assert made({"EASYPHOTO_TOKEN": "x"}, login=("me", "pä:ss")).credentials == "Basic bWU6cMOkOnNz"
    with pytest.raises(SpecError, match="not both"):
        made(token="a", login=("b", "c"))  # noqa: S106


def test_the_token_is_shown_nowhere() -> None:
    client = Client("http://127.0.0.1:1", "s3cret")
    shown = repr(client) + str(client) + repr(vars(client)) + repr(client._connection) + repr(AsyncClient("http://h", "s3cret"))
    assert "s3cret" not in shown
    client.close()


def test_a_timeout_of_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match="above 0"):
        made(timeout=0)


def test_no_proxy_stands_between_a_machine_and_itself(rough: Rough, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    rough.on("health", answer({"status": "ok"}))
    with Client(rough.url) as client:
        assert client.health().status == "ok"
    assert made(url="http://[::1]:2").trusts_environment is made(url="http://localhost").trusts_environment is False
    assert made(url="https://example.org").trusts_environment


def test_ones_own_httpx_client_is_used_and_left_open(rough: Rough) -> None:
    rough.on("health", answer({"status": "ok"}))
    with httpx.Client(headers={"X-Mine": "1"}) as http:
        with Client(rough.url, http=http) as client:
            client.health()
        assert rough.seen[0].headers["x-mine"] == "1"
        assert not http.is_closed


def test_one_client_serves_many_threads(rough: Rough) -> None:
    rough.on("health", answer({"status": "ok"}))
    said: list[str] = []
    with Client(rough.url) as client:
        threads = [threading.Thread(target=lambda: said.extend(client.health().status for _ in range(10))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert said == ["ok"] * 80


def test_every_method_explains_itself_in_help() -> None:
    for kind in (Client, AsyncClient):
        text = pydoc.plain(pydoc.render_doc(kind))
        assert "train(self, name: 'str', photos" in text
        assert "Have a person trained from their photos" in text
        public = [name for name in dir(kind) if not name.startswith("_")]
        assert all(getattr(kind, name).__doc__ for name in public)
