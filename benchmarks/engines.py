"""Engines on this machine: one UNet call, and one whole picture, of each beside eager; interleaved in one process.

    python benchmarks/engines.py [--engines eager,compile,openvino,onnxruntime] [--model emoji] [--pictures 1,4,8,16]
                                 [--rounds 25] [--seconds 60] [--out FILE]

A call is that of so many guided pictures (two rows each). What is told of an engine is its median in ms, and eager's
time over its own: the median of the rounds' ratios, with a 95 % interval of that median by resampling. In a round every
engine runs once, in an order that changes, so that what else the machine does falls on all alike; `--seconds` is the
most that one table line takes. A whole picture is encoded, sampled in 25 steps and decoded. Beside it: seconds to
compile, where that was done now, and to load what was compiled; how far final latents are from eager's. Graphs are
kept in the user's cache. The load average is printed before and after: above one, figures are of no use.
"""

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from embedlab import Cell, Sampler, engines, load, render, with_engine
from embedlab.engines.auto import Work, example
from embedlab.engines.cache import Entry
from embedlab.engines.compiled import ready
from embedlab.engines.engine import Run
from embedlab.engines.graphs import Graph
from embedlab.errors import EngineError
from embedlab.files import cache

KNOWN = {
    **{"eager": engines.Eager(), "compile": engines.Compile(), "openvino": engines.OpenVINO()},
    **{"onnxruntime": engines.ONNXRuntime(), "openvino-bf16": engines.OpenVINO("bf16")},
    **{"onnxruntime-int8": engines.ONNXRuntime("int8"), "cuda_graph": engines.CUDAGraph()},
    **{"tensorrt": engines.TensorRT()},
}
STEPS = 25
Arms = dict[str, Callable[[], object]]


def interleaved(arms: Arms, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of each arm in each round, after one to warm up; rounds end with the seconds, but 5 there are."""
    took: dict[str, list[float]] = {name: [] for name in arms}
    order, ends = list(arms), time.perf_counter() + seconds
    for n in range(rounds + 1):
        random.Random(n).shuffle(order)
        for name in order:
            began = time.perf_counter()
            arms[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if n:
                took[name].append(time.perf_counter() - began)
        if n >= 5 and time.perf_counter() > ends:
            break
    return took


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """The median, and where 95 % of the medians of samples drawn from the same rounds lie."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[50], medians[-51]


def row(what: str, took: dict[str, list[float]], figures: list[dict[str, object]]) -> str:
    """A line of the table; its figures are added to the list."""
    eager, words = took["eager"], []
    for name, times in took.items():
        middle, low, high = interval([a / b for a, b in zip(eager, times, strict=True)])
        ms = 1000 * statistics.median(times)
        figures.append({"what": what, "engine": name, "ms": ms, "ratio": middle, "interval": [low, high]})
        words.append(f"{ms:8.1f} ms" if name == "eager" else f"{ms:8.1f} ms {middle:5.2f} ({low:.2f} to {high:.2f})")
    return f"{what:24s}" + "".join(f"{word:34s}" for word in words) + f"{len(eager)} rounds"


def load_line() -> str:
    """The load average, and how many threads torch has."""
    return f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def asked_for(argv: list[str] | None) -> argparse.Namespace:
    """The words of the command, with `names` of engines, eager first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="eager,compile,openvino,onnxruntime", help=f"of {', '.join(KNOWN)}")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--pictures", default="1,4,8,16", help="guided pictures in a call")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=60, help="the most that one line takes")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    asked = parser.parse_args(argv)
    asked.names = ["eager", *(name for name in asked.engines.split(",") if name != "eager")]
    if wrong := [name for name in asked.names if name not in KNOWN]:
        parser.error(f"there is no engine {wrong[0]}; there are {', '.join(KNOWN)}")
    return asked


def prepared(name: str, graph: Graph, figures: list[dict[str, object]]) -> Run:
    """The UNet by an engine; how long it took to compile, where that is done now, and to load, is a figure."""
    engine = KNOWN[name]
    engine.check(next(iter(graph.inputs.values())).device, torch.float32)
    if name == "eager":
        return engine.load(graph, cache())
    compiling = None
    if not Entry(engine, graph).whole:
        began = time.perf_counter()
        ready(engine, graph, print)
        compiling = time.perf_counter() - began
    began = time.perf_counter()
    run = ready(engine, graph, print)
    loading = time.perf_counter() - began
    figures.append({"what": "seconds to be ready", "engine": name, "compile": compiling, "load": loading})
    compiled = "compiled before" if compiling is None else f"compiled in {compiling:.1f} s"
    print(f"{name}: {compiled}, loaded in {loading:.2f} s", flush=True)
    return run


@torch.inference_mode()
def main(argv: list[str] | None = None) -> list[dict[str, object]]:
    """Print the table, and answer with its figures."""
    asked = asked_for(argv)
    model = load(asked.model)
    print(load_line(), flush=True)
    figures: list[dict[str, object]] = []
    models, runs = {"eager": model}, {}
    for name in asked.names:
        try:
            runs[name] = prepared(name, example(model, Work(1, STEPS, 1, (model.size, model.size))), figures)
            models[name] = with_engine(model, KNOWN[name], lambda line: None)
        except EngineError as error:
            print(f"without {name}: {error}")
    print(f"{'':24s}" + "".join(f"{name:34s}" for name in runs))
    for pictures in map(int, asked.pictures.split(",")):
        inputs = dict(example(model, Work(pictures, STEPS, pictures, (model.size, model.size))).inputs)
        arms: Arms = {name: lambda run=run, inputs=inputs: run(dict(inputs)) for name, run in runs.items()}
        took = interleaved(arms, asked.rounds, asked.seconds)
        print(row(f"{pictures} guided a call", took, figures), flush=True)
    cell = Cell("A picture of a puppy", sampler=Sampler("ddim", STEPS))
    latents = {name: render(fast, [cell], [0])[0].latents for name, fast in models.items()}
    arms = {name: lambda fast=fast: render(fast, [cell], [0]) for name, fast in models.items()}
    print(row(f"a picture, {STEPS} steps", interleaved(arms, asked.rounds, asked.seconds), figures), flush=True)
    for name in [name for name in models if name != "eager"]:
        far = float((latents[name] - latents["eager"]).abs().max())
        exact = KNOWN[name].exact
        figures.append({"what": "final latents", "engine": name, "far": far, "exact": exact})
        print(f"{name}: final latents {far:.1e} from eager's{'' if exact else ' (lossy)'}")
        assert far <= 1e-4 or not exact, f"{name} is no exact engine for {asked.model}"
    print(load_line())
    if asked.out:
        asked.out.write_text(json.dumps(figures, indent=1))
    return figures


if __name__ == "__main__":
    main()
