"""What the studies say was seen, as sentences that figures have to bear out.

Each study's pictures are kept as a small table, docs/studies/NAME.csv: the settings that vary, the seed, what the
detector sees, a few scores. A `Claim` quotes a piece of the study's text, with holes in the place of its numbers; the
figures come from the table, and `holds` says what has to be true of them for the sentence to stand. `docs/studies.py`
fills the holes and refuses a page of which a sentence no longer holds; `tests/test_docs.py` does the same.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    rates: Mapping[tuple[str, str, str, str], tuple[int, int, float, float]] = field(default_factory=dict, repr=False)

    def rate(self, study: str, edit: str, judged: str, prompt: str = "") -> tuple[float, float, float]:
        """A rate of docs/rates.py in percent, with its 95 % interval; `prompt` is a piece of what was drawn."""
        hits, seeds, low, high = self._rate(study, edit, judged, prompt)
        return 100 * hits / seeds, low, high

    def hits(self, study: str, edit: str, judged: str, prompt: str = "") -> int:
        """The same as how many seeds."""
        return self._rate(study, edit, judged, prompt)[0]

    def _rate(self, study: str, edit: str, judged: str, prompt: str) -> tuple[int, int, float, float]:
        asked = (study, edit, judged)
        (found,) = [
            value for (one, text, *rest), value in self.rates.items() if (one, *rest) == asked and prompt in text
        ]
        return found

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
    """The table of a study, and the rates of all studies that stand beside it."""
    with path.with_name("rates.csv").open(encoding="utf-8", newline="") as file:
        rates = {
            (row["study"], row["prompt"], row["edit"], row["judged"]): (
                int(row["hits"]),
                int(row["seeds"]),
                float(row["low"]),
                float(row["high"]),
            )
            for row in csv.DictReader(file)
        }
    with path.open(encoding="utf-8", newline="") as file:
        return Pictures(tuple(map(_picture, csv.DictReader(file))), rates)


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
            return told[0].upper() + told[1:] if found[0][0].isupper() else told[0].lower() + told[1:]

        text = claim.pattern().sub(put, text)
    if wrong:
        raise ValueError("\n".join(wrong))
    return text


def right(one: str, other: str) -> Callable[[Picture], bool]:
    """Whether the first of two things stands above the second."""
    return lambda picture: picture.above(one, other)


def turned(upper: str, *lower: str) -> Callable[[Picture], bool]:
    """Whether of two things one that should be above is in the lower half, or the other (by its words) in the upper."""
    return lambda picture: (
        any(thing.y > 64 for thing in picture.of(upper)[:1])
        or any(thing.y < 64 for word in lower for thing in picture.of(word)[:1])
    )


def as_asked(picture: Picture) -> bool:
    """Whether "a picture of a WORD on GROUND" shows both."""
    *_, word, _, ground = picture.axes["prompt"].split()
    return bool(picture.of(word)) and picture.ground == ground


def nearest(pictures: Pictures, weight: float) -> Pictures:
    """The pictures of the weight that a search tried nearest to one."""
    tried = {float(p.axes["weight"]) for p in pictures()}
    return pictures(weight=min(tried, key=lambda one: abs(one - weight)))


def shows(*words: str) -> Callable[[Picture], bool]:
    """Whether all of these are there."""
    return lambda picture: all(picture.of(word) for word in words)


def many(word: str, count: int) -> Callable[[Picture], bool]:
    """Whether so many of a word are there, and nothing else."""
    return lambda picture: len(picture.of(word)) == len(picture.things) == count


HALF, MORE = "A picture of a fox and a (star:0.5)", "A picture of a fox and a (star:1.5)"
EMPTIED = '{"prompt": "", "rows": {"role": "pad"}}'
WORDS_END = '[{"role": "words"}, {"role": "eos"}]'
WORDS_PAD = '[{"role": "words"}, {"role": "pad"}]'
END_PAD = '[{"role": "eos"}, {"role": "pad"}]'
APPLE = {"apple": "yellow", "heart": "green"}
HEART, PAD = "a green heart → a green heart (hidden states)", "role pad → 'a yellow apple' (role pad) (hidden states)"
UMBRELLA = "a green umbrella → a green umbrella (hidden states)"
SHIRT = f"{UMBRELLA}, role pad → 'a purple shirt' (role pad) (hidden states)"
ANIMAL, VEHICLE = " + 1 (1 animal -1 vehicle)", " + 1 (1 vehicle -1 animal)"
CLAIMS: dict[str, tuple[Claim, ...]] = {
    "alternation": (
        Claim(
            "by the eye {} of six are puppies where the puppy begins, {} where the cat does",
            lambda t: (
                t(values='["puppy", "cat"]', every=1).n("puppy"),
                t(values='["cat", "puppy"]').n("puppy"),
            ),
            lambda puppy, cat: puppy >= 4 and cat <= 1,
        ),
    ),
    "arithmetic": (
        Claim(
            "the boat becomes an animal on {:.0f} % (95 % interval {:.0f} to {:.0f}) and stays a vehicle on {}",
            lambda t: (
                *t.rate("arithmetic", f"boat{ANIMAL}", "animal"),
                t.hits("arithmetic", f"boat{ANIMAL}", "vehicle"),
            ),
            lambda rate, low, high, vehicles: low > 40 and vehicles <= 2,
        ),
        Claim(
            "The fish becomes a vehicle on {:.0f} % ({:.0f} to {:.0f})",
            lambda t: t.rate("arithmetic", f"fish{VEHICLE}", "vehicle"),
            lambda rate, low, high: low > 50,
        ),
        Claim(
            "the plane an animal on {:.0f} %, mostly a cat, and stays a plane on {} seeds",
            lambda t: (
                t.rate("arithmetic", f"plane{ANIMAL}", "animal")[0],
                t.hits("arithmetic", f"plane{ANIMAL}", "vehicle"),
            ),
            lambda rate, planes: rate > 50 and planes <= 8,
        ),
        Claim(
            "The same direction the other way, toward the kind that a thing has already, changes next to nothing",
            lambda t: (
                t(prompt="a boat", direction='{"vehicle": 1, "animal": -1}').n("boat"),
                t(prompt="a plane", direction='{"vehicle": 1, "animal": -1}').n("plane"),
                t(prompt="a fish", direction='{"animal": 1, "vehicle": -1}').n("fish"),
            ),
            lambda *seeds: min(seeds) >= 4,
        ),
    ),
    "breaks": (
        Claim(
            "by the eye both things are hearts or both are green on {} of six seeds",
            lambda t: (
                t(prompt="a yellow apple and a green heart").n(
                    lambda p: len(p.of("heart")) == 2 or [thing.colour for thing in p.things] == ["green", "green"]
                ),
                t(prompt="a yellow apple BREAK a green heart").n(
                    lambda p: [thing.colour for thing in p.things] == ["green", "green"]
                ),
            ),
            lambda before, after: before >= 3 > after,
        ),
        Claim(
            "yellow apples on {} of six",
            lambda t: (t(prompt="a yellow apple and a BREAK green heart").n(lambda p: p.coloured(apple="yellow")),),
            lambda seeds: seeds >= 5,
        ),
    ),
    "colour_leaks": (
        Claim(
            "As written both colours are right on {:.0f} % of seeds (95 % interval {:.0f} to {:.0f}, n = 24, by the "
            "eye)",
            lambda t: t.rate("colour_leaks", "as written", "both colours", "apple"),
            lambda rate, low, high: rate < 40,
        ),
        Claim(
            'The heart\'s three rows taken from "a green heart" alone give {:.0f} % ({:.0f} to {:.0f}), the '
            'padding taken from "a yellow '
            'apple" {:.0f} % ({:.0f} to {:.0f}), and both together {:.0f} % ({:.0f} to {:.0f})',
            lambda t: (
                *t.rate("colour_leaks", HEART, "both colours"),
                *t.rate("colour_leaks", PAD, "both colours"),
                *t.rate("colour_leaks", f"{HEART}, {PAD}", "both colours"),
                t.rate("colour_leaks", "as written", "both colours", "apple")[0],
            ),
            lambda heart, a, b, pad, c, d, both, e, f, none: none < pad < both and heart < both and both > 60,
        ),
        Claim(
            "the same edits bring {:.0f} of 12 to {:.0f}",
            lambda t: (
                t.hits("colour_leaks", "as written", "both colours", "shirt"),
                t.hits("colour_leaks", SHIRT, "both colours"),
            ),
            lambda before, after: after > before,
        ),
        Claim(
            "half the way does most of it",
            lambda t: [
                t(**{"operators.heart.weight": weight, "operators.pad.weight": weight}).n(lambda p: p.coloured(**APPLE))
                for weight in (0, 0.5, 1)
            ],
            lambda none, half, whole: half - none >= (whole - none) / 2 > 0,
        ),
    ),
    "concept": (
        Claim(
            "a puppy on {} of six seeds by the eye",
            lambda t: (t(prompt="A picture of a <mine>").n("puppy"), t(prompt="A picture of a dog").n("dog")),
            lambda puppies, dogs: puppies >= 5 and dogs >= 5,
        ),
        Claim(
            "Half a fox in the row changes nothing but a snout",
            lambda t: (t(prompt="A picture of a {<mine>|fox}").n("puppy"),),
            lambda puppies: puppies >= 5,
        ),
        Claim(
            "above a boat it is never drawn, two boats are, and two of it are one",
            lambda t: (
                t(prompt="A picture of a <mine> above a boat").n("puppy"),
                t(prompt="A picture of a <mine> above a boat").n(many("boat", 2)),
                t(prompt="A picture of two <mine> on blue").n(many("puppy", 1)),
            ),
            lambda puppies, boats, single: not puppies and boats >= 4 and single >= 5,
        ),
    ),
    "counting": (
        Claim(
            'two are drawn on {:.0f} % (95 % interval {:.0f} to {:.0f}), with "three" three on {:.0f} % ({:.0f} '
            'to {:.0f}), with "four" '
            "four on {:.0f} % ({:.0f} to {:.0f})",
            lambda t: (
                *t.rate("counting", "as written", "2 stars"),
                *t.rate("counting", "two → 1 three", "3 stars"),
                *t.rate("counting", "two → 1 four", "4 stars"),
            ),
            lambda two, a, b, three, c, d, four, e, f: min(two, three, four) > 75,
        ),
        Claim(
            "a quarter of the way from two to four lies three, on {:.0f} % ({:.0f} to {:.0f})",
            lambda t: t.rate("counting", "two → 0.25 four", "3 stars"),
            lambda rate, low, high: low > 60,
        ),
        Claim(
            'But "one" leaves two on {:.0f} %',
            lambda t: t.rate("counting", "two → 1 one", "2 stars"),
            lambda rate, low, high: low > 60,
        ),
        Claim(
            "half way four already",
            lambda t: (
                t(toward="four", weight=0.25).n(many("star", 3)),
                t(toward="four", weight=0.5).n(many("star", 4)),
            ),
            lambda quarter, half: quarter >= 4 and half >= 4,
        ),
    ),
    "demo": (
        Claim(
            'with 64 seeds "a cat above a dog" turns over on {:.0f} %',
            lambda t: t.rate("turned_over", "cat ↔ dog (position rows)", "below"),
            lambda rate, low, high: low > 85,
        ),
        Claim(
            "and on {} of them the eye finds both things turned over",
            lambda t: (t().n(lambda p: p.above(p.axes["by"], p.axes["rows"])),),
            lambda seeds: seeds >= 15,
        ),
    ),
    "guidance": (
        Claim(
            "is a puppy on {} seeds and a cat on {} at every scale up to 4",
            lambda t: (
                min(t(scale=scale).n("puppy") for scale in (1, 2, 4)),
                min(t(scale=scale).n("cat") for scale in (1, 2, 4)),
                *(t(scale=scale).n("puppy") for scale in (1, 2, 4)),
            ),
            lambda puppies, cats, *by_scale: puppies > cats and max(by_scale) == puppies,
        ),
        Claim(
            "at 16 the eye calls {} of six a puppy and {} a cat",
            lambda t: (t(scale=16).n("puppy"), t(scale=16).n("cat")),
            lambda puppies, cats: puppies + cats <= 2,
        ),
    ),
    "guiders": (
        Claim(
            "ten of the eleven keep the puppy of each seed",
            lambda t: (t().n("puppy"), len(t())),
            lambda puppies, pictures: puppies == pictures,
        ),
        Claim(
            "its ground is gray or beige on {} of four seeds",  # the eye calls beige yellow
            lambda t: [t(guidance=guider).n(lambda p: p.ground in ("gray", "yellow")) for guider in ("apg", "default")],
            lambda apg, default: apg >= 3 and not default,
        ),
    ),
    "image_to_image": (
        Claim("By step 8 of 25 for {} of six seeds", lambda t: (t(step=8).n("cat"),), lambda cats: cats >= 5),
        Claim(
            "From step 12 on {} are puppies still",
            lambda t: (t(step=12).n("puppy"), t(step=12).n("cat")),
            lambda puppies, cats: 0 < puppies < 6 and cats < 6,
        ),
        Claim("from 16 on the puppy stays", lambda t: (t(step=[16, 20]).n("puppy"),), lambda puppies: puppies == 12),
    ),
    "inverted": (
        Claim(
            "it comes back, with {:.1f} dB at guidance 4 where the empty prompt stands for none (a broader head, "
            "the spot in "
            "place), {:.1f} with the drawing's own prompt there and {:.1f} with null texts; the autoencoder alone "
            "reaches "
            "{:.1f}",
            lambda t: (
                *(t(unconditional=way).mean("round_trip/psnr") for way in ("own", "prompt", "null_text")),
                t().mean("round_trip/decoded"),
            ),
            lambda own, prompt, null, most: own < 28 < prompt <= null <= most,
        ),
        Claim(
            "The eye says cat, bear and ground in all of them",
            lambda t: (t().n(as_asked),),
            lambda pictures: pictures == 12,
        ),
    ),
    "layers": (
        Claim(
            "The object is there after the first of four layers",
            lambda t: (t(prompt="A picture of a puppy", skip=3).n("puppy"),),
            lambda seeds: seeds >= 5,
        ),
        Claim(
            "but two puppies on {} of six seeds, as if nobody had counted, and on {} after the second; from the "
            "third on "
            "(1 skipped) it is one",
            lambda t: (
                t(prompt="A picture of a puppy", skip=3).n(many("puppy", 2)),
                t(prompt="A picture of a puppy", skip=2).n(many("puppy", 2)),
                t(prompt="A picture of a puppy", skip=[0, 1]).n(many("puppy", 1)),
            ),
            lambda first, second, later: first >= 4 and second >= 4 and later >= 11,
        ),
        Claim(
            "the eye finds both so on {} of six seeds, and with all four on {}",
            lambda t: (
                t(prompt="a fox above a boat", skip=1).n(right("fox", "boat")),
                t(prompt="a fox above a boat", skip=0).n(right("fox", "boat")),
                t(prompt="a fox above a boat", skip=1).n(right("boat", "fox")),
            ),
            lambda third, fourth, turned: third >= 3 and fourth >= 5 and not turned,
        ),
    ),
    "lerp_and_slerp": (
        Claim(
            "{} puppies at 0.35, {} skunks at 0.65, and at 0.5 {} seed that has turned",
            lambda t: (
                t(weight=0.35, path="lerp").n("puppy"),
                t(weight=0.65, path="lerp").n("skunk"),
                t(weight=0.5, path="lerp").n("skunk"),
            ),
            lambda early, late, half: early >= 5 and late >= 5 and half <= 2,
        ),
        Claim(
            "Only the arc for each row is a little later, on {} seed at 0.5 and on another at 0.65",
            lambda t: (
                t(weight=0.5, path="lerp").n("skunk") - t(weight=0.5, path="slerp").n("skunk"),
                t(weight=0.65, path="slerp").n("puppy"),
                t(weight=0.65, path="slerp_whole").n("puppy"),
            ),
            lambda half, late, whole: half == 1 and late == 1 and not whole,
        ),
    ),
    "long_prompt": (
        Claim(
            "Both ways of joining draw the apple on blue for {} of six seeds",
            lambda t: [
                t(join=join).n(lambda p: bool(p.of("apple")) and p.ground == "blue") for join in ("windows", "run")
            ],
            lambda windows, run: min(windows, run) >= 5,
        ),
        Claim("truncation never saw it", lambda t: (t(join="truncate").n("apple"),), lambda seeds: seeds <= 1),
    ),
    "looked_at": (
        Claim(
            "The map of car and the mask of the car have {:.0f} % in common (intersection over union), that of red "
            "{:.0f} %",
            lambda t: [100 * t().mean(f"attention/iou/{word}") for word in ("car", "red", "gray")],
            lambda car, red, gray: min(car, red) > 30 and gray < 10,
        ),
        Claim(
            "the {:.0f} % are with the masks of both objects",
            lambda t: (100 * t().mean("attention/iou/puppy"), t().n("puppy")),
            lambda puppy, there: puppy < 25 and not there,
        ),
    ),
    "mixes": (
        Claim(
            "draw the same picture on every seed, a puppy on {} of six and a cat on {}",
            lambda t: (
                t(name="mixed in place").n("puppy"),
                t(name="mixed in place").n("cat"),
                t(name="blended").n("puppy"),
                t(name="blended").n("cat"),
            ),
            lambda puppies, cats, *blended: (puppies, cats) == blended and puppies + cats == 6,
        ),
    ),
    "mixing": (
        Claim(
            "Half cat is a puppy on {} seeds and a cat on {}; a third each of puppy, cat and fox is a puppy on {}; "
            "a quarter each "
            "of four is a puppy on {} and a fox on {}; and a third each of cat, fox and owl, with nothing left of "
            "the puppy, is "
            "a fox on {} of six, with a small owl above it on {}",
            lambda t: (
                t(weight="[0.5, 0, 0]").n("puppy"),
                t(weight="[0.5, 0, 0]").n("cat"),
                t(weight="[0.33, 0.33, 0]").n("puppy"),
                t(weight="[0.25, 0.25, 0.25]").n("puppy"),
                t(weight="[0.25, 0.25, 0.25]").n("fox"),
                t(weight="[0.33, 0.33, 0.34]").n("fox"),
                t(weight="[0.33, 0.33, 0.34]").n("owl"),
            ),
            lambda half, cat, third, quarter, fox, none, owl: min(half, third) > 3 and quarter > fox and none >= 5,
        ),
        Claim("0.7 owl is an owl", lambda t: (t(weight="[0.1, 0.1, 0.7]").n("owl"),), lambda owls: owls >= 5),
    ),
    "more_blue": (
        Claim(
            "The eye finds a puppy on {} of four seeds at each scale",
            lambda t: (min(t(scale=scale).n("puppy") for scale in (0, 10, 30, 100, 300)),),
            lambda least: least >= 3,
        ),
    ),
    "no_order": (
        Claim(
            "the ground stays yellow on {}",
            lambda t: (t(operators='["reverse"]').n(lambda p: p.ground == "yellow"),),
            lambda seeds: seeds >= 3,
        ),
        Claim(
            "the ground loses its yellow on {} of six seeds",
            lambda t: (t(operators='["shuffle"]').n(lambda p: p.ground != "yellow"),),
            lambda seeds: seeds >= 5,
        ),
        Claim(
            "With all rows at one place the ground stays",
            lambda t: (t(operators='["freeze"]').n(lambda p: p.ground == "yellow"), t(operators='["freeze"]').n("fox")),
            lambda seeds, foxes: seeds >= 5 and not foxes,
        ),
    ),
    "noise_dose": (
        Claim(
            "a random vector twice as long as the word's own leaves a puppy on {} of six seeds",
            lambda t: (t(amount=2).n("puppy"), t(amount=3).n("puppy")),
            lambda twice, thrice: twice >= 5 and thrice <= 2,
        ),
        Claim(
            "{} seed keeps its puppy whatever is added",
            lambda t: (min(t(amount=amount).n("puppy") for amount in (3, 4, 6, 8)),),
            lambda seeds: seeds == 1,
        ),
    ),
    "norm_dose": (
        Claim(
            "from a quarter to eight times its length the word is the same puppy on {} of six seeds",
            lambda t: (min(t(by=by).n("puppy") for by in (0.25, 0.5, 2, 4, 8)),),
            lambda seeds: seeds >= 5,
        ),
        Claim(
            "At 0, where nothing is left of the word but its position",
            lambda t: (t(by=[-1, 0]).n("puppy"),),
            lambda puppies: not puppies,
        ),
    ),
    "positions": (
        Claim(
            "at 0.4 {} is turned over, at 0.5 {}, at 0.6 {}, from 0.75 on {}, also 1.5 times the way",
            lambda t: (
                *(t(weight=weight).n(turned("fox", "boat", "train")) for weight in (0.4, 0.5, 0.6)),
                min(t(weight=weight).n(turned("fox", "boat", "train")) for weight in (0.75, 1, 1.5)),
                t(weight=0.25).n(turned("fox", "boat", "train")),
            ),
            lambda first, half, third, late, quarter: quarter == 0 <= first <= half <= third <= late and late >= 5,
        ),
        Claim(
            "on {} seeds it is a locomotive, which nobody named",
            lambda t: (t(weight=0.5).n("train"), t(weight=1).n("train")),
            lambda half, whole: half >= 3 and not whole,
        ),
    ),
    "prompt_to_prompt": (
        Claim(
            "a puppy is drawn on {} of three seeds (by the eye {:.0f} to 100 %)",
            lambda t: (
                min(t(rows=5, end=end).n("puppy") for end in (0, 0.8)),
                100 * min(p.of("puppy")[0].probability for p in t(rows=5)),
            ),
            lambda seeds, least: seeds == 3 and least > 70,
        ),
        Claim(
            "draws the cat on all {}, and shifts and reshapes the star beside it (similarity to the unedited "
            "picture {:.2f}, "
            "SSIM)",
            lambda t: (
                t(rows='{"role": "all"}', end=0).n("cat"),
                t(rows='{"role": "all"}', end=0).mean("change/ssim"),
            ),
            lambda cats, ssim: cats == 3 and ssim < 0.78,
        ),
        Claim(
            "the cat takes the puppy's place and shape ({:.2f})",
            lambda t: (
                t(rows='{"role": "all"}', end=0.8).mean("change/ssim"),
                t(rows='{"role": "all"}', end=0).mean("change/ssim"),
                t(rows='{"role": "all"}', end=0.8).n("cat"),
            ),
            lambda kept, free, cats: kept > free + 0.04 and cats == 3,
        ),
    ),
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
        Claim(
            "half way lies one animal or the other, whole, and hardly ever a mixture",
            lambda t: (t(weight=0.5).n(lambda p: len(p.things) == 1 and p.things[0].probability > 0.9),),
            lambda sure: sure >= 7,
        ),
    ),
    "puppy_to_cat": (
        Claim(
            "The eye finds the new word on {:d} of 8 seeds, for cat, owl and rocket alike, and a puppy on {}",
            lambda t: (min(t(by=word).n(word) for word in ("cat", "owl", "rocket")), t().n("puppy")),
            lambda found, puppies: found >= 7 and not puppies,
        ),
    ),
    "schedulers": (
        Claim(
            "the eye finds a cat on {} of six seeds for each",
            lambda t: (min(t(sampler=sampler).n("cat") for sampler in ("ddim", "pndm", "lms")),),
            lambda cats: cats >= 5,
        ),
    ),
    "search": (
        Claim(
            "{} of eight seeds are puppies, {} skunks, and {} is neither. At 0.52 it is {} and {}, at 0.59 {} and {}",
            lambda t: (
                nearest(t, 0.54).n("puppy"),
                nearest(t, 0.54).n("skunk"),
                nearest(t, 0.54).n(lambda p: not p.of("puppy") and not p.of("skunk")),
                *(nearest(t, weight).n(word) for weight in (0.52, 0.59) for word in ("puppy", "skunk")),
            ),
            lambda puppies, skunks, neither, p52, s52, p59, s59: p52 > puppies >= p59 and s52 < skunks <= s59,
        ),
    ),
    "stretched": (
        Claim(
            "The puppy bears any stretch, {} of six up to 16 times",
            lambda t: (min(t(factor=factor).n("puppy") for factor in (1.5, 2, 4, 8, 16)),),
            lambda puppies: puppies >= 5,
        ),
        Claim(
            "yellow up to 4 times, lost on all {} seeds at 8 (each takes the ground that it would have had unasked) "
            "and back on "
            "all at 16",
            lambda t: (
                t(factor=8).n(lambda p: p.ground != "yellow"),
                t(factor=[1.5, 2, 4]).n(lambda p: p.ground == "yellow"),
                t(factor=16).n(lambda p: p.ground == "yellow"),
            ),
            lambda lost, early, late: lost >= 5 and early >= 17 and late >= 5,
        ),
    ),
    "turned_over": (
        Claim(
            "the eye finds both, the cat above, on {:.0f} % as written (95 % interval {:.0f} to {:.0f}); both, the "
            "dog above, on {:.0f} % "
            "with the position rows swapped ({:.0f} to {:.0f}) and on {:.0f} % with the token rows swapped ({:.0f} "
            "to {:.0f}); with both "
            "swapped the cat is above on {:.0f} % ({:.0f} to {:.0f})",
            lambda t: (
                *t.rate("turned_over", "as written", "above"),
                *t.rate("turned_over", "cat ↔ dog (position rows)", "below"),
                *t.rate("turned_over", "cat ↔ dog", "below"),
                *t.rate("turned_over", "cat ↔ dog (token and position rows)", "above"),
            ),
            lambda *rates: min(rates[0], rates[3], rates[6], rates[9]) > 85,
        ),
        Claim(
            "No picture of these 320 stood the other way than its rows say",
            lambda t: (
                t.hits("turned_over", "as written", "below"),
                t.hits("turned_over", "cat ↔ dog (position rows)", "above"),
                t.hits("turned_over", "cat ↔ dog", "above"),
                t.hits("turned_over", "cat ↔ dog (token and position rows)", "below"),
                t.hits("turned_over", "cat ↔ dog (hidden states)", "below"),
            ),
            lambda *wrong: not any(wrong),
        ),
        Claim(
            "The two position rows swapped, and nothing else, turn {} of six pictures over",
            lambda t: (t(stage="position").n(right("house", "balloon")),),
            lambda seeds: seeds >= 5,
        ),
        Claim(
            "The two hidden states swapped change no pixel",
            lambda t: (min(t(stage="hidden").values("change/ssim")),),
            lambda least: least > 0.9999,
        ),
    ),
    "weightings": (
        Claim(
            "At a half, comfy++, down_weight and compel leave no star on {} of six seeds",
            lambda t: (6 - max(t(prompt=HALF, weighting=w).n("star") for w in ("comfy++", "down_weight", "compel")),),
            lambda without: without >= 5,
        ),
        Claim(
            "keeps it on {}, A1111 on {}",
            lambda t: [t(prompt=HALF, weighting=weighting).n("star") for weighting in ("comfyui", "a1111")],
            lambda comfyui, a1111: min(comfyui, a1111) >= 3,
        ),
        Claim(
            "At one and a half comfy++ keeps both on {}, down_weight on {}",
            lambda t: [t(prompt=MORE, weighting=way).n(shows("fox", "star")) for way in ("comfy++", "down_weight")],
            lambda comfy, down: comfy >= 5 and down >= 4,
        ),
        Claim(
            "ComfyUI and compel leave no fox and draw two stars",
            lambda t: [
                *(t(prompt=MORE, weighting=weighting).n("fox") for weighting in ("comfyui", "compel")),
                *(t(prompt=MORE, weighting=weighting).n(many("star", 2)) for weighting in ("comfyui", "compel")),
            ],
            lambda a, b, c, d: a == b == 0 and min(c, d) >= 4,
        ),
        Claim(
            "A1111 draws nothing that was asked for",
            lambda t: [t(prompt=MORE, weighting="a1111").n(word) for word in ("fox", "star")],
            lambda foxes, stars: not foxes and not stars,
        ),
    ),
    "what_carries": (
        Claim(
            "words, end of text or padding alone still draw a puppy on {} of six seeds",
            lambda t: (min(t(by=EMPTIED, rows=rows).n("puppy") for rows in (WORDS_END, WORDS_PAD, END_PAD)),),
            lambda puppies: puppies >= 5,
        ),
        Claim(
            "the padding wins, alone against words and end, on {} of six seeds",
            lambda t: (t(by="A picture of a cat", rows='{"role": "pad"}').n("cat"),),
            lambda cats: cats >= 5,
        ),
        Claim(
            "words and end together win against the padding on {} of six, though each of them alone does on {}",
            lambda t: (
                t(by="A picture of a cat", rows=WORDS_END).n("cat"),
                *(t(by="A picture of a cat", rows=f'{{"role": "{role}"}}').n("cat") for role in ("words", "eos")),
            ),
            lambda together, words, end: together >= 4 and max(words, end) <= 2,
        ),
    ),
    "when_decided": (
        Claim(
            "A cat from step 6 of 25 on is a cat on {} of six seeds, from 8 on {}, from 10 on {}, and from 12 on {}",
            lambda t: [t(begin=begin).n("cat") for begin in (6, 8, 10, 12)],
            lambda six, eight, ten, twelve: six >= 5 and six > eight >= ten >= twelve and twelve <= 1,
        ),
        Claim(
            "Ground and place are the puppy's throughout",
            lambda t: [
                sum(p.ground == q.ground for p, q in zip(t(begin=begin), t.as_written, strict=True))
                for begin in (3, 6, 10, 15, 20)
            ],
            lambda *same: min(same) >= 5,
        ),
    ),
    "when_placed": (
        Claim(
            "Swapped from step 4 of 25 on, the boat stands above the fox on {} of six seeds; from step 5 on {}, "
            "from 6 on {}, from 8 on {}",
            lambda t: [t(begin=begin).n(turned("fox", "boat")) for begin in (4, 5, 6, 8)],
            lambda four, five, six, eight: four >= 5 and four > five >= six >= eight and eight <= 1,
        ),
    ),
    "where_cut": (
        Claim(
            "Cut hard there is no fox on {} of six seeds and a boat on {}",
            lambda t: (6 - t(windows="hard").n("fox"), t(windows="hard").n("boat")),
            lambda without, boats: without >= 5 and boats <= 2,
        ),
        Claim(
            "both are there on {} of six, the fox above",
            lambda t: [t(windows=way).n(right("fox", "boat")) for way in ("comma", "whole")],
            lambda comma, whole: min(comma, whole) >= 4,
        ),
        Claim(
            "is blue on {} of six",
            lambda t: (t(windows="comma").n(lambda p: p.ground == "blue"),),
            lambda blue: blue <= 2,
        ),
    ),
    "which_block": (
        Claim(
            "told of a mug there alone, both seeds are a red mug",
            lambda t: (
                t(by="a red mug on white", blocks='["up.0.0"]').n(lambda p: p.coloured(mug="red")),
                t(by="a blue car on white", blocks='["up.0.0"]').n(lambda p: p.coloured(car="red")),
            ),
            lambda mugs, cars: mugs == cars == 2,
        ),
        Claim(
            "told of a blue car there alone, both are blue cars of the same kind",
            lambda t: (t(by="a blue car on white", blocks='["up.0.1"]').n(lambda p: p.coloured(car="blue")),),
            lambda cars: cars == 2,
        ),
        Claim(
            "of which the eye is sure on {} seed of two",
            lambda t: (t(by="a red mug on white", blocks='["up.0.1"]').n("car"),),
            lambda cars: cars >= 1,
        ),
        Claim(
            "(similarity to the unedited picture {:.2f} to {:.2f})",
            lambda t: (
                min(t(blocks=['["down.1"]', '["down.2"]', '["mid"]']).values("change/ssim")),
                max(t(blocks=['["down.1"]', '["down.2"]', '["mid"]']).values("change/ssim")),
            ),
            lambda least, most: least > 0.85,
        ),
    ),
    "window_not_read": (
        Claim(
            "Without the first there is neither fox nor boat on {} of six seeds",
            lambda t: (t(rows='{"window": 0}').n(lambda p: not p.of("fox") and not p.of("boat")),),
            lambda seeds: seeds >= 5,
        ),
        Claim(
            "Without the second fox and boat stand as they stood, on {} grounds of their own",
            lambda t: (
                t(rows='{"window": 1}').n(lambda p: p.ground != "yellow"),
                t(rows='{"window": 1}').n("fox"),
                t(rows='{"window": 1}').n("boat"),
            ),
            lambda grounds, foxes, boats: min(grounds, foxes, boats) >= 5,
        ),
        Claim(
            "Without the third all is there but the cartoon",
            lambda t: (
                t(rows='{"window": 2}').n(lambda p: p.ground == "yellow"),
                t(rows='{"window": 2}').n("fox"),
            ),
            lambda yellow, foxes: min(yellow, foxes) >= 5,
        ),
    ),
}
