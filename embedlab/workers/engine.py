"""What Ray and Slurm have in common: chunks that wait for a worker, and what is known of those that are carried out.

A chunk whose worker died is handed in again: pictures that are in the store and jobs that have their files are not made
twice, whoever starts over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import cloudpickle

from embedlab.checks import whole_number
from embedlab.errors import ConfigError, EmbedlabError, counted
from embedlab.sweep.artifacts import fail
from embedlab.sweep.job import Job, load_finished
from embedlab.sweep.observer import Observer
from embedlab.sweep.plan import Outcome, plan
from embedlab.sweep.result import Result
from embedlab.sweep.store import Store
from embedlab.sweep.tracking import TrackerQueue
from embedlab.workers.chunks import Chunk, chunk_jobs
from embedlab.workers.worker import Event

TRIES = 3  # workers that may die over a chunk before it is given up, or before any of them begins


class Engine(ABC):
    """Runs jobs as `run_jobs` does, on `workers` of other machines, at most so many `pictures` at a time."""

    workers: int
    pictures: int

    def __call__(self, jobs: Sequence[Job], store: Store, observer: Observer, log: TrackerQueue) -> Outcome:
        """Raises ConfigError when no worker begins, and what keeps every job from being made."""
        try:
            wanted = plan(jobs)
            observer.on_plan(len(jobs), len(wanted), sum(1 for key in wanted if key not in store))
            progress = Progress(jobs, chunk_jobs(jobs, store.folder, self.pictures, self.workers), observer, log)
            self.run(progress)
        finally:
            self.close()
        progress.conclude()
        return log.outcome

    @abstractmethod
    def run(self, progress: Progress) -> None:
        """Have all chunks that are left carried out."""

    @abstractmethod
    def close(self) -> None:
        """Stop what was started."""

    def check_whole(self, least: int, *names: str) -> None:
        """Refuse settings that are no whole numbers."""
        for name in names:
            whole_number(getattr(self, name), f"hydra.launcher.{name}", ConfigError, least)


class Progress:
    """What is known of a plan's chunks: what waits for a worker, what became of the others."""

    def __init__(self, jobs: Sequence[Job], chunks: Sequence[Chunk], observer: Observer, log: TrackerQueue):
        self.observer, self.log, self.results = observer, log, log.outcome.results
        self.jobs = {job.number: job for job in jobs}
        self.left = dict(enumerate(chunks))
        self.waiting = list(self.left)  # numbers of chunks that no worker has
        self._count = len(chunks)
        self._one_model = len({job.source for job in jobs}) == 1
        self._deaths = Counter[int]()  # by number of the chunk
        self._reported: set[tuple[str, int]] = set()  # what of which job: a worker that begins again says so again
        self._read: dict[tuple[str, int], int] = {}  # models read so far, by node and process

    @property
    def begun(self) -> bool:
        """Whether any worker has begun a chunk."""
        return bool(self._read)

    def data(self, number: int) -> bytes:
        """A chunk as it is sent: what is left of it."""
        sent: bytes = cloudpickle.dumps(replace(self.left[number], jobs=self._unfinished(number)))
        return sent

    def on_event(self, number: int, event: Event) -> None:
        """What a worker sent of a chunk."""
        match event:
            case "begun", worker:
                self._read.setdefault(worker, 0)
            case "batch", *counts:
                self.observer.on_batch(*counts)
            case "times", times:
                self.log.outcome.timer.add(times)
            case "notice", text:
                self.observer.on_notice(text)
            case "job", job, result:
                self._finish(job, result)
            case "failure", job, reason:
                self._fail(job, reason)
            case "unreadable", reason:
                self._give_up(number, reason)
            case "ended", results, refused, worker, read:
                self._read[worker] = read
                for job, result in results.items():
                    self.results.setdefault(job, result)
                if refused and self._one_model:
                    raise EmbedlabError(refused)
                self._give_up(number, refused or "its worker ended without a result of it")

    def on_death(self, number: int, why: str) -> None:
        """The worker that was at a chunk is gone: the chunk waits for another, until too many died over it."""
        if number not in self.left:  # it had ended before
            return
        self._deaths[number] += 1
        if not self.begun and self._deaths.total() >= TRIES:
            raise ConfigError(f"the workers end before they start a job: {why}")
        for job in self._unfinished(number):  # the last words of a worker may be lost, its files are not
            if (result := load_finished(job)) is not None:
                self._finish(job.number, result)
        left = len(self._unfinished(number))
        if left and self._deaths[number] < TRIES:
            text = f"{counted(left, 'unfinished job')} of its {'goes' if left == 1 else 'go'} to another"
            self.observer.on_notice(f"a worker is gone ({why}); {text}")
            self.waiting.append(number)
        else:
            self._give_up(number, f"{TRIES} workers died over it: {why}")

    def conclude(self) -> None:
        """Say who did it."""
        if self._read:
            chunks, workers = counted(self._count, "chunk"), counted(len(self._read), "worker")
            nodes, reads = counted(len({node for node, _ in self._read}), "node"), sum(self._read.values())
            self.observer.on_notice(f"{chunks} by {workers} on {nodes}, weights read {counted(reads, 'time')}.")

    def _unfinished(self, number: int) -> list[Job]:
        return [job for job in self.left[number].jobs if job.number not in self.results]

    def _finish(self, number: int, result: Result) -> None:
        if self._is_new("job", number):
            self.results[number] = result
            self.observer.on_job(self.jobs[number], result)
            if result.has_pictures:
                self.log.put(self.jobs[number], result)

    def _fail(self, number: int, reason: str) -> None:
        if self._is_new("failure", number):
            self.log.outcome.failures.append((self.jobs[number], reason))
            self.observer.on_failure(self.jobs[number], reason)

    def _give_up(self, number: int, reason: str) -> None:
        """Nothing more comes of a chunk; what is unfinished of it failed."""
        for job in self._unfinished(number) if number in self.left else ():
            self.results[job.number] = fail(self.jobs[job.number], reason)
            self._fail(job.number, reason)
        self.left.pop(number, None)

    def _is_new(self, what: str, number: int) -> bool:
        if (what, number) in self._reported:
            return False
        self._reported.add((what, number))
        return True
