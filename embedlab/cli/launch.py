"""A sweep: jobs composed once, all checked before any weight is read, run as one plan; a single run is one of one."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, setup_globals
from omegaconf import DictConfig, OmegaConf

from embedlab import readers
from embedlab.cell import fingerprint
from embedlab.clean import check_name, redact
from embedlab.cli.compose import Composer, job_in_sweep, job_names, name_of_model, refuse, set_hydra_node, words_of
from embedlab.cli.messages import user_message
from embedlab.cli.objective import check_objective, check_search, is_search, job_return, objective_of, searched
from embedlab.cli.progress import stage
from embedlab.cli.resume import plan_jobs, quoted
from embedlab.cli.session import Session, rollback
from embedlab.errors import ConfigError, listed
from embedlab.files import make_folder, remove_temporaries, write
from embedlab.metrics.score import scored_words
from embedlab.models.silence import silence_libraries
from embedlab.sweep.axes import axes
from embedlab.sweep.config import complete
from embedlab.sweep.job import Job, check_engine, load_finished, load_result, of_sweep, prepare_folder, validate_job
from embedlab.sweep.labels import labels
from embedlab.sweep.result import Result
from embedlab.sweep.roles import OF_NO_RESULT
from embedlab.sweep.run import run_jobs
from embedlab.sweep.store import Store
from embedlab.sweep.tracking import TrackerQueue
from embedlab.tracker import make_ready

Elsewhere = Callable[[Path], Callable[..., Any]]  # from a sweep's folder to who runs its jobs on other machines


def launch(
    composer: Composer,
    master: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    session: Session,
    engine: Elsewhere | None = None,
    gpus: float = 0,
) -> list[JobReturn]:
    """Run all jobs of a batch; each return holds the value of the objective, if there is one.

    With an engine they run on other machines, by workers with so many GPUs.
    """
    setup_globals()
    session.enter_context(silence_libraries())
    begun = time.perf_counter()  # what follows is ours, the imports are not
    folder = Path(master.hydra.sweep.dir).absolute()
    with rollback(folder, composer.multirun):
        if not job_overrides:
            raise ConfigError("this sweep has no jobs: one of its lists of values is empty.")
        objective = objective_of(master)
        check_search(master, objective)
        store = store_of(master.get("store"), folder)
        jobs, configs = jobs_of(composer, master, job_overrides, first, objective, None if engine is None else gpus)
        plan = Plan.of(jobs, configs, store)
        make_ready(jobs[0].tracker)
        run = engine(folder) if engine and plan.left else run_jobs
        if (folder / ".slurm").is_dir():
            from embedlab.workers.slurm import cancel_left

            cancel_left(folder)
        make_folder(store)
    if plan.left and engine is None and first == 0:
        stage(f"loading {name_of_model(master)}")
    plan_jobs(folder, jobs, session.rows)
    plan.write_folders()
    session.display.planning += time.perf_counter() - begun
    results = plan.run(session, run)
    return [job_return(objective, results.get(n), lines) for n, lines in enumerate(job_overrides, first)]


@dataclass(frozen=True)
class Plan:
    """Jobs that were checked, what each was composed of, the results that are there already, and the store."""

    jobs: Sequence[Job]
    configs: Sequence[DictConfig]
    there: Mapping[int, Result]
    store: Path

    @classmethod
    def of(cls, jobs: Sequence[Job], configs: Sequence[DictConfig], store: Path) -> Plan:
        """A plan of these jobs; ConfigError where a folder holds the result of other settings."""
        there = {job.number: result for job in jobs if (result := load_finished(job)) is not None}
        return cls(jobs, configs, there, store)

    @property
    def left(self) -> list[Job]:
        """The jobs that have no result yet."""
        return [job for job in self.jobs if job.number not in self.there]

    @property
    def unlogged(self) -> list[Job]:
        """Those whose result the tracker has not seen."""
        return [job for job in self.jobs if job.number not in self.there or not self.there[job.number].logged]

    def write_folders(self, hydra: HydraConf | None = None) -> None:
        """Make the folder of each job, with the files that Hydra leaves of it."""
        for job, config in zip(self.jobs, self.configs, strict=True):
            if hydra is not None or job.number not in self.there or not (job.folder / ".hydra").is_dir():
                prepare_folder(job)
                write_hydra(job, config, hydra)
            else:
                remove_temporaries(job.folder)  # a finished result is written once more, when the tracker has seen it

    def run(self, session: Session, run: Callable[..., Any] = run_jobs) -> dict[int, Result]:
        """Run the jobs that are left and log all that was not; the results. Failures are noted in the session."""
        session.display.jobs += len(self.there)
        session.display.done += len(self.there)
        store = Store(self.store)
        if self.store.parent in session.locks:  # in a folder that this process holds, and no store of others
            store.remove_temporaries()
        with session.display.shown():
            log = TrackerQueue(session.display)
            try:
                for job in self.unlogged:
                    if job.number in self.there:
                        log.put(job, self.there[job.number])
                if self.left:
                    run(self.left, store, session.display, log)
                with log.outcome.timer, log.outcome.timer.part("waiting"):
                    log.close()
            except BaseException:
                log.close(drop=True)
                raise
        session.display.times += log.outcome.times
        failed = [(job.number, job.title, reason) for job, reason in log.outcome.failures]
        known = {number for number, *_ in failed}
        lost = [job for job in self.jobs if job.number not in known and not (job.folder / "result.json").is_file()]
        failed += [(job.number, job.title, "its files were taken away while the sweep ran") for job in lost]
        session.failed += failed
        return {**self.there, **log.outcome.results}


def jobs_of(
    composer: Composer,
    master: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    objective: Any,
    gpus: float | None,
) -> tuple[list[Job], list[DictConfig]]:
    """All jobs of a batch, checked, each with its config; all that is wrong is said at once, and exit code 2.

    With `gpus` they are for other machines, whose workers have so many.
    """
    folder = Path(master.hydra.sweep.dir).absolute()
    jobs: list[Job] = []
    configs: list[DictConfig] = []
    wrong: dict[str, list[str]] = {}
    names = job_names(job_overrides, first)
    same: dict[str, tuple[dict[str, Any], Sequence[str]]] = {}
    homes: dict[Path, int] = {}
    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    try:
        for number, overrides in enumerate(job_overrides, first):
            try:
                config, whole = composer(master, overrides)
                config = complete(config)
                hydra_config.cfg = whole
                set_hydra_node(whole, composer, overrides, number)
                job = job_in_sweep(composer, config, whole, overrides, number)
                if gpus is not None:
                    job = replace(job, source=job.source.for_worker(gpus))
                validate_job(job)
                if gpus is None:  # a worker checks for itself
                    check_engine(job)
                if config.explain is not False:
                    raise ConfigError("explain takes one cell; leave it out of a sweep.")
                check_distinct(same, job, overrides, is_search(master))
                load_result(job)
                check_name(job.folder)
                check_folder(homes, job, folder)
                jobs.append(job)
                configs.append(config)
            except Exception as error:
                line = user_message(error)
                if line is None:
                    raise
                wrong.setdefault(line, []).append(names[number])
        composer.varied |= dict.fromkeys(searched(master))
        jobs = joined(jobs, composer.words, composer.varied)
        for job in jobs:
            try:
                check_objective(objective, job)
            except ConfigError as error:
                wrong.setdefault(str(error), []).append(names[job.number])
    finally:
        hydra_config.cfg = before
    if wrong:
        refuse(wrong, len(job_overrides))
    return jobs, configs


def joined(jobs: Sequence[Job], words: dict[str, None], varied: dict[str, None]) -> list[Job]:
    """Jobs of one sweep, named by what varies and scored with the words of all.

    `words` and what `varied` are those of the batches before, and get those of this one.
    """
    own = [scored_words(job.cell, job.metrics) if job.metrics.words is None else [] for job in jobs]
    words |= dict.fromkeys(word for mine in own for word in mine)
    named = [Result("planned", None, None, job.number, job.name, job.cell.label, job.overrides) for job in jobs]
    varied |= dict.fromkeys(key for key in axes(named) if key != "seed")
    renamed = []
    for job, mine, name in zip(jobs, own, labels(named), strict=True):
        more: dict[str, Any] = {"run_name": redact(name), "words": tuple(words), "varied": tuple(varied)}
        if mine and set(mine) != set(words):
            line = f"metrics.words=[{','.join(quoted(word) for word in words)}]"
            more |= {"command": f"{job.command} {shlex.quote(line)}"}
        renamed.append(of_sweep(job, **more))
    return renamed


def check_distinct(
    same: dict[str, tuple[dict[str, Any], Sequence[str]]], job: Job, lines: Sequence[str], searching: bool
) -> None:
    """Refuse a job with the settings of another: two axes that set the same thing, or one too long."""
    settings = {key: value for key, value in job.config.items() if not key.startswith(OF_NO_RESULT)}
    # secrets are blanked in the settings, not in the cell
    key = json.dumps([settings, fingerprint(job.cell)], sort_keys=True, default=str)
    other, given = same.setdefault(key, (job.overrides, lines))
    if differing := [key for key in job.overrides if job.overrides[key] != other.get(key)]:
        raise ConfigError(
            f"{listed(f'{key}={job.overrides[key]}' for key in differing)} changes nothing beside "
            f"{listed(f'{key}={other.get(key)}' for key in differing)}: another axis sets the same thing. "
            "Leave one out."
        )
    if given is lines or searching:  # a search may ask twice
        return
    if idle := [line for line in lines if line not in given]:
        rest = listed(line for line in given if line not in lines)
        raise ConfigError(f"{listed(idle)} makes no other picture than {rest}; take one of them.")
    raise ConfigError("its settings are those of another job: a list names a value twice. Leave one out.")


def check_folder(homes: dict[Path, int], job: Job, folder: Path) -> None:
    """Refuse a job that has no folder of its own right in the sweep's."""
    where = os.path.relpath(job.folder, folder)
    if job.folder.parent != folder or where.startswith(".") or where == "gallery":
        wrong = f"puts a job in '{where}'"
    elif homes.setdefault(job.folder, job.number) != job.number:
        wrong = f"puts job {homes[job.folder]} in '{where}', too"
    else:
        return
    raise ConfigError(
        f"hydra.sweep.subdir {wrong}; each job has a folder of its own right in the sweep's: leave it out."
    )


def store_of(setting: Any, folder: Path) -> Path:
    """Where finished pictures are kept: where it was asked for, else in the sweep's own folder."""
    if setting is None:
        return folder / ".cells"
    if not isinstance(setting, str) or not setting.strip():
        raise ConfigError(f"store is {setting!r}; it has to be a folder, or null for one in the sweep's own.")
    return readers.path_of(setting, "store").absolute()


def write_hydra(job: Job, config: DictConfig, hydra: HydraConf | None = None) -> None:
    """The files that Hydra leaves of a job: what it was composed of, with which overrides, and its own node."""
    folder = job.folder / ".hydra"
    folder.mkdir(exist_ok=True)
    overrides = [f"{key}={value}" for key, value in job.overrides.items()]
    files: dict[str, Any] = {"config": OmegaConf.to_container(config), "overrides": overrides}
    if hydra is not None:
        node = OmegaConf.to_container(OmegaConf.structured(hydra), enum_to_str=True)
        files |= {"overrides": words_of(hydra), "hydra": {"hydra": node}}
    for name, content in redact(files).items():
        text = yaml.dump(content, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
        write(folder / f"{name}.yaml", text.encode())
