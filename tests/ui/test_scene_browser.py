"""The Train tab's kind in a real browser: the controls of a scene come and go, and what is handed in is a scene."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from easyphoto.orders import TrainOrder
from easyphoto.records import TrainKind
from tests.api.test_scenes import scene_in
from tests.ui.made import photos
from tests.ui.serving import CHROMIUM, browsing, opened, serving, tab

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("gradio")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]
WAIT = 120_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as made:
        yield made


def choose(page: Page, control: str, label: str) -> None:
    page.locator(f"#easyphoto_{control} label", has_text=label).first.click()


def keep(page: Page, name: str) -> None:
    """A picture of the page, where somebody wants to look at it."""
    if folder := os.environ.get("EASYPHOTO_TEST_PICTURES"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def test_a_scene_is_handed_in_with_a_caption_and_found_among_the_scenes(browser: Browser, tmp_path: Path) -> None:
    troubles: list[str] = []
    files = photos(tmp_path / "up")
    (tmp_path / "up" / "00.txt").write_text("a red boat", encoding="utf-8")
    with serving(tmp_path / "home", worker=False) as served:
        scene_in(tmp_path / "home", tmp_path / "made", "Dunes")
        page = opened(browser, served.url, troubles)
        assert not page.locator("#easyphoto_train_prompt").is_visible()
        choose(page, "train_kind", "Scene")
        page.wait_for_selector("#easyphoto_train_prompt textarea, #easyphoto_train_prompt input", timeout=WAIT)
        page.wait_for_selector("#easyphoto_train_hint >> text=one place, light or style", timeout=WAIT)
        page.fill("#easyphoto_train_name textarea, #easyphoto_train_name input", "Harbour")
        page.fill("#easyphoto_train_prompt textarea, #easyphoto_train_prompt input", "old harbour")
        page.set_input_files("#easyphoto_train_upload input[type=file]", [*map(str, files), str(tmp_path / "up" / "00.txt")])
        page.wait_for_selector("#easyphoto_train_photos figure >> nth=2", timeout=WAIT)
        page.wait_for_selector("#easyphoto_train_checked >> text=1 captions for 3 photos", timeout=WAIT)
        keep(page, "scene-train")
        page.click("#easyphoto_train_start")
        page.wait_for_selector("#easyphoto_train_live >> text=Harbour", timeout=WAIT)
        [job] = served.studio.store.list()
        order = served.studio.store.order(job.id)
        assert isinstance(order, TrainOrder)
        assert (order.spec.kind, order.captions, order.spec.data.size) == (TrainKind.SCENE, ("a red boat", "", ""), 256)
        choose(page, "train_kind", "Person")
        page.wait_for_selector("#easyphoto_train_prompt", state="hidden", timeout=WAIT)
        tab(page, "People")
        choose(page, "people_kind", "Scenes")
        page.wait_for_selector("#easyphoto_people_list >> text=boats at dusk", timeout=WAIT)
        keep(page, "scene-people")
        page.close()
    assert troubles == []
