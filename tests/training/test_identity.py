"""The person that most photos show is found, whoever else is in them."""

from __future__ import annotations

import numpy as np
import pytest

from easyphoto.training.identity import MainPerson, Sighting, find_main_person

RANDOM = np.random.default_rng(0)
PEOPLE = RANDOM.normal(0, 1, (8, 128))
PEOPLE *= 0.65 / np.linalg.norm(PEOPLE, axis=1, keepdims=True)  # any two lie about 0.92 apart, as dlib's do


def seen(person: int, prominence: float = 0.5) -> Sighting:
    vector = PEOPLE[person] + RANDOM.normal(0, 0.3 / np.sqrt(128), 128)
    return Sighting(embedding=vector.astype(np.float32), prominence=prominence)


def find(*photos: list[Sighting]) -> MainPerson:
    return find_main_person(photos, 0.6)


def test_ten_of_one_and_three_of_another() -> None:
    found = find(*[[seen(1)] for _ in range(3)], *[[seen(0)] for _ in range(10)])
    assert found.agreeing == 10
    assert found.rival == 3
    assert all(away is not None and away > 0.6 for away in found.distances[:3])
    assert all(away is not None and away < 0.5 for away in found.distances[3:])


def test_neither_the_leftmost_nor_the_largest() -> None:
    photos = [[seen(7, 0.9), seen(0, 0.1), seen(6, 0.9)], [seen(0)], [seen(5, 0.9), seen(0, 0.2)], [seen(0)]]
    assert find(*photos).faces == (1, 0, 1, 0)


def test_a_couple_is_settled_by_who_is_more_in_front() -> None:
    photos = [[seen(0, 0.4), seen(1, 0.6)] for _ in range(5)]
    found = find(*photos)
    assert found.faces == (1,) * 5
    assert found.rival == 5


def test_photos_without_a_face_have_no_distance() -> None:
    found = find([], [seen(0)], [], [seen(0)])
    assert found.faces == (None, 0, None, 0)
    assert found.distances[0] is None


def test_one_photo_with_several_faces_takes_the_one_in_front() -> None:
    found = find([seen(0, 0.2), seen(1, 0.8), seen(2, 0.3)])
    assert found.faces == (1,)
    assert found.agreeing == 1


def test_strangers_only_agree_with_nobody() -> None:
    assert find(*[[seen(person)] for person in range(5)]).agreeing == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_photos_does_not_matter(seed: int) -> None:
    photos = [[seen(0)] for _ in range(6)] + [[seen(1)] for _ in range(4)] + [[seen(2), seen(0)]]
    order = np.random.default_rng(seed).permutation(len(photos))
    straight, mixed = find(*photos), find(*[photos[index] for index in order])
    assert mixed.agreeing == straight.agreeing == 7
    assert [mixed.faces[place] for place in np.argsort(order)] == list(straight.faces)
    assert np.allclose(mixed.embedding, straight.embedding, atol=1e-4)


def test_the_limit_follows_how_alike_the_photos_are() -> None:
    def spread(*amounts: float) -> list[list[Sighting]]:
        """One photo for each distance from the person's own vector."""
        steps = RANDOM.normal(0, 1, (len(amounts), 128))
        steps *= np.array(amounts)[:, None] / np.linalg.norm(steps, axis=1, keepdims=True)
        return [[Sighting(embedding=(PEOPLE[0] + step).astype(np.float32), prominence=0.5)] for step in steps]

    assert find(*spread(*[0.1] * 12)).limit == pytest.approx(0.42, abs=1e-6)  # 0.7 of 0.6: faces of one model
    assert 0.43 < find(*spread(*np.linspace(0.25, 0.42, 12))).limit <= 0.552
    assert find(*spread(0.1, 0.1, 0.1)).limit == pytest.approx(0.552)  # three photos say nothing of their spread
