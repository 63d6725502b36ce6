"""What the default model has to be able to do: prompts, what each picture of them is asked, and how often is enough.

Combinations of words, and of words and colours, are of those that training never shows (`world.held_out_pair`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from torch import Tensor

from embedlab.detector.detections import Detections, look, stands
from embedlab.encoder import Conditioning, Texts
from embedlab.operators import Swap
from embedlab.pretrain import captions, world
from embedlab.pretrain.captions import article, plural
from embedlab.pretrain.drawings import COLOURED, COLOURS, KINDS
from embedlab.selector import Rows

BARS: Mapping[str, tuple[str, float, str | None]] = {  # what it is, the bar, and what the rate is a share of
    "single": ("single object, all words", 0.97, None),
    "worst word": ("the worst of the words", 0.75, None),
    "both": ("both of two objects there", 0.90, None),
    "relation": ("relation right, given both", 0.80, None),
    "colour": ("colour of the one object that has one", 0.95, None),
    "colours": ("two coloured objects, both right", 0.75, None),
    "count": ("count 1 to 4", 0.80, None),
    "ground": ("ground", 0.98, None),
    "late": ("object named only in window 2 or 3, of window 1", 0.85, "early"),
    "words": ("words' own rows alone, of all rows", 0.70, "plain"),
    "end": ("end of text alone, of all rows", 0.70, "plain"),
    "padding": ("padding alone, of all rows", 0.70, "plain"),
    "tokens turned": ("token rows of the nouns swapped: turned over, given both", 0.70, None),
    "positions turned": ("position rows of the nouns swapped: turned over, given both", 0.70, None),
    "kind": ("a member of the kind drawn", 0.90, None),
}


@dataclass(frozen=True)
class Only:
    """Keep the start and the rows of one role; the others become the empty prompt's of the same places."""

    role: Any
    stage: str = "hidden"

    def __call__(self, prompt: Conditioning, texts: Texts) -> Conditioning:
        empty = texts("").hidden
        hidden = empty.repeat(len(prompt.hidden) // len(empty), 1)
        for role in ("bos", self.role):
            for span in prompt.spans(Rows(role=role)):
                hidden[list(span)] = prompt.hidden[list(span)]
        return prompt.put("hidden", [tuple(range(len(hidden)))], hidden)


@dataclass(frozen=True)
class Trial:
    """A prompt, what is done to its rows, and what is asked of a picture: marks by name, those that apply."""

    measure: str
    prompt: str
    ask: Callable[[Detections], Mapping[str, bool]]
    operators: tuple[Any, ...] = ()


def trials(words: Sequence[str], size: int = 32, seed: int = 0, ids: captions.Ids | None = None) -> list[Trial]:
    """All trials that a model with these words can be put to, `size` prompts a measure; of prompts of several windows
    only where `ids` can count their tokens.
    """
    rng = np.random.default_rng(seed)
    pairs = [(a, b) for a in words for b in words if a != b and world.held_out_pair(a, b)]
    grounds, relations = list(world.GROUNDS), list(world.RELATIONS)
    trials: list[Trial] = []

    def some(of: Sequence[Any]) -> list[Any]:
        """`size` of them, each as often as it comes out even; none of none."""
        return [of[int(i) % len(of)] for i in rng.permutation(len(of) * (1 + size // max(1, len(of))))[:size]]

    for n, word in enumerate(words):
        ground = grounds[n % len(grounds)]
        trials.append(Trial("single", f"a picture of {article(word)} on {ground}", _single(word, ground)))
        trials.append(Trial("plain", f"a picture of {article(word)}", _is(word, "plain")))
        for role, name in (("words", "words"), ("eos", "end"), ("pad", "padding")):
            trials.append(Trial(name, f"a picture of {article(word)}", _is(word, name), (Only(role),)))
    for (a, b), relation in zip(some(pairs), relations * size, strict=False):
        trials.append(Trial("both", f"{article(a)} {relation} {article(b)}", _two(a, relation, b)))
    for (a, b), relation in zip(some(pairs), ["above", "below", "left of", "right of"] * size, strict=False):
        prompt, turned = f"{article(a)} {relation} {article(b)}", world.RELATIONS[relation]
        trials.append(
            Trial("tokens turned", prompt, _turned(a, turned, b, "tokens turned"), (Swap(a, b, stage="token"),))
        )
        trials.append(
            Trial(
                "positions turned", prompt, _turned(a, turned, b, "positions turned"), (Swap(a, b, stage="position"),)
            )
        )
    coloured = [word for word in words if word in COLOURED]
    for word, colour in some([(w, c) for w in coloured for c in COLOURS if world.held_out_colour(w, c)]):
        trials.append(Trial("colour", f"a picture of {article(f'{colour} {word}')}", _colour(word, colour)))
    for a, b in some([(a, b) for a, b in pairs if a in coloured and b in coloured]):
        one, two = (str(c) for c in rng.choice(list(COLOURS), 2, replace=False))
        trials.append(
            Trial("colours", f"{article(f'{one} {a}')} and {article(f'{two} {b}')}", _colours(a, one, b, two))
        )
    for n, word in enumerate(some(words)):
        count = n % 4 + 1
        noun = word if count == 1 else plural(word)
        trials.append(Trial("count", f"a picture of {captions.NUMBERS[count]} {noun}", _count(word, count)))
    for kind, members in KINDS.items():
        trials += [Trial("kind", f"a picture of {article(kind)}", _kind(members))] * max(1, size // len(KINDS))
    if ids is not None:
        for n, word in enumerate(some(words)):
            said = f"a picture of {article(word)}"
            trials.append(Trial("early", ", ".join([said, _filler(2 + n % 2, ids, rng)]), _is(word, "early")))
            trials.append(Trial("late", ", ".join([_filler(1 + n % 2, ids, rng), said]), _is(word, "late")))
    return trials


def _filler(windows: int, ids: captions.Ids, rng: np.random.Generator) -> str:
    parts: list[str] = []
    while len(ids(", ".join(parts))) < windows * captions.BODY:
        parts.append(str(rng.choice(captions.NEUTRAL)))
    return ", ".join(parts)


def _is(word: str, name: str) -> Callable[[Detections], Mapping[str, bool]]:
    return lambda seen: {name: bool(seen.things) and seen.things[0].word == word}


def _single(word: str, ground: str) -> Callable[[Detections], Mapping[str, bool]]:
    def ask(seen: Detections) -> Mapping[str, bool]:
        right = bool(seen.things) and seen.things[0].word == word
        return {"single": right, f"word/{word}": right, "ground": seen.ground == ground}

    return ask


def _two(a: str, relation: str, b: str) -> Callable[[Detections], Mapping[str, bool]]:
    def ask(seen: Detections) -> Mapping[str, bool]:
        one, two = seen.of(a), seen.of(b)
        if not (one and two):
            return {"both": False}
        right = stands(one[0], relation, two[0])
        return {"both": True, "relation": right, f"relation/{relation}": right}

    return ask


def _turned(a: str, turned: str, b: str, name: str) -> Callable[[Detections], Mapping[str, bool]]:
    def ask(seen: Detections) -> Mapping[str, bool]:
        one, two = seen.of(a), seen.of(b)
        return {name: stands(one[0], turned, two[0])} if one and two else {}

    return ask


def _colour(word: str, colour: str) -> Callable[[Detections], Mapping[str, bool]]:
    return lambda seen: {"colour": any(thing.colour == colour for thing in seen.of(word)[:1])}


def _colours(a: str, one: str, b: str, two: str) -> Callable[[Detections], Mapping[str, bool]]:
    def ask(seen: Detections) -> Mapping[str, bool]:
        return {"colours": [t.colour for w in (a, b) for t in seen.of(w)[:1]] == [one, two]}

    return ask


def _count(word: str, count: int) -> Callable[[Detections], Mapping[str, bool]]:
    def ask(seen: Detections) -> Mapping[str, bool]:
        right = len(seen.of(word)) == len(seen.things) == count
        return {"count": right, f"count/{count}": right}

    return ask


def _kind(members: Sequence[str]) -> Callable[[Detections], Mapping[str, bool]]:
    return lambda seen: {"kind": bool(seen.things) and seen.things[0].word in members}


@dataclass(frozen=True)
class Rate:
    """So many of so many, with Wilson's 95 % interval.

    >>> Rate(8, 10)
    80 % (49 to 94, n = 10)
    """

    hits: int
    of: int

    @property
    def share(self) -> float:
        """The rate; nan where nothing was asked."""
        return self.hits / self.of if self.of else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of 95 %."""
        if not self.of:
            return 0.0, 1.0
        z, n, p = 1.96, self.of, self.share
        middle, half = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)

    def __repr__(self) -> str:
        low, high = self.interval
        return f"{100 * self.share:.0f} % ({100 * low:.0f} to {100 * high:.0f}, n = {self.of})"


def rates(marks: Sequence[Mapping[str, bool]]) -> dict[str, Rate]:
    """All marks of a name together; and of the words the worst."""
    found: dict[str, list[bool]] = defaultdict(list)
    for mark in marks:
        for name, right in mark.items():
            found[name].append(right)
    rates = {name: Rate(sum(rights), len(rights)) for name, rights in found.items()}
    if words := [rate for name, rate in rates.items() if name.startswith("word/")]:
        rates["worst word"] = min(words, key=lambda rate: rate.share)
    return rates


def now(
    judge: Any, drawn: Callable[[Sequence[str], int], Tensor], words: Sequence[str], most: int = 12
) -> dict[str, float]:
    """A quick look at a model in training, `most` pictures a measure: prompts of one window, nothing done to rows.

    `drawn(prompts, seed)` answers with pictures (n, 3, h, w) in [-1, 1].
    """
    asked: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials(words, most):
        if not trial.operators:
            asked[trial.measure].append(trial)
    few = [mine[i] for mine in asked.values() for i in range(0, len(mine), -(-len(mine) // most))]
    pictures = drawn([trial.prompt for trial in few], 100)
    found = rates([trial.ask(seen) for trial, seen in zip(few, look(judge, pictures), strict=True)])
    return {f"bars/{name}": found[name].share for name in BARS if name in found and name != "worst word"}
