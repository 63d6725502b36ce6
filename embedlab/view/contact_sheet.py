"""The contact sheets of a sweep as PNG files, a page each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from embedlab import images
from embedlab.attention.overlay import file_names
from embedlab.errors import ConfigError, listed
from embedlab.sweep.result import Result
from embedlab.view.layout import layout, page_of, pages_of, sheet_cells


def write_sheets(
    folder: Path,
    results: Sequence[Result],
    rows: str | None = None,
    columns: str | None = None,
    to: Path | None = None,
    maps: str | None = None,
) -> list[Path]:
    """Write `sheet.png`, `sheet-2.png`, …: a page for each combination of what is neither rows nor columns.

    Left out, rows are the seeds and columns the jobs; of many jobs that vary in several settings, columns are the last
    of these. The unedited pictures have a column of their own, or rows where each column has its own. `maps` is a word:
    its heat maps are shown, laid over the pictures.
    """
    results = results if maps is None else [with_maps(result, maps) for result in results]
    if maps is not None and not any(row.file for result in results for row in result.pictures):
        there = {word_of(file) for result in results for row in result.pictures for file in row.maps or ()}
        have = f"they have maps of {listed(sorted(there))}" if there else "attention=maps keeps them"
        raise ConfigError(f"no picture of this sweep has a map of '{maps}'; {have}.")
    down, across, others = layout(results, rows, columns)
    order = [down, across, *others]
    places = dict(sheet_cells(results, [axis.key for axis in order]))
    same_text = len({result.prompt for result in results}) == 1
    pages = list(pages_of(down, across, others, places))
    first = to or folder / "sheet.png"
    written = []
    for n, (r, c, rest) in enumerate(pages):
        cells, names, heads, marked_rows, marked_columns = page_of(down, across, r, c, rest, places)
        prompt = " ".join(results[0].prompt.split()) if same_text else ""
        which = [axis.labels[k] for axis, k in zip(others, rest, strict=True) if len(axis.labels) > 1]
        which += [f"page {n + 1} of {len(pages)}"] if len(pages) > 1 else []
        title = f"{prompt}\n{', '.join(which)}"
        picture = images.sheet(cells, heads, names, title, None, marked_columns, marked_rows)
        path = first if n == 0 else first.with_name(f"{first.stem}-{n + 1}{first.suffix}")
        settings = {"rows": down.key, "columns": across.key, "page": n + 1, "pages": len(pages)}
        written.append(images.save(picture, path, {"sheet": settings}))
    _remove_old_pages(first, len(pages) + 1)
    return written


def with_maps(result: Result, word: str) -> Result:
    """A result whose pictures are the heat maps of a word; a picture without one has none."""
    (name,) = file_names((word,))
    rows = []
    for row in result.pictures:
        own, other = f"maps/seed-{row.seed}-{name}.png", f"maps/baseline-seed-{row.seed}-{name}.png"
        there = set(row.maps or ())
        rows.append(
            replace(
                row, file=own if own in there else None, baseline=other if row.baseline and other in there else None
            )
        )
    return replace(result, pictures=tuple(rows))


def word_of(file: str) -> str:
    """The word that a heat map is of, by the name of its file.

    >>> word_of("maps/baseline-seed-3-red-car.png")
    'red-car'
    """
    return re.sub(r"^maps/(baseline-)?seed-\d+-|\.png$", "", file)


def _remove_old_pages(first: Path, n: int) -> None:
    """Remove pages that an earlier call wrote and this one has not."""
    while (path := first.with_name(f"{first.stem}-{n}{first.suffix}")).is_file():
        try:
            if "sheet" not in images.settings_of(path):
                return
        except (OSError, ValueError):
            return
        path.unlink()
        n += 1
