"""A page of our own on a free port, with a worker beside it, and a browser that looks at it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyphoto.settings import PROJECT_ROOT
from easyphoto.ui.options import TabOptions
from easyphoto.ui.studio import Studio
from tests.ui.made import make_studio

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PYTHON = os.environ.get("EASYPHOTO_TEST_PAGE_PYTHON") or sys.executable
"""Serves the page: an environment with an older Gradio, such as a host's, to try the tabs there."""
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running page."""

    url: str
    studio: Studio


def built(studio: Studio, options: TabOptions | None = None) -> Any:
    """The page, built inside a running event loop: outside of one Gradio makes loops that it never closes."""
    from easyphoto.ui.tabs import build

    async def make() -> Any:
        return build(studio, options)

    return asyncio.run(make())


@contextmanager
def serving(home: Path, worker: bool = True, token: str = "") -> Iterator[Served]:
    """Serve the tabs of a home from a process of its own until the end of the block; with a token, behind a login."""
    words = [PYTHON, "-m", "tests.ui.serve_page", str(home), str(int(worker)), token]
    # Old versions of Gradio live in environments that cannot train.
    own = {**os.environ, "EASYPHOTO_TEST_PYTHON": sys.executable}
    process = subprocess.Popen(words, cwd=PROJECT_ROOT, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    studio = make_studio(home)
    try:
        assert process.stdout is not None
        url = next((line.split()[1] for line in process.stdout if line.startswith("ready ")), "")
        assert url, "the page was not served"
        yield Served(url=url, studio=studio)
    finally:
        studio.store.close()
        process.communicate(timeout=60)


@contextmanager
def browsing() -> Iterator[Browser]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def opened(browser: Browser, url: str, troubles: list[str], width: int = 1400) -> Page:
    """The page in a new window, ready for a person; errors of its scripts are noted."""
    page = browser.new_page(viewport={"width": width, "height": 900}, locale="en-US")
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: (troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda said: troubles.append(said.text) if said.type == "error" and _ours(said.text) else None)
    page.goto(url)
    awake(page)
    return page


def awake(page: Page) -> None:
    """Wait until the page has heard from the server."""
    page.wait_for_selector("#easyphoto_train_live [data-easyphoto-awake]", state="attached", timeout=30_000)


def tab(page: Page, name: str) -> None:
    """Go to a tab."""
    places = (f'#easyphoto_modes {place}:text-is("{name}")' for place in ("[role=tab]", ".tab-nav button"))
    page.locator(", ".join(places)).first.click()


def _ours(text: str) -> bool:
    # Gradio asks for the system's letters under a name that it takes for one of its own font files.
    return "Failed to load resource" not in text
