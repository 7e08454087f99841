"""Pictures from web addresses: off unless allowed, each hop checked, sizes and times limited."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from easyphoto.api.outbound import AddressRefused, Unreachable
from easyphoto.api.sources import SourceOptions, fetch_picture
from easyphoto.imaging.io import decode_photo
from tests.api.small_internet import PUBLIC, Internet, answer, internet, site

__all__ = ["internet"]
PUBLIC_ONLY = SourceOptions(allow_urls=True, seconds=2, max_bytes=1_000_000)
ANYWHERE = SourceOptions(allow_urls=True, allow_private=True, seconds=2, max_bytes=1_000_000)


@pytest.fixture
def photo(sample_people: Path) -> bytes:
    return (sample_people / "woman" / "00.jpg").read_bytes()


@pytest.fixture
def public(internet: Internet) -> Internet:
    """pictures.example is a public address whose packets end here."""
    internet.names["pictures.example"] = [PUBLIC]
    internet.routes[PUBLIC] = "127.0.0.1"
    return internet


def test_addresses_are_off_by_default_and_nothing_is_asked(internet: Internet) -> None:
    with pytest.raises(AddressRefused, match="turned off"):
        fetch_picture("http://pictures.example/a.jpg", SourceOptions())
    assert internet.asked == internet.connected == []


def test_a_picture_comes_back_bit_for_bit_under_a_safe_name(public: Internet, photo: bytes) -> None:
    with site(answer(200, photo, Content_Type="image/jpeg")) as place:
        name, data = fetch_picture(f"http://pictures.example:{place.port}/..%2f..%2fetc/Anna%20m%C3%BCde.jpg?x=1", PUBLIC_ONLY)
    assert (name, data) == ("Anna_müde.jpg", photo)
    assert decode_photo(data, name).width > 100


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [("/", "image/png", "picture.png"), ("/show?id=3", "image/webp", "show.webp"), ("/...", "", "picture.jpg")],
)
def test_a_name_without_ending_gets_one_that_fits(path: str, kind: str, name: str, photo: bytes) -> None:
    with site(answer(200, photo, Content_Type=kind)) as place:
        assert fetch_picture(f"http://127.0.0.1:{place.port}{path}", ANYWHERE)[0] == name


def test_this_machine_is_refused_though_addresses_are_allowed(photo: bytes) -> None:
    with site(answer(200, photo, Content_Type="image/jpeg")) as place:
        with pytest.raises(AddressRefused):
            fetch_picture(f"http://127.0.0.1:{place.port}/a.jpg", PUBLIC_ONLY)
        assert place.heard == []


def test_a_redirect_from_a_public_address_to_a_private_one_is_refused(public: Internet, photo: bytes) -> None:
    with site(answer(200, photo, Content_Type="image/jpeg")) as inside:
        for inner in (f"http://127.0.0.1:{inside.port}/", f"http://localhost:{inside.port}/", "http://169.254.169.254/"):
            with site(answer(302, Location=inner)) as outside, pytest.raises(AddressRefused):
                fetch_picture(f"http://pictures.example:{outside.port}/a.jpg", PUBLIC_ONLY)
        assert inside.heard == []
    assert set(public.connected) == {PUBLIC}


def test_a_redirect_to_a_name_that_stands_for_a_private_address_is_refused(public: Internet) -> None:
    public.names["innocent.example"] = ["10.1.2.3"]
    with site(answer(302, Location="http://innocent.example/")) as outside, pytest.raises(AddressRefused):
        fetch_picture(f"http://pictures.example:{outside.port}/a.jpg", PUBLIC_ONLY)
    assert set(public.connected) == {PUBLIC}


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://pictures.example/", "http://user@pictures.example/"])
def test_a_redirect_to_what_is_no_plain_web_address_is_refused(location: str, public: Internet) -> None:
    with site(answer(301, Location=location)) as outside, pytest.raises(AddressRefused):
        fetch_picture(f"http://pictures.example:{outside.port}/a.jpg", PUBLIC_ONLY)


def test_redirects_between_public_addresses_are_followed_three_times(public: Internet, photo: bytes) -> None:
    def winding(handler: BaseHTTPRequestHandler) -> None:
        left = int(handler.path.strip("/"))
        (answer(200, photo, Content_Type="image/jpeg") if not left else answer(302, Location=f"/{left - 1}"))(handler)

    with site(winding) as place:
        assert fetch_picture(f"http://pictures.example:{place.port}/3", PUBLIC_ONLY)[1] == photo
        with pytest.raises(AddressRefused, match="more than 3 times"):
            fetch_picture(f"http://pictures.example:{place.port}/4", PUBLIC_ONLY)


@pytest.mark.parametrize(
    ("status", "kind", "body", "sentence"),
    [
        (404, "image/jpeg", b"no", "status 404"),
        (200, "text/html", b"<html>", "'text/html' instead of a picture"),
        (200, "image/jpeg", b"", "empty file"),
        (200, "image/jpeg", bytes(1_000_001), "more than 1,000,000 bytes"),
        (302, "image/jpeg", b"", "redirects to nowhere"),
    ],
)
def test_what_is_no_picture_is_told(status: int, kind: str, body: bytes, sentence: str) -> None:
    with site(answer(status, body, Content_Type=kind)) as place, pytest.raises(Unreachable, match=sentence):
        fetch_picture(f"http://127.0.0.1:{place.port}/a.jpg", ANYWHERE)
