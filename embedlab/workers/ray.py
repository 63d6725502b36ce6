"""Chunks on a Ray cluster: actors that keep their model, which Ray places, and starts again where one dies."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from embedlab.errors import ConfigError, listed
from embedlab.workers.chunks import TRIES, Progress, check_whole

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass
class Ray:
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
    _joined: bool = False

    def __post_init__(self) -> None:
        if find_spec("ray") is None:
            raise ConfigError("hydra/launcher=ray needs a package of its own: pip install 'embedlab[ray]'.")
        for name in ("cpus", "pictures", *(["workers"] if self.workers is not None else [])):
            check_whole(name, getattr(self, name))
        if not isinstance(self.gpus, int | float) or isinstance(self.gpus, bool) or self.gpus < 0:
            raise ConfigError(f"hydra.launcher.gpus is {self.gpus!r}; it has to be a number, 0 or more.")
        self._bytes = bytes_of(self.memory)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_enable_output_error_log_if_still_retry", "0")  # it would print what we tell
        self._join()

    def _join(self) -> None:
        import ray

        if self.address is not None and self.address != "auto" and "://" not in self.address:
            _check_reachable(self.address)
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
            memory = f" and {self.memory} of memory" if self.memory else ""
            has = [
                f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs"
                + (f" and {node.get('memory', 0) / UNITS['G']:.1f}G" if memory else "")
                for node in nodes
            ]
            raise ConfigError(
                f"no node of the Ray cluster has {self.cpus} CPUs and {self.gpus} GPUs{memory} for a worker; its nodes "
                f"have {listed(dict.fromkeys(has))}."
            )
        self.workers = min(self.workers or most, most)

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

        kind = ray.remote(
            num_cpus=self.cpus, num_gpus=self.gpus, memory=self._bytes or None, max_restarts=-1, max_task_retries=0
        )(_actor_class())
        self._actors = [kind.remote() for _ in range(min(self.workers, len(progress.left)))]
        surroundings = _surroundings()

        def begin(actor: Any) -> Any:
            return actor.begin.options(max_task_retries=TRIES - 1).remote(surroundings, self.cpus)

        beginning = {begin(actor): actor for actor in self._actors}
        running: dict[Any, tuple[Any, int]] = {}  # by the stream of its events: an actor, and the chunk it is at
        idle: list[Any] = []
        why = ""
        while progress.left:
            while idle and progress.waiting:
                actor, number = idle.pop(), progress.waiting.pop(0)
                events = actor.run.options(num_returns="streaming").remote(progress.data(number))
                running[events] = actor, number
            if not beginning and not running:
                raise ConfigError(f"the workers end before they start a job: {why}")
            for ready in ray.wait([*beginning, *running])[0]:
                if ready in beginning:
                    actor = beginning.pop(ready)
                    try:
                        ray.get(ready)
                    except ray.exceptions.RayError as error:
                        why = exit_reason(error)
                        if beginning or running or idle:
                            progress.observer.on_notice(f"a worker cannot begin: {why}")
                    else:
                        idle.append(actor)
                    continue
                actor, number = running[ready]
                try:
                    progress.on_event(number, ray.get(next(ready)))
                    continue
                except StopIteration:
                    idle.append(actor)
                    progress.on_death(number, "it ended without an answer")
                except ray.exceptions.RayError as error:
                    beginning[begin(actor)] = actor
                    progress.on_death(number, exit_reason(error))
                del running[ready]

    def close(self) -> None:
        """Leave the cluster; one that was started for this sweep ends."""
        import ray

        for actor in self._actors:
            ray.kill(actor)
        if self._joined:
            ray.shutdown()


def _actor_class() -> type:
    """The class of the actors; defined here so that it is pickled by value: a node may not find embedlab by itself."""

    class Worker:
        def begin(self, surroundings: dict[str, Any], threads: int) -> None:
            import contextlib
            import os
            import sys

            with contextlib.suppress(OSError):  # what a relative path in the config means
                os.chdir(surroundings["folder"])
            sys.path[:0] = [path for path in surroundings["paths"] if path not in sys.path]
            os.environ.update(surroundings["environment"])
            from embedlab.workers.chunks import prepare_process

            prepare_process(threads)

        def run(self, data: bytes) -> Iterator[Any]:
            from queue import SimpleQueue
            from threading import Thread

            import ray

            from embedlab.workers.chunks import run_chunk

            events: SimpleQueue[Any] = SimpleQueue()
            node = ray.get_runtime_context().get_node_id()

            def work() -> None:
                try:
                    run_chunk(data, node, events.put)
                finally:
                    events.put(None)

            Thread(target=work, name="embedlab-chunk", daemon=True).start()
            while (event := events.get()) is not None:
                yield event

    return Worker


def _surroundings() -> dict[str, Any]:
    """What of this process a worker's lacks."""
    return {
        "folder": os.getcwd(),
        "paths": [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path],
        "environment": {k: v for k, v in os.environ.items() if k.startswith("HF_") and "TOKEN" not in k},
    }


def _check_reachable(address: str) -> None:
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


def exit_reason(error: Exception) -> str:
    """Why a worker is gone, on one line of what Ray says: of the user's own error its last, else its first sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if hasattr(error, "cause"):
        return lines[-1][:200]
    detail = re.search(r"exit detail: ([^.]+)", str(error))
    return (detail[1] if detail else lines[0])[:200].strip()


def bytes_of(memory: Any) -> int:
    """A setting of memory in bytes; 0 where none is asked for.

    >>> bytes_of("16G"), bytes_of(None)
    (17179869184, 0)
    """
    if memory is None:
        return 0
    if (found := re.fullmatch(r"([0-9.]+) *([KMGT]?)B?", str(memory))) and found[1].count(".") < 2:
        return int(float(found[1]) * UNITS[found[2]])
    raise ConfigError(f"hydra.launcher.memory is {memory!r}; it has to be a size such as 16G, or null.")
