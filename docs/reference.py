"""The reference of the site, written from the code: public names by room, settings by group, commands with their help.

Nothing of it stands in the tree: a docstring, a comment in conf/ or a command's help is where it is said.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import embedlab
from embedlab import errors
from embedlab.cli import settings, usage
from embedlab.sweep.config import conf_dir
from embedlab.sweep.roles import PARTS, PRESETS

ROOT = Path(__file__).parent.parent
Pages = dict[str, str]
FENCE = "`" * 3
TITLES = {  # of rooms, in the order of the arrow
    "models": "Models",
    "clip": "Text encoders of CLIP",
    "prompt": "Tokens",
    "selector": "Which rows",
    "embeddings": "Embeddings",
    "operators": "Operators: edits of rows",
    "encoder": "Conditioning",
    "schedule": "Settings that change during sampling",
    "attention": "Attention",
    "guidance": "Guidance",
    "sampler": "Sampling",
    "starting": "Starts",
    "images": "Images",
    "cell": "Cells",
    "rendering": "Rendering",
    "metrics": "Scores",
    "detector": "The detector",
    "explanation": "Explanations",
    "export": "For other tools",
    "engines": "Engines",
    "learning": "Learning a word",
    "structure": "Inside of a model",
    "sweep": "Jobs and sweeps",
    "tracker": "Trackers",
    "view": "Looking at a sweep",
    "display": "Shown in a notebook",
    "play": "The page to play on",
    "errors": "Errors",
}


def pages() -> Pages:
    """All pages of the reference, by their place in the source tree."""
    return {**python_pages(), **settings_pages(), "docs/reference/commands.md": commands_page()}


# ── Python ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def rooms() -> dict[str, list[str]]:
    """The public names of each room, rooms in the order of the arrow."""
    found: dict[str, list[str]] = {}
    for name in embedlab.__all__:
        home = embedlab._HOME[name]  # which room a name lives in is said there and nowhere else
        found.setdefault(home.split(".")[0], []).append(name)
    order = list(TITLES)
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0]) if item[0] in order else 99, item[0])))


def python_pages() -> Pages:
    """A page a room, and one that lists them."""
    made: Pages = {}
    rows, names = [], []
    for room, inside in rooms().items():
        title = TITLES.get(room, room)
        objects = [(name, getattr(embedlab, name)) for name in inside]
        parts = [f"# {title}", _about_room(room), *(documented(name, value) for name, value in objects)]
        if room == "errors":
            parts += [documented(name, value, "embedlab.errors") for name, value in _errors()]
        made[f"docs/reference/python/{room}.md"] = "\n\n".join(parts) + "\n"
        links = ", ".join(f"{{py:obj}}`{name} <embedlab.{name}>`" for name in inside)
        rows.append(f"| [{title}](python/{room}.md) | {links} |")
        names.append(f"python/{room}")
    intro = (
        f"The {len(embedlab.__all__)} public names of `embedlab`, by the part of the way from text to scores that they "
        "belong to. All are imported from the package itself: `import embedlab as lab`, then `lab.render`. "
        "Each example is run by the tests. A type that is written as `Setting[…]` may be a value, or a schedule of "
        "values ([schedules.md](../schedules.md))."
    )
    table = "| part | names |\n|---|---|\n" + "\n".join(rows)
    made["docs/reference/python.md"] = f"# Python\n\n{intro}\n\n{table}\n\n{toctree(names)}\n"
    return made


def _about_room(room: str) -> str:
    """What the module of a room says of itself; nothing where it says nothing."""
    text = inspect.getdoc(import_module(f"embedlab.{room}")) or ""
    return prose(text.split(">>>")[0].split("├")[0]) if room != "errors" else "What can be wrong, as one small tree."


def _errors() -> Iterator[tuple[str, Any]]:
    """The kinds of errors, the base first."""
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, errors.EmbedlabError) and value is not errors.EmbedlabError:
            yield name, value


def documented(name: str, value: Any, home: str = "embedlab") -> str:
    """A public name as a Markdown section that Sphinx can search and link to."""
    kind = "class" if inspect.isclass(value) else "function" if callable(value) else "data"
    if inspect.isclass(value) and issubclass(value, Exception):
        kind, shown = "exception", name
    else:
        shown = f"{name}{signature(value)}"
    body = [docstring(inspect.getdoc(value) or "", _parameters(value))]
    if inspect.isclass(value) and kind == "class":
        body += [_member(one, inner) for one, inner in _members(value)]
    nested = "\n".join(body)
    return f"## {name}\n\n{'`' * 5}{{py:{kind}}} {home}.{shown}\n{nested}\n{'`' * 5}"


def _members(value: type) -> Iterator[tuple[str, Any]]:
    """Methods and properties of a class's own that say what they do."""
    for name, inner in vars(value).items():
        what = inner.__func__ if isinstance(inner, classmethod | staticmethod) else inner
        documented_here = isinstance(what, property) or inspect.isfunction(what) or hasattr(what, "func")
        if name[0] != "_" and documented_here and getattr(what, "__doc__", None):
            yield name, inner


def _member(name: str, inner: Any) -> str:
    """One method or property."""
    what = inner.__func__ if isinstance(inner, classmethod | staticmethod) else inner
    function = what.fget if isinstance(what, property) else getattr(what, "func", what)
    kind = "method" if inspect.isfunction(what) else "property"
    shown = signature(function, drop=not isinstance(inner, staticmethod)) if kind == "method" else ""
    option = ":classmethod:\n\n" if isinstance(inner, classmethod) else ""
    says = docstring(inspect.getdoc(function) or "", _parameters(function))
    return f"\n{'`' * 4}{{py:{kind}}} {name}{shown}\n{option}{says}\n{'`' * 4}"


def signature(value: Any, drop: bool = False) -> str:
    """A signature, types as they are written, defaults as they are made."""
    if getattr(value, "_is_protocol", False):
        return ""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    made = {f.name: f.default_factory for f in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else {}
    parameters = []
    for position, parameter in enumerate(found.parameters.values()):
        if drop and not position:
            continue
        changed = parameter
        factory = made.get(parameter.name, dataclasses.MISSING)
        if factory is not dataclasses.MISSING and parameter.default is not inspect.Parameter.empty:
            changed = changed.replace(default=_Shown(f"{getattr(factory, '__name__', 'made').strip('<>')}()"))
        elif parameter.default is not inspect.Parameter.empty and not isinstance(
            parameter.default, int | float | str | tuple | bool | None
        ):
            changed = changed.replace(default=_Shown(getattr(parameter.default, "__name__", repr(parameter.default))))
        if parameter.annotation is not inspect.Parameter.empty:
            changed = changed.replace(annotation=_Shown(_type(parameter.annotation)))
        parameters.append(changed)
    answer = found.return_annotation
    told = _Shown(_type(answer)) if answer not in (inspect.Signature.empty, None, "None") else inspect.Signature.empty
    return str(found.replace(parameters=parameters, return_annotation=told))


class _Shown:
    """A piece of a signature, as it is to be read."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _type(annotation: Any) -> str:
    """An annotation as it was written."""
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _parameters(value: Any) -> frozenset[str]:
    """The names of what is handed in."""
    try:
        return frozenset(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return frozenset()


def docstring(text: str, names: frozenset[str] = frozenset()) -> str:
    """A docstring as Markdown: its prose, its settings (`names`) as a list, its examples as code."""
    parts: list[str] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if block.lstrip().startswith(">>>"):
            parts.append(f"{FENCE}python\n{block}\n{FENCE}" if ">>>" in block else block)
        elif "├" in block or "└" in block:
            parts.append(f"{FENCE}text\n{block}\n{FENCE}")
        elif block.startswith("    "):
            parts.append(f"{FENCE}text\n{inspect.cleandoc(block)}\n{FENCE}")
        else:
            parts.append(prose(block, names))
    return "\n\n".join(parts)


def prose(text: str, names: frozenset[str] = frozenset()) -> str:
    """Lines of a paragraph; from one that begins with `name: ` of a setting on they are a list."""
    lines: list[str] = []
    for line in text.splitlines():
        field = re.match(r"(\w+(?:, \w+)*): (.*)", line)
        if field and set(field[1].split(", ")) <= names:
            start = "- " if _in_list(lines) else "\n- "
            bold = ", ".join(f"**{name}**" for name in field[1].split(", "))
            lines.append(f"{start}{bold}: {escaped(field[2])}")
        else:
            lines.append(f"{'  ' if _in_list(lines) else ''}{escaped(line.strip())}")
    return re.sub(r"^Raises ", "**Raises** ", "\n".join(lines).strip("\n"), flags=re.M)


def _in_list(lines: list[str]) -> bool:
    return any(line.lstrip("\n").startswith("- ") for line in lines)


def escaped(text: str) -> str:
    """Text in which Markdown finds no signs of its own outside of backticks."""
    pieces = re.split(r"(``[^`]+``|`[^`]+`)", text)
    plain = [re.sub(r"([*_<>\[\]|{}#])", r"\\\1", piece) if n % 2 == 0 else piece for n, piece in enumerate(pieces)]
    return "".join(plain)


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def settings_pages() -> Pages:
    """A page a group of options, and one of the settings that stand alone."""
    made: Pages = {}
    rows, names = [], []
    for group in (*PARTS, "learn", "prompts", *PRESETS, "hydra/launcher"):
        options = settings.options(group)
        place = f"settings/{group.replace('/', '-')}"
        parts = [f"# Settings: {group}", _how(group, list(options))]
        for option, says in options.items():
            parts += [
                f"## {group}={option}" if group != "operators" else f"## {option}",
                escaped(says) or "As it stands.",
            ]
            if group not in ("prompts", *PRESETS):
                parts.append(_table(settings.of_option(group, option)))
            else:
                text = Path(conf_dir(), group, f"{option}.yaml").read_text(encoding="utf-8")
                parts.append(f"{FENCE}yaml\n{text.rstrip()}\n{FENCE}")
        made[f"docs/reference/{place}.md"] = "\n\n".join(part for part in parts if part) + "\n"
        rows.append(f"| [{group}]({place}.md) | {', '.join(f'`{option}`' for option in options)} |")
        names.append(place)
    intro = (
        "A command sets a value with `KEY=VALUE`, and chooses an option of a group with `GROUP=OPTION`. Each group has "
        "a page with its options and their settings, which is written from the files of `conf/`. `null` means nothing, "
        "and `???` has to be given. `embedlab --help` shows the same in a terminal."
    )
    groups = "| group | options |\n|---|---|\n" + "\n".join(rows)
    alone = f"## Settings that belong to no group\n\n{_table(settings.alone())}"
    parts = ["# Settings", intro, f"## Groups\n\n{groups}", alone, toctree(names)]
    made["docs/reference/settings.md"] = "\n\n".join(parts) + "\n"
    return made


def _how(group: str, options: list[str]) -> str:
    """How an option of a group is chosen."""
    if group == "operators":
        return (
            "Chosen as a list, applied in its order: `operators=[scale,shift]`. "
            "What each does: [operators.md](../../operators.md)."
        )
    if group == "learn":
        return "Settings of the command `embedlab learn`."
    if group == "prompts":
        return f"Lists of prompts that ship, a job each: `prompts={options[0]}`. A list of your own: `prompts=@FILE`."
    if group == "experiment":
        return f"The studies: `experiment={options[0]}`. What was seen in each: [studies.md](../../studies.md)."
    default = settings.chosen([]).get(group, [])
    left_out = f" Left out, it is `{group}={default[0]}`." if default and default[0] in options else ""
    return f"Chosen by `{group}=OPTION`, as in `{group}={options[-1]}`.{left_out}"


def _table(found: tuple[settings.Setting, ...]) -> str:
    """Settings with their defaults and comments."""
    if not found:
        return "It has no settings."
    rows = [f"| `{s.key}` | {_value(s.default)} | {escaped(s.comment)} |" for s in _flat(found)]
    return "| setting | left out | |\n|---|---|---|\n" + "\n".join(rows)


def _flat(found: Iterable[settings.Setting]) -> Iterator[settings.Setting]:
    """Settings; of one that is a mapping those inside, with what the option's file says of them."""
    for setting in found:
        if not (isinstance(setting.default, dict) and setting.default):
            yield setting
            continue
        text = (Path(conf_dir()) / setting.group / f"{setting.option}.yaml").read_text(encoding="utf-8")
        for name, value in setting.default.items():
            said = re.search(rf"^ *{re.escape(str(name))}:[^#\n]*#\s*(.+)$", text, re.MULTILINE)
            inner = settings.Setting(f"{setting.key}.{name}", value, said[1] if said else "", setting.option)
            yield from (inner,) if str(name)[0] != "_" and not isinstance(value, dict) else _flat((inner,))


def _value(value: Any) -> str:
    text = settings.as_text(value)
    return f"`{text}`".replace("|", "\\|") if text else ""


# ── commands ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def helps() -> Mapping[str, str]:
    """What each command prints when it is asked for help."""
    return {"": _said(lambda: print(usage.about())), **{name: _help(name) for name in usage.COMMANDS}}


def _help(name: str) -> str:
    module = usage.COMMANDS[name][0]
    if module:
        return _said(lambda: import_module(module).main(["--help"]))
    return _said(lambda: print(usage.answer([name, "--help"])))


def _said(action: Callable[[], Any]) -> str:
    """What is printed by an action that may end the program."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        action()
    return out.getvalue().rstrip()


def commands_page() -> str:
    """All commands, each with its help."""
    parts = [
        "# Commands",
        "`embedlab SETTINGS` draws. A command in front of the settings does something else. Each help is as printed.",
    ]
    for name, text in helps().items():
        says = usage.COMMANDS[name][1] if name else "draw, or with -m sweep"
        parts += [
            f"## embedlab {name}".rstrip(),
            f"{says[0].upper()}{says[1:]}.",
            f"{{.help}}\n{FENCE}text\n{text}\n{FENCE}",
        ]
    return "\n\n".join(parts) + "\n"


def toctree(names: list[str]) -> str:
    """Pages below a page."""
    return f"{FENCE}{{toctree}}\n:hidden:\n\n" + "\n".join(names) + f"\n{FENCE}"
