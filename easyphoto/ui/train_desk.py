"""The Train tab without its controls: what each of them does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from easyphoto.errors import EasyPhotoError, InputError, NotFound
from easyphoto.imaging.io import EXTENSIONS
from easyphoto.presets import Preset
from easyphoto.records import TrainKind, Verdict
from easyphoto.training.captions import ENDING
from easyphoto.ui import cards, panels
from easyphoto.ui.desk import Change, Page, Values, handler, knob_values, named
from easyphoto.ui.knobs import SCENE_KNOBS, short_text, train_defaults
from easyphoto.ui.markup import notice, words
from easyphoto.ui.names import MOST_FILES, file_names, read_list
from easyphoto.ui.ordering import TrainForm, check_order, train_order
from easyphoto.ui.story import View
from easyphoto.ui.studio import Studio
from easyphoto.ui.thumbs import Thumbs
from easyphoto.work import JobKind

POLL = "easyphoto_train_poll"
KNOBS = tuple(f"train_{knob.name}" for knob in SCENE_KNOBS)
FORM = (
    "train_page", "train_name", "train_model", "train_take", "train_retouch", "train_replace", "train_validation",
    "train_consent", "train_kind", "train_preset", "train_prompt", *KNOBS,
)  # fmt: skip
"""What a training is made of."""
PRESETS = {"Fast": Preset.FAST, "Balanced": Preset.BALANCED, "Best": Preset.BEST}
"""As the tab calls them."""
KINDS = {"Person": TrainKind.PERSON, "Scene": TrainKind.SCENE, "Clothing": TrainKind.CLOTH}
"""As the tab calls them."""
HINTS = {
    TrainKind.PERSON: "<p class='easyphoto-hint'><span>Upload 5 to 20 photos of one person: different days and light, the face "
    "clear, nothing before it.</span></p>",
    TrainKind.SCENE: "<p class='easyphoto-hint'><span>Upload 15 to 20 photos of one place, light or style. A text file named "
    "as its photo (beach.txt for beach.jpg) says what that one shows.</span></p>",
    TrainKind.CLOTH: "<p class='easyphoto-hint'><span>Upload one photo or more of one garment on a plain or transparent "
    "background.</span></p>",
}
"""What to upload."""
PHOTOS = ("train_notice", "train_photos", "train_take", "train_checked")
"""What changes with the photos."""
PANEL = (
    *PHOTOS, "train_live", "train_samples", "train_best", "train_log", "train_start", "train_stop", "train_resume",
    "train_use", "train_check",
)  # fmt: skip
"""What changes with the jobs."""
OPENED = (*PANEL, "train_model", *KNOBS)
"""What changes when a page is opened."""


class TrainPage(Page):
    """An open Train tab."""

    def __init__(self) -> None:
        super().__init__()
        self.photos: tuple[Path, ...] = ()
        """Uploaded files."""
        self.texts: tuple[Path, ...] = ()
        """Uploaded captions."""
        self.job: str | None = None
        """The training that is shown."""
        self.check: str | None = None
        """The checking of photos that is under way."""
        self.drawn: object = None
        """What the pictures on the page were drawn from."""


class TrainDesk:
    """Does what the Train tab asks."""

    def __init__(self, studio: Studio, thumbs: Thumbs) -> None:
        self._studio = studio
        self._thumbs = thumbs
        self._built_with = studio.labels()

    @handler("train")
    def upload(self, values: Values, files: Sequence[Path]) -> Values:
        """Add photos to those there are."""
        page: TrainPage = values["train_page"]
        fresh = [path for path in files if path.suffix.lower() in EXTENSIONS]
        texts = [path for path in files if path.suffix.lower() == ENDING]
        if files and not fresh and not texts:
            raise InputError("there is no picture among these files; upload photos (jpg, png, webp, heic ...)")
        photos = tuple(dict.fromkeys((*page.photos, *fresh)))
        if len(photos) > MOST_FILES:
            raise InputError(f"these are {len(photos)} photos; hand in at most {MOST_FILES}, 5 to 20 are enough")
        page.photos, page.texts = photos, tuple(dict.fromkeys((*page.texts, *texts)))[-MOST_FILES:]
        return self._photos(page, ())

    @handler("train")
    def clear(self, values: Values) -> Values:
        """Let go of all photos."""
        page: TrainPage = values["train_page"]
        page.photos = page.texts = ()
        return self._photos(page, ())

    @handler("train")
    def check(self, values: Values) -> Values:
        """Judge the photos."""
        page: TrainPage = values["train_page"]
        order, inputs = check_order(self._form(values))
        page.check = self._studio.submit(order, inputs, page.token).id
        return self._checked(page)

    @handler("train")
    def start(self, values: Values) -> Values:
        """Start a training."""
        page: TrainPage = values["train_page"]
        order, inputs = train_order(self._studio, self._form(values))
        self._studio.note_copies(order.spec.person, (*page.photos, *page.texts), order.spec.kind)
        page.job = self._studio.submit(order, inputs, page.token).id
        return self._panel(page)

    @handler("train")
    def stop(self, values: Values) -> Values:
        """Stop the training that is shown."""
        page: TrainPage = values["train_page"]
        if page.job:
            self._studio.stop(page.job)
        return self._panel(page)

    @handler("train")
    def resume(self, values: Values) -> Values:
        """Go on with the training that is shown."""
        page: TrainPage = values["train_page"]
        if not page.job:
            raise NotFound("there is no training to go on with; start one")
        page.job = self._studio.resume(page.job, page.token).id
        return self._panel(page)

    @handler("train", quiet=True)
    def poll(self, values: Values) -> Values:
        """Show how things stand; the first time, find the training that is under way."""
        page: TrainPage = values["train_page"]
        models: Values = {}
        if not page.opened:
            page.opened = True
            current = self._studio.current(JobKind.TRAINING)
            page.job = current.id if current else None
            models = self._models()
        return {**models, **self._checked(page), **self._panel(page)}

    @handler("train")
    def choose_model(self, values: Values) -> Values:
        """Put every control to what the base model's family, and the kind, want."""
        return named("train", self._defaults(values))

    @handler("train")
    def choose_kind(self, values: Values) -> Values:
        """Show the controls of the kind, as it wants them."""
        kind = KINDS.get(values["train_kind"], TrainKind.PERSON)
        learns = kind is not TrainKind.PERSON
        shown = {
            "train_prompt": Change(visible=learns), "train_retouch": Change(visible=not learns), "train_hint": HINTS[kind],
            "train_crop_ratio": Change(visible=kind is TrainKind.SCENE), "train_preset": Change(visible=not learns),
        }  # fmt: skip
        defaults = named("train", self._defaults(values))
        ratio = Change(visible=kind is TrainKind.SCENE, value=defaults["train_crop_ratio"])
        return {**defaults, **shown, "train_crop_ratio": ratio}

    def _defaults(self, values: Values) -> Values:
        """What the controls show for the base model, kind and preset that are chosen."""
        kind, preset = KINDS.get(values["train_kind"], TrainKind.PERSON), PRESETS.get(values["train_preset"], Preset.BALANCED)
        return train_defaults(self._studio.model(values["train_model"]).family, kind, preset)

    def person(self, page: TrainPage) -> str | None:
        """Whose training is shown; None for a scene's."""
        with suppress(NotFound):
            job = self._studio.job(page.job) if page.job else None
            return job.person if job and job.subject is TrainKind.PERSON else None
        return None

    def _models(self) -> Values:
        """The base models there are now, where they are others than when the page was built."""
        labels = self._studio.labels()
        if labels == self._built_with:
            return {}
        first = labels[0] if labels else None
        return {**named("train", train_defaults(self._studio.family)), "train_model": Change(choices=list(labels), value=first)}

    def _form(self, values: Mapping[str, Any]) -> TrainForm:
        return TrainForm(
            name=short_text("Name", values["train_name"]), photos=values["train_page"].photos,
            kind=KINDS.get(values["train_kind"], TrainKind.PERSON),
            preset=PRESETS.get(values["train_preset"], Preset.BALANCED), prompt=short_text("Prompt", values["train_prompt"]),
            texts=values["train_page"].texts, values=knob_values("train", SCENE_KNOBS, values), model=values["train_model"],
            take=read_list(values["train_take"]), retouch=bool(values["train_retouch"]),
            replace=bool(values["train_replace"]), validation=bool(values["train_validation"]),
            consent=short_text("Consent", values["train_consent"]),
        )  # fmt: skip

    def _photos(self, page: TrainPage, verdicts: Sequence[Verdict]) -> Values:
        files = list(zip(file_names(page.photos), page.photos))
        shown = cards.photos(files, {verdict.photo: verdict for verdict in verdicts}, (), self._thumbs.of)
        told = cards.summary(verdicts) if verdicts else _captions(page)
        return {"train_photos": shown, "train_checked": told, "train_take": "[]"}

    def _checked(self, page: TrainPage) -> Values:
        """What the checking of photos changes on the page."""
        view = self._view(page.check)
        if view is None:
            return {}
        if view.under_way:
            return {"train_checked": panels.live(view, POLL), "train_check": Change(interactive=False)}
        page.check = None
        # What it left shows a person whose name nobody said; the page has all of it now.
        self._studio.forget(view.job.id)
        ready = {"train_check": Change(interactive=True)}
        if view.result is None:
            sentence = view.job.failure.sentence if view.job.failure else "The photos were not checked to the end."
            return {**ready, "train_checked": notice(sentence)}
        warnings = "".join(notice(text, "warning") for text in view.result.warnings)
        shown = self._photos(page, view.result.verdicts)
        return {**ready, **shown, "train_checked": shown["train_checked"] + warnings}

    def _panel(self, page: TrainPage) -> Values:
        """What a training changes on the page; pictures only where there are new ones."""
        view = self._view(page.job)
        if view is None:
            page.job, page.drawn = None, None
            empty = dict.fromkeys(("train_samples", "train_best", "train_log"), "")
            empty["train_live"] = panels.NOTHING[JobKind.TRAINING]
            return {**empty, **_buttons(under_way=False, can_resume=False, done=False)}
        found = {
            "train_live": panels.live(view, POLL),
            **_buttons(under_way=view.under_way, can_resume=view.can_resume, done=_is_somebody(view)),
        }
        drawn = (view.job.id, view.job.state, len(view.story.samples), view.story.log)
        if drawn != page.drawn:
            page.drawn = drawn
            found.update(self._pictures(view))
        return found

    def _pictures(self, view: View) -> Values:
        def shown(name: str) -> str | None:
            with suppress(EasyPhotoError):
                return self._thumbs.of(self._studio.file(view.job.id, name), 192)
            return None

        return {
            "train_samples": panels.samples(view, shown), "train_best": panels.best(view, self._best(view)),
            "train_log": panels.log(view),
        }  # fmt: skip

    def _best(self, view: View) -> str | None:
        names = [file.name for file in view.result.files if Path(file.name).stem == "best"] if view.result else []
        with suppress(EasyPhotoError):
            return self._thumbs.of(self._studio.result_file(view.job.id, names[0]), 512) if names else None
        return None

    def _view(self, job_id: str | None) -> View | None:
        with suppress(NotFound):
            return self._studio.view(job_id) if job_id else None
        return None


def _is_somebody(view: View) -> bool:
    """Whether the training has left a person, who can be put into portraits."""
    return view.done and view.result is not None and view.job.subject is TrainKind.PERSON


def _captions(page: TrainPage) -> str:
    """How many captions came with the photos."""
    named_so = {path.stem for path in page.texts} & {path.stem for path in page.photos}
    told = words(f"{len(named_so)} captions for {len(page.photos)} photos.")
    return f'<p class="easyphoto-facts">{told}</p>' if named_so else ""


def _buttons(under_way: bool, can_resume: bool, done: bool) -> Values:
    return {
        "train_start": Change(interactive=not under_way), "train_stop": Change(visible=under_way),
        "train_resume": Change(visible=can_resume), "train_use": Change(visible=done),
    }  # fmt: skip
