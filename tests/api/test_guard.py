"""What every request passes first: tokens, origins, names of the server, rates and sizes; by real connections."""

from __future__ import annotations

import base64
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from easyphoto.api.options import MIB, ApiOptions, Limits, Rates
from easyphoto.api.tokens import TokenStore
from easyphoto.errors import SpecError
from tests.api.rig import UNHURRIED, V1, Rig, fields_of, jpeg, person_in, problem_of, served

ROUTES = [
    ("GET", "/people"), ("POST", "/people"), ("GET", "/people/x"), ("PATCH", "/people/x"), ("DELETE", "/people/x"),
    ("GET", "/people/x/photos"), ("GET", "/people/x/reference"), ("POST", "/checks"), ("POST", "/portraits"), ("GET", "/jobs"),
    ("GET", "/jobs/x"), ("DELETE", "/jobs/x"), ("GET", "/jobs/x/events"), ("GET", "/jobs/x/files/y"), ("GET", "/results"),
    ("GET", "/results/x"), ("DELETE", "/results/x"), ("GET", "/results/x/files/y"), ("GET", "/templates"),
    ("GET", "/templates/x"),
    ("GET", "/models"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/nothing"), ("POST", "/health"),
    ("GET", "/../easyphoto_infer_forward"), ("POST", "/../easyphoto_train_forward"),
]  # fmt: skip

EVERYWHERE = "0.0.0.0"  # noqa: S104 (nothing is listened on)


def raw(rig: Rig, data: bytes, seconds: float = 5.0) -> bytes:
    """Bytes sent as they are, and what comes back until the server hangs up or has nothing more to say."""
    with socket.create_connection(("127.0.0.1", rig.port), seconds) as connection:
        connection.sendall(data)
        connection.settimeout(1.0)
        got = b""
        try:
            while piece := connection.recv(65536):
                got += piece
        except (TimeoutError, ConnectionResetError):
            pass
    return got


def token_of(client: httpx.Client) -> str:
    return str(client.headers["authorization"]).removeprefix("Bearer ")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_but_health_wants_a_token(rig: Rig, method: str, path: str) -> None:
    if path == "/health":
        assert rig.nobody.get(path).status_code == 200
        return
    answer = rig.nobody.request(method, path)
    assert problem_of(answer, 401)["code"] == "no_token"
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_health_tells_its_state_and_nothing_else(rig: Rig) -> None:
    answer = rig.nobody.get("/health")
    assert answer.json() == {"status": "ok"}
    assert "server" not in answer.headers or answer.headers["server"] == "uvicorn"


@pytest.mark.parametrize(
    "said", ["Bearer wrong", 'Bearer ""', "Basic bG9jYWw6eA==", "bearer", "\xe4\xf6", "Token {}", "Bearer {} x"]
)
def test_what_is_no_token_opens_nothing(rig: Rig, said: str) -> None:
    headers = {"Authorization": said.replace("{}", token_of(rig.mine)).encode("latin-1")}
    assert rig.nobody.get("/jobs", headers=headers).status_code == 401  # type: ignore[arg-type]


def test_a_token_in_the_address_opens_nothing(rig: Rig) -> None:
    token = token_of(rig.mine)
    assert rig.nobody.get("/jobs", params={"token": token, "access_token": token}).status_code == 401
    assert rig.nobody.get("/jobs", headers={"Cookie": f"token={token}"}).status_code == 401


def test_a_token_made_or_removed_counts_at_once(rig: Rig) -> None:
    tokens = TokenStore(rig.service.settings.home)
    token = tokens.add("Carla")
    headers = {"Authorization": f"Bearer {token}"}
    assert rig.nobody.get("/jobs", headers=headers).status_code == 200
    tokens.remove("Carla")
    assert rig.nobody.get("/jobs", headers=headers).status_code == 401


def test_a_broken_token_file_lets_nobody_in(rig: Rig) -> None:
    (rig.service.settings.home / "tokens.json").write_text("{", encoding="utf-8")
    assert problem_of(rig.mine.get("/jobs"), 503)["code"] == "not_ready"


def test_without_tokens_only_this_machine_may_be_listened_on(tmp_path: Path) -> None:
    with served(tmp_path / "home", ApiOptions(no_auth=True, rates=UNHURRIED)) as rig:
        assert rig.nobody.get("/jobs").status_code == 200
    for host in (EVERYWHERE, "192.168.1.5", "::", "example.org"):
        with pytest.raises(SpecError, match="--no-auth"):
            ApiOptions(no_auth=True, host=host)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1", "http://[", "", "file://"]
)
def test_a_page_of_another_origin_changes_nothing(rig: Rig, origin: str, tmp_path: Path) -> None:
    person = person_in(rig.service.settings.home, tmp_path / "made")
    for method, path in (
        ("POST", "/checks"),
        ("DELETE", f"/people/{person.person_id}"),
        ("PATCH", f"/people/{person.person_id}"),
    ):
        assert problem_of(rig.mine.request(method, path, headers={"Origin": origin}), 403)["code"] == "forbidden"
    assert person.folder.is_dir()


def test_our_own_origin_and_programs_may_change_things(rig: Rig) -> None:
    files = [("photos", ("a.jpg", jpeg()))]
    assert rig.mine.post("/checks", files=files).status_code == 202
    assert rig.mine.post("/checks", files=files, headers={"Origin": rig.url}).status_code == 202
    answer = rig.mine.post("/checks", files=files, headers={"Origin": rig.url, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in rig.mine.get("/jobs", headers={"Origin": "http://evil.example"}).headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7861", "127.0.0.1.evil.example", "", "[::2]", "localhost.evil.example"]
)
def test_a_foreign_name_for_this_machine_is_refused(rig: Rig, host: str) -> None:
    for path in ("/health", "/jobs"):
        assert problem_of(rig.mine.get(path, headers={"Host": host}), 421)["code"] == "bad_host"


def test_this_machines_names_are_known(rig: Rig) -> None:
    for host in ("localhost", f"localhost:{rig.port}", "127.0.0.1", "[::1]:80", "LOCALHOST", f"{EVERYWHERE}:7860"):
        assert rig.mine.get("/health", headers={"Host": host}).status_code == 200


def test_a_server_for_others_takes_any_name(tmp_path: Path) -> None:
    with served(tmp_path / "home", ApiOptions(host=EVERYWHERE, rates=UNHURRIED)) as rig:
        assert rig.mine.get("/jobs", headers={"Host": "photos.example"}).status_code == 200


def test_who_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    options = ApiOptions(rates=Rates(reads=1, reads_burst=3, posts=0.5, posts_burst=1))
    with served(tmp_path / "home", options) as rig:
        answers = [rig.mine.get("/jobs") for _ in range(5)]
        assert [answer.status_code for answer in answers[:3]] == [200, 200, 200]
        refused = problem_of(answers[-1], 429)
        assert refused["code"] == "too_many_requests"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 2
        # Another token, and another kind of request, have buckets of their own.
        assert rig.theirs.get("/jobs").status_code == 200
        assert rig.mine.post("/checks", files=[("photos", ("a.jpg", jpeg()))]).status_code == 202
        assert rig.mine.post("/checks", files=[("photos", ("a.jpg", jpeg()))]).status_code == 429
        time.sleep(1.1)
        assert rig.mine.get("/jobs").status_code == 200


@pytest.fixture
def tight(tmp_path: Path) -> Iterator[Rig]:
    limits = Limits(form_bytes=100_000, json_bytes=50_000, file_bytes=30_000, files=3, text=100, list_items=5, json_parts=200)
    with served(tmp_path / "home", ApiOptions(limits=limits, rates=UNHURRIED)) as rig:
        yield rig


def test_too_much_is_refused_by_what_is_announced_and_by_what_comes(tight: Rig) -> None:
    big = b'{"name": "' + b"x" * 60_000 + b'"}'
    kind = {"Content-Type": "application/json"}
    assert problem_of(tight.mine.post("/people", content=big, headers=kind), 413)["code"] == "too_large"
    # Sent in chunks, so that nothing is announced.
    pieces = (big[start : start + 5_000] for start in range(0, len(big), 5_000))
    assert problem_of(tight.mine.post("/people", content=pieces, headers=kind), 413)
    for form in (jpeg(), jpeg() + b"\0" * 40_000):
        files = [("photos", ("a.jpg", form))] * 3
        expected = 202 if len(form) < 30_000 else 413
        assert tight.mine.post("/checks", files=files).status_code == expected
    left = (path.name for path in (tight.service.settings.home / "uploads").rglob("*") if path.is_file())
    assert set(left) <= {"server.lock"}


def test_the_older_routes_have_the_same_limits(tight: Rig) -> None:
    answer = httpx.post(
        f"{tight.url}/easyphoto/easyphoto_train_forward",
        content=b"x" * 60_000,
        headers=dict(tight.mine.headers),
        trust_env=False,
    )
    assert problem_of(answer, 413)


def test_too_many_of_anything_is_refused_by_its_field(tight: Rig) -> None:
    photo = {"data": base64.b64encode(jpeg()).decode()}
    assert fields_of(tight.mine.post("/checks", json={"photos": [photo] * 4})) == ["photos"]
    assert fields_of(tight.mine.post("/checks", files=[("photos", ("a.jpg", jpeg()))] * 4)) == ["photos"]
    assert fields_of(tight.mine.post("/checks", json={"photos": [photo], "take": ["x"] * 6})) == ["take"]
    assert fields_of(tight.mine.post("/checks", json={"photos": [photo], "take": ["x" * 101]})) == ["take[0]"]
    assert fields_of(tight.mine.post("/people", json={"photos": [photo], "name": "x" * 101})) == ["name"]
    large = {"data": base64.b64encode(b"\0" * 31_000).decode()}
    assert fields_of(tight.mine.post("/checks", json={"photos": [large]})) == ["photos[0].data"]
    assert problem_of(tight.mine.post("/checks", json={"photos": [[]] * 150}), 413)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"5", b"null", b'"x"', b"\xff", b'{"photos": [], "photos": []}', b'{"priority": NaN}',
        b'{"priority": Infinity}', b'{"priority": 1e999}', b'{"take": ["\\ud800"]}', b'{"take": ["a\\u0000b"]}',
        b'{"\\ud800": 1}', b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", b"[" * 100_000,
        b'{"a":' * 5_000, b'{"priority": 1' + b"0" * 5000 + b"}",
    ],
    ids=lambda body: body[:20].decode("latin-1"),
)  # fmt: skip
def test_bodies_that_are_none_are_refused(rig: Rig, body: bytes) -> None:
    answer = rig.mine.post("/checks", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 413, 422)
    problem_of(answer, answer.status_code)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "", "multipart/mixed; boundary=x"]
)
def test_other_kinds_of_bodies_are_refused(rig: Rig, kind: str) -> None:
    answer = rig.mine.post("/people", content=b"name=Anna", headers={"Content-Type": kind} if kind else {})
    assert problem_of(answer, 415)["code"] == "bad_content_type"


PART = b'--x\r\nContent-Disposition: form-data; name="photos"; filename="a.jpg"\r\n\r\n'


@pytest.mark.parametrize(
    ("boundary", "body"),
    [
        ("", b""), ("; boundary=", b""), ("; boundary=" + "x" * 300, b""), ("; boundary=x", b""), ("; boundary=x", b"garbage"),
        ("; boundary=x", PART + jpeg()), ("; boundary=x", b"--x\r\n\r\n\r\n--x--\r\n"),
        ("; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--\r\n"),
        ("; boundary=x", b'--x\r\nContent-Disposition: form-data; name="' + b"n" * 20_000 + b'"\r\n\r\nx\r\n--x--\r\n'),
        ("; boundary=x", b"--x\r\n" + b"A: b\r\n" * 5_000 + b"\r\nx\r\n--x--\r\n"),
        ("; boundary=x", b'--x\r\nContent-Disposition: form-data; name="take"\r\n\r\n\xff\xfe\r\n--x--\r\n'),
        ("; boundary=x", b'--x\r\nContent-Disposition: form-data; name="take"\r\n\r\n' + b"x" * 300_000 + b"\r\n--x--\r\n"),
        ("; boundary=x", b'--x\r\nContent-Disposition: form-data; name="take"\r\n\r\nx\r\n' * 600 + b"--x--\r\n"),
    ],
    ids=range(13),
)  # fmt: skip
def test_forms_that_are_none_are_refused(rig: Rig, boundary: str, body: bytes) -> None:
    answer = rig.mine.post("/checks", content=body, headers={"Content-Type": f"multipart/form-data{boundary}"})
    assert answer.status_code in (400, 413, 422)
    problem_of(answer, answer.status_code)
    assert rig.mine.get("/jobs").json()["items"] == []


@pytest.mark.parametrize(
    "name",
    [
        "../../../../tmp/x.jpg",
        "/etc/passwd",
        "C:\\x.jpg",
        "a\0b.jpg",
        "..",
        ".",
        "~",
        "CON",
        "name with\nline.jpg",
        "<svg>.svg",
    ],
)
def test_a_files_name_never_decides_where_it_lies(rig: Rig, name: str) -> None:
    answer = rig.mine.post("/checks", files=[("photos", (name, jpeg(), "text/html"))])
    assert answer.status_code == 202, answer.text
    folder = rig.service.store.folder(answer.json()["id"])
    order = rig.service.store.order(answer.json()["id"])
    [photo] = order.photos  # type: ignore[union-attr]
    assert (folder / photo).read_bytes() == jpeg()
    assert (folder / photo).resolve().parent.parent == folder.resolve() / "inputs"
    home = rig.service.settings.home
    assert sorted(path.name for path in home.parent.iterdir()) == [home.name]


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises that size, with hardly any pixels in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10_000_000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(50_000, 50_000), (2**31 - 1, 2**31 - 1), (30_000, 10), (9_000, 9_000)])
def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header(rig: Rig, size: tuple[int, int], tmp_path: Path) -> None:
    bomb = png_of(*size)
    assert len(bomb) < 20_000
    assert fields_of(rig.mine.post("/checks", files=[("photos", ("bomb.png", bomb, "image/png"))])) == ["photos[0]"]
    person = person_in(rig.service.settings.home, tmp_path / "made")
    body = {"people": [person.person_id], "templates": [{"name": "bomb.png", "data": base64.b64encode(bomb).decode()}]}
    assert fields_of(rig.mine.post("/portraits", json=body)) == ["templates[0]"]


def test_huge_headers_and_nonsense_do_not_hurt(rig: Rig) -> None:
    for data in (
        b"GET /easyphoto/v1/health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (4 * MIB),
        b"GET /" + b"x" * MIB + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /easyphoto/v1/health HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
        b"\0\1\2\3" * 1000, b"POST /easyphoto/v1/checks HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /easyphoto/v1/checks HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"GET /easyphoto/v1/health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    ):  # fmt: skip
        try:
            got = raw(rig, data)
        except (BrokenPipeError, ConnectionResetError):
            got = b""
        assert got == b"" or got.startswith((b"HTTP/1.1 4",)), got[:200]
        assert rig.nobody.get("/health").status_code == 200


def test_a_length_that_lies_is_not_waited_for_for_ever(rig: Rig) -> None:
    token = token_of(rig.mine).encode()
    head = b"POST /easyphoto/v1/checks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token
    head += b"\r\nContent-Type: application/json\r\nContent-Length: 999999999999\r\n\r\n{}"
    assert raw(rig, head).startswith(b"HTTP/1.1 413")


def test_unknown_routes_and_methods_are_problems_too(rig: Rig) -> None:
    assert problem_of(rig.mine.get("/nothing"), 404)["code"] == "not_found"
    assert problem_of(rig.mine.get("/people/"), 404)
    answer = rig.mine.put("/people")
    assert problem_of(answer, 405)["code"] == "bad_method"
    assert answer.headers["allow"] == "GET, POST"
    assert rig.mine.request("OPTIONS", "/jobs/x").headers["allow"] == "DELETE, GET"
    assert problem_of(httpx.get(rig.url, headers=dict(rig.mine.headers), trust_env=False), 404)


def test_what_nobody_foresaw_is_told_without_a_word_of_what_is_inside(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: Any) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(rig.service.store, "list", broken)
    answer = rig.mine.get("/jobs")
    assert problem_of(answer, 500)["code"] == "error"
    assert "secret" not in answer.text
    assert "RuntimeError" not in answer.text
    assert "the secret inside" in caplog.text
    assert rig.mine.get("/health").status_code == 200


def test_every_answer_bears_the_headers_that_keep_it_private(rig: Rig) -> None:
    for path in ("/health", "/jobs", "/nothing", "/templates"):
        headers = rig.mine.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"].startswith("private")
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "set-cookie" not in headers


def test_the_log_of_requests_has_no_queries(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "easyphoto.access"):
        rig.mine.get("/jobs", params={"token": token_of(rig.mine)})
        # The line is written after the answer.
        rig.mine.get("/health")
        time.sleep(0.1)
    lines = [record.getMessage() for record in caplog.records if record.name == "easyphoto.access"]
    assert any(line.startswith(f"GET {V1}/jobs 422") for line in lines)
    assert token_of(rig.mine) not in caplog.text


def test_json_that_is_deep_but_allowed_passes(rig: Rig) -> None:
    body = {"people": ["nobody"], "templates": [{"gallery": "x"}], "settings": {"first": {"weights": [["canny", 0.5]]}}}
    assert problem_of(rig.mine.post("/portraits", content=json.dumps(body), headers={"Content-Type": "application/json"}), 404)
