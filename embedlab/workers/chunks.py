"""Jobs cut into chunks for workers on other machines: how a worker carries one out, and what is known of all of them.

A worker sends an event for every batch and every job as it goes. What died is handed in again: pictures that are in the
store and jobs that have their files are not made twice, whoever starts over.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import cloudpickle

from embedlab.checks import whole_number
from embedlab.errors import ConfigError, EmbedlabError, counted
from embedlab.models import models_read
from embedlab.models.silence import silence_libraries
from embedlab.sweep.artifacts import fail
from embedlab.sweep.job import Job, load_finished, reason_of
from embedlab.sweep.observer import Observer
from embedlab.sweep.plan import Outcome, plan
from embedlab.sweep.result import Result
from embedlab.sweep.run import run_jobs
from embedlab.sweep.store import Store
from embedlab.sweep.tracking import TrackerQueue
from embedlab.tracker import Silent

TRIES = 3  # workers that may die over a chunk before it is given up, or before any of them begins

Event = tuple[Any, ...]  # a name and what belongs to it; see Progress.on_event


@dataclass(frozen=True)
class Chunk:
    """Jobs that one worker carries out together; what is shared with a chunk before it is drawn `later`, or by that."""

    jobs: list[Job]
    store: Path
    later: frozenset[str] = frozenset()


class Engine(Protocol):
    """What schedules chunks on other machines."""

    workers: int
    pictures: int

    def run(self, progress: Progress) -> None:
        """Have all chunks that are left carried out."""

    def close(self) -> None:
        """Stop what was started."""


# ── chunks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def chunk_jobs(jobs: Sequence[Job], pictures: int) -> list[list[Job]]:
    """Jobs in chunks of at most so many pictures and of about one size; those that can share UNet calls stay together.

    A job is never divided, however many pictures it has.

    >>> from embedlab import Cell, Job, Sampler, Source
    >>> cells = [Cell("a puppy", sampler=Sampler(name)) for name in ("ddim", "lms") * 3]
    >>> jobs = [Job(Source("emoji"), cell, (0, 1), None, number=n) for n, cell in enumerate(cells)]
    >>> [[job.number for job in chunk] for chunk in chunk_jobs(jobs, pictures=2)]
    [[0, 2, 4], [1, 3, 5]]
    """
    alike: dict[Any, list[Job]] = {}
    for job in jobs:
        alike.setdefault((job.source, job.cell.sampler, job.cell.start, job.cell.size), []).append(job)
    chunks: list[list[Job]] = []
    for group in alike.values():
        count = -(-len(set().union(*map(_keys, group))) // pictures)
        most = -(-len(set().union(*map(_keys, group))) // count)
        mine: list[Job] = []
        keys: set[str] = set()
        for job in group:
            if mine and len(keys | _keys(job)) > most:
                chunks.append(mine)
                mine, keys = [], set()
            mine.append(job)
            keys |= _keys(job)
        chunks.append(mine)
    return chunks


def chunks_of(jobs: Sequence[Job], store: Path, pictures: int, workers: int = 1) -> list[Chunk]:
    """Chunks for so many workers, as they are sent: without trackers, which only the process that was started has."""
    chunks: list[Chunk] = []
    seen: set[str] = set()
    for mine in chunk_jobs(jobs, max(1, min(pictures, -(-len(plan(jobs)) // workers)))):
        keys = set().union(*map(_keys, mine))
        chunks.append(Chunk([_untracked(job) for job in mine], store, frozenset(keys & seen)))
        seen |= keys
    return chunks


def _keys(job: Job) -> set[str]:
    return {key for pair in job.pictures.values() for key in pair}


def _untracked(job: Job) -> Job:
    """A copy that keeps its keys: they say what is wanted, and another machine might come to others."""
    job.key  # noqa: B018  (it travels with the job once it is known)
    other = copy.copy(job)
    object.__setattr__(other, "tracker", Silent())
    return other


# ── a worker ──────────────────────────────────────────────────────────────────────────────────────────────────────


def prepare_process(threads: int | None) -> None:
    """What a worker's process needs once, before its first chunk."""
    import torch  # noqa: PLC0415  in a process of its own

    if threads:
        torch.set_num_threads(threads)


def run_chunk(data: bytes, node: str, send: Callable[[Event], None]) -> None:
    """Carry a pickled chunk out in this process; every event is sent at once, and the last is that it ended."""
    send(("begun", node, os.getpid()))
    try:
        chunk: Chunk = pickle.loads(data)  # from the process that started this one
    except Exception as error:  # such as an operator's package that is missing here
        send(("unreadable", f"it cannot be read on {node}: {reason_of(error)}"))
        return
    log = _NoTracker(_Sender(send))
    before = {job.number: result for job in chunk.jobs if (result := load_finished(job)) is not None}
    for number, result in before.items():
        send(("job", number, result))
    refused = None
    if left := [job for job in chunk.jobs if job.number not in before]:
        try:
            with silence_libraries():
                run_jobs(left, Store(chunk.store), log.observer, log, chunk.later)
        except EmbedlabError as error:  # what keeps every job from being made, such as weights that cannot be read
            refused = str(error)
        except Exception as error:
            for job in [job for job in left if job.number not in log.outcome.results]:
                log.outcome.results[job.number] = fail(job, reason_of(error))
                log.observer.on_failure(job, reason_of(error))
    send(("ended", log.outcome.results, refused, models_read()))


class _Sender(Observer):
    """Sends events to the process that was started, one at a time: they come from two threads, and a pipe takes one."""

    def __init__(self, send: Callable[[Event], None]):
        self._send, self._lock = send, Lock()

    def send(self, event: Event) -> None:
        """Send one event."""
        with self._lock:
            self._send(event)

    def on_batch(self, pictures: int, rows: int, seconds: float, outside: float) -> None:
        self.send(("batch", pictures, rows, seconds, outside))

    def on_job(self, job: Job, result: Result) -> None:
        self.send(("job", job.number, result))

    def on_failure(self, job: Job, reason: str) -> None:
        self.send(("failure", job.number, reason))

    def on_notice(self, text: str) -> None:
        self.send(("notice", text))


class _NoTracker(TrackerQueue):
    """A worker's: trackers are told by the process that was started, which reads the same files."""

    def put(self, job: Job, result: Result) -> None:
        """Nothing."""


# ── the process that was started ──────────────────────────────────────────────────────────────────────────────────


@dataclass
class Elsewhere:
    """Runs jobs as `run_jobs` does, on the workers of an engine."""

    engine: Engine

    def __call__(self, jobs: Sequence[Job], store: Store, observer: Observer, log: TrackerQueue) -> Outcome:
        """Raises ConfigError when no worker begins, and what keeps every job from being made."""
        try:
            wanted = plan(jobs)
            observer.on_plan(len(jobs), len(wanted), sum(1 for key in wanted if key not in store))
            chunks = chunks_of(jobs, store.folder, self.engine.pictures, self.engine.workers)
            progress = Progress(jobs, chunks, observer, log)
            self.engine.run(progress)
        finally:
            self.engine.close()
        progress.conclude()
        return log.outcome


class Progress:
    """What is known of a plan's chunks: what waits for a worker, what became of the others."""

    def __init__(self, jobs: Sequence[Job], chunks: Sequence[Chunk], observer: Observer, log: TrackerQueue):
        self.observer, self.log = observer, log
        self.jobs = {job.number: job for job in jobs}
        self.left = dict(enumerate(chunks))
        self.waiting = list(self.left)  # numbers of chunks that no worker has
        self._count = len(chunks)
        self._one_model = len({job.source for job in jobs}) == 1
        self._deaths = Counter[int]()  # by number of the chunk
        self._known: set[tuple[str, int]] = set()  # what was reported of which job: one that begins again says so again
        self._places: dict[int, tuple[str, int]] = {}  # by chunk: node and process of who is at it
        self._read: dict[tuple[str, int], int] = {}  # by node and process: models read so far

    @property
    def begun(self) -> bool:
        """Whether any worker has taken anything up."""
        return bool(self._read)

    def data(self, number: int) -> bytes:
        """A chunk as it is sent: what is left of it."""
        chunk = self.left[number]
        jobs = [job for job in chunk.jobs if job.number not in self.log.outcome.results]
        sent: bytes = cloudpickle.dumps(replace(chunk, jobs=jobs))
        return sent

    def on_event(self, number: int, event: Event) -> None:
        """What a worker sent of a chunk."""
        match event:
            case "begun", node, process:
                self._places[number] = node, process
                self._read.setdefault((node, process), 0)
            case "batch", *counts:
                self.observer.on_batch(*counts)
            case "notice", text:
                self.observer.on_notice(text)
            case "job", job, result:
                self._keep(job, result)
            case "failure", job, reason:
                self._fail(job, reason)
            case "unreadable", reason:
                if (chunk := self.left.pop(number, None)) is not None:
                    self._give_up(chunk.jobs, reason)
            case "ended", results, refused, read:
                self._read[self._places[number]] = read
                for job, result in results.items():
                    self.log.outcome.results.setdefault(job, result)
                self._end(number, refused)

    def on_death(self, number: int, why: str) -> None:
        """The worker that was at a chunk is gone: the chunk waits for another, until too many died over it."""
        chunk = self.left.get(number)
        if chunk is None:  # it had ended before
            return
        self._deaths[number] += 1
        if not self.begun and self._deaths.total() >= TRIES:
            raise ConfigError(f"the workers end before they start a job: {why}")
        for job in chunk.jobs:  # the last words of a worker may be lost, its files are not
            if job.number not in self.log.outcome.results and (result := load_finished(job)) is not None:
                self._keep(job.number, result)
        left = [job for job in chunk.jobs if job.number not in self.log.outcome.results]
        if not left:
            del self.left[number]
        elif self._deaths[number] < TRIES:
            go = "goes" if len(left) == 1 else "go"
            self.observer.on_notice(
                f"a worker is gone ({why}); {counted(len(left), 'unfinished job')} of its {go} to another"
            )
            self.waiting.append(number)
        else:
            del self.left[number]
            self._give_up(left, f"{TRIES} workers died over it: {why}")

    def conclude(self) -> None:
        """Say who did it."""
        if self._read:
            self.observer.on_notice(
                f"{counted(self._count, 'chunk')} by {counted(len(self._read), 'worker')} on "
                f"{counted(len({node for node, _ in self._read}), 'node')}, weights read "
                f"{counted(sum(self._read.values()), 'time')}."
            )

    def _end(self, number: int, refused: str | None) -> None:
        chunk = self.left.pop(number, None)
        if refused is None or chunk is None:
            return
        if self._one_model:
            raise EmbedlabError(refused)
        self._give_up([job for job in chunk.jobs if job.number not in self.log.outcome.results], refused)

    def _keep(self, number: int, result: Result) -> None:
        if ("job", number) in self._known:
            return
        self._known.add(("job", number))
        self.log.outcome.results[number] = result
        self.observer.on_job(self.jobs[number], result)
        if result.has_pictures:
            self.log.put(self.jobs[number], result)

    def _fail(self, number: int, reason: str) -> None:
        if ("failure", number) in self._known:
            return
        self._known.add(("failure", number))
        self.log.outcome.failures.append((self.jobs[number], reason))
        self.observer.on_failure(self.jobs[number], reason)

    def _give_up(self, jobs: Sequence[Job], reason: str) -> None:
        for job in jobs:
            self.log.outcome.results[job.number] = fail(self.jobs[job.number], reason)
            self._fail(job.number, reason)


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Refuse a setting of a launcher that is no whole number."""
    whole_number(value, f"hydra.launcher.{name}", ConfigError, least)
