"""Jobs carried out past this process: a queue of chunks in the sweep's folder, and workers of a Ray or Slurm cluster.

Workers need nothing but the folder, which all machines have to see: each takes a chunk by renaming its file, keeps its
model from one chunk to the next, and ends when nothing is left, or when the queue is gone. What a dead worker held goes
back into the queue.
"""

from __future__ import annotations

import copy
import errno
import logging
import os
import pickle
import secrets
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import cloudpickle

from embedlab.errors import ConfigError, EmbedlabError, counted, listed
from embedlab.models import _load
from embedlab.sweep.job import Job, fail, finished, reason_of
from embedlab.sweep.run import Log, Outcome, Quiet, Watch, carry_out, plan
from embedlab.sweep.store import Store, write
from embedlab.tracker import Silent

TRIES = 3  # workers that may die over a chunk before it is given up, or before they take anything up
LOOK = 0.3  # seconds between looks at the queue
EVERY = 5.0  # seconds between questions to Slurm's controller
SIGNAL = 90  # seconds before the end of a Slurm job at which it is told


# ── the queue ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Chunk:
    """Jobs that one worker carries out together; what is shared with a chunk before it is drawn `later`, or by that."""

    jobs: list[Job]
    store: Path
    later: frozenset[str] = frozenset()


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


def chunks_of(jobs: Sequence[Job], store: Path, pictures: int) -> list[Chunk]:
    """Chunks as they are handed out: without trackers, which only the process that was started tells."""
    chunks: list[Chunk] = []
    seen: set[str] = set()
    for mine in cut(jobs, pictures):
        keys = {key for job in mine for pair in job.pictures.values() for key in pair}
        chunks.append(Chunk([_untracked(job) for job in mine], store, frozenset(keys & seen)))
        seen |= keys
    return chunks


def _untracked(job: Job) -> Job:
    """A copy that keeps its keys: they say what is wanted, and another machine might come to others."""
    job.key  # noqa: B018  (it travels with the job once it is known)
    other = copy.copy(job)
    object.__setattr__(other, "tracker", Silent())
    return other


class Queue:
    """Chunks as files: NUMBER.todo, NUMBER.by-WORKER while one is at it, NUMBER.done with what became of it.

    Every run has a folder of its own, so that a worker of a killed one cannot answer for another's chunks.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def within(cls, folder: Path) -> Queue:
        """A new queue in a sweep's folder."""
        queue = cls(folder / f".queue-{secrets.token_hex(4)}")
        queue.folder.mkdir(parents=True)
        write(queue.folder / "open", b"")
        return queue

    @property
    def is_open(self) -> bool:
        """Whether there is anybody to work for."""
        try:
            (self.folder / "open").open("rb").close()  # to open asks the server of a shared file system, stat may not
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)
        return True

    def close(self) -> None:
        """Leave nothing behind; workers that still run end."""
        (self.folder / "open").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def put(self, number: int, chunk: Chunk) -> None:
        """A chunk that waits for a worker."""
        write(self.folder / f"{number:05d}.todo", cloudpickle.dumps(chunk))

    def claim(self, worker: str) -> tuple[int, bytes] | None:
        """Take the first chunk that waits; of several workers that reach for it one gets it."""
        for path in sorted(self.folder.glob("*.todo")):
            mine = path.with_suffix(f".by-{worker}")
            with suppress(FileNotFoundError):
                os.rename(path, mine)
                return int(path.stem), mine.read_bytes()
        return None

    def let_go(self, worker: str) -> None:
        """What a worker holds waits again."""
        for path in self.folder.glob(f"*.by-{worker}"):
            with suppress(FileNotFoundError):
                os.rename(path, path.with_suffix(".todo"))

    def done(self, number: int, worker: str, report: dict[str, Any]) -> None:
        """A chunk was carried out."""
        if not self.is_open:  # to write would make the folder again
            return
        write(self.folder / f"{number:05d}.done", pickle.dumps({**report, "worker": worker}))
        (self.folder / f"{number:05d}.by-{worker}").unlink(missing_ok=True)

    def reports(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """What came back since the last look."""
        for path in sorted(self.folder.glob("*.done")):
            report = pickle.loads(path.read_bytes())  # our own file, in our own folder
            path.unlink()
            yield int(path.stem), report

    def waiting(self) -> set[int]:
        """The chunks that nobody is at."""
        return {int(path.stem) for path in self.folder.glob("*.todo")}

    def held(self) -> list[tuple[int, str, Path]]:
        """The chunks that somebody is at: number, worker, file."""
        parts = [(path, path.name.split(".by-", 1)) for path in self.folder.glob("*.by-*")]
        return [(int(number), worker, path) for path, (number, worker) in parts]


def dismiss(folder: Path) -> None:
    """End the workers that a killed process left in a sweep's folder: two at one job would take each other's files."""
    for _ in range(TRIES):  # a worker may write the very moment its queue is taken away
        old = [Queue(path) for path in folder.glob(".queue-*")]
        held = [held for queue in old for held in queue.held()]
        for queue in old:
            queue.close()
        if held:
            time.sleep(4 * LOOK)  # a worker looks every LOOK seconds


# ── a worker ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Counts(Quiet):
    """What a worker reports of a chunk."""

    def __init__(self) -> None:
        self.drawn: list[tuple[int, int, float, float]] = []
        self.notes: list[str] = []
        self.finishes: list[int] = []

    def drew(self, pictures: int, rows: int, seconds: float, outside: float) -> None:
        self.drawn.append((pictures, rows, seconds, outside))

    def finished(self, job: Job, result: dict[str, Any]) -> None:
        self.finishes.append(job.number)

    def note(self, text: str) -> None:
        self.notes.append(text)


class _Unlogged(Log):
    """A worker's: trackers are told by the process that was started, which reads the same files."""

    def put(self, job: Job, result: dict[str, Any]) -> None:
        """Nothing."""


def work(folder: str, worker: str, threads: int | None = None, where: str | None = None) -> int:
    """Carry out chunks until none waits; answers with their number."""
    import torch

    from embedlab.models.silence import silence_libraries

    silence_libraries()
    if threads:
        torch.set_num_threads(threads)
    where = where or os.uname().nodename
    queue, chunks = Queue(Path(folder)), 0
    if not queue.is_open:
        raise ConfigError(f"'{folder}' is not there on {os.uname().nodename}; all machines have to see it.")
    with _while_open(queue):
        queue.let_go(worker)  # Slurm may have started the same job again
        while (claimed := queue.claim(worker)) is not None:
            number, data = claimed
            queue.done(number, worker, {**_report_of(data, where), "where": where, "read": _load.cache_info().misses})
            chunks += 1
    return chunks


def _report_of(data: bytes, where: str) -> dict[str, Any]:
    """Carry out a chunk."""
    try:
        chunk: Chunk = pickle.loads(data)  # our own file, in our own folder
    except Exception as error:  # such as an operator's package that is missing here
        return {"lost": f"it cannot be read on {where}: {reason_of(error)}"}
    counts = _Counts()
    log = _Unlogged(counts)
    before = {job.number: result for job in chunk.jobs if (result := finished(job)) is not None}
    counts.finishes.extend(before)
    refused = None
    if left := [job for job in chunk.jobs if job.number not in before]:
        try:
            carry_out(left, Store(chunk.store), counts, log, chunk.later)
        except EmbedlabError as error:  # what keeps every job from being made, such as weights that cannot be read
            refused = str(error)
        except Exception as error:
            for job in [job for job in left if job.number not in log.outcome.results]:
                log.outcome.failures.append((job, reason_of(error)))
                log.outcome.results[job.number] = fail(job, reason_of(error))
    return {
        "refused": refused,
        "results": before | log.outcome.results,
        "failures": [(job.number, reason) for job, reason in log.outcome.failures],
        "finished": counts.finishes,
        "drawn": counts.drawn,
        "notes": counts.notes,
    }


@contextmanager
def _while_open(queue: Queue) -> Iterator[None]:
    """End this process as soon as there is nobody to work for any more."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK):
            if not queue.is_open:
                os._exit(0)

    thread = threading.Thread(target=look, name="embedlab-queue", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# ── the process that was started ──────────────────────────────────────────────────────────────────────────────────


class Cluster(Protocol):
    """Where workers run."""

    workers: int
    pictures: int

    def start(self, queue: Path, count: int) -> list[str]:
        """Start workers on a queue; answers with their names, none of which was there before."""

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
    folder: Path

    def __call__(self, jobs: Sequence[Job], store: Store, watch: Watch, log: Log) -> Outcome:
        """As `carry_out`, elsewhere."""
        wanted = plan(jobs)
        watch.planned(len(jobs), len(wanted), sum(1 for key in wanted if key not in store))
        try:
            queue = Queue.within(self.folder)
            try:
                _Foreman(self.cluster, queue, jobs, store, watch, log).run()
            finally:
                queue.close()
        finally:
            self.cluster.close()
        return log.outcome


class _Foreman:
    """Watches over one queue."""

    def __init__(
        self, cluster: Cluster, queue: Queue, jobs: Sequence[Job], store: Store, watch: Watch, log: Log
    ) -> None:
        self.cluster, self.queue, self.watch, self.log = cluster, queue, watch, log
        self.jobs = {job.number: job for job in jobs}
        self.one_model = len({job.source for job in jobs}) == 1
        self.left = dict(enumerate(chunks_of(jobs, store.folder, cluster.pictures)))
        self.deaths = Counter[int]()  # by number of the chunk
        self.known: set[str] = set()  # workers whose end was not seen yet
        self.busy: set[str] = set()  # workers that took something up
        self.idle, self.why = 0, ""  # how many ended without since the last report, and what the last of them said
        self.places: dict[str, tuple[str, int]] = {}  # by worker: where it is, and how many models it has read

    def run(self) -> None:
        """Until nothing is left."""
        for number, chunk in self.left.items():
            self.queue.put(number, chunk)
        count = len(self.left)
        while self.left:
            # in this order: what a worker that is gone has written was there before it was asked for
            waiting = self.queue.waiting()
            alive = self.cluster.alive()
            gone, self.known = self.known - alive, self.known & alive
            for number, report in self.queue.reports():
                self.take(number, report)
                self.idle = 0
            for number, worker, path in self.queue.held():
                self.busy.add(worker)
                if worker not in alive:
                    self.give_back(number, self.cluster.last_words(worker))
                    path.unlink(missing_ok=True)
            if not alive:  # a file that somebody took away
                there = self.queue.waiting()
                for number in self.left.keys() - there:
                    self.queue.put(number, self.left[number])
            for worker in sorted(gone - self.busy) if waiting else []:
                self.idle, self.why = self.idle + 1, self.cluster.last_words(worker)
            if self.left and self.idle >= TRIES and not alive:
                raise ConfigError(f"workers end before they take anything up: {self.why}")
            busy = min(self.cluster.workers, len(self.left))
            if self.idle < TRIES and (lack := busy - len(alive)) > 0:
                self.known |= set(self.cluster.start(self.queue.folder, lack))
            if self.left:
                time.sleep(LOOK)
        if self.places:
            where, read = {place for place, _ in self.places.values()}, sum(n for _, n in self.places.values())
            self.watch.note(
                f"{counted(count, 'chunk')} by {counted(len(self.places), 'worker')} on {counted(len(where), 'node')}, "
                f"weights read {counted(read, 'time')}."
            )

    def take(self, number: int, report: dict[str, Any]) -> None:
        """A chunk was carried out; one that was given back may be so twice."""
        self.busy.add(report["worker"])
        self.places[report["worker"]] = report["where"], report["read"]
        chunk = self.left.pop(number, None)
        if chunk is None:
            return
        if "lost" in report:
            self.give_up(chunk.jobs, report["lost"])
            return
        for note in report["notes"]:
            self.watch.note(note)
        for drawn in report["drawn"]:
            self.watch.drew(*drawn)
        for job, reason in report["failures"]:
            self.log.outcome.failures.append((self.jobs[job], reason))
            self.watch.failed(self.jobs[job], reason)
        for job, result in report["results"].items():
            self.keep(self.jobs[job], result, job in report["finished"])
        if report["refused"] is not None:
            if self.one_model:
                raise EmbedlabError(report["refused"])
            self.give_up([job for job in chunk.jobs if job.number not in report["results"]], report["refused"])

    def keep(self, job: Job, result: dict[str, Any], whole: bool = True) -> None:
        """A job has its result."""
        self.log.outcome.results[job.number] = result
        if whole:
            self.watch.finished(job, result)
        if any("file" in row for row in result["pictures"]):
            self.log.put(job, result)

    def give_back(self, number: int, why: str) -> None:
        """A worker died over a chunk: another takes it up, until too many did."""
        chunk = self.left.get(number)
        if chunk is None:  # it had told of it already
            return
        self.deaths[number] += 1
        done = {job.number: result for job in chunk.jobs if (result := finished(job)) is not None}
        left = [job for job in chunk.jobs if job.number not in done]
        if self.deaths[number] < TRIES:
            self.watch.note(f"a worker is gone ({why}); {len(left)} unfinished jobs of its go to another")
            self.queue.put(number, chunk)
            return
        del self.left[number]
        for job, result in done.items():
            self.keep(self.jobs[job], result)
        self.give_up(left, f"{TRIES} workers died over it: {why}")

    def give_up(self, jobs: Sequence[Job], reason: str) -> None:
        """Jobs that cannot be made."""
        for job in (self.jobs[job.number] for job in jobs):
            self.log.outcome.failures.append((job, reason))
            self.log.outcome.results[job.number] = fail(job, reason)
            self.watch.failed(job, reason)


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
    _joined: bool = False

    def __post_init__(self) -> None:
        if find_spec("ray") is None:
            raise ConfigError("hydra/launcher=ray needs a package of its own: pip install 'embedlab[ray]'.")
        for name in ("cpus", "pictures", *(["workers"] if self.workers is not None else [])):
            whole(name, getattr(self, name))
        if not isinstance(self.gpus, int | float) or isinstance(self.gpus, bool) or self.gpus < 0:
            raise ConfigError(f"hydra.launcher.gpus is {self.gpus!r}; it has to be a number, 0 or more.")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._join()

    def _join(self) -> None:
        import ray

        if self.address is not None and self.address != "auto" and "://" not in self.address:
            self._knock(self.address)
        own = {"address": "local", "include_dashboard": False}
        try:
            if not ray.is_initialized():
                ray.init(
                    **(own if self.address is None else {"address": self.address}),
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
                self._joined = True
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"the Ray cluster at '{self.address or 'this machine'}' cannot be reached: {reason}"
            ) from None
        most = sum(self._fit(node) for node in nodes)
        if most < 1:
            self.close()
            has = [f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes]
            raise ConfigError(
                f"no node of the Ray cluster has {self.cpus} CPUs and {self.gpus} GPUs for a worker; its nodes have "
                f"{listed(dict.fromkeys(has))}."
            )
        self.workers = min(self.workers or most, most)

    def _fit(self, node: dict[str, float]) -> int:
        """How many workers a node has room for."""
        by_gpus = node.get("GPU", 0) // self.gpus if self.gpus else float("inf")
        return int(min(node.get("CPU", 0) // self.cpus, by_gpus))

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

    def start(self, queue: Path, count: int) -> list[str]:
        """Each worker is one task, which Ray does not run again by itself."""
        import ray

        here, folder, cpus = os.getcwd(), str(queue), self.cpus
        paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        told = {name: value for name, value in os.environ.items() if name.startswith("HF_") and "TOKEN" not in name}

        def begin(worker: str) -> int:  # pickled by value: a node of a cluster has not this process's surroundings
            import contextlib
            import os
            import sys

            import ray

            with contextlib.suppress(OSError):  # what a relative path in the config means
                os.chdir(here)
            sys.path[:0] = paths
            os.environ.update(told)
            from embedlab.workers.crew import work

            return work(folder, worker, cpus, ray.get_runtime_context().get_node_id())

        task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, max_calls=1)(begin)
        first = len(self._running) + len(self._ended)
        names = [f"ray-{n}" for n in range(first, first + count)]
        self._running |= {name: task.remote(name) for name in names}
        return names

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
        if self._joined:
            ray.shutdown()


# ── Slurm ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Shift:
    """What a Slurm job runs; submitit starts it again when its time is over before its work is."""

    def __call__(self, queue: str, threads: int | None = None) -> int:
        """Carry out chunks under the name that Slurm gave the job."""
        import submitit

        self.worker = submitit.JobEnvironment().job_id
        return work(queue, self.worker, threads, os.environ.get("SLURMD_NODENAME"))

    def checkpoint(self, queue: str, threads: int | None = None) -> Any:
        """Time is over: leave what was begun to whoever comes next."""
        import submitit

        Queue(Path(queue)).let_go(self.worker)
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
    _alive: set[str] = field(default_factory=set)
    _looked: float = 0.0

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
        # Slurm's signal comes SIGNAL seconds before the end, and up to a minute earlier
        whole("minutes", self.minutes, 5)

    def start(self, queue: Path, count: int) -> list[str]:
        """An array of workers."""
        import submitit

        executor = submitit.SlurmExecutor(folder=queue.parent / ".slurm", max_num_timeout=1000)
        settings: dict[str, Any] = {
            "time": self.minutes,
            "cpus_per_task": self.cpus,
            "job_name": "embedlab",
            "signal_delay_s": SIGNAL,
            "srun_args": [f"--cpus-per-task={self.cpus}"],  # srun has not read it from the job since Slurm 22.05
            **({"partition": self.partition} if self.partition else {}),
            **({"gpus_per_node": self.gpus} if self.gpus else {}),
            **({"mem": self.memory} if self.memory else {}),
            **self.options,
        }
        try:
            executor.update_parameters(**settings)
            with redirect_stderr(StringIO()):  # what sbatch says is in the error, too
                jobs = executor.map_array(Shift(), [str(queue)] * count, [self.cpus] * count)
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[-300:]
            raise ConfigError(f"Slurm does not take the workers: {reason}") from None
        mine = {job.job_id: job for job in jobs}
        self._jobs |= mine
        self._alive |= mine.keys()
        return list(mine)

    def alive(self) -> set[str]:
        """What squeue lists; accounting, which many clusters do without, is not asked."""
        if not self._alive or time.monotonic() - self._looked < EVERY:
            return set(self._alive)
        self._alive &= self._listed()
        self._looked = time.monotonic()
        return set(self._alive)

    def _listed(self) -> set[str]:
        command = ["squeue", "--noheader", "--array", "--jobs", ",".join(self._arrays()), "--format", "%i"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return set(self._alive)
        if told.returncode and "Invalid job id" not in told.stderr:
            return set(self._alive)  # the controller is busy: nobody is dead for that
        return set(told.stdout.split())  # one that is completing is listed: its processes may not be gone yet

    def _arrays(self) -> list[str]:
        return sorted({name.split("_")[0] for name in self._alive})

    def last_words(self, worker: str) -> str:
        """The end of what it wrote."""
        job = self._jobs.get(worker)
        text = (job.stderr() or job.stdout() or "") if job is not None else ""
        lines = [line for line in text.splitlines() if line.strip()]
        own = [line for line in lines if not line.startswith(("srun:", "slurmstepd:"))]
        return (own or lines)[-1][:200] if lines else f"Slurm job {worker} ended"

    def close(self) -> None:
        """Cancel what still runs or waits."""
        if left := self._arrays():
            for how in (["--full", "--signal=KILL"], []):  # those that run: submitit lets SIGTERM pass; those that wait
                with suppress(OSError, subprocess.TimeoutExpired):
                    subprocess.run(["scancel", *how, *left], capture_output=True, timeout=60, check=False)
