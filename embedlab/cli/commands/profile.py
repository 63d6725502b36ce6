"""`embedlab profile`: where the time and the memory of any job go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedlab import readers
from embedlab.errors import ConfigError, listed

if TYPE_CHECKING:
    from embedlab.sweep.job import Job

ENDINGS = {"out": (".csv", ".json", ".html"), "trace": (".json", ".json.gz")}


@dataclass(frozen=True)
class Asked:
    """The files that a profile is written to: its tables, and a trace for chrome://tracing."""

    out: Path | None = None
    trace: Path | None = None


def taken(words: Sequence[str]) -> tuple[list[str], Asked]:
    """The words of `embedlab profile …` without its own, which are checked here, before torch is imported."""
    rest: list[str] = []
    files: dict[str, Path] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if key not in ENDINGS or not sign:
            rest.append(word)
        elif key in files:
            raise ConfigError(f"profile: {key} is given twice; leave one out.")
        else:
            files[key] = checked(key, value)
    rest.remove("profile")
    if {"-m", "--multirun"} & set(rest):
        raise ConfigError("profile takes one job; leave out -m and the lists of values.")
    if drawn := [word for word in rest if word.split("=")[0] in ("explain", "resume")]:
        raise ConfigError(f"profile runs a job from its beginning; leave out {drawn[0]}.")
    return rest, Asked(**files)


def checked(key: str, value: str) -> Path:
    """A file that can be written by its name; ConfigError."""
    if not value:
        raise ConfigError(f"profile: {key} is empty; give it a file, or leave it out.")
    path = readers.path_of(value, key)
    if not path.name.lower().endswith(ENDINGS[key]):
        raise ConfigError(f"{key} is '{path}'; it has to end in {listed(ENDINGS[key])}.")
    if path.is_dir():
        raise ConfigError(f"{key} is '{path}', which is a folder.")
    return path


def run(job: Job, asked: Asked) -> None:
    """Profile a job that was composed and print the tables, or the files that they were written to."""
    from embedlab.cli.commands.anatomy import console
    from embedlab.cli.progress import aside
    from embedlab.files import make_folder
    from embedlab.sweep.profile import profile
    from embedlab.tables import show

    for path in (asked.out, asked.trace):
        if path is not None:
            make_folder(path.parent)
    found = profile(job, asked.trace, aside)
    show(found.tables() if asked.out is None else found.tables()[:1], console())
    if asked.out is not None:
        print(found.save(asked.out))
    if asked.trace is not None:
        print(asked.trace)
