"""Errors as one line each: ours as they are, Hydra's in words that say what to type."""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from embedlab.clean import one_line
from embedlab.cli.prompt_list import typed
from embedlab.cli.settings import LONG, advice, every, of_group, of_option, options, within
from embedlab.cli.signals import Stopped, listening
from embedlab.errors import EmbedlabError, listed, nearest, perhaps
from embedlab.sweep.config import HERE
from embedlab.sweep.overrides import quoted
from embedlab.sweep.roles import PARTS, SETTINGS

UNWRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EROFS, errno.EEXIST, errno.ENAMETOOLONG),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),  # full, one way or another
)
UNEXPECTED = r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '([^']+)'"
# of a command that answers on the terminal: nothing is written into a folder of its own
NO_FOLDER = ("hydra.mode=RUN", "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none")
EXPLAIN = ("explain=true", *NO_FOLDER)


@contextmanager
def as_user_error(hint: Callable[[], str] = str) -> Iterator[None]:
    """Turn errors that a user can correct into one line and exit code 2; Ctrl-C and SIGTERM into one, 130 and 143.

    Whatever comes after a signal is the signal's doing: it is raised anywhere, and libraries make other errors of it.
    `hint` says how to go on after a signal.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand errors to us instead of printing them at length
    with listening() as signals:
        try:
            yield
        except Stopped:
            raise
        except BaseException as error:
            if signals.heard or isinstance(error, KeyboardInterrupt):
                say(f"stopped; jobs that have a result.json are whole.{hint()}")
                number = signal.SIGTERM if signal.SIGTERM in signals.heard else signal.SIGINT
                raise Stopped(128 + number) from None
            if isinstance(error, Exception) and (line := user_message(error)) is not None:
                fail(line)
            raise


def user_message(error: Exception) -> str | None:
    """What to tell a user who can mend this; None for what only we can."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return hydra_message(error)
    if isinstance(error, EmbedlabError):
        return str(error)
    if isinstance(error, ValueError) and "No trials are completed yet" in str(error):  # optuna's
        return "the search ends without a best: every one of its jobs failed, for the reasons above."
    if isinstance(error, OSError):
        if error.errno == errno.ENOENT and error.filename is None:
            return "the folder that this was started in is gone."
        of_a_folder = traceback.extract_tb(error.__traceback__)[-1].name in ("mkdir", "makedirs")
        if error.errno in UNWRITABLE or (error.errno == errno.ENOENT and of_a_folder):
            why = "it is a file" if error.errno == errno.EEXIST else error.strerror
            where = error.filename2 or error.filename  # of a move, where to
            return f"{repr(str(where)) if where else nameless()} cannot be written: {why}."
    if of_hydra_alone(error):
        reasons = ": ".join(dict.fromkeys(plain(str(cause)) for cause in causes_of(error) if str(cause)))
        return f"Hydra cannot take this: {reasons or type(error).__name__}"
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


def fail(line: str, code: int = 2) -> NoReturn:
    """One line on standard error, and an exit code."""
    say(line)
    sys.exit(code)


def say(line: str) -> None:
    """One line on standard error."""
    print(f"embedlab: {one_line(line)}", file=sys.stderr)


def causes_of(error: BaseException) -> Iterator[BaseException]:
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
    message = " ".join(line for line in lines if line and not line.startswith(skip))
    message = message.replace(", set env var HYDRA_FULL_ERROR=1 to see chained exception.", "")
    where = f" (in {key[1]})" if key and key[1] not in message and not key[1].startswith("hydra.job.override") else ""
    return message + where


def hydra_message(error: BaseException) -> str:
    """What a config error says, on one line: ours where one of ours is behind it."""
    causes = list(causes_of(error))
    for cause in causes:
        if isinstance(cause, EmbedlabError):
            return str(cause)
    text = str(error)
    key = re.search(r"full_key: *(\S+)", text)
    place = f" (in {key[1]})" if key else ""
    for cause in causes:
        if isinstance(cause, TypeError) and (named := re.search(UNEXPECTED, str(cause))):
            return f"{named[1]} has no setting '{named[2]}'{place}."
        if isinstance(cause, TypeError) and "takes no arguments" in str(cause):
            return f"{cause}{place}."
        if isinstance(cause, TypeError) and (lacks := re.search(r"(\w+)\(\) missing .*?: ([^\")]+)", str(cause))):
            return (
                f"{lacks[1]} was called without {lacks[2]}{place}; a function that is to be handed over, and called "
                "later, has _partial_: true beside its _target_."
                if lacks[1] != "__init__"
                else f"{lacks[2]} has to be given{place}."
            )
    if isinstance(error, OverrideParseException):
        return unparsed(error.override)
    for pattern, line in ANSWERS:
        if found := re.search(pattern, text):
            return line(found, causes) if callable(line) else line.format(*found.groups(), within=place)
    return plain(text)


def unmerged(found: re.Match[str], causes: Sequence[BaseException]) -> str:
    """What to say of a word that was read, and that the config refuses."""
    cause = causes[0].__cause__
    if cause is None:
        return plain(str(causes[0]))
    if type(cause).__name__ == "GrammarParseError":
        return f"'{found[1]}' has a ${{…}} that cannot be read; in a text it is written \\${{…}}."
    word = found[1].lstrip("+")
    if re.search(r"Cannot merge (Dict|List)Config with (Dict|List)Config", str(cause)):
        key, _, value = word.partition("=")
        wanted = "names with values, {name: value}" if value[:1] == "[" else "a list, [one,two]"
        return f"{key} is {value[:80]}; it has to be {wanted}."
    return f"{word} is refused: {plain(str(cause))}"


def key_missing(found: re.Match[str], causes: Sequence[BaseException]) -> str:
    """What to say of a setting that is not there."""
    told = " ".join(map(str, causes))
    missing = re.search(r"Key '([^']+)' is not in struct", told)
    path = re.search(r"full_key: *(\S+)", told)
    if missing and path and path[1].startswith(f"{found[1]}."):  # a name within a mapping that is a value
        names = within(found[1])
        there = f"; it takes {listed(names)}" if names else ""
        return f"{found[1]} has no '{missing[1]}'{perhaps(missing[1], names)}{there}."
    return unknown_key(found[1], missing[1] if missing else "")


def unlocated(found: re.Match[str], causes: Sequence[BaseException]) -> str:
    """What to say of a `_target_` that is not there; of a room of ours with the name that is near."""
    target = found[1]
    key = re.search(r"full_key: *(\S+)", " ".join(map(str, causes)))
    room, _, name = target.rpartition(".")
    module = sys.modules.get(room)
    near = nearest(name, getattr(module, "__all__", ())) if room.startswith("embedlab") else None
    meant = f" (did you mean {room}.{near}?)" if near else ""
    place = f" (in {key[1]})" if key else ""
    return f"there is no '{target}' to be imported{meant}; a _target_ is PACKAGE.CLASS{place}."


# what Hydra says, and what it comes to here: a text, or a function of the match and the error with its causes
ANSWERS: tuple[tuple[str, str | Callable[[re.Match[str], Sequence[BaseException]], str]], ...] = (
    (r"Ambiguous value for argument '([^=']+)=(.*?)'\n", lambda found, _: several(found[1], found[2])),
    (r"Could not override '([\w.]+)'", key_missing),
    (r"Could not (?:load|find) '((?:hydra/)?\w+)/([^']*)'", lambda found, _: no_option(found[1], found[2])),
    (r"Error locating target '([^']+)'", unlocated),
    (r"Target '([^']+)' is blocklisted", "'{0}' is no _target_ that a config may name: it can run commands{within}."),
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
    (r"^Error merging override *(.*)", unmerged),
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
        f"'{override}' is not in Hydra's syntax; a text with signs in it is quoted twice: {twice(key, value)}."
        if value
        else f"'{override}' is no setting; a setting is KEY=VALUE."
    )


def twice(key: str, value: str) -> str:
    """A text as a shell and Hydra take it, whatever is in it.

    >>> print(twice("prompt", "a (red) cat"), twice("prompt", 'a "red" (cat)'))
    'prompt="a (red) cat"' 'prompt='"'"'a "red" (cat)'"'"''
    """
    return f"'{key}=\"{value}\"'" if re.fullmatch(r"[^'\"\\$]*", value) else shlex.quote(f"{key}={quoted(value)}")


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


def no_option(group: str, name: str) -> str:
    """What to say of a choice that is not there."""
    if group.startswith("hydra/sweeper") and name.startswith("optuna"):
        return "a search needs a package of its own: pip install 'embedlab[optuna]'."
    known = [*options(group), *(["basic"] if group in ("hydra/launcher", "hydra/sweeper") else [])]
    there = f"; {group}: choose one of {listed(known)}" if known else ""
    return f"there is no {group}={name}{advice(typed_words())}{there}."


def unknown_key(key: str, missing: str = "") -> str:
    """What to say of a setting that is not there; `missing` is the part of its name that Hydra did not find."""
    first, _, rest = key.partition(".")
    name, _, setting = rest.partition(".")
    words = typed_words()
    given = next((word for word in words if word.lstrip("+").startswith(f"{key}=")), "")
    if first not in SETTINGS and any(re.search(rf"\$\{{\s*{re.escape(key)}\s*\}}", word) for word in words):
        return f"'{key}' is no setting; a key of your own has a plus: {shlex.quote(f'+{given}')}"
    if given.startswith("+") and "." not in key:
        return f"there is no setting '{key}', and none uses it; a text that does: 'prompt=a ${{{key}}}'."
    better = advice(words)
    if setting and not better and (said := not_within(key)):
        return said
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


def not_within(key: str) -> str:
    """What to say of a name that is not in a mapping of a setting; nothing of another key."""
    outer, _, last = key.rpartition(".")
    names, group = within(outer), key.partition(".")[0]
    if last in names:
        others = [option for option in options(group) if last in within(outer, option)]
        return f"there is no setting '{key}' in this run; {listed(f'{group}={o}' for o in others)} has it."
    return f"there is no setting '{key}'{perhaps(last, names)}; {outer} has {listed(names)}." if names else ""


def typed_words() -> list[str]:
    """The words of the command as they were typed, before `ready`."""
    words = typed(sys.argv[1:])
    if not set(NO_FOLDER) <= set(words):
        return words
    return ["explain" if EXPLAIN[0] in words else "profile", *(w for w in words if w not in EXPLAIN)]


def typed_command(more: Sequence[str] = ()) -> str:
    """The command as it was typed, with more settings."""
    line = shlex.join(["embedlab", *typed_words(), *more])
    return line if len(line) <= LONG else shlex.join(more)
