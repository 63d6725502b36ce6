"""One job of a sweep: its folder, its files, its result, and what is logged of it.

Files come first: a tracker is told afterwards, from the files, so that what it does cannot lose a picture.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from embedlab import images, readers
from embedlab.cell import Cell, cells_per_call, denoiser_calls, fingerprint
from embedlab.clean import redact
from embedlab.condition import schedule_of
from embedlab.errors import ConfigError, EmbedlabError, OperatorError, listed
from embedlab.explanation import Explanation, explain
from embedlab.export import edited_rows, prompt_embeds, save_embeds
from embedlab.files import make_folder, remove_temporaries
from embedlab.images.infotext import infotext
from embedlab.metrics.score import FeatureCache, Metrics, check_scored, score, score_names, scored_words
from embedlab.models import Model, Source
from embedlab.rendering import check_at_once
from embedlab.sampler import check_seeds, noise_of
from embedlab.samples import Rendered
from embedlab.schedule import varies
from embedlab.sweep.axes import short_names
from embedlab.sweep.identity import key_of, versions
from embedlab.sweep.result import (
    FILE,
    PictureResult,
    Result,
    WrongResultError,
    read_result,
    write_result,
)
from embedlab.sweep.versioned import FORMAT, DamagedFileError
from embedlab.tracker import Run, Silent, Tracker, check_tracker, discard_log, opened
from embedlab.validate import validate


@dataclass(frozen=True)
class Job:
    """One cell with its seeds: what a run of the command line does, and one run of the tracker."""

    source: Source
    cell: Cell
    seeds: tuple[int, ...]
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)
    tracker: Tracker = field(default_factory=Silent)
    name: str = ""
    group: str | None = None
    at_once: int | None = None
    export: bool = False
    number: int = 0
    overrides: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    words: tuple[str, ...] = ()  # what all jobs of its sweep are scored with, where metrics.words does not say
    run_name: str = ""  # in a tracker

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", check_seeds(self.seeds))
        if self.at_once is not None:
            check_at_once(self.at_once)
        if not isinstance(self.export, bool):
            raise ConfigError(f"export is {self.export!r}; it has to be true or false.")
        if self.export and varies(self.cell):
            raise ConfigError("export writes one conditioning for other tools, and this cell changes over time.")
        check_tracker(self.tracker)
        if self.group is not None and not isinstance(self.group, str):
            raise ConfigError(f"group is {self.group!r}; it has to be a text.")

    @cached_property
    def notes(self) -> list[str]:
        """What to mind of its texts and steps; what is wrong with its cell is raised here, before weights are read."""
        notes = [note for tokens in validate(self.cell, self.source) for note in tokens.notes()]
        if note := noise_of(denoiser_calls(self.cell, self.source.scheduler), self.cell.start):
            notes.append(note)
        return list(dict.fromkeys(notes))

    @cached_property
    def pictures(self) -> dict[int, tuple[str, str]]:
        """Seed → keys of the unedited and of the edited picture; the same one where nothing is edited."""
        plain, mine = key_of(self.source, self.cell.baseline()), key_of(self.source, self.cell)
        return {seed: (plain(seed), mine(seed)) for seed in self.seeds}

    @cached_property
    def key(self) -> str:
        """A hash of everything that the result depends on."""
        what = [list(self.pictures.values()), list(self.seeds), self.metrics, self.export]
        return fingerprint([*what, self.source.scorer_identity])

    @property
    def scoring(self) -> Metrics:
        """What is measured: with the words of its whole sweep, so that its jobs have the same scores."""
        return replace(self.metrics, words=self.words) if self.words and self.metrics.words is None else self.metrics

    @property
    def title(self) -> str:
        """What it is called: its overrides, or its edit."""
        return self.name or self.cell.label

    def about(self) -> dict[str, Any]:
        """What every result says of its job, finished or not: fields of a Result."""
        about = {
            "key": self.key,
            "job": self.number,
            "name": self.title,
            "label": self.cell.label,
            "overrides": self.overrides,
            "command": self.command,
            "prompt": str(self.cell.prompt),
        }
        return dict(redact(about))


def of_sweep(job: Job, **settings: Any) -> Job:
    """A job that knows of the others; what it found out of itself, such as its keys, stays."""
    other = copy.copy(job)
    for name, value in settings.items():
        object.__setattr__(other, name, value)
    return other


def validate_job(job: Job) -> None:
    """Raise what is wrong with a job's cell; an operator that fails for reasons of its own does so at its turn."""
    before = fingerprint(job.cell.operators)
    try:
        job.notes  # noqa: B018
    except Exception as error:
        if isinstance(error, EmbedlabError):
            raise
    scored_words(job.cell, job.metrics)
    check_scored(job.cell, job.metrics, job.source)
    job.cell.label  # noqa: B018
    if fingerprint(job.cell.operators) != before:
        raise OperatorError(
            f"'{job.cell.label}' changes its own settings when it is applied; an operator leaves them be."
        )


def load_result(job: Job) -> Result | None:
    """The result that a job's folder holds already; None where there is none.

    Raises ConfigError where it is the result of other settings, which is not to be overwritten.
    """
    if not os.path.lexists(job.folder / FILE):
        return None
    try:
        result = read_result(job.folder)
    except DamagedFileError:
        return None  # the job is made again
    except WrongResultError as error:
        if error.key == job.key:
            return None
        raise
    if result.key != job.key:
        other = result.versions or {}
        changed = [f"{k} {other[k]} (now {v})" for k, v in versions().items() if k in other and other[k] != v]
        why = f"made with {listed(changed)}" if changed else "other settings"
        raise ConfigError(
            f"the folder '{job.folder}' holds another result ({why}: {result.name}); nothing is overwritten. "
            "Name another folder; with store=PATH pictures that both have are made once."
        )
    return result


def load_finished(job: Job) -> Result | None:
    """The result of a job that need not be made again."""
    result = load_result(job)
    if result is None or result.status != "done" or any(row.error for row in result.pictures):
        return None
    files = [file for row in result.pictures for file in (row.file, row.baseline) if file]
    whole = all(images.is_whole(job.folder / file) for file in files)
    asked = [name for name in score_names(job.cell, job.scoring, job.source) if name.startswith("clip_score/")]
    whole = whole and all(name in result.scores for name in asked)  # the sweep may have got more words since
    return result if whole and [row.seed for row in result.pictures] == list(job.seeds) else None


def prepare_folder(job: Job) -> None:
    """Make a job's folder, and take away what a killed process left in it."""
    make_folder(job.folder)
    remove_temporaries(job.folder)
    remove_temporaries(job.folder / ".hydra")


def finish(
    job: Job,
    model: Model,
    features: FeatureCache,
    before: Rendered | None,
    after: Rendered | None,
    faults: Mapping[int, str],
    say: Callable[[str], None] = print,
) -> Result:
    """Score a job's pictures and write its files; `result.json` comes last, and a folder that has one is finished.

    `before` and `after` hold the seeds that were made, `faults` says why the others were not.
    """
    notes = list(job.notes)
    settings = {"format": FORMAT, "config": job.config, "versions": versions(), "label": redact(job.cell.label)}
    settings["concluded"] = redact(job.source.concluded)
    if (start := job.cell.start.about(job.folder)) is not None:
        settings["start"] = redact(start)
    rows: list[dict[str, Any]] = []
    whole: dict[str, float] = {}
    told: Explanation | None = None
    schedule: list[dict[str, Any]] = []
    if job.export:
        embeds = prompt_embeds(job.cell, model.towers, model.zero_negative)
        made_by = {"model": model.name, "cell": job.cell}
        save_embeds(job.folder / "conditioning.safetensors", embeds, made_by)
        save_embeds(job.folder / "rows.safetensors", edited_rows(job.cell, model.towers), made_by)
    if before is not None and after is not None:
        rows, whole = score(model, before, after, job.scoring, features)
        schedule = schedule_of(job.cell, after.conditioning, denoiser_calls(job.cell, model.scheduler))
        told = features.explain(before.conditioning[-1], after.conditioning[-1])
        notes = list(dict.fromkeys([*notes, *told.notes]))
        strange = [word for word in scored_words(after.cell, job.scoring) if word not in model.concepts]
        if model.concepts and strange:
            notes.append(
                f"{listed(strange)}: none of the {len(model.concepts)} things that this model draws, so that its "
                "pictures and scores of that mean nothing"
            )
        _write_pictures(job, before, after, rows, settings)
    for note in notes:
        say(f"notice: {note}.")
    keys = {seed: mine for seed, (_, mine) in job.pictures.items()}
    by_seed = {row["seed"]: row for row in rows}
    places = zip(after.seeds, after.batches, after.runtimes, strict=True) if after is not None else ()
    made = {seed: {"batch": list(batch), "runtime": dict(runtime)} for seed, batch, runtime in places}
    result = Result(
        status="failed" if faults else "done",
        error=listed(dict.fromkeys(faults.values()), 3) if faults else None,
        **job.about(),
        notes=tuple(notes),
        explain=redact(told.as_dict()) if told else None,
        schedule=tuple(redact(schedule)),
        scores=whole,
        pictures=tuple(
            PictureResult.from_dict({**by_seed[seed], "key": keys[seed], **made[seed]})
            if seed in by_seed
            else PictureResult(seed, key=keys[seed], error=faults[seed])
            for seed in job.seeds
        ),
        logged=False,
        config=job.config,
        versions=versions(),
        concluded=settings["concluded"],
        start=settings.get("start"),
        folder=job.folder,
    )
    write_result(job.folder, result)
    return result


def _write_pictures(
    job: Job, before: Rendered, after: Rendered, rows: Sequence[dict[str, Any]], settings: dict[str, Any]
) -> None:
    old, new = images.to_pil(before.pictures), images.to_pil(after.pictures)
    for n, row in enumerate(rows):
        row["file"] = f"seed-{row['seed']}.png"
        made = {"edited": True, "batch": after.batches[n], "runtime": after.runtimes[n]}
        mine = {**settings, "seed": row["seed"], **made, "scores": dict(row)}
        images.save(new[n], job.folder / row["file"], mine, infotext(mine, new[n].size))
        if job.cell.operators:
            row["baseline"] = f"baseline-seed-{row['seed']}.png"
            made = {"edited": False, "batch": before.batches[n], "runtime": before.runtimes[n]}
            plain = {**settings, "seed": row["seed"], **made}
            images.save(old[n], job.folder / row["baseline"], plain, infotext(plain, old[n].size))
    names = [f"seed {row['seed']}" for row in rows]
    columns = ["as written", job.cell.label] if job.cell.operators else ["as written"]
    shown = [[old[n], new[n]][-len(columns) :] for n in range(len(rows))]
    images.save(images.sheet(shown, columns, names, str(job.cell.prompt)), job.folder / "sheet.png", settings)
    if after.steps:
        images.save(steps_sheet(after), job.folder / "steps.png", settings)
        for step in after.steps:
            for kind in ("latents", "x0"):
                for seed, picture in zip(after.seeds, images.to_pil(getattr(step, kind)), strict=True):
                    images.save(picture, job.folder / "steps" / f"step-{step.step}-seed-{seed}-{kind}.png")


def failure(job: Job, reason: str) -> Result:
    """The result of a job that could not be made at all."""
    pictures = tuple(PictureResult(seed, key=keys[1], error=reason) for seed, keys in job.pictures.items())
    about = {"config": job.config, "versions": versions(), **job.about()}
    return Result(status="failed", error=reason, pictures=pictures, logged=False, folder=job.folder, **about)


def fail(job: Job, reason: str) -> Result:
    """Mark a job that could not be made at all; it is tried again when its sweep is resumed."""
    result = failure(job, reason)
    write_result(job.folder, result)
    return result


def log(job: Job, result: Result, run: Run) -> None:
    """Tell a tracker's run of a job, from its files."""
    rows = [row for row in result.pictures if row.file]
    lines = [{"seed": row.seed, **row.measured} for row in rows]
    columns = list(dict.fromkeys(key for line in lines for key in line))
    pictures = [_open(job.folder / row.file) for row in rows if row.file]
    for step in sorted(job.cell.sampler.keep):
        for kind in ("latents", "x0"):
            files = [(row.seed, job.folder / "steps" / f"step-{step}-seed-{row.seed}-{kind}.png") for row in rows]
            shots = [(_open(path), f"seed {seed}, step {step}") for seed, path in files if path.is_file()]
            run.pictures(f"steps/{kind}", shots, step)
    if rows:
        run.pictures("pictures", [(p, caption(row, job.cell)) for p, row in zip(pictures, rows, strict=True)])
        run.pictures("sheet", [(_open(job.folder / "sheet.png"), job.cell.label)])
        table = [[p, *(line.get(key) for key in columns)] for p, line in zip(pictures, lines, strict=True)]
        run.table("pictures_table", ["picture", *columns], table)
    if result.explain:
        tokens = result.explain["tokens"]
        cells = [[", ".join(v) if isinstance(v, list | tuple) else v for v in token.values()] for token in tokens]
        run.table("tokens", list(tokens[0]), cells)
    if schedule := result.schedule:
        run.table("schedule", list(schedule[0]), [list(map(str, row.values())) for row in schedule])
    for name in ("conditioning", "rows") if job.export else ():
        if (file := job.folder / f"{name}.safetensors").is_file():
            run.file(name, file)
    told = {key for key in [*columns, *result.scores] if job.cell.operators or not key.startswith("change/")}
    for line in lines:
        run.scores({f"picture/{k}": v for k, v in line.items() if k in told and isinstance(v, int | float)})
    run.scores({k: v for k, v in result.scores.items() if k in told and v is not None})


def _open(path: Path) -> Image.Image:
    return readers.open_picture(path).convert("RGB")


def log_to_tracker(job: Job, result: Result) -> Result:
    """Open a run, tell it everything, close it; the job's result, as it is written, says that the tracker knows."""
    discard_log(job.folder)
    axes = {name: job.overrides[key] for key, name in short_names(job.overrides).items()}  # what panels are drawn over
    with opened(job.tracker, job.run_name or job.title, job.folder, {**job.config, "axes": axes}, job.group) as run:
        log(job, result, run)
    known = replace(result, logged=True, log_error=None)
    write_result(job.folder, known)
    return known


def explained(job: Job) -> str:
    """A job's cell, explained before its UNet is read; one that changes over time, at its first call and its last."""
    validate(job.cell, job.source)
    times = denoiser_calls(job.cell, job.source.scheduler)
    cells = cells_per_call(job.cell, times)
    towers, words = job.source.towers(), job.source.names("words")
    about = "model: " + "; ".join(f"{key} {value}" for key, value in job.source.concluded.items())
    if note := noise_of(times, job.cell.start):
        about += f"\nnotice: {note}."
    if not varies(job.cell):
        return f"{explain(cells[0], towers, words)}\n{about}"
    ends = [(times[k], explain(cells[k], towers, words)) for k in (0, -1)]
    reports = [f"── call {moment.call}, step {moment.step} ──\n{report}" for moment, report in ends]
    return "\n\n".join([*reports, about])


def steps_sheet(rendered: Rendered) -> Image.Image:
    """The kept steps of the first seed: what the latents hold, and what the model makes of them."""
    rows = [[images.to_pil(getattr(step, kind)[:1])[0] for step in rendered.steps] for kind in ("latents", "x0")]
    heads = [f"step {step.step}" for step in rendered.steps]
    return images.sheet(rows, heads, ["latents", "predicted x0"], str(rendered.cell.prompt))


def caption(row: PictureResult, cell: Cell) -> str:
    """What stands under a picture in the tracker."""
    scores = ", ".join(
        f"{k.removeprefix('clip_score/')} {v:.0f}" for k, v in row.measured.items() if k.startswith("clip_score/")
    )
    return f"seed {row.seed}, {cell.label}" + (f" (CLIPScore: {scores})" if scores else "")


def reason_of(error: BaseException) -> str:
    """Why something failed, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, EmbedlabError) else f"{type(error).__name__}: {text}"
