"""The People tab without its controls: what each of them does."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

from easyphoto.errors import InputError, NotFound
from easyphoto.records import TrainKind
from easyphoto.specs import Person
from easyphoto.ui import cards
from easyphoto.ui.desk import Change, Page, Values, handler
from easyphoto.ui.knobs import short_text
from easyphoto.ui.markup import notice, said, words
from easyphoto.ui.parcel import export_person, import_person, size_of
from easyphoto.ui.studio import Studio
from easyphoto.ui.thumbs import Thumbs

LIST = (
    "people_notice", "people_list", "people_tools", "people_name", "people_confirm", "people_question", "people_parcel",
    "people_export", "people_kind",
)  # fmt: skip
SHELVES = {"People": TrainKind.PERSON, "Scenes": TrainKind.SCENE, "Clothes": TrainKind.CLOTH}
"""As the tab calls what it lists."""


class PeoplePage(Page):
    """An open People tab."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen = ""
        """Id of the person that is looked at."""
        self.kind = TrainKind.PERSON
        """Of those that are listed."""


class PeopleDesk:
    """Does what the People tab asks."""

    def __init__(self, studio: Studio, thumbs: Thumbs) -> None:
        self._studio = studio
        self._thumbs = thumbs
        self._parcels: Path | None = None

    @handler("people", quiet=True)
    def refresh(self, values: Values) -> Values:
        """Show who there is now."""
        return self._list(values["people_page"])

    @handler("people")
    def choose_kind(self, values: Values) -> Values:
        """List people, scenes or clothes."""
        page: PeoplePage = values["people_page"]
        page.kind, page.chosen = SHELVES.get(values["people_kind"], TrainKind.PERSON), ""
        return self._list(page)

    @handler("people")
    def choose(self, values: Values) -> Values:
        """Look at a person."""
        page: PeoplePage = values["people_page"]
        page.chosen = str(values["people_chosen"]).partition("#")[0]
        return self._list(page)

    @handler("people")
    def rename(self, values: Values) -> Values:
        """Give the chosen person another name."""
        page: PeoplePage = values["people_page"]
        person = self._person(page)
        renamed = self._studio.app.shelf(page.kind).rename(person.name, short_text("Name", values["people_name"]))
        page.chosen = renamed.person_id
        return {**self._list(page), "people_notice": notice("Renamed.", "good")}

    @handler("people")
    def export(self, values: Values) -> Values:
        """Write the chosen person into one file."""
        person = self._person(values["people_page"])
        if person.kind is not TrainKind.PERSON:
            raise InputError(f"{person.name} is no person; its LoRA is the file {person.lora}, copy that")
        if self._parcels is None:
            self._parcels = Path(tempfile.mkdtemp(prefix="easyphoto-parcels-"))
            # What lies in it goes with this desk, or the process.
            weakref.finalize(self, shutil.rmtree, self._parcels, ignore_errors=True)
        path = export_person(self._studio.app.people, person.name, self._parcels)
        self._studio.note_copies(person.name, [path])
        return {"people_parcel": Change(value=str(path), visible=True)}

    @handler("people")
    def take_in(self, values: Values, files: Sequence[Path]) -> Values:
        """Take in an exported person."""
        page: PeoplePage = values["people_page"]
        if not files:
            raise InputError("no file came; choose one that was exported here")
        person = import_person(self._studio.app.people, files[0])
        page.chosen, page.kind = person.person_id, TrainKind.PERSON
        return {**self._list(page), "people_kind": next(iter(SHELVES)), "people_notice": notice("Imported.", "good")}

    @handler("people")
    def ask(self, values: Values) -> Values:
        """Ask whether the chosen person shall really go."""
        person = self._person(values["people_page"])
        asked = words("Delete this with its photos, LoRA and everything made of them?")
        if person.kind is TrainKind.PERSON:
            asked = words("Delete this person with photos, LoRA and everything made of them?")
        question = (
            f"<p class='easyphoto-question'>{asked} "
            f"<b>{said(person.name)}</b></p>"
        )
        return {"people_confirm": Change(visible=True), "people_question": question}

    @handler("people")
    def keep(self, values: Values) -> Values:
        """Let the chosen person stay."""
        return self._list(values["people_page"])

    @handler("people")
    def delete(self, values: Values) -> Values:
        """Remove the chosen person, with the portraits if that is ticked."""
        page: PeoplePage = values["people_page"]
        person = self._person(page)
        erased = self._studio.erase(person.name, results=bool(values["people_with_results"]), kind=page.kind)
        self._thumbs.forget()
        page.chosen = ""
        said_so = f"Deleted: {len(erased.removed)} files and entries."
        kept = f" {len(erased.kept)} portraits were kept." if erased.kept else ""
        return {**self._list(page), "people_notice": notice(said_so + kept, "good")}

    def _person(self, page: PeoplePage) -> Person:
        for person in self._studio.people(page.kind):
            if person.person_id == page.chosen:
                return person
        raise NotFound("nobody is chosen; choose a person in the list")

    def _list(self, page: PeoplePage) -> Values:
        everybody = self._studio.people(page.kind)
        chosen = next((person for person in everybody if person.person_id == page.chosen), None)
        sizes = {person.person_id: size_of(person) for person in everybody}
        found: Values = {
            "people_list": cards.people(everybody, page.chosen, sizes, self._thumbs.of),
            "people_tools": Change(visible=chosen is not None), "people_confirm": Change(visible=False),
            "people_parcel": Change(value=None, visible=False), "people_export": Change(visible=page.kind is TrainKind.PERSON),
        }  # fmt: skip
        return {**found, "people_name": chosen.name} if chosen else found
