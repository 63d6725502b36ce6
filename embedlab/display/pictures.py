"""Pictures inside of a page: as data URIs, in grids with labelled rows and columns."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from embedlab.display.html import Html, join, tag

if TYPE_CHECKING:
    from PIL import Image

SIDE = 256  # the longest side of a picture in a display; larger ones are made smaller
LEAST = 96  # a smaller one is drawn larger, pixel by pixel
MOST = 128  # pictures of a grid
LANCZOS = 1  # as PIL calls it, which is not imported here: the command line answers at once


@dataclass(frozen=True)
class Picture:
    """A picture with a caption, and what is said when the mouse is over it; without an image, why there is none."""

    image: Image.Image | None
    caption: str = ""
    title: str = ""


def data_uri(image: Image.Image, most: int = SIDE, kind: Literal["png", "webp"] = "png") -> str:
    """A picture as the address of itself: a PNG, made smaller where a side is longer than `most`.

    One that is only glanced at, in a table, can be a WebP, a fifth as long: a notebook keeps all that it shows.

    >>> from PIL import Image
    >>> data_uri(Image.new("RGB", (4, 4)))[:22]
    'data:image/png;base64,'
    """
    data = io.BytesIO()
    at_most(image, most).save(data, format=kind, **({"quality": 90} if kind == "webp" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def at_most(image: Image.Image, wide: int = SIDE, high: int | None = None) -> Image.Image:
    """A picture made smaller where a side of it is longer; `high` is as `wide` where it is left out.

    >>> from PIL import Image
    >>> at_most(Image.new("RGB", (512, 256))).size, at_most(Image.new("RGB", (4, 4))).size
    ((256, 128), (4, 4))
    """
    high = wide if high is None else high
    if image.width > wide or image.height > high:
        image = image.copy()
        image.thumbnail((wide, high), LANCZOS)  # type: ignore[arg-type]
    return image


def picture(shown: Picture | None, side: int = 128, kind: Literal["png", "webp"] = "png") -> Html:
    """A picture of a display, with its caption."""
    if shown is None:
        return tag("<div></div>")
    below = tag('<figcaption style="max-width:{}px">{}</figcaption>', side, shown.caption) if shown.caption else ""
    if shown.image is None:
        box = tag('<div class="x" style="width:{0}px;height:{0}px">{1}</div>', side, shown.title or "no picture")
        return tag("<figure>{}{}</figure>", box, below)
    width, height = shown.image.size
    shape = f"width:{side}px;height:{max(1, round(side * height / width))}px;max-width:none"
    shape += ";image-rendering:pixelated" if max(width, height) < LEAST else ""
    return tag(
        '<figure><img src="{}" alt="{}" title="{}" style="{}">{}</figure>',
        data_uri(shown.image, max(side, min(SIDE, 2 * side)), kind),
        shown.caption or shown.title,
        shown.title or shown.caption,
        shape,
        below,
    )


def grid(
    cells: Sequence[Sequence[Picture | None]], columns: Sequence[str] = (), rows: Sequence[str] = (), side: int = 128
) -> Html:
    """Pictures by row and column, with labels; of very many the first rows.

    >>> from PIL import Image
    >>> "<b>" in grid([[Picture(Image.new("RGB", (8, 8)), "<b>")]], ["x"], ["y"])
    False
    """
    across = max(map(len, cells), default=0)
    shown = list(cells[: max(1, MOST // max(across, 1))])
    wide = f"{'auto ' if rows else ''}repeat({across},{side}px)"
    parts: list[Html] = []
    if columns:
        parts += [tag("<span></span>")] if rows else []
        parts += [tag('<span class="h">{}</span>', columns[n] if n < len(columns) else "") for n in range(across)]
    for n, row in enumerate(shown):
        if rows:
            parts.append(tag('<span class="h l">{}</span>', rows[n] if n < len(rows) else ""))
        parts += [picture(row[k] if k < len(row) else None, side) for k in range(across)]
    more = len(cells) - len(shown)
    note = tag('<div class="n">and {} rows more</div>', more) if more else ""
    return join([tag('<div class="g" style="grid-template-columns:{}">{}</div>', wide, join(parts)), note])


def gallery(shown: Sequence[Picture], side: int = 128) -> Html:
    """Pictures one after the other, in as many lines as they need; of very many the first."""
    few = shown[:MOST]
    more = tag('<div class="n">and {} more</div>', len(shown) - len(few)) if len(shown) > len(few) else ""
    wide = f"repeat(auto-fill,{side}px);width:auto"
    return join(
        [
            tag('<div class="g" style="grid-template-columns:{}">{}</div>', wide, join(picture(p, side) for p in few)),
            more,
        ]
    )
