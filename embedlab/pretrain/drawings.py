"""The drawings that scenes are made of: 64 words in two styles, and the same drawing in another colour.

The art comes from two openly licensed emoji sets (see NOTICE); it is fetched, never committed.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from embedlab.errors import ConfigError
from embedlab.files import written

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
    "horse": "horse-face",
    "cow": "cow-face",
    "monkey": "monkey-face",
    "elephant": "elephant",
    "owl": "owl",
    "penguin": "penguin",
    "duck": "duck",
    "turtle": "turtle",
    "fish": "tropical-fish",
    "whale": "spouting-whale",
    "octopus": "octopus",
    "crab": "crab",
    "snail": "snail",
    "bee": "honeybee",
    "butterfly": "butterfly",
    "apple": "red-apple",
    "banana": "banana",
    "strawberry": "strawberry",
    "lemon": "lemon",
    "pear": "pear",
    "pineapple": "pineapple",
    "carrot": "carrot",
    "mushroom": "mushroom",
    "pizza": "pizza",
    "donut": "doughnut",
    "tree": "deciduous-tree",
    "cactus": "cactus",
    "sunflower": "sunflower",
    "tulip": "tulip",
    "car": "automobile",
    "bus": "bus",
    "truck": "delivery-truck",
    "train": "locomotive",
    "boat": "sailboat",
    "plane": "airplane",
    "rocket": "rocket",
    "robot": "robot",
    "house": "house",
    "castle": "castle",
    "guitar": "guitar",
    "drum": "drum",
    "bell": "bell",
    "book": "closed-book",
    "key": "key",
    "mug": "hot-beverage",
    "hat": "top-hat",
    "shirt": "t-shirt",
    "umbrella": "umbrella",
    "crown": "crown",
    "star": "star",
    "heart": "red-heart",
    "balloon": "balloon",
    "ghost": "ghost",
}
KINDS = {  # a word for several of them
    "animal": tuple(WORDS)[:26],
    "bird": ("owl", "penguin", "duck"),
    "insect": ("bee", "butterfly"),
    "fruit": ("apple", "banana", "strawberry", "lemon", "pear", "pineapple"),
    "food": ("pizza", "donut", "carrot", "mushroom", "apple", "banana", "strawberry", "lemon", "pear", "pineapple"),
    "plant": ("tree", "cactus", "sunflower", "tulip"),
    "vehicle": ("car", "bus", "truck", "train", "boat", "plane", "rocket"),
    "building": ("house", "castle"),
    "instrument": ("guitar", "drum", "bell"),
}
STYLES = {  # npm package of the set → how a prompt may ask for it
    "fluent-emoji": ("3d", "3d render", "in 3d"),
    "noto": ("cartoon", "flat cartoon", "as a cartoon"),
}
COLOURS = {  # what an object may be
    "red": (222, 34, 40),
    "orange": (250, 130, 20),
    "yellow": (252, 212, 40),
    "green": (50, 170, 72),
    "blue": (36, 100, 224),
    "purple": (130, 64, 200),
    "pink": (252, 140, 190),
}
COLOURED = (
    *("car", "bus", "truck", "boat", "balloon", "heart", "star", "book", "house", "hat", "umbrella", "mug", "shirt"),
    *("fish", "butterfly", "bell", "key", "tulip", "drum", "crown", "guitar", "apple"),
)

DYED = ("mug", "hat", "shirt")  # as a whole: what has a hue in them is too little or too pale

Sprites = dict[tuple[str, str, str | None], Image.Image]  # (style, word, colour) → RGBA, cut to its visible box


def fetch(folder: Path) -> None:
    """Download both emoji sets with npm and draw every word as `folder/style/word.png` (RGBA, 256 px)."""
    for style in STYLES:
        target = folder / style
        missing = {word: name for word, name in WORDS.items() if not (target / f"{word}.png").exists()}
        if not missing:
            continue
        import resvg_py  # nothing else needs it

        target.mkdir(parents=True, exist_ok=True)
        if not list(target.glob("*.tgz")):
            subprocess.run(["npm", "pack", "--silent", f"@iconify-json/{style}"], cwd=target, check=True)
        with tarfile.open(next(target.glob("*.tgz"))) as tar:
            member = tar.extractfile("package/icons.json")
            assert member is not None
            icons = json.load(member)
        for word, name in missing.items():
            parent = icons.get("aliases", {}).get(name, {}).get("parent", name)
            icon = icons["icons"][parent]
            width, height = (icon.get(k) or icons.get(k, 16) for k in ("width", "height"))
            svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
            png = resvg_py.svg_to_bytes(svg_string=svg, width=256, height=256)
            drawing = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
            written(target / f"{word}.png", partial(drawing.save, format="PNG"))


def load(folder: Path) -> Sprites:
    """All drawings by (style, word, colour), at 128 px at the most; colour None is the drawing as it is."""
    paths = [folder / style / f"{word}.png" for style in STYLES for word in WORDS]
    if missing := [path for path in paths if not path.exists()]:
        raise ConfigError(f"'{missing[0]}' is missing; run the stage drawings first.")
    sprites: Sprites = {}
    for style in STYLES:
        for word in WORDS:
            drawing = Image.open(folder / style / f"{word}.png").convert("RGBA")
            drawing = drawing.crop(drawing.getchannel("A").getbbox())
            drawing.thumbnail((128, 128), Image.Resampling.LANCZOS)
            sprites[style, word, None] = drawing
            if word in COLOURED:
                for colour, rgb in COLOURS.items():
                    sprites[style, word, colour] = recolour(drawing, rgb, whole=word in DYED)
    return sprites


def recolour(drawing: Image.Image, colour: tuple[int, int, int], whole: bool = False) -> Image.Image:
    """The drawing in another colour: what has a hue goes from black through the colour to white, as light as it was;
    what has none (wheels, walls) stays, unless the drawing is dyed as a whole.
    """
    rgba = np.asarray(drawing).astype(np.float32) / 255
    rgb, alpha = rgba[..., :3], rgba[..., 3]
    top, low = rgb.max(-1), rgb.min(-1)
    vivid = (top - low) / np.maximum(top, 1e-3)
    light = rgb @ np.array([0.30, 0.59, 0.11], np.float32)
    weight = np.ones_like(vivid) if whole else np.clip((vivid - 0.2) / 0.25, 0, 1)
    middle = np.median(light[(alpha > 0.5) & (weight > 0.5)])
    target = np.array(colour, np.float32) / 255
    down = np.clip(light / middle, 0, 1)[..., None]
    up = np.clip((light - middle) / max(1 - middle, 1e-3), 0, 1)[..., None]
    dyed = target * (0.25 + 0.75 * down) + (1 - target) * 0.7 * up
    mixed = rgb + weight[..., None] * (dyed - rgb)
    out = np.concatenate([mixed, alpha[..., None]], axis=-1)
    return Image.fromarray((np.clip(out, 0, 1) * 255).round().astype(np.uint8))
