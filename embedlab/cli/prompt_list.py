r"""`prompts=@FILE` and `prompts=SET`: a sweep of which each row of a list is a job.

Hydra is given the numbers of the rows as one axis, so that its sweepers, ours and all launchers do with them what they
do with any other; what a row sets is put in the number's place when a launcher gets its jobs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException

from embedlab import readers
from embedlab.cli import settings
from embedlab.cli.prompt_rows import NAME, Columns, Row, check_rows, read_rows
from embedlab.errors import ConfigError, brief, listed, nearest
from embedlab.sweep.config import conf_dir
from embedlab.sweep.overrides import quoted, said, unescaped
from embedlab.sweep.roles import PARTS

AXIS = "+prompts_row"  # of Hydra: the numbers of rows
ABOUT = ("prompts", "prompts.combinatorial", "prompts.wildcards", "prompts.most")
OWN_NAME = "name"  # a column: what the job of a row is called


@dataclass(frozen=True)
class Asked:
    """What a command line says of a list of prompts, the prompt where it is a template, and its other words."""

    about: Mapping[str, str]
    others: tuple[str, ...]
    template: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The words that say it."""
        said = [f"{key}={value}" for key, value in self.about.items()]
        return (*said, *([] if self.template is None else [f"prompt={quoted(self.template)}"]))


def asked(words: Sequence[str]) -> Asked:
    """The words that speak of a list of prompts, taken out of a command line; ConfigError for one that cannot be.

    >>> asked(["seeds=[0]", "prompts=@a, b.txt"])
    Asked(about={'prompts': '@a, b.txt'}, others=('seeds=[0]',), template=None)
    """
    about: dict[str, str] = {}
    others = []
    for word in words:
        key, sign, value = word.partition("=")
        bare = key.lstrip("+")
        if not sign or not (bare == "prompts" or bare.startswith("prompts.")):
            others.append(word)
        elif bare not in ABOUT:
            near = nearest(bare, list(ABOUT))
            better = f"; try: {near}={value}" if near else f"; there are {listed(ABOUT)}."
            raise ConfigError(f"there is no setting '{bare}'{better}")
        elif bare in about and about[bare] != value:
            raise ConfigError(f"{bare} is given twice: {about[bare]} and {value}; leave one out.")
        else:
            about[bare] = value
    template = None
    if _flag(about.get("prompts.combinatorial", "false")):
        for word in [word for word in others if word.startswith("prompt=")]:
            template = _template(word.partition("=")[2])
            others.remove(word)
    return Asked(about, tuple(others), template)


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ConfigError(f"prompts.combinatorial is '{text}'; it has to be true or false.")
    return text.lower() == "true"


def _template(value: str) -> str:
    """The prompt of a command line as a template: without the quotes that Hydra would want around it."""
    if value[:1] not in ("'", '"'):
        return value
    try:
        found = OverridesParser.create().parse_override(f"prompt={value}")._value
    except HydraException:
        return value
    return found.text if isinstance(found, QuotedString) else value


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def rows_of(prompts: Asked) -> list[tuple[str, ...]]:
    """What each row of a list sets, as overrides of Hydra."""
    about = prompts.about
    most = _whole(about.get("prompts.most"))
    columns = _columns()
    rows = read_rows(_file(about["prompts"]), columns) if "prompts" in about else []
    if _flag(about.get("prompts.combinatorial", "false")):
        from embedlab.cli.combinations import Combinations

        folder = about.get("prompts.wildcards")
        combinations = Combinations(
            None if folder is None else readers.path_of(_bare(folder), "prompts.wildcards"), most
        )
        rows = rows or [Row({}, "the prompt")]
        rows = [one for row in rows for one in _expanded(row, prompts.template, combinations)]
        check_rows(rows)
    elif "prompts.wildcards" in about:
        raise ConfigError("prompts.wildcards is read with prompts.combinatorial=true.")
    elif not rows:
        raise ConfigError(f"{prompts.words[0]} is of a list; prompts=@FILE names one.")
    rows = rows[:most]
    for key in dict.fromkeys(key for row in rows for key in row.settings):
        place = next(row.place for row in rows if key in row.settings)
        _check_column(key, place, prompts.others, columns)
    return [tuple(_word(key, value, row.place, columns) for key, value in row.settings.items()) for row in rows]


def _whole(text: str | None) -> int | None:
    if text is None or text == "null":
        return None
    if not re.fullmatch("[0-9]{1,9}", text) or not int(text):
        raise ConfigError(f"prompts.most is '{text}'; it has to be a whole number from 1 on.")
    return int(text)


def _bare(text: str) -> str:
    """A path without the quotes that Hydra would want around it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _file(value: str) -> Path:
    """The file of a list: one of the user's, or of a set in `conf/prompts`."""
    value = _bare(value)
    sets = settings.options("prompts")
    if value.startswith("@"):
        return readers.path_of(_bare(value[1:]), "prompts=@FILE")
    if value in sets:
        return Path(conf_dir(), "prompts", f"{value}.yaml")
    try:
        there = bool(value) and Path(value).is_file()
    except (OSError, ValueError):
        there = False
    hint = f"a file is named with an @: prompts=@{value}" if there else "a file of your own is prompts=@FILE"
    near = nearest(value, list(sets))
    raise ConfigError(
        f"there is no set of prompts {brief(value)}"
        + (f"; try: prompts={near}" if near else "")
        + f"; there are {listed(sets)}, and {hint}."
    )


@cache
def _columns() -> Columns:
    there = [s for s in settings.every() if s.group != "hydra"]
    texts = {s.key for s in there if isinstance(s.default, str) and s.default != "???"} | {"guidance.negative"}
    lists = {s.key for s in there if isinstance(s.default, list)}
    return Columns(frozenset(s.key for s in there), frozenset({*texts, OWN_NAME}), frozenset(lists))


def _expanded(row: Row, template: str | None, combinations: Any) -> list[Row]:
    """A row for each prompt that its template stands for."""
    own = row.settings.get("prompt", template)
    if own is None:
        raise ConfigError(
            f"prompts.combinatorial=true needs a template, and {row.place} has none: prompt='a {{cat|dog}}', or a file."
        )
    if not isinstance(own, str):
        return [row]
    texts = combinations(own, row.place)
    rows = [replace(row, settings={**row.settings, "prompt": text}) for text in texts]
    if OWN_NAME in row.settings and len(rows) > 1:
        named = [f"{row.settings[OWN_NAME]} {n}" for n in range(1, len(rows) + 1)]
        rows = [replace(one, settings={**one.settings, OWN_NAME: name}) for one, name in zip(rows, named, strict=True)]
    return rows


def _check_column(key: str, place: str, words: Sequence[str], columns: Columns) -> None:
    """Refuse a column that is no setting, nor a key of the user's own that the command uses, nor given beside it."""
    if any(word.lstrip("+").partition("=")[0] == key for word in words):
        raise ConfigError(f"{key} is given twice: by the list ({place}) and by the command line; leave one out.")
    first, _, rest = key.partition(".")
    known = key in columns.settings or any(key.startswith(f"{one}.") for one in columns.settings)
    known |= key in (OWN_NAME, "experiment", *PARTS) or (first == "operators" and rest.count(".") > 0)
    if NAME.fullmatch(key) and (known or _is_used(key, words)):
        return
    meant = settings.meant(key, "", words) if NAME.fullmatch(key) else None
    better = f" (is {meant.key} meant?)" if isinstance(meant, settings.Setting) else ""
    example = f"'prompt=a ${{{key if NAME.fullmatch(key) else 'animal'}}}'"
    raise ConfigError(
        f"{place} sets {brief(key)}, which is no setting{better}; a column is a setting, {OWN_NAME}, or a key of your "
        f"own that another setting uses: {example}."
    )


def _is_used(key: str, words: Sequence[str]) -> bool:
    """Whether a command line, or the experiment that it chooses, takes a value from a key."""
    texts = list(words)
    for word in words:
        name, _, value = word.partition("=")
        if name == "experiment" and value in settings.options("experiment"):
            texts.append(Path(conf_dir(), "experiment", f"{value}.yaml").read_text(encoding="utf-8"))
    return any(re.search(rf"\$\{{\s*{re.escape(key)}\s*\}}", text) for text in texts)


# ── overrides ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _word(key: str, value: Any, place: str, columns: Columns) -> str:
    """The override that sets a value; a key of the user's own is added."""
    first = key.partition(".")[0]
    own = key not in columns.settings and not any(key.startswith(f"{one}.") for one in columns.settings)
    own &= first not in (*PARTS, "experiment")
    return f"{'+' if own else ''}{key}={said(value, f'{place}: {key}')}"


def axis(words: Sequence[str], rows: int) -> str:
    """The override that makes a sweep of so many rows; it keeps the words that asked for them.

    >>> axis(["prompts=@a.txt"], 3), typed([axis(["prompts=@a.txt"], 3), "seeds=[0]"])
    ("+prompts_row=tag('prompts=@a.txt',choice(0,1,2))", ['prompts=@a.txt', 'seeds=[0]'])
    """
    tags = ",".join(quoted(word) for word in words)
    return f"{AXIS}=tag({tags},choice({','.join(map(str, range(rows)))}))"


def typed(words: Sequence[str]) -> list[str]:
    """A command line as it was typed, with the words that an axis keeps in the place of it."""
    found: list[str] = []
    for word in words:
        if word.startswith(f"{AXIS}=tag("):
            tags = OverridesParser.create().parse_override(word)._value.tags
            found += sorted(map(unescaped, tags))
        else:
            found.append(word)
    return found


def with_rows(overrides: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The overrides of a job, with what its row sets in the place of the row's number.

    >>> with_rows(["+prompts_row=1", "sampler.steps=2"], [["prompt='a'"], ["prompt='b'"]])
    ["prompt='b'", 'sampler.steps=2']
    """
    if not rows:
        return list(overrides)
    found: list[str] = []
    for line in overrides:
        key, _, number = line.partition("=")
        found += rows[int(number)] if key == AXIS else [line]
    return found
