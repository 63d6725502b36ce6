"""The plan of a sweep, written down before it is run and read to go on with it."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedlab import readers
from embedlab.clean import redact
from embedlab.cli.prompt_list import asked, typed
from embedlab.errors import ConfigError, listed
from embedlab.files import redact_files, remove_temporaries
from embedlab.sweep.recorded_command import check_command
from embedlab.sweep.roles import RESUMING
from embedlab.sweep.sweep_plan import FILE, PlannedJob, SweepPlan, read_plan, write_plan

if TYPE_CHECKING:
    from embedlab.sweep.job import Job


def plan_jobs(folder: Path, jobs: Sequence[Job], rows: Sequence[Sequence[str]] = ()) -> None:
    """Write down the plan: the very command, the rows of its list of prompts, and what every job of it is."""
    from embedlab.sweep.identity import versions

    remove_temporaries(folder)
    redact_files(folder.glob("multirun.yaml"))  # Hydra's own
    known = read_plan(folder) or SweepPlan()
    plan = replace(
        known,
        command=known.command or tuple(redact(typed(sys.argv[1:]))),
        cwd=known.cwd or os.getcwd(),
        started=known.started or time.strftime("%Y-%m-%d %H:%M:%S"),
        versions=versions(),
        prompts=tuple(tuple(redact(list(row))) for row in rows),
    )
    mine = [
        PlannedJob(job.number, os.path.relpath(job.folder, folder), job.key, job.title, job.overrides) for job in jobs
    ]
    write_plan(folder, plan.with_jobs(mine))


def resume_command(path: str, more: Sequence[str]) -> tuple[list[str], tuple[tuple[str, ...], ...]]:
    """The command line that goes on with a sweep: its own, in its own folder; and the rows of its list of prompts."""
    if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"":  # quoted twice, as Hydra wants it elsewhere
        path = path[1:-1]
    folder = Path(os.path.abspath(readers.path_of(path, "resume")))
    plan = read_plan(folder) if folder.is_dir() else None
    if plan is None:
        raise ConfigError(f"there is no sweep in '{path}' to resume; a sweep's folder holds a {FILE}.")
    if not plan.command:
        raise ConfigError(f"'{folder / FILE}' does not say how the sweep was started.")
    if any("***" in word for row in (plan.command, *plan.prompts) for word in row):
        raise ConfigError(
            f"a secret was blanked ('***') in the command of '{path}'; give the same command with "
            f"hydra.sweep.dir={path} instead."
        )
    trust = [word.removeprefix("trust=") for word in more if word.startswith("trust=")]
    more = [word for word in more if not word.startswith("trust=")]
    if other := [word for word in more if word.startswith("hydra.sweep") or not word.startswith(RESUMING)]:
        raise ConfigError(
            f"resume={path} goes on with the plan it had; leave out {listed(other)}, or start a new sweep."
        )
    if plan.cwd and Path(plan.cwd).is_dir():
        os.chdir(plan.cwd)
    # what is said now is in the place of what was said then; another launcher, or tracker, has other settings
    said = {"-m", "--multirun", "hydra.sweep.dir", *(word.partition("=")[0] for word in more)}
    kept = [word for word in plan.command if word.partition("=")[0].lstrip("+") not in said]
    for chosen, own in (("hydra/launcher", "hydra.launcher."), ("tracker", "tracker.")):
        if any(word.startswith(f"{chosen}=") for word in more):
            kept = [word for word in kept if not word.lstrip("+").startswith((f"{chosen}=", own))]
    prompts = asked(kept)
    if bool(prompts.about) != bool(plan.prompts):
        raise ConfigError(f"'{folder / FILE}' does not say which rows its list of prompts had; start a new sweep.")
    lines = [*prompts.others, *(line for row in plan.prompts for line in row)]
    check_command(lines, str(folder / FILE), trust)
    for word in lines:
        check_place(word, folder)
    return ["-m", *kept, *more, f"hydra.sweep.dir={quoted(str(folder))}"], plan.prompts


def check_place(word: str, folder: Path) -> None:
    """Refuse a setting of a command that was read back by which its sweep would write outside of its own folder.

    A store elsewhere is taken where it is one already.
    """
    key, _, value = word.partition("=")
    key, value = key.lstrip("+"), value.strip().strip("'\"").strip()
    setting = f"'{word:.200}' in the command of '{folder / FILE}'"
    if key == "hydra.sweep.subdir":
        rest = re.sub(r"\$\{hydra[.:]job\.num\}", "", value)
        if value.startswith(("/", "~")) or ".." in Path(value).parts or "${" in rest:
            raise ConfigError(f"{setting} puts jobs outside of the sweep; leave it out of that file.")
    if key == "store" and value not in ("", "null"):
        place = Path(value).expanduser() if "${" not in value else None
        if place is not None and Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder)):
            return
        if place is None or not any(place.glob("??/*.safetensors")):
            raise ConfigError(
                f"{setting} names a folder outside of the sweep that holds no finished pictures; give {key}=PATH "
                "yourself, beside resume, where that is what you want."
            )


def quoted(text: str) -> str:
    r"""A text as a value of Hydra's syntax, whatever signs are in it.

    >>> print(quoted("a/b"), quoted("it's (x,y)"))
    a/b 'it\'s (x,y)'
    """
    if re.fullmatch(r"[A-Za-z0-9_./-]+", text):
        return text
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", text) + "'"
