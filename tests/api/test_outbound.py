"""Requests to addresses given from outside: what is checked is what is connected to, and nothing private is reached."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyphoto.api.outbound import AddressRefused, Limits, Message, Unreachable, check_url, send
from tests.api.small_internet import PUBLIC, PUBLIC_V6, Internet, Site, answer, internet, site

__all__ = ["internet"]
QUICK = Limits(connect_seconds=1, seconds=2, max_bytes=1000)


@pytest.fixture
def hello() -> Iterator[Site]:
    with site(answer(200, b"hello", Content_Type="text/plain")) as place:
        yield place


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://0.0.0.0/", "http://[::]/", "http://127.1/",
        "http://0x7f000001/", "http://2130706433/", "http://0177.0.0.1/", "http://10.0.0.1/", "http://172.16.0.1/",
        "http://192.168.1.1/", "http://100.64.0.1/", "http://169.254.169.254/latest/meta-data/", "http://100.100.100.200/",
        "http://168.63.129.16/", "http://192.0.0.192/", "http://224.0.0.1/", "http://240.0.0.1/", "http://255.255.255.255/",
        "http://[::ffff:127.0.0.1]/", "http://[::ffff:10.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::a00:1]/",
        "http://[64:ff9b:1::a00:1]/", "http://[2002:7f00:1::]/", "http://[2001:0:1::1]/", "http://[fe80::1]/",
        "http://[fec0::1]/", "http://[fd00:ec2::254]/", "http://[ff02::1]/", "http://[::7f00:1]/", "http://[2001:db8::1]/",
    ],
)  # fmt: skip
def test_no_way_of_writing_a_private_address_gets_through(url: str) -> None:
    with pytest.raises(AddressRefused):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)", "example.com", "",
        "http://", "http:///path", "http://user@example.com/", "http://user:word@example.com/", "http://:80/",
        "http://example.com:22/", "http://example.com:25/", "http://example.com:0/", "http://example.com:99999/",
        "http://example.com:x/", "http://exa mple.com/", "http://example.com\\@127.0.0.1/", "http://example.com/\r\nX: y",
        "http://[::1", "http://example.com%2f@127.0.0.1/", "http://127%2e0.0.1/", "http://[fe80::1%25lo]/",
        "http://exa\tmple.com/", "http://\ud800.com/", "http://a..b/", "http://" + "a" * 64 + ".com/", "http://a/" + "x" * 3000,
    ],
)  # fmt: skip
def test_what_is_no_plain_web_address_is_refused_before_it_is_looked_up(url: str, internet: Internet) -> None:
    with pytest.raises(AddressRefused) as refused:
        check_url(url)
    assert internet.asked == []
    assert "\n" not in str(refused.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.one_of(st.text(), st.text().map("http://{}".format), st.from_regex(r"https?://[^/]*:?[0-9]*/?.*")))
def test_whatever_is_written_is_an_address_or_a_sentence(internet: Internet, url: str) -> None:
    internet.nobody_knows = True
    try:
        check_url(url)
    except (AddressRefused, Unreachable) as refused:
        str(refused).encode("utf-8")


@pytest.mark.parametrize("number", [PUBLIC, PUBLIC_V6, f"64:ff9b::{PUBLIC}", f"::ffff:{PUBLIC}"])
def test_a_name_of_a_public_address_passes(number: str, internet: Internet) -> None:
    internet.names["pictures.example"] = [number]
    target = check_url("https://Pictures.example/a%20b?c=d#part")
    assert [ipaddress.ip_address(one) for one in target.numbers] == [ipaddress.ip_address(number)]
    assert (target.host, target.port, target.path) == ("pictures.example", 443, "/a%20b?c=d")


def test_one_private_address_among_public_ones_spoils_the_name(internet: Internet) -> None:
    internet.names["half.example"] = [PUBLIC, "127.0.0.1"]
    with pytest.raises(AddressRefused, match="this machine itself"):
        check_url("http://half.example/")


def test_private_addresses_pass_when_allowed_but_cloud_metadata_never_does() -> None:
    assert check_url("http://127.0.0.1:7860/", allow_private=True).numbers == ("127.0.0.1",)
    assert check_url("http://192.168.1.1/", allow_private=True).numbers == ("192.168.1.1",)
    for url in ("http://169.254.169.254/", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/", "http://168.63.129.16/"):
        with pytest.raises(AddressRefused):
            check_url(url, allow_private=True)


def test_a_name_nobody_knows_may_be_known_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unreachable, match=r"nobody\.example cannot be looked up"):
        check_url("http://nobody.example/")


def test_a_name_that_points_elsewhere_after_the_check_gains_nothing(internet: Internet, hello: Site) -> None:
    internet.names["rebound.example"] = [PUBLIC]
    internet.routes[PUBLIC] = "127.0.0.1"
    target = check_url(f"http://rebound.example:{hello.port}/x")
    internet.names["rebound.example"] = ["127.0.0.2"]
    internet.asked.clear()
    got = send(target, Message(), QUICK)
    assert (got.status, got.body) == (200, b"hello")
    assert internet.connected == [PUBLIC]
    assert internet.asked == []
    assert hello.heard[0].headers["host"] == f"rebound.example:{hello.port}"


def test_the_next_number_is_tried_when_one_does_not_answer(internet: Internet, hello: Site) -> None:
    internet.names["two.example"] = ["93.184.216.35", PUBLIC]
    internet.routes[PUBLIC] = "127.0.0.1"
    assert send(check_url(f"http://two.example:{hello.port}/"), Message(), QUICK).body == b"hello"
    assert internet.connected == ["93.184.216.35", PUBLIC]


def test_no_answer_at_all_is_one_sentence(internet: Internet) -> None:
    internet.names["silent.example"] = [PUBLIC]
    with pytest.raises(Unreachable, match=r"silent\.example cannot be connected to") as failed:
        send(check_url("http://silent.example/"), Message(), QUICK)
    assert "\n" not in str(failed.value)


def test_a_proxy_named_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch, hello: Site) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert send(check_url(f"http://127.0.0.1:{hello.port}/", allow_private=True), Message(), QUICK).body == b"hello"


def test_a_redirect_is_told_and_not_followed() -> None:
    with site(answer(302, Location="http://169.254.169.254/")) as place:
        got = send(check_url(f"http://127.0.0.1:{place.port}/", allow_private=True), Message(), QUICK)
        assert (got.status, got.headers["location"]) == (302, "http://169.254.169.254/")
        assert len(place.heard) == 1


def test_an_announced_size_over_the_limit_is_not_read() -> None:
    with site(answer(200, b"", Content_Length="1001")) as place, pytest.raises(Unreachable, match="more than 1,000 bytes"):
        send(check_url(f"http://127.0.0.1:{place.port}/", allow_private=True), Message(), QUICK)


def test_an_endless_body_is_given_up_at_the_limit() -> None:
    sent = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        while len(sent) < 10_000:
            handler.wfile.write(b"x" * 10_000)
            sent.append(10_000)

    with site(endless) as place, pytest.raises(Unreachable, match="more than 1,000 bytes"):
        send(check_url(f"http://127.0.0.1:{place.port}/", allow_private=True), Message(), QUICK)
    assert len(sent) < 10_000


@pytest.mark.parametrize("dripped", ["headers", "body"])
def test_an_answer_that_drips_ends_with_the_time_given(dripped: str) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        if dripped == "body":
            handler.send_response(200)
            handler.end_headers()
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(100):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    limits = Limits(connect_seconds=1, seconds=0.5, max_bytes=1000)
    with site(drip) as place:
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"longer than 0\.5 seconds"):
            send(check_url(f"http://127.0.0.1:{place.port}/", allow_private=True), Message(), limits)
        assert time.monotonic() - began < 3


def test_a_compressed_answer_is_refused_unread() -> None:
    with site(answer(200, b"\x1f\x8b" + bytes(90), Content_Encoding="gzip")) as place:
        with pytest.raises(Unreachable, match="asked not to compress"):
            send(check_url(f"http://127.0.0.1:{place.port}/", allow_private=True), Message(), QUICK)
        assert place.heard[0].headers["accept-encoding"] == "identity"


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return made


def _tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_the_certificate_is_verified_for_the_name_and_not_for_the_number(internet: Internet, authority: trustme.CA) -> None:
    internet.names["safe.example"] = [PUBLIC]
    internet.routes[PUBLIC] = "127.0.0.1"
    with site(answer(200, b"secret"), _tls(authority, "safe.example")) as place:
        assert send(check_url(f"https://safe.example:{place.port}/"), Message(), QUICK).body == b"secret"


def test_a_certificate_for_another_name_is_refused(internet: Internet, authority: trustme.CA) -> None:
    internet.names["safe.example"] = [PUBLIC]
    internet.routes[PUBLIC] = "127.0.0.1"
    with (
        site(answer(200, b"secret"), _tls(authority, "other.example")) as place,
        pytest.raises(Unreachable, match="cannot be connected"),
    ):
        send(check_url(f"https://safe.example:{place.port}/"), Message(), QUICK)
    assert place.heard == []
