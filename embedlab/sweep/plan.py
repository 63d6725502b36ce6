"""Jobs as a plan: every distinct picture once, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from embedlab.cell import Cell
from embedlab.sweep.job import Job
from embedlab.sweep.result import Result
from embedlab.timing import Timer, Times


@dataclass(frozen=True)
class Picture:
    """A picture to be made, and the jobs that wait for it."""

    key: str
    cell: Cell
    seed: int
    jobs: list[int] = field(default_factory=list)


def plan(jobs: Sequence[Job]) -> dict[str, Picture]:
    """Every distinct picture of some jobs, in the order in which they are asked for; equal ones are one.

    Of a job the unedited ones come first: with `at_once` as many as it has seeds, these and the edited ones are batches
    of their own, as they are in Python and on the page of `embedlab play`.

    >>> from pathlib import Path
    >>> from embedlab import Cell, Job, Replace, Source
    >>> cat, owl = (Cell("a puppy", [Replace("puppy", by)]) for by in ("cat", "owl"))
    >>> jobs = [Job(Source("emoji"), cell, (0, 1), Path("cells")) for cell in (cat, owl, cat)]
    >>> len(plan(jobs)), [picture.jobs for picture in plan(jobs).values()]
    (6, [[0, 1, 2], [0, 1, 2], [0, 2], [0, 2], [1], [1]])
    """
    wanted: dict[str, Picture] = {}
    for n, job in enumerate(jobs):
        for which, cell in enumerate((job.cell.baseline(), job.cell)):
            for seed, keys in job.pictures.items():
                picture = wanted.setdefault(keys[which], Picture(keys[which], cell, seed))
                if not picture.jobs or picture.jobs[-1] != n:
                    picture.jobs.append(n)
    return wanted


@dataclass
class Outcome:
    """What became of a plan: results by the number of the job, why what failed failed, and where time goes."""

    results: dict[int, Result] = field(default_factory=dict)
    failures: list[tuple[Job, str]] = field(default_factory=list)
    timer: Timer = field(default_factory=Timer, repr=False)

    @property
    def times(self) -> Times:
        """Where time went: seconds by part."""
        return self.timer.times()
