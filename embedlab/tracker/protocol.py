"""What a tracker and a run of it can do, and what a run comes to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

PLACES = ("picture/seed", "steps/step")  # what figures are drawn over, and no figures themselves


class Run(Protocol):
    """One run: what one job logs."""

    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Figures, of the whole run, of a picture or of a step.

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

    def run(self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None) -> Any:
        """Open a run that keeps its files below `folder`."""


class Summary:
    """What a run comes to: one number for each figure."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Figures as `Run.scores` takes them.

        >>> summary = Summary()
        >>> for values, step in (({"picture/cosine": 0.5}, None), ({"picture/cosine": 1}, None), ({"loss": 3}, 1)):
        ...     summary.add(values, step)
        >>> summary.numbers
        {'picture/cosine': 0.75, 'loss': 3.0}
        """
        for key, value in values.items():
            if key not in PLACES:
                total, count = self._sums.get(key, (0.0, 0)) if step is None else (0.0, 0)
                self._sums[key] = total + value, count + 1

    @property
    def numbers(self) -> dict[str, float]:
        """Each figure's number."""
        return {key: total / count for key, (total, count) in self._sums.items()}


def safe(name: str) -> str:
    """A name as a file name; one that is cut ends in a hash, so that two stay two.

    >>> safe("clip/a cat?"), safe("long " * 20)[60:]
    ('clip-a-cat', 'long-long-ca75507b')
    """
    file = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"
    return file if len(file) <= 80 else f"{file[:69]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
