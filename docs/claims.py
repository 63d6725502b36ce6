"""What the studies say was seen, as sentences that figures have to bear out.

Each study's pictures are kept as a small table, docs/studies/NAME.csv: the settings that vary, the seed, what the
detector sees, a few scores. A `Claim` quotes a piece of the study's text, with holes in the place of its numbers; the
figures come from the table, and `holds` says what has to be true of them for the sentence to stand. `docs/studies.py`
fills the holes and refuses a page of which a sentence no longer holds; `tests/test_docs.py` does the same.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLES = Path(__file__).parent / "studies"
WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
SURE = 0.5  # the least probability with which a thing is there


@dataclass(frozen=True)
class Thing:
    """An object that the detector sees, its middle and longer side in pixels."""

    word: str
    probability: float
    x: float
    y: float
    size: float
    colour: str


@dataclass(frozen=True)
class Picture:
    """One picture of a study: the settings that vary, its seed, what is on it."""

    axes: dict[str, str]
    seed: int
    edited: bool
    things: tuple[Thing, ...]
    ground: str
    scores: dict[str, float]

    def of(self, word: str) -> list[Thing]:
        """All things of a word."""
        return [thing for thing in self.things if thing.word == word]

    def above(self, one: str, other: str) -> bool:
        """Both are there, and the first stands above the second: by middles, as the detector's `stands` has it."""
        return any(b.y - a.y > max(12.0, abs(b.x - a.x)) for a in self.of(one)[:1] for b in self.of(other)[:1])

    def coloured(self, **colours: str) -> bool:
        """Each of these words is there, the likeliest of it in its colour."""
        return all([t.colour for t in self.of(word)[:1]] == [colour] for word, colour in colours.items())


Test = str | Callable[[Picture], bool]


@dataclass(frozen=True)
class Pictures:
    """Pictures of a study; called with settings, those of them that have these."""

    all: tuple[Picture, ...]

    def __call__(self, **axes: Any) -> Pictures:
        """Edited pictures with these values; of a list any one."""
        found = [p for p in self.all if p.edited and all(_is(p.axes[key], value) for key, value in axes.items())]
        if not found:
            raise ValueError(f"no picture has {axes}; the settings are {self.all[0].axes}")
        return Pictures(tuple(found))

    @property
    def as_written(self) -> Pictures:
        """The unedited pictures, each once."""
        return Pictures(tuple(p for p in self.all if not p.edited))

    def n(self, test: Test) -> int:
        """How many pictures show a word, or pass a test."""
        return sum(bool(p.of(test)) if isinstance(test, str) else test(p) for p in self.all)

    def mean(self, score: str) -> float:
        """The mean of a score."""
        return sum(p.scores[score] for p in self.all) / len(self.all)

    def values(self, score: str) -> list[float]:
        """A score of each picture."""
        return [p.scores[score] for p in self.all]

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self) -> Iterator[Picture]:
        return iter(self.all)


def _is(value: str, wanted: Any) -> bool:
    """Whether a setting in a table is this value, or one of these."""
    if isinstance(wanted, list | set):
        return any(_is(value, one) for one in wanted)
    try:
        return float(value) == float(wanted)
    except (TypeError, ValueError):
        return value == str(wanted)


@dataclass(frozen=True)
class Claim:
    """A piece of a study's text; `{}` is a number, in words up to twelve, `{:.2f}` one with so many digits."""

    says: str
    figures: Callable[[Pictures], Sequence[float]]
    holds: Callable[..., bool]

    def pattern(self) -> re.Pattern[str]:
        """The text with any numbers in its holes, whatever the case of its first letter."""
        parts = re.split(r"\{[^}]*\}", " ".join(self.says.split()))
        hole = rf"(?:{'|'.join(WORDS)}|no|-?\d+(?:[.,]\d+)?)"
        return re.compile(hole.join(map(re.escape, parts)), re.IGNORECASE)

    def filled(self, figures: Sequence[float]) -> str:
        """The text with these figures."""
        values = iter(figures)
        return re.sub(r"\{([^}]*)\}", lambda hole: _number(next(values), hole[1]), " ".join(self.says.split()))


def _number(value: float, form: str) -> str:
    if form:
        return f"{value:{form[1:]}}"
    return WORDS[int(value)] if value == int(value) and 0 <= value < len(WORDS) else f"{value:g}"


def read(path: Path) -> Pictures:
    """The table of a study."""
    with path.open(encoding="utf-8", newline="") as file:
        return Pictures(tuple(map(_picture, csv.DictReader(file))))


def _picture(row: dict[str, str]) -> Picture:
    scores = {key: float(value) for key, value in row.items() if "/" in key and value}
    own = ("seed", "edited", "seen", "ground")
    axes = {key: value for key, value in row.items() if key not in own and "/" not in key}
    things = tuple(
        Thing(word, float(p), float(x), float(y), float(size), colour)
        for word, p, x, y, size, colour in (one.split(" ") for one in row["seen"].split("; ") if one)
        if float(p) >= SURE
    )
    return Picture(axes, int(row["seed"]), row["edited"] == "yes", things, row["ground"], scores)


def filled(study: str, text: str, pictures: Pictures) -> str:
    """A study's text with the numbers of its results; ValueError for a sentence that is not in it, or does not hold."""
    wrong: list[str] = []
    for claim in CLAIMS.get(study, ()):
        if not claim.pattern().search(text):
            wrong.append(f"{study}: the text does not say: {claim.says}")
            continue
        figures = claim.figures(pictures)
        told = claim.filled(figures)
        if not claim.holds(*figures):
            wrong.append(f"{study}: does not hold any more: {told}")

        def put(found: re.Match[str], told: str = told) -> str:
            first = told[0].upper() if found[0][0].isupper() else told[0]
            return first + told[1:]

        text = claim.pattern().sub(put, text)
    if wrong:
        raise ValueError("\n".join(wrong))
    return text


def shares(parts: Iterable[int]) -> list[int]:
    """Numbers, as a list."""
    return list(parts)


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "puppy_and_skunk": (
        Claim(
            "{} puppies up to 0.35, {} and {} skunks at 0.5, {} skunks from 0.65 on",
            lambda t: (
                t(weight=0.35).n("puppy"),
                t(weight=0.5).n("puppy"),
                t(weight=0.5).n("skunk"),
                t(weight=0.65).n("skunk"),
            ),
            lambda early, half, other, late: early >= 7 and late >= 7 and half > other > 0,
        ),
    ),
}
