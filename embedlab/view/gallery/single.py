"""A gallery as one text: an HTML page that carries its own scripts, style and pictures."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from embedlab import readers
from embedlab.errors import counted
from embedlab.view.gallery.content import Sweep, content, together
from embedlab.view.gallery.folder import LARGE, PACKET, PAGE, SCRIPTS, maps_of, packed, page, pictures_of, script

SIDES = ((160, 512), (640, 256))  # up to so many pictures, so many pixels a side: a page of some megabytes
SMALLEST = 128
WIDEST = 2048  # of a strip of steps


@dataclass(frozen=True)
class Carried:
    """A sweep as its page needs it, with its pictures: every distinct one once, as (type, bytes)."""

    data: dict[str, Any]
    pictures: tuple[tuple[str, bytes], ...]


def page_of(*folders: Path | str) -> str:
    """The whole gallery of a sweep, or of several, as one HTML text: for an iframe's `srcdoc`, or to send to somebody.

    Pictures of at most 192 pixels a side are carried as they are, larger ones as WebP of at most 512 pixels; of more
    than 160 pictures of 256, of more than 640 of 128, and the page says so. A folder that is no sweep is a ConfigError.
    In a host page the text goes through `html.escape` first.

    >>> page_of("nowhere")
    Traceback (most recent call last):
    embedlab.errors.ConfigError: 'nowhere' is not there; give the folder that a sweep wrote, such as multirun/DATE/TIME.
    """
    held = carried(together([Path(folder) for folder in folders]))
    uris = [f"data:{kind};base64,{base64.b64encode(picture).decode()}" for kind, picture in held.pictures]
    return shell(held.data["title"], script({**held.data, "carried": {**held.data["carried"], "uris": uris}}))


@cache
def sources() -> tuple[str, str]:
    """The page's scripts and its style, each as one text."""
    scripts = "\n".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return scripts, (PAGE / "style.css").read_text(encoding="utf-8")


def shell(title: str, data: str = "null") -> str:
    """The page around its data; its policy names the one script and the one style that it may use."""
    from markupsafe import Markup  # noqa: PLC0415 - of jinja2, and as late

    scripts, style = (f"\n{text}" for text in sources())
    policy = (
        f"default-src 'none'; script-src {hashed(scripts)}; style-src {hashed(style)}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    inline = {"script": Markup(scripts), "style": Markup(style), "data": Markup(data)}
    return page(title, policy=policy, scripts=(), **inline)


def hashed(text: str) -> str:
    """How a content security policy names an inline script.

    >>> hashed("")
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def carried(sweep: Sweep) -> Carried:
    """A sweep's data with its details and its pictures."""
    data = content(sweep)
    named = list(dict.fromkeys([name for *_, name in pictures_of(data)] + maps_of(data)))
    side = next((side for most, side in SIDES if len(named) <= most), SMALLEST)
    numbers: dict[tuple[str, bytes], int] = {}
    names, aspects, smaller = dict[str, int](), dict[float, int](), 0
    for name in named:
        for kind, picture, aspect, own in picture_of(sweep.folder / name, side):
            names[name] = numbers.setdefault((kind, picture), len(numbers))
            aspects[aspect] = aspects.get(aspect, 0) + 1
            smaller += not own
    packets = packed(sweep)
    data |= {
        "watched": False,
        "pictures": "",
        "thumbnails": [],
        "aspect": max(aspects, key=lambda one: aspects[one]) if aspects else 1.0,
        "packets": [name.removesuffix(".js") for name in packets],
        "packet": PACKET,
        "carried": {
            "names": names,
            "details": {name.removesuffix(".js"): text.split('"')[3] for name, text in packets.items()},
            "note": f"{counted(smaller, 'picture')} made smaller, to {side} pixels a side" if smaller else "",
        },
    }
    data["version"] = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]
    return Carried(data, tuple(numbers))


def picture_of(path: Path, side: int) -> Iterator[tuple[str, bytes, float, bool]]:
    """A picture's type, bytes, width by height, and whether it is as it was; none where it cannot be read."""
    try:
        with readers.open_picture(path) as picture:
            aspect = round(picture.width / picture.height, 4)
            kind = Image.MIME.get(picture.format or "", "image/png")
            if max(picture.size) <= LARGE:
                yield kind, path.read_bytes(), aspect, True
                return
            small, into = picture.convert("RGB"), BytesIO()
            small.thumbnail((WIDEST if aspect > 3 else side, side))
            small.save(into, format="WEBP", quality=85, method=2)
            yield "image/webp", into.getvalue(), aspect, max(picture.size) <= side
    except (OSError, ValueError, SyntaxError):  # a picture that cannot be read says so on the page
        return
