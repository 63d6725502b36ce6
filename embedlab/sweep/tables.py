"""The tables of a sweep: a row a picture in files, a line a job in the terminal, curves over an axis."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean as mean
from typing import Any

from embedlab import readers
from embedlab.checks import is_number
from embedlab.clean import redact
from embedlab.errors import EmbedlabError
from embedlab.files import write as write_file
from embedlab.sweep.axes import axes, format_value, short_names
from embedlab.sweep.labels import AS_WRITTEN, labels
from embedlab.sweep.result import PictureResult, Result
from embedlab.sweep.versioned import FORMAT
from embedlab.timing import Times

SCORES = ("clip_score/", "closest/", "change/", "eye/", "rows/", "conditioning/")  # what the names of scores begin with


@dataclass(frozen=True)
class Row:
    """One picture as a line of a sweep's tables; its files are named as seen from the folder of the tables.

    >>> picture = PictureResult(3, {"clip_score/cat": 20.5}, file="seed-3.png")
    >>> list(Row(0, "puppy → cat", "a puppy", {"guidance.scale": 4}, picture, {"rows/edited": 1.0}).as_dict())
    ['job', 'label', 'prompt', 'guidance.scale', 'seed', 'clip_score/cat', 'file', 'rows/edited', 'status']
    """

    job: int | None
    label: str
    prompt: str
    axes: Mapping[str, Any]  # what was set for it of what varies
    picture: PictureResult
    shared: Mapping[str, Any]  # scores of its job as a whole

    @property
    def scores(self) -> dict[str, Any]:
        """All that was measured: of the picture, then of its job."""
        return {**self.picture.measured, **self.shared}

    @property
    def status(self) -> str:
        """Whether the picture came out: `done` or `failed`."""
        return "failed" if self.picture.error else "done"

    def as_dict(self) -> dict[str, Any]:
        """The line by the names of its columns."""
        own = {"job": self.job, "label": self.label, "prompt": self.prompt, **self.axes}
        return {**own, **self.picture.as_dict(), **self.shared, "status": self.status}


def records(results: Sequence[Result], alone: bool = False) -> list[Row]:
    """One row a picture: job, label, prompt, each axis, every score, status, key, files.

    Files are named as seen from the sweep's folder, of one job `alone` from its own. `closest/WORD` and
    `eye/outcome/NAME` of a picture are 1 or 0, so that their mean is the share that result.json has; scores of an edit
    as a whole stand in each row of its job.
    """
    varied = [key for key in axes(results) if key != "seed"]
    rows = []
    for result, name in zip(results, labels(results), strict=True):
        folder = "" if alone else f"{result.folder.name}/"
        chosen = {key: result.overrides.get(key) for key in varied}
        for picture in result.pictures:
            shared = {} if picture.error else {k: v for k, v in result.scores.items() if k not in picture.measured}
            shared |= {
                key: float(picture.measured.get(name) == key.removeprefix(f"{name}/"))
                for key in shared
                for name in ("closest", "eye/outcome")
                if key.startswith(f"{name}/")
            }
            file, baseline = (name and f"{folder}{name}" for name in (picture.file, picture.baseline))
            # batch and runtime are what its bits depend on, and no result
            relative = replace(picture, file=file, baseline=baseline, batch=None, runtime=None, strip=None)
            rows.append(Row(result.job, name, result.prompt, chosen, relative, shared))
    return rows


def shown_scores(results: Sequence[Result | Row], keys: Iterable[str]) -> list[str]:
    """The scores that say something, each once: against the unedited picture only where something was edited."""
    edited = any(result.label != AS_WRITTEN for result in results)
    return [key for key in dict.fromkeys(keys) if edited or not key.startswith("change/")]


def curves(
    rows: Sequence[Row], varied: dict[str, list[Any]]
) -> list[tuple[str, str, list[float], dict[str, list[float | None]]]]:
    """Each score over each numeric axis: a line for each value of the other axes, its points means over the seeds.

    Where no other axis is, the lowest and the highest of the seeds beside the mean. None where nothing was measured.
    """
    names = short_names(varied)
    found = []
    for axis, values in varied.items():
        if axis == "seed" or not all(map(is_number, values)):
            continue
        others = [key for key in varied if key not in (axis, "seed")]
        scores = (item for row in rows for item in row.scores.items())
        numbers = [key for key, value in scores if key.startswith(SCORES) and not isinstance(value, str)]
        for score in shown_scores(rows, numbers):
            groups: dict[str, dict[float, list[float]]] = {}
            for row in rows:
                if (value := row.scores.get(score)) is not None:
                    name = ", ".join(f"{names[key]} {format_value(row.axes.get(key))}" for key in others)
                    groups.setdefault(name, {}).setdefault(row.axes[axis], []).append(value)
            at = [value for value in sorted(values) if any(value in found for found in groups.values())]
            if len(at) < 2:
                continue
            kinds: dict[str, tuple[dict[float, list[float]], Callable[[list[float]], float]]]
            if others:
                kinds = {name: (found, mean) for name, found in groups.items()}
            else:
                ((_, only),) = groups.items()
                kinds = {"mean": (only, mean), "lowest": (only, min), "highest": (only, max)}
            lines = {name: [how(found[v]) if v in found else None for v in at] for name, (found, how) in kinds.items()}
            found.append((axis, score, at, lines))
    return found


def write_tables(folder: Path, rows: Sequence[Row]) -> None:
    """One row a picture, as CSV and by columns."""
    lines = redact([row.as_dict() for row in rows])
    keys = list(dict.fromkeys(key for line in lines for key in line))
    write_file(folder / "results.csv", as_csv(lines, keys))
    write_file(folder / "results.parquet", as_parquet(lines, keys))


def write_times(folder: Path, times: Times, peak: int | None = None) -> None:
    """Where the time went, a row a part, and the most bytes that the process held; a command that rendered nothing
    leaves what is there.
    """
    if times.spent("UNet").calls:
        rows = times.records()
        if peak is not None:
            rows.append({"part": "all", "thread": "process", "peak_bytes": peak})
        write_file(folder / "times.csv", as_csv(rows, list(rows[0])))


def read_costs(folder: Path) -> dict[str, float]:
    """What a sweep took, as `write_times` left it: nothing where it did not, or of a file that is not so.

    Seconds of each part of the thread that samples and of all (`seconds/UNet`, `seconds/all`), pictures a second, rows
    of the UNet that were asked for and that were run, the most bytes that were held.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(readers.read_bytes(folder / "times.csv").decode())))
        mine = {row["part"]: row for row in rows if row["thread"] == "sampling"}
        seconds = {name: float(row["seconds"]) for name, row in mine.items()}
        whole = sum(seconds.values())
        if not whole:
            return {}
        found: dict[str, float] = {f"seconds/{name}": spent for name, spent in {**seconds, "all": whole}.items()}
        if "decode" in mine:
            found["sweep/pictures_per_second"] = int(mine["decode"]["rows"]) / whole
        if "UNet" in mine:
            found |= {f"unet/{name}": int(mine["UNet"][name]) for name in ("rows_asked", "rows")}
        if held := [int(row["peak_bytes"]) for row in rows if row["thread"] == "process"]:
            found["memory/peak_bytes"] = max(held)
    except (OSError, EmbedlabError, ValueError, KeyError, TypeError, csv.Error):
        return {}
    return found


def as_csv(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> bytes:
    """Rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, keys)
    writer.writeheader()
    writer.writerows({key: plain_cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode()


def as_parquet(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> bytes:
    """A table by columns, with its version; a column of numbers is numbers, one of several kinds is text."""
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, list[Any]] = {}
    for key in keys:
        cells = [plain_cell(row.get(key)) for row in rows]
        kinds = {type(cell) for cell in cells if cell is not None}
        if kinds == {int, float}:
            cells = [None if cell is None else float(cell) for cell in cells]
        elif len(kinds) > 1:
            cells = [None if cell is None else str(cell) for cell in cells]
        columns[key] = cells
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns, metadata={"embedlab.format": str(FORMAT)}), file)
    return file.getvalue()


def plain_cell(value: Any) -> Any:
    """A value as a cell of a table: what is neither a number nor a text is written out."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, default=str)
