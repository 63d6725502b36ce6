"""The command line: `embedlab`, with Hydra's syntax. Nothing heavy is imported before the config is composed."""

from __future__ import annotations

import atexit
import gc
import os
import shlex
import shutil
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from embedlab.checks import true_or_false
from embedlab.clean import check_name, clean_streams
from embedlab.cli.commands import learn, profile
from embedlab.cli.compose import job_of, name_of_model, study_of, whole_mappings, words_of
from embedlab.cli.messages import EXPLAIN, NO_FOLDER, as_user_error, fail, say, typed_command, user_message
from embedlab.cli.progress import CHECKING, aside, importing, peak_memory, stage
from embedlab.cli.prompt_list import AXIS, Asked, asked, axis, rows_of
from embedlab.cli.session import Session, rollback
from embedlab.cli.settings import OPEN
from embedlab.cli.usage import COMMANDS, answer, arranged, check
from embedlab.cli.values import check_values
from embedlab.errors import ConfigError, EmbedlabError
from embedlab.files import redact_files
from embedlab.sweep.config import complete, conf_dir
from embedlab.sweep.roles import SETTINGS
from embedlab.sweep.study import group_of

if TYPE_CHECKING:
    from embedlab.sweep.result import Result

PLACES = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "store")  # what Hydra and we make folders of


def main() -> None:
    """The `embedlab` command. What the user can correct is one line and exit code 2; anything else is a traceback."""
    atexit.register(gc.freeze)  # nobody searches torch and all for garbage at the end: 1.3 of 6 s
    with clean_streams():
        try:
            run(sys.argv[1:])
        except Exception:  # one of ours; printed here, because what it holds has to be fit to be seen
            traceback.print_exc()
            sys.exit(1)


def run(words: list[str], session: Session | None = None) -> None:
    """The same, of these words; what a command holds may be handed in."""
    session = session or Session()
    with session, as_user_error(session.hint), one_line_warnings():
        if words[:1] == ["help"] or words[:1] == ["--help"]:
            words = [*words[1:], "--help"]
        if words and (module := COMMANDS.get(words[0], ("",))[0]):
            import_module(module).main(words[1:])
            return
        if (text := answer(words)) is not None:
            print(text)
            return
        if "profile" in words:
            check_single("profile", asked(words))
            words, session.profile = profile.taken(words)
            check(words)
            words = [*(word for word in words if not word.startswith("hydra.run.dir=")), *NO_FOLDER]
        if "learn" in words:
            check_single("learn", asked(words))
            words, session.learning = learn.taken(words)
        sys.argv[1:] = words if session.profile is not None else ready(words, session)
        app(session)
        if session.sweep is not None:
            from embedlab.cli.finish import finish_sweep

            finish_sweep(session)


def ready(words: Sequence[str], session: Session) -> list[str]:
    """A command line as Hydra takes it; what is wrong with it is raised here. The session keeps the rows of a list."""
    prompts = asked(arranged(opened(words)))
    sweep = bool({"-m", "--multirun"} & set(words))
    words = list(prompts.others)
    if prompts.about:
        check_single(next((word for word in ("explain", "--cfg", "-c", "--info", "-i") if word in words), ""), prompts)
        if any(word.startswith("resume=") for word in words):
            raise ConfigError("resume=FOLDER goes on with the rows that the sweep had; leave out prompts=….")
        words, sweep = ["-m", *(word for word in words if word not in ("-m", "--multirun"))], True
    if "explain" in words:
        words = [word for word in words if word != "explain" and not word.startswith("hydra.run.dir=")]
        if sweep:
            raise ConfigError("explain takes one cell; leave out -m and the lists of values.")
        check(words)
        return [*words, *EXPLAIN]
    check([word for word in words if not word.startswith(("resume=", "trust="))])
    for word in words:
        if word.partition("=")[0] in PLACES:
            check_name(Path(word.partition("=")[2]))
    if sweep:
        check_repeated(words)
    if prompts.about:
        session.rows = rows_of(prompts)
    for word in [word for word in words if word.startswith("resume=")]:
        from embedlab.cli.resume import resume_command

        more = [other for other in words if other not in (word, "-m", "--multirun")]
        words, session.rows = resume_command(word.removeprefix("resume="), more)
        prompts = asked(words)
        words = list(prompts.others)
    return arranged([axis(prompts.words, len(session.rows)), *words]) if session.rows else words


def opened(words: Sequence[str]) -> list[str]:
    """A command line that may say names of its own within `OPEN`, which Hydra takes with a plus.

    >>> opened(["sampler=euler", "sampler.options.s_churn=20", "guidance.settings={eta:0}"])
    ['sampler=euler', '++sampler.options.s_churn=20', '++guidance.settings={eta:0}']
    """
    return [f"++{word}" if any(word.startswith((f"{key}.", f"{key}=")) for key in OPEN) else word for word in words]


def check_single(command: str, prompts: Asked) -> None:
    """Refuse a list of prompts for a command of one job."""
    if command and prompts.about:
        raise ConfigError(f"{command} is of one cell; give it one prompt in the place of {prompts.words[0]}.")


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Let what Hydra warns of be a line, without the place in Hydra's code."""
    with warnings.catch_warnings():
        own = warnings.showwarning

        def show(message: Any, category: Any, filename: str, *rest: Any, **more: Any) -> None:
            if f"{os.sep}hydra{os.sep}" in filename:
                say(f"notice: {message}")
            else:
                own(message, category, filename, *rest, **more)

        warnings.showwarning = show
        yield


def check_repeated(words: Sequence[str]) -> None:
    """Refuse an axis that is given twice: of two lists of values Hydra would sweep over the last and say nothing."""
    from embedlab.sweep.labels import split

    known: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        several = any(len(split(text)) > 1 for text in (value, known.get(key, "").partition("=")[2]))
        if "=" in word and several and key in known and known[key] != word:
            raise ConfigError(f"{key} is given twice: {known[key]} and {word}; leave one out.")
        known[key] = word


def app(session: Session) -> None:
    """Let Hydra compose what the command line says, and run it."""
    with whole_mappings():
        hydra.main(config_path=conf_dir(), config_name="config", version_base="1.3")(Task(session))()


class Task:
    """What Hydra calls with a composed config; launchers find the session of the command here."""

    def __init__(self, session: Session):
        self.session = session

    def __call__(self, config: DictConfig) -> None:
        """Run one job."""
        with as_user_error(self.session.hint):  # here, because Hydra comments on whatever leaves a job
            try:
                redact_files(Path(output_dir()).glob(".hydra/*.yaml"))
                if config.get("explain") is True or self.session.profile is not None:
                    run_single(config, self.session)
                    return
                with rollback(Path(output_dir())):
                    run_single(config, self.session)
            except Exception as error:
                line = user_message(error)
                if line is None:
                    raise
                fail(f"job {HydraConfig.get().job.num} ({name_of_job()}): {line}" if in_sweep() else line)


def run_single(config: DictConfig, session: Session) -> None:
    """Run the job that a config describes, by itself: a plan of one job."""
    if AXIS.lstrip("+") in config:  # which a launcher of ours would have replaced
        raise ConfigError("a list of prompts is for the launchers of embedlab: leave out hydra/launcher=….")
    if gone := [key for key in SETTINGS if key not in config]:
        raise ConfigError(f"'{gone[0]}' cannot be left out: this config is of something else, or has a ~{gone[0]}.")
    config = complete(config, typed_command)
    check_values(config)
    quiet = config.explain is True or session.profile is not None
    (aside if quiet else stage)(CHECKING)
    with importing():
        from embedlab.cli.launch import Plan, store_of
    from embedlab.files import make_folder
    from embedlab.models.silence import silence_libraries
    from embedlab.sweep.job import check_engine, of_sweep, validate_job
    from embedlab.sweep.labels import label
    from embedlab.sweep.result import Result
    from embedlab.tracker import make_ready

    session.enter_context(silence_libraries())
    true_or_false(config.explain, "explain", ConfigError)
    info = HydraConfig.get()
    study = study_of(info)
    sweep = Path(info.sweep.dir).absolute() if in_sweep() else None
    place = {
        "folder": Path(output_dir()),
        "name": name_of_job(),
        "group": group_of(sweep, study) if sweep else None,
        "study": study,
        "home": sweep,
        "number": info.job.num if sweep else 0,
        "command": shlex.join(["embedlab", *words_of(info)]),
    }
    job = job_of(config, **place)
    if config.explain:
        explain(job)
        return
    if session.profile is not None:
        profile.run(job, session.profile)
        return
    validate_job(job if session.learning is None else learn.checked(session.learning, job))
    check_engine(job)
    if sweep:  # of another launcher than ours
        session.sweep, session.study = (sweep, config), study
    with session.locked(job.folder):
        if session.learning is not None:
            make_ready(job.tracker)
            config = learn.run(session.learning, job, config)
            job = job_of(config, **place | {"command": shlex.join(["embedlab", *session.learning.words])})
        job = of_sweep(job, run_name=label(Result("planned", label=job.cell.label, name=job.name)))
        plan = Plan.of([job], [config], store_of(config.store, sweep or job.folder))
        if plan.unlogged:
            make_ready(job.tracker)
        plan.write_folders(info)
        if plan.left:
            make_folder(plan.store)
            stage(f"loading {name_of_model(config)}")
        (result,) = plan.run(session).values()
        if not sweep:
            conclude(job, config, plan, session, result)


def explain(job: Any) -> None:
    """Print what a cell becomes."""
    from embedlab.operators.base import Edit
    from embedlab.sweep.explained import explained
    from embedlab.sweep.job import reason_of

    try:
        print(explained(job))
    except Exception as error:
        if isinstance(error, EmbedlabError) or all(isinstance(operator, Edit) for operator in job.cell.operators):
            raise
        fail(reason_of(error), 1)  # an operator of somebody's own


def conclude(job: Any, config: DictConfig, plan: Any, session: Session, result: Result) -> None:
    """What is written and printed once a job that is none of a sweep's has run: its tables, or why it failed."""
    from embedlab.sweep.score_table import table
    from embedlab.sweep.tables import records, write_tables, write_times
    from embedlab.tracker import look_at

    if config.store is None:
        shutil.rmtree(plan.store, ignore_errors=True)  # all of it is in the job's own files now
    if result.has_pictures:
        write_tables(job.folder, records([result], alone=True))
        write_times(job.folder, session.display.times, peak_memory())
    if session.failed:
        fail(session.failed[0][2], 1)
    if not plan.left:
        print("These images exist already; nothing is generated again.")
    print(table([result]))
    print(f"\nThe pictures are in {output_dir()}; begin with sheet.png; figures: results.csv, results.parquet.")
    if (line := look_at(job.tracker, job.folder)) is not None:
        print(line)


def output_dir() -> str:
    """The folder of this job."""
    return str(HydraConfig.get().runtime.output_dir)


def in_sweep() -> bool:
    """Whether this is one of several jobs."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def name_of_job() -> str:
    """What was overridden, which is what tells jobs apart; empty when nothing was."""
    return str(HydraConfig.get().job.override_dirname)
