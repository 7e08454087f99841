"""Photos with their verdicts, templates to choose, faces in a template, people, portraits: all as HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from easyphoto.records import Reason, TrainKind, Verdict
from easyphoto.specs import Person
from easyphoto.store.paths import lora_name
from easyphoto.store.templates import Template
from easyphoto.ui import markup
from easyphoto.ui.history import Entry
from easyphoto.ui.markup import attribute, choice, image, said, tick, words
from easyphoto.ui.panels import similarity_line

Shown = Callable[[Path, int], str | None]
"""A data URI of a picture at a size."""


def photos(files: Sequence[tuple[str, Path]], verdicts: Mapping[str, Verdict], take: Sequence[str], shown: Shown) -> str:
    """(name, file) of each photo, with its verdict where there is one, and a tick to take it all the same."""
    cards = "".join(_photo(name, path, verdicts.get(name), name in take, shown) for name, path in files)
    return f'<div class="easyphoto-photos">{cards}</div>' if cards else ""


def _photo(name: str, path: Path, verdict: Verdict | None, taken: bool, shown: Shown) -> str:
    picture = image(shown(path, 240), name)
    if verdict is None:
        caption = said(name)
        return f'<figure class="easyphoto-photo"><div>{picture}</div><figcaption>{caption}</figcaption></figure>'
    kind = "reference" if verdict.is_reference else "taken" if verdict.accepted else "left"
    can_be_taken = verdict.reason not in (Reason.UNREADABLE, Reason.NO_FACE) and (taken or not verdict.accepted)
    override = tick("easyphoto_train_take", name, taken, words("Take it all the same")) if can_be_taken else ""
    head = words("reference" if verdict.is_reference else verdict.reason.value)
    return (
        f'<figure class="easyphoto-photo easyphoto-{kind}"><div>{picture}</div><figcaption><b>{head}</b>'
        f"<span>{attribute(verdict.sentence)}</span><small>{_numbers(verdict)}</small>{override}</figcaption></figure>"
    )


def _numbers(verdict: Verdict) -> str:
    scores = verdict.scores
    facts = [("identity", scores.identity), ("sharpness", scores.sharpness), ("frontal", scores.frontality)]
    return " &middot; ".join(f"{words(label)} {value:.2f}" for label, value in facts if value is not None)


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many photos were taken."""
    taken = sum(verdict.accepted for verdict in verdicts)
    return f'<p class="easyphoto-facts">{words(f"{taken} of {len(verdicts)} photos are good to train on.")}</p>'


def templates(gallery: Sequence[Template], chosen: Sequence[str], shown: Shown) -> str:
    """The gallery; several can be ticked."""
    cards = "".join(
        tick(
            "easyphoto_portrait_chosen", template.name, template.name in chosen,
            f"{image(shown(template.path, 256), template.name)}{said(template.name)}",
        )
        for template in gallery
    )  # fmt: skip
    return f'<div class="easyphoto-templates">{cards}</div>' if cards else f"<p>{words('The gallery is empty.')}</p>"


def faces(rows: Sequence[tuple[str, Sequence[str], str]]) -> str:
    """(template, a data URI of each of its faces from left to right, what is wrong with it) for each template."""
    return "".join(_face_row(*row) for row in rows)


def _face_row(name: str, found: Sequence[str], trouble: str) -> str:
    if trouble:
        return f'<div class="easyphoto-facerow">{said(name)} {markup.notice(trouble, "warning")}</div>'
    thumbs = "".join(
        f"<figure>{image(uri, f'face {number}')}<figcaption>{number}</figcaption></figure>"
        for number, uri in enumerate(found, start=1)
    )
    return f'<div class="easyphoto-facerow">{said(name)}<div class="easyphoto-thumbs">{thumbs}</div></div>'


def people(everybody: Sequence[Person], chosen: str, sizes: Mapping[str, int], shown: Shown) -> str:
    """Everybody who was trained; one can be chosen."""
    cards = "".join(
        choice(
            "easyphoto_people_chosen", person.person_id, _person(person, sizes.get(person.person_id, 0), shown),
            "easyphoto-person", person.person_id == chosen,
        )
        for person in everybody
    )  # fmt: skip
    empty = f"<p>{words('Nobody has been trained yet. Begin in the Train tab.')}</p>"
    return f'<div class="easyphoto-people">{cards}</div>' if cards else empty


def _person(person: Person, size: int, shown: Shown) -> str:
    near = f"{words('score')} <b>{person.score:.3f}</b>" if person.score is not None else words("not judged")
    if person.kind is not TrainKind.PERSON:
        return _scene(person, size, shown)
    return (
        f"{image(shown(person.reference, 160), person.name)}<span class='easyphoto-words'><b>{said(person.name)}</b>"
        f"<small>{near} &middot; {words(f'{person.photos} photos')}</small>"
        f"<small>{said(markup.day(person.created))} &middot; {said(markup.megabytes(size))}</small>"
        f"<small class='easyphoto-file'>{said(person.lora.name)}</small></span>"
    )


def _scene(scene: Person, size: int, shown: Shown) -> str:
    """What a scene looks like, and what calls it up in a prompt."""
    return (
        f"{image(shown(scene.face_id_picture, 160), scene.name)}<span class='easyphoto-words'><b>{said(scene.name)}</b>"
        f"<small>{words(f'{scene.photos} photos')} &middot; {said(markup.megabytes(size))}</small>"
        f"<small>{said(scene.prompt)}</small>"
        f"<small class='easyphoto-file'>{said(f'<lora:{lora_name(scene.name)}:0.8>')}</small></span>"
    )


def portraits(entries: Sequence[Entry], target: str, chosen: str, shown: Callable[[Entry, int], str | None]) -> str:
    """Portraits with their scores; one can be chosen."""
    cards = "".join(
        choice(target, entry.key, _portrait(entry, shown), "easyphoto-portrait", entry.key == chosen) for entry in entries
    )
    return f'<div class="easyphoto-portraits">{cards}</div>' if cards else ""


def _portrait(entry: Entry, shown: Callable[[Entry, int], str | None]) -> str:
    picture = entry.picture
    scores = similarity_line(tuple((face.person, face.similarity) for face in picture.faces))
    return f"{image(shown(entry, 288), picture.template)}<span class='easyphoto-words'>{scores}</span>"


def compared(before: str | None, after: str | None, label: str) -> str:
    """Two pictures under one slider, or the one there is."""
    if after is None:
        return f"<p>{words('This picture is not there any more.')}</p>"
    if before is None:
        return f'<div class="easyphoto-single">{image(after, label)}</div>'
    return (
        f'<div class="easyphoto-compare">{image(before, "before")}{image(after, label, "easyphoto-after")}'
        '<input type="range" min="0" max="100" value="50" aria-label="before and after"></div>'
    )


def facts(entry: Entry) -> str:
    """A portrait's scores, warnings and parameters."""
    picture = entry.picture
    scores = similarity_line(tuple((face.person, face.similarity) for face in picture.faces))
    warnings = "".join(markup.notice(text, "warning") for text in picture.warnings)
    seconds = sum(value for _, value in picture.seconds)
    head = f"{said(picture.template)} &middot; {words('seed')} {picture.seed} &middot; {markup.duration(seconds)}"
    return (
        f'<p class="easyphoto-facts">{head}</p><p>{scores}</p>{warnings}'
        f'<details class="easyphoto-parameters"><summary>{words("Parameters")}</summary>'
        f'<pre translate="no">{attribute(picture.infotext)}</pre></details>'
    )


def strip(stages: Sequence[tuple[str, str | None]]) -> str:
    """(stage, data URI) of how a portrait came to be."""
    figures = "".join(f"<figure>{image(uri, name)}<figcaption>{words(name)}</figcaption></figure>" for name, uri in stages)
    return f'<div class="easyphoto-strip">{figures}</div>' if figures else ""


def saving(uri: str, name: str) -> str:
    """A file that the page saves as soon as it sees this."""
    return f'<a data-easyphoto-save download="{attribute(name)}" href="{uri}"></a>'
