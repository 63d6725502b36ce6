"""Emoji scenes and their captions: what the default model is taught to draw.

A scene is one object, or two in a stated relation, on a coloured ground, drawn in one of two styles.
The art comes from two openly licensed emoji sets (see NOTICE); it is fetched, never committed.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 128

# word people type → emoji name in both sets; every word is one token of CLIP's vocabulary
WORDS = {
    "puppy": "dog-face",
    "cat": "cat-face",
    "skunk": "skunk",
    "dog": "dog",
    "fox": "fox",
    "bear": "bear",
    "panda": "panda",
    "pig": "pig-face",
    "frog": "frog",
    "lion": "lion",
    "rabbit": "rabbit-face",
    "owl": "owl",
    "penguin": "penguin",
    "turtle": "turtle",
    "fish": "tropical-fish",
    "octopus": "octopus",
    "bee": "honeybee",
    "butterfly": "butterfly",
    "elephant": "elephant",
    "apple": "red-apple",
    "banana": "banana",
    "strawberry": "strawberry",
    "carrot": "carrot",
    "mushroom": "mushroom",
    "pizza": "pizza",
    "donut": "doughnut",
    "car": "automobile",
    "rocket": "rocket",
    "robot": "robot",
    "house": "house",
    "castle": "castle",
    "tree": "deciduous-tree",
    "cactus": "cactus",
    "sunflower": "sunflower",
    "star": "star",
    "heart": "red-heart",
    "balloon": "balloon",
    "crown": "crown",
    "umbrella": "umbrella",
    "guitar": "guitar",
    "ghost": "ghost",
}
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
STYLES = {  # npm package of the set → how a prompt may ask for it
    "fluent-emoji": ("3d", "3d render", "in 3d"),
    "noto": ("cartoon", "flat cartoon", "as a cartoon"),
}
LEADS = ("a picture of ", "a photo of ", "a drawing of ", "an image of ", "")
ON = ("on {}", "on a {} background", "on {} ground")
RELATIONS = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}  # axis, order
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
)


@dataclass(frozen=True)
class Scene:
    """What is on the picture: `words` drawn in `style` on `ground`; `relation` of the first word to the second."""

    words: tuple[str, ...]
    style: str
    ground: str
    relation: str | None = None


def article(word: str) -> str:
    """`an apple`, `a puppy`."""
    return ("an " if word[0] in "aeiou" and word != "unicorn" else "a ") + word


def fetch_sprites(folder: Path) -> None:
    """Download both emoji sets with npm and draw every word as `folder/style/word.png` (RGBA, 256 px)."""
    for style in STYLES:
        target = folder / style
        if all((target / f"{word}.png").exists() for word in WORDS):
            continue
        import resvg_py  # nothing else needs it

        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", f"@iconify-json/{style}"], cwd=target, check=True)
        with tarfile.open(next(target.glob("*.tgz"))) as tar:
            member = tar.extractfile("package/icons.json")
            assert member is not None
            icons = json.load(member)
        for word, name in WORDS.items():
            parent = icons.get("aliases", {}).get(name, {}).get("parent", name)
            icon = icons["icons"][parent]
            width, height = (icon.get(k) or icons.get(k, 16) for k in ("width", "height"))
            svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
            png = resvg_py.svg_to_bytes(svg_string=svg, width=256, height=256)
            Image.open(io.BytesIO(bytes(png))).convert("RGBA").save(target / f"{word}.png")


def load_sprites(folder: Path) -> dict[tuple[str, str], Image.Image]:
    """All sprites by (style, word), cut to their visible box."""
    sprites = {}
    for style in STYLES:
        for word in WORDS:
            sprite = Image.open(folder / style / f"{word}.png").convert("RGBA")
            sprites[style, word] = sprite.crop(sprite.getchannel("A").getbbox())
    return sprites


def sample(rng: np.random.Generator, two: float = 0.3) -> Scene:
    """Draw a scene at random; a share `two` of them holds two objects."""
    style, ground = rng.choice(list(STYLES)), rng.choice(list(GROUNDS))
    if rng.random() >= two:
        return Scene((str(rng.choice(list(WORDS))),), str(style), str(ground))
    words = tuple(str(w) for w in rng.choice(list(WORDS), 2, replace=False))
    return Scene(words, str(style), str(ground), str(rng.choice(list(RELATIONS))))


def draw(scene: Scene, sprites: dict[tuple[str, str], Image.Image], rng: np.random.Generator) -> Image.Image:
    """Paint a scene, `SIDE` pixels square: places and sizes vary a little, colours hardly."""
    colour = np.clip(np.array(GROUNDS[scene.ground]) + rng.normal(0, 3, 3), 0, 255).astype(np.uint8)
    picture = Image.new("RGB", (SIDE, SIDE), tuple(int(c) for c in colour))
    if scene.relation is None:
        places = [((SIDE / 2, SIDE / 2), (86, 106), 6)]
    else:
        axis, order = RELATIONS[scene.relation]
        ends = [SIDE * 0.27, SIDE * 0.73][::order]
        places = [((at, SIDE / 2) if axis == 0 else (SIDE / 2, at), (50, 60), 3) for at in ends]
    for word, ((x, y), sizes, jitter) in zip(scene.words, places, strict=True):
        sprite = sprites[scene.style, word]
        scale = rng.uniform(*sizes) / max(sprite.size)
        small = sprite.resize(
            (max(1, round(sprite.width * scale)), max(1, round(sprite.height * scale))),
            Image.Resampling.LANCZOS,
            reducing_gap=2.0,
        )
        dx, dy = rng.uniform(-jitter, jitter, 2)
        picture.paste(small, (round(x + dx - small.width / 2), round(y + dy - small.height / 2)), small)
    return picture


def subject(scene: Scene, rng: np.random.Generator) -> str:
    """Name the objects; a stated relation is true and depends on the order of the words."""
    if scene.relation is None:
        return article(scene.words[0])
    first, second = (article(w) for w in scene.words)
    return f"{first} {scene.relation} {second}" if rng.random() < 0.8 else f"{first} and {second}"


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A short caption: lead, objects, colour (three in four) and style (two in three)."""
    text = rng.choice(LEADS) + subject(scene, rng)
    if rng.random() < 0.75:
        text += " " + str(rng.choice(ON)).format(scene.ground)
    if rng.random() < 0.66:
        text += ", " + rng.choice(STYLES[scene.style])
    return str(text)


def long_caption(scene: Scene, rng: np.random.Generator, clauses: int) -> str:
    """The caption set anywhere among `clauses` neutral ones; twenty clauses fill about three windows."""
    parts = [str(rng.choice(NEUTRAL)) for _ in range(clauses)]
    parts.insert(int(rng.integers(clauses + 1)), caption(scene, rng))
    return ", ".join(parts)


def scenes(
    count: int, seed: int, sprites: dict[tuple[str, str], Image.Image], two: float = 0.3
) -> Iterator[tuple[Scene, str, Image.Image]]:
    """`count` scenes with caption and picture, the same for the same seed."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        scene = sample(rng, two)
        yield scene, caption(scene, rng), draw(scene, sprites, rng)
