"""The page as Gradio builds it; run with each of the versions that hosts have."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from easyphoto.errors import InputError
from easyphoto.ui.knobs import PORTRAIT_KNOBS, TRAIN_KNOBS
from easyphoto.ui.options import TabOptions
from easyphoto.ui.studio import Studio
from tests.ui.made import publish
from tests.ui.serving import built

gr = pytest.importorskip("gradio")
if gr.__version__.startswith(("3.", "4.")):
    pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def page(studio: Studio) -> Any:
    publish(studio, "Secret Name")
    return built(studio)


def components(page: Any) -> Iterator[dict[str, Any]]:
    for part in page.get_config_file()["components"]:
        if part["type"] not in ("row", "column", "tabitem", "tabs", "accordion", "state", "group", "form", "box"):
            yield part


def test_every_control_has_an_id_of_ours_and_no_two_the_same(page: Any) -> None:
    ids = [part["props"].get("elem_id") for part in components(page)]
    assert all(identifier and identifier.startswith("easyphoto_") for identifier in ids), ids
    assert len(set(ids)) == len(ids) > 70


def test_every_setting_has_its_control(page: Any) -> None:
    ids = {part["props"].get("elem_id") for part in components(page)}
    assert {f"easyphoto_train_{knob.name}" for knob in TRAIN_KNOBS} <= ids
    assert {f"easyphoto_portrait_{knob.name}" for knob in PORTRAIT_KNOBS} <= ids


def test_a_page_that_was_built_long_ago_names_nobody(page: Any) -> None:
    assert "Secret Name" not in str(page.get_config_file())


def test_no_event_is_offered_to_programs(page: Any) -> None:
    said = getattr(page, "get_api_info", None)
    assert not (said()["named_endpoints"] if said else [one["api_name"] for one in page.dependencies if one["api_name"]])


def test_it_lives_inside_a_hosts_page(studio: Studio) -> None:
    from easyphoto.ui.tabs import tabs

    async def make() -> Any:
        ((part, title, identifier),) = tabs(studio)
        with gr.Blocks() as host, gr.Tabs(), gr.TabItem(title, elem_id=identifier):
            part.render()
        return host

    ids = [item["props"].get("elem_id") for item in asyncio.run(make()).get_config_file()["components"]]
    assert "easyphoto_tabs" in ids
    assert "easyphoto_head" not in ids


def test_a_host_can_add_its_own_buttons(studio: Studio) -> None:
    asked = []

    def send_to(picture: Any, text: Any) -> None:
        asked.append((picture.elem_id, text.elem_id))
        gr.Button("img2img", elem_id="host_button")

    page = built(studio, TabOptions(by_itself=False, send_to=send_to))
    assert asked == [("easyphoto_portrait_send_picture", "easyphoto_portrait_send_text")]
    assert "host_button" in {part["props"].get("elem_id") for part in components(page)}


def test_it_can_be_built_twice_in_one_process(studio: Studio) -> None:
    first, second = built(studio), built(studio)
    assert len(first.get_config_file()["components"]) == len(second.get_config_file()["components"])


def test_a_file_that_nobody_uploaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from easyphoto.ui import gradio_versions

    monkeypatch.setattr(gradio_versions.tempfile, "gettempdir", lambda: str(tmp_path / "uploads"))
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    inside = tmp_path / "uploads" / "gradio" / "a.jpg"
    assert gradio_versions.files([str(inside)]) == (inside,)
    assert gradio_versions.files(None) == ()
    for path in ("/etc/passwd", str(tmp_path / "uploads" / ".." / "x.jpg")):
        with pytest.raises(InputError, match="not uploaded"):
            gradio_versions.files(path)


def test_nothing_of_gradios_files_is_fetched_from_elsewhere(page: Any) -> None:
    theme = getattr(page, "theme", None)
    css = getattr(page, "theme_css", "") or ""
    assert not re.findall(r"@import url\('https", css)
    assert not [name for name in (getattr(theme, "_stylesheets", None) or []) if name.startswith("http")]
