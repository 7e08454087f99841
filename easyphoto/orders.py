"""What is put into the queue: orders that name files and people, so that they can be written down and run later.

Frozen, keyword-only, refused at construction when contradictory. JSON in and out by `easyphoto.store.codec`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from easyphoto.errors import SpecError
from easyphoto.extras import check_id_picture
from easyphoto.records import TrainKind
from easyphoto.specs import PortraitSettings, TrainSpec


@dataclass(frozen=True, kw_only=True)
class Consent:
    """Who said that these photos may be used, and when; kept with the person."""

    given_by: str
    """The person themselves, or who speaks for them."""
    given_at: str
    """ISO 8601 date or time."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class CheckOrder:
    """Photos to be judged, nothing more."""

    photos: tuple[Path, ...]
    """Picture files or folders of them; in a queued order relative to the job's folder."""
    person: str
    take: tuple[str, ...] = ()
    """File names that are taken whatever their verdict."""
    retouch: bool = True
    kind: TrainKind = TrainKind.PERSON
    """What they are photos of: of a scene no face is wanted."""

    def __post_init__(self) -> None:
        if not self.photos:
            raise SpecError("there are no photos; hand in at least one, better 5 to 20")


@dataclass(frozen=True, kw_only=True)
class TrainOrder:
    """A training as a person asks for it."""

    photos: tuple[Path, ...]
    """Picture files or folders of them; in a queued order relative to the job's folder."""
    spec: TrainSpec
    take: tuple[str, ...] = ()
    """File names that are taken whatever their verdict."""
    retouch: bool = True
    resume: bool = False
    """Go on with this person's training that was cut off, if there is one."""
    replace: bool = False
    """Train a person anew who was trained before; the old LoRA makes room when the new one is published."""
    consent: Consent | None = None
    captions: tuple[str, ...] = ()
    """Of a scene: what each photo shows, in their order; an empty one takes the training's own. () for none at all."""

    def __post_init__(self) -> None:
        if not self.photos:
            raise SpecError("there are no photos; hand in at least one, better 5 to 20")
        if self.captions and self.spec.kind is TrainKind.PERSON:
            raise SpecError("captions are for scenes and clothes; photos of a person all have the same one")
        if self.captions and len(self.captions) != len(self.photos):
            raise SpecError(f"{len(self.captions)} captions for {len(self.photos)} photos; give one for each, or none")


@dataclass(frozen=True, kw_only=True)
class PortraitOrder(PortraitSettings):
    """People put into templates, each template in turn; one that fails is told and the others go on."""

    templates: tuple[Path, ...]
    """Picture files; in a queued order relative to the job's folder, or absolute ones of the gallery."""
    people: tuple[str | None, ...]
    """Names, for the faces of a template from left to right; None leaves that face."""
    stages: bool = False
    """Keep the pictures of every stage among the result's files."""
    id_picture: Path | None = None
    """Like a template; see `PortraitRequest.id_picture`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_id_picture(self.id_control, self.id_picture, self.people)
        if not self.templates:
            raise SpecError("there is no template; name at least one")
        if not any(self.people):
            raise SpecError("a portrait needs at least one person; name one with --person")


@dataclass(frozen=True, kw_only=True)
class DrillOrder:
    """A job that does nothing but take time: for trying the queue itself."""

    steps: int = 1
    seconds: float = 0.0
    """Of each step."""
    needs_gpu: bool = True
    fail: bool = False
    """End as a failed job."""

    def __post_init__(self) -> None:
        if not (0 <= self.steps <= 100_000 and 0 <= self.seconds <= 60):
            raise SpecError(f"a drill has 0-100000 steps of 0-60 seconds, got {self.steps} of {self.seconds}")


Order = CheckOrder | TrainOrder | PortraitOrder | DrillOrder
