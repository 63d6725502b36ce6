"""The contact sheet, and text that fits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from embedlab import readers
from embedlab.clean import printable, redact
from embedlab.errors import PictureError

Shown = Image.Image | Path | str | None  # a picture, the file of one, why there is none, or nothing yet


def sheet(
    cells: Sequence[Sequence[Shown]],
    columns: Sequence[str],
    rows: Sequence[str],
    title: str = "",
    side: int | None = None,
    marked_columns: Collection[int] = (),
    marked_rows: Collection[int] = (),
) -> Image.Image:
    """A contact sheet: pictures by row and column with readable labels; a missing picture leaves its place grey.

    Files are opened one after another. Long labels are broken at spaces; what does not fit in three lines ends in an
    ellipsis. What is marked has a frame and a bold label.
    """
    width, height = next((size for row in cells for shown in row if (size := size_of(shown))), (128, 128))
    side = side or min(256, max(112, width))
    height = max(1, round(side * height / width))
    text, bold, large = font(13), font(13, bold=True), font(15, bold=True)
    gap, edge, line = 6, 12, 17
    heads = [wrap(label, bold if n in marked_columns else text, side - 4) for n, label in enumerate(columns)]
    sides = [wrap(label, bold if n in marked_rows else text, 150) for n, label in enumerate(rows)]
    wide = max((bold.getlength(part) for parts in sides for part in parts), default=0)
    left = edge + round(wide) + (10 if wide else 0)
    across = max(left + len(columns) * (side + gap) - gap + edge, 260)
    titles = [line for part in title.splitlines()[:3] for line in wrap(part, large, across - 2 * edge, most=2)]
    head = edge + 21 * len(titles) + (4 if titles else 0) + line * max(map(len, heads), default=0) + 4
    canvas = Image.new("RGB", (across, head + len(rows) * (height + gap) + edge - gap), "white")
    pen = ImageDraw.Draw(canvas)
    for k, part in enumerate(titles):
        pen.text((edge, edge - 3 + 21 * k), part, "black", large)
    for c, parts in enumerate(heads):
        mine, ink = (bold, "black") if c in marked_columns else (text, "#333333")
        for k, part in enumerate(parts):
            x = left + c * (side + gap) + (side - mine.getlength(part)) / 2
            pen.text((x, head - 5 - line * (len(parts) - k)), part, ink, mine)
    for r, row in enumerate(cells):
        y = head + r * (height + gap)
        mine, ink = (bold, "black") if r in marked_rows else (text, "#333333")
        for k, part in enumerate(sides[r]):
            at = y + height / 2 + line * (k - len(sides[r]) / 2)
            pen.text((left - 10 - mine.getlength(part), at), part, ink, mine)
        for c, shown in enumerate(row):
            x = left + c * (side + gap)
            canvas.paste(place(shown, (side, height)), (x, y))
            if c in marked_columns or r in marked_rows:
                pen.rectangle((x - 2, y - 2, x + side + 1, y + height + 1), outline="black", width=2)
    return canvas


def size_of(shown: Shown) -> tuple[int, int] | None:
    """The size of what is shown, where that is a picture."""
    if isinstance(shown, Image.Image):
        return shown.size
    try:
        return readers.open_picture(shown).size if isinstance(shown, Path) else None
    except PictureError:
        return None


def place(shown: Shown, size: tuple[int, int]) -> Image.Image:
    """What stands in a place of a sheet: the picture, grey, or grey with a cross and the reason."""
    if isinstance(shown, Path):
        try:
            return readers.open_picture(shown).convert("RGB").resize(size, Image.Resampling.LANCZOS)
        except PictureError:
            shown = f"{shown.name} cannot be read"
    if isinstance(shown, Image.Image):
        return shown.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", size, "#dddddd")
    if shown is not None:
        pen, small, (width, height) = ImageDraw.Draw(canvas), font(11), size
        pen.line((0, 0, width, height), "#bbbbbb", 2)
        pen.line((0, height, width, 0), "#bbbbbb", 2)
        parts = wrap(shown, small, width - 8, most=max(1, min(5, height // 15)))
        for k, part in enumerate(parts):
            x = (width - small.getlength(part)) / 2
            pen.text((x, height / 2 + 14 * (k - len(parts) / 2)), part, "#802020", small)
    return canvas


@lru_cache(maxsize=8)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Pillow's own font lacks arrows and most alphabets."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def wrap(label: str, font: Any, width: float, most: int = 3) -> list[str]:
    """Break a label at spaces into lines that fit."""
    lines: list[str] = []
    for word in printable(redact(label)).split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        elif len(lines) > most:
            break
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1] + "…"]
    return [shorten(line, font, width) for line in lines]


def shorten(line: str, font: Any, width: float) -> str:
    """Cut a line that is too wide and end it with an ellipsis; secrets are blanked before."""
    line = redact(line)
    if len(line) <= width and font.getlength(line) <= width:
        return line
    line = line[: int(width)]  # no letter is narrower than a pixel; a prompt may have 40,000 of them
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"
