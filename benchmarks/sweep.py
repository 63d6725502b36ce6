"""A grid of 64 jobs (16 weights × 4 seeds, 25 steps) in four ways, interleaved; all costs in, pictures a second.

    python benchmarks/sweep.py [ROUNDS] [--dtype bfloat16] [--tracker wandb] [--engine NAME] [--only inside]

    a  a process a job                     embedlab operators.interpolate.weight=…   (2 jobs a round)
    b  Hydra's basic launcher              embedlab -m hydra/launcher=basic …        (16 jobs a round)
    c  diffusers' pipeline, everything loaded, one call a picture                     (8 calls a round)
    d  the batch launcher                  embedlab -m …                             (64 jobs a round)
    e  the same of 500 pictures            with --large

A picture is one that was asked for; a, b and d also draw the unedited ones, score, and write all files. Printed are
medians over rounds of the ratios d/a, d/b, d/c, e/c, each with a 95 % interval of the median (bootstrap over rounds),
of seconds and of the processor's seconds, and what the command itself says of its time (2.0 or more wanted of d/c, 2.6
of e/c, 25 of d/a). Then, with everything loaded (`--only inside` has this alone): a plan of 64 jobs and the UNet with
nothing around it at the same batch, in turn: shares by part, the ratio of their UNet rows a second (0.95 or more
wanted), time outside of UNet and decoder (3 % or less wanted), what the machine's rate of matrix products would take,
and how many texts were encoded. Then the plan of 10,000 cells: time a cell, and what it holds. Beside, the load
average: seconds want idle cores.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from paired import ENGINES, Limit, Took, engine_of, interval, machine, ratio, took, with_engine

from embedlab import Cell, Interpolate, Job, Sampler, Source, Store, embed_all, encode, load, run_jobs
from embedlab.condition import condition_calls
from embedlab.operators import edit
from embedlab.rendering import sample_batch
from embedlab.samples import Request
from embedlab.sweep.plan import plan
from embedlab.timing import Timer, Times

STEPS, PROMPT, AT_ONCE = 25, "A picture of a puppy", 16
WEIGHTS = [f"{n / 15:.3f}" for n in range(16)]
MANY = [f"{n / 124:.4f}" for n in range(125)]
EDIT = ["operators=[interpolate]", "operators.interpolate.toward=skunk", f"sampler.steps={STEPS}"]


def command(*words: str) -> str:
    """Run embedlab in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "embedlab", *words], check=True, capture_output=True, text=True)
    return done.stdout


def inside(rounds: int, dtype: str, engine: str) -> None:
    """Where the time of a plan of 64 jobs goes once everything is loaded, beside the UNet with nothing around it."""
    source = Source("emoji", dtype=dtype)
    model = source.load()
    mine = with_engine(model, engine)
    more: dict[str, Any] = {} if engine == "eager" else {"engine": engine_of(engine)}
    cells = [Cell(PROMPT, (Interpolate("puppy", "skunk", float(w)),), sampler=Sampler("ddim", STEPS)) for w in WEIGHTS]
    requests = [Request(calls, n) for n, calls in enumerate(condition_calls(model, cells[:AT_ONCE]))]

    def bare() -> Times:
        timer = Timer()
        with timer:
            sample_batch(mine, requests, timer=timer)
        return timer.times()

    def planned() -> Times:
        with tempfile.TemporaryDirectory() as folder:
            jobs = [
                Job(source, cell, (seed,), Path(folder, f"{n}-{seed}"), at_once=AT_ONCE, number=4 * n + seed, **more)
                for n, cell in enumerate(cells)
                for seed in range(4)
            ]
            return run_jobs(jobs, Store(Path(folder, "store"))).times

    limit = Limit.of(source, model)
    print(limit)
    bare(), planned()
    alone, swept = [], []
    for turn in range(rounds):
        for work, found in ((bare, alone), (planned, swept)) if turn % 2 else ((planned, swept), (bare, alone)):
            found.append(work())
    ratios = [plan.rate("UNet") / one.rate("UNet") for one, plan in zip(alone, swept, strict=True)]
    print(f"UNet rows a second in a plan of 64 jobs / alone at {AT_ONCE} pictures ({engine}): {interval(ratios)}")
    print(f"time outside of UNet and decoder: {interval([1 - t.share('UNet') - t.share('decode') for t in swept])}")
    all_of_it = sum(swept[1:], swept[0])
    rows, pictures = (all_of_it.spent(name).rows for name in ("UNet", "decode"))
    least = limit.seconds(rows, pictures) / all_of_it.seconds
    print(f"64 jobs in this process, {all_of_it.seconds / rounds:.1f} s: {all_of_it}; {least:.0%} at that rate")
    windows = all_of_it.spent("encode").rows // rounds
    print(f"{windows} windows encoded for {len(cells)} edits; {machine()}")


def planning(jobs: int = 2500, seeds: int = 4) -> str:
    """What a plan of 10,000 cells costs."""
    source = Source("emoji")
    source.identity  # noqa: B018  (read once, before)
    edits = [Interpolate("puppy", "skunk", n / jobs) for n in range(1, jobs + 1)]

    def make() -> dict:
        cells = [Cell(PROMPT, (one,), sampler=Sampler("ddim", STEPS)) for one in edits]
        return plan([Job(source, cell, range(seeds), Path()) for cell in cells])

    start = time.perf_counter()
    make()
    spent = time.perf_counter() - start
    tracemalloc.start()
    wanted = make()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    each = 1000 * spent / len(wanted), held / len(wanted) / 1024
    return f"{len(wanted)} cells planned in {spent:.1f} s, {each[0]:.2f} ms and {each[1]:.1f} KiB a cell"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tracker", default="silent")
    parser.add_argument("--engine", default="eager", choices=["eager", *ENGINES])
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--only", choices=["inside"])
    given = parser.parse_args()
    print(machine())
    if given.only != "inside":
        outside(given)
    inside(given.rounds, given.dtype, given.engine)
    if given.only != "inside":
        print(planning())


def outside(given: argparse.Namespace) -> None:
    """Whole commands beside a pipeline that is loaded already."""
    model = load("emoji", dtype=given.dtype)
    pipe = StableDiffusionPipeline.from_pretrained(
        Source("emoji").location, safety_checker=None, torch_dtype=model.unet.dtype
    )
    pipe.vae.to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    common = [*EDIT, f"tracker={given.tracker}", f"model.dtype={given.dtype}"]
    common += [] if given.engine == "eager" else [f"engine={given.engine}"]
    said: list[str] = []

    def theirs() -> None:
        for n in range(8):
            op = Interpolate("puppy", "skunk", n / 8)
            prompts = [edit(embed_all(PROMPT, model.towers), [op], model.towers), embed_all("", model.towers)]
            cond, uncond = encode(prompts, model.towers)
            inputs = {"prompt_embeds": cond.hidden[None], "negative_prompt_embeds": uncond.hidden[None]}
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
    pictures = {"a": 2, "b": 16, "c": 8, "d": 64, "e": 500}
    found: dict[str, list[Took]] = {name: [] for name in (pictures if given.large else "abcd")}
    for turn in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            arms: dict[str, Callable[[], object]] = {
                "a": lambda: process(folder),
                "b": lambda: swept(f"{folder}/b", WEIGHTS[4:8], "hydra/launcher=basic"),
                "c": theirs,
                "d": lambda: swept(f"{folder}/d", WEIGHTS),
                "e": lambda: swept(f"{folder}/e", MANY),
            }
            for name in list(found) if turn % 2 else list(found)[::-1]:
                found[name].append(took(arms[name]))
        print("  ".join(f"{n} {pictures[n] / t[-1].seconds:.3f}/s" for n, t in found.items()), flush=True)
    labels = {"a": "a process a job", "b": "Hydra's basic launcher", "c": "a pipeline in a loop"}
    for name, label in labels.items():
        print(f"the batch launcher / {label:24s}{ratio(found[name], found['d'], pictures[name], pictures['d'])}")
    if given.large:
        print(
            f"the same of 500 pictures / {labels['c']:18s}{ratio(found['c'], found['e'], pictures['c'], pictures['e'])}"
        )
    lines = [line for text in said for line in re.findall(r"\d+ UNet evaluations in .*", text)]
    print(max(lines, key=lambda line: int(line.split()[0])))  # of the largest arm
    medians = {name: statistics.median(pictures[name] / t.seconds for t in found[name]) for name in found}
    print(", ".join(f"{name} {rate:.2f} pictures a second" for name, rate in medians.items()))


if __name__ == "__main__":
    main()
