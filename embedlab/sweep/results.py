"""What belongs to a whole sweep: its contact sheet, its table, its results."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean as mean
from typing import Any

from embedlab.clean import redact
from embedlab.errors import EmbedlabError
from embedlab.files import write as write_file
from embedlab.metrics.titles import format_score, title_of
from embedlab.sweep.axes import axes, format_value, short, short_names
from embedlab.sweep.result import PictureResult, Result, read_result
from embedlab.sweep.versioned import FORMAT

SCORES = ("clip_score/", "closest/", "change/", "rows/", "conditioning/")  # what the names of scores begin with
AS_WRITTEN = "as written"  # the label of a cell without operators


@dataclass(frozen=True)
class ScoreGap:
    """How far two scores of a job are apart, for a search of where they meet: 0 where it is as much one as the other.

    >>> ScoreGap("change/ssim", "change/cosine")({"scores": {"change/ssim": 0.5, "change/cosine": 0.75}})
    0.25
    """

    first: str
    second: str

    @property
    def scores(self) -> tuple[str, str]:
        """What it asks of a result; seen to be there before anything is drawn."""
        return self.first, self.second

    def __call__(self, result: Mapping[str, Any]) -> float:
        scores = result["scores"]
        return abs(scores[self.first] - scores[self.second])


def plain_cell(value: Any) -> Any:
    """A value as a cell of a table: what is neither a number nor a text is written out."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, default=str)


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


def curves(
    rows: Sequence[Row], varied: dict[str, list[Any]]
) -> list[tuple[str, str, list[float], dict[str, list[float | None]]]]:
    """Each score over each numeric axis: a line for each value of the other axes, its points means over the seeds.

    Where no other axis is, the lowest and the highest of the seeds beside the mean. None where nothing was measured.
    """
    names = short_names(varied)
    made = []
    for axis, values in varied.items():
        if axis == "seed" or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            continue
        others = [key for key in varied if key not in (axis, "seed")]
        for score in shown_scores(rows, (key for row in rows for key in row.scores if key.startswith(SCORES))):
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
            made.append((axis, score, at, lines))
    return made


def collect(folder: Path) -> list[Result]:
    """The results of the jobs below a folder, finished or failed, in the order of their numbers.

    A file cut short, or of somebody else, is a job that is not there yet.
    """
    results = []
    for path in sorted(folder.glob("*/result.json")):
        with suppress(EmbedlabError):
            results.append(read_result(path.parent))
    return sorted(results, key=lambda result: (number_of(result), str(result.folder)))


def number_of(result: Result) -> float:
    """The number of a job; of a result that has none, that of its folder, or the last."""
    name = result.folder.name
    if result.job is not None:
        return result.job
    return int(name) if name.isdecimal() and len(name) < 10 else math.inf


def unread(folder: Path) -> list[str]:
    """What is wrong with the results of a sweep that are left out, a line each."""
    wrong = []
    for path in sorted(folder.glob("*/result.json")):
        try:
            read_result(path.parent)
        except EmbedlabError as error:
            wrong.append(str(error).rstrip("."))
    return wrong


def records(results: Sequence[Result], alone: bool = False) -> list[Row]:
    """One row a picture: job, label, prompt, each axis, every score, status, key, files.

    Files are named as seen from the sweep's folder, of one job `alone` from its own. `closest/WORD` of a picture is 1
    or 0, so that its mean is the share that result.json has; scores of an edit as a whole stand in each row of its job.
    """
    varied = [key for key in axes(results) if key != "seed"]
    rows = []
    for result, name in zip(results, labels(results), strict=True):
        folder = "" if alone else f"{result.folder.name}/"
        chosen = {key: result.overrides.get(key) for key in varied}
        for picture in result.pictures:
            shared = {} if picture.error else {k: v for k, v in result.scores.items() if k not in picture.measured}
            shared |= {
                key: float(picture.measured.get("closest") == key.removeprefix("closest/"))
                for key in shared
                if key.startswith("closest/")
            }
            file, baseline = (name and f"{folder}{name}" for name in (picture.file, picture.baseline))
            # batch and runtime are what its bits depend on, and no result
            shown = replace(picture, file=file, baseline=baseline, batch=None, runtime=None)
            rows.append(Row(result.job, name, result.prompt, chosen, shown, shared))
    return rows


def labels(results: Sequence[Result]) -> list[str]:
    """The labels of a sweep's jobs; what they leave out is added where two would be called the same.

    >>> two = [Result("done", label="puppy → cat", job=n, overrides={"model": m}) for n, m in enumerate("ab")]
    >>> labels(two), labels([two[0], two[0]])
    (['puppy → cat, model a', 'puppy → cat, model b'], ['puppy → cat, job 0', 'puppy → cat, job 0'])
    """
    common = common_parts(results)
    keys = list(dict.fromkeys(key for result in results for key in result.overrides))
    names, made = short_names(dict.fromkeys(keys)), [label(result, common) for result in results]
    alike: dict[str, list[int]] = {}
    for n, name in enumerate(made):
        alike.setdefault(name, []).append(n)
    for mine in alike.values():
        values = {key: [format_value(results[n].overrides.get(key)) for n in mine] for key in keys}
        varied = [key for key in keys if len(set(values[key])) > 1]
        for k, n in enumerate(mine):
            made[n] = ", ".join([made[n], *(f"{names[key]} {values[key][k]}" for key in varied)])
    often = Counter(made)
    pairs = zip(made, results, strict=True)
    return [name if often[name] == 1 else f"{name}, job {result.job}" for name, result in pairs]


def label(result: Result, common: Collection[str] = ()) -> str:
    """What tells a job apart from the others of its sweep: its edit, where that was chosen, and what else was set.

    `common` are parts of its name that all have.

    >>> label(Result("done", label="as written", name="encoder.skip={0:0.5,2:0.5},sampler.steps=9"))
    'skip {0:0.5,2:0.5}, steps 9'
    >>> label(Result("done", label="puppy → cat", name="operators.replace.by=cat,guidance.scale=2"))
    'puppy → cat, scale 2'
    """
    own = [part for part in split(result.name) if part not in common]
    name = ",".join(own) or result.name
    named = result.label or AS_WRITTEN  # one that failed early may have none
    parts = split(name) if name != named else []
    others = [part.partition("=") for part in parts if not part.lstrip("+").startswith("operators")]
    said = [f"{key.split('.')[-1]} {short(value)}" for key, _, value in others]
    return ", ".join([named, *said] if len(said) < len(parts) or not parts else said)


def common_parts(results: Sequence[Result]) -> frozenset[str]:
    """The parts that the names of all jobs of a sweep have.

    >>> sorted(common_parts([Result("done", name=f"sampler.steps=9,guidance.scale={scale}") for scale in (1, 4)]))
    ['sampler.steps=9']
    """
    named = [split(result.name) for result in results]
    return frozenset(set.intersection(*map(set, named))) if len(named) > 1 else frozenset()


def split(name: str) -> list[str]:
    """Overrides of a job's name; commas within brackets and quotes belong to a value.

    >>> split("a=1,b=[2,3],c='4,5'")
    ['a=1', 'b=[2,3]', "c='4,5'"]
    """
    parts, depth, quote = [""], 0, ""
    for sign in name:
        if sign in "'\"":
            quote = "" if sign == quote else quote or sign
        depth += 0 if quote else (sign in "[{(") - (sign in "]})")
        if sign == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return [part for part in parts if part]


def write_tables(folder: Path, rows: Sequence[Row]) -> None:
    """One row a picture, as CSV and by columns."""
    lines = redact([row.as_dict() for row in rows])
    keys = list(dict.fromkeys(key for line in lines for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys)
    writer.writeheader()
    writer.writerows({key: plain_cell(value) for key, value in line.items()} for line in lines)
    write_file(folder / "results.csv", text.getvalue().encode())
    write_file(folder / "results.parquet", as_parquet(lines, keys))


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


def table(results: Sequence[Result], names: Sequence[str] | None = None, most: int = 60) -> str:
    """The mean scores of each job as text, a line a job; of very many the first and the last.

    `names` are what the jobs are called: by their labels where they are left out.
    """
    names = labels(results) if names is None else names
    if left := max(0, len(results) - most):
        first, last = most // 2, len(results) - (most - most // 2)
        ends = table([*results[:first], *results[last:]], [*names[:first], *names[last:]], most).splitlines()
        last = len(ends) - (most - first)
        return "\n".join([*ends[:last], f"… {left} more in results.csv …", *ends[last:]])
    drop = ("rows/", "conditioning/")
    scores = shown_scores(results, (key for result in results for key in result.scores))
    keys = [key for key in scores if not key.startswith(drop)]
    names = [textwrap.shorten(name, 60, placeholder="…") for name in names]
    wide = max([4, *(len(name) for name in names)])
    titles = [title_of(key) for key in keys]
    over: list[str] = []
    heads: list[str] = []
    for group, members in itertools.groupby(titles, key=lambda title: title[0]):
        mine = [name for _, name in members]
        mine[0] = mine[0].rjust(len(group) - len("  ".join(mine)) + len(mine[0]))
        over.append(group.rjust(len("  ".join(mine))))
        heads += mine
    lines = ["  ".join([" " * wide, *over]).rstrip()] if any(group for group, _ in titles) else []
    lines.append("  ".join([" " * wide, *heads]))
    for name, result in zip(names, results, strict=True):
        cells = [
            format_score(key, result.scores.get(key)).rjust(len(head)) for key, head in zip(keys, heads, strict=True)
        ]
        lines.append("  ".join([name.ljust(wide), *cells]))
    return "\n".join(lines)


def shown_scores(results: Sequence[Result | Row], keys: Iterable[str]) -> list[str]:
    """The scores that say something, each once: against the unedited picture only where something was edited."""
    edited = any(result.label != AS_WRITTEN for result in results)
    return [key for key in dict.fromkeys(keys) if edited or not key.startswith("change/")]
