"""Draw the sheets of the default model's card: every word in both styles, and every relation, colour, count and kind.

python docs/card.py        # some 220 pictures: about three minutes on two cores
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import embedlab as lab
from embedlab.images import sheet, to_pil
from embedlab.pretrain.captions import NUMBERS, article, plural
from embedlab.pretrain.drawings import COLOURS, KINDS, WORDS
from embedlab.pretrain.world import RELATIONS

FOLDER = Path(__file__).parent.parent / "embedlab" / "weights" / "emoji"
ACROSS = 16
PAIRS = [("cat", "dog"), ("apple", "car"), ("rocket", "tree"), ("robot", "balloon"), ("panda", "house")]


def drawn(model: lab.Model, prompts: Sequence[str], seeds: Sequence[int]) -> list[list[Image.Image]]:
    """The pictures of each prompt, one a seed."""
    return [to_pil(rendered.pictures) for rendered in lab.render(model, [lab.Cell(p) for p in prompts], seeds)]


def words(model: lab.Model) -> Image.Image:
    """Each word as the 3d style and as the cartoon: sixteen across, two rows a line of words."""
    names, rows, labels = list(WORDS), [], []
    by_style = [
        [one[0] for one in drawn(model, [f"a picture of {article(word)}, {style}" for word in names], [0])]
        for style in ("3d", "cartoon")
    ]
    for start in range(0, len(names), ACROSS):
        for style, pictures in zip(("3d", "cartoon"), by_style, strict=True):
            rows.append(pictures[start : start + ACROSS])
            labels.append(style)
    return sheet(rows, [""] * ACROSS, labels, "every word, in the order of concepts.json", side=80)


def relations(model: lab.Model) -> Image.Image:
    """Each relation for some pairs of words, the first seed of each."""
    prompts = [[f"{article(a)} {relation} {article(b)}" for a, b in PAIRS] for relation in RELATIONS]
    pictures = [[one[0] for one in drawn(model, row, [0])] for row in prompts]
    columns = [f"{article(a)}, {article(b)}" for a, b in PAIRS]
    return sheet(pictures, columns, list(RELATIONS), "relations: the first … the second")


def more(model: lab.Model) -> Image.Image:
    """Colours of an object, counts, and what a kind comes to."""
    columns = list(COLOURS)
    rows = {
        "a … car": [f"a picture of {article(f'{colour} car')}" for colour in columns],
        "a … mug": [f"a picture of {article(f'{colour} mug')}" for colour in columns],
        "one to four stars, one to three apples": [
            *(f"{NUMBERS[n]} {'star' if n == 1 else plural('star')}" for n in (1, 2, 3, 4)),
            *(f"{NUMBERS[n]} {'apple' if n == 1 else plural('apple')}" for n in (1, 2, 3)),
        ],
    }
    shown = {label: [one[0] for one in drawn(model, prompts, [0])] for label, prompts in rows.items()}
    for kind in list(KINDS)[:4]:
        shown[article(kind)] = drawn(model, [f"a picture of {article(kind)}"], range(len(columns)))[0]
    return sheet(list(shown.values()), columns, list(shown), "colours, counts, kinds (seeds 0 to 6)")


if __name__ == "__main__":
    default = lab.load("emoji")
    for name, make in {"words": words, "relations": relations, "more": more}.items():
        make(default).save(FOLDER / f"{name}.jpg", quality=85, subsampling=0)
