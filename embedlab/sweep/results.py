"""What belongs to a whole sweep: its contact sheet, its table, its results."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean as mean
from typing import Any

from embedlab.clean import redact
from embedlab.errors import EmbedlabError
from embedlab.files import write as write_file
from embedlab.metrics.titles import format_score, title_of
from embedlab.sweep.axes import axes, format_value, short, short_names
from embedlab.sweep.result import read_result

SCORES = ("clip_score/", "closest/", "change/", "rows/", "conditioning/")  # what the names of scores begin with
CIRCUMSTANCES = ("batch", "runtime")  # of a picture's row: what its bits depend on, and no result
AS_WRITTEN = "as written"  # the label of a cell without operators


@dataclass(frozen=True)
class Apart:
    """How far two scores of a job are apart, for a search of where they meet: 0 where it is as much one as the other.

    >>> Apart("clip_score/puppy", "clip_score/skunk")({"scores": {"clip_score/puppy": 20.0, "clip_score/skunk": 35.0}})
    15.0
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


def curves(
    rows: Sequence[dict[str, Any]], varied: dict[str, list[Any]]
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
        for score in shown_scores(rows, (key for row in rows for key in row if key.startswith(SCORES))):
            groups: dict[str, dict[float, list[float]]] = {}
            for row in rows:
                if row.get(score) is not None:
                    name = ", ".join(f"{names[key]} {format_value(row.get(key))}" for key in others)
                    groups.setdefault(name, {}).setdefault(row[axis], []).append(row[score])
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


def collect(folder: Path) -> list[dict[str, Any]]:
    """The results of the jobs below a folder, finished or failed, in the order of their numbers.

    `folder` of each is where its files are. A file cut short, or of somebody else, is a job that is not there yet.
    """
    results = []
    for path in sorted(path.parent for path in folder.glob("*/result.json")):
        try:
            results.append(result_of(path))
        except EmbedlabError:
            continue
    results.sort(key=lambda result: (number_of(result), result["folder"]))
    return set_apart(results)


def number_of(result: Mapping[str, Any]) -> float:
    """The number of a job; of a result that has none, that of its folder, or the last."""
    number, name = result.get("job"), Path(result["folder"]).name
    if isinstance(number, int):
        return number
    return int(name) if name.isdecimal() and len(name) < 10 else math.inf


def set_apart(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write into each result what of its name is not in all of them."""
    named = [split(str(result.get("name") or "")) for result in results]
    common = set.intersection(*map(set, named)) if len(named) > 1 else set()
    for result, parts in zip(results, named, strict=True):
        result["apart"] = ",".join(part for part in parts if part not in common)
    return results


def result_of(folder: Path) -> dict[str, Any]:
    """The result in a job's folder; `folder` is that. ConfigError says what is wrong with it.

    A picture whose file lies elsewhere, or is none, has that as its error.
    """
    return {**read_result(folder).as_dict(), "folder": str(folder)}


def unread(folder: Path) -> list[str]:
    """What is wrong with the results of a sweep that are left out, a line each."""
    told = []
    for path in sorted(folder.glob("*/result.json")):
        try:
            result_of(path.parent)
        except EmbedlabError as error:
            told.append(str(error).rstrip("."))
    return told


def records(results: Sequence[dict[str, Any]], alone: bool = False) -> list[dict[str, Any]]:
    """One row a picture: job, label, prompt, each axis, every score, status, key, files.

    Files are named as seen from the sweep's folder, of one job `alone` from its own. `closest/WORD` of a picture is 1
    or 0, so that its mean is the share that result.json has; scores of an edit as a whole stand in each row of its job.
    """
    varied = [key for key in axes(results) if key != "seed"]
    rows = []
    for result, name in zip(results, labels(results), strict=True):
        overrides, folder = result.get("overrides", {}), "" if alone else f"{Path(result['folder']).name}/"
        for picture in result["pictures"]:
            row = {"job": result.get("job"), "label": name, "prompt": result["prompt"]}
            row |= {key: overrides.get(key) for key in varied}
            row |= {key: value for key, value in picture.items() if key not in CIRCUMSTANCES}
            if not picture.get("error"):
                for key, value in result.get("scores", {}).items():
                    word = key.removeprefix("closest/")
                    mine = float(picture.get("closest") == word) if word != key else value
                    row.setdefault(key, mine)
            row["status"] = "failed" if picture.get("error") else "done"
            for kind in ("file", "baseline"):
                if picture.get(kind):
                    row[kind] = f"{folder}{picture[kind]}"
            rows.append(row)
    return rows


def labels(results: Sequence[dict[str, Any]]) -> list[str]:
    """The labels of a sweep's jobs; what they leave out is added where two would be called the same.

    >>> two = [{"label": "puppy → cat", "name": "", "job": n, "overrides": {"model": m}} for n, m in enumerate("ab")]
    >>> labels(two), labels([two[0], two[0]])
    (['puppy → cat, model a', 'puppy → cat, model b'], ['puppy → cat, job 0', 'puppy → cat, job 0'])
    """
    keys = list(dict.fromkeys(key for result in results for key in result.get("overrides", {})))
    names, made = short_names(dict.fromkeys(keys)), [label(result) for result in results]
    alike: dict[str, list[int]] = {}
    for n, name in enumerate(made):
        alike.setdefault(name, []).append(n)
    for mine in alike.values():
        values = {key: [format_value(results[n].get("overrides", {}).get(key)) for n in mine] for key in keys}
        varied = [key for key in keys if len(set(values[key])) > 1]
        for k, n in enumerate(mine):
            made[n] = ", ".join([made[n], *(f"{names[key]} {values[key][k]}" for key in varied)])
    often = Counter(made)
    pairs = zip(made, results, strict=True)
    return [name if often[name] == 1 else f"{name}, job {result.get('job')}" for name, result in pairs]


def label(result: dict[str, Any]) -> str:
    """What tells a job apart from the others of its sweep: its edit, where that was chosen, and what else was set.

    >>> label({"label": "as written", "name": "encoder.skip={0:0.5,2:0.5},sampler.steps=9"})
    'skip {0:0.5,2:0.5}, steps 9'
    >>> label({"label": "puppy → cat", "name": "operators.replace.by=cat,guidance.scale=2"})
    'puppy → cat, scale 2'
    """
    name = str(result.get("apart") or result.get("name") or "")
    named = result.get("label") or AS_WRITTEN  # one that failed early may have none
    parts = split(name) if name != named else []
    others = [part.partition("=") for part in parts if not part.lstrip("+").startswith("operators")]
    said = [f"{key.split('.')[-1]} {short(value)}" for key, _, value in others]
    return ", ".join([named, *said] if len(said) < len(parts) or not parts else said)


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


def write_tables(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One row a picture, as CSV and by columns."""
    rows = redact(rows)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys)
    writer.writeheader()
    writer.writerows({key: plain_cell(value) for key, value in row.items()} for row in rows)
    write_file(folder / "results.csv", text.getvalue().encode())
    write_file(folder / "results.parquet", as_parquet(rows, keys))


def as_parquet(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> bytes:
    """A table by columns; a column of numbers is numbers, one of several kinds is text."""
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
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def table(results: Sequence[dict[str, Any]], most: int = 60) -> str:
    """The mean scores of each job as text, a line a job; of very many the first and the last."""
    if left := max(0, len(results) - most):
        ends = table([*results[: most // 2], *results[left + most // 2 :]], most).splitlines()
        last = len(ends) - (most - most // 2)
        return "\n".join([*ends[:last], f"… {left} more in results.csv …", *ends[last:]])
    drop = ("rows/", "conditioning/")
    scores = shown_scores(results, (key for r in results for key in r["scores"]))
    keys = [key for key in scores if not key.startswith(drop)]
    names = [textwrap.shorten(name, 60, placeholder="…") for name in labels(results)]
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
            format_score(key, result["scores"].get(key)).rjust(len(head)) for key, head in zip(keys, heads, strict=True)
        ]
        lines.append("  ".join([name.ljust(wide), *cells]))
    return "\n".join(lines)


def shown_scores(results: Sequence[Mapping[str, Any]], keys: Iterable[str]) -> list[str]:
    """The scores that say something, each once: against the unedited picture only where something was edited."""
    edited = any(result.get("label") != AS_WRITTEN for result in results)
    return [key for key in dict.fromkeys(keys) if edited or not key.startswith("change/")]
