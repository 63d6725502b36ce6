"""What people would type for a scene: complete, in several forms, in either order of its objects.

The order in which objects are named says nothing about their places: "a cat above a dog" and "a dog below a cat" are
equally likely of the same picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from embedlab.pretrain.drawings import KINDS, STYLES
from embedlab.pretrain.world import OTHER_WAY, Scene, Thing, other_way

START, END, BODY = 49406, 49407, 75

LEADS = (
    *("a picture of ", "a photo of ", "a drawing of ", "an image of ", "there is ", "we see ", "this is "),
    *("a painting of ", "look at "),
)
NUMBERS = ("zero", "one", "two", "three", "four")
PLURALS = {
    "fish": "fish",
    "puppy": "puppies",
    "butterfly": "butterflies",
    "strawberry": "strawberries",
    "octopus": "octopuses",
    "cactus": "cactuses",
    "fox": "foxes",
    "bus": "buses",
}
SAID = {  # other ways to say a relation
    "left of": ("left of", "left of", "to the left of"),
    "right of": ("right of", "right of", "to the right of"),
    "beside": ("beside", "beside", "next to"),
}
NEUTRAL = (
    "it is a quiet day and nothing else is to be seen",
    "the light is soft and even",
    "there is plenty of room around it",
    "the edges are clean and simple",
    "nobody is in a hurry here",
    "this was made with care and a little patience",
    "the view is straight from the front",
    "we look at it for a while and then go on",
    "everything is calm and in its place",
    "the afternoon is warm and slow",
    "it was finished late in the evening",
    "the lines are even and the paper is smooth",
    "some people like it and others do not",
    "no one knows who made it",
)


def article(phrase: str) -> str:
    """`an apple`, `a puppy`, `an orange car`."""
    return ("an " if phrase[0] in "aeiou" and phrase != "unicorn" else "a ") + phrase


def plural(word: str) -> str:
    """`cats`, `foxes`."""
    return PLURALS.get(word, word + "s")


def named(thing: Thing, rng: np.random.Generator, kinds: float = 0.0) -> tuple[str, str]:
    """The words for an object, without its article, and its noun: at times that of a kind."""
    noun = thing.word
    of = [kind for kind, words in KINDS.items() if noun in words]
    if of and rng.random() < kinds:
        noun = str(rng.choice(of))
    return (f"{thing.colour} {noun}" if thing.colour else noun), noun


@dataclass(frozen=True)
class Caption:
    """A text, and the nouns of its objects in the order of mention."""

    text: str
    nouns: tuple[str, ...]


def objects(scene: Scene, rng: np.random.Generator) -> Caption:
    """The objects alone and what is said of their places, all true."""
    n = scene.count
    if len(scene.things) == 1 or n > 1:
        phrase, noun = named(scene.things[0], rng, 0.12)
        if n == 1:
            return Caption(f"one {phrase}" if rng.random() < 0.15 else article(phrase), (noun,))
        number = str(n) if rng.random() < 0.15 else NUMBERS[n]
        return Caption(f"{number} {phrase.removesuffix(noun)}{plural(noun)}", (plural(noun),))
    if rng.random() < 0.5:
        scene = other_way(scene)
    pairs = [named(thing, rng, 0.06) for thing in scene.things]
    words = [article(phrase) for phrase, _ in pairs]
    nouns = tuple(noun for _, noun in pairs)
    said = [None if r is None else str(rng.choice(SAID.get(r, (r,)))) for r in scene.relations]
    if None in said or rng.random() < 0.06:
        link = " with " if len(words) == 2 and rng.random() < 0.2 else " and "
        return Caption(", ".join(words[:-1]) + link + words[-1], nouns)
    form = rng.random()
    if len(words) == 2:
        if form < 0.08:
            return Caption(f"{said[0]} {words[1]} is {words[0]}", nouns[::-1])
        return Caption(f"{words[0]} {said[0]} {words[1]}", nouns)
    if form < 0.4:
        return Caption(f"{words[0]} {said[0]} {words[1]} {said[1]} {words[2]}", nouns)
    if form < 0.7:
        back = OTHER_WAY[str(scene.relations[0])]
        return Caption(f"{words[1]} {back} {words[0]} and {said[1]} {words[2]}", (nouns[1], nouns[0], nouns[2]))
    return Caption(f"{words[0]} {said[0]} {words[1]}, and the {nouns[1]} is {said[1]} {words[2]}", nouns)


def pair(scene: Scene, rng: np.random.Generator) -> str:
    """Two objects in their relation and no word more, but for the ground at times: `a red cup above a dog on blue`."""
    first, second = (article(f"{thing.colour} {thing.word}" if thing.colour else thing.word) for thing in scene.things)
    return f"{first} {scene.relations[0]} {second}" + (f" on {scene.ground}" if rng.random() < 0.4 else "")


def caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """A caption as people write them: a lead or none, the objects, the ground (in most), the style (in some)."""
    body = objects(scene, rng)
    text, style = body.text, str(rng.choice(STYLES[scene.style]))
    lead = str(rng.choice(LEADS)) if rng.random() < 0.6 else ""
    in_style = rng.random()
    if in_style < 0.1:
        lead = article(STYLES[scene.style][1]) + " of "
    ground = rng.random()
    if ground < 0.64:
        text += " " + str(rng.choice(("on {}", "on a {} background", "on {} ground"))).format(scene.ground)
    text = lead + text
    if 0.64 <= ground < 0.74:
        text = f"on a {scene.ground} background, {text}"
    if in_style > 0.7:
        text += f", {style}"
    if rng.random() < 0.12:
        text = f"{rng.choice(NEUTRAL)}, {text}"
    if rng.random() < 0.08:
        text = f"{text}, {rng.choice(NEUTRAL)}"
    case = rng.random()
    return Caption(text.upper() if case < 0.03 else text[0].upper() + text[1:] if case < 0.15 else text, body.nouns)


class Ids:
    """From captions to token ids in windows of 77, as embedlab makes them; pieces between blanks are remembered."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        self._of = lru_cache(maxsize=20_000)(lambda piece: tuple(tokenizer(piece, add_special_tokens=False).input_ids))

    def __call__(self, text: str) -> list[int]:
        """The ids of a text alone."""
        return [i for piece in text.lower().split() for i in self._of(piece)]


def windows(ids: list[int], count: int | None = None) -> Tensor:
    """Ids in windows (window, 77): start, 75 tokens, end, and ends up to 77."""
    parts = [ids[i : i + BODY] for i in range(0, max(len(ids), 1), BODY)][:count]
    return torch.tensor([[START, *part, *[END] * (76 - len(part))] for part in parts])


def long_caption(scene: Scene, rng: np.random.Generator, ids: Ids, total: int, where: int) -> Caption:
    """A caption among neutral clauses that fill `total` windows; what it says stands in the window `where` alone."""
    said = caption(scene, rng)
    room, mine = where * BODY, len(ids(said.text))
    before: list[str] = []
    while (length := len(ids(", ".join(before) + ","))) < room or rng.random() < 0.3:
        if where < total and length >= room and (length % BODY) + mine > BODY - 16:
            break
        before.append(str(rng.choice(NEUTRAL)))
    parts = [*before, said.text]
    end = (total - 1) * BODY + int(rng.integers(1, 60))
    while len(ids(", ".join(parts))) < end:
        parts.append(str(rng.choice(NEUTRAL)))
    return Caption(", ".join(parts), said.nouns)
