"""One job of a sweep: a cell with its seeds, checked before weights are read, and the result its folder may hold."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from embedlab import images
from embedlab.attention.settings import turned_off
from embedlab.cell import Cell, changes, denoiser_calls, fingerprint
from embedlab.clean import redact
from embedlab.display import Shown, block, facts, short
from embedlab.engines import Auto, Eager, Engine, label
from embedlab.errors import ConfigError, EmbedlabError, EngineError, OperatorError, listed
from embedlab.files import make_folder, remove_temporaries
from embedlab.language.tree import And
from embedlab.limits import check_part
from embedlab.metrics.score import Metrics, check_scored, score_names, scored_words
from embedlab.models import Source, pick_device, pick_dtype
from embedlab.sampler import noise_of
from embedlab.schedule import within
from embedlab.sweep.identity import key_of, versions
from embedlab.sweep.result import FILE, Result, WrongResultError, read_result
from embedlab.sweep.study import Study
from embedlab.sweep.versioned import DamagedFileError
from embedlab.tracker import Silent, Tracker, check_tracker
from embedlab.validate import validate


@dataclass(frozen=True)
class Job(Shown):
    """One cell with its seeds: what a run of the command line does, and one run of the tracker."""

    source: Source
    cell: Cell
    seeds: tuple[int, ...]
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)
    tracker: Tracker = field(default_factory=Silent)
    engine: Engine | Auto = field(default_factory=Eager)
    name: str = ""
    group: str | None = None
    at_once: int | None = None
    export: bool = False
    number: int = 0
    overrides: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    words: tuple[str, ...] = ()  # what all jobs of its sweep are scored with, where metrics.words does not say
    run_name: str = ""  # in a tracker
    study: Study = field(default_factory=Study)
    home: Path | None = None  # the folder of its sweep
    varied: tuple[str, ...] = ()  # keys of its overrides that differ in its sweep

    def __post_init__(self) -> None:
        check_part(self)
        object.__setattr__(self, "seeds", tuple(self.seeds))
        self.cell.start.check_seeds(self.seeds)
        if self.export and changes(self.cell):
            raise ConfigError("export writes one conditioning for other tools, and this cell changes over time.")
        sums = [part for part in within(self.cell.parsed().prompt) if isinstance(part, And)]
        if self.export and any(len(one.prompts) > 1 or one.prompts[0].weight not in (None, 1) for one in sums):
            raise ConfigError("export writes one conditioning for other tools, and a prompt with AND is several.")
        if self.export and any(getattr(part, "blocks", None) is not None for part in within(self.cell.operators)):
            raise ConfigError("export writes one conditioning for other tools, and operators with blocks make several.")
        check_tracker(self.tracker)
        if self.cell.watched and not isinstance(self.engine, Eager | Auto):
            raise EngineError(
                f"engine={self.engine.name} runs the UNet as a whole and has no attention maps and no "
                "blocks of its own, which this job's attention or operators need: engine=eager."
            )

    def __repr__(self) -> str:
        seeds = f"seeds {listed(self.seeds, 8)}"
        return f"Job({self.number}, {short(self.title, 120)}, {seeds}, {short(self.source.name, 80)})"

    def _repr_html_(self) -> str:
        about = {
            **self.cell.told,
            "seeds": listed(self.seeds, 16),
            "model": self.source.name,
            "engine": self.engine.name if isinstance(self.engine, Engine) else "auto",
            "folder": self.folder,
            "command": self.command,
        }
        return block(f"job {self.number}: {self.title}", facts(about), note=self.cell.text)

    @cached_property
    def notes(self) -> list[str]:
        """What to mind of its texts and steps; what is wrong with its cell is raised here, before weights are read."""
        notes = [note for tokens in validate(self.cell, self.source) for note in tokens.notes()]
        notes += self.cell.sampler.notes(self.source.scheduler)
        notes += [*self.cell.guidance.notes(self.cell.sampler.steps), *self.cell.attention.notes()]
        if note := noise_of(denoiser_calls(self.cell, self.source.scheduler), self.cell.start):
            notes.append(note)
        if note := turned_off(self.cell.attention, self.source):
            notes.append(note)
        return list(dict.fromkeys(notes))

    @cached_property
    def pictures(self) -> dict[int, tuple[str, str]]:
        """Seed → keys of the unedited and of the edited picture; the same one where nothing is edited."""
        lossy = "" if isinstance(self.engine, Auto) or self.engine.exact else label(self.engine)
        unedited, edited = (key_of(self.source, cell, lossy) for cell in (self.cell.baseline(), self.cell))
        return {seed: (unedited(seed), edited(seed)) for seed in self.seeds}

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


def check_engine(job: Job) -> None:
    """Raise EngineError where a job's engine is not here, or does not run its model, by the settings of both."""
    device = pick_device(job.source.device)
    job.engine.check(device, pick_dtype(job.source.dtype, device))


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
    names = score_names(job.cell, job.scoring, job.source)
    asked = [name for name in names if name.startswith(("clip_score/", "eye/"))]
    whole = whole and all(name in result.scores for name in asked)  # the sweep may have got more words since
    return result if whole and [row.seed for row in result.pictures] == list(job.seeds) else None


def prepare_folder(job: Job) -> None:
    """Make a job's folder, and take away what a killed process left in it."""
    make_folder(job.folder)
    remove_temporaries(job.folder)
    remove_temporaries(job.folder / ".hydra")


def reason_of(error: BaseException) -> str:
    """Why something failed, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, EmbedlabError) else f"{type(error).__name__}: {text}"
