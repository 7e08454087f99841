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
