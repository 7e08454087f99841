"""The house plan, held by the code's own syntax trees: who may import whom, how long a file and a function may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from easyphoto.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "easyphoto"
FLOOR = {
    "errors": 0, "events": 0, "extras": 0, "families": 0, "files": 0, "kinds": 0, "orders": 0, "presets": 0,
    "records": 0, "settings": 0, "signing": 0, "specs": 0, "wording": 0, "work": 0, "__version__": 0,
    "imaging": 1, "store": 1,
    "faces": 2, "engine": 2, "marking": 2,
    "portrait": 3, "training": 3,
    "app": 4, "bench": 4, "demo": 4, "doctor": 4, "jobs": 4, "privacy": 4, "report": 4,
    "api": 5, "cli": 5, "client": 5, "ui": 5, "__main__": 6,
}  # fmt: skip
MAY_CALL_BESIDE = {
    ("training", "portrait"), ("bench", "app"), ("bench", "demo"), ("demo", "app"), ("demo", "report"), ("jobs", "app"),
    ("privacy", "app"), ("privacy", "jobs"), ("cli", "api"), ("cli", "ui"),
}  # fmt: skip
"""Rooms of one floor that may be called by a neighbour, one way only; floor 0 is one room."""
ONLY_IN = {
    "torch": {"engine", "training", "bench"},
    "diffusers": {"engine", "training", "bench"},
    "transformers": {"engine", "training"},
    "mediapipe": {"faces"},
    "dlib": {"faces"},
    "_dlib_pybind11": {"faces"},
    "gradio": {"ui"},
    "pydantic": {"api"},
    "fastapi": {"api"},
    "modules": {"engine"},
    "lib_controlnet": {"engine"},
    "internal_controlnet": {"engine"},
}
HOSTS_ONLY_IN = PACKAGE / "engine" / "webui.py"
"""The one file that knows the WebUI's modules."""
HEAVY = {"torch", "diffusers", "transformers", "mediapipe", "dlib", "_dlib_pybind11", "peft", "ncnn"}
LONGEST_FILE = 350
LONGEST_FUNCTION = 60

SOURCES = sorted(PACKAGE.rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module
            yield node.module
            if node.module == "easyphoto":
                yield from (f"easyphoto.{alias.name}" for alias in node.names)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    room = _room(path)
    for name in _imports(_tree(path)):
        head, *rest = name.split(".")
        if head in ONLY_IN:
            assert room in ONLY_IN[head], f"{head} may not be imported in {room}"
        if head in {"modules", "lib_controlnet", "internal_controlnet"}:
            assert path == HOSTS_ONLY_IN, f"{head} is imported in engine/webui.py alone"
        if head != "easyphoto" or not rest or room == "__init__":
            continue
        target = rest[0]
        if target == room or FLOOR.get(target) == 0:
            continue
        allowed = FLOOR[target] < FLOOR[room] or (room, target) in MAY_CALL_BESIDE
        assert allowed, f"{room} (floor {FLOOR[room]}) may not import {target} (floor {FLOOR[target]})"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_inside_functions(path: Path) -> None:
    top = ast.Module(body=[node for node in _tree(path).body if not _for_types_only(node)], type_ignores=[])
    for node in top.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in _imports(ast.Module(body=[node], type_ignores=[])):
                assert name.split(".")[0] not in HEAVY, f"{name} belongs inside a function"


def _for_types_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_can_be_seen_at_once(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def test_every_room_stands_on_a_floor() -> None:
    rooms = {_room(path) for path in SOURCES} - {"__init__"}
    assert rooms <= set(FLOOR), f"name the floor of {rooms - set(FLOOR)}"
