"""Prompt → what a detector is to look for: objects, counts, colours, relations, the ground, as far as it knows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from embedlab.detector.network import Vocabulary

NUMBERS = {name: n for n, name in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight"), 1)}
RELATIONS = {  # as they are written → as `detections.stands` knows them
    "above": "above",
    "over": "above",
    "below": "below",
    "under": "below",
    "to the left of": "left of",
    "left of": "left of",
    "to the right of": "right of",
    "right of": "right of",
    "in front of": "in front of",
    "behind": "behind",
    "bigger than": "bigger than",
    "larger than": "bigger than",
    "smaller than": "smaller than",
    "beside": "beside",
    "next to": "beside",
}


@dataclass(frozen=True)
class Object:
    """An object that a prompt names: its word, the objects that it may stand for, how many, in what colour."""

    word: str
    members: tuple[str, ...]
    count: int | None = None
    colour: str | None = None


@dataclass(frozen=True)
class Asked:
    """What a prompt asks for: objects in the order of mention, `relations` between their numbers, and the ground."""

    objects: tuple[Object, ...] = ()
    relations: tuple[tuple[int, str, int], ...] = ()
    ground: str | None = None

    @property
    def pair(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Of a prompt with two objects that differ, what each may be; None of others."""
        members = [one.members for one in self.objects]
        return (members[0], members[1]) if len(members) == 2 and not set(members[0]) & set(members[1]) else None


def asked_of(text: str, vocabulary: Vocabulary) -> Asked:
    """Read a prompt. What the vocabulary does not know is passed over.

    >>> known = Vocabulary(("cat", "car", "apple"), ("red", "blue"), ("blue", "white"))
    >>> asked = asked_of("Two apples above a red car, on a blue background", known)
    >>> [(one.word, one.count, one.colour) for one in asked.objects], asked.relations, asked.ground
    ([('apple', 2, None), ('car', None, 'red')], ((0, 'above', 1),), 'blue')
    """
    words = re.findall(r"[a-z]+|\d+", text.lower())
    singular = {form: word for word in (*vocabulary.words, *vocabulary.kinds) for form in _forms(word)}
    objects: list[Object] = []
    at: list[tuple[int, int]] = []  # where each object is mentioned, and its number; "the cat" is the one there was
    relations: list[tuple[int, int, str]] = []  # from and to which place
    ground: str | None = None
    n = 0
    while n < len(words):
        if found := _relation(words, n):
            relations.append((n, n + found[0], found[1]))
            n += found[0]
            continue
        if (word := singular.get(words[n])) is not None:
            count, colour = _before(words, n, vocabulary)
            same = [number for number, one in enumerate(objects) if one.word == word]
            if same and colour is None and count is None and "the" in words[max(0, n - 1) : n]:
                at.append((n, same[-1]))
            else:
                objects.append(Object(word, vocabulary.members(word), count, colour))
                at.append((n, len(objects) - 1))
        elif words[n] in vocabulary.grounds and _is_ground(words, n, singular):
            ground = words[n]
        n += 1
    return Asked(tuple(objects), tuple(_joined(words, relations, at)), ground)


def with_words(asked: Asked, words: Sequence[str], vocabulary: Vocabulary) -> Asked:
    """The same, and objects of words that somebody scores beside."""
    named = {one.word for one in asked.objects}
    more = [Object(word, vocabulary.members(word)) for word in dict.fromkeys(words) if vocabulary.members(word)]
    return replace(asked, objects=(*asked.objects, *(one for one in more if one.word not in named)))


def _forms(word: str) -> list[str]:
    """A word, and how it may be written of several."""
    return [word, f"{word}s", f"{word}es", *([f"{word[:-1]}ies"] if word.endswith("y") else [])]


def _relation(words: Sequence[str], n: int) -> tuple[int, str] | None:
    """How many words from the n-th on are a relation, and which."""
    for written, relation in RELATIONS.items():
        parts = written.split()
        if list(words[n : n + len(parts)]) == parts:
            return len(parts), relation
    return None


def _before(words: Sequence[str], n: int, vocabulary: Vocabulary) -> tuple[int | None, str | None]:
    """The count and the colour that are said before the n-th word."""
    count, colour = None, None
    k = n - 1
    if k >= 0 and words[k] in vocabulary.colours:
        colour, k = words[k], k - 1
    if k >= 0:
        number = int(words[k]) if words[k].isdigit() and len(words[k]) == 1 else NUMBERS.get(words[k])
        count = number or None
    return count, colour


def _is_ground(words: Sequence[str], n: int, singular: dict[str, str]) -> bool:
    """Whether a colour is that of the ground: "on blue", "on a blue background", "blue background"."""
    after = words[n + 1] if n + 1 < len(words) else ""
    if after in ("background", "ground"):
        return True
    return n > 0 and (words[n - 1] == "on" or list(words[max(0, n - 2) : n]) == ["on", "a"]) and after not in singular


def _joined(
    words: Sequence[str], relations: Sequence[tuple[int, int, str]], at: Sequence[tuple[int, int]]
) -> list[tuple[int, str, int]]:
    """Relations between the numbers of objects: of the one before to the one after.

    "a cat above a dog and left of a mug" goes on with the cat; "above a dog is a cat" begins with what comes last.
    """
    found: list[tuple[int, str, int]] = []
    for begin, end, relation in relations:
        before = [number for place, number in at if place < begin]
        after = [number for place, number in at if place >= end]
        if found and begin > 0 and words[begin - 1] == "and" and after:
            found.append((found[-1][0], relation, after[0]))
        elif before and after:
            found.append((before[-1], relation, after[0]))
        elif len(after) > 1 and "is" in words[end:]:
            found.append((after[1], relation, after[0]))
    return [one for one in found if one[0] != one[2]]
