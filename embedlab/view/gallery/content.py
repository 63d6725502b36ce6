"""The results of a sweep → what its gallery shows, as plain values: axes, cells with their scores, details of jobs."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedlab.checks import is_number
from embedlab.clean import one_line, redact
from embedlab.errors import ConfigError, counted
from embedlab.metrics.titles import about, name_of
from embedlab.sweep.axes import apart, format_value, short_names
from embedlab.sweep.labels import AS_WRITTEN, common_parts, label
from embedlab.sweep.result import PictureResult, Result
from embedlab.sweep.results import collect, unread
from embedlab.sweep.roles import OF_UNEDITED
from embedlab.sweep.sweep_plan import FILE, PlannedJob, SweepPlan, read_plan
from embedlab.sweep.tables import shown_scores
from embedlab.view.gallery.about import about_axis

STATES = ("done", "failed", "pending")
SWEEP = "sweep"  # the axis of several sweeps on one page
MOST = 40  # differences between sweeps that are told


@dataclass(frozen=True)
class Sweep:
    """A sweep as it is on the disk just now; jobs that were planned and have no result yet are `pending` ones.

    Of several sweeps together `folder` is the closest that holds them all, `parts` are their folders below it, and each
    job has its part as the setting `sweep`.
    """

    folder: Path
    jobs: tuple[Result, ...]
    command: str
    finished: bool
    notices: tuple[str, ...]
    parts: tuple[str, ...] = ()

    @property
    def pending(self) -> int:
        """How many planned jobs have no result yet."""
        return sum(job.status == "pending" for job in self.jobs)

    @property
    def title(self) -> str:
        """What it is called: its folder, or those of all."""
        return " and ".join(self.parts) or self.folder.resolve().name

    def place_of(self, job: Result) -> str:
        """Where a job lies below `folder`."""
        return f"{job.overrides[SWEEP]}/{job.folder.name}" if self.parts else job.folder.name


def read(folder: Path, wait: bool = False) -> Sweep:
    """A sweep's jobs, planned or done; with `wait` one that has none yet is no error."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        raise ConfigError(f"'{folder}' {what}; give the folder that a sweep wrote, such as multirun/DATE/TIME.")
    results = {result.folder.name: result for result in collect(folder)}
    plan, notices = planned(folder)
    jobs = [results.pop(job.folder) if job.folder in results else waiting(folder, job) for job in plan.jobs]
    jobs += results.values()
    notices += unread(folder)
    if not wait and all(job.status == "pending" for job in jobs):
        raise ConfigError(nothing_in(folder, len(jobs)))
    if not wait and all(job.status == "failed" for job in jobs):
        why = one_line(next(map(why_failed, jobs)))
        raise ConfigError(f"'{folder}' has no picture: {counted(len(jobs), 'job')} and none of them drew one: {why}")
    return Sweep(
        folder=folder,
        jobs=tuple(jobs),
        command=redact(shlex.join(plan.command)),
        finished=not any(job.status == "pending" for job in jobs) and (bool(plan.jobs) or collected(folder)),
        notices=tuple(notices),
    )


def together(folders: Sequence[Path], wait: bool = False) -> Sweep:
    """One sweep, or several to be looked at on one page: what one of them sets and others leave is as these have it.

    Raises ConfigError for a folder that is no sweep, and for sweeps that are given twice or lie inside one another.
    """
    if len(folders) == 1:
        return read(folders[0], wait)
    whole = [folder.resolve() for folder in folders]
    for n, folder in enumerate(whole):
        if folder in whole[:n]:
            raise ConfigError(f"'{folders[n]}' is given twice; name each sweep once.")
    sweeps = [read(folder, wait) for folder in folders]
    common = Path(os.path.commonpath(whole))
    if common in whole:
        raise ConfigError(f"'{folders[whole.index(common)]}' holds another of the sweeps that are given; name one.")
    parts = tuple(folder.relative_to(common).as_posix() for folder in whole)
    keys = dict.fromkeys(key for sweep in sweeps for job in sweep.jobs for key in job.overrides)
    jobs = [
        replace(job, overrides={**completed(job, keys), SWEEP: part})
        for part, sweep in zip(parts, sweeps, strict=True)
        for job in sweep.jobs
    ]
    return Sweep(
        folder=common,
        jobs=tuple(jobs),
        command="\n".join(sweep.command for sweep in sweeps),
        finished=all(sweep.finished for sweep in sweeps),
        notices=tuple(notice for sweep in sweeps for notice in sweep.notices),
        parts=parts,
    )


def completed(job: Result, keys: Collection[str]) -> dict[str, Any]:
    """What a job was set to, and of other keys what its config says, where that is a value.

    >>> job = Result("done", overrides={"sampler": "euler"}, config={"guidance": {"scale": 4}, "operators": {}})
    >>> completed(job, ["guidance.scale", "sampler", "operators", "operators.add.weight"])
    {'guidance.scale': 4, 'sampler': 'euler'}
    """
    found = {}
    for key in keys:
        value: Any = job.config or {}
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if key in job.overrides:
            found[key] = job.overrides[key]
        elif value is not None and not isinstance(value, dict):
            found[key] = value
    return found


def differences(sweep: Sweep) -> list[list[str]]:
    """Settings that all jobs of each sweep share and that differ between sweeps, with the value of each."""
    shared: dict[str, dict[str, str]] = {}
    for job in sweep.jobs:
        if job.config:
            own = flat(job.config)
            mine = shared.setdefault(str(job.overrides.get(SWEEP)), own)
            shared[str(job.overrides.get(SWEEP))] = {k: v for k, v in mine.items() if own.get(k) == v}
    keys = [key for key in next(iter(shared.values()), {}) if all(key in own for own in shared.values())]
    differ = [key for key in keys if len({own[key] for own in shared.values()}) > 1 and not key.endswith("_target_")]
    return [[key, "; ".join(f"{part}: {own[key]}" for part, own in shared.items())] for key in differ[:MOST]]


def follows_from_sweep(jobs: Sequence[Result], key: str) -> bool:
    """Whether each sweep has one value of a setting: then it tells no more than which sweep it is."""
    pairs = {(job.overrides.get(SWEEP), format_value(job.overrides.get(key), typed=True)) for job in jobs}
    return len(pairs) == len({part for part, _ in pairs})


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


def waiting(folder: Path, job: PlannedJob) -> Result:
    """A planned job that has no result yet."""
    prompt = format_value(job.overrides.get("prompt", ""), typed=True)
    return Result("pending", job=job.job, overrides=job.overrides, prompt=prompt, folder=folder / job.folder)


def number(value: Any) -> float | None:
    """A finite number, or none."""
    return value if is_number(value) else None


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


def page_axes(jobs: Sequence[Result]) -> list[dict[str, Any]]:
    """The axes of a gallery: key, short name, values as texts and, where all are numbers, as numbers in order."""
    found = apart(jobs)
    if SWEEP in found:
        found = {k: v for k, v in found.items() if k in (SWEEP, "seed") or not follows_from_sweep(jobs, k)}
    names = short_names(found)
    ways = []
    for key, values in found.items():
        numbers = [number(value) for value in values]
        texts = [format_value(value, typed=True) for value in values]
        strange = any(n is None and value is not None for n, value in zip(numbers, values, strict=True))
        if strange or len(set(texts)) < len(texts):  # 1 and "1" are one place
            texts, numbers = list(dict.fromkeys(texts)), []
        pairs = sorted(zip(numbers, texts, strict=False), key=lambda pair: -math.inf if pair[0] is None else pair[0])
        ways.append(
            {
                "key": key,
                "name": names[key],
                "values": [text for _, text in pairs] or texts,
                "numbers": [n for n, _ in pairs] or None,
                "about": about_axis(key, texts),
            }
        )
    return ways


def content(sweep: Sweep) -> dict[str, Any]:
    """Everything that the first view needs: axes, jobs and cells, column by column; a text is given by its number."""
    jobs, texts, same = sweep.jobs, Texts(), Texts()
    ways = page_axes(jobs)
    differ = differences(sweep) if sweep.parts else []
    for way in ways:
        if way["key"] == SWEEP and differ:
            way["about"] += " They differ in " + ", ".join(f"{key} ({text})" for key, text in differ[:3]) + "."
    where = [{text: n for n, text in enumerate(axis["values"])} for axis in ways]
    none: list[tuple[int | None, PictureResult | None]]  # the places of a job without pictures
    none = [(seed, None) for seed in dict.fromkeys(row.seed for job in jobs for row in job.pictures)] or [(None, None)]
    common = common_parts([job for job in jobs if job.status != "pending"])
    measured = (key for job in jobs for row in job.pictures for key, v in row.measured.items() if number(v) is not None)
    keys = shown_scores(jobs, measured)
    whole = [key for key in shown_scores(jobs, (key for job in jobs for key in job.scores)) if key not in keys]
    cells: dict[str, list[Any]] = {
        n: [] for n in ("job", "seed", "at", "state", "error", "file", "baseline", "strip", "maps", "same")
    }
    scores: dict[str, list[Any]] = {key: [] for key in keys}
    taken: dict[tuple[int, ...], int] = {}
    for n, job in enumerate(jobs):
        for seed, row in [(row.seed, checked_files(job, row)) for row in job.pictures] or none:
            values = [seed if axis["key"] == "seed" else job.overrides.get(axis["key"]) for axis in ways]
            at = tuple(places[format_value(value, typed=True)] for places, value in zip(where, values, strict=True))
            taken[at] = taken.get(at, -1) + 1
            cells["job"].append(n)
            cells["seed"].append(seed)
            cells["at"].append([*at, taken[at]])
            error = (row and row.error) or why_failed(job)
            cells["state"].append(STATES.index("failed" if error else job.status))
            cells["error"].append(texts(error) if error else -1)
            for name in ("file", "baseline", "strip"):
                file = getattr(row, name, None)
                cells[name].append(texts(file) if file and not error else -1)
            cells["maps"].append([texts(file) for file in row.maps or ()] if row and not error else [])
            cells["same"].append(same(unedited_of(job, seed)) if row and row.baseline and not error else -1)
            for key in keys:
                scores[key].append(rounded(row.measured.get(key) if row else None))
    most = max(taken.values(), default=0)
    if most:  # two jobs at one place: each gets a place of its own
        ways.append({"key": "repeat", "name": "repeat", "values": [str(n) for n in range(most + 1)], "numbers": None})
        ways[-1]["about"] = about_axis("repeat")
    else:
        cells["at"] = [at[:-1] for at in cells["at"]]
    data = {
        "format": 1,
        "title": sweep.title,
        "notes": differ,
        "command": sweep.command,
        "pending": sweep.pending,
        "axes": ways,
        "scores": [{"key": key, "name": name_of(key), "about": about(key)} for key in [*keys, *whole]],
        "jobs": {
            "number": [n if job.job is None else job.job for n, job in enumerate(jobs)],
            "folder": [sweep.place_of(job) for job in jobs],
            "label": [texts(label_of(job, common)) for job in jobs],
            "prompt": [texts(job.prompt) for job in jobs],
            "scores": {key: [rounded(job.scores.get(key)) for job in jobs] for key in whole},
        },
        "cells": {**cells, "scores": scores},
        "texts": list(texts.numbers),
    }
    return dict(redact(data))


def label_of(job: Result, common: Collection[str]) -> str:
    """What a job's caption says: its label, or its settings where it has none yet."""
    if job.label:
        return ", ".join([label(job, common), *([job.overrides[SWEEP]] if SWEEP in job.overrides else [])])
    settings = (f"{key.split('.')[-1]} {format_value(value, typed=True)}" for key, value in job.overrides.items())
    return ", ".join(settings) or AS_WRITTEN


def unedited_of(job: Result, seed: int | None) -> str:
    """What tells the unedited picture of a seed from others: all that it depends on, and no edit."""
    config = job.config or {"prompt": job.prompt}
    return json.dumps([seed, *(config.get(key) for key in OF_UNEDITED)], sort_keys=True, default=str)


def why_failed(job: Result) -> str:
    """Why a job failed; empty where it did not."""
    return (job.error or "no reason was written down") if job.status == "failed" else ""


def checked_files(job: Result, row: PictureResult) -> PictureResult:
    """A picture of a job as a page may show it: without a file that is not there."""
    if not row.error and job.status == "done" and not is_there(job, row.file):
        row = replace(row, error=f"its picture is not there: {row.file or 'no file was written'}")
    maps = tuple(file for file in row.maps or () if is_there(job, file))
    baseline, strip = (name if is_there(job, name) else None for name in (row.baseline, row.strip))
    return replace(row, baseline=baseline, strip=strip, maps=maps)


def is_there(job: Result, name: str | None) -> bool:
    """Whether a file of a job is there; `read_result` has seen that it lies in its folder."""
    return name is not None and (job.folder / name).is_file()


# ── details of a job, read when it is opened ──────────────────────────────────────────────────────────────────────


def details(job: Result) -> dict[str, Any]:
    """What a job's page says beside its pictures; absent parts are left out."""
    explain = job.explain or {}
    parts = {
        "name": job.name,
        "key": job.key,
        "command": job.command,
        "notes": [str(note) for note in job.notes or ()],
        "edit": str(explain.get("edit") or ""),
        "tokens": table(explain.get("tokens") or ()),
        "layers": table(explain.get("layers") or ()),
        "shifts": explain.get("shifts") or {},
        "lengths": {side: explain[side] for side in ("positive", "negative") if isinstance(explain.get(side), dict)},
        "schedule": table(job.schedule or ()),
        "settings": flat(job.config or {}),
        "versions": {str(k): str(v) for k, v in (job.versions or {}).items()},
    }
    return {key: finite(redact(value)) for key, value in parts.items() if value}


def table(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Rows of equal keys as heads and lists; what is no row is left out."""
    rows = [row for row in rows if isinstance(row, dict)]
    heads = list(dict.fromkeys(key for row in rows for key in row))
    return {"heads": heads, "rows": [[row.get(head) for head in heads] for row in rows]} if rows else {}


def flat(settings: Any, at: str = "") -> dict[str, str]:
    """Nested settings as one level of texts.

    >>> flat({"sampler": {"steps": 6}, "seeds": [0, 1]})
    {'sampler.steps': '6', 'seeds': '[0, 1]'}
    """
    if isinstance(settings, dict) and settings:
        return {k: v for key, value in settings.items() for k, v in flat(value, f"{at}.{key}" if at else key).items()}
    return {at: "null" if settings is None else format_value(settings, typed=True)} if at else {}


def finite(value: Any) -> Any:
    """A value that JSON can hold: numbers that are none become texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): finite(v) for key, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value
