"""The page in a real browser: its pictures show, its sliders move, nothing is fetched, nothing fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from easyphoto.report.page import RunFacts, write_page
from tests.report.test_page import report  # noqa: F401 (a fixture)

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from easyphoto.report.page import PersonReport

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture()
def page(report: PersonReport, tmp_path: Path) -> Iterator[tuple[Page, list[str]]]:  # noqa: F811
    from playwright.sync_api import sync_playwright

    path = tmp_path / "index.html"
    write_page(path, report, RunFacts(command="make demo", machine="test", version="0", seconds=()))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        troubles: list[str] = []
        opened.on("pageerror", lambda error: troubles.append(str(error)))
        opened.on("console", lambda said: troubles.append(said.text) if said.type == "error" else None)
        opened.on("request", lambda asked: troubles.append(asked.url) if asked.url.startswith("http") else None)
        opened.goto(path.as_uri())
        yield opened, troubles
        browser.close()


def test_the_slider_uncovers_the_portrait(page: tuple[Page, list[str]]) -> None:
    opened, troubles = page
    slider = opened.locator(".compare input").first
    slider.focus()
    slider.press("Home")
    assert opened.locator(".compare").first.evaluate("box => box.style.getPropertyValue('--at')") == "0%"
    slider.press("End")
    clip = opened.locator(".compare .after").first.evaluate("image => getComputedStyle(image).clipPath")
    assert clip.startswith("inset(0px 0px 0px 100%")
    assert not troubles


def test_parameters_open_by_a_click_and_every_picture_is_decoded(page: tuple[Page, list[str]]) -> None:
    opened, troubles = page
    # Pictures first: while they load, the page still moves under the pointer.
    opened.evaluate("() => document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    widths = opened.evaluate(
        "async () => Promise.all([...document.images].map(async image => (await image.decode(), image.naturalWidth)))"
    )
    assert not opened.locator("pre").first.is_visible()
    opened.locator("summary").first.click()
    opened.locator("pre").first.wait_for(state="visible")
    assert opened.locator("pre").first.inner_text() == "Steps: 5, Seed: 7"
    assert widths
    assert min(widths) == 64
    assert not troubles


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_sticks_out_sideways(page: tuple[Page, list[str]], width: int) -> None:
    opened, _ = page
    opened.set_viewport_size({"width": width, "height": 800})
    assert opened.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
