"""Pictures of any kind in a grid with labels, as HTML and as a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from embedlab import images
from embedlab.display import Picture, Shown, block, grid
from embedlab.errors import ConfigError, PictureError, brief, counted
from embedlab.samples import Rendered

TITLE = "pictures"
Rows = list[tuple[str, list[Picture | None]]]


@dataclass(frozen=True)
class Grid(Shown):
    """Pictures by row and column with their labels: a notebook shows it, `save` writes it, `image` is it.

    >>> Grid("two", ("a", "b"), (("", (Picture(None), None)),))
    Grid('two', 1 row of 2)
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Picture | None, ...]], ...]
    side: int = 128

    def __repr__(self) -> str:
        widest = max((len(row) for _, row in self.rows), default=0)
        return f"Grid({self.title[:80]!r}, {counted(len(self.rows), 'row')} of {widest})"

    @property
    def image(self) -> Image.Image:
        """The grid as one picture, with its labels."""
        wide = max((len(row) for _, row in self.rows), default=0)
        cells = [[*(self._shown(one) for one in row), *[None] * (wide - len(row))] for _, row in self.rows]
        heads = [*self.columns, *[""] * (wide - len(self.columns))]
        return images.sheet(cells, heads, [name for name, _ in self.rows], self.title)

    @staticmethod
    def _shown(one: Picture | None) -> Image.Image | str | None:
        return None if one is None else one.image if one.image is not None else one.title or "no picture"

    def save(self, path: Path | str) -> Path:
        """Write it as a picture; the ending of the name says of which kind."""
        path = Path(path)
        try:
            self.image.save(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"'{path}' cannot be written: {error}.") from None
        return path

    def _repr_html_(self) -> str:
        names = [name for name, _ in self.rows]
        return block(
            self.title, grid([row for _, row in self.rows], self.columns, names if any(names) else (), self.side)
        )

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.image.save(data, format="PNG")
        return data.getvalue()


def show(
    *pictures: Any,
    rows: Sequence[Any] | None = None,
    columns: Sequence[Any] | None = None,
    title: str = "",
    side: int = 128,
) -> Grid:
    """Pictures in a grid: of one row, or a row for each of several; a notebook shows it, and `save` writes it.

    A picture is a PIL image, a path, an array (height, width, 3), or a tensor (3, height, width) in [0, 1]. A row is a
    list of those, a tensor of several (image, 3, height, width), what `render` gives, or a mapping of captions to
    pictures; a mapping of rows names them. None leaves its place empty. `rows` and `columns` are labels, else they are
    those that are known: seeds, edits, keys. `side` is how wide a picture is shown, in pixels.

    Raises PictureError for what is no picture, ConfigError for labels that are too few.

    >>> import torch
    >>> both = show({"black": torch.zeros(2, 3, 8, 8), "white": torch.ones(2, 3, 8, 8)}, columns=["a", "b"])
    >>> [name for name, _ in both.rows], both.columns, both.image.size
    (['black', 'white'], ('a', 'b'), (305, 275))
    """
    given: Any = pictures[0] if len(pictures) == 1 else list(pictures)
    if not pictures:
        raise PictureError("show was given nothing; pictures, lists of them, or what render gives are shown.")
    found, heads = rows_of(given)
    names = [name for name, _ in found] if rows is None else list(map(str, rows))
    heads = heads if columns is None else list(map(str, columns))
    wide = max((len(row) for _, row in found), default=0)
    if len(names) != len(found):
        raise ConfigError(f"rows names {len(names)} of {counted(len(found), 'row')}; each has a label.")
    if heads and len(heads) != wide:
        raise ConfigError(f"columns names {len(heads)} of {counted(wide, 'column')}; each has a label.")
    if isinstance(side, bool) or not isinstance(side, int) or not 8 <= side <= 2048:
        raise ConfigError(f"side is {brief(side)}; it has to be a number of pixels from 8 to 2048.")
    return Grid(
        str(title), tuple(heads), tuple((n, tuple(row)) for n, (_, row) in zip(names, found, strict=True)), side
    )


def rows_of(given: Any) -> tuple[Rows, list[str]]:
    """What was given as rows with their names, and the names of columns where they are known."""
    if isinstance(given, Mapping):
        if not all(is_row(one) for one in given.values()):
            return [("", [pictured(one) for one in given.values()])], list(map(str, given))
        parts = [(str(name), row_of(one)) for name, one in given.items()]
        return [(name, row) for name, (row, _) in parts], shared_heads([heads for _, (_, heads) in parts])
    if isinstance(given, list | tuple) and given and all(is_row(one) for one in given):
        parts = [(one.cell.label if isinstance(one, Rendered) else "", row_of(one)) for one in given]
        return [(name, row) for name, (row, _) in parts], shared_heads([heads for _, (_, heads) in parts])
    row, heads = row_of(given)
    if isinstance(given, Rendered) and given.before is not None:
        before, _ = row_of(given.before)
        return [(given.before.cell.label, before), (given.cell.label, row)], heads
    return [("", row)], heads


def is_row(given: Any) -> bool:
    """Whether it is several pictures, and not one."""
    several = isinstance(given, Tensor | np.ndarray) and given.ndim == 4
    return several or isinstance(given, Rendered | list | tuple | Mapping)


def row_of(given: Any) -> tuple[list[Picture | None], list[str]]:
    """Pictures of a row, and their names where they have any."""
    if isinstance(given, Rendered):
        return [Picture(one) for one in images.to_pil(given.pictures)], [f"seed {seed}" for seed in given.seeds]
    if isinstance(given, Mapping):
        return [pictured(one) for one in given.values()], list(map(str, given))
    if is_row(given):
        return [pictured(one) for one in given], []
    return [pictured(given)], []


def shared_heads(found: Sequence[list[str]]) -> list[str]:
    """The names of columns, where all rows have the same."""
    return found[0] if found and all(one == found[0] for one in found) else []


def pictured(given: Any) -> Picture | None:
    """One picture; None leaves its place empty."""
    if given is None or isinstance(given, Picture):
        return given
    if isinstance(given, str | Path):
        return Picture(images.open_picture(Path(given)), title=str(given))
    if isinstance(given, Rendered):
        if len(given.pictures) != 1:
            many = counted(len(given.pictures), "picture")
            raise PictureError(
                f"{given.cell.label} has {many}, and one place is one picture: a row of its own shows all."
            )
        (given,) = given.pictures
    return Picture(images.pixels_of(given).picture)
