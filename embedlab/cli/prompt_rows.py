"""A list of prompts from a file: text, CSV, TSV, YAML or JSON → rows of settings, each with its place in the file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException

from embedlab import readers
from embedlab.errors import ConfigError, brief, first_line

LARGEST = 64 * 2**20  # bytes of a list
NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*", re.ASCII)  # of a column


SIGNS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}  # between cells


@dataclass(frozen=True)
class Row:
    """Settings of one job by key, and where they stand: `line 3 of 'animals.csv'`."""

    settings: dict[str, Any]
    place: str = field(compare=False)


@dataclass(frozen=True)
class Columns:
    """What the columns of a list may be."""

    settings: frozenset[str]
    texts: frozenset[str]  # of these, and of no settings, which are read as they stand
    lists: frozenset[str]


def read_rows(path: Path, columns: Columns) -> list[Row]:
    """The rows of a file, at least one; ConfigError says what is wrong with it, and where.

    A text file has one prompt a line, as it stands; lines of blanks are none. CSV, TSV, YAML and JSON are known by
    their ending; a column of the first two is a setting, an empty cell leaves that as it is.
    """
    content = readers.read_bytes(path, LARGEST)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"'{path}' is not UTF-8: byte {error.start} is {content[error.start]:#04x}; save it as UTF-8."
        ) from None
    kind = path.suffix.lower()
    if kind in (".yaml", ".yml", ".json"):
        rows = list(_of_yaml(text, path, columns))
    elif kind in (".csv", ".tsv"):
        rows = list(_of_table(text, path, columns))
    else:
        lines = enumerate(re.split("\r\n|\n|\r", text), 1)
        rows = [Row({"prompt": line}, f"line {n} of '{path}'") for n, line in lines if line.strip()]
    if not rows:
        raise ConfigError(f"'{path}' holds no prompt: it is empty.")
    check_rows(rows)
    return rows


def check_rows(rows: Sequence[Row]) -> None:
    """Refuse a row that stands there twice, and one that OmegaConf cannot hold."""
    known: dict[str, str] = {}
    for row in rows:
        if "???" in row.settings.values():
            raise ConfigError(
                f"{row.place} is '???', which stands for a value that is still to be given; leave it out."
            )
        said = repr(sorted(row.settings.items(), key=lambda item: item[0]))
        if (other := known.setdefault(said, row.place)) is not row.place:
            raise ConfigError(f"{row.place} says what {other} says; leave one of them out.")


def _of_table(text: str, path: Path, columns: Columns) -> Iterator[Row]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    semicolons = ";" in first and "," not in first  # a spreadsheet's, where the comma is a number's point
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if semicolons else ","
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    parser = OverridesParser.create()
    heads: list[str] = []
    while True:
        begin = lines.line_num + 1
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            raise ConfigError(f"line {begin} of '{path}' cannot be read: {error}.") from None
        if not any(cell.strip() for cell in cells):
            continue
        if not heads:
            heads = [cell.strip() for cell in cells]
            _check_heads(heads, begin, path)
            continue
        if len(cells) > len(heads):
            raise ConfigError(
                f"line {begin} of '{path}' has {len(cells)} cells for {len(heads)} columns; a cell that holds "
                f'{SIGNS[delimiter]} is quoted: "…".'
            )
        settings = {
            key: _value(key, cell, columns, parser) for key, cell in zip(heads, cells, strict=False) if cell.strip()
        }
        yield Row(settings, f"line {begin} of '{path}'")


def _check_heads(heads: Sequence[str], line: int, path: Path) -> None:
    where = f"line {line} of '{path}' names its columns, and"
    for n, head in enumerate(heads, 1):
        if not head:
            raise ConfigError(f"{where} column {n} has no name; it has to be a setting, such as prompt.")
        if heads.index(head) != n - 1:
            raise ConfigError(f"{where} '{head}' is there twice; leave one out.")


def _value(key: str, cell: str, columns: Columns, parser: OverridesParser) -> Any:
    """A cell as the command line would read it, but that a text needs no quotes."""
    if key in columns.texts:
        return cell
    text = cell.strip()
    if key in columns.lists and text[:1] not in "[{" and text != "null":
        text = f"[{text}]"
    try:
        override = parser.parse_override(f"key={text}")
    except HydraException:
        return cell
    value = override._value
    if override.is_sweep_override() or isinstance(value, str | QuotedString):
        return cell
    if key not in columns.settings and str(value) != cell:  # 007 in a prompt is 007
        return cell
    return override.value()


def _of_yaml(text: str, path: Path, columns: Columns) -> Iterator[Row]:
    try:
        if path.suffix.lower() == ".json":
            found = readers.parsed(text) if text.strip() else None
        else:
            found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except readers.JSONError as error:
        raise ConfigError(f"'{path}' cannot be read: {error}.") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1} of " if mark else ""
        why = getattr(error, "problem", None) or first_line(error)
        raise ConfigError(f"{where}'{path}' is no YAML: {why}.") from None
    if found is None:
        return
    _check_size(found, path)
    if not isinstance(found, list):
        raise ConfigError(f"'{path}' is {brief(found)}; it has to be a list: of prompts, or of settings by their keys.")
    for n, one in enumerate(found, 1):
        place = f"item {n} of '{path}'"
        settings = dict(_flat(one, "", place, columns)) if isinstance(one, dict) else {"prompt": one}
        for key in ("prompt", "name"):
            if key in settings and not isinstance(settings[key], str) and not isinstance(settings[key], dict):
                said = settings[key]
                raise ConfigError(f'{place} has the {key} {brief(said)}, which is no text; quote it: "{said}".')
        if not settings:
            raise ConfigError(f"{place} is empty; leave it out.")
        yield Row(settings, place)


def _check_size(value: Any, path: Path) -> None:
    """Refuse what YAML's aliases make endless, or endlessly large, of a small file."""
    level, depth, count = [value], 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > readers.DEEPEST or count > LARGEST // 64:
            raise ConfigError(f"'{path}' is nested without end, or has more than {LARGEST // 64} values.")
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = list(islice((part for parts in inner for part in parts), LARGEST // 64 + 1))


def _flat(value: dict[Any, Any], at: str, place: str, columns: Columns) -> Iterator[tuple[str, Any]]:
    """Nested settings by their keys."""
    for key, inner in value.items():
        whole = f"{at}{key}"
        if not NAME.fullmatch(whole):
            raise ConfigError(f"{place} has the key {brief(key)}; it has to be a setting, such as prompt.")
        if isinstance(inner, dict) and whole not in columns.settings and "_target_" not in inner:
            yield from _flat(inner, f"{whole}.", place, columns)
        else:
            yield whole, inner
