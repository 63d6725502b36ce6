"""The study that a job belongs to: its name, and the question that its file in conf/experiment begins with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Study:
    """A study by its name, and what it asks; nothing of either where no experiment was chosen."""

    name: str | None = None
    question: str | None = None


def read_study(name: str, folder: Path) -> Study:
    """A study with its question, the comment at the head of its file up to the command; None where it has no file."""
    file = folder / f"{name}.yaml"
    return Study(name, question_in(file.read_text(encoding="utf-8")) if file.is_file() else None)


def question_in(text: str) -> str | None:
    r"""What a study asks.

    >>> question_in("# @package _global_\n# Does fur stay,\n# or go?\n#   embedlab experiment=fur\n# Seen: it stays.\n")
    'Does fur stay, or go?'
    """
    said = []
    for line in text.splitlines():
        if not line.startswith("#") or line.startswith(("#  ", "# Seen:")):
            break
        if not line.startswith("# @"):
            said.append(line.removeprefix("#").strip())
    return " ".join(said) or None


def group_of(folder: Path, study: Study) -> str:
    """What a sweep is called in a tracker: by its folder, and where that is a time of the day, by its study and date.

    >>> group_of(Path("multirun/2026-11-26/16-35-02-123456"), Study("fur")), group_of(Path("weights"), Study())
    ('fur 2026-11-26 16-35-02', 'weights')
    """
    day, time = re.fullmatch(r"\d{4}-\d\d-\d\d", folder.parent.name), re.match(r"\d\d-\d\d-\d\d", folder.name)
    if not day or not time:
        return folder.name
    return " ".join([*([study.name] if study.name else []), day[0], time[0]])
