"""The command line: `embedlab`, with Hydra's syntax. Nothing heavy is imported before the config is composed."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

HERE = Path(__file__).resolve().parent


UNWRITABLE = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EROFS, errno.ENOSPC, errno.EEXIST, errno.ENAMETOOLONG)


class Parser(argparse.ArgumentParser):
    """The words of a command; its complaint is one line like all others."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        from embedlab.errors import ConfigError

        raise ConfigError(f"{self.prog.removeprefix('embedlab ')}: {message}; {self.prog} --help says what it takes.")


COMMANDS = {
    "film": "embedlab.film",
    "gallery": "embedlab.gallery",
    "replay": "embedlab.replay",
    "sheet": "embedlab.contact",
    "sync": "embedlab.sync",
}


# nothing is drawn, so nothing is written
EXPLAIN = ("explain=true", "hydra.mode=RUN", "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none")


def conf_dir() -> str:
    """Where the configs are: beside the package in a checkout, inside it when installed."""
    beside = HERE.parent / "conf"
    return str(beside if (beside / "config.yaml").is_file() else HERE / "conf")


def main() -> None:
    """The `embedlab` command. What the user can mend is one line and exit code 2; anything else is a traceback."""
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        with mendable():
            import_module(COMMANDS[sys.argv[1]]).main(sys.argv[2:])
        return
    # Hydra knows -m only before or after all settings; people also write it between them
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    if "explain" in sys.argv[1:]:
        words = [word for word in sys.argv[1:] if word != "explain" and not word.startswith("hydra.run.dir=")]
        if {"-m", "--multirun"} & set(words):
            fail("explain takes one cell; leave out -m and the lists of values.")
        sys.argv[1:] = [*words, *EXPLAIN]
    with mendable():
        if {"-m", "--multirun"} & set(sys.argv[1:]):
            said_twice(sys.argv[1:])
        for word in [word for word in sys.argv[1:] if word.startswith("resume=")]:
            from embedlab.launch import taken_up

            more = [other for other in sys.argv[1:] if other not in (word, "-m", "--multirun")]
            sys.argv[1:] = taken_up(word.removeprefix("resume="), more)
        app()


def said_twice(words: Sequence[str]) -> None:
    """Refuse an axis that is given twice: of two lists of values Hydra would sweep over the last and say nothing."""
    from embedlab.errors import ConfigError
    from embedlab.sweep import split

    known: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        several = any(len(split(text)) > 1 for text in (value, known.get(key, "").partition("=")[2]))
        if "=" in word and several and key in known and known[key] != word:
            raise ConfigError(f"{key} is given twice: {known[key]} and {word}; leave one out.")
        known[key] = word


_heard: dict[int, float] = {}  # signals that came, and when


class Stopped(SystemExit):
    """The process ends because it was told to, and has said so."""


def stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM is Ctrl-C: runs of trackers are closed, workers on other machines stopped."""
    now, last = time.monotonic(), _heard.get(number)
    # timeout and Slurm send SIGTERM more than once, and a shell may send Ctrl-C to a process and its group
    if last is not None and now - last < (5 if number == signal.SIGTERM else 1):
        return
    _heard[number] = now
    raise KeyboardInterrupt


@contextmanager
def mendable() -> Iterator[None]:
    """Turn errors that a user can mend into one line and exit code 2; Ctrl-C and SIGTERM into one line, 130 and 143.

    Whatever comes after a signal is the signal's doing: it is raised anywhere, and libraries make other errors of it.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand errors to us instead of printing them at length
    with listening():
        try:
            yield
        except Stopped:
            raise
        except BaseException as error:
            if _heard or isinstance(error, KeyboardInterrupt):
                launch = sys.modules.get("embedlab.launch")  # not imported here: imports may be what was interrupted
                begun = getattr(launch, "begun", list)
                rest = "".join(f" embedlab -m resume={shlex.quote(str(folder))} makes the rest." for folder in begun())
                say(f"stopped; jobs that have a result.json are whole.{rest}")
                raise Stopped(128 + (signal.SIGTERM if signal.SIGTERM in _heard else signal.SIGINT)) from None
            if isinstance(error, Exception) and (line := message_of(error)) is not None:
                fail(line)
            raise


@contextmanager
def listening() -> Iterator[None]:
    """Hear Ctrl-C, where it is not ignored, and SIGTERM."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is stop:
        yield
        return
    _heard.clear()
    mine = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        mine.append(signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in mine}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def message_of(error: Exception) -> str | None:
    """What to tell a user who can mend this; None for what only we can."""
    from embedlab.errors import EmbedlabError

    if isinstance(error, HydraException | OmegaConfBaseException):
        return line_of(error)
    if isinstance(error, EmbedlabError):
        return str(error)
    if isinstance(error, TypeError) and "can only concatenate str" in str(error):
        return "a choice is a name; an operator of your own is added by '+operators.NAME={_target_: PACKAGE.CLASS, …}'."
    if isinstance(error, ValueError) and "Config group override must be a string" in str(error):
        return "a choice (group=option) has to be the name of an option; tracker=silent logs nothing."
    if isinstance(error, OSError):
        if error.errno == errno.ENOENT and error.filename is None:
            return "the folder that this was started in is gone."
        made = traceback.extract_tb(error.__traceback__)[-1].name in ("mkdir", "makedirs")
        if error.errno in UNWRITABLE or (error.errno == errno.ENOENT and made):
            why = "it is a file" if error.errno == errno.EEXIST else error.strerror
            return f"'{error.filename or 'standard output'}' cannot be written: {why}."
    return None


def fail(line: str, code: int = 2) -> None:
    """One line on standard error, and an exit code."""
    say(line)
    sys.exit(code)


def say(line: str) -> None:
    """One line on standard error."""
    print(f"embedlab: {' '.join(line.split())}", file=sys.stderr)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def line_of(error: BaseException) -> str:
    """What a config error says, on one line: ours where one of ours is behind it."""
    from embedlab.errors import EmbedlabError, listed

    for cause in chain(error):
        if isinstance(cause, EmbedlabError):
            return str(cause)
    for cause in chain(error):
        if isinstance(cause, TypeError) and "unexpected keyword" in str(cause):
            key = str(error).rsplit("full_key: ", 1)
            return f"{cause}" + (f" (in {key[1].strip()})" if len(key) > 1 else "")
    text = str(error).split("Config search path:")[0].removeprefix("In 'config': ")
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        if not value and key.isidentifier():
            return f"there is no command '{key}'; there are explain, {listed(COMMANDS)}, and settings: key=value."
        if any(value.count(a) != value.count(b) for a, b in ("[]", "{}", "()")):
            return f"'{error.override}' opens a bracket that it does not close, or the other way round."
        if value.endswith(","):
            return f"'{error.override}' ends in a comma; leave it out."
        quoted = f"'{key}=\"{value}\"'" if value else "key=value"
        return f"'{error.override}' is not in Hydra's syntax; a text with signs in it is quoted twice: {quoted}."
    if "Ambiguous value for argument" in text and (named := re.search(r"argument '([^=']+)=(.*?)'\n", text)):
        setting, value = named[1], named[2]
        return (
            f"{setting} holds a comma. For one text quote it twice: '{setting}=\"{value}\"'; "
            "for a sweep over its parts add -m."
        )
    if unknown := re.search(r"Could not override '([\w.]+)'", text):
        lacking = re.search(r"Key '(\w+)' is not in struct", " ".join(str(cause) for cause in chain(error)))
        return unknown_key(unknown[1], lacking[1] if lacking else "")
    if lost := re.search(r"Error locating target '([^']+)'", text):
        return f"there is no '{lost[1]}' to be imported; a _target_ is a package, a dot and the name of a class in it."
    if missing := re.search(r"Missing mandatory value: ([\w.]+)", text):
        return f"{missing[1]} has to be given: {missing[1]}=…"
    if "'hydra/sweeper/optuna'" in text or "'hydra/sweeper/sampler/" in text:
        return "a search needs a package of its own: pip install 'embedlab[optuna]'."
    if gone := re.search(r"Could not (?:load|find) '([\w/]+)/", text):
        options = sorted(path.stem for path in Path(conf_dir(), gone[1]).glob("*.yaml"))
        options += ["basic"] if gone[1] == "hydra/launcher" else []
        first = text.splitlines()[0].removeprefix("In 'hydra/config': ").strip().rstrip(".")
        return f"{first}; {gone[1]}: choose one of {listed(options)}." if options else f"{first}."
    if text.startswith("Error merging override") and error.__cause__ is not None:
        text = f"{text.splitlines()[0].strip()}: {error.__cause__}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(line for line in lines if not line.startswith(("Set the env", "See https", "object_type")))


def unknown_key(key: str, missing: str = "") -> str:
    """What to say of a setting that is not there; `missing` is the part of its name that Hydra did not find."""
    from embedlab.build import SETTINGS
    from embedlab.errors import listed

    first, _, rest = key.partition(".")
    name, _, setting = rest.partition(".")
    if first == "operators" and setting == missing != "":
        return f"the operator '{name}' has no setting '{setting}'; conf/operators/{name}.yaml holds all it has."
    if first == "operators" and rest:
        name = rest.split(".")[0]
        return f"there is no operator '{name}' in this run; choose it first: operators=[...], or add your own with a +."
    if first == "hydra":
        return f"Hydra has no setting '{key}'; embedlab --cfg hydra prints those that it has."
    if first not in SETTINGS:
        return f"there is no setting '{first}'; there are {listed(SETTINGS)}."
    group = Path(conf_dir(), first)
    names = {line.split(":")[0] for file in group.glob("*.yaml") for line in file.read_text().splitlines()}
    known = sorted(name for name in names if name.isidentifier() and name[0] != "_" and name != "defaults")
    return f"there is no setting '{key}'; {first} has {listed(known)}."


@hydra.main(config_path=conf_dir(), config_name="config", version_base="1.3")
def app(config: DictConfig) -> None:
    """Run one job as Hydra composed it."""
    with mendable():  # here, because Hydra comments on whatever leaves a job
        try:
            work(config)
        except Exception as error:
            line = message_of(error)
            if line is None:
                raise
            if config.explain is not True:
                leave_nothing(Path(output_dir()))
            fail(f"job {HydraConfig.get().job.num} ({name_of_job()}): {line}" if in_sweep() else line)


def leave_nothing(folder: Path) -> None:
    """Take away the folder of a job that was refused, where Hydra's own files are all it holds."""
    held = list(folder.iterdir()) if folder.is_dir() else []
    if held and all(path.name == ".hydra" or (path.suffix == ".log" and not path.stat().st_size) for path in held):
        shutil.rmtree(folder)


def quiet() -> None:
    """Let libraries say only what is wrong."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    diffusers_logging.set_verbosity_error()


def work(config: DictConfig) -> None:
    """Make the job that a config describes, and carry it out by itself."""
    from embedlab.batch import carry_out
    from embedlab.build import redact_files
    from embedlab.errors import ConfigError
    from embedlab.job import explained, finished, inspect, make_room
    from embedlab.launch import store_of
    from embedlab.progress import Display
    from embedlab.store import Store, make_folder
    from embedlab.sweep import table

    quiet()
    if not isinstance(config.explain, bool):
        raise ConfigError(f"explain is {config.explain!r}; it has to be true or false.")
    info = HydraConfig.get()
    sweep = Path(info.sweep.dir).absolute() if in_sweep() else None
    job = job_of(
        config,
        folder=Path(output_dir()),
        name=name_of_job(),
        group=sweep.name if sweep else None,
        number=info.job.num if sweep else 0,
        command=shlex.join(["embedlab", *info.overrides.task]),
    )
    if config.explain:
        print(explained(job))
        return
    inspect(job)
    redact_files(job.folder.glob(".hydra/*.yaml"))
    result = finished(job)
    if result is None:
        job.tracker.ready()
        make_room(job)
        folder = store_of(config.store, sweep or job.folder)
        make_folder(folder)
        display = Display()
        with display.shown():
            outcome = carry_out([job], Store(folder), display)
        result = outcome.results[job.number]
        if not sweep and config.store is None:
            shutil.rmtree(folder, ignore_errors=True)  # all of it is in the job's own files now
        if outcome.failures and not sweep:
            fail(outcome.failures[0][1], 1)
    elif not sweep:
        print("This was made already; nothing is drawn again.")
    if not sweep:
        print(table([result]))
        print(f"\nThe pictures are in {output_dir()}; begin with sheet.png.")


def job_of(config: DictConfig, make: Any = None, **place: Any) -> Any:
    """Instantiate a config: every part is a callable's keyword list. `place` is what a config does not say of a job."""
    from embedlab.build import SETTINGS, Maker, cell_of, redact
    from embedlab.errors import ConfigError
    from embedlab.job import Job

    if unknown := [str(key) for key in config if key not in SETTINGS]:
        raise ConfigError(unknown_key(unknown[0]))
    if gone := [key for key in SETTINGS if key not in config]:
        raise ConfigError(f"'{gone[0]}' cannot be left out.")
    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    make = make or Maker()
    seeds = OmegaConf.to_container(config.seeds) if OmegaConf.is_list(config.seeds) else config.seeds
    return Job(
        source=make(config, "model"),
        cell=cell_of(config, make),
        seeds=seeds,  # type: ignore[arg-type]
        config=redact(resolved),
        metrics=make(config, "metrics"),
        tracker=make(config, "tracker"),
        at_once=config.at_once,
        export=config.export,
        **redact({**place, "group": config.group if config.group is not None else place.get("group")}),
    )


def output_dir() -> str:
    """The folder of this job."""
    return HydraConfig.get().runtime.output_dir


def in_sweep() -> bool:
    """Whether this is one of several jobs."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def name_of_job() -> str:
    """What was overridden, which is what tells jobs apart; empty when nothing was."""
    return HydraConfig.get().job.override_dirname
