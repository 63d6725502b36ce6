"""Chunks on a Ray cluster: actors that keep their model, which Ray places, and starts again where one dies."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch

from embedlab.checks import number_within
from embedlab.errors import ConfigError, listed
from embedlab.workers.engine import TRIES, Engine, Progress
from embedlab.workers.worker import Event, run_chunk


@dataclass
class Ray(Engine):
    """Workers as actors of a Ray cluster: one at `address`, or one on this machine for the length of the sweep.

    Raises ConfigError where the cluster cannot be reached, and where no node of it has room for a worker.
    """

    address: str | None = None
    workers: Any = None  # a number; as many as fit when left out
    cpus: int = 1
    gpus: float = 0
    memory: str | None = None  # such as 16G
    pictures: int = 64
    _actors: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        if find_spec("ray") is None:
            raise ConfigError("hydra/launcher=ray needs a package of its own: pip install 'embedlab[ray]'.")
        self.check_whole(1, "cpus", "pictures", *(["workers"] if self.workers is not None else []))
        number_within(self.gpus, "hydra.launcher.gpus", ConfigError)
        self._bytes = 0 if self.memory is None else bytes_of(self.memory)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_enable_output_error_log_if_still_retry", "0")  # it would print what we report
        nodes = self._join()
        most = sum(map(self._fit, nodes))
        if most < 1:
            self.close()
            memory = f" and {self.memory} of memory" if self.memory else ""
            has = [
                f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs and {node.get('memory', 0) / 2**30:.1f}G"
                for node in nodes
            ]
            raise ConfigError(
                f"no node of the Ray cluster has {self.cpus} CPUs and {self.gpus} GPUs{memory} for a worker; its nodes "
                f"have {listed(dict.fromkeys(has))}."
            )
        self.workers = min(self.workers or most, most)

    def _join(self) -> list[dict[str, float]]:
        """Join the cluster, or start one; answers with what its nodes have."""
        import ray

        try:
            if self.address not in (None, "auto") and "://" not in self.address:  # Ray would wait long for it
                host, _, port = self.address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=5).close()
            self._joined = not ray.is_initialized()
            if self._joined:
                where = {"address": self.address or "local"} | ({} if self.address else {"include_dashboard": False})
                ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
            return [node["Resources"] for node in ray.nodes() if node["Alive"]]
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ConfigError(
                f"the Ray cluster at '{self.address or 'this machine'}' cannot be reached: "
                f"{' '.join(str(error).split())[:200]}. `ray start --head` starts one; without hydra.launcher.address "
                "one is started on this machine."
            ) from None

    def _fit(self, node: dict[str, float]) -> int:
        """How many workers a node has room for."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": self._bytes}
        return int(min(node.get(name, 0) // amount for name, amount in wanted.items() if amount))

    def run(self, progress: Progress) -> None:
        """Give a chunk to every actor that has none, and take the events that come, until no chunk is left.

        A chunk is not tried again by Ray, which would wait for the same actor, and so for room where its node is lost;
        that an actor is there again is a call of its own.
        """
        import ray

        class Worker:  # in here, so that it is pickled by value: what it is sent to may fail to import embedlab
            def run(self, work: Any, *settings: Any) -> Iterator[Any]:
                yield from work(*settings)

        kind = ray.remote(
            num_cpus=self.cpus, num_gpus=self.gpus, memory=self._bytes or None, max_restarts=-1, max_task_retries=0
        )(Worker).options(runtime_env={"env_vars": _environment()})
        self._actors = [kind.remote() for _ in range(min(self.workers, len(progress.left)))]

        def ready(actor: Any) -> Any:
            return actor.__ray_ready__.options(max_task_retries=TRIES - 1).remote()

        # by what is waited for: an actor, and the chunk of whose events it is the stream
        awaited: dict[Any, tuple[Any, int | None]] = {ready(actor): (actor, None) for actor in self._actors}
        idle: list[Any] = []
        why = ""
        while progress.left:
            while idle and progress.waiting:
                actor, number = idle.pop(), progress.waiting.pop(0)
                call = actor.run.options(num_returns="streaming")
                awaited[call.remote(_events, progress.data(number), os.getcwd(), self.cpus)] = actor, number
            if not awaited:
                raise ConfigError(f"the workers end before they start a job: {why}")
            for source in ray.wait([*awaited])[0]:
                actor, chunk = awaited[source]
                try:
                    if chunk is None:
                        ray.get(source)
                    elif (event := next(source, None)) is not None:
                        progress.on_event(chunk, ray.get(event))
                        continue
                    else:
                        progress.on_death(chunk, "it ended without an answer")
                    idle.append(actor)
                except ray.exceptions.RayError as error:
                    why = exit_reason(error)
                    if chunk is None:
                        progress.observer.on_notice(f"a worker cannot begin: {why}")
                    else:
                        awaited[ready(actor)] = actor, None
                        progress.on_death(chunk, why)
                del awaited[source]

    def close(self) -> None:
        """Leave the cluster; one that was started for this sweep ends."""
        import ray

        for actor in self._actors:
            ray.kill(actor)
        if self._joined:
            ray.shutdown()


def _events(data: bytes, folder: str, threads: int) -> Iterator[Event]:
    """Carry a chunk out in an actor, on a thread beside the one that gives its events."""
    import ray

    with suppress(OSError):  # what a relative path in the config means
        os.chdir(folder)
    torch.set_num_threads(threads)
    node = ray.get_runtime_context().get_node_id()
    events: SimpleQueue[Event | None] = SimpleQueue()

    def work() -> None:
        try:
            run_chunk(data, node, events.put)
        finally:
            events.put(None)

    Thread(target=work, name="embedlab-chunk", daemon=True).start()
    while (event := events.get()) is not None:
        yield event


def _environment() -> dict[str, str]:
    """What of this process' environment a worker's lacks."""
    found = {key: value for key, value in os.environ.items() if key.startswith("HF_") and "TOKEN" not in key}
    if paths := [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]:
        found["PYTHONPATH"] = os.pathsep.join(paths)
    return found


def exit_reason(error: Exception) -> str:
    """Why a worker is gone, on one line of what Ray says: of the user's own error its last, else its first sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if hasattr(error, "cause"):
        return lines[-1][:200]
    detail = re.search(r"exit detail: ([^.]+)", str(error))
    return (detail[1] if detail else lines[0])[:200].strip()


def bytes_of(memory: Any) -> int:
    """A setting of memory in bytes.

    >>> bytes_of("16G")
    17179869184
    """
    found = re.fullmatch(r"(\d*\.?\d+) *([KMGT]?)B?", str(memory))
    if found is None:
        raise ConfigError(f"hydra.launcher.memory is {memory!r}; it has to be a size such as 16G, or null.")
    return int(float(found[1]) * 2 ** (10 * " KMGT".index(found[2] or " ")))
