"""The four desks behind one page."""

from __future__ import annotations

from dataclasses import dataclass

from easyphoto.ui.history_desk import HistoryDesk
from easyphoto.ui.people_desk import PeopleDesk
from easyphoto.ui.portrait_desk import PortraitDesk
from easyphoto.ui.studio import Studio
from easyphoto.ui.thumbs import Thumbs
from easyphoto.ui.train_desk import TrainDesk


@dataclass(frozen=True, kw_only=True)
class Desks:
    """One desk for each tab."""

    train: TrainDesk
    portrait: PortraitDesk
    people: PeopleDesk
    history: HistoryDesk

    @staticmethod
    def for_studio(studio: Studio) -> Desks:
        """Desks that share their small pictures."""
        thumbs = Thumbs()
        return Desks(
            train=TrainDesk(studio, thumbs), portrait=PortraitDesk(studio, thumbs), people=PeopleDesk(studio, thumbs),
            history=HistoryDesk(studio, thumbs),
        )  # fmt: skip
