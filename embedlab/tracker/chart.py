"""Curves as a picture, for trackers that draw none of their own."""

from __future__ import annotations

import io
import logging
import textwrap
from collections.abc import Mapping, Sequence

from PIL import Image


def chart(title: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> Image.Image:
    """Lines over an axis, each by its name, as a picture of 640 × 400 pixels that can be read where it is shown small.

    >>> chart("change/ssim over weight", "weight", [0, 0.5, 1], {"mean": [1, None, 0.5]}).size
    (640, 400)
    """
    logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)  # it tells that it has looked for fonts
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 2.5), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    field = figure.subplots()
    for name, values in lines.items():
        points = [(x, y) for x, y in zip(at, values, strict=True) if y is not None]
        field.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=3, label=plain(name))
    field.set_title(plain(title), fontsize=10)
    field.set_xlabel(plain(axis))
    field.grid(alpha=0.3)
    if 0 < len(lines) <= 12:
        field.legend(fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file).convert("RGB")


def plain(text: str) -> str:
    r"""A text as matplotlib shows it and does not read it: a dollar begins no formula, an underscore hides no line.

    >>> plain("_a $x$")
    ' _a \\$x\\$'
    """
    text = textwrap.shorten(text, 60, placeholder="…").replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
