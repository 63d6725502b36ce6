"""A state → a command, the YAML of an experiment, Python, and a sweep over one of its settings."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

import embedlab
from embedlab.cell import Cell
from embedlab.engines import Engine
from embedlab.models import Source
from embedlab.play.form import Form
from embedlab.play.schedules import DURING
from embedlab.play.state import State
from embedlab.schedule import format_number
from embedlab.sweep.config import escaped
from embedlab.sweep.overrides import said, unescaped

OWN = ("prompt", "seeds", "at_once", "engine", "operators", "tracker")  # words that the page says itself
GROUPS = ("model", "sampler", "encoder", "guidance", "start", "attention", "metrics", "tool")
PLAIN = r"[A-Za-z]([\w. ]*\w)?"
WORDS = ("null", "true", "false", "nan", "inf")  # which Hydra takes for something else than a text
TARGET_DURING = "embedlab.schedule.During"
SWEPT = 5  # values of a slider
WIDE = 88  # letters of a line of Python


@dataclass(frozen=True)
class Studied:
    """What a page was opened with: the words of its command, its model, the cell that states change, its engine."""

    words: tuple[str, ...]
    source: Source
    base: Cell
    engine: Engine
    forms: Mapping[str, Form]
    chosen: str = ""  # the engine's words, where it is not that of the command


def slots(state: State, forms: Mapping[str, Form]) -> tuple[list[str], list[tuple[str, str, Mapping[str, Any]]]]:
    """The operators that a command chooses by name, and all with their slot, target and settings.

    A name is chosen once; from the first that comes again on, slots are added with a target of their own.

    >>> from embedlab.play.form import forms
    >>> from embedlab.play.state import Edit
    >>> once, every = slots(State("a cat", (Edit("scale", {"by": 2}), Edit("scale", {"by": 3}))), forms())
    >>> once, [(slot, target) for slot, target, _ in every]
    (['scale'], [('scale', ''), ('scale_2', 'embedlab.operators.Scale')])
    """
    once: list[str] = []
    every: list[tuple[str, str, Mapping[str, Any]]] = []
    counts: dict[str, int] = {}
    for edit in state.edits:
        form = forms[edit.operator]
        counts[form.name] = counts.get(form.name, 0) + 1
        chosen = counts[form.name] == 1 and len(once) == len(every) and edit.during is None
        name = form.name if counts[form.name] == 1 else f"{form.name}_{counts[form.name]}"
        if chosen:
            once.append(name)
        elif name == form.name:
            name = f"{form.name}_1"
        settings = told(edit.settings, form, chosen)
        if edit.during is not None:
            every.append((name, TARGET_DURING, {"operator": {"_target_": form.target, **settings}, **edit.during}))
        else:
            every.append((name, "" if chosen else form.target, settings))
    return once, every


def told(settings: Mapping[str, Any], form: Form, chosen: bool = True) -> dict[str, Any]:
    """The settings that have to be said: those that the YAML file of an operator does not say, or else its class."""
    usual = form.defaults if chosen else {one.name: one.default for one in dataclasses.fields(form.kind)}
    return {name: value for name, value in settings.items() if name not in usual or not same(value, usual[name])}


def words_of(state: State, studied: Studied) -> list[str]:
    """The words of a command line that makes the pictures of a state."""
    once, every = slots(state, studied.forms)
    words = [word for word in studied.words if word.lstrip("+~").split("=")[0].split(".")[0] not in OWN]
    words += [word for word in studied.words if word.split("=")[0].startswith("engine") and not studied.chosen]
    words += [studied.chosen] if studied.chosen else []
    words += (
        [f"prompt={spelled(state.prompt)}", f"operators=[{','.join(once)}]"]
        if state.edits
        else [f"prompt={spelled(state.prompt)}"]
    )
    for name, target, settings in every:
        if target:
            words.append(f"+operators.{name}={spelled({'_target_': target, **settings})}")
        else:
            words += [f"operators.{name}.{key}={spelled(value)}" for key, value in settings.items()]
    words += [f"seeds=[{','.join(map(str, state.seeds))}]", f"at_once={len(state.seeds)}"]
    return words


def command(state: State, studied: Studied) -> str:
    """The command that makes the pictures of a state, the unedited ones beside them."""
    return shlex.join(["embedlab", *words_of(state, studied)])


def sweep(
    state: State,
    studied: Studied,
    edit: int,
    setting: str,
    values: Sequence[float],
    at: tuple[str, int] | None = None,
) -> str:
    """The command that tries values of one setting of one edit; where it changes over time, of one of its numbers.

    `at` says which: `("values", 1)` is the second value, `("at", 0)` the first time; of `during` it is a key.
    """
    _, every = slots(state, studied.forms)
    changed = state.edits[edit]
    key = f"operators.{every[edit][0]}."
    key += "operator." if changed.during is not None and setting != DURING else ""
    words = words_of(state, studied)
    tried = list(map(format_number, values))
    if at is None:
        key += setting
        words = [word for word in words if word.split("=")[0] != key]
    elif setting == DURING:
        key += at[0]
    else:
        part, n = at
        key += f"{setting}.{part}"
        now = list(changed.settings[setting][part])
        tried = [spelled([*now[:n], value, *now[n + 1 :]]) for value in values]
    return shlex.join(["embedlab", "-m", *words, f"{key}={','.join(tried)}"])


def spread(low: float, high: float, whole: bool = False) -> list[float]:
    """Values of a slider from end to end, each once.

    >>> spread(0, 1), spread(0, 2, whole=True)
    ([0, 0.25, 0.5, 0.75, 1], [0, 1, 2])
    """
    values = [low + (high - low) * n / (SWEPT - 1) for n in range(SWEPT)]
    shown = [round(value) if whole else float(f"{value:.6g}") for value in values]
    return list(dict.fromkeys(int(value) if float(value).is_integer() else value for value in shown))


def experiment(state: State, studied: Studied) -> str:
    """The file of an experiment, `conf/experiment/NAME.yaml`, that makes the pictures of a state."""
    once, every = slots(state, studied.forms)
    own = [word for word in studied.words if word.split("=")[0].split(".")[0].lstrip("+~") not in OWN]
    own += [studied.chosen] if studied.chosen else [w for w in studied.words if w.startswith("engine")]
    groups = {key: value for key, _, value in (word.partition("=") for word in own) if key in (*GROUPS, "engine")}
    values: dict[str, Any] = {}
    for key, _, value in (word.lstrip("+").partition("=") for word in own):
        if key not in groups:
            put(values, key.split("."), meant(value_of(value)))
    defaults: list[dict[str, Any]] = [{f"override /{group}": option} for group, option in groups.items()]
    if once:
        defaults.append({"override /operators": once})
    body: dict[str, Any] = {"defaults": defaults} if defaults else {}
    body |= {"prompt": escaped(state.prompt), "seeds": list(state.seeds), "at_once": len(state.seeds), **values}
    if every:
        body["operators"] = {
            name: ({"_target_": target} if target else {}) | meant(dict(settings)) for name, target, settings in every
        }
    head = "# @package _global_\n# What does this edit do? (made with embedlab play)\n#   embedlab experiment=NAME\n"
    return head + str(yaml.safe_dump(body, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110))


def value_of(text: str) -> Any:
    """What a word of a command line sets.

    >>> value_of("{s_churn:2}"), value_of("'a (dog), 1'")
    ({'s_churn': 2}, 'a (dog), 1')
    """
    value = OverridesParser.create().parse_override(f"value={text}").value()
    return unescaped(value) if isinstance(value, str) else value


def put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a value deep inside of mappings."""
    for key in path[:-1]:
        values = values.setdefault(key, {})
    values[path[-1]] = value


def meant(value: Any) -> Any:
    """A value in which a `${` is text, as YAML says it."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, Mapping):
        return {key: meant(one) for key, one in value.items()}
    return [meant(one) for one in value] if isinstance(value, list | tuple) else value


def spelled(value: Any) -> str:
    """A value in Hydra's syntax, with no more quotes than it needs.

    >>> spelled("A picture of a puppy"), spelled("a (red) cat"), spelled(["null", {"word": "a", "nth": 2}])
    ('A picture of a puppy', '"a (red) cat"', '["null",{word:a,nth:2}]')
    """
    if isinstance(value, Mapping):
        pairs = ",".join(f"{key}:{spelled(one)}" for key, one in value.items())
        return f"{{{pairs}}}" if said(value, "a setting") else ""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(spelled, value))}]"
    if isinstance(value, str) and not re.search(r"[\"\\$]", value):
        return value if re.fullmatch(PLAIN, value) and value.lower() not in WORDS else f'"{value}"'
    return said(value, "a setting")


def python(state: State, studied: Studied, cell: Cell) -> str:
    """Python that makes the pictures of a state, unedited and edited."""
    source = settings_of(studied.source, ("name",))
    load = f"lab.load({code(studied.source.name)})" if not source else f"{code(studied.source)}.load()"
    lines = ["import embedlab as lab", "", f"model = {load}"]
    engine = studied.engine
    if engine.name != "eager" and not cell.watched:
        lines.append(f"model = lab.with_engine(model, {code(engine)})")
    rest = settings_of(cell, ("prompt", "operators"))
    parts = [code(cell.prompt)]
    if cell.operators:
        inner = ",\n".join(wrapped(one, "        ") for one in cell.operators)
        parts.append(f"[\n{inner},\n    ]")
    parts += [f"{name}={code(value)}" for name, value in rest.items()]
    lines += ["cell = lab.Cell(", *(f"    {part}," for part in parts), ")"]
    seeds, many = list(state.seeds), len(state.seeds)
    lines.append(f"(edited,) = lab.render(model, [cell], seeds={seeds}, at_once={many})")
    lines.append(f"(unedited,) = lab.render(model, [cell.baseline()], seeds={seeds}, at_once={many})")
    lines += [
        "for seed, picture in zip(edited.seeds, lab.to_pil(edited.pictures)):",
        '    picture.save(f"seed-{seed}.png")',
    ]
    return "\n".join(lines) + "\n"


def wrapped(value: Any, indent: str) -> str:
    """A value as Python after an indent; a dataclass that is too long for a line has a line for each setting."""
    line = f"{indent}{code(value)}"
    if len(line) <= WIDE or not dataclasses.is_dataclass(value) or isinstance(value, type):
        return line
    inner = "".join(f"{wrapped_setting(name, one, indent)},\n" for name, one in settings_of(value).items())
    return f"{indent}{named(value)}(\n{inner}{indent})"


def wrapped_setting(name: str, value: Any, indent: str) -> str:
    """A setting of a dataclass on a line of its own, or on several."""
    return f"{indent}    {name}={wrapped(value, indent + '    ').lstrip()}"


def named(value: Any) -> str:
    """The class of a value as Python says it."""
    name = type(value).__name__
    return f"{'lab' if name in embedlab.__all__ else type(value).__module__}.{name}"


def settings_of(value: Any, without: Sequence[str] = ()) -> dict[str, Any]:
    """The settings of a dataclass that are not its defaults."""
    found = {}
    for field in dataclasses.fields(value):
        if not field.init or field.name in without:
            continue
        own = getattr(value, field.name)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING or not same(own, default):
            found[field.name] = own
    return found


def same(a: Any, b: Any) -> bool:
    """Whether two settings say the same, be one a list and the other a tuple."""
    return (a == b and type(a) is type(b)) or (
        isinstance(a, list | tuple) and isinstance(b, list | tuple) and list(a) == list(b)
    )


def code(value: Any) -> str:
    """A value as Python.

    >>> from embedlab import Interpolate, Sampler
    >>> code(Interpolate("puppy", "skunk", weight=0.75)), code(Sampler(steps=10, keep=[1]))
    ("lab.Interpolate(rows='puppy', toward='skunk', weight=0.75)", 'lab.Sampler(steps=10, keep=[1])')
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        said = ", ".join(f"{key}={code(one)}" for key, one in settings_of(value).items())
        return f"{named(value)}({said})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{code(key)}: {code(one)}" for key, one in value.items()) + "}"
    if isinstance(value, tuple) and value and all(isinstance(one, tuple) and len(one) == 2 for one in value):
        return code(dict(value))  # as settings that were a mapping are kept
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(code, value)) + "]"
    return repr(value)
