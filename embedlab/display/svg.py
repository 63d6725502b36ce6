"""Small drawings: a strip of numbers, curves, what is active when."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedlab.display.html import Html, join, tag

INKS = ("#3d6fd1", "#d1703d", "#3d9a57", "#9a3d8e", "#8a7a2f", "#3d9a98", "#777777", "#c23d52")
WIDE, HIGH = 340, 110  # pixels of a drawing of curves


def strip(values: Sequence[float], titles: Sequence[str] = (), most: int = 400) -> Html:
    """Numbers as bars beside each other, each with a title; the highest is as high as the strip.

    >>> "rect" in strip([1.0, 2.0], ["a", "<b>"]), "<b>" in strip([1.0], ["<b>"])
    (True, False)
    """
    values = [value if math.isfinite(value) else 0.0 for value in values[:most]]
    top = max(map(abs, values), default=0.0) or 1.0
    wide = max(3, min(14, 640 // max(len(values), 1)))
    bars = []
    for n, value in enumerate(values):
        high = max(1.0, 36 * abs(value) / top)
        said = titles[n] if n < len(titles) else f"{value:.3g}"
        bars.append(
            tag(
                '<rect x="{}" y="{:.1f}" width="{}" height="{:.1f}" fill="#5b8def"><title>{}</title></rect>',
                n * wide,
                38 - high,
                wide - 1,
                high,
                said,
            )
        )
    return tag(
        '<svg width="{0}" height="40" viewBox="0 0 {0} 40" role="img" aria-label="a bar a row">{1}</svg>',
        max(wide * len(values), 1),
        join(bars),
    )


def curves(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    across: str = "",
    up: str = "",
    ends_across: tuple[float, float] | None = None,
    wide: int = WIDE,
) -> Html:
    """Lines through points, each with its name; the axes say their ends, that across as `ends_across` has them.

    >>> "polyline" in curves({"weight": [(0.0, 0.0), (1.0, 0.5)]}, "fraction")
    True
    """
    points = [p for line in lines.values() for p in line if math.isfinite(p[0]) and math.isfinite(p[1])]
    if not points:
        return Html()
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, top = min(y for _, y in points), max(y for _, y in points)
    x_of = lambda x: 40 + (wide - 50) * (x - left) / ((right - left) or 1)  # noqa: E731
    y_of = lambda y: HIGH - 24 - (HIGH - 36) * ((y - low) / (top - low) if top > low else 0.5)  # noqa: E731
    drawn = []
    for n, (name, line) in enumerate(lines.items()):
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line if math.isfinite(x) and math.isfinite(y))
        ink = INKS[n % len(INKS)]
        drawn.append(
            tag(
                '<polyline points="{}" fill="none" stroke="{}" stroke-width="1.6"><title>{}</title></polyline>',
                path,
                ink,
                name,
            )
        )
    ends = [(36, y_of(top) + 3, f"{top:.3g}", "end"), (36, y_of(low) + 3, f"{low:.3g}", "end")]
    ends = ends[:1] if top == low else ends
    first, last = ends_across or (left, right)
    ends += [(x_of(left), HIGH - 10, f"{first:.4g}", "start"), (x_of(right), HIGH - 10, f"{last:.4g}", "end")]
    ends += [((x_of(left) + x_of(right)) / 2, HIGH - 10, across, "middle"), (40, 9, up, "start")]
    said = [tag('<text x="{:.0f}" y="{:.0f}" text-anchor="{}">{}</text>', x, y, at, text) for x, y, text, at in ends]
    names = [
        tag('<span style="color:{}">■</span> {} ', INKS[n % len(INKS)], name)
        for n, name in enumerate(lines)
        if len(lines) > 1
    ]
    drawing = tag(
        '<svg width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="img" aria-label="{2} over {3}">{4}</svg>',
        wide,
        HIGH,
        ", ".join(lines)[:80],
        across,
        join([*drawn, *said]),
    )
    return join([drawing, tag('<div class="n">{}</div>', join(names)) if names else ""])


@dataclass(frozen=True)
class Lane:
    """A part of a timeline: from, to (shares of its length), and what holds there."""

    begin: float
    end: float
    text: str


def timeline(lanes: Sequence[Lane], left: str, right: str, wide: int = WIDE) -> Html:
    """What holds when, as boxes one after the other; equal texts have one colour. `left` and `right` name the ends.

    >>> "cat" in timeline([Lane(0, 0.5, "cat"), Lane(0.5, 1, "dog")], "0", "1")
    True
    """
    inks = {text: INKS[n % len(INKS)] for n, text in enumerate(dict.fromkeys(lane.text for lane in lanes if lane.text))}
    boxes = []
    for lane in lanes:
        x, width = lane.begin * wide, max(1.0, (lane.end - lane.begin) * wide)
        ink = inks.get(lane.text, "#8882")
        room = int(width / 6.2)
        text = lane.text if len(lane.text) <= room else lane.text[: max(0, room - 1)] + "…" * (room > 1)
        boxes.append(
            tag(
                '<rect x="{0:.1f}" y="1" width="{1:.1f}" height="22" fill="{2}" fill-opacity=".3" stroke="{2}">'
                "<title>{3}</title></rect>"
                '<text x="{4:.1f}" y="16" text-anchor="middle">{5}</text>',
                x,
                width,
                ink,
                lane.text,
                x + width / 2,
                text,
            )
        )
    return tag(
        '<svg width="{0}" height="38" viewBox="0 0 {0} 38" role="img" aria-label="what holds when">{1}'
        '<text x="0" y="35">{2}</text><text x="{0}" y="35" text-anchor="end">{3}</text></svg>',
        wide,
        join(boxes),
        left,
        right,
    )
