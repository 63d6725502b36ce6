"""What stands where on the contact sheets of a sweep: any two of its axes as rows and columns, the others as pages."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedlab.errors import ConfigError, listed
from embedlab.sweep.axes import apart, find_axis, format_value, seed_groups, short_names, values_of
from embedlab.sweep.labels import labels
from embedlab.sweep.result import PictureResult, Result
from embedlab.sweep.results import collect
from embedlab.sweep.roles import OF_UNEDITED

WIDE, TALL = 16, 24  # columns and rows of a page


@dataclass(frozen=True)
class SheetCell:
    """A picture of a sweep, or why there is none; the unedited one of its seed, and what tells that from others."""

    shown: Path | str | None
    baseline: Path | None = None
    unedited: str = ""

    @property
    def is_unedited(self) -> bool:
        """Whether it is unedited itself."""
        return isinstance(self.shown, Path) and self.baseline is None


@dataclass(frozen=True)
class Axis:
    """Something that varies: its key, and what its values are called."""

    key: str
    labels: tuple[str, ...]


def results_of(folder: Path) -> list[Result]:
    """The results of a sweep's jobs; ConfigError where there are none."""
    if not folder.is_dir():
        raise ConfigError(f"the folder '{folder}' {'is a file' if folder.exists() else 'is not there'}.")
    results = collect(folder)
    if not results:
        raise ConfigError(f"'{folder}' holds no sweep: none of its folders has a result.json that can be read.")
    return results


def layout(
    results: Sequence[Result], rows: str | None = None, columns: str | None = None
) -> tuple[Axis, Axis, list[Axis]]:
    """What goes down, what goes across, and what is left for the pages."""
    found = axes_of(results)
    settings = [key for key in found if key not in ("seed", "job")]
    asked = [None if name is None else find_axis(name, found) for name in (rows, columns)]
    if asked == [None, None]:
        joint = len(results) <= WIDE or len(settings) < 2
        spare = "seed" if joint or len(found["seed"].labels) > 1 else settings[0]
        asked = [spare, "job" if joint else settings[-1]]
    likely = [key for key in ("seed", *reversed(settings)) if len(found[key].labels) > 1] + ["seed", "job"]
    down, across = (one or next(key for key in likely if key != other) for one, other in (asked, asked[::-1]))
    if down == across:
        raise ConfigError(f"rows and columns are both {down}; choose two of {listed(found)}.")
    if "job" in (down, across):
        if {down, across} != {"job", "seed"}:
            raise ConfigError("a job stands for all of its settings; beside it there is only seed.")
        return found[down], found[across], []
    return found[down], found[across], [found[key] for key in (*settings, "seed") if key not in (down, across)]


def axes_of(results: Sequence[Result]) -> dict[str, Axis]:
    """The axes of a sweep by key: its settings, the seed, and the job, which is all settings at once."""
    columns = dict(enumerate(seed_groups(results)))
    first = {number: job for job, number in reversed(columns.items())}
    values = {**_page_values(results), "job": sorted(first)}
    names = short_names(values)
    found = {key: Axis(key, tuple(f"{names[key]} {format_value(v)}" for v in values[key])) for key in values}
    found["job"] = Axis("job", tuple(labels([results[first[n]] for n in sorted(first)])))
    return found


def _page_values(results: Sequence[Result]) -> dict[str, list[Any]]:
    """What tells pictures apart, and the seed."""
    there = apart(results)
    return {key: values for key, values in values_of(results).items() if key in there or key == "seed"}


def sheet_cells(results: Sequence[Result], keys: Sequence[str]) -> Iterator[tuple[tuple[int, ...], SheetCell]]:
    """Each picture with its number on each axis; a picture that should be there and is not has the reason, or none."""
    values = _page_values(results)
    numbers = seed_groups(results)
    seeds_of = [{row.seed for row in result.pictures} for result in results]
    for job, result in enumerate(results):
        rows = {row.seed: row for row in result.pictures}
        others = set().union(*(seeds_of[n] for n in range(len(results)) if numbers[n] == numbers[job] and n != job))
        for n, seed in enumerate(values["seed"]):
            if seed in others:
                continue
            fixed = {"job": numbers[job], "seed": n}
            where = tuple(fixed[k] if k in fixed else values[k].index(result.overrides.get(k)) for k in keys)
            yield where, _sheet_cell(result, rows.get(seed), seed)


def _sheet_cell(result: Result, row: PictureResult | None, seed: int) -> SheetCell:
    config = result.config or {"prompt": result.prompt}
    unedited = json.dumps([seed, *(config.get(key) for key in OF_UNEDITED)], sort_keys=True, default=str)
    if row and row.shown:
        return SheetCell(result.folder / row.shown, result.folder / row.baseline if row.baseline else None, unedited)
    reason = (row and row.error) or (result.status == "failed" and (result.error or "failed"))
    return SheetCell(reason or None, None, unedited)


def pages_of(
    down: Axis, across: Axis, others: Sequence[Axis], places: Mapping[tuple[int, ...], SheetCell]
) -> Iterator[tuple[Sequence[int], Sequence[int], tuple[int, ...]]]:
    """Rows, columns and the numbers of all else, a page each; combinations that were not run have none."""
    there = {where[2:] for where in places}
    for rest in itertools.product(*(range(len(axis.labels)) for axis in others)):
        if rest in there:
            for r, c in itertools.product(_parts(len(down.labels), TALL), _parts(len(across.labels), WIDE)):
                yield r, c, rest


def _parts(count: int, most: int) -> list[range]:
    """Numbers in parts of much the same length.

    >>> _parts(5, 4)
    [range(0, 3), range(3, 5)]
    """
    parts = -(-count // most)
    long = -(-count // parts)
    return [range(k, min(k + long, count)) for k in range(0, count, long)]


def page_of(
    down: Axis,
    across: Axis,
    rows: Sequence[int],
    columns: Sequence[int],
    rest: tuple[int, ...],
    places: Mapping[tuple[int, ...], SheetCell],
) -> tuple[Sequence[Sequence[Path | str | None]], list[str], list[str], set[int], set[int]]:
    """What stands on a page, its row and column labels, and which of these are of unedited pictures."""
    grid = [[places.get((r, c, *rest), SheetCell(None)) for c in columns] for r in rows]
    cells = [[place.shown for place in row] for row in grid]
    names, heads = [down.labels[r] for r in rows], [across.labels[c] for c in columns]
    if not any(place.baseline for row in grid for place in row):
        return cells, names, heads, set(), set()
    # a picture that failed may have a neighbour with the same unedited one
    files = {place.unedited: place.baseline for row in grid for place in row if place.baseline}
    unedited = [[files.get(place.unedited) for place in row] for row in grid]
    label = "as written"
    if all(_one(row) for row in grid):
        if marked := {
            c for c, column in enumerate(zip(*grid, strict=True)) if all(cell.is_unedited for cell in column)
        }:
            return cells, names, heads, set(), marked
        shared = [next(filter(None, row), None) for row in unedited]
        return [[one, *row] for one, row in zip(shared, cells, strict=True)], names, [label, *heads], set(), {0}
    if all(_one(column) for column in zip(*grid, strict=True)):
        shared = [next(filter(None, column), None) for column in zip(*unedited, strict=True)]
        return [shared, *cells], [label, *names], heads, {0}, set()
    both: list[Sequence[Path | str | None]] = [line for pair in zip(unedited, cells, strict=True) for line in pair]
    pairs = [pair for name in names for pair in (f"{name} {label}", name)]
    return both, pairs, heads, set(range(0, len(pairs), 2)), set()


def _one(line: Sequence[SheetCell]) -> bool:
    """Whether all pictures of a row or column have the same unedited one."""
    return len({place.unedited for place in line if place.shown is not None}) < 2
