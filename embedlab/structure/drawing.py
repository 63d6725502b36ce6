"""A UNet as a picture: resolutions, channels, skip connections, and where cross-attention reads the text.

Everything in it is read from the layers of `anatomy`. A box is a module and the number in it its output channels. The
way down is on the left, the way up on the right, and what a box on the left gives is taken in by its mirror image.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab.files import write
from embedlab.models.source import NAMES

if TYPE_CHECKING:
    from embedlab.structure.anatomy import Anatomy
    from embedlab.structure.values import Layer, Part

BLUE, ORANGE, GREEN, GREY, INK = "#c9dcf2", "#f6b26b", "#cfe6cf", "#e6e8eb", "#1f2933"
LINK, READ = "#7a8794", "#d9730d"  # of skip connections, of the text
WIDE, HIGH = 0.76, 0.60  # of a box; columns are 1 apart
OVER, FIRST = 0.21, 0.20  # between skip connections, and from a box to the lowest
LEGEND = (
    (GREY, "convolution, with its output channels"),
    (BLUE, "ResNet; each takes in the timestep, too"),
    (ORANGE, "transformer behind it: so many layers, each reads the text"),
    (GREEN, "convolution that halves the sides"),
    (None, "skip connection: so many channels, joined to those that come in"),
)


@dataclass(frozen=True)
class Block:
    """A box: a convolution, a ResNet with or without a transformer behind it, or what halves the picture.

    transformers: its layers that read the text. skip: the channels that it takes in beside those of the box before it.
    """

    name: str
    kind: str
    channels: int
    height: int
    width: int
    transformers: int = 0
    skip: int = 0


@dataclass(frozen=True)
class Outline:
    """The boxes of a UNet: the levels on the way down, the middle, the levels on the way up (the deepest first)."""

    down: tuple[tuple[Block, ...], ...]
    middle: tuple[Block, ...]
    up: tuple[tuple[Block, ...], ...]
    last: Block
    rows: int
    width: int

    @property
    def readers(self) -> int:
        """How many layers read the text."""
        levels = (*self.down, self.middle, *self.up)
        return sum(block.transformers for level in levels for block in level)


def outline_of(unet: Part) -> Outline:
    """The boxes of a UNet, read from its layers.

    >>> from embedlab import anatomy
    >>> outline = outline_of(anatomy("sd1").part("unet"))
    >>> [[block.channels for block in level] for level in outline.down]
    [[320, 320, 320], [320, 640, 640], [640, 1280, 1280], [1280, 1280, 1280]]
    >>> outline.rows, outline.readers
    (77, 16)
    """
    layers = {layer.name: layer for layer in unet.layers}
    texts = [layer for name, layer in layers.items() if name.endswith(".attn2.to_k")]
    down = [[_block(layers, "unet.conv_in", "conv")]]
    for n in _numbers(layers, "unet.down_blocks"):
        down[-1] += [_block(layers, name) for name in _resnets(layers, f"unet.down_blocks.{n}")]
        if (halving := f"unet.down_blocks.{n}.downsamplers.0") in layers:
            down.append([_block(layers, halving, "halve")])
    middle = [_block(layers, name) for name in _resnets(layers, "unet.mid_block")]
    skips = [block.channels for level in down for block in level]
    up: list[list[Block]] = [[]]
    for n in _numbers(layers, "unet.up_blocks"):
        for name in _resnets(layers, f"unet.up_blocks.{n}"):
            up[-1].append(_block(layers, name, skip=skips.pop()))
        if f"unet.up_blocks.{n}.upsamplers.0" in layers:
            up.append([])
    return Outline(
        tuple(map(tuple, down)),
        tuple(middle),
        tuple(map(tuple, up)),
        _block(layers, "unet.conv_out", "conv"),
        texts[0].input[1] if texts else 0,
        texts[0].input[2] if texts else 0,
    )


def _numbers(layers: dict[str, Layer], start: str) -> list[int]:
    return sorted({int(name[len(start) + 1 :].split(".")[0]) for name in layers if name.startswith(f"{start}.")})


def _resnets(layers: dict[str, Layer], block: str) -> list[str]:
    return [f"{block}.resnets.{n}" for n in _numbers(layers, f"{block}.resnets")]


def _block(layers: dict[str, Layer], name: str, kind: str = "resnet", skip: int = 0) -> Block:
    """A ResNet with the transformer that comes behind it; in the middle there is one fewer than there are ResNets."""
    channels, height, width = layers[name].output[1:4]
    beside = name.replace(".resnets.", ".attentions.")
    inside = [other for other in layers if other.startswith(f"{beside}.") and other.endswith(".attn2.to_k")]
    readers = len(inside) if beside != name else 0
    return Block(name, kind, channels, height, width, readers, skip)


# ── on paper ──────────────────────────────────────────────────────────────────────────────────────────────────────


def draw(anatomy: Anatomy, path: Path) -> Path:
    """Write the picture of the UNet, as SVG or PNG by the name of the file."""
    write(path, drawn(anatomy, path.suffix.lower().lstrip(".")))
    return path


def drawn(anatomy: Anatomy, kind: str = "svg") -> bytes:
    """The picture as the content of a file."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    outline = outline_of(anatomy.part("unet"))
    settings = {"svg.hashsalt": "embedlab", "font.family": "DejaVu Sans", "svg.fonttype": "path"}
    with mpl.rc_context(settings):
        paper = Paper(outline)
        high, wide = paper.bottom, paper.right - paper.left
        figure = Figure(figsize=(wide * 0.56, (paper.top - high) * 0.56))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(paper.left, paper.right)
        axes.set_ylim(paper.bottom, paper.top)
        axes.set_axis_off()
        paper.draw(axes, anatomy)
        out = io.BytesIO()
        about: dict[str, Any] = {"Title": f"UNet of {anatomy.name}"}
        figure.savefig(out, format=kind, dpi=200, metadata=about | ({"Date": None} if kind == "svg" else {}))
    return out.getvalue()


class Paper:
    """Where everything stands: columns across, levels down, the way up as the mirror image of the way down."""

    def __init__(self, outline: Outline):
        self.outline = outline
        self.starts = [0]
        for level in outline.down[:-1]:
            self.starts.append(self.starts[-1] + len(level) - 1)
        self.middle = self.starts[-1] + len(outline.down[-1])
        self.far = 2 * self.middle + len(outline.middle) - 1  # the column that mirrors column 0
        most = max(len(level) for level in outline.down)
        over = FIRST + OVER * (most - 1) + HIGH / 2
        self.step = over + HIGH / 2 + 0.75
        self.left, self.right = -2.7, self.far + 3.7
        self.top = over + 1.45
        self.bottom = -self.step * (len(outline.down) - 1) - HIGH / 2 - 0.9 - 0.32 * len(LEGEND)

    def draw(self, axes: Any, anatomy: Anatomy) -> None:
        """Put everything on the axes."""
        deep = len(self.outline.down) - 1
        down = [
            [(self.starts[n] + k, -self.step * n) for k in range(len(row))] for n, row in enumerate(self.outline.down)
        ]
        middle = [(self.middle + k, -self.step * deep) for k in range(len(self.outline.middle))]
        up = [
            [(self.far - self.starts[deep - n] - len(row) + 1 + k, -self.step * (deep - n)) for k in range(len(row))]
            for n, row in enumerate(self.outline.up)
        ]
        last = (self.far + 1, 0.0)
        way = [*(place for row in down for place in row), *middle, *(place for row in up for place in row), last]
        for start, end in pairwise(way):
            self._arrow(axes, start, end)
        self._skips(axes, down, up)
        rows = [*zip(down, self.outline.down, strict=True), *zip(up, self.outline.up, strict=True)]
        boxes = [(place, block) for places, blocks in rows for place, block in zip(places, blocks, strict=True)]
        boxes += [*zip(middle, self.outline.middle, strict=True), (last, self.outline.last)]
        if self.outline.rows:
            self._text(axes, [place for place, block in boxes if block.transformers])
        for place, block in boxes:
            self._box(axes, place, block)
        for places, blocks in zip(down[1:], self.outline.down[1:], strict=True):
            size = f"{blocks[-1].height} × {blocks[-1].width}"
            x, y = places[0]
            axes.text(x - 0.6, y, size, ha="right", va="center", fontsize=10, color=INK)
            axes.text(self.far - x + 0.6, y, size, ha="left", va="center", fontsize=10, color=INK)
        self._words(axes, anatomy)

    def _arrow(self, axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
        """From one box to the next: across, or straight down or up to another level."""
        (x, y), (to, at) = start, end
        if y == at:
            ends = (x + WIDE / 2, y), (to - WIDE / 2, at)
        else:
            side = -HIGH / 2 if at < y else HIGH / 2
            ends = (x, y + side), (to, at - side)
        arrow(axes, *ends, INK)
        if at > y:
            axes.text(x + 0.12, (y + at) / 2 - 0.1, "×2", ha="left", va="center", fontsize=8, color=INK)

    def _skips(self, axes: Any, down: Any, up: Any) -> None:
        """A line from each box on the left to the one that takes its output in, above both, the longer the higher."""
        waiting = [place for places in down for place in places]
        for places, blocks in zip(up, self.outline.up, strict=True):
            for n, ((column, at), channels) in enumerate(zip(places, [block.skip for block in blocks], strict=True)):
                x, y = waiting.pop()
                top = at + HIGH / 2 + FIRST + OVER * n
                x, to = x + 0.2, column - 0.2
                axes.plot([x, x, to], [y + HIGH / 2, top, top], color=LINK, lw=1.0, solid_joinstyle="round")
                arrow(axes, (to, top), (to, at + HIGH / 2), LINK)
                halo = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
                middle = (x + to) / 2
                axes.text(middle, top, f"{channels}", ha="center", va="center", fontsize=7, color=LINK, bbox=halo)

    def _text(self, axes: Any, places: list[tuple[float, float]]) -> None:
        """The rows of the prompt: a line along every level where they are read, with an arrow into each reader."""
        trunk = -1.9
        levels: dict[float, list[float]] = {}
        for x, y in places:
            levels.setdefault(y, []).append(x - 0.22)  # beside the way to the next level
        for y, columns in levels.items():
            bus = y - HIGH / 2 - 0.3
            axes.plot([trunk + 0.2, max(columns) - 0.1], [bus, bus], color="white", lw=4)
            axes.plot([trunk, max(columns)], [bus, bus], color=READ, lw=1.4, solid_capstyle="round")
            for x in columns:
                arrow(axes, (x, bus), (x, y - HIGH / 2), READ)
        ends = [self.bottom + 0.32 * len(LEGEND) + 0.15, max(levels) - HIGH / 2 - 0.3]
        axes.plot([trunk, trunk], ends, color=READ, lw=1.4, solid_capstyle="round")

    def _box(self, axes: Any, place: tuple[float, float], block: Block) -> None:
        """A module; the orange foot is the transformer behind a ResNet, with how many of its layers read the text."""
        from matplotlib.patches import Rectangle

        x, y = place
        colour = {"conv": GREY, "halve": GREEN}.get(block.kind, BLUE)
        axes.add_patch(Rectangle((x - WIDE / 2, y - HIGH / 2), WIDE, HIGH, fc=colour, ec="none", zorder=3))
        if block.transformers:
            foot = HIGH * 0.42
            axes.add_patch(Rectangle((x - WIDE / 2, y - HIGH / 2), WIDE, foot, fc=ORANGE, ec="none", zorder=4))
            many = f"×{block.transformers}"
            axes.text(x, y - HIGH / 2 + foot / 2, many, ha="center", va="center", fontsize=8, color=INK, zorder=6)
        axes.add_patch(Rectangle((x - WIDE / 2, y - HIGH / 2), WIDE, HIGH, fc="none", ec=INK, lw=0.8, zorder=5))
        middle = y + HIGH * 0.21 if block.transformers else y
        axes.text(x, middle, f"{block.channels}", ha="center", va="center", fontsize=9, color=INK, zorder=6)

    def _words(self, axes: Any, anatomy: Anatomy) -> None:
        """Title, what goes in and comes out, what the colours mean."""
        from matplotlib.patches import Rectangle

        first, last, unet = self.outline.down[0][0], self.outline.last, anatomy.part("unet")
        left, line = self.left + 0.3, {"va": "center", "color": INK}
        title = f"UNet of {NAMES.get(anatomy.name, anatomy.name)}"
        axes.text(left, self.top - 0.4, title, fontsize=14, fontweight="bold", **line)
        size = f"{anatomy.size[1]} × {anatomy.size[0]} pixels"
        about = f"{unet.whole.parameters / 1e6:,.1f} million parameters; pictures of {size}"
        axes.text(left, self.top - 0.85, about, fontsize=10, **line)
        given = f"latents\n{unet.whole.input[1]} × {first.height} × {first.width}"
        axes.text(-0.75, 0, given, ha="right", fontsize=9, **line)
        arrow(axes, (-0.7, 0), (-WIDE / 2, 0), INK)
        x = self.far + 1
        axes.text(x + 0.75, 0, f"prediction\n{last.channels} × {last.height} × {last.width}", fontsize=9, **line)
        arrow(axes, (x + WIDE / 2, 0), (x + 0.7, 0), INK)
        lines = [self.bottom + 0.32 * (len(LEGEND) - n) for n in range(len(LEGEND))]
        if self.outline.rows:
            text = f"prompt: {self.outline.rows} rows × {self.outline.width},\nread by {self.outline.readers} layers"
            axes.text(left, (lines[0] + lines[1]) / 2, text, fontsize=9.5, color=READ, va="center", fontweight="bold")
        left += 3.7
        for y, (colour, words) in zip(lines, LEGEND, strict=True):
            if colour is None:
                axes.plot([left, left + 0.4], [y, y], color=LINK, lw=1.2)
            else:
                axes.add_patch(Rectangle((left, y - 0.09), 0.4, 0.18, fc=colour, ec=INK, lw=0.6))
            axes.text(left + 0.6, y, words, fontsize=8.5, **line)


def arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    """A straight arrow between two points."""
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    axes.annotate("", end, start, arrowprops=style)
