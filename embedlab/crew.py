"""Jobs carried out past this process: a queue of chunks in the sweep's folder, and workers of a Ray or Slurm cluster.

Workers need nothing but the folder, which all machines have to see: each takes a chunk by renaming its file, keeps its
model from one chunk to the next, and ends when nothing is left. What a dead worker held goes back into the queue.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import cloudpickle

from embedlab.batch import Log, Outcome, Quiet, Watch, carry_out, plan
from embedlab.errors import ConfigError
from embedlab.job import Job, fail, state_of
from embedlab.store import Store, write

TRIES = 3  # workers that may die over a chunk before it is given up
LOOK = 0.3  # seconds between looks at the queue


# ── the queue ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Chunk:
    """Jobs that one worker carries out together, and how many workers died over them."""

    jobs: list[Job]
    store: Path
    tries: int = 0


def cut(jobs: Sequence[Job], pictures: int) -> list[list[Job]]:
    """Jobs in chunks of about so many pictures, such that those that can share UNet calls stay together.

    >>> from embedlab import Cell, Job, Sampler, find
    >>> cells = [Cell("a puppy", sampler=Sampler(name)) for name in ("ddim", "lms") * 3]
    >>> jobs = [Job(find("emoji"), cell, (0, 1), None, number=n) for n, cell in enumerate(cells)]
    >>> [[job.number for job in chunk] for chunk in cut(jobs, pictures=2)]
    [[0, 2, 4], [1, 3, 5]]
    """
    alike: dict[Any, list[Job]] = {}
    for job in jobs:
        alike.setdefault((job.source, job.cell.sampler, job.cell.start, job.cell.size), []).append(job)
    chunks: list[list[Job]] = []
    for group in alike.values():
        mine: list[Job] = []
        keys: set[str] = set()
        for job in group:
            own = {key for pair in job.pictures.values() for key in pair}
            if mine and len(keys | own) > pictures:
                chunks.append(mine)
                mine, keys = [], set()
            mine.append(job)
            keys |= own
        chunks.append(mine)
    return chunks


class Queue:
    """Chunks as files: NUMBER.todo, NUMBER.by-WORKER while one is at it, NUMBER.done with what became of it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def fill(self, chunks: Sequence[Chunk]) -> None:
        """Begin anew with these chunks."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for number, chunk in enumerate(chunks):
            self.put(number, chunk)

    def put(self, number: int, chunk: Chunk) -> None:
        """A chunk that waits for a worker."""
        write(self.folder / f"{number:05d}.todo", cloudpickle.dumps(chunk))

    def claim(self, worker: str) -> tuple[int, Chunk] | None:
        """Take the first chunk that waits; of several workers that reach for it one gets it."""
        for path in sorted(self.folder.glob("*.todo")):
            mine = path.with_suffix(f".by-{worker}")
            try:
                os.rename(path, mine)
            except FileNotFoundError:
                continue
            return int(path.stem), pickle.loads(mine.read_bytes())  # our own file, in our own folder
        return None

    def done(self, number: int, worker: str, report: dict[str, Any]) -> None:
        """A chunk was carried out."""
        write(self.folder / f"{number:05d}.done", pickle.dumps(report))
        (self.folder / f"{number:05d}.by-{worker}").unlink(missing_ok=True)

    def reports(self) -> list[tuple[int, dict[str, Any]]]:
        """What came back since the last look."""
        found = []
        for path in sorted(self.folder.glob("*.done")):
            found.append((int(path.stem), pickle.loads(path.read_bytes())))
            path.rename(path.with_suffix(".read"))
        return found

    def waiting(self) -> int:
        """How many chunks nobody is at."""
        return len(list(self.folder.glob("*.todo")))

    def held(self) -> dict[str, list[Path]]:
        """Worker → the files of the chunks that it is at."""
        found: dict[str, list[Path]] = {}
        for path in self.folder.glob("*.by-*"):
            found.setdefault(path.name.split(".by-", 1)[1], []).append(path)
        return found


class _Counts(Quiet):
    """What a worker reports of a chunk."""

    def __init__(self) -> None:
        self.drawn: list[tuple[int, int, float, float]] = []
        self.notes: list[str] = []
        self.there = (0, 0)

    def planned(self, jobs: int, pictures: int, left: int) -> None:
        self.there = (pictures, left)

    def drew(self, pictures: int, rows: int, seconds: float, outside: float) -> None:
        self.drawn.append((pictures, rows, seconds, outside))

    def note(self, text: str) -> None:
        self.notes.append(text)


class _Unlogged(Log):
    """A worker's: trackers are told by the process that was started, which reads the same files."""

    def put(self, job: Job, result: dict[str, Any]) -> None:
        """Nothing."""


def work(folder: str, worker: str, threads: int | None = None) -> int:
    """Carry out chunks until none waits; answers with their number."""
    import torch

    from embedlab.app import quiet

    quiet()
    if threads:
        torch.set_num_threads(threads)
    queue, chunks = Queue(Path(folder)), 0
    while (claimed := queue.claim(worker)) is not None:
        number, chunk = claimed
        counts = _Counts()
        outcome = Outcome()
        try:
            outcome = carry_out(chunk.jobs, Store(chunk.store), counts, _Unlogged(counts))
        except Exception as error:  # what keeps every job from being made, such as weights that cannot be read
            for job in chunk.jobs:
                outcome.failures.append((job, str(error)))
                outcome.results[job.number] = fail(job, str(error))
        report = {
            "results": outcome.results,
            "failures": [(job.number, reason) for job, reason in outcome.failures],
            "drawn": counts.drawn,
            "notes": counts.notes,
            "there": counts.there,
        }
        queue.done(number, worker, report)
        chunks += 1
    return chunks


# ── the process that was started ──────────────────────────────────────────────────────────────────────────────────


class Cluster(Protocol):
    """Where workers run."""

    workers: int
    pictures: int

    def start(self, queue: Path, count: int) -> None:
        """Start workers on a queue."""

    def alive(self) -> set[str]:
        """The workers that run or wait for their turn."""

    def last_words(self, worker: str) -> str:
        """Why a worker is gone, as far as can be told."""

    def close(self) -> None:
        """Stop what was started."""


@dataclass
class Crew:
    """Hands the chunks of a plan to a cluster's workers, and takes up what dead ones leave."""

    cluster: Cluster

    def __call__(self, jobs: Sequence[Job], store: Store, watch: Watch, log: Log) -> Outcome:
        """As `carry_out`, elsewhere."""
        folder = jobs[0].folder.parent / ".queue"
        by_number = {job.number: job for job in jobs}
        chunks = [Chunk(mine, store.folder) for mine in cut(jobs, self.cluster.pictures)]
        queue, outcome, left = Queue(folder), log.outcome, dict(enumerate(chunks))
        queue.fill(chunks)
        wanted = plan(jobs)
        missing = sum(1 for key in wanted if key not in store)
        watch.planned(len(jobs), len(wanted), missing)
        deaths, known = 0, set[str]()
        try:
            while left:
                alive = self.cluster.alive()
                known |= alive
                for number, report in queue.reports():
                    left.pop(number, None)
                    self._take(report, by_number, outcome, watch, log)
                for worker, paths in queue.held().items():
                    if worker in known and worker not in alive:
                        for path in paths:
                            self._give_back(path, queue, left, outcome, watch, self.cluster.last_words(worker))
                gone = known - alive
                if queue.waiting() and not alive and gone:
                    deaths += 1
                    if deaths > TRIES * len(chunks):
                        reason = self.cluster.last_words(sorted(gone)[-1])
                        raise ConfigError(f"workers end before they take anything up: {reason}")
                if (lack := min(self.cluster.workers, queue.waiting() + len(queue.held())) - len(alive)) > 0:
                    self.cluster.start(folder, lack)
                time.sleep(LOOK)
        finally:
            self.cluster.close()
        shutil.rmtree(folder, ignore_errors=True)
        return outcome

    def _take(self, report: dict[str, Any], jobs: dict[int, Job], outcome: Outcome, watch: Watch, log: Log) -> None:
        for note in report["notes"]:
            watch.note(note)
        for drawn in report["drawn"]:
            watch.drew(*drawn)
        for number, reason in report["failures"]:
            outcome.failures.append((jobs[number], reason))
            watch.failed(jobs[number], reason)
        for number, result in report["results"].items():
            outcome.results[number] = result
            watch.finished(jobs[number], result)
            if any("file" in row for row in result["pictures"]):
                log.put(jobs[number], result)

    def _give_back(
        self, path: Path, queue: Queue, left: dict[int, Chunk], outcome: Outcome, watch: Watch, why: str
    ) -> None:
        """What a dead worker was at: jobs that it finished are finished, the others wait for the next."""
        try:
            chunk: Chunk = pickle.loads(path.read_bytes())
        except FileNotFoundError:  # it was done a moment ago
            return
        number = int(path.name.split(".")[0])
        unfinished = []
        for job in chunk.jobs:
            result = state_of(job)
            if result is not None and result["status"] == "done":
                outcome.results[job.number] = result
                watch.finished(job, result)
            else:
                unfinished.append(job)
        if chunk.tries + 1 >= TRIES:
            for job in unfinished:
                reason = f"{TRIES} workers died over it: {why}"
                outcome.failures.append((job, reason))
                outcome.results[job.number] = fail(job, reason)
                watch.failed(job, reason)
            unfinished = []
        if unfinished:
            watch.note(f"a worker is gone ({why}); {len(unfinished)} unfinished jobs of its go to another")
            queue.put(number, Chunk(unfinished, chunk.store, chunk.tries + 1))
        else:
            left.pop(number, None)
        path.unlink(missing_ok=True)


def whole(name: str, value: Any, least: int = 1) -> None:
    """Refuse a setting of a launcher that is no whole number."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"hydra.launcher.{name} is {value!r}; it has to be a whole number, {least} or more.")


# ── Ray ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Ray:
    """Workers as tasks of a Ray cluster: one at `address`, or one on this machine for the length of the sweep."""

    address: str | None = None
    workers: Any = None  # a number; as many as fit when left out
    cpus: int = 1
    gpus: float = 0
    pictures: int = 64
    _running: dict[str, Any] = field(default_factory=dict)
    _ended: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if find_spec("ray") is None:
            raise ConfigError("hydra/launcher=ray needs a package of its own: pip install 'embedlab[ray]'.")
        for name in ("cpus", "pictures", *(["workers"] if self.workers is not None else [])):
            whole(name, getattr(self, name))
        if not isinstance(self.gpus, int | float) or self.gpus < 0:
            raise ConfigError(f"hydra.launcher.gpus is {self.gpus!r}; it has to be a number, 0 or more.")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self._join()

    def _join(self) -> None:
        import ray

        if self.address is not None and self.address != "auto" and "://" not in self.address:
            self._knock(self.address)
        try:
            ray.init(
                address=self.address,
                include_dashboard=False if self.address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                ignore_reinit_error=True,
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"the Ray cluster at '{self.address or 'this machine'}' cannot be reached: {reason}"
            ) from None
        has = ray.cluster_resources()
        most = int(min(has.get("CPU", 1) // self.cpus, has.get("GPU", 0) // self.gpus if self.gpus else 1 << 30))
        if most < 1:
            raise ConfigError(
                f"no node of the Ray cluster has {self.cpus} CPUs and {self.gpus} GPUs for a worker; in all it has "
                f"{has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs."
            )
        self.workers = min(self.workers or most, most)

    def _knock(self, address: str) -> None:
        """Ray waits long for a cluster that is not there."""
        import socket

        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the Ray cluster at '{address}' cannot be reached: {error}. `ray start --head` starts one; "
                "without hydra.launcher.address one is started on this machine."
            ) from None

    def start(self, queue: Path, count: int) -> None:
        """Each worker is one task, which Ray does not run again by itself."""
        import ray

        task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, max_calls=1)(work)
        for _ in range(count):
            worker = f"ray-{len(self._running) + len(self._ended)}"
            self._running[worker] = task.remote(str(queue), worker, self.cpus)

    def alive(self) -> set[str]:
        """Tasks that have not come back."""
        import ray

        for worker, task in list(self._running.items()):
            if ray.wait([task], timeout=0)[0]:
                try:
                    ray.get(task)
                    self._ended[worker] = "it had nothing left to do"
                except ray.exceptions.RayError as error:
                    self._ended[worker] = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
                del self._running[worker]
        return set(self._running)

    def last_words(self, worker: str) -> str:
        """What Ray says of it."""
        return self._ended.get(worker, "it does not answer")

    def close(self) -> None:
        """Leave the cluster; one that was started for this sweep ends."""
        import ray

        for task in self._running.values():
            ray.cancel(task, force=True)
        ray.shutdown()


# ── Slurm ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Shift:
    """What a Slurm job runs; submitit starts it again when its time is over before its work is."""

    def __call__(self, queue: str, threads: int | None = None) -> int:
        """Carry out chunks under the name that Slurm gave the job."""
        import submitit

        return work(queue, submitit.JobEnvironment().job_id, threads)

    def checkpoint(self, queue: str, threads: int | None = None) -> Any:
        """Time is over: leave what was begun to whoever comes next."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, queue, threads)


@dataclass
class Slurm:
    """Workers as jobs of Slurm, submitted through submitit."""

    workers: int = 2
    partition: str | None = None
    cpus: int = 1
    gpus: int = 0
    memory: str | None = None
    minutes: int = 240
    pictures: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    _jobs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if find_spec("submitit") is None:
            raise ConfigError("hydra/launcher=slurm needs a package of its own: pip install 'embedlab[slurm]'.")
        if lacking := [name for name in ("sbatch", "squeue") if shutil.which(name) is None]:
            raise ConfigError(
                f"hydra/launcher=slurm needs Slurm's {lacking[0]}, which is not on this machine; start it on a login "
                "node of your cluster, or use hydra/launcher=batch."
            )
        for name in ("workers", "cpus", "pictures"):
            whole(name, getattr(self, name))
        whole("gpus", self.gpus, 0)
        whole("minutes", self.minutes, 5)

    def start(self, queue: Path, count: int) -> None:
        """An array of workers."""
        import submitit

        executor = submitit.SlurmExecutor(folder=queue.parent / ".slurm", max_num_timeout=1000)
        settings: dict[str, Any] = {
            "time": self.minutes,
            "cpus_per_task": self.cpus,
            "job_name": "embedlab",
            "signal_delay_s": 90,
            **({"partition": self.partition} if self.partition else {}),
            **({"gpus_per_node": self.gpus} if self.gpus else {}),
            **({"mem": self.memory} if self.memory else {}),
            **self.options,
        }
        try:
            executor.update_parameters(**settings)
            jobs = executor.map_array(Shift(), [str(queue)] * count, [self.cpus] * count)
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[-300:]
            raise ConfigError(f"Slurm does not take the workers: {reason}") from None
        self._jobs |= {job.job_id: job for job in jobs}

    def alive(self) -> set[str]:
        """What squeue lists; accounting, which many clusters do without, is not asked."""
        if not self._jobs:
            return set()
        arrays = ",".join(sorted({name.split("_")[0] for name in self._jobs}))
        command = ["squeue", "--noheader", "--array", "--jobs", arrays, "--format", "%i %t"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if told.returncode and "Invalid job id" not in told.stderr:
            return set(self._jobs)  # the controller is busy: nobody is dead for that
        lines = [line.split() for line in told.stdout.splitlines()]
        return {name for name, state in lines if state not in ("CG", "CD", "F", "NF", "TO", "OOM", "CA")} & set(
            self._jobs
        )

    def last_words(self, worker: str) -> str:
        """The end of what it wrote."""
        job = self._jobs.get(worker)
        text = (job.stderr() or job.stdout() or "") if job is not None else ""
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1][:200] if lines else f"Slurm job {worker} ended"

    def close(self) -> None:
        """Cancel what still runs or waits."""
        left = sorted({name.split("_")[0] for name in self.alive()})
        if left:
            subprocess.run(["scancel", *left], capture_output=True, timeout=60, check=False)
