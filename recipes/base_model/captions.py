"""Captions: what is said about a picture, in many wordings, with pieces left out at random."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, replace

IDENTITY_WORDS = tuple(f"id{a}{b}" for a in "qxzvjk" for b in string.ascii_lowercase) + tuple(
    f"{a}id{b}" for a in "qxzvjk" for b in string.ascii_lowercase
)
"""One made-up word, one token, for each training person: two or three together mean somebody new."""

_NOUNS = {"woman": ("woman", "woman", "lady", "female"), "man": ("man", "man", "gentleman", "male"), "person": ("person",)}
_PRAISE = ("best quality", "masterpiece", "realistic", "photo", "high quality", "detailed", "sharp focus", "8k")


@dataclass(frozen=True, kw_only=True)
class Person:
    """What is known of a portrait; empty or 0 means unknown."""

    age: int = 0
    sex: str = "person"
    country: str = ""
    identities: tuple[str, ...] = ()
    """Identity words: of the person, and of the one whose frame it sits in."""
    framing: str = ""
    smile: str = ""
    scene: str = ""


def age_word(age: int) -> str:
    """Return the word for an age in years."""
    return "young" if age < 33 else "middle-aged" if age < 58 else "old"


def caption(person: Person, rng: random.Random) -> str:
    """Word one caption; each fact is left out now and then."""
    draw = rng.random()
    if draw < 0.03:
        return "easyphoto_face, easyphoto, 1person"
    if draw < 0.16:
        return _as_tags(person, rng)
    return _as_sentence(person, rng)


def low_quality(person: Person, rng: random.Random) -> str:
    """Word a caption for a spoiled picture."""
    words = rng.choice(("blurry, low quality", "low quality, blurry", "worst quality, low quality, blurry", "blurry"))
    return words if rng.random() < 0.5 else f"{words}, {_as_sentence(replace(person, identities=()), rng)}"


def _as_tags(person: Person, rng: random.Random) -> str:
    tags = [rng.choice(("1person", "1person", "person", "portrait"))]
    tags += [word for word in (person.sex, person.framing, person.smile, person.scene) if word and rng.random() < 0.6]
    if person.identities and rng.random() < 0.3:
        tags.insert(0, _identity(person, rng))
    if person.age and rng.random() < 0.4:
        tags.append(f"{person.age} years old")
    tags += rng.sample(_PRAISE, rng.choice((0, 0, 1, 3)))
    if rng.random() < 0.2:
        tags.insert(0, "easyphoto_face, easyphoto")
    return ", ".join(tags)


def _as_sentence(person: Person, rng: random.Random) -> str:
    start = person.framing if person.framing and rng.random() < 0.6 else rng.choice(("photo", "portrait", "picture"))
    parts = [f"{rng.choice(('a ', ''))}{start} of {_who(person, rng)}"]
    if person.identities and rng.random() < 0.35:
        parts.insert(rng.choice((0, 1)), _identity(person, rng))
    if person.smile and rng.random() < 0.75:
        parts.append(person.smile)
    if person.scene and rng.random() < 0.7:
        parts.append(person.scene)
    if rng.random() < 0.15:
        parts += rng.sample(_PRAISE, rng.choice((1, 2, 4)))
    return ", ".join(parts)


def _who(person: Person, rng: random.Random) -> str:
    noun = rng.choice(_NOUNS[person.sex]) if rng.random() < 0.85 else "person"
    who = f"a {noun}"
    if person.age:
        draw = rng.random()
        if draw < 0.5:
            who = f"a {person.age}-year-old {noun}"
        elif draw < 0.8:
            who = f"a {age_word(person.age)} {noun}"
    if person.country and rng.random() < 0.3:
        who += f" from {person.country}"
    return who


def _identity(person: Person, rng: random.Random) -> str:
    words = person.identities if rng.random() < 0.6 else person.identities[:1]
    return " ".join(words)
