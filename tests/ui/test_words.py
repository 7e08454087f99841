"""Every text of the tabs has its Chinese, in the WebUI's own format."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from easyphoto.jobs.host_settings import HOST_OPTIONS
from easyphoto.records import Reason
from easyphoto.settings import PROJECT_ROOT
from easyphoto.training import judge, scenes
from easyphoto.ui.host import SENT_TO
from easyphoto.ui.knobs import PORTRAIT_GROUPS, PORTRAIT_MAIN, PORTRAIT_SWITCHES, TRAIN_GROUPS
from easyphoto.ui.options import CHINESE, SCRIPT, STYLE, chinese

ROOM = PROJECT_ROOT / "easyphoto" / "ui"
OURS = {"words": 0, "notice": 0, "button": 1, "upload": 0, "upload_folder": 0, "Tab": 0, "Accordion": 0}
"""Functions that take a text of ours, and where."""
NAMED = {"label", "info", "placeholder"}
PLAIN = {"EasyPhoto", ""}
"""The same in every language."""


def text_of(node: ast.expr) -> str | None:
    """A literal text; what is filled in is {}."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.IfExp):
        return text_of(node.body)
    return None


def texts(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        places = [node.args[OURS[name]]] if name in OURS and len(node.args) > OURS[name] else []
        places += [word.value for word in node.keywords if word.arg in NAMED]
        yield from filter(None, map(text_of, places))


def spans(path: Path) -> Iterator[str]:
    """Texts that stand in HTML as it is."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"<span>([^<]+)</span>", node.value)


def test_every_text_of_the_tabs_has_its_chinese() -> None:
    known = chinese()
    found = {text for path in ROOM.glob("*.py") for text in (*texts(path), *spans(path))}
    for group in (*TRAIN_GROUPS, *PORTRAIT_GROUPS, PORTRAIT_MAIN):
        found |= {group.title, *(knob.label for knob in group.knobs), *(knob.info for knob in group.knobs)}
    found |= {switch.label for switch in PORTRAIT_SWITCHES}
    found |= {reason.value for reason in Reason}
    joined = {text for text in found if not re.search(r"[a-z]{2}", text) or text.strip("{} .") == ""}
    assert len(found) > 120
    assert not {text for text in found - joined - PLAIN if text not in known}


def test_everything_on_a_hosts_own_pages_has_its_chinese() -> None:
    # The WebUI puts what is said about a setting in brackets, and looks for the whole of each text.
    said = [*(option.label for option in HOST_OPTIONS), *(f"({option.info})" for option in HOST_OPTIONS if option.info)]
    said += [f"Send to {name}" for name in SENT_TO]
    assert len(said) > 15
    assert [text for text in said if text not in chinese()] == []


def test_every_sentence_about_a_photo_has_its_chinese() -> None:
    sources = [ast.parse(Path(module.__file__).read_text(encoding="utf-8")) for module in (judge, scenes)]
    forms = {
        text for source in sources for node in ast.walk(source) if isinstance(node, ast.JoinedStr)
        if (text := text_of(node)) and text.endswith(".") and len(text) > 30 and not text.startswith("{}")
    }  # fmt: skip
    patterns = [re.compile("(.+?)".join(map(re.escape, key.split("{}"))) + r"\Z", re.S) for key in chinese()]
    assert forms
    for form in forms:
        # "{beside}" is empty or a half sentence of its own.
        said = form.replace("seen{}", "seen").replace("{}", "7")
        assert any(pattern.match(said) for pattern in patterns), form


def test_the_file_is_one_flat_object_without_repetitions() -> None:
    pairs = json.loads(CHINESE.read_text(encoding="utf-8"), object_pairs_hook=list)
    assert all(isinstance(key, str) and isinstance(value, str) and value for key, value in pairs)
    assert len({key for key, _ in pairs}) == len(pairs)
    assert all(key.count("{}") == value.count("{}") for key, value in pairs)


def test_the_style_stays_below_our_own_ids_and_classes() -> None:
    sheet = re.sub(r"/\*.*?\*/", "", STYLE.read_text(encoding="utf-8"), flags=re.S)
    selectors = [one.strip() for rule in re.findall(r"([^{}]+)\{", sheet) for one in rule.split(",")]
    assert len(selectors) > 60
    assert not [selector for selector in selectors if "easyphoto" not in selector]


def test_no_list_stands_in_brackets_of_a_selector() -> None:
    # Gradio 6 puts its own class before each part between commas, also between those.
    assert not re.findall(r":(?:is|has|not|where)\([^()]*,", STYLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("word", ["eval(", "innerHTML", "document.write", "fetch(", "XMLHttpRequest", "http://", "https://"])
def test_the_script_writes_no_html_and_fetches_nothing(word: str) -> None:
    assert word not in SCRIPT.read_text(encoding="utf-8")
