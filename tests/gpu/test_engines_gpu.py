"""Every engine that runs on the device ends in the latents of eager; which do not run there, and why, is printed."""

import importlib
import time

import pytest
import torch
from conftest import DEVICE
from test_gpu import CUDA, PROMPT, SEEDS, cells, near

from embedlab import Cell, EmbedlabError, Sampler, render

engines = importlib.import_module("embedlab.engines")


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_engines_end_in_the_latents_of_eager(load, kind, capsys):
    model, ran, faults = load(kind), [], {}
    many = [cell for cell in cells() if cell.prompt == PROMPT]
    eager = render(model, many, [*SEEDS, 2])
    for name, engine in engines.RECORDED.items():
        try:
            engine.check(DEVICE, torch.float32)
        except EmbedlabError as error:
            report(capsys, f"{kind}: {error}")
            continue
        said, began = [], time.perf_counter()
        try:
            made = engines.with_engine(model, engine, said.append)
            for seeds in (SEEDS, [*SEEDS, 2]):  # another batch
                for a, b in zip(render(made, many, seeds), eager, strict=True):
                    near(a.latents, b.latents[: len(seeds)], 1e-3 if engine.exact else 0.1)
            assert not [line for line in said if "runs eager" in line], said
            ran.append(name)
        except Exception as error:
            faults[name] = error
        report(capsys, f"{kind}: {name} took {time.perf_counter() - began:.1f} s {faults.get(name, '')}"[:300])
    assert not faults
    assert "eager" in ran
    assert not CUDA or {"cuda_graph", "compile"} <= set(ran)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_captured_graph_is_eager_to_the_bit_in_half_precision(load, dtype):
    model = load("sd1", dtype)
    name = "cuda_graph" if CUDA else "eager"
    cell = Cell(PROMPT, sampler=Sampler("ddim", 4))
    (eager,) = render(model, [cell], SEEDS)
    (graph,) = render(engines.with_engine(model, engines.RECORDED[name], print), [cell], SEEDS)
    assert torch.equal(eager.latents, graph.latents)


def report(capsys, line):
    with capsys.disabled():
        print(f"\n  {line}", end="")
