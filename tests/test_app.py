"""One application for several owners: everybody's people are their own, the heavy parts are there once."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from easyphoto.app import App, Shared, waited_for
from easyphoto.errors import Cancelled, NameRefused, NotFound
from easyphoto.settings import Settings


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(replace(Settings.from_env({}), home=tmp_path / "home"))


def test_owners_have_homes_of_their_own_and_share_the_models(app: App, tmp_path: Path) -> None:
    ann, bob = app.for_owner("ann"), app.for_owner("bob")
    assert app.home.root == tmp_path / "home"
    assert ann.home.root == tmp_path / "home" / "owners" / "ann"
    assert ann.tools is bob.tools is app.tools
    assert app.for_owner("local").home == app.home
    (ann.home.people / "x").mkdir(parents=True)
    for other in (app, bob):
        with pytest.raises(NotFound):
            other.people.get("x")


@pytest.mark.parametrize("owner", ["../local", "", "Ann", "a b"])
def test_an_owner_is_no_path(app: App, owner: str) -> None:
    with pytest.raises(NameRefused):
        app.for_owner(owner)


def test_letting_go_of_an_engine_that_was_never_built_loads_nothing(app: App) -> None:
    app.shared.free_engine()
    assert app.shared._engine is None


def test_waiting_for_a_lock_ends_when_somebody_asks_to_stop() -> None:
    lock, cancel = threading.Lock(), threading.Event()
    with waited_for(lock, cancel):
        threading.Timer(0.1, cancel.set).start()
        with pytest.raises(Cancelled), waited_for(lock, cancel):
            pass
        assert lock.locked(), "it is still the first one's"
    assert not lock.locked()


def test_one_person_is_trained_once_at_a_time_and_two_people_are_not_held_up(app: App) -> None:
    shared: Shared = app.shared
    anna, other = app.home.people / "anna", app.for_owner("ann").home.people / "anna"
    assert shared.in_training(anna) is shared.in_training(anna)
    assert shared.in_training(anna) is not shared.in_training(other)
