"""A worker: carries a chunk out in its own process, and sends an event for every batch and every job as it goes."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from threading import Lock
from typing import Any

from embedlab.errors import EmbedlabError
from embedlab.models import models_read
from embedlab.models.silence import silence_libraries
from embedlab.sweep.artifacts import fail
from embedlab.sweep.job import Job, load_finished, reason_of
from embedlab.sweep.observer import Observer
from embedlab.sweep.result import Result
from embedlab.sweep.run import run_jobs
from embedlab.sweep.store import Store
from embedlab.sweep.tracking import TrackerQueue
from embedlab.workers.chunks import Chunk

Event = tuple[Any, ...]  # a name and what belongs to it; see Progress.on_event


def run_chunk(data: bytes, node: str, send: Callable[[Event], None]) -> None:
    """Carry a pickled chunk out in this process; every event is sent at once, and the last is that it ended."""
    worker = node, os.getpid()
    send(("begun", worker))
    try:
        chunk: Chunk = pickle.loads(data)  # from the process that started this one
    except Exception as error:  # such as an operator's package that is missing here
        send(("unreadable", f"it cannot be read on {node}: {reason_of(error)}"))
        return
    left, events, refused = [], Events(send), None
    log = TrackerQueue(events)
    for job in chunk.jobs:
        if (result := load_finished(job)) is None:
            left.append(job)
        else:
            events.on_job(job, result)
    try:
        with silence_libraries():
            run_jobs(left, Store(chunk.store), events, log, chunk.later)
    except EmbedlabError as error:  # what keeps every job from being made, such as weights that cannot be read
        refused = str(error)
    except Exception as error:
        for job in [job for job in left if job.number not in log.outcome.results]:
            log.outcome.results[job.number] = fail(job, reason_of(error))
            events.on_failure(job, reason_of(error))
    send(("times", log.outcome.times))
    send(("ended", log.outcome.results, refused, worker, models_read()))


class Events(Observer):
    """Sends what becomes of jobs, one event at a time: they come from two threads, and a pipe takes one."""

    def __init__(self, send: Callable[[Event], None]):
        self._send, self._lock = send, Lock()

    def send(self, *event: Any) -> None:
        """Send one event."""
        with self._lock:
            self._send(event)

    def on_batch(self, pictures: int, rows: int, seconds: float) -> None:
        self.send("batch", pictures, rows, seconds)

    def on_job(self, job: Job, result: Result) -> None:
        self.send("job", job.number, result)

    def on_failure(self, job: Job, reason: str) -> None:
        self.send("failure", job.number, reason)

    def on_notice(self, text: str) -> None:
        self.send("notice", text)
