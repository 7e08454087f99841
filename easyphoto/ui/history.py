"""Past portraits: one entry for each picture, newest first, by person and by template."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from easyphoto.errors import EasyPhotoError, NotFound
from easyphoto.orders import PortraitOrder
from easyphoto.ui.studio import Studio, inside
from easyphoto.work import JobKind, JobResult, Picture

PAGE = 24
"""Pictures of one page."""
_MOST_RESULTS = 5_000


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One portrait."""

    result: JobResult
    number: int
    """Its place among the result's pictures."""

    @property
    def picture(self) -> Picture:
        """The picture itself."""
        return self.result.pictures[self.number]

    @property
    def key(self) -> str:
        """What a page calls it."""
        return f"{self.result.id}.{self.number}"


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Some entries, and whether there are more."""

    entries: tuple[Entry, ...]
    more: bool


def shelf(studio: Studio, person: str = "", template: str = "", count: int = PAGE) -> Shelf:
    """The newest so many portraits, of one person and of one template if these are said."""
    found: list[Entry] = []
    cursor = None
    for _ in range(_MOST_RESULTS // 50):
        results = studio.store.results(studio.owner, person or None, cursor, limit=50)
        found.extend(
            entry for result in results if result.kind is JobKind.PORTRAITS for entry in entries_of(result)
            if not template or entry.picture.template == template
        )  # fmt: skip
        if len(found) > count or len(results) < 50:
            break
        cursor = studio.store.result_cursor(results[-1])
    return Shelf(entries=tuple(found[:count]), more=len(found) > count)


def entries_of(result: JobResult) -> tuple[Entry, ...]:
    """An entry for each picture of a result."""
    return tuple(Entry(result=result, number=number) for number in range(len(result.pictures)))


def entry(studio: Studio, key: str) -> Entry:
    """The portrait a page calls so; NotFound."""
    job_id, _, number = key.partition(".")
    result = studio.store.result(job_id, studio.owner)
    if not (number.isascii() and number.isdigit() and int(number) < len(result.pictures)):
        raise NotFound("there is no such picture any more; reload the page")
    return Entry(result=result, number=int(number))


def template_names(studio: Studio) -> tuple[str, ...]:
    """The names of all templates that past portraits were made from."""
    results = studio.store.results(studio.owner, limit=1000)
    return tuple(sorted({picture.template for result in results for picture in result.pictures}))


def path_of(studio: Studio, entry: Entry) -> Path:
    """The picture's PNG; NotFound."""
    return studio.result_file(entry.result.id, entry.picture.file)


def before(studio: Studio, entry: Entry, uploads: Mapping[str, Path] | None = None) -> tuple[Path, Path] | None:
    """Two pictures to compare, before and after; None where there is nothing before.

    The template and the portrait, if the template is one of the gallery or among the page's own `uploads` (by name), else
    the square of the first face.
    """
    portrait = path_of(studio, entry)
    template = _template(studio, entry) or (uploads or {}).get(entry.picture.template)
    if template is not None and template.is_file():
        return template, portrait
    stages = dict(stage_files(studio, entry))
    if "original" in stages and "result" in stages:
        return stages["original"], stages["result"]
    return None


def stage_files(studio: Studio, entry: Entry, face: int = 0) -> tuple[tuple[str, Path], ...]:
    """(stage, picture) of one face of a portrait, where its stages were kept."""
    folder = studio.store.result_folder(entry.result.id, studio.owner)
    stem = f"{Path(entry.picture.file).stem}-face{face}-"
    names = [file.name for file in entry.result.files if file.name.startswith(stem)]
    found = []
    for name in names:
        with suppress(NotFound):
            found.append((Path(name).stem.removeprefix(stem).replace("-", " "), inside(folder, name)))
    return tuple(found)


def delete(studio: Studio, entry: Entry) -> tuple[Path, ...]:
    """Remove the result a picture belongs to, with the job's own files; returns what was removed."""
    return studio.forget(entry.result.id)


def _template(studio: Studio, entry: Entry) -> Path | None:
    """The picture of the gallery that the portrait was made from, if it was one and is still there."""
    with suppress(EasyPhotoError):
        order = studio.order(entry.result.id)
        if isinstance(order, PortraitOrder):
            gallery = {template.path for template in studio.templates()}
            return next((path for path in order.templates if path in gallery and path.name == entry.picture.template), None)
    return None
