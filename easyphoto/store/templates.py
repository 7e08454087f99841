"""The gallery of templates: pictures that people are put into."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyphoto.errors import InputError, NotFound

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
INDEX = "templates.json"
"""A list of objects: file, and where known name, sex ("woman" or "man"), age in years, words (what the scene shows)."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """One picture of the gallery."""

    name: str
    path: Path
    sex: str | None = None
    """"woman" or "man"; None where nobody said."""
    age: int | None = None
    words: str = ""
    """What the scene shows, for the prompt."""


def list_templates(folder: Path) -> tuple[Template, ...]:
    """The gallery in order: as `templates.json` lists it, or the folder's pictures by name.

    Raises:
        NotFound: There is no such folder, or a listed picture is missing.
        InputError: `templates.json` is broken.
    """
    if not folder.is_dir():
        raise NotFound(f"the template gallery {folder} does not exist; make the folder and put pictures into it")
    if (folder / INDEX).is_file():
        return _listed(folder)
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and not path.name.startswith("."))
    return tuple(Template(name=path.stem, path=path) for path in found)


def get_template(folder: Path, name: str) -> Template:
    """The template of that name.

    Raises:
        NotFound: There is none; the message lists those there are.
    """
    gallery = list_templates(folder)
    for template in gallery:
        if template.name == name:
            return template
    known = ", ".join(template.name for template in gallery) or "none"
    raise NotFound(f"there is no template {name!r}; the gallery has: {known}")


def _listed(folder: Path) -> tuple[Template, ...]:
    path = folder / INDEX
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); correct it or remove it") from error
    if not isinstance(entries, list):
        raise InputError(f"{path} must hold a list of templates, got {type(entries).__name__}; correct it or remove it")
    return tuple(_template(folder, entry) for entry in entries)


def _template(folder: Path, entry: object) -> Template:
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        raise InputError(f"each entry of {folder / INDEX} needs a file, got {entry!r}; correct it")
    known: dict[str, Any] = entry
    file = str(known["file"])
    if Path(file).name != file:
        raise InputError(f"{folder / INDEX}: the file {file!r} must lie in the gallery itself; move it there")
    path = folder / file
    if not path.is_file():
        raise NotFound(f"{folder / INDEX} lists {file!r}, which is not there; add the picture or remove the entry")
    age = known.get("age")
    return Template(
        name=str(known.get("name") or path.stem), path=path, sex=known.get("sex"),
        age=age if isinstance(age, int) else None, words=str(known.get("words") or ""),
    )  # fmt: skip
