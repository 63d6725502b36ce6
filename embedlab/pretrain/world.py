"""Scenes and their pictures: what the default model is taught to draw.

A scene is a function of its number: one object, two or three in stated relations, or one to four of a kind, each with
its place, size and, where it takes one, colour, on a coloured ground, in one of two styles.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from PIL import Image

from embedlab.pretrain.drawings import COLOURED, COLOURS, STYLES, WORDS, Sprites

SIDE = 128
GROUNDS = {
    "white": (246, 246, 244),
    "gray": (150, 153, 158),
    "black": (34, 35, 40),
    "pink": (250, 178, 206),
    "purple": (132, 88, 190),
    "blue": (58, 116, 220),
    "cyan": (104, 210, 226),
    "green": (72, 168, 92),
    "yellow": (250, 216, 92),
    "orange": (245, 150, 56),
}
# what is said of the first object to the second → the same said of the second to the first
RELATIONS = {
    "above": "below",
    "below": "above",
    "left of": "right of",
    "right of": "left of",
    "in front of": "behind",
    "behind": "in front of",
    "bigger than": "smaller than",
    "beside": "beside",
}
OTHER_WAY = RELATIONS | {"smaller than": "bigger than"}
SHARES = {"one": 0.32, "count": 0.18, "two": 0.40, "three": 0.10}


@dataclass(frozen=True)
class Thing:
    """An object on a picture: the middle of its box and the longer side, in pixels; colour None is its own."""

    word: str
    colour: str | None
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Scene:
    """Objects, `relations` of each to the next one, and what they stand on."""

    things: tuple[Thing, ...]
    relations: tuple[str | None, ...]
    style: str
    ground: str

    @property
    def count(self) -> int:
        """How many of one kind; 1 for objects that differ."""
        return len(self.things) if len({thing.word for thing in self.things}) == 1 else 1


def _of_ten(*words: str) -> int:
    return hashlib.sha256(" ".join(words).encode()).digest()[0] % 10


def held_out_pair(a: str, b: str) -> bool:
    """Whether two words are never seen together in training; a tenth of all pairs."""
    return _of_ten(*sorted((a, b))) == 0


def held_out_colour(word: str, colour: str) -> bool:
    """Whether a word is never seen in a colour in training; a tenth of all."""
    return _of_ten(word, colour) == 1


def sample(rng: np.random.Generator, held_out: bool = False, form: str | None = None) -> Scene:
    """A scene at random; `held_out`: one or two objects in a combination of words, or of word and colour, that is never
    trained on.
    """
    form = form or str(rng.choice(list(SHARES), p=list(SHARES.values())))
    style, ground = str(rng.choice(list(STYLES))), str(rng.choice(list(GROUNDS)))
    both = form in ("two", "three") and rng.random() < 0.35  # colours that could bind to the wrong object
    while True:
        words = _words(rng, {"one": 1, "count": 1, "two": 2, "three": 3}[form], both)
        withheld = [held_out_pair(a, b) for a, b in combinations(words, 2)]
        if all(withheld) if held_out and form == "two" else not any(withheld):
            break
    colours = [_colour(rng, word, ground, held_out and len(words) == 1, 1.0 if both else 0.5) for word in words]
    relations: tuple[str | None, ...] = ()
    if form == "count":
        words, colours = words * (n := int(rng.integers(1, 5))), colours * n
        places, relations = _places(rng, n) if n > 1 else _alone(rng), (None,) * (n - 1)
    elif form == "one":
        places = _alone(rng)
    elif form == "two":
        relation = str(rng.choice(list(RELATIONS))) if rng.random() < 0.85 else None
        places, relations = _related(rng, relation), (relation,)
    else:
        places, relations = _three(rng)
    things = tuple(Thing(w, c, *place) for w, c, place in zip(words, colours, places, strict=True))
    return Scene(things, relations, style, ground)


def _words(rng: np.random.Generator, n: int, coloured: bool) -> list[str]:
    return [str(w) for w in rng.choice(COLOURED if coloured else list(WORDS), n, replace=False)]


def _colour(rng: np.random.Generator, word: str, ground: str, held_out: bool, share: float) -> str | None:
    free = [c for c in COLOURS if c != ground and held_out_colour(word, c) == held_out]
    return str(rng.choice(free)) if word in COLOURED and free and rng.random() < share else None


Place = tuple[float, float, float]


def _jitter(rng: np.random.Generator, places: list[tuple[float, float]], sizes: tuple[float, float]) -> list[Place]:
    return [(SIDE * x + rng.uniform(-3, 3), SIDE * y + rng.uniform(-3, 3), rng.uniform(*sizes)) for x, y in places]


def _alone(rng: np.random.Generator) -> list[Place]:
    return [(SIDE / 2 + rng.uniform(-7, 7), SIDE / 2 + rng.uniform(-7, 7), rng.uniform(82, 106))]


def _related(rng: np.random.Generator, relation: str | None) -> list[Place]:
    """Places of two objects of which the first stands in a relation to the second; None: anywhere, nothing said."""
    if relation is None:
        relation = str(rng.choice(["left of", "right of", "above", "below"]))
    if relation == "beside":
        relation = str(rng.choice(["left of", "right of"]))
    if OTHER_WAY[relation] in ("above", "left of", "in front of"):
        return _related(rng, OTHER_WAY[relation])[::-1]
    shift = rng.uniform(-0.06, 0.06)
    if relation == "above":
        return _jitter(rng, [(0.5 + shift, 0.27), (0.5 + shift, 0.73)], (48, 58))
    if relation == "left of":
        return _jitter(rng, [(0.27, 0.5 + shift), (0.73, 0.5 + shift)], (48, 58))
    side = float(rng.choice([-1, 1]))
    if relation == "in front of":
        return _jitter(rng, [(0.5 + 0.13 * side, 0.64), (0.5 - 0.13 * side, 0.37)], (62, 72))
    large, small = (0.5 - 0.18 * side, 0.5 + shift), (0.5 + 0.33 * side, 0.5 - shift)
    return _jitter(rng, [large], (70, 78)) + _jitter(rng, [small], (28, 34))


CORNERS = [(0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)]


def _places(rng: np.random.Generator, n: int) -> list[Place]:
    if n == 2:
        return _related(rng, None)
    if n == 3 and rng.random() < 0.5:
        row = [(x, 0.5) for x in (0.19, 0.5, 0.81)]
        return _jitter(rng, row if rng.random() < 0.7 else [(y, x) for x, y in row], (34, 38))
    return _jitter(rng, [CORNERS[i] for i in rng.permutation(4)[:n]], (46, 54))


def _three(rng: np.random.Generator) -> tuple[list[Place], tuple[str | None, ...]]:
    """The first to the second along one axis, the second to the third along the other; or three anywhere."""
    if rng.random() < 0.4:
        return _places(rng, 3), (None, None)
    middle = int(rng.integers(4))
    beside, over = CORNERS[middle ^ 1], CORNERS[middle ^ 2]
    across, down = ("left of", "right of")[middle & 1], ("above", "below")[middle >> 1]
    # the middle one stands `across` of its neighbour; the first and the third are said to it, and it to the third
    if rng.random() < 0.5:
        return _jitter(rng, [beside, CORNERS[middle], over], (44, 52)), (OTHER_WAY[across], down)
    return _jitter(rng, [over, CORNERS[middle], beside], (44, 52)), (OTHER_WAY[down], across)


def in_order(scene: Scene) -> tuple[Thing, ...]:
    """The objects from the back to the front."""
    return scene.things if scene.relations[:1] == ("behind",) else scene.things[::-1]


def paint(scene: Scene, sprites: Sprites, rng: np.random.Generator) -> Image.Image:
    """Paint a scene, `SIDE` pixels square."""
    colour = np.clip(np.array(GROUNDS[scene.ground]) + rng.normal(0, 3, 3), 0, 255).astype(np.uint8)
    picture = Image.new("RGB", (SIDE, SIDE), tuple(int(c) for c in colour))
    for thing in in_order(scene):
        sprite = sprites[scene.style, thing.word, thing.colour]
        scale = thing.size / max(sprite.size)
        small = sprite.resize(
            (max(1, round(sprite.width * scale)), max(1, round(sprite.height * scale))),
            Image.Resampling.LANCZOS,
            reducing_gap=2.0,
        )
        picture.paste(small, (round(thing.x - small.width / 2), round(thing.y - small.height / 2)), small)
    return picture


def scene_of(number: int, seed: int = 0, held_out: bool = False, form: str | None = None) -> Scene:
    """The scene with a number; the same for the same seed."""
    return sample(np.random.default_rng((seed, number, 0)), held_out, form)


def picture_of(number: int, sprites: Sprites, seed: int = 0, held_out: bool = False) -> Image.Image:
    """The picture of the scene with a number."""
    return paint(scene_of(number, seed, held_out), sprites, np.random.default_rng((seed, number, 1)))


def other_way(scene: Scene) -> Scene:
    """The same picture with its objects named in the other order."""
    relations = tuple(None if r is None else OTHER_WAY[r] for r in reversed(scene.relations))
    return replace(scene, things=scene.things[::-1], relations=relations)


def nearly(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """The scene with its first two objects exchanged, another colour, or another count; None where nothing applies."""
    changes: list[Scene] = []
    first = scene.things[0]
    if scene.relations and scene.relations[0] not in (None, "beside"):
        a, b, *rest = scene.things
        turned = (replace(a, word=b.word, colour=b.colour), replace(b, word=a.word, colour=a.colour), *rest)
        changes.append(replace(scene, things=turned))
    if first.colour is not None:
        colour = str(rng.choice([c for c in COLOURS if c not in (first.colour, scene.ground)]))
        dyed = tuple(replace(t, colour=colour) if t.word == first.word else t for t in scene.things)
        changes.append(replace(scene, things=dyed))
    if len({thing.word for thing in scene.things}) == 1:
        n = int(rng.choice([n for n in range(1, 5) if n != len(scene.things)]))
        places = _places(rng, n) if n > 1 else _alone(rng)
        more = tuple(Thing(first.word, first.colour, *place) for place in places)
        changes.append(replace(scene, things=more, relations=(None,) * (n - 1)))
    return changes[int(rng.integers(len(changes)))] if changes else None
