"""From Hydra's job overrides to jobs: composed once, all checked before any weight is read, carried out as one plan."""

from __future__ import annotations

import atexit
import copy
import json
import os
import re
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from embedlab import readers
from embedlab.clean import check_name, one_line, redact, redact_files
from embedlab.errors import ConfigError, EmbedlabError, contained, listed
from embedlab.experiment import fingerprint, score_names, scored_words
from embedlab.sweep.config import Maker, complete, part_of
from embedlab.sweep.job import Job, finished, inspect, make_room, of_sweep, reason_of, state_of
from embedlab.sweep.store import FORMAT, Store, make_folder, read_json, sweep_away, versions, write, write_json
from embedlab.sweep.trust import check_command
from embedlab.tracker import make_ready

Engine = Callable[[Path], Callable[..., Any]]  # from a sweep's folder to who runs its jobs on other machines
UNSAID = ("hydra.", "tracker", "group", "store", "at_once", "objective")  # what makes no other picture
AFTERWARDS = (*UNSAID, "hydra/launcher")  # what may be said when a sweep is taken up


class Composer:
    """Composes jobs as Hydra does; those that differ in values alone share the reading and merging of files."""

    def __init__(self, loader: Any):
        self.loader = loader
        self.whole = loader.load_sweep_config
        self.make = Maker()
        self.bases: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}
        self.parser = OverridesParser.create(config_loader=loader)
        self.parsed = lru_cache(maxsize=10_000)(self.parser.parse_override)
        self.words: dict[str, None] = {}  # that the jobs of all batches are scored with
        self.multirun: bytes | None = None  # Hydra's file of a sweep that is in the folder already

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
    most = config.hydra.sweeper.get("max_batch_size")
    if most is not None and most < 1:
        raise ConfigError(f"hydra.sweeper.max_batch_size is {most}; it has to be 1 or more, or null for all at once.")
    folder = Path(config.hydra.sweep.dir).absolute()
    hold(folder)
    composer = Composer(context.config_loader)
    composer.multirun = next((file.read_bytes() for file in folder.glob("multirun.yaml")), None)
    # Hydra's sweepers compose every job once more to see whether it can be; here all that cannot are told together
    context.config_loader.load_sweep_config = lambda master_config, sweep_overrides: master_config
    return composer


def launch(
    composer: Composer,
    master: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    engine: Engine | None = None,
    gpus: float = 0,
) -> list[JobReturn]:
    """Make all jobs of a batch; the answer holds for each the value of the objective, if there is one.

    With an engine they are made on other machines, by workers with so many GPUs.
    """
    from embedlab.cli.main import message_of
    from embedlab.cli.progress import Display
    from embedlab.models.silence import silence_libraries
    from embedlab.sweep.run import Outcome, carry_out

    setup_globals()
    silence_libraries()
    begun = time.perf_counter()  # what follows is ours, the imports are not
    folder = Path(master.hydra.sweep.dir).absolute()
    jobs: list[Job] = []
    results: dict[int, dict[str, Any]] = {}
    wrong: dict[str, list[str]] = {}
    which: dict[int, str] = {}
    same: dict[str, tuple[dict[str, Any], Sequence[str]]] = {}
    homes: dict[Path, int] = {}
    made: list[DictConfig] = []
    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    with leaving_nothing(folder, composer.multirun):
        if not job_overrides:
            raise ConfigError("this sweep has no jobs: one of its lists of values is empty.")
        objective, searching = objective_of(master), is_search(master)
        check_search(master, objective)
        where = store_of(master.get("store"), folder)
        common = set.intersection(*(set(lines) for lines in job_overrides)) if len(job_overrides) > 1 else set()
        try:
            for number, overrides in enumerate(job_overrides, first):
                name = ",".join(line for line in overrides if line not in common and not line.startswith(UNSAID))
                which[number] = f"job {number}" + (f" ({name})" if name else "")
                try:
                    config, whole = composer(master, overrides)
                    config = complete(config)
                    hydra_config.cfg = whole
                    place(whole, composer, overrides, number)
                    job = job_from(composer, config, whole, overrides, number)
                    if engine is not None:
                        job = replace(job, source=job.source.elsewhere(gpus))
                    inspect(job)
                    if config.explain is not False:
                        raise ConfigError("explain takes one cell; leave it out of a sweep.")
                    if other := collision(same, config, job, overrides, searching):
                        raise ConfigError(other)
                    state_of(job)
                    check_name(job.folder)
                    if taken := misplaced(homes, job, folder):
                        raise ConfigError(taken)
                    jobs.append(job)
                    made.append(config)
                except Exception as error:
                    line = message_of(error)
                    if line is None:
                        raise
                    wrong.setdefault(line, []).append(which[number])
            jobs = joined(jobs, composer.words)
            for job in jobs:
                try:
                    check_objective(objective, job)
                except ConfigError as error:
                    wrong.setdefault(str(error), []).append(which[job.number])
        finally:
            hydra_config.cfg = before
        if wrong:
            refuse(wrong, len(job_overrides))
        results |= {job.number: done for job in jobs if (done := finished(job)) is not None}
        make_ready(jobs[0].tracker)
        left = [job for job in jobs if job.number not in results]
        elsewhere = engine(folder) if engine and left else None
        if any(folder.glob(".queue-*")):
            from embedlab.workers.crew import dismiss

            dismiss(folder)
        make_folder(where)
    remember(folder, jobs)
    for job, config in zip(jobs, made, strict=True):
        if job.number not in results or not (job.folder / ".hydra").is_dir():
            make_room(job)
            write_hydra(job, config)
    store = Store(where)
    display = DISPLAYS.setdefault(folder, Display())
    display.planning += time.perf_counter() - begun
    with display.shown():
        from embedlab.sweep.run import Log

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
    failed = [(job.number, job.title, reason) for job, reason in outcome.failures]
    known = {number for number, *_ in failed}
    lost = [job for job in jobs if job.number not in known and not (job.folder / "result.json").is_file()]
    failed += [(job.number, job.title, "its files were taken away while the sweep ran") for job in lost]
    FAILED.setdefault(folder, []).extend(failed)
    results |= outcome.results
    return [answer(objective, results.get(n), lines) for n, lines in enumerate(job_overrides, first)]


def joined(jobs: Sequence[Job], words: dict[str, None]) -> list[Job]:
    """Jobs of one sweep, named by what varies and scored with the words of all; `words` are those of other batches."""
    from embedlab.sweep.results import labels, set_apart

    own = [scored_words(job.cell, job.metrics) if job.metrics.words is None else [] for job in jobs]
    words |= dict.fromkeys(word for mine in own for word in mine)
    told = [{"label": job.cell.label, "name": job.name, "overrides": job.overrides, "job": job.number} for job in jobs]
    made = []
    for job, mine, name in zip(jobs, own, labels(set_apart(told)), strict=True):
        more: dict[str, Any] = {"run_name": redact(name), "words": tuple(words)}
        if mine and set(mine) != set(words):
            line = f"metrics.words=[{','.join(quoted(word) for word in words)}]"
            more |= {"command": f"{job.command} {shlex.quote(line)}"}
        made.append(of_sweep(job, **more))
    return made


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
        try:
            with contained("it"):
                return float(objective(result))
        except EmbedlabError:
            raise
        except Exception as error:
            raise ConfigError(f"objective cannot be told from a result: {reason_of(error)}") from error
    return float(result["scores"][objective])


def objective_of(config: DictConfig) -> Any:
    """What a search is told of a result; None where nobody asks."""
    made = part_of(config, "objective") if OmegaConf.is_dict(config.get("objective")) else config.get("objective")
    if not (made is None or isinstance(made, str) or callable(made)):
        raise ConfigError(
            f"objective is {made!r}; it has to be the name of a score, such as clip_score/skunk, or a callable of a "
            "result."
        )
    return made


def is_search(config: DictConfig) -> bool:
    """Whether a sweeper asks for jobs by what it is told of others: all of those do that have a direction."""
    return config.hydra.sweeper.get("direction") is not None


def check_search(config: DictConfig, objective: Any) -> None:
    """Refuse a search that would not be told what it asks for."""
    if not is_search(config):
        return
    if objective is None:
        raise ConfigError(
            "a search needs to know what it looks for: objective=SCORE, such as objective=clip_score/skunk "
            "(experiment=search shows another)."
        )
    ways = config.hydra.sweeper.direction
    if OmegaConf.is_list(ways) and len(ways) != 1:
        raise ConfigError(
            f"hydra.sweeper.direction names {len(ways)} directions, and an objective is one number; name one."
        )


def check_objective(objective: Any, job: Job) -> None:
    """Refuse a search for a score that a job is not going to have; a callable may name its own in `scores`."""
    asked = [objective] if isinstance(objective, str) else getattr(objective, "scores", ())
    names = score_names(job.cell, job.metrics, job.source) if asked else []
    if lacking := [name for name in asked if name not in names]:
        blind = "" if job.source.sees else " (model.scorer=PATH of a CLIP model adds those of CLIP)"
        raise ConfigError(f"objective asks for '{lacking[0]}'; this job has the scores {listed(names, 20)}{blind}.")


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
    from embedlab.cli.main import job_of

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


def collision(
    same: dict[str, tuple[dict[str, Any], Sequence[str]]],
    config: DictConfig,
    job: Job,
    lines: Sequence[str],
    searching: bool = False,
) -> str | None:
    """What to say when a job comes to the settings of another: two axes that set the same thing, or one too long."""
    settings = {key: value for key, value in job.config.items() if not key.startswith(UNSAID)}
    # secrets are blanked in the settings, not in the cell
    alike = json.dumps([settings, fingerprint(job.cell)], sort_keys=True, default=str)
    other, said = same.setdefault(alike, (job.overrides, lines))
    if differing := [key for key in job.overrides if job.overrides[key] != other.get(key)]:
        return (
            f"{listed(f'{key}={job.overrides[key]}' for key in differing)} changes nothing beside "
            f"{listed(f'{key}={other.get(key)}' for key in differing)}: another axis sets the same thing. "
            "Leave one out."
        )
    if said is lines or searching:  # a search may ask twice
        return None
    if idle := [line for line in lines if line not in said]:
        rest = listed(line for line in said if line not in lines)
        return f"{listed(idle)} makes no other picture than {rest}; take one of them."
    return "its settings are those of another job: a list names a value twice. Leave one out."


def misplaced(homes: dict[Path, int], job: Job, folder: Path) -> str | None:
    """What to say when a job has no folder of its own right in the sweep's."""
    where = os.path.relpath(job.folder, folder)
    if job.folder.parent != folder or where.startswith(".") or where == "gallery":
        wrong = f"puts a job in '{where}'"
    elif homes.setdefault(job.folder, job.number) != job.number:
        wrong = f"puts job {homes[job.folder]} in '{where}', too"
    else:
        return None
    return f"hydra.sweep.subdir {wrong}; each job has a folder of its own right in the sweep's: leave it out."


def store_of(setting: Any, folder: Path) -> Path:
    """Where finished pictures are kept: where it was asked for, else in the sweep's own folder."""
    if setting is None:
        return folder / ".cells"
    if not isinstance(setting, str) or not setting.strip():
        raise ConfigError(f"store is {setting!r}; it has to be a folder, or null for one in the sweep's own.")
    return readers.path_of(setting, "store").absolute()


# ── the sweep's folder ────────────────────────────────────────────────────────────────────────────────────────────


_held: dict[Path, FileLock] = {}


def hold(folder: Path) -> None:
    """Let no other process work in a sweep's folder until this one ends."""
    if folder in _held:
        return
    check_name(folder)
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


def begun() -> list[Path]:
    """The folders of the sweeps that this process works in, where there is something to be taken up."""
    return [folder for folder in _held if (folder / "sweep.json").is_file()]


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
        who = json.loads((folder / ".holder").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "another process"
    return f"process {who['process']} on {who['host']} since {who['since']}"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def remember(folder: Path, jobs: Sequence[Job]) -> None:
    """Write down the plan: the very command, and what every job of it is."""
    sweep_away(folder)
    redact_files(folder.glob("multirun.yaml"))  # Hydra's own
    known = read_json(folder / "sweep.json") or {}
    mine = {job.number: entry(job, folder) for job in jobs}
    listed_before = known.get("jobs", [])
    entries = listed_before if isinstance(listed_before, list) else []
    old = {planned["job"]: planned for planned in entries if isinstance(planned, dict) and "job" in planned}
    write_json(
        folder / "sweep.json",
        {
            "format": FORMAT,
            "command": known.get("command") or redact(sys.argv[1:]),
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


def write_hydra(job: Job, config: DictConfig, hydra: HydraConf | None = None) -> None:
    """The files that Hydra leaves of a job: what it was composed of, with which overrides, and its own node."""
    folder = job.folder / ".hydra"
    folder.mkdir(exist_ok=True)
    overrides = [f"{key}={value}" for key, value in job.overrides.items()]
    files: dict[str, Any] = {"config": OmegaConf.to_container(config), "overrides": overrides}
    if hydra is not None:
        node = OmegaConf.to_container(OmegaConf.structured(hydra), enum_to_str=True)
        files |= {"overrides": list(hydra.overrides.task), "hydra": {"hydra": node}}
    for name, content in redact(files).items():
        text = yaml.dump(content, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
        write(folder / f"{name}.yaml", text.encode())


@contextmanager
def leaving_nothing(folder: Path, multirun: bytes | None) -> Iterator[None]:
    """Let go of a sweep's folder when what is done here fails, as it was, or not at all where nothing was in it."""
    try:
        yield
    except BaseException:
        release(folder)
        if multirun is not None:  # Hydra has written its own over it
            write(folder / "multirun.yaml", multirun)
        held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if held <= {"multirun.yaml", ".lock", ".holder"}:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def refuse(wrong: Mapping[str, Sequence[str]], jobs: int) -> None:
    """Say all that is wrong, a line each, and end; what is wrong with every job is one line."""
    if len(wrong) == 1 and len(*wrong.values()) == jobs > 1:
        print(f"embedlab: {' '.join(next(iter(wrong)).split())}", file=sys.stderr)
        sys.exit(2)
    for line, which in wrong.items():
        said = which[0] if len(which) == 1 else f"{len(which)} jobs, first {which[0]}"
        print(f"embedlab: {one_line(f'{said}: {line}')}", file=sys.stderr)
    if jobs > 1:
        count = sum(len(which) for which in wrong.values())
        print(
            f"embedlab: nothing was drawn; {count} of {jobs} jobs {'is' if count == 1 else 'are'} wrong.",
            file=sys.stderr,
        )
    sys.exit(2)


def taken_up(path: str, more: Sequence[str]) -> list[str]:
    """The command line that goes on with a sweep: its own, in its own folder."""
    if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"":  # quoted twice, as Hydra wants it elsewhere
        path = path[1:-1]
    folder = Path(os.path.abspath(readers.path_of(path, "resume")))
    known = read_json(folder / "sweep.json") if folder.is_dir() else None
    if known is None:
        raise ConfigError(f"there is no sweep in '{path}' to be taken up; a sweep's folder holds a sweep.json.")
    command, cwd = known.get("command"), known.get("cwd")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise ConfigError(f"'{folder / 'sweep.json'}' does not say how the sweep was started.")
    if any("***" in word for word in command):
        raise ConfigError(
            f"a secret was blanked ('***') in the command of '{path}'; give the same command with "
            f"hydra.sweep.dir={path} instead."
        )
    trust = [word.removeprefix("trust=") for word in more if word.startswith("trust=")]
    more = [word for word in more if not word.startswith("trust=")]
    if other := [word for word in more if word.startswith("hydra.sweep") or not word.startswith(AFTERWARDS)]:
        raise ConfigError(
            f"resume={path} goes on with the plan it had; leave out {listed(other)}, or start a new sweep."
        )
    if isinstance(cwd, str) and Path(cwd).is_dir():
        os.chdir(cwd)
    # what is said now is in the place of what was said then; another launcher has other settings
    said = {"-m", "--multirun", "hydra.sweep.dir", *(word.partition("=")[0] for word in more)}
    elsewhere = any(word.startswith("hydra/launcher=") for word in more)
    kept = [word for word in command if word.partition("=")[0] not in said]
    kept = [word for word in kept if not (elsewhere and word.startswith(("hydra/launcher=", "hydra.launcher.")))]
    check_command(kept, str(folder / "sweep.json"), trust)
    return ["-m", *kept, *more, f"hydra.sweep.dir={quoted(str(folder))}"]


def quoted(text: str) -> str:
    r"""A text as a value of Hydra's syntax, whatever signs are in it.

    >>> print(quoted("a/b"), quoted("it's (x,y)"))
    a/b 'it\'s (x,y)'
    """
    if re.fullmatch(r"[A-Za-z0-9_./-]+", text):
        return text
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", text) + "'"
