"""Which engine is the fastest here, by measurement, for what is to be made."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch

from embedlab.arguments import check_fields
from embedlab.engines.cache import Entry
from embedlab.engines.compiled import Say, eager_part, ready
from embedlab.engines.eager import Eager
from embedlab.engines.engine import Engine
from embedlab.engines.graphs import Graph, noise_for
from embedlab.engines.onnxruntime import ONNXRuntime
from embedlab.engines.openvino import OpenVINO
from embedlab.errors import EngineError
from embedlab.files import cache, write_json
from embedlab.models import Model
from embedlab.models.parts import Predict

FILE = "engines.json"
REPEATS = 3
COMPILING = 0.8  # seconds a million parameters, where none was compiled here yet (measured: 5 s for 6 M on two cores)
SAVING = 0.15  # of a call's time, where it was not measured yet: what an engine saves at large batches


@dataclass(frozen=True)
class Work:
    """What is to be made: so many pictures of (height, width) pixels, by so many UNet calls each, `at_once` a call."""

    pictures: int
    calls: int
    at_once: int
    size: tuple[int, int]

    @property
    def batches(self) -> int:
        """UNet calls in all."""
        return -(-self.pictures // self.at_once) * self.calls


@dataclass(frozen=True)
class Auto:
    """The fastest exact engine that is installed, by measurement on this machine with this model and batch.

    It is compiled only where what it saves on the pictures asked for exceeds the time that compiling takes. What was
    measured is remembered. On another device than the CPU it is eager.
    """

    candidates: tuple[Engine, ...] = (OpenVINO(), ONNXRuntime())

    name: ClassVar[str] = "auto"
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """It runs everywhere."""

    def choose(self, model: Model, work: Work, say: Say) -> Engine:
        """The engine for this work; `say` is told which and why, where it is not eager."""
        unet = eager_part(model.unet)
        able = [engine for engine in self.candidates if runs(engine, unet)]
        if not able or work.batches <= 2 * (REPEATS + 1):  # measuring would cost more than it saves
            return Eager()
        graph = example(model, work)
        known = remembered()
        eager: list[Engine] = [Eager()]
        seconds: dict[str, float] = known.get(self._case(model, work), {})
        if "eager" not in seconds:
            seconds["eager"] = measured(eager, graph, say)["eager"]
        worth = [engine for engine in able if self._worth(engine, graph, seconds, work, known)]
        if new := [engine for engine in worth if engine.name not in seconds]:
            began, fresh = time.perf_counter(), [engine for engine in new if not Entry(engine, graph).there]
            seconds |= measured([*eager, *new], graph, say)
            for engine in fresh:
                known.setdefault("compiling", {})[engine.name] = (time.perf_counter() - began) / millions(graph)
        remember({**known, self._case(model, work): seconds})
        there = [engine for engine in (*eager, *worth) if engine.name in seconds]
        best: Engine = min(there, key=lambda engine: seconds[engine.name])
        if best.name != "eager":
            ratio = seconds["eager"] / seconds[best.name]
            say(f"engine: {best.name}, {ratio:.2f} times as fast as eager for {work.at_once} pictures a call")
        return best

    def _worth(self, engine: Engine, graph: Graph, seconds: dict[str, float], work: Work, known: Any) -> bool:
        """Whether what an engine saves exceeds what it costs to have it."""
        saving = max(0.0, 1 - seconds[engine.name] / seconds["eager"]) if engine.name in seconds else SAVING
        rate = known.get("compiling", {}).get(engine.name, COMPILING)
        cost = 0.5 if Entry(engine, graph).there else rate * millions(graph)
        if engine.name not in seconds:
            cost += 2 * (REPEATS + 1) * seconds["eager"]
        return work.batches * seconds["eager"] * saving > cost

    def _case(self, model: Model, work: Work) -> str:
        unet = model.unet
        height, width = work.size
        machine = f"{torch.get_num_threads()} threads {os.uname().nodename}"
        return f"{model.name} {unet.dtype} {height}x{width} {work.at_once} at once {machine}"


def runs(engine: Engine, unet: Any) -> bool:
    """Whether an engine is here and fits."""
    try:
        engine.check(unet.device, unet.dtype)
    except EngineError:
        return False
    return True


def millions(graph: Graph) -> float:
    """Parameters."""
    count: int = sum(p.numel() for p in graph.module.parameters())
    return count / 1e6


def example(model: Model, work: Work) -> Graph:
    """The UNet with inputs of the shape of this work's calls, filled with noise."""
    unet, (height, width) = eager_part(model.unet), (side // model.factor for side in work.size)
    inputs = noise_for(unet, work.at_once * (1 if unet.config.time_cond_proj_dim else 2), (height, width))
    return Graph("unet", Predict(unet, tuple(inputs)).eval(), inputs)


@torch.inference_mode()
def measured(engines: list[Engine], graph: Graph, say: Say) -> dict[str, float]:
    """Seconds a call by engine: the median of interleaved calls, after one to warm up; without those that refuse it."""
    calls: dict[str, Callable[[], Any]] = {}
    for engine in engines:
        try:
            run = ready(engine, graph, say)
        except EngineError as error:
            say(f"engine=auto does without {engine.name}: {error}")
            continue
        calls[engine.name] = partial(run, dict(graph.inputs))
    took: dict[str, list[float]] = {name: [] for name in calls}
    for n in range(REPEATS + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if n:
                took[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in took.items()}


def remembered() -> dict[str, Any]:
    """What was measured on this machine."""
    try:
        known = json.loads((cache() / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def remember(known: dict[str, Any]) -> None:
    """Keep what was measured; where that cannot be kept it is measured again next time."""
    try:
        write_json(cache() / FILE, known)
    except OSError:
        return
