"""What the benchmarks against diffusers share: paired rounds, medians with intervals, what this machine can do."""

import os
import random
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import embedlab as lab
from embedlab.runtime import processor
from embedlab.structure.rate import matrix_rate

ENGINES = {"openvino": "OpenVINO", "onnxruntime": "ONNXRuntime", "compile": "Compile"}  # beside eager


@dataclass(frozen=True)
class Took:
    """What some work took: seconds, and seconds of the processor, of this process and of those that it waited for.

    The second of two ratios is the one to go by where others work on the same machine.
    """

    seconds: float
    busy: float


def took(work: Callable[[], object]) -> Took:
    """Do it once."""
    begun, busy = time.perf_counter(), processor_seconds()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Took(time.perf_counter() - begun, processor_seconds() - busy)


def processor_seconds() -> float:
    """Of this process and of its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def rounds(arms: Mapping[str, Callable[[], object]], count: int) -> dict[str, list[Took]]:
    """Every arm in each round, in turn forwards and backwards; once before that nobody counts."""
    for work in arms.values():
        work()
    found: dict[str, list[Took]] = {name: [] for name in arms}
    for turn in range(count):
        for name in list(arms) if turn % 2 else list(arms)[::-1]:
            found[name].append(took(arms[name]))
    return found


def ratio(above: list[Took], below: list[Took], above_each: float = 1, below_each: float = 1) -> str:
    """The median of the paired ratios with its interval, and that of the processor's seconds, each by so much work."""
    scale = below_each / above_each
    pairs = list(zip(above, below, strict=True))
    busy = statistics.median(scale * a.busy / b.busy for a, b in pairs)
    return f"{interval([scale * a.seconds / b.seconds for a, b in pairs])}; of the processor's seconds {busy:.2f}"


def interval(ratios: list[float]) -> str:
    """The median, and a bootstrap interval of it."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return f"{statistics.median(ratios):6.3f}  (95 %: {medians[50]:.3f} to {medians[-51]:.3f}, {len(ratios)} rounds)"


def with_engine(model: lab.Model, name: str) -> lab.Model:
    """A model whose UNet and decoder are run by an engine."""
    return model if name == "eager" else lab.with_engine(model, engine_of(name))


def engine_of(name: str) -> Any:
    """The settings of an engine."""
    return getattr(lab, ENGINES[name])()


@dataclass(frozen=True)
class Limit:
    """What nobody can be faster than: matrix products at the rate that this machine reaches with nothing else to do."""

    rate: float  # FLOP/s
    row: int  # FLOPs of a row of the UNet
    picture: int  # of decoding

    @classmethod
    def of(cls, source: lab.Source, model: lab.Model) -> "Limit":
        """That of a model at its own size."""
        inside = lab.anatomy(source, guided=False)
        row, picture = (inside.part(name).whole.flops for name in ("unet", "vae.decoder"))
        return cls(matrix_rate(model.device, model.unet.dtype, seconds=2), row, picture)

    def seconds(self, rows: int, pictures: int) -> float:
        """Of so many rows, and of decoding so many pictures."""
        return (rows * self.row + pictures * self.picture) / self.rate

    def __str__(self) -> str:
        return (
            f"matrix products: {self.rate / 1e9:.1f} GFLOP/s; a row of the UNet {self.row / 1e9:.3f} GFLOP, so that "
            f"{self.rate / self.row:.0f} rows a second are the limit; decoding costs {self.picture / self.row:.1f} rows"
        )


def machine() -> str:
    """Where it runs, and how busy that is."""
    load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    return f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; load average {load}"
