"""The History tab without its controls: what each of them does."""

from __future__ import annotations

from contextlib import suppress

from easyphoto.errors import NotFound
from easyphoto.ui import cards, history
from easyphoto.ui.desk import NOBODY, Change, Page, Values, handler
from easyphoto.ui.history import PAGE, Entry
from easyphoto.ui.markup import notice, words
from easyphoto.ui.portrait_desk import detail, save_link, shown_entry
from easyphoto.ui.studio import Studio
from easyphoto.ui.thumbs import Thumbs

DETAIL = ("history_compare", "history_facts", "history_strip", "history_save", "history_use", "history_delete")
LIST = ("history_notice", "history_list", "history_person", "history_template", "history_more", "history_confirm", *DETAIL)
FILTER = ("history_page", "history_person", "history_template")


class HistoryPage(Page):
    """An open History tab."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen = ""
        """Key of the portrait that is looked at."""
        self.count = PAGE
        """Portraits on the page."""


class HistoryDesk:
    """Does what the History tab asks."""

    def __init__(self, studio: Studio, thumbs: Thumbs) -> None:
        self._studio = studio
        self._thumbs = thumbs

    @handler("history", quiet=True)
    def refresh(self, values: Values) -> Values:
        """Show what there is now."""
        return self._list(values)

    @handler("history")
    def narrow(self, values: Values) -> Values:
        """Show what is of a person, or of a template."""
        page: HistoryPage = values["history_page"]
        page.count, page.chosen = PAGE, ""
        return self._list(values)

    @handler("history")
    def more(self, values: Values) -> Values:
        """Show older ones too."""
        page: HistoryPage = values["history_page"]
        page.count += PAGE
        return self._list(values)

    @handler("history")
    def choose(self, values: Values) -> Values:
        """Look at a portrait."""
        page: HistoryPage = values["history_page"]
        page.chosen = str(values["history_picked"]).partition("#")[0]
        return self._list(values)

    @handler("history")
    def save(self, values: Values) -> Values:
        """Let the page save the PNG that is looked at."""
        return {"history_saved": save_link(self._studio, values["history_page"].chosen)}

    @handler("history")
    def ask(self, values: Values) -> Values:
        """Ask whether the portrait shall really go."""
        self._entry(values["history_page"])
        return {"history_confirm": Change(visible=True)}

    @handler("history")
    def keep(self, _values: Values) -> Values:
        """Let the portrait stay."""
        return {"history_confirm": Change(visible=False)}

    @handler("history")
    def delete(self, values: Values) -> Values:
        """Remove the portrait, with the others that were made in the same go."""
        page: HistoryPage = values["history_page"]
        history.delete(self._studio, self._entry(page))
        self._thumbs.forget()
        page.chosen = ""
        return {**self._list(values), "history_notice": notice("Deleted.", "good")}

    def _entry(self, page: HistoryPage) -> Entry:
        if not page.chosen:
            raise NotFound("no picture is chosen; choose one in the list")
        return history.entry(self._studio, page.chosen)

    def _list(self, values: Values) -> Values:
        page: HistoryPage = values["history_page"]
        names = [person.name for person in self._studio.people()]
        templates = list(history.template_names(self._studio))
        person, template = _one_of(values["history_person"], names), _one_of(values["history_template"], templates)
        shelf = history.shelf(self._studio, person, template, page.count)
        looked_at = None
        with suppress(NotFound):
            looked_at = self._entry(page)
        page.chosen = looked_at.key if looked_at else ""
        shown = cards.portraits(shelf.entries, "easyphoto_history_picked", page.chosen, self._shown)
        there = Change(visible=looked_at is not None)
        return {
            "history_list": shown or f"<p>{words('There are no portraits yet. Make some in the Inference tab.')}</p>",
            "history_person": Change(choices=[NOBODY, *names], value=person or NOBODY),
            "history_template": Change(choices=[NOBODY, *templates], value=template or NOBODY),
            "history_more": Change(visible=shelf.more), "history_confirm": Change(visible=False),
            **detail(self._studio, self._thumbs, "history", looked_at), "history_use": there, "history_delete": there,
        }  # fmt: skip

    def _shown(self, entry: Entry, longest: int) -> str | None:
        return shown_entry(self._studio, self._thumbs, entry, longest)


def _one_of(value: object, choices: list[str]) -> str:
    return str(value) if value in choices else ""
