"""The command line: `embedlab`, with Hydra's syntax. Nothing heavy is imported before the config is composed."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from embedlab.clean import check_name, clean_streams, one_line, redact, redact_files
from embedlab.cli.progress import Display, aside, stage
from embedlab.cli.settings import LONG, advice, every, of_group, of_option, options
from embedlab.cli.usage import COMMANDS, answer, arranged, check
from embedlab.errors import ConfigError, EmbedlabError, listed
from embedlab.sweep.config import PARTS, SETTINGS, complete, conf_dir, lacking

__all__ = ["app", "conf_dir", "main", "mendable", "message_of"]
UNWRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EROFS, errno.EEXIST, errno.ENAMETOOLONG),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),  # full, one way or another
)
PLACES = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "store")  # what Hydra and we make folders of
HERE = Path(__file__).resolve().parent.parent
# nothing is drawn, so nothing is written
EXPLAIN = ("explain=true", "hydra.mode=RUN", "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none")


def main() -> None:
    """The `embedlab` command. What the user can mend is one line and exit code 2; anything else is a traceback."""
    with clean_streams():
        try:
            run(sys.argv[1:])
        except Exception:  # one of ours; it is told here, because what it holds has to be fit to be seen
            traceback.print_exc()
            sys.exit(1)


def run(words: list[str]) -> None:
    """The same, of these words."""
    with mendable(), one_line_warnings():
        if words[:1] == ["help"] or words[:1] == ["--help"]:
            words = [*words[1:], "--help"]
        if words and (module := COMMANDS.get(words[0], ("",))[0]):
            import_module(module).main(words[1:])
            return
        if (told := answer(words)) is not None:
            print(told)
            return
        sys.argv[1:] = ready(words)
        app()


def ready(words: Sequence[str]) -> list[str]:
    """A command line as Hydra takes it; what is wrong with it is raised here."""
    words = arranged(words)
    sweep = bool({"-m", "--multirun"} & set(words))
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
        said_twice(words)
    for word in [word for word in words if word.startswith("resume=")]:
        from embedlab.cli.launch import taken_up

        more = [other for other in words if other not in (word, "-m", "--multirun")]
        words = taken_up(word.removeprefix("resume="), more)
    return words


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


def said_twice(words: Sequence[str]) -> None:
    """Refuse an axis that is given twice: of two lists of values Hydra would sweep over the last and say nothing."""
    from embedlab.sweep.results import split

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
                # not imported here: imports may be what was interrupted
                launch = sys.modules.get("embedlab.cli.launch")
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
    if isinstance(error, HydraException | OmegaConfBaseException):
        return line_of(error)
    if isinstance(error, EmbedlabError):
        return str(error)
    if isinstance(error, ValueError) and "No trials are completed yet" in str(error):  # optuna's
        return "the search ends without a best: every one of its jobs failed, for the reasons above."
    if isinstance(error, OSError):
        if error.errno == errno.ENOENT and error.filename is None:
            return "the folder that this was started in is gone."
        made = traceback.extract_tb(error.__traceback__)[-1].name in ("mkdir", "makedirs")
        if error.errno in UNWRITABLE or (error.errno == errno.ENOENT and made):
            why = "it is a file" if error.errno == errno.EEXIST else error.strerror
            where = error.filename2 or error.filename  # of a move, where to
            return f"{repr(str(where)) if where else nameless()} cannot be written: {why}."
    if of_hydra_alone(error):
        told = ": ".join(dict.fromkeys(plain(str(cause)) for cause in chain(error) if str(cause)))
        return f"Hydra cannot take this: {told or type(error).__name__}"
    return None


def of_hydra_alone(error: Exception) -> bool:
    """Whether Hydra raised this of a command line or a config, without any code of ours or of an operator at work."""
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    inside = [n for n, file in enumerate(files) if {"hydra", "omegaconf"} & set(file.parts)]
    ours = [
        n for n, file in enumerate(files) if file.is_relative_to(HERE) or file.parent.parent.name == "hydra_plugins"
    ]
    return bool(inside) and not any(n > inside[0] for n in ours)


def nameless() -> str:
    """What a library failed to write, where it does not say: standard output is known by failing once more."""
    try:
        print(flush=True)  # an empty line: what failed is not kept
    except OSError:
        return "'standard output'"
    return "a file of this run"


def fail(line: str, code: int = 2) -> None:
    """One line on standard error, and an exit code."""
    say(line)
    sys.exit(code)


def say(line: str) -> None:
    """One line on standard error."""
    print(f"embedlab: {one_line(line)}", file=sys.stderr)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def plain(text: str) -> str:
    r"""What Hydra says, without what only its developers need.

    >>> plain("Interpolation key 'x' not found\n    full_key: prompt\n    object_type=dict")
    "Interpolation key 'x' not found (in prompt)"
    """
    text = re.sub(r"^In '[\w/]+': ", "", text.partition("Config search path:")[0])
    key = re.search(r"full_key: *(\S+)", text)
    lines = [line.strip() for line in text.splitlines()]
    skip = ("Set the env", "See https", "object_type", "reference_type", "full_key")
    told = " ".join(line for line in lines if line and not line.startswith(skip))
    told = told.replace(", set env var HYDRA_FULL_ERROR=1 to see chained exception.", "")
    where = f" (in {key[1]})" if key and key[1] not in told and not key[1].startswith("hydra.job.override") else ""
    return told + where


def line_of(error: BaseException) -> str:
    """What a config error says, on one line: ours where one of ours is behind it."""
    causes = list(chain(error))
    for cause in causes:
        if isinstance(cause, EmbedlabError):
            return str(cause)
    text = str(error)
    place = re.search(r"full_key: *(\S+)", text)
    within = f" (in {place[1]})" if place else ""
    for cause in causes:
        if isinstance(cause, TypeError) and "unexpected keyword" in str(cause):
            return f"{cause}{within}"
    if isinstance(error, OverrideParseException):
        return unparsed(error.override)
    words = words_typed()
    if "Ambiguous value for argument" in text and (named := re.search(r"argument '([^=']+)=(.*?)'\n", text)):
        return several(named[1], named[2])
    if unknown := re.search(r"Could not override '([\w.]+)'", text):
        lacking = re.search(r"Key '(\w+)' is not in struct", " ".join(map(str, causes)))
        return unknown_key(unknown[1], lacking[1] if lacking else "")
    if gone := re.search(r"Could not (?:load|find) '((?:hydra/)?\w+)/([^']*)'", text):
        return no_option(gone[1], gone[2], words)
    for pattern, answer_of in SAID:
        if found := re.search(pattern, text):
            return answer_of.format(*found.groups(), within=within)
    if text.startswith("Error merging override") and error.__cause__ is not None:
        said = text.splitlines()[0].removeprefix("Error merging override").strip()
        if type(error.__cause__).__name__ == "GrammarParseError":
            return f"'{said}' has a ${{…}} that cannot be read; in a text it is written \\${{…}}."
        return f"{said} is refused: {plain(str(error.__cause__))}"
    return plain(text)


# what Hydra says, and what it comes to here
SAID = (
    (r"Error locating target '([^']+)'", "there is no '{0}' to be imported; a _target_ is PACKAGE.CLASS{within}."),
    (r"Error locating target ''", "a _target_ is empty; it has to be PACKAGE.CLASS{within}."),
    (r"Expected a callable target, got '(.*)' of type", "{0} is no _target_; it has to be PACKAGE.CLASS{within}."),
    (r"missing \d+ required positional arguments?: ([^\")]+)", "{0} has to be given{within}."),
    (r"Missing mandatory value: ([\w.]+)", "{0} has to be given: {0}=…"),
    (r"'hydra/sweeper/(?:optuna|sampler/)", "a search needs a package of its own: pip install 'embedlab[optuna]'."),
    (r"Sweep parameters '(.*)' requires --multirun", "'{0}' is a list of values to be tried: add -m."),
    (r"does not support sweep type : INTERVAL", "interval(…) is for a search: embedlab experiment=search shows one."),
    (r"Could not delete '([\w.]+)'", "'{0}' cannot be left out."),
    (
        r"Recursive interpolation",
        "a text with ${{…}} takes the value of another setting, and this one leads to itself.",
    ),
    (
        r"Interpolation key '(.*)' not found",
        "${{{0}}} takes the value of a setting that is not there; in a text it is written \\${{{0}}}.",
    ),
    (r"Unsupported interpolation type (\S+)", "${{{0}:…}} is unknown; in a text it is written \\${{{0}:…}}."),
    (r"Environment variable '(.*)' not found", "the environment has no variable {0}."),
    (r"Cannot find primary config '([^']*)'", "there is no config '{0}'; leave --config-name out."),
    (r"Primary config module '.*' not found", "--config-path is not a folder of configs; leave it out."),
)


def unparsed(override: str) -> str:
    """What to say of a word that Hydra cannot read."""
    key, _, value = override.partition("=")
    if any(value.count(a) != value.count(b) for a, b in ("[]", "{}", "()")):
        return f"'{override}' opens a bracket that it does not close, or the other way round."
    if value.endswith(","):
        return f"'{override}' ends in a comma; leave it out."
    if not re.fullmatch(r"[+~]*[\w$-]+([./@:]?[\w$-]+)*", key):
        return f"'{key}' is no name of a setting; names have dots between their parts: sampler.steps=25."
    return (
        f"'{override}' is not in Hydra's syntax; a text with signs in it is quoted twice: '{key}=\"{value}\"'."
        if value
        else f"'{override}' is no setting; a setting is KEY=VALUE."
    )


def several(setting: str, value: str) -> str:
    """What to say of a setting with commas where one value is wanted."""
    sweep = "for a sweep over its parts add -m."
    if setting == "operators":
        return f"operators takes a list: 'operators=[{value}]' applies them in this order; {sweep}"
    if setting in PARTS:
        return f"{setting} takes one option, and '{value}' are several; {sweep}"
    default = next((s.default for s in every() if s.key == setting), None)
    if isinstance(default, int | float):
        return f"{setting} is one value, and '{value}' are several; {sweep}"
    numbers = all(re.fullmatch(r"\s*-?[\d.]+\s*", part) for part in value.split(","))
    if isinstance(default, list) or numbers or setting == "metrics.words":
        return f"{setting} holds a comma. For a list write '{setting}=[{value}]'; {sweep}"
    return f"{setting} holds a comma. For one text quote it twice: '{setting}=\"{value}\"'; {sweep}"


def no_option(group: str, name: str, words: Sequence[str]) -> str:
    """What to say of a choice that is not there."""
    if group.startswith("hydra/sweeper") and name.startswith("optuna"):
        return "a search needs a package of its own: pip install 'embedlab[optuna]'."
    known = [*options(group), *(["basic"] if group in ("hydra/launcher", "hydra/sweeper") else [])]
    there = f"; {group}: choose one of {listed(known)}" if known else ""
    return f"there is no {group}={name}{advice(words)}{there}."


def unknown_key(key: str, missing: str = "") -> str:
    """What to say of a setting that is not there; `missing` is the part of its name that Hydra did not find."""
    first, _, rest = key.partition(".")
    name, _, setting = rest.partition(".")
    better = advice(words_typed())
    if first == "operators" and setting == missing != "":
        has = listed(s.name for s in of_option("operators", name)) if name in options("operators") else ""
        return f"the operator '{name}' has no setting '{setting}'{better}" + (f"; it has {has}." if has else "")
    if first == "operators" and rest:
        own = "" if better else "; choose it first: operators=[...], or add your own with a +."
        return f"there is no operator '{name}' in this run{better}{own}"
    if first == "hydra":
        return f"Hydra has no setting '{key}'; embedlab --cfg hydra prints those that it has."
    if better:
        return f"there is no setting '{key}'{better}"
    if first not in SETTINGS:
        return f"there is no setting '{first}'; there are {listed(SETTINGS)}."
    return f"there is no setting '{key}'; {first} has {of_group(first)}."


@hydra.main(config_path=conf_dir(), config_name="config", version_base="1.3")
def app(config: DictConfig) -> None:
    """Run one job as Hydra composed it."""
    with mendable():  # here, because Hydra comments on whatever leaves a job
        try:
            redact_files(Path(output_dir()).glob(".hydra/*.yaml"))
            work(config)
        except Exception as error:
            line = message_of(error)
            if line is None:
                raise
            if config.get("explain") is not True:
                leave_nothing(Path(output_dir()))
            fail(f"job {HydraConfig.get().job.num} ({name_of_job()}): {line}" if in_sweep() else line)


def leave_nothing(folder: Path) -> None:
    """Take away the folder of a job that was refused, where Hydra's own files are all it holds."""
    held = list(folder.iterdir()) if folder.is_dir() else []
    if folder.is_dir() and all(
        path.name == ".hydra" or (path.suffix == ".log" and not path.stat().st_size) for path in held
    ):
        shutil.rmtree(folder)


def words_typed() -> list[str]:
    """The words of the command as they were typed, before `ready`."""
    words = sys.argv[1:]
    return ["explain", *(w for w in words if w not in EXPLAIN)] if set(EXPLAIN) <= set(words) else words


def typed(more: Sequence[str] = ()) -> str:
    """The command as it was typed, with more settings."""
    line = shlex.join(["embedlab", *words_typed(), *more])
    return line if len(line) <= LONG else shlex.join(more)


def same_in_all(config: DictConfig) -> None:
    """Refuse a sweep whose every job lacks the rows to be edited, before anything heavy is imported.

    Where that differs by job they are checked one by one, and all that is wrong is told together.
    """
    parser = OverridesParser.create()
    said = [parser.parse_override(line) for line in config.hydra.overrides.task]
    axes = {o.key_or_group for o in said if o.is_sweep_override()} | set(config.hydra.sweeper.get("params") or ())
    shared = [key for key in lacking(config) if not any(f"{key}.".startswith(f"{axis}.") for axis in axes)]
    if shared and not any(axis.split(".")[0] in ("prompt", "experiment") for axis in axes):
        complete(config, typed, shared)


def work(config: DictConfig) -> None:
    """Make the job that a config describes, and carry it out by itself."""
    if gone := [key for key in SETTINGS if key not in config]:
        raise ConfigError(f"'{gone[0]}' cannot be left out: this config is of something else, or has a ~{gone[0]}.")
    config = complete(config, typed)
    (aside if config.explain is True else stage)(f"loading {name_of_model(config)}")
    from embedlab.cli.launch import hold, release
    from embedlab.models.silence import silence_libraries
    from embedlab.operators.base import Edit
    from embedlab.sweep.job import explained, inspect, of_sweep, reason_of
    from embedlab.sweep.results import label

    silence_libraries()
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
        try:
            print(explained(job))
        except Exception as error:
            if isinstance(error, EmbedlabError) or all(isinstance(operator, Edit) for operator in job.cell.operators):
                raise
            fail(reason_of(error), 1)  # an operator of somebody's own
        return
    inspect(job)
    named = {"label": job.cell.label, "name": job.name}
    hold(job.folder)
    try:
        carry_out_alone(of_sweep(job, run_name=label(named)), config, sweep)
    finally:
        release(job.folder)


def carry_out_alone(job: Any, config: DictConfig, sweep: Path | None) -> None:
    """Make one job; where it is none of a sweep's, with the tables of one."""
    from embedlab.cli.launch import store_of, write_hydra
    from embedlab.sweep.job import finished, make_room
    from embedlab.sweep.results import records, table, write_tables
    from embedlab.sweep.run import Log, carry_out
    from embedlab.sweep.store import Store, make_folder
    from embedlab.tracker import make_ready

    there = finished(job)
    if there is None or not there.get("logged"):
        make_ready(job.tracker)
    make_room(job)
    write_hydra(job, config, HydraConfig.get())
    folder = store_of(config.store, sweep or job.folder)
    display = Display()
    with display.shown():
        log = Log(display)
        try:
            if there is None:
                make_folder(folder)
                carry_out([job], Store(folder), display, log)
            elif not there.get("logged"):
                log.put(job, there)
        finally:
            log.close()
    if sweep:
        return
    result = there or log.outcome.results[job.number]
    if config.store is None:
        shutil.rmtree(folder, ignore_errors=True)  # all of it is in the job's own files now
    if any("file" in row for row in result["pictures"]):
        write_tables(job.folder, records([{**result, "folder": str(job.folder)}], alone=True))
    if log.outcome.failures:
        fail(log.outcome.failures[0][1], 1)
    if there:
        print("This was made already; nothing is drawn again.")
    print(table([result]))
    print(f"\nThe pictures are in {output_dir()}; begin with sheet.png; figures: results.csv, results.parquet.")


def name_of_model(config: DictConfig) -> str:
    """What is loaded, for a line that is said before anything was checked."""
    with suppress(OmegaConfBaseException):
        return str(OmegaConf.select(config, "model.name") or "the model")
    return "the model"


def job_of(config: DictConfig, make: Any = None, **place: Any) -> Any:
    """Instantiate a config: every part is a callable's keyword list. `place` is what a config does not say of a job."""
    from embedlab.sweep.config import Maker, cell_of
    from embedlab.sweep.job import Job

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
