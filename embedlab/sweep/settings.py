"""The settings there are, read from the YAML files of `conf`: their defaults, and the comments that explain them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from embedlab.sweep.roles import PARTS

HERE = Path(__file__).resolve().parent.parent


def conf_dir() -> str:
    """Where the configs are: beside the package in a checkout, inside it when installed."""
    beside = HERE.parent / "conf"
    return str(beside if (beside / "config.yaml").is_file() else HERE / "conf")


@dataclass(frozen=True)
class Setting:
    """One value that can be set: its key, what it is when left out (`???`: it has to be given), and its comment."""

    key: str
    default: Any
    comment: str = ""
    option: str = ""  # of the group that it belongs to

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rsplit(".", 1)[-1]

    @property
    def group(self) -> str:
        """The first part of its key; empty where it stands alone."""
        return self.key.split(".")[0] if "." in self.key else ""

    def word(self, value: str) -> str:
        """The word of a command line that sets it.

        >>> Setting("seeds", [0, 1]).word("3"), Setting("size", None).word("64")
        ('seeds=[3]', 'size=64')
        """
        return f"{self.key}=[{value}]" if isinstance(self.default, list) and value[:1] != "[" else f"{self.key}={value}"


# ── what there is ─────────────────────────────────────────────────────────────────────────────────────────────────


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, str], str]:
    """A YAML file's values, the comments behind its keys, and its first line of comment."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^ *(\w+):(?:[^#\n]*?)\s#\s*(.+)$", text, re.MULTILINE)
    head = re.match(r"# (?!@)(.+)", text)
    return yaml.safe_load(text) or {}, dict(found), head[1] if head else ""


@cache
def options(group: str) -> dict[str, str]:
    """The options of a group, each with the first line that its file says of it."""
    return {path.stem: read_file(path)[2] for path in sorted(Path(conf_dir(), group).glob("*.yaml"))}


@cache
def of_option(group: str, option: str) -> tuple[Setting, ...]:
    """The settings of one option of a group, those that it takes over from others included."""
    values, comments, _ = read_file(Path(conf_dir(), group, f"{option}.yaml"))
    found: dict[str, Setting] = {}
    for other in values.pop("defaults", []):
        found |= {s.name: s for s in of_option(group, other)} if other != "_self_" else {}
    inner = values.get(option, {}) if group == "operators" else values
    start = f"{group}.{option}" if group == "operators" else group
    for name, value in inner.items():
        if not name.startswith("_"):
            comment = comments.get(name) or (found[name].comment if name in found else "")
            found[name] = Setting(f"{start}.{name}", value, comment, option)
    return tuple(Setting(s.key, s.default, s.comment, option) for s in found.values())


@cache
def alone() -> tuple[Setting, ...]:
    """The settings that stand by themselves, and the two folders that Hydra asks for."""
    values, comments, _ = read_file(Path(conf_dir(), "config.yaml"))
    hydra = values.pop("hydra")
    names = [name for name in values if name != "defaults" and name not in PARTS]
    folders = [Setting(f"hydra.{mode}.dir", hydra[mode]["dir"]) for mode in ("run", "sweep")]
    return (*(Setting(name, values[name], comments.get(name, "")) for name in names), *folders)


@cache
def every() -> tuple[Setting, ...]:
    """All settings of all options; one that several options have is there several times."""
    return (*alone(), *(s for group in PARTS for option in options(group) for s in of_option(group, option)))
