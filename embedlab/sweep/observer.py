"""Whoever wants to know how a sweep goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedlab.sweep.job import Job
    from embedlab.sweep.result import Result


class Observer:
    """Hears of a sweep as it goes on, and ignores it; overrides what it wants to know.

    Calls come from two threads: what becomes of a job's files from the one that writes them, all else from the one that
    samples.

    >>> class Failures(Observer):
    ...     def on_failure(self, job, reason):
    ...         print(f"job {job.number}: {reason}")
    """

    def on_plan(self, jobs: int, pictures: int, left: int) -> None:
        """So many jobs, of so many distinct pictures, of which so many are still to be made."""

    def on_step(self, pictures: int, step: int, of: int) -> None:
        """So many pictures that share UNet calls are so many of all their denoising steps on."""

    def on_batch(self, pictures: int, rows: int, seconds: float) -> None:
        """Pictures came out after so many UNet evaluations (0: copies), which took so many seconds."""

    def on_job(self, job: Job, result: Result) -> None:
        """A job has its files."""

    def on_failure(self, job: Job, reason: str) -> None:
        """A job failed, or its tracker did."""

    def on_notice(self, text: str) -> None:
        """Something to mind."""
