"""Which objects are on a picture, where, in what colour and on what ground, each with its probability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from embedlab.detector.network import GRID, SIDE, Scale
from embedlab.display import Shown, block, table

OUTCOMES = ("both", "first only", "second only", "mixture", "neither")


@dataclass(frozen=True)
class Detection(Shown):
    """An object on a picture: the middle of its box and the longer side, in pixels of a picture of 128 × 128.

    `probability` is that it is there, `colours` those of the named colours, whether or not the object has its own;
    `other` is the object that is likeliest next at the same place.

    >>> cat = Detection("cat", 64.0, 34.0, 50.0, 0.98, {"red": 0.1, "blue": 0.9})
    >>> cat.colour, cat.colour_probability
    ('blue', 0.9)
    """

    word: str
    x: float
    y: float
    size: float
    probability: float
    colours: Mapping[str, float] = field(default_factory=dict, repr=False)
    other: str = ""
    other_probability: float = 0.0

    @property
    def colour(self) -> str:
        """The likeliest of the named colours; "" where none is known."""
        return max(self.colours, key=lambda name: self.colours[name], default="")

    @property
    def colour_probability(self) -> float:
        """That of the likeliest colour."""
        return self.colours.get(self.colour, 0.0)


@dataclass(frozen=True)
class Detections(Shown):
    """What is on a picture: objects, the likeliest first; the probabilities of grounds, and of each word to be there.

    >>> found = Detections((Detection("cat", 64.0, 64.0, 90.0, 0.98),), {"white": 0.7, "gray": 0.3})
    >>> found.ground, len(found.of("cat")), found.presence("cat"), found.presence("dog")
    ('white', 1, 0.98, 0.0)
    """

    things: tuple[Detection, ...]
    grounds: Mapping[str, float] = field(default_factory=dict, repr=False)
    words: Mapping[str, float] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        said = ", ".join(f"{one.word} {one.probability:.2f}" for one in self.things[:6])
        more = f", … {len(self.things)}" if len(self.things) > 6 else ""
        ground = f" on {self.ground}" if self.ground else ""
        return f"Detections({said or 'nothing'}{more}{ground})"

    def _repr_html_(self) -> str:
        rows = [
            (one.word, f"{one.probability:.2f}", f"{one.x:.0f}, {one.y:.0f}", f"{one.size:.0f}", one.colour, one.other)
            for one in self.things
        ]
        heads = ("object", "probability", "middle", "longer side", "colour", "or else")
        ground = f"on a ground that is {self.ground} ({self.ground_probability:.2f})" if self.ground else ""
        return block("what is on the picture", table(heads, rows, heads[1:4]) if rows else "nothing", note=ground)

    @property
    def ground(self) -> str:
        """The likeliest ground."""
        return max(self.grounds, key=lambda name: self.grounds[name], default="")

    @property
    def ground_probability(self) -> float:
        """That of the likeliest ground."""
        return self.grounds.get(self.ground, 0.0)

    def of(self, *words: str) -> tuple[Detection, ...]:
        """All objects of a word, or of several."""
        return tuple(thing for thing in self.things if thing.word in words)

    def presence(self, *words: str) -> float:
        """How likely one of the words is there, be it too faint to be among `things`."""
        found = [self.words.get(word, 0.0) for word in words] + [thing.probability for thing in self.of(*words)]
        return max(found, default=0.0)


@torch.inference_mode()
def look(detector: Any, pictures: Tensor, at_once: int = 64) -> list[Detections]:
    """What is on pictures (n, 3, h, w) in [-1, 1]: of cells that lie side by side only the likeliest counts."""
    names, scale = detector.vocabulary, getattr(detector, "scale", Scale())
    answers = []
    for part in pictures.split(at_once):
        words, colours, boxes, grounds = (x.float().cpu() for x in detector(part))
        there = (scale.slope * words + scale.shift).sigmoid()
        best, which = words.max(1)
        highest = functional.max_pool2d(best[:, None], 3, 1, 1)[:, 0]
        peaks = (best == highest) & (there.amax(1) > scale.least)
        hues = (scale.colours * colours[:, :-1]).softmax(1)
        floors = (scale.grounds * grounds).softmax(1)
        for n in range(len(part)):
            things = []
            for row, column in peaks[n].nonzero().tolist():
                dx, dy, size = boxes[n, :, row, column].tolist()
                word = int(which[n, row, column])
                cell = there[n, :, row, column]
                probability, others = float(cell[word]), cell.clone()
                others[word] = -1
                other = int(others.argmax())
                things.append(
                    Detection(
                        names.words[word],
                        (column + 0.5 + dx) * SIDE / GRID,
                        (row + 0.5 + dy) * SIDE / GRID,
                        size * SIDE,
                        probability,
                        dict(zip(names.colours, hues[n, :, row, column].tolist(), strict=True)),
                        *((names.words[other], float(others[other])) if len(others) > 1 else ()),
                    )
                )
            things.sort(key=lambda thing: -thing.probability)
            floor = dict(zip(names.grounds, floors[n].tolist(), strict=True))
            presence = dict(zip(names.words, there[n].amax((1, 2)).tolist(), strict=True))
            answers.append(Detections(tuple(things), floor, presence))
    return answers


def stands(one: Detection, relation: str, other: Detection) -> bool:
    """Whether one object stands to another as a relation says, by middles and sizes alone.

    >>> cat, dog = Detection("cat", 64.0, 34.0, 50.0, 1.0), Detection("dog", 64.0, 94.0, 50.0, 1.0)
    >>> stands(cat, "above", dog), stands(cat, "beside", dog)
    (True, False)
    """
    dx, dy = other.x - one.x, other.y - one.y
    near = math.hypot(dx, dy) < 0.9 * (one.size + other.size) / 2
    return {
        "above": dy > 12 and dy > abs(dx),
        "below": -dy > 12 and -dy > abs(dx),
        "left of": dx > 12 and dx > abs(dy),
        "right of": -dx > 12 and -dx > abs(dy),
        "beside": abs(dx) > 12 and abs(dx) > abs(dy),
        "in front of": near and -dy > 6,
        "behind": near and dy > 6,
        "bigger than": one.size > 1.4 * other.size,
        "smaller than": other.size > 1.4 * one.size,
    }[relation]


def outcome(found: Detections, first: tuple[str, ...], second: tuple[str, ...]) -> str:
    """What became of a prompt with two objects, each given by the words that may stand for it: one of `OUTCOMES`.

    A mixture is one object in which the detector finds both.

    >>> outcome(Detections((Detection("cat", 64.0, 64.0, 90.0, 0.98),)), ("dog",), ("cat",))
    'second only'
    """
    one, two = found.of(*first), found.of(*second)
    if any(a is not b for a in one for b in two):
        return "both"
    for thing in (*one, *two):
        if thing.other in (second if thing.word in first else first) and thing.other_probability >= 0.3:
            return "mixture"
    return "first only" if one else "second only" if two else "neither"
