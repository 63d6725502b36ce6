"""Jobs cut into chunks: what a worker carries out at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedlab.sweep.job import Job, of_sweep
from embedlab.sweep.plan import plan
from embedlab.tracker import Silent


@dataclass(frozen=True)
class Chunk:
    """Jobs that one worker carries out together, those pictures last that a chunk before begins with (`later`)."""

    jobs: list[Job]
    store: Path
    later: frozenset[str] = frozenset()


def chunk_jobs(jobs: Sequence[Job], store: Path, pictures: int, workers: int = 1) -> list[Chunk]:
    """Jobs in chunks of at most so many pictures and of about one size, enough for so many workers.

    Those that can share UNet calls stay together, and none is divided, however many pictures it has. They are sent
    without trackers, which only the process that was started has, and with their keys: those say what is wanted, and
    another machine might come to others.

    >>> from embedlab import Cell, Job, Sampler, Source
    >>> cells = [Cell("a puppy", sampler=Sampler(name)) for name in ("ddim", "lms") * 3]
    >>> jobs = [Job(Source("emoji"), cell, (0, 1), Path(), number=n) for n, cell in enumerate(cells)]
    >>> [[job.number for job in chunk.jobs] for chunk in chunk_jobs(jobs, Path("cells"), pictures=2)]
    [[0, 2, 4], [1, 3, 5]]
    """
    limit = max(1, min(pictures, -(-len(plan(jobs)) // workers)))
    alike: dict[Any, list[Job]] = {}
    for job in jobs:
        job.key  # noqa: B018  (it travels with the job once it is known)
        alike.setdefault((job.source, job.cell.sampler, job.cell.start, job.cell.size), []).append(job)
    chunks: list[Chunk] = []
    seen: set[str] = set()
    for group in alike.values():
        total = len(_keys(*group))
        most = -(-total // -(-total // limit))
        parts: list[tuple[list[Job], set[str]]] = []
        for job in group:
            if not parts or len(parts[-1][1] | _keys(job)) > most:
                parts.append(([], set()))
            parts[-1][0].append(of_sweep(job, tracker=Silent()))
            parts[-1][1].update(_keys(job))
        for part, keys in parts:
            chunks.append(Chunk(part, store, frozenset(keys & seen)))
            seen |= keys
    return chunks


def _keys(*jobs: Job) -> set[str]:
    """The keys of all pictures of some jobs."""
    return {key for job in jobs for pair in job.pictures.values() for key in pair}
