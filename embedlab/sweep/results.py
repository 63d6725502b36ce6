"""The results of all jobs of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedlab.errors import EmbedlabError
from embedlab.sweep.result import Result, read_result


def collect(folder: Path) -> list[Result]:
    """The results of the jobs below a folder, finished or failed, in the order of their numbers.

    A file cut short, or of somebody else, is a job that is not there yet.
    """
    results = []
    for path in sorted(folder.glob("*/result.json")):
        with suppress(EmbedlabError):
            results.append(read_result(path.parent))
    return sorted(results, key=lambda result: (number_of(result), str(result.folder)))


def number_of(result: Result) -> float:
    """The number of a job; of a result that has none, that of its folder, or the last."""
    name = result.folder.name
    if result.job is not None:
        return result.job
    return int(name) if name.isdecimal() and len(name) < 10 else math.inf


def unread(folder: Path) -> list[str]:
    """What is wrong with the results of a sweep that are left out, a line each."""
    wrong = []
    for path in sorted(folder.glob("*/result.json")):
        try:
            read_result(path.parent)
        except EmbedlabError as error:
            wrong.append(str(error).rstrip("."))
    return wrong


@dataclass(frozen=True)
class ScoreGap:
    """How far two scores of a job are apart, for a search of where they meet: 0 where it is as much one as the other.

    >>> ScoreGap("change/ssim", "change/cosine")({"scores": {"change/ssim": 0.5, "change/cosine": 0.75}})
    0.25
    """

    first: str
    second: str

    @property
    def scores(self) -> tuple[str, str]:
        """What it asks of a result; seen to be there before anything is drawn."""
        return self.first, self.second

    def __call__(self, result: Mapping[str, Any]) -> float:
        scores: Mapping[str, float] = result["scores"]
        return abs(scores[self.first] - scores[self.second])
