"""Chunks on a Slurm cluster: an array of jobs through submitit, one a chunk, so many at once.

Slurm and submitit queue a job again when its time is over, when it is preempted and when its node fails. Events come as
lines of a job's own log.
"""

from __future__ import annotations

import base64
import binascii
import os
import pickle
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from embedlab.checks import is_number
from embedlab.errors import ConfigError
from embedlab.workers.engine import Engine, Progress
from embedlab.workers.worker import Event, run_chunk

SIGNAL = 90  # seconds before the end of a Slurm job at which it is told
# why a job waits where it would wait for ever: what it asks for is nowhere, or above a limit
NEVER = ("PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints")
MARK = b"embedlab event "  # begins a line of a log that is for the process that was started


class SlurmTask:
    """What an element of the array runs; submitit queues it again when its time is over before its work is."""

    def __call__(self, data: bytes, threads: int) -> None:
        """Carry out a chunk."""
        torch.set_num_threads(threads)
        run_chunk(data, os.environ.get("SLURMD_NODENAME") or os.uname().nodename, _print_event)

    def checkpoint(self, data: bytes, threads: int) -> Any:
        """Time is over: the same again, which finds what was finished."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, data, threads)


def _print_event(event: Event) -> None:
    # a line of its own, whatever was printed before it without an end
    print(f"\n{MARK.decode()}{base64.b64encode(pickle.dumps(event)).decode()}", flush=True)


@dataclass
class _Element:
    """An element of an array, and how far its log was read."""

    chunk: int
    job: Any
    read: int = 0

    def events(self) -> Iterator[Event]:
        """Those that came since the last look; a line without an end is left for the next."""
        try:
            with Path(self.job.paths.stdout).open("rb") as log:
                log.seek(self.read)
                text = log.read()
        except OSError:  # it has not begun
            return
        whole = text[: text.rfind(b"\n") + 1]
        self.read += len(whole)
        for line in whole.splitlines():
            if line.startswith(MARK):
                with suppress(binascii.Error, pickle.UnpicklingError, EOFError):  # cut short by a kill
                    yield pickle.loads(base64.b64decode(line.removeprefix(MARK), validate=True))  # our own file

    def exit_reason(self) -> str:
        """The end of what it wrote."""
        lines = [line for line in (self.job.stderr() or "").splitlines() if line.strip()]
        own = [line for line in lines if not line.startswith(("srun:", "slurmstepd:"))]
        return (own or lines or [f"Slurm job {self.job.job_id} ended"])[-1][:200]


@dataclass
class Slurm(Engine):
    """Workers as elements of an array of Slurm jobs, submitted through submitit; logs and pickles go to `folder`.

    Raises ConfigError where Slurm's commands are missing, and where it does not take the jobs.
    """

    folder: Path
    workers: int = 2
    partition: str | None = None
    cpus: int = 1
    gpus: int = 0
    memory: str | None = None
    minutes: int = 240
    pictures: int = 256
    interval: float = 5.0  # seconds between questions to Slurm's controller
    options: dict[str, Any] = field(default_factory=dict)
    _elements: dict[str, _Element] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if find_spec("submitit") is None:
            raise ConfigError("hydra/launcher=slurm needs a package of its own: pip install 'embedlab[slurm]'.")
        if lacking := [name for name in ("sbatch", "squeue") if shutil.which(name) is None]:
            raise ConfigError(
                f"hydra/launcher=slurm needs Slurm's {lacking[0]}, which is not on this machine; start it on a login "
                "node of your cluster, or use hydra/launcher=batch."
            )
        self.check_whole(0, "gpus")
        self.check_whole(1, "workers", "cpus", "pictures")
        self.check_whole(5, "minutes")  # Slurm's signal comes SIGNAL seconds before the end, and up to a minute earlier
        if not is_number(self.interval) or self.interval <= 0:
            raise ConfigError(f"hydra.launcher.interval is {self.interval!r}; it has to be a number of seconds.")

    def run(self, progress: Progress) -> None:
        """Submit what waits, and read the logs of what runs, until no chunk is left."""
        while progress.left:
            if progress.waiting:
                numbers, progress.waiting[:] = list(progress.waiting), []
                self._submit(numbers, [progress.data(number) for number in numbers])
            there = listed_jobs(self._elements)  # asked before the logs are read: what is gone has written all of its
            if not progress.begun and (reason := next((r for r in there.values() if r in NEVER), None)):
                raise ConfigError(
                    f"Slurm does not start the workers: {reason}; hydra.launcher.cpus, gpus, memory, minutes and "
                    "partition say what they ask for."
                )
            for name, element in list(self._elements.items()):
                for event in element.events():
                    progress.on_event(element.chunk, event)
                if name not in there:
                    del self._elements[name]
                    if element.chunk in progress.left:
                        progress.on_death(element.chunk, element.exit_reason())
            if progress.left:
                time.sleep(self.interval)

    def _submit(self, numbers: list[int], chunks: list[bytes]) -> None:
        import submitit

        executor = submitit.SlurmExecutor(folder=self.folder, max_num_timeout=1000)
        settings: dict[str, Any] = {
            "time": self.minutes,
            "cpus_per_task": self.cpus,
            "job_name": "embedlab",
            "signal_delay_s": SIGNAL,
            "array_parallelism": self.workers,
            "srun_args": [f"--cpus-per-task={self.cpus}"],  # srun has not read it from the job since Slurm 22.05
        }
        optional = {"partition": self.partition, "gpus_per_node": self.gpus, "mem": self.memory}
        settings |= {name: value for name, value in optional.items() if value} | dict(self.options)
        try:
            executor.update_parameters(**settings)
            with redirect_stderr(StringIO()):  # what sbatch says is in the error, too
                jobs = executor.map_array(SlurmTask(), chunks, [self.cpus] * len(chunks))
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[-300:]
            raise ConfigError(f"Slurm does not take the workers: {reason}") from None
        self._elements |= {job.job_id: _Element(n, job) for n, job in zip(numbers, jobs, strict=True)}

    def close(self) -> None:
        """Cancel what still runs or waits, and leave nothing but logs."""
        cancel(self._elements)
        _remove_pickles(self.folder)


def listed_jobs(names: Iterable[str]) -> dict[str, str]:
    """Those of some jobs that squeue lists, and why they wait; accounting, which many clusters lack, is not asked."""
    there = dict.fromkeys(names, "")
    command = ["squeue", "--noheader", "--array", "--jobs", ",".join(_arrays(there)), "--format", "%i %r"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return there
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return there  # the controller is busy: nobody is dead for that
    listed = dict(line.split(maxsplit=1) for line in answer.stdout.splitlines() if line.strip())
    return {name: listed[name] for name in there if name in listed}  # one that is completing is not gone yet


def cancel(names: Iterable[str]) -> None:
    """End jobs of Slurm, those that run and those that wait."""
    if left := _arrays(names):
        for how in (["--full", "--signal=KILL"], []):  # those that run: submitit lets SIGTERM pass; those that wait
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(["scancel", *how, *left], capture_output=True, timeout=60, check=False)


def cancel_left(folder: Path) -> None:
    """End what a killed process left to Slurm in a sweep's folder: two at one job would take each other's files."""
    logs = folder / ".slurm"
    names = {path.name.removesuffix("_submitted.pkl") for path in logs.glob("*_submitted.pkl")}
    if not names:
        return
    if shutil.which("scancel") is None:
        raise ConfigError(
            f"jobs of Slurm may still work in '{folder}': where Slurm is, scancel {' '.join(_arrays(names))}, and take "
            f"'{logs}' away."
        )
    cancel(names)
    while listed_jobs(names):
        time.sleep(0.5)
    _remove_pickles(logs)


def _arrays(names: Iterable[str]) -> list[str]:
    return sorted({name.split("_")[0] for name in names})


def _remove_pickles(folder: Path) -> None:
    for path in [*folder.glob("*.pkl"), *folder.glob("*.sh")]:
        path.unlink(missing_ok=True)
