"""The Inference tab without its controls: what each of them does."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from easyphoto.errors import EasyPhotoError, NotFound
from easyphoto.families import Family
from easyphoto.imaging.io import load_photo
from easyphoto.orders import PortraitOrder
from easyphoto.records import Pixels
from easyphoto.store.templates import get_template
from easyphoto.ui import cards, history, panels
from easyphoto.ui.desk import NOBODY, Change, Page, Values, handler, knob_values, named
from easyphoto.ui.history import Entry, entries_of
from easyphoto.ui.knobs import PORTRAIT_KNOBS, PORTRAIT_SWITCHES, lcm_values, portrait_defaults, widened
from easyphoto.ui.names import read_list
from easyphoto.ui.ordering import PortraitForm, form_of, portrait_order
from easyphoto.ui.story import View
from easyphoto.ui.studio import Studio
from easyphoto.ui.thumbs import Thumbs, face_uri
from easyphoto.work import JobKind

POLL = "easyphoto_portrait_poll"
MOST_PEOPLE = 5
"""People that can be put into one template."""
GALLERY, SINGLE, BATCH = "Template gallery", "Single image", "Batch of images"
SOURCES = (GALLERY, SINGLE, BATCH)
PEOPLE = tuple(f"portrait_person_{number}" for number in range(1, MOST_PEOPLE + 1))
KNOBS = tuple(f"portrait_{knob.name}" for knob in PORTRAIT_KNOBS)
SWITCHES = tuple(f"portrait_{switch.name}" for switch in PORTRAIT_SWITCHES)
UPSCALERS = "portrait_super_resolution_way"
LISTS = ("portrait_notice", *PEOPLE, *KNOBS)
"""What changes when a page is opened, and whenever somebody may have been trained."""
WAYS = ("portrait_page", "portrait_source", "portrait_chosen", "portrait_upload", "portrait_batch")
"""What says which templates are wanted."""
ID_PICTURE = "portrait_id_picture"
FORM = (*WAYS, *PEOPLE, *KNOBS, *SWITCHES, "portrait_stages", ID_PICTURE)
FACES = ("portrait_notice", "portrait_faces", *PEOPLE)
"""What changes with the templates."""
PANEL = (
    "portrait_notice", "portrait_live", "portrait_samples", "portrait_results", "portrait_compare", "portrait_facts",
    "portrait_strip", "portrait_log", "portrait_generate", "portrait_stop", "portrait_save",
)  # fmt: skip
FILLED = (
    "portrait_notice", "portrait_source", "portrait_chosen", "portrait_gallery", "portrait_faces", *PEOPLE, *KNOBS,
    *SWITCHES, "portrait_stages", ID_PICTURE,
)  # fmt: skip
"""What changes when a form is filled in anew."""
CHOSEN = ("portrait_results", "portrait_compare", "portrait_facts", "portrait_strip", "portrait_save")


class PortraitPage(Page):
    """An open Inference tab."""

    def __init__(self) -> None:
        super().__init__()
        self.job: str | None = None
        """The portraits that are shown."""
        self.chosen = ""
        """Key of the portrait that is looked at."""
        self.uploads: dict[str, Path] = {}
        """This page's own templates, by the name they have in results."""
        self.drawn: object = None
        """What the pictures on the page were drawn from."""
        self.family: Family | None = None
        """Whose settings the page shows; None: those it was built with."""


class PortraitDesk:
    """Does what the Inference tab asks."""

    def __init__(self, studio: Studio, thumbs: Thumbs) -> None:
        self._studio = studio
        self._thumbs = thumbs
        self._built_for = studio.family

    @handler("portrait")
    def templates(self, values: Values) -> Values:
        """Find the faces in the chosen templates, and offer a person for each."""
        names, uploads = self._wanted(values)
        rows, most = [], 1
        for label, path in (*((name, self._gallery_path(name)) for name in names), *((path.name, path) for path in uploads)):
            thumbs, trouble = self._faces(path)
            most = max(most, len(thumbs))
            rows.append((label, thumbs, trouble))
        shown = {name: Change(visible=number < most) for number, name in enumerate(PEOPLE)}
        return {"portrait_faces": cards.faces(rows), **shown}

    @handler("portrait")
    def generate(self, values: Values) -> Values:
        """Make portraits."""
        page: PortraitPage = values["portrait_page"]
        order, inputs = portrait_order(self._studio, self._form(values))
        job = self._studio.submit(order, inputs, page.token)
        page.uploads = {item.name.partition("/")[2]: item.data for item in inputs if isinstance(item.data, Path)}
        page.job, page.chosen = job.id, ""
        return self._panel(page)

    @handler("portrait")
    def stop(self, values: Values) -> Values:
        """Stop the portraits that are shown."""
        page: PortraitPage = values["portrait_page"]
        if page.job:
            self._studio.stop(page.job)
        return self._panel(page)

    @handler("portrait", quiet=True)
    def poll(self, values: Values) -> Values:
        """Show how things stand; the first time, find the portraits that are under way."""
        page: PortraitPage = values["portrait_page"]
        if not page.opened:
            page.opened = True
            current = self._studio.current(JobKind.PORTRAITS)
            page.job = current.id if current else None
        return self._panel(page)

    @handler("portrait", quiet=True)
    def refresh(self, values: Values) -> Values:
        """Offer the people that there are now, and the settings of the base model that portraits are made with now."""
        names = [person.name for person in self._studio.people()]
        found = {**self._settings(values), UPSCALERS: self._upscalers(values.get(UPSCALERS))}
        for number, control in enumerate(PEOPLE):
            now = values.get(control)
            alone = names[0] if number == 0 and len(names) == 1 else NOBODY
            found[control] = Change(choices=[NOBODY, *names], value=now if now in names else alone)
        return found

    @handler("portrait", quiet=True)
    def choose_person(self, values: Values) -> Values:
        """Put every control to what the person's family wants."""
        return self._settings(values)

    @handler("portrait", quiet=True)
    def accelerate(self, values: Values) -> Values:
        """Put steps, strength and guidance to what LCM wants, or back."""
        page: PortraitPage = values["portrait_page"]
        return named("portrait", lcm_values(page.family or self._built_for, bool(values["portrait_lcm"])))

    @handler("portrait")
    def choose(self, values: Values) -> Values:
        """Look at one of the results."""
        page: PortraitPage = values["portrait_page"]
        page.chosen = str(values["portrait_picked"]).partition("#")[0]
        view = self._view(page.job)
        return self._results(page, view) if view is not None else {}

    @handler("portrait")
    def save(self, values: Values) -> Values:
        """Let the page save the PNG that is looked at."""
        page: PortraitPage = values["portrait_page"]
        return {"portrait_saved": save_link(self._studio, page.chosen)}

    @handler("portrait")
    def use_person(self, _values: Values, name: str | None) -> Values:
        """Put somebody into the first place."""
        names = [person.name for person in self._studio.people()]
        if name not in names:
            raise NotFound("this person is not there any more; choose another one")
        first, *others = PEOPLE
        return {
            first: Change(choices=[NOBODY, *names], value=name),
            **{other: Change(choices=[NOBODY, *names]) for other in others},
        }

    @handler("portrait")
    def use_again(self, values: Values, key: str) -> Values:
        """Fill the form in as it was for an earlier portrait."""
        entry = history.entry(self._studio, key)
        order = self._studio.order(entry.result.id)
        if not isinstance(order, PortraitOrder):
            raise NotFound("nobody knows any more how this picture was made; its parameters stand beside it")
        form = form_of(self._studio, order, entry.picture.seed)
        # Or the tab would be filled with the family's own settings when it opens.
        values["portrait_page"].family = self._family(form.people)
        return self._filled(form)

    def to_send(self, page: PortraitPage) -> tuple[Pixels | None, str]:
        """The picture that is looked at, (height, width, 3) RGB, and its infotext."""
        with suppress(EasyPhotoError):
            entry = history.entry(self._studio, page.chosen)
            return load_photo(history.path_of(self._studio, entry)).pixels, entry.picture.infotext
        return None, ""

    def gallery(self, chosen: Sequence[str] = ()) -> str:
        """The template gallery."""
        return cards.templates(self._studio.templates(), chosen, self._thumbs.of)

    def _settings(self, values: Values) -> Values:
        """What the family wants that will paint, where it is another than the page shows: the first chosen person's.

        In a WebUI that need not be the family of the checkpoint that is chosen there.
        """
        page: PortraitPage = values["portrait_page"]
        family = self._family([values.get(control) for control in PEOPLE])
        if family is (page.family or self._built_for):
            return {}
        page.family = family
        return named("portrait", portrait_defaults(family))

    def _family(self, chosen: Sequence[object]) -> Family:
        """Of the first chosen person, or the only one there is; else of the base model."""
        people = self._studio.people()
        families = [person.family for person in people if person.name in chosen or len(people) == 1]
        return families[0] if families else self._studio.family

    def _filled(self, form: PortraitForm) -> Values:
        names = [person.name for person in self._studio.people()]
        people = [name if name in names else NOBODY for name in form.people[:MOST_PEOPLE]]
        people += [NOBODY] * (MOST_PEOPLE - len(people))
        shown = {
            control: Change(choices=[NOBODY, *names], value=name, visible=number == 0 or number < len(form.people))
            for number, (control, name) in enumerate(zip(PEOPLE, people))
        }
        return {
            **shown, **named("portrait", _wide_enough(form.values)),
            **named("portrait", form.switches), "portrait_stages": form.stages,
            UPSCALERS: self._upscalers(form.values[UPSCALERS.removeprefix("portrait_")]),
            "portrait_chosen": json.dumps(form.gallery), "portrait_gallery": self.gallery(form.gallery), "portrait_faces": "",
            "portrait_source": GALLERY, ID_PICTURE: None,
        }  # fmt: skip

    def _upscalers(self, chosen: object) -> Change:
        there = self._studio.upscalers()
        return Change(choices=list(there), value=chosen if chosen in there else there[0])

    def _wanted(self, values: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[Path, ...]]:
        """Names of the gallery and uploaded files, by the way of giving templates that is chosen."""
        source = values["portrait_source"]
        if source == SINGLE:
            return (), values["portrait_upload"][:1]
        if source == BATCH:
            return (), values["portrait_batch"]
        return read_list(values["portrait_chosen"]), ()

    def _form(self, values: Mapping[str, Any]) -> PortraitForm:
        names, uploads = self._wanted(values)
        people = tuple("" if values[name] in (None, NOBODY) else str(values[name]) for name in PEOPLE)
        return PortraitForm(
            people=people, values=knob_values("portrait", PORTRAIT_KNOBS, values), gallery=names, uploads=uploads,
            switches={switch.name: bool(values[f"portrait_{switch.name}"]) for switch in PORTRAIT_SWITCHES},
            stages=bool(values["portrait_stages"]), id_picture=next(iter(values.get(ID_PICTURE) or ()), None),
        )  # fmt: skip

    def _gallery_path(self, name: str) -> Path:
        return get_template(self._studio.app.settings.templates, name).path

    def _faces(self, path: Path) -> tuple[list[str], str]:
        """A thumbnail of each face in a template, and what is wrong with it."""
        try:
            photo, faces = self._studio.faces(path)
        except EasyPhotoError as error:
            return [], str(error)
        trouble = "" if faces else "No face was found in this template; choose another one."
        return [face_uri(photo, face) for face in faces[:MOST_PEOPLE]], trouble

    def _panel(self, page: PortraitPage) -> Values:
        """What the job changes on the page; pictures only where there are new ones."""
        view = self._view(page.job)
        under_way = view is not None and view.under_way
        buttons = {"portrait_generate": Change(interactive=not under_way), "portrait_stop": Change(visible=under_way)}
        if view is None:
            page.job, page.drawn = None, None
            empty = {**dict.fromkeys(PANEL[:8], ""), "portrait_live": panels.NOTHING[JobKind.PORTRAITS]}
            return {**empty, **buttons, "portrait_save": Change(visible=False)}
        found = {"portrait_live": panels.live(view, POLL), **buttons}
        drawn = (view.job.id, view.job.state, len(view.story.samples), view.story.log)
        if drawn != page.drawn:
            page.drawn = drawn
            found.update(self._pictures(view))
            found.update(self._results(page, view))
        return found

    def _pictures(self, view: View) -> Values:
        def shown(name: str) -> str | None:
            with suppress(EasyPhotoError):
                return self._thumbs.of(self._studio.file(view.job.id, name), 288)
            return None

        on_the_way = panels.samples(view, shown) if view.result is None else ""
        return {"portrait_samples": on_the_way, "portrait_log": panels.log(view)}

    def _results(self, page: PortraitPage, view: View) -> Values:
        entries = entries_of(view.result) if view.result else ()
        looked_at = next((entry for entry in entries if entry.key == page.chosen), entries[0] if entries else None)
        page.chosen = looked_at.key if looked_at else ""
        several = cards.portraits(entries, "easyphoto_portrait_picked", page.chosen, self._shown)
        return {"portrait_results": several, **detail(self._studio, self._thumbs, "portrait", looked_at, page.uploads)}

    def _shown(self, entry: Entry, longest: int) -> str | None:
        return shown_entry(self._studio, self._thumbs, entry, longest)

    def _view(self, job_id: str | None) -> View | None:
        with suppress(NotFound):
            return self._studio.view(job_id) if job_id else None
        return None


def _wide_enough(values: Mapping[str, Any]) -> Values:
    """Values of knobs, with the range where an order made elsewhere goes beyond the control's."""
    found: Values = dict(values)
    for knob in PORTRAIT_KNOBS:
        wide = widened(knob, values[knob.name])
        if wide != knob:
            found[knob.name] = Change(value=values[knob.name], minimum=wide.low, maximum=wide.high)
    return found


def shown_entry(studio: Studio, thumbs: Thumbs, entry: Entry, longest: int) -> str | None:
    """A data URI of a portrait."""
    with suppress(EasyPhotoError):
        return thumbs.of(history.path_of(studio, entry), longest)
    return None


def detail(
    studio: Studio, thumbs: Thumbs, tab: str, entry: Entry | None, uploads: Mapping[str, Path] | None = None
) -> Values:
    """One portrait large, with what was before it, its scores, parameters and stages; all empty for none."""
    names = (f"{tab}_compare", f"{tab}_facts", f"{tab}_strip")
    if entry is None:
        return {**dict.fromkeys(names, ""), f"{tab}_save": Change(visible=False)}
    both = None
    with suppress(EasyPhotoError):
        both = history.before(studio, entry, uploads)
    after = thumbs.of(both[1], 1024) if both else shown_entry(studio, thumbs, entry, 1024)
    stages = []
    with suppress(EasyPhotoError):
        faces = range(len(entry.picture.faces))
        files = [found for face in faces for found in history.stage_files(studio, entry, face)]
        stages = [(name, thumbs.of(path, 256)) for name, path in files]
    compared = cards.compared(thumbs.of(both[0], 1024) if both else None, after, entry.picture.template)
    shown = dict(zip(names, (compared, cards.facts(entry), cards.strip(stages))))
    return {**shown, f"{tab}_save": Change(visible=True)}


def save_link(studio: Studio, key: str) -> str:
    """The PNG of a portrait, byte for byte, as a link that the page follows at once; raises NotFound."""
    entry = history.entry(studio, key)
    data = base64.b64encode(history.path_of(studio, entry).read_bytes()).decode("ascii")
    return cards.saving(f"data:image/png;base64,{data}", entry.picture.file)
