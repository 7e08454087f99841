"""`easyphoto serve` with its tabs: who gets in, and from where."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from easyphoto.settings import PROJECT_ROOT
from tests.ui.serving import CHROMIUM, awake, browsing

if TYPE_CHECKING:
    from playwright.sync_api import Page

gr = pytest.importorskip("gradio")
pytestmark = pytest.mark.skipif(int(gr.__version__.partition(".")[0]) < 6, reason="only the newest serves by itself")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that runs."""

    url: str
    token: str
    home: Path


def refused(*words: str) -> tuple[int, str]:
    """Exit status and last words of a server that is not to be."""
    command = [sys.executable, "-m", "easyphoto", "serve", "--port", "0", *words]
    ended = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120, check=False)
    return ended.returncode, ended.stderr


def test_the_network_is_let_in_with_a_login_alone(tmp_path: Path) -> None:
    home = ("--home", str(tmp_path))
    status, said = refused(*home, "--listen")
    assert status == 2
    assert "--auth NAME:PASSWORD" in said
    assert refused(*home, "--listen", "--auth", "anna")[0] == 2
    assert "too short" in refused(*home, "--listen", "--auth", "anna:secret")[1]
    assert "leave one of them out" in refused(*home, "--auth", "anna:long enough", "--no-auth")[1]
    assert refused(*home, "--auth", f"@{tmp_path / 'nobody'}")[0] == 2
    assert refused(*home, "--listen", "--host", "127.0.0.1", "--auth", "anna:long enough")[0] == 2
    assert refused(*home, "--listen", "--no-auth", "--no-tabs")[0] == 2


@pytest.mark.parametrize("flag", ["--lora-dir", "--ckpt-dir", "--controlnet-dir", "--template-dir"])
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, flag: str) -> None:
    status, said = refused("--home", str(tmp_path), flag, str(tmp_path / "missing"))
    assert status == 3
    assert "missing" in said


def test_names_and_passwords_open_the_tabs_instead_of_the_token(tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("anna:long enough\nben:even longer\n")
    with server(tmp_path / "home", "--listen", "--auth", f"@{users}") as running:
        assert _logs_in(running, "anna", "long enough")
        assert _logs_in(running, "ben", "even longer")
        for name, password in (("anna", "even longer"), ("", ""), ("local", running.token), ("anna:long", "enough")):
            assert not _logs_in(running, name, password)
        # Programs go on with their tokens.
        headers = {"Authorization": f"Bearer {running.token}"}
        assert ask(running, "/easyphoto/v1/people", headers=headers).status_code == 200


def _logs_in(served: Server, name: str, password: str) -> bool:
    answer = ask(served, "/login", "POST", data={"username": name, "password": password})
    assert answer.status_code in (200, 400, 422)
    return answer.status_code == 200


def test_one_password_after_the_other_is_not_listened_to(tmp_path: Path) -> None:
    with server(tmp_path, "--auth", "anna:long enough") as running:
        body = {"username": "anna", "password": "wrong"}
        assert [ask(running, "/login", "POST", data=body).status_code for _ in range(12)].count(429) >= 2
        assert ask(running, "/login/", "POST", data=body).status_code == 429
        assert ask(running, "/").status_code == 200


def test_own_models_and_templates_are_shown(tmp_path: Path) -> None:
    for name in ("checkpoint-of-mine", "models/another"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(PROJECT_ROOT / "models" / "base-256")
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "at-the-lake.jpg").write_bytes((PROJECT_ROOT / "templates" / "linen-shirt.jpg").read_bytes())
    flags = ("--checkpoint", "checkpoint-of-mine", "--ckpt-dir", "models", "--template-dir", "gallery", "--lora-dir", ".")
    words = [str(tmp_path / word) if not word.startswith("--") else word for word in flags]
    with server(tmp_path / "home", "--no-auth", *words) as running:
        page = ask(running, "/config").text
    assert '"checkpoint-of-mine (embedded)"' in page
    assert page.index("checkpoint-of-mine (embedded)") < page.index("another (embedded)")
    assert "at-the-lake" in page
    assert "linen-shirt" not in page


@contextmanager
def server(home: Path, *words: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "easyphoto", "serve", "--home", str(home), "--port", "0", *words]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, env={**os.environ}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline() + process.stdout.readline()
        found = re.search(r"tabs: (http\S+/)", said)
        assert found, said
        httpx.get(found[1], trust_env=False, timeout=60)
        yield Server(url=found[1], token=said.splitlines()[0].rpartition(": ")[2].rstrip(")"), home=home)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("home")) as running:
        yield running


def ask(served: Server, path: str, method: str = "GET", **said) -> httpx.Response:
    return httpx.request(method, served.url.rstrip("/") + path, trust_env=False, timeout=60, **said)


@pytest.mark.parametrize("path", ["/config", "/gradio_api/info", "/gradio_api/queue/status"])
def test_nothing_of_the_tabs_is_told_without_a_login(served: Server, path: str) -> None:
    answer = ask(served, path)
    assert answer.status_code == 401 or "easyphoto_train" not in answer.text


def test_the_page_without_a_login_holds_nothing_of_the_tabs(served: Server) -> None:
    answer = ask(served, "/")
    assert answer.status_code == 200
    assert "easyphoto_train" not in answer.text
    assert answer.headers["content-security-policy"] == "frame-ancestors 'self'"


def test_no_event_runs_without_a_login(served: Server) -> None:
    body = {"fn_index": 0, "data": [], "session_hash": "x"}
    for path in ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/upload"):
        assert ask(served, path, "POST", json=body).status_code in (401, 403, 404, 405, 422)
    assert ask(served, "/gradio_api/queue/join", "POST", json=body).status_code == 401


def test_the_routes_are_still_the_routes(served: Server) -> None:
    assert ask(served, "/easyphoto/v1/health").json() == {"status": "ok"}
    assert ask(served, "/easyphoto/v1/people").status_code == 401
    assert ask(served, "/easyphoto/v1/people", headers={"Authorization": f"Bearer {served.token}"}).json()["items"] == []


def test_no_page_of_elsewhere_comes_in(served: Server) -> None:
    assert ask(served, "/", headers={"Host": "evil.example"}).status_code == 421
    login = {"username": "local", "password": served.token}
    assert ask(served, "/login", "POST", data=login, headers={"Origin": "https://evil.example"}).status_code == 403


def test_no_file_of_the_machine_is_served(served: Server) -> None:
    with httpx.Client(base_url=served.url, trust_env=False, timeout=60) as client:
        assert client.post("/login", data={"username": "local", "password": served.token}).status_code == 200
        assert "easyphoto_train" in client.get("/config").text
        for path in ("/etc/passwd", str(served.home / "tokens.json"), str(PROJECT_ROOT / "README.md"), "tokens.json"):
            assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)
        big = client.post("/gradio_api/upload", files={"files": ("a.jpg", bytes(201 * 1024 * 1024))})
        assert big.status_code == 413
        small = client.post("/gradio_api/upload", files={"files": ("a.jpg", b"x")})
        assert Path(small.json()[0]).is_relative_to(served.home / "tabs")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_token_is_asked_once_and_stands_in_no_address(served: Server) -> None:
    with browsing() as browser:
        page = browser.new_page(locale="en-US")
        addresses: list[str] = []
        page.on("request", lambda request: addresses.append(request.url))
        page.goto(served.url)
        _log_in(page, "wrong")
        page.wait_for_selector("text=/incorrect/i")
        _log_in(page, served.token)
        awake(page)
        page.reload()
        awake(page)
        assert not [address for address in addresses if served.token in address]
        assert not [address for address in addresses if not address.startswith((served.url, "data:", "blob:"))]


def _log_in(page: Page, password: str) -> None:
    fields = page.locator("input")
    fields.nth(0).fill("local")
    fields.nth(1).fill(password)
    page.get_by_role("button").last.click()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_where_nobody_is_asked_the_tabs_open_at_once(tmp_path: Path) -> None:
    with server(tmp_path, "--no-auth") as open_one, browsing() as browser:
        page = browser.new_page(locale="en-US")
        page.goto(open_one.url)
        awake(page)
