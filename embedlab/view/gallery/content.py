"""The results of a sweep → what its gallery shows, as plain values: axes, cells with their scores, details of jobs."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedlab import readers
from embedlab.clean import redact
from embedlab.errors import ConfigError, counted
from embedlab.metrics.titles import name_of
from embedlab.sweep.axes import axes, short
from embedlab.sweep.results import collect, label, shown_scores, split, unread
from embedlab.sweep.sweep_plan import FILE, PlannedJob, SweepPlan, read_plan

STATES = ("done", "failed", "pending")
NOWHERE = "–"  # the value of a setting that a job was not given


@dataclass(frozen=True)
class Sweep:
    """A sweep as it is on the disk just now; jobs that were planned and have no result yet are `pending` ones."""

    folder: Path
    jobs: tuple[dict[str, Any], ...]
    command: str
    finished: bool
    notices: tuple[str, ...]

    @property
    def pending(self) -> int:
        """How many planned jobs have no result yet."""
        return sum(job["status"] == "pending" for job in self.jobs)


def read(folder: Path, wait: bool = False) -> Sweep:
    """A sweep's jobs, planned or done; with `wait` one that has none yet is no error."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        raise ConfigError(f"'{folder}' {what}; give the folder that a sweep wrote, such as multirun/DATE/TIME.")
    results = {Path(result["folder"]).name: tidy(result) for result in collect(folder)}
    plan, notices = planned(folder)
    jobs = [results.pop(job.folder) if job.folder in results else waiting(folder, job) for job in plan.jobs]
    jobs += results.values()
    notices += unread(folder)
    if not wait and all(job["status"] == "pending" for job in jobs):
        raise ConfigError(nothing_in(folder, len(jobs)))
    return Sweep(
        folder=folder,
        jobs=tuple(redact(jobs)),
        command=redact(shlex.join(plan.command)),
        finished=not any(job["status"] == "pending" for job in jobs) and (bool(plan.jobs) or collected(folder)),
        notices=tuple(notices),
    )


def nothing_in(folder: Path, pending: int) -> str:
    """Why a folder makes no gallery, and which might."""
    if pending:
        return (
            f"'{folder}' has {counted(pending, 'job')} planned and none done; try again later, or follow it with "
            "embedlab gallery SWEEP --watch."
        )
    if (folder / "result.json").is_file():
        return f"'{folder}' is one job, no sweep; the folder above it is '{folder.resolve().parent}'."
    if (folder / "data.js").is_file() and any(folder.parent.glob("*/result.json")):
        return f"'{folder}' is a gallery already; its sweep is '{folder.resolve().parent}'."
    deeper = (path for pattern in ("*/*/result.json", "*/*/*/result.json") for path in folder.glob(pattern))
    below = sorted({path.parent.parent for path in deeper})
    hint = f"there is a sweep in '{below[-1]}'" if below else "a sweep is what embedlab -m wrote, in multirun/DATE/TIME"
    return f"'{folder}' holds no finished job (a folder with a result.json); {hint}."


def planned(folder: Path) -> tuple[SweepPlan, list[str]]:
    """A sweep's plan, an empty one where it has none, and what is wrong with it."""
    try:
        plan = read_plan(folder) or SweepPlan()
    except ConfigError as error:
        return SweepPlan(), [f"{str(error).rstrip('.')}: jobs to come are not shown"]
    lost = f"'{folder / FILE}' names jobs that are none of the sweep: they are not shown"
    return plan, [lost] if "jobs" in plan.damaged else []


def collected(folder: Path) -> bool:
    """Whether a sweep without a plan came to its end: its table is written after all results."""
    table = folder / "results.csv"
    last = max((path.stat().st_mtime for path in folder.glob("*/result.json")), default=math.inf)
    return table.is_file() and table.stat().st_mtime >= last


def waiting(folder: Path, job: PlannedJob) -> dict[str, Any]:
    """A planned job that has no result yet."""
    return tidy({"job": job.job, "overrides": job.overrides, "status": "pending", "folder": str(folder / job.folder)})


def tidy(result: dict[str, Any]) -> dict[str, Any]:
    """A result with all keys that we read, whatever its job got to write."""
    made = dict(result)
    overrides = result.get("overrides")
    if not isinstance(overrides, dict):
        overrides = dict(told(part) for part in split(str(result.get("name") or "")) if "=" in part)
    made["overrides"] = overrides
    made["prompt"] = text_of(result.get("prompt", overrides.get("prompt", "")))
    made["status"] = result.get("status") if result.get("status") in STATES else "done"
    pictures = result.get("pictures")
    made["pictures"] = (
        [p for p in pictures if isinstance(p, dict) and "seed" in p] if isinstance(pictures, list) else []
    )
    made["scores"] = result["scores"] if isinstance(result.get("scores"), dict) else {}
    said = ", ".join(f"{key.split('.')[-1]} {text_of(value)}" for key, value in overrides.items())
    made["label"] = str(result.get("label") or said or "as written")
    made["error"] = str(result.get("error") or "no reason was written down") if made["status"] == "failed" else ""
    made["notes"] = [str(note) for note in result.get("notes") or []]
    return made


def told(part: str) -> tuple[str, Any]:
    """The key and the value of an override in a job's name.

    >>> told("sampler.steps=6"), told("operators=[replace]")
    (('sampler.steps', 6), ('operators', '[replace]'))
    """
    key, _, value = part.partition("=")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def text_of(value: Any) -> str:
    """A value of a setting in a few characters."""
    if value is None:
        return NOWHERE
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(v, str | int | float) for v in value):
        return f"[{', '.join(text_of(v) for v in value)}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    said = json.dumps(value, ensure_ascii=False, default=str)
    return short(said.replace('"', "")) if isinstance(value, dict | list) else said


def number(value: Any) -> float | None:
    """A finite number, or none."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None


def rounded(value: Any) -> float | None:
    """A score with the digits that are looked at."""
    found = number(value)
    return None if found is None else float(f"{found:.5g}")


class Texts:
    """Texts by number: each is written once, however many cells share it."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


def axes_of(jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The axes of a gallery: key, short name, values as texts and, where all are numbers, as numbers in order."""
    found = axes(jobs)
    if "seed" in found:
        found.pop("seeds", None)  # which job a seed belongs to says no more
    names = [key.split(".")[-1] for key in found]
    made = []
    for key, values in found.items():
        numbers = [number(value) for value in values]
        said = [text_of(value) for value in values]
        strange = any(n is None and value is not None for n, value in zip(numbers, values, strict=True))
        if strange or len(set(said)) < len(said):  # 1 and "1" are one place
            said, numbers = list(dict.fromkeys(said)), []
        pairs = sorted(zip(numbers, said, strict=False), key=lambda pair: -math.inf if pair[0] is None else pair[0])
        short_name = key.split(".")[-1]
        made.append(
            {
                "key": key,
                "name": short_name if names.count(short_name) == 1 else ".".join(key.split(".")[-2:]),
                "values": [text for _, text in pairs] or said,
                "numbers": [n for n, _ in pairs] or None,
            }
        )
    return made


def content(sweep: Sweep) -> dict[str, Any]:
    """Everything that the first view needs: axes, jobs and cells, column by column; a text is given by its number."""
    jobs, texts = sweep.jobs, Texts()
    ways = axes_of(jobs)
    where = [{text: n for n, text in enumerate(axis["values"])} for axis in ways]
    seeds = list(dict.fromkeys(row["seed"] for job in jobs for row in job["pictures"])) or [None]
    keys = shown_scores(jobs, (k for j in jobs for row in j["pictures"] for k in row if score_like(row, k)))
    whole = [k for k in shown_scores(jobs, (k for j in jobs for k in j["scores"])) if k not in keys]
    cells: dict[str, list[Any]] = {n: [] for n in ("job", "seed", "at", "state", "error", "file", "baseline")}
    scores: dict[str, list[Any]] = {key: [] for key in keys}
    taken: dict[tuple[int, ...], int] = {}
    for n, job in enumerate(jobs):
        for row in rows_of(job, seeds):
            values = [row["seed"] if a["key"] == "seed" else job["overrides"].get(a["key"]) for a in ways]
            at = tuple(places[text_of(value)] for places, value in zip(where, values, strict=True))
            taken[at] = taken.get(at, -1) + 1
            cells["job"].append(n)
            cells["seed"].append(row["seed"])
            cells["at"].append([*at, taken[at]])
            error = row.get("error") or job["error"]
            cells["state"].append(STATES.index("failed" if error else job["status"]))
            cells["error"].append(texts(str(error)) if error else -1)
            for name in ("file", "baseline"):
                cells[name].append(texts(row[name]) if row.get(name) and not error else -1)
            for key in keys:
                scores[key].append(rounded(row.get(key)))
    most = max(taken.values(), default=0)
    if most:  # two jobs at one place: each gets a place of its own
        ways.append({"key": "repeat", "name": "repeat", "values": [str(n) for n in range(most + 1)], "numbers": None})
    else:
        cells["at"] = [at[:-1] for at in cells["at"]]
    return {
        "format": 1,
        "title": sweep.folder.resolve().name,
        "command": sweep.command,
        "pending": sweep.pending,
        "axes": ways,
        "scores": [{"key": key, "name": name_of(key)} for key in [*keys, *whole]],
        "jobs": {
            "number": [job.get("job", n) for n, job in enumerate(jobs)],
            "folder": [Path(job["folder"]).name for job in jobs],
            "label": [texts(label_of(job)) for job in jobs],
            "prompt": [texts(job["prompt"]) for job in jobs],
            "scores": {key: [rounded(job["scores"].get(key)) for job in jobs] for key in whole},
        },
        "cells": {**cells, "scores": scores},
        "texts": list(texts.numbers),
    }


def label_of(job: dict[str, Any]) -> str:
    """What a job's caption says; a name that cannot be taken apart leaves its label."""
    return label(job) if isinstance(job.get("name"), str) else job["label"]


def rows_of(job: dict[str, Any], seeds: Sequence[Any]) -> list[dict[str, Any]]:
    """The pictures of a job; one that has none has a place for each seed of the sweep."""
    folder, rows = Path(job["folder"]), []
    for picture in job["pictures"]:
        row = dict(picture)
        if not row.get("error") and job["status"] == "done" and not inside(folder, row.get("file")):
            row["error"] = f"its picture is not there: {row.get('file') or 'no file was written'}"
        if not inside(folder, row.get("baseline")):
            row.pop("baseline", None)
        rows.append(row)
    return rows or [{"seed": seed} for seed in seeds]


def inside(folder: Path, name: Any) -> bool:
    """Whether a file is there, in the folder of its job and not elsewhere."""
    return readers.why_not_inside(folder, name) is None and (folder / name).is_file()


def score_like(row: dict[str, Any], key: str) -> bool:
    """Whether a value of a picture's row is a score."""
    return key != "seed" and number(row[key]) is not None


# ── details of a job, read when it is opened ──────────────────────────────────────────────────────────────────────


def details(job: dict[str, Any]) -> dict[str, Any]:
    """What a job's page says beside its pictures; absent parts are left out."""
    told_of = job.get("explain")
    explain = told_of if isinstance(told_of, dict) else {}
    tokens = [t for t in explain.get("tokens") or [] if isinstance(t, dict)]
    made = {
        "name": str(job.get("name") or ""),
        "key": str(job.get("key") or ""),
        "command": command_for(job),
        "notes": job["notes"],
        "edit": str(explain.get("edit") or ""),
        "tokens": table(tokens),
        "layers": table([layer for layer in explain.get("layers") or [] if isinstance(layer, dict)]),
        "shifts": explain.get("shifts") or {},
        "lengths": {side: explain[side] for side in ("positive", "negative") if isinstance(explain.get(side), dict)},
        "schedule": table([row for row in job.get("schedule") or [] if isinstance(row, dict)]),
        "settings": flat(job.get("config") or {}),
        "versions": {str(k): str(v) for k, v in dict(job.get("versions") or {}).items()},
    }
    return {key: finite(value) for key, value in made.items() if value}


def command_for(job: dict[str, Any]) -> str:
    """The command that makes a job again; from its name where the job did not write it down."""
    if isinstance(job.get("command"), str):
        return job["command"]
    parts = split(str(job.get("name") or ""))
    if job["pictures"] and not any(part.startswith("seeds=") for part in parts):  # the name leaves them out
        parts.append(f"seeds={[row['seed'] for row in job['pictures']]}".replace(" ", ""))
    return shlex.join(["embedlab", *parts]) if parts and all("=" in part for part in parts) else ""


def table(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows of equal keys as heads and lists."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    return {"heads": heads, "rows": [[row.get(head) for head in heads] for row in rows]} if rows else {}


def flat(settings: Any, at: str = "") -> dict[str, str]:
    """Nested settings as one level of texts.

    >>> flat({"sampler": {"steps": 6}, "seeds": [0, 1]})
    {'sampler.steps': '6', 'seeds': '[0, 1]'}
    """
    if isinstance(settings, dict) and settings:
        return {k: v for key, value in settings.items() for k, v in flat(value, f"{at}.{key}" if at else key).items()}
    return {at: "null" if settings is None else text_of(settings)} if at else {}


def finite(value: Any) -> Any:
    """A value that JSON can hold: numbers that are none become texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): finite(v) for key, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value
