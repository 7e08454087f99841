"""The Train tab's preset in a real browser: one click sets the controls, and a scene has none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from easyphoto.families import Family
from easyphoto.presets import Preset
from easyphoto.ui.knobs import train_defaults
from tests.ui.serving import CHROMIUM, browsing, opened, serving
from tests.ui.test_browser import open_box
from tests.ui.test_scene_browser import WAIT, choose, keep

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("gradio")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as made:
        yield made


def shows(page: Page, control: str, value: float) -> None:
    """Wait until a slider's number is that one."""
    found = f"document.querySelector('#easyphoto_train_{control} input[type=number]')"
    page.wait_for_function(f"() => {found} && Number({found}.value) === {value}", timeout=WAIT)


def test_a_preset_sets_the_controls(browser: Browser, tmp_path: Path) -> None:
    troubles: list[str] = []
    wanted = {preset: train_defaults(Family.EMBEDDED, preset=preset) for preset in Preset}
    with serving(tmp_path / "home", worker=False) as served:
        page = opened(browser, served.url, troubles)
        open_box(page, "train_advanced")
        open_box(page, "train_steps_group")
        for label, preset in (("Best", Preset.BEST), ("Fast", Preset.FAST), ("Balanced", Preset.BALANCED)):
            choose(page, "train_preset", label)
            shows(page, "batch_size", float(wanted[preset]["batch_size"]))
            shows(page, "max_steps", float(wanted[preset]["max_steps"]))
        keep(page, "preset")
        choose(page, "train_kind", "Scene")
        page.wait_for_selector("#easyphoto_train_preset", state="hidden", timeout=WAIT)
    assert troubles == []
