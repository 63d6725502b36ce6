"""What a command line may be: help, version, and what is wrong with its words before Hydra composes anything."""

from __future__ import annotations

import argparse
import itertools
import re
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType, QuotedString, RangeSweep

import embedlab
from embedlab.cli import settings
from embedlab.errors import ConfigError, listed, nearest, not_a_prompt
from embedlab.sweep.roles import PARTS, PRESETS

# the commands: the module that has each, and what it does
COMMANDS = {
    "explain": ("", "print what the prompt becomes: tokens, nearest words, what an edit changes; nothing is drawn"),
    "gallery": (
        "embedlab.cli.commands.gallery",
        "write the page of a sweep: all pictures by any setting, with scores, curves",
    ),
    "play": (
        "embedlab.cli.commands.play",
        "open a page on this machine to feel an edit: click a token, drag a weight, see pictures follow",
    ),
    "sheet": ("embedlab.cli.commands.sheet", "write a sweep's contact sheet again, with other rows and columns"),
    "film": ("embedlab.cli.commands.film", "make a GIF and an MP4 of a sweep, along one setting"),
    "replay": ("embedlab.cli.commands.replay", "make a picture again from the settings inside it, and compare the two"),
    "anatomy": ("embedlab.cli.commands.anatomy", "look inside a model: layers, sizes, FLOPs, memory, a drawing, ONNX"),
    "profile": ("", "run a job and say where its time and memory go: parts, operators, a trace"),
    "learn": ("", "learn a word from images or a text, save it as a concept, and draw it"),
    "sync": ("embedlab.cli.commands.sync", "send a sweep's offline wandb runs to the server"),
}
HEAD = "embedlab: rewrite CLIP token and position embeddings, then look at the picture."
EXAMPLES = """\
  embedlab prompt="A picture of a puppy" operators=[replace] operators.replace.by=cat
  embedlab experiment=puppy_to_cat
  embedlab explain operators=[interpolate]
  embedlab -m operators=[interpolate] operators.interpolate.weight=0,0.25,0.5,0.75,1"""
LISTS = {
    "prompts=@FILE": "one prompt a line; or .csv, .tsv, .yaml, .json, whose columns are settings",
    "prompts=SET": f"a set that comes with embedlab: {', '.join(settings.options('prompts'))}",
    "prompts.combinatorial=true": "all prompts of a template of dynamicprompts: {a|b}, {2$$a|b|c}, __file__",
    "prompts.wildcards=FOLDER": "where the files of __file__ are",
    "prompts.most=N": "the first N of a list, or of a template's prompts",
}
FLAGS = """\
Flags:
  -m            a sweep: values separated by commas are tried one after the other
  --cfg job     print what the settings come to, and do nothing
  --version     print the version
  --help        this page; with settings it shows theirs, such as: embedlab --help operators=[interpolate]
  --hydra-help  Hydra's own flags (this command line is Hydra's, https://hydra.cc)"""


# ── help ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def about(words: Sequence[str] = ()) -> str:
    """What `embedlab --help` prints: commands, choices, and the settings of the options that `words` choose."""
    wide = max(map(len, COMMANDS))
    commands = [f"  {name.ljust(wide)}  {what}" for name, (_, what) in COMMANDS.items()]
    blocks = [
        HEAD,
        EXAMPLES,
        "\n".join(["Commands (embedlab COMMAND --help says what it takes):", *commands]),
        "\n".join(["Choices (GROUP=OPTION):", *_choices()]),
        _settings(words),
        "\n".join(
            [
                "Lists of prompts, a job each (docs/prompts.md):",
                *(f"  {word.ljust(27)} {what}" for word, what in LISTS.items()),
            ]
        ),
        "\n".join(
            [
                "Where things go:",
                "  hydra.run.dir=FOLDER    the folder of a job; left out, outputs/DATE/TIME",
                "  hydra.sweep.dir=FOLDER  the folder of a sweep; left out, multirun/DATE/TIME",
                "  resume=FOLDER           with -m: make what is missing of the sweep in a folder",
                "  trust=PACKAGE           beside resume: let its command name classes of this package",
            ]
        ),
        FLAGS,
    ]
    return "\n\n".join(blocks)


def about_explain(words: Sequence[str] = ()) -> str:
    """What `embedlab explain --help` prints."""
    usage = f"usage: embedlab explain [SETTINGS]\n\nexplain: {COMMANDS['explain'][1]}."
    note = (
        "It reads the tokenizer and the text encoders alone. A cell that changes over time is told at its first call "
        "and at its last."
    )
    example = "  embedlab explain prompt='A photo of a cat' operators=[scale] operators.scale.rows=cat"
    drawing = ("seeds", "size", "at_once", "store", "objective", "export", "explain", "group")
    rest = "Whatever else a run can be told may stand there, too, and changes nothing here: embedlab --help lists it."
    return "\n\n".join([usage, note, example, _settings(words, (*drawing, "start", "metrics", "tracker")), rest])


def about_profile(words: Sequence[str] = ()) -> str:
    """What `embedlab profile --help` prints."""
    usage = f"usage: embedlab profile [SETTINGS] [out=FILE] [trace=FILE]\n\nprofile: {COMMANDS['profile'][1]}."
    examples = (
        "  embedlab profile operators=[replace] operators.replace.by=cat seeds=[0]\n"
        "  embedlab profile at_once=16 tracker=silent out=parts.csv trace=trace.json"
    )
    files = (
        "  out=FILE    parts as .csv, everything as .json or .html\n"
        "  trace=FILE  a trace that chrome://tracing and ui.perfetto.dev open, .json or .json.gz"
    )
    note = (
        "The job runs twice in a folder that is thrown away: once watched by torch.profiler, once timed. Its tracker "
        "hears of\nthe second run; tracker=silent leaves that out."
    )
    return "\n\n".join([usage, note, examples, files, _settings(words, ("store", "objective", "explain", "group"))])


def about_learn(words: Sequence[str] = ()) -> str:
    """What `embedlab learn --help` prints."""
    usage = f"usage: embedlab learn word=NAME like=[FILE,…]|text=TEXT [SETTINGS]\n\nlearn: {COMMANDS['learn'][1]}."
    examples = (
        "  embedlab learn 'word=<my-cat>' like=[cat.png,cat-2.png] begin=cat\n"
        "  embedlab learn 'word=<my-cat>' 'text=a picture of a blue cat' hard=true vectors=2\n"
        "  embedlab learn word=puppy table=position 'prompt=A puppy and a cat' like=[puppy.png]"
    )
    own = settings.of_option("learn", "default")
    names = {s.name for s in own}
    wide = max(len(f"{s.name}={settings.as_text(s.default)}") for s in own)
    lines = [f"  {f'{s.name}={settings.as_text(s.default)}'.ljust(wide)}  {s.comment}" for s in own]
    note = (
        "It is learned in the prompt, which has the word in it (A picture of a WORD), and which is drawn in the end.\n"
        "The job's folder gets concept.safetensors, for model.concepts=[PATH], learning/curve.csv, and the images."
    )
    kept = [word for word in words if word.partition("=")[0] not in names]
    drawing = ("store", "objective", "explain", "group", "operators")
    return "\n\n".join([usage, examples, note, "\n".join(["Of learning:", *lines]), _settings(kept, drawing)])


def _choices() -> list[str]:
    """The options of each group; a group of one option is no choice."""
    picked = settings.chosen([])
    lines = []
    for group in (*PARTS, *PRESETS):
        names = [f"{name} (default)" if name in picked.get(group, ()) else name for name in settings.options(group)]
        if len(names) > 1:
            several = ["several, in their order: operators=[scale,shift]"] if group == "operators" else []
            lines += _folded(f"  {group.ljust(12)}", ", ".join([*names, *several]))
    return lines


def _folded(start: str, text: str) -> list[str]:
    """A text behind a heading, on as many lines as it takes."""
    return textwrap.wrap(text, 118, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False)


def _settings(words: Sequence[str], without: Sequence[str] = ()) -> str:
    """The settings of the options that words choose, with their defaults and what the YAML says of each."""
    left_out = ("hydra", *without)
    known = [s for s in settings.known(words) if s.key.split(".")[0] not in left_out]
    defaults = [s.word(settings.as_text(s.default)) for s in known]
    wide = min(44, max(map(len, defaults)))
    lines: list[str] = []
    for word, setting in zip(defaults, known, strict=True):
        lines += _folded(f"  {word.ljust(wide)}  ", setting.comment) or [f"  {word}"]
    return "\n".join(["Settings (KEY=VALUE), as they are when left out (null: nothing; ???: has to be given):", *lines])


# ── words ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def arranged(words: Sequence[str]) -> list[str]:
    """The words in the order that is wanted: Hydra knows -m only before or after all settings, people write it between.

    >>> arranged(["size=64", "-m", "seeds=[0],[1]"])
    ['-m', 'size=64', 'seeds=[0],[1]']
    """
    return sorted(words, key=lambda word: word not in ("-m", "--multirun"))


def answer(words: Sequence[str]) -> str | None:
    """What is to be printed in the place of work: help or version; None where there is work to do."""
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    rest = [word for word in words if word not in ("-h", "--help")]
    if len(rest) < len(words):
        check_flags(rest)
        named = [word for word in rest if "=" in word]
        if "profile" in rest:
            return about_profile([word for word in named if not word.startswith(("out=", "trace="))])
        if "learn" in rest:
            return about_learn(named)
        return about_explain(named) if "explain" in rest else about(named)
    return f"embedlab {embedlab.__version__}" if words == ["--version"] else None


def check_flags(words: Sequence[str]) -> argparse.Namespace:
    """The flags and settings of a command line; ConfigError for a flag that Hydra does not have."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        if unknown := re.match(r"unrecognized arguments: (-.*)", message):
            flag = re.split("[ =]", unknown[1])[0]
            raise ConfigError(f"there is no flag {flag}{_unflagged(words)}")
        raise ConfigError(f"{message}; embedlab --help lists the flags.")

    parser.error = refuse
    found: argparse.Namespace = parser.parse_args(list(words))
    return found


def _unflagged(words: Sequence[str]) -> str:
    """What was meant by flags that are settings: `--steps 5` and `--steps=5` are `sampler.steps=5`."""
    said: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word in ("-m", "--multirun"):
            said.append(word)
            continue
        key, sign, value = word.lstrip("-").replace("-", "_").partition("=")
        value = word.partition("=")[2] if sign else next(rest, "")
        if not value or (key not in {s.key for s in settings.known(said)} and settings.meant(key, value, said) is None):
            return "; embedlab --help lists the flags."
        said.append(f"{key}={value}")
    return f"; settings are written without dashes: embedlab {shlex.join(settings.mended(said) or said)}"


def check(words: Sequence[str]) -> None:
    """Refuse what Hydra would answer with a traceback, or not at all; ConfigError."""
    args = check_flags(words)
    if args.experimental_rerun and not Path(args.experimental_rerun).is_file():
        raise ConfigError(f"there is no file '{args.experimental_rerun}' to be run again.")
    if args.shell_completion and not any(re.match("(un)?install=|query=", word) for word in args.overrides):
        raise ConfigError('--shell-completion takes install=SHELL: eval "$(embedlab -sc install=bash)".')
    if args.shell_completion or args.hydra_help or args.info:
        return
    if bare := [word for word in args.overrides if "=" not in word and word[:1] != "~"]:
        raise ConfigError(_no_setting(bare[0], args.overrides))
    parser = OverridesParser.create()
    for override in parser.parse_overrides(args.overrides):
        _check_override(override, words, bool(args.multirun))


def _no_setting(word: str, words: Sequence[str]) -> str:
    """What to say of a word that sets nothing."""
    if word in COMMANDS:
        return f"a command comes first: embedlab {word} …"
    if word == words[0] and (near := nearest(word, list(COMMANDS), 0.7)):
        return f"there is no command '{word}'; try: embedlab {near}"
    if any(sign in word for sign in " .:/") or word in {s.key for s in settings.every()}:
        if word in {s.key for s in settings.every()}:
            return f"'{word}' has no value; give it one: {word}=VALUE."
        key, sign, value = word.partition(":")
        if sign and key in {s.key for s in settings.every()}:
            return f"'{word}' is no setting; a setting is KEY=VALUE: {shlex.quote(f'{key}={value.strip()}')}"
        if " " in word:
            return f"'{word}' is no setting; a setting is KEY=VALUE: {shlex.quote(f'prompt={word}')}"
        return f"'{word}' is no setting; a setting is KEY=VALUE, and embedlab --help lists them."
    at = list(words).index(word)
    texts = {s.key for s in settings.every() if isinstance(s.default, str)}
    if at and words[at - 1].partition("=")[0] in texts:  # the shell has cut a text: prompt=a red fox
        whole = [words[at - 1], *itertools.takewhile(lambda other: "=" not in other, words[at:])]
        return f"'{word}' is no setting; a text of several words is quoted: {shlex.quote(' '.join(whole))}"
    text = ""
    if at + 1 < len(words) and "=" not in words[at + 1]:
        text = " (a text of several words is quoted: 'prompt=a puppy')"
    return f"there is no command '{word}'; there are {listed(COMMANDS)}, and settings: KEY=VALUE{text}."


def _values(override: Override) -> list[Any]:
    value = override._value
    return list(value.list) if isinstance(value, ChoiceSweep) else [value]


def _check_override(override: Override, words: Sequence[str], sweep: bool) -> None:
    """What one setting cannot be."""
    key, value = override.key_or_group, override._value
    said = str(override.input_line)
    if not key:
        raise ConfigError(f"'{said}' has no name before the =; a setting is KEY=VALUE.")
    if key in ("hydra.run.dir", "hydra.sweep.dir") and value in ("", None):
        raise ConfigError(f"{key} is empty; it has to be a folder, or be left out.")
    if key == "prompt" and isinstance(value, int | float) and not isinstance(value, bool):
        raise ConfigError(not_a_prompt(said.partition("=")[2]))  # a cell would know the number: inf of 1e999
    if isinstance(value, RangeSweep) and not value.step:
        raise ConfigError(f"the step of {said} is 0; it has to be another number, such as 1.")
    if sweep and override.is_sweep_override() and override.is_discrete_sweep() and not isinstance(value, ChoiceSweep):
        if key not in PARTS and not isinstance(value, RangeSweep):
            raise ConfigError(f"'{said}' is for choices: glob lists the options of a group, such as sampler=glob(d*).")
        names = list(settings.options(key)) if key in PARTS else []
        if not (list(value.range()) if isinstance(value, RangeSweep) else value.filter(names)):
            fits = f"; {key} has {listed(names)}" if names else ""
            raise ConfigError(f"'{said}' has no values{fits}.")
    if key in PRESETS and override.type == OverrideType.ADD:
        raise ConfigError(f"{key} is a choice of its own; leave out the +: {said.lstrip('+')}")
    if key not in PARTS or override.package is not None or override.type == OverrideType.DEL:
        return
    if override.type == OverrideType.ADD and key != "operators":
        raise ConfigError(f"{key} is there already; choose another option without the +: {said.lstrip('+')}")
    for one in _values(override):
        names = one if isinstance(one, list) and key == "operators" else [one]
        if all(isinstance(name, str | QuotedString) for name in names) or one == {}:
            continue
        if key == "operators" and any(isinstance(name, list | dict) for name in names):
            raise ConfigError(
                "operators takes names; one of your own is added by '+operators.NAME={_target_: PACKAGE.CLASS, …}'."
            )
        wrong = next(name for name in names if not isinstance(name, str | QuotedString))
        known = listed(settings.options(key))
        given = "null" if wrong is None else said.partition("=")[2] if wrong is one else wrong
        silent = "; tracker=silent logs nothing" if key == "tracker" else ""
        raise ConfigError(
            f"{key} is {given}, but it has to be the name of an option: {known}{silent}{settings.advice(words)}"
        )
