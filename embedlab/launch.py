"""From Hydra's job overrides to jobs: composed once, all checked before any weight is read, carried out as one plan."""

from __future__ import annotations

import atexit
import copy
import json
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from embedlab.build import Maker, part_of
from embedlab.errors import ConfigError, listed
from embedlab.job import Job, finished, make_room
from embedlab.store import FORMAT, Store, read_json, sweep_away, versions, write_json

Crew = Callable[[Path], Callable[..., Any]]  # makes who carries a sweep's jobs out on other machines
UNSAID = ("hydra.", "tracker", "group", "store", "at_once", "objective")  # what makes no other picture


class Composer:
    """Composes jobs as Hydra does; those that differ in values alone share the reading and merging of files."""

    def __init__(self, loader: Any):
        self.loader = loader
        self.whole = loader.load_sweep_config
        self.make = Maker()
        self.bases: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}
        self.parser = OverridesParser.create(config_loader=loader)
        self.parsed = lru_cache(maxsize=10_000)(self.parser.parse_override)

    def __call__(self, master: DictConfig, overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        """A job's config, and one that has Hydra's own node, which the next call changes."""
        every = [self.parsed(line) for line in overrides]
        structural = tuple(o.input_line for o in every if self._is_structural(o))
        if structural not in self.bases:
            whole = self.whole(master, list(structural))
            task = copy.deepcopy(whole)
            with read_write(task), open_dict(task):
                del task["hydra"]
            OmegaConf.set_readonly(whole.hydra, False)
            self.bases[structural] = task, whole
        task, whole = self.bases[structural]
        config = copy.deepcopy(task)
        ConfigLoaderImpl._apply_overrides_to_config([o for o in every if not self._is_structural(o)], config)
        return config, whole

    def _is_structural(self, override: Override) -> bool:
        key = override.key_or_group
        plain = override.type.name == "CHANGE" and override.package is None
        return not plain or key.startswith("hydra") or self.loader.repository.group_exists(key)


def prepare(context: Any, config: DictConfig) -> Composer:
    """Before a sweeper hands over jobs: hold the sweep's folder, and let nobody compose a config twice."""
    hold(Path(config.hydra.sweep.dir).absolute())
    composer = Composer(context.config_loader)
    # Hydra's sweepers compose every job once more to see whether it can be; here all that cannot are told together
    context.config_loader.load_sweep_config = lambda master_config, sweep_overrides: master_config
    return composer


def launch(
    composer: Composer,
    master: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    crew: Crew | None = None,
    gpus: float = 0,
) -> list[JobReturn]:
    """Make all jobs of a batch; the answer holds for each the value of the objective, if there is one.

    With a crew they are made on other machines, by workers with so many GPUs.
    """
    from embedlab.app import message_of, quiet
    from embedlab.batch import Outcome, carry_out
    from embedlab.progress import Display

    setup_globals()
    quiet()
    begun = time.perf_counter()  # what follows is ours, the imports are not
    folder = Path(master.hydra.sweep.dir).absolute()
    jobs: list[Job] = []
    results: dict[int, dict[str, Any]] = {}
    wrong: dict[str, list[str]] = {}
    same: dict[str, dict[str, Any]] = {}
    made: list[DictConfig] = []
    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    try:
        common = set.intersection(*(set(lines) for lines in job_overrides)) if len(job_overrides) > 1 else set()
        for number, overrides in enumerate(job_overrides, first):
            name = ",".join(line for line in overrides if line not in common and not line.startswith(UNSAID))
            try:
                config, whole = composer(master, overrides)
                hydra_config.cfg = whole
                place(whole, composer, overrides, number)
                job = job_from(composer, config, whole, overrides, number)
                if crew is not None:
                    job = replace(job, source=job.source.elsewhere(gpus))
                job.notes  # noqa: B018  (what is wrong with its cell is said here)
                if other := collision(same, config, job):
                    raise ConfigError(other)
                if done := finished(job):
                    results[number] = done
                jobs.append(job)
                made.append(config)
            except Exception as error:
                line = message_of(error)
                if line is None:
                    raise
                wrong.setdefault(line, []).append(f"job {number}" + (f" ({name})" if name else ""))
    finally:
        hydra_config.cfg = before
    objective = part_of(master, "objective") if OmegaConf.is_dict(master.get("objective")) else master.get("objective")
    if wrong:
        refuse(folder, wrong, len(job_overrides))
    if jobs:
        jobs[0].tracker.ready()
    left = [job for job in jobs if job.number not in results]
    elsewhere = crew(folder) if crew and left else None
    if any(folder.glob(".queue-*")):
        from embedlab.crew import dismiss

        dismiss(folder)
    remember(folder, jobs)
    for job, config in zip(jobs, made, strict=True):
        if job.number not in results or not (job.folder / ".hydra").is_dir():
            make_room(job)
            write_hydra(job, config)
    store = Store(store_of(master.get("store"), folder))
    display = DISPLAYS.setdefault(folder, Display())
    display.planning += time.perf_counter() - begun
    with display.shown():
        from embedlab.batch import Log

        outcome = Outcome()
        log = Log(display, outcome)
        try:
            for job in jobs:
                if (result := results.get(job.number)) and not result.get("logged"):
                    log.put(job, result)
            display.jobs += len(jobs) - len(left)
            display.done += len(jobs) - len(left)
            if left:
                (elsewhere or carry_out)(left, store, display, log)
            log.close()
        except BaseException:
            log.close(drop=True)
            raise
    FAILED.setdefault(folder, []).extend((job.number, job.title, reason) for job, reason in outcome.failures)
    results |= outcome.results
    return [answer(objective, results.get(n), lines) for n, lines in enumerate(job_overrides, first)]


DISPLAYS: dict[Path, Any] = {}  # what is seen of a sweep in this process, however many batches it has
FAILED: dict[Path, list[tuple[int, str, str]]] = {}  # what failed in this process, by the sweep's folder


def answer(objective: Any, result: Mapping[str, Any] | None, overrides: Sequence[str]) -> JobReturn:
    """What a sweeper is told of a job. Only a search hears of failures: other sweepers would stop at the first."""
    if objective is not None and (result is None or result["status"] != "done"):
        why = ConfigError(result["error"] if result else "it was not made")
        return JobReturn(overrides=list(overrides), status=JobStatus.FAILED, _return_value=why)
    told = None if objective is None or result is None else value(objective, result)
    return JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, _return_value=told)


def value(objective: Any, result: Mapping[str, Any]) -> float:
    """A score by its name, or what a callable makes of a result."""
    if callable(objective):
        return float(objective(result))
    if objective not in result["scores"]:
        raise ConfigError(f"objective is '{objective}'; this sweep has the scores {listed(result['scores'])}.")
    return float(result["scores"][objective])


def place(whole: DictConfig, composer: Composer, overrides: Sequence[str], number: int) -> None:
    """Tell Hydra's node of a job what it says where it runs: number, name, folder."""
    from hydra._internal.config_loader_impl import get_overrides_dirname

    mine = [composer.parsed(line) for line in overrides]
    task = [o for o in mine if not o.is_hydra_override()]
    hydra = whole.hydra
    dirname = hydra.job.config.override_dirname
    with read_write(hydra), open_dict(hydra):
        hydra.job.num = number
        hydra.job.id = str(number)
        hydra.overrides.task = [o.input_line for o in task]
        hydra.job.override_dirname = get_overrides_dirname(
            overrides=task, kv_sep=dirname.kv_sep, item_sep=dirname.item_sep, exclude_keys=dirname.exclude_keys
        )
        hydra.runtime.output_dir = str(Path(hydra.sweep.dir).absolute() / str(hydra.sweep.subdir))


def job_from(composer: Composer, config: DictConfig, whole: DictConfig, overrides: Sequence[str], number: int) -> Job:
    """The job that a config describes, at its place in a sweep."""
    from embedlab.app import job_of

    parsed = [composer.parsed(line) for line in overrides]
    return job_of(
        config,
        composer.make,
        folder=Path(whole.hydra.runtime.output_dir),
        name=whole.hydra.job.override_dirname,
        group=Path(whole.hydra.sweep.dir).name,
        number=number,
        overrides={o.key_or_group: o.value() for o in parsed if not o.key_or_group.startswith(UNSAID)},
        command=command_of(overrides),
    )


def command_of(overrides: Sequence[str]) -> str:
    """A command line that makes a job again, by itself."""
    words = [line for line in overrides if not line.startswith("hydra.sweep")]
    alone = ["hydra.mode=RUN"] if any(line.startswith("experiment=") for line in words) else []
    return shlex.join(["embedlab", *words, *alone])


def collision(same: dict[str, dict[str, Any]], config: DictConfig, job: Job) -> str | None:
    """Two axes that set the same thing: what to say when a job comes to the settings of another, set otherwise."""
    settings = {key: value for key, value in job.config.items() if not key.startswith(UNSAID)}
    other = same.setdefault(json.dumps(settings, sort_keys=True, default=str), job.overrides)
    differing = [key for key in job.overrides if job.overrides[key] != other.get(key)]
    if not differing:
        return None
    return (
        f"{listed(f'{key}={job.overrides[key]}' for key in differing)} changes nothing beside "
        f"{listed(f'{key}={other.get(key)}' for key in differing)}: another axis sets the same thing. Leave one out."
    )


def store_of(setting: Any, folder: Path) -> Path:
    """Where finished pictures are kept: where it was asked for, else in the sweep's own folder."""
    if setting is None:
        return folder / ".cells"
    if not isinstance(setting, str) or not setting.strip():
        raise ConfigError(f"store is {setting!r}; it has to be a folder, or null for one in the sweep's own.")
    return Path(setting).expanduser().absolute()


# ── the sweep's folder ────────────────────────────────────────────────────────────────────────────────────────────


_held: dict[Path, FileLock] = {}


def hold(folder: Path) -> None:
    """Let no other process work in a sweep's folder until this one ends."""
    if folder in _held:
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = _holder(folder)
        raise ConfigError(
            f"the folder '{folder}' is being worked in by {holder}; wait for it, or name another."
        ) from None
    _held[folder] = lock
    write_json(folder / ".holder", {"process": os.getpid(), "host": socket.gethostname(), "since": _now()})
    atexit.register(release, folder)


def release(folder: Path) -> None:
    """Let others in."""
    lock = _held.pop(folder, None)
    if lock is None:
        return
    for name in (".holder", ".lock"):
        (folder / name).unlink(missing_ok=True)
    lock.release()


def _holder(folder: Path) -> str:
    try:
        who = json.loads((folder / ".holder").read_text())
    except (OSError, ValueError):
        return "another process"
    return f"process {who['process']} on {who['host']} since {who['since']}"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def remember(folder: Path, jobs: Sequence[Job]) -> None:
    """Write down the plan: the very command, and what every job of it is."""
    sweep_away(folder)
    known = read_json(folder / "sweep.json") or {}
    mine = {job.number: entry(job, folder) for job in jobs}
    old = {planned["job"]: planned for planned in known.get("jobs", [])}
    write_json(
        folder / "sweep.json",
        {
            "format": FORMAT,
            "command": known.get("command") or sys.argv[1:],
            "cwd": known.get("cwd") or os.getcwd(),
            "started": known.get("started") or _now(),
            "versions": versions(),
            "jobs": [planned for _, planned in sorted((old | mine).items())],
        },
    )


def entry(job: Job, folder: Path) -> dict[str, Any]:
    """A job as the plan lists it."""
    where = os.path.relpath(job.folder, folder)
    return {"job": job.number, "folder": where, "key": job.key, "name": job.title, "overrides": job.overrides}


def write_hydra(job: Job, config: DictConfig) -> None:
    """The files that Hydra leaves of a job: what it was composed of, and with which overrides."""
    folder = job.folder / ".hydra"
    folder.mkdir(exist_ok=True)
    overrides = [f"{key}={value}" for key, value in job.overrides.items()]
    for name, content in (("config", OmegaConf.to_container(config)), ("overrides", overrides)):
        text = yaml.dump(content, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
        (folder / f"{name}.yaml").write_text(text)


def refuse(folder: Path, wrong: Mapping[str, Sequence[str]], jobs: int) -> None:
    """Say all that is wrong, a line each, and end; nothing was read, and nothing is left."""
    release(folder)
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if held <= {"multirun.yaml", ".lock", ".holder"}:
        shutil.rmtree(folder, ignore_errors=True)
    for line, which in wrong.items():
        said = which[0] if len(which) == 1 else f"{len(which)} jobs, first {which[0]}"
        print(f"embedlab: {said}: {' '.join(line.split())}", file=sys.stderr)
    if jobs > 1:
        count = sum(len(which) for which in wrong.values())
        print(f"embedlab: nothing was drawn; {count} of {jobs} jobs are wrong.", file=sys.stderr)
    sys.exit(2)


def taken_up(path: str, more: Sequence[str]) -> list[str]:
    """The command line that goes on with a sweep: its own, in its own folder."""
    folder = Path(path).expanduser().absolute()
    known = read_json(folder / "sweep.json") if folder.is_dir() else None
    if known is None:
        raise ConfigError(f"there is no sweep in '{path}' to be taken up; a sweep's folder holds a sweep.json.")
    if not isinstance(known.get("command"), list):
        raise ConfigError(f"'{folder / 'sweep.json'}' does not say how the sweep was started.")
    if other := [word for word in more if not word.startswith((*UNSAID, "hydra/launcher"))]:
        raise ConfigError(
            f"resume={path} goes on with the plan it had; leave out {listed(other)}, or start a new sweep."
        )
    if known.get("cwd") and Path(known["cwd"]).is_dir():
        os.chdir(known["cwd"])
    gone = ["hydra.sweep.dir="]
    if any(word.startswith("hydra/launcher=") for word in more):
        gone += ["hydra/launcher=", "hydra.launcher."]  # other machines, the same plan
    kept = [word for word in known["command"] if not word.startswith(tuple(gone))]
    return ["-m", *(word for word in kept if word not in ("-m", "--multirun")), *more, f"hydra.sweep.dir={folder}"]
