"""What a tracker and a run of it can do, and what a run comes to."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from embedlab.errors import ConfigError
from embedlab.files import write

STEP = "steps/step"  # what figures of a step are drawn over, and no figure itself


@dataclass(frozen=True)
class About:
    """What a run is, beside its name: `kind` is `job`, `sweep`, …; tags to find it by; notes, such as a question.

    `home` is the sweep's folder, for what its runs have in common; None for one that is of no sweep.
    """

    kind: str = "job"
    tags: tuple[str, ...] = ()
    notes: str | None = None
    home: Path | None = None


JOB = About()  # what a run is where nobody says more


class Run(Protocol):
    """One run: what one job logs."""

    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Figures, of the whole run or of a step.

        A run is summed up by one number for each: the mean of what came without a step, the last of what came with one.
        """

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        """Pictures with their captions."""

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; cells may be pictures."""

    def curves(self, key: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> None:
        """Lines over an axis, each by its name; None where a line has no point."""

    def file(self, name: str, path: Path) -> None:
        """A file to be kept with the run, such as the conditioning."""


class Tracker(Protocol):
    """`with tracker.run(...) as run:` closes the run, also after an exception."""

    def ready(self) -> None:
        """Refuse what would keep runs from being opened, before anything is drawn."""

    def run(
        self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None, about: About = JOB
    ) -> Any:
        """Open a run that keeps its files below `folder`; a second time in one folder it is the same run, made anew.

        What `config` says of a run is what varies in its sweep (`axes`), its settings, versions and sizes.
        """


def run_of(
    tracker: Tracker, name: str, folder: Path, config: Mapping[str, Any], group: str | None, about: About
) -> Any:
    """A run of a tracker; one of somebody's own that takes no `about` is not told it."""
    taken = inspect.signature(tracker.run).parameters
    told = "about" in taken or any(one.kind is one.VAR_KEYWORD for one in taken.values())
    return tracker.run(name, folder, config, group, **({"about": about} if told else {}))


def look_at(tracker: Tracker, folder: Path) -> str | None:
    """How what a tracker was told of a sweep, or of a job, is looked at: in words, where its `look(folder)` says so."""
    look = getattr(tracker, "look", None)
    return look(folder) or None if callable(look) else None


class Summary:
    """What a run comes to: one number for each figure."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Figures as `Run.scores` takes them.

        >>> summary = Summary()
        >>> for values, step in (({"cosine": 0.5}, None), ({"cosine": 1}, None), ({"loss": 3}, 1)):
        ...     summary.add(values, step)
        >>> summary.numbers
        {'cosine': 0.75, 'loss': 3.0}
        """
        for key, value in values.items():
            if key != STEP:
                total, count = self._sums.get(key, (0.0, 0)) if step is None else (0.0, 0)
                self._sums[key] = total + value, count + 1

    @property
    def numbers(self) -> dict[str, float]:
        """Each figure's number."""
        return {key: total / count for key, (total, count) in self._sums.items()}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config by full keys, for trackers that take no nested ones; what is no number, text or truth is written out.

    >>> flat({"sampler": {"steps": 4, "eta": None}, "seeds": [0, 1], "axes": {"weight": 0.5}})
    {'sampler.steps': 4, 'sampler.eta': 'null', 'seeds': '[0, 1]', 'axes.weight': 0.5}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{name}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            found[name] = value if plain else json.dumps(value, ensure_ascii=False, default=str)
    return found


def own_id(folder: Path) -> str:
    """The id of the run that belongs to a folder: made when it is first asked for, and the same one from then on.

    So a sweep that is resumed, here or on another machine, goes on with the runs that it has.
    """
    file = folder / ".run"
    try:
        known = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        known = ""
    if not re.fullmatch(r"[0-9a-f]{16}", known):
        folder.mkdir(parents=True, exist_ok=True)
        known = secrets.token_hex(8)
        write(file, known.encode())
    return known


def need(package: str, what: str, extra: str) -> None:
    """Refuse what a package is not there for, in a line that names the extra that brings it."""
    try:
        found = find_spec(package)
    except ValueError:  # imported by half
        found = None
    if found is None:
        raise ConfigError(f"{what} needs the package {package}: pip install 'embedlab[{extra}]'.")


def safe(name: str) -> str:
    """A name as a file name; one that is cut ends in a hash, so that two stay two.

    >>> safe("clip/a cat?"), safe("long " * 20)[60:]
    ('clip-a-cat', 'long-long-ca75507b')
    """
    file = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"
    return file if len(file) <= 80 else f"{file[:69]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
