"""A grid of 64 jobs (16 weights × 4 seeds, 25 steps) in four ways, interleaved; all costs in, pictures a second.

    python benchmarks/sweep.py [ROUNDS] [--dtype bfloat16] [--tracker wandb]

    a  a process a job                     embedlab operators.interpolate.weight=…   (2 jobs a round)
    b  Hydra's basic launcher              embedlab -m hydra/launcher=basic …        (16 jobs a round)
    c  diffusers' pipeline, everything loaded, one call a picture                     (8 calls a round)
    d  the batch launcher                  embedlab -m …                             (64 jobs a round)

A picture is one that was asked for; a, b and d also draw the unedited ones, score, and write all files. Printed are
medians over rounds of the ratios d/a, d/b, d/c, each with a 95 % interval of the median (bootstrap over rounds), and
where d's time goes: imports and plan, UNet calls, work between them; of the calls of a plan in this process the shares
of UNet, decoder and text encoder, and how many texts were encoded. Then the plan of 10,000 cells: time a cell, and what
it holds.
"""

import argparse
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import nn

from embedlab import Cell, Interpolate, Job, Sampler, Source, Store, embed_all, encode, load, run_jobs
from embedlab.operators import edit
from embedlab.sweep.plan import plan

STEPS, PROMPT = 25, "A picture of a puppy"
WEIGHTS = [f"{n / 15:.3f}" for n in range(16)]
EDIT = ["operators=[interpolate]", "operators.interpolate.toward=skunk", f"sampler.steps={STEPS}"]


def rate(pictures: int, work: Callable[[], object]) -> float:
    """Pictures a second."""
    start = time.perf_counter()
    work()
    return pictures / (time.perf_counter() - start)


def command(*words: str) -> str:
    """Run embedlab in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "embedlab", *words], check=True, capture_output=True, text=True)
    return done.stdout


def interval(ratios: list[float]) -> str:
    """The median, and a bootstrap interval of it."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return f"{statistics.median(ratios):6.2f}  (95 %: {medians[50]:.2f} to {medians[-51]:.2f}, {len(ratios)} rounds)"


def shares(dtype: str) -> str:
    """Where the time of a plan of 64 jobs goes once everything is loaded, by hooks of the model's modules."""
    source = Source("emoji", dtype=dtype)
    model, spent, began, texts = source.load(), Counter[str](), {}, 0

    def count_texts(module: nn.Module, words: tuple, settings: dict) -> None:
        nonlocal texts
        texts += len(settings["input_ids"])

    with ExitStack() as hooks, tempfile.TemporaryDirectory() as folder:
        encoder = model.towers[0].core
        for name, module in (("UNet", model.unet), ("decoder", model.vae.decoder), ("text encoder", encoder)):
            start = partial(lambda name, *_: began.update({name: time.perf_counter()}), name)
            end = partial(lambda name, *_: spent.update({name: time.perf_counter() - began[name]}), name)
            for hook in (module.register_forward_pre_hook(start), module.register_forward_hook(end)):
                hooks.callback(hook.remove)
        hooks.callback(encoder.register_forward_pre_hook(count_texts, with_kwargs=True).remove)
        edits = [Interpolate("puppy", "skunk", float(weight)) for weight in WEIGHTS]
        jobs = [
            Job(source, Cell(PROMPT, (one,), sampler=Sampler("ddim", STEPS)), (seed,), Path(folder, f"{n}-{seed}"))
            for n, one in enumerate(edits)
            for seed in range(4)
        ]
        start = time.perf_counter()
        run_jobs(jobs, Store(Path(folder, "store")))
        took = time.perf_counter() - start
    parts = ", ".join(f"{name} {seconds / took:.1%}" for name, seconds in spent.items())
    rest = 1 - sum(spent.values()) / took
    return f"64 jobs in this process: {parts}, all else {rest:.1%}; {texts} windows encoded for {len(edits)} edits"


def planned(jobs: int = 2500, seeds: int = 4) -> str:
    """What a plan of 10,000 cells costs."""
    source = Source("emoji")
    source.identity  # noqa: B018  (read once, before)
    edits = [Interpolate("puppy", "skunk", n / jobs) for n in range(1, jobs + 1)]

    def make() -> dict:
        cells = [Cell(PROMPT, (one,), sampler=Sampler("ddim", STEPS)) for one in edits]
        return plan([Job(source, cell, range(seeds), Path()) for cell in cells])

    start = time.perf_counter()
    make()
    took = time.perf_counter() - start
    tracemalloc.start()
    wanted = make()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    each = 1000 * took / len(wanted), held / len(wanted) / 1024
    return f"{len(wanted)} cells planned in {took:.1f} s, {each[0]:.2f} ms and {each[1]:.1f} KiB a cell"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tracker", default="silent")
    given = parser.parse_args()
    model = load("emoji", dtype=given.dtype)
    pipe = StableDiffusionPipeline.from_pretrained(
        Source("emoji").location, safety_checker=None, torch_dtype=model.unet.dtype
    )
    pipe.vae.to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    common = [*EDIT, f"tracker={given.tracker}", f"model.dtype={given.dtype}"]
    said: list[str] = []

    def theirs() -> None:
        for n in range(8):
            op = Interpolate("puppy", "skunk", n / 8)
            prompts = [edit(embed_all(PROMPT, model.towers), [op], model.towers), embed_all("", model.towers)]
            told, empty = encode(prompts, model.towers)
            inputs = {"prompt_embeds": told.hidden[None], "negative_prompt_embeds": empty.hidden[None]}
            latents = pipe(
                **inputs,
                num_inference_steps=STEPS,
                guidance_scale=4.0,
                generator=torch.Generator().manual_seed(n),
                output_type="latent",
            ).images
            pipe.vae.decode(latents.float() / pipe.vae.config.scaling_factor)

    def process(folder: str) -> None:
        for n, seed in enumerate((0, 1)):
            command(
                *common,
                f"operators.interpolate.weight={WEIGHTS[5 + n]}",
                f"seeds=[{seed}]",
                f"hydra.run.dir={folder}/a{n}",
            )

    def swept(folder: str, weights: list[str], *more: str) -> None:
        grid = [f"operators.interpolate.weight={','.join(weights)}", "seeds=[0],[1],[2],[3]"]
        said.append(command("-m", *common, *grid, f"hydra.sweep.dir={folder}", *more))

    theirs()
    rates: dict[str, list[float]] = {name: [] for name in "abcd"}
    for turn in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            arms: list[tuple[str, int, Callable[[], object]]] = [
                ("a", 2, lambda: process(folder)),
                ("b", 16, lambda: swept(f"{folder}/b", WEIGHTS[4:8], "hydra/launcher=basic")),
                ("c", 8, theirs),
                ("d", 64, lambda: swept(f"{folder}/d", WEIGHTS)),
            ]
            for name, pictures, work in arms if turn % 2 else arms[::-1]:
                rates[name].append(rate(pictures, work))
        print("  ".join(f"{name} {rates[name][-1]:.3f}/s" for name in "abcd"), flush=True)
    for name, label in (("a", "a process a job"), ("b", "Hydra's basic launcher"), ("c", "a pipeline in a loop")):
        print(
            f"the batch launcher / {label:24s}{interval([d / o for d, o in zip(rates['d'], rates[name], strict=True)])}"
        )
    print(next(line for text in reversed(said) for line in re.findall(r"\d+ UNet evaluations in .*", text)))
    print(shares(given.dtype))
    print(planned())


if __name__ == "__main__":
    main()
