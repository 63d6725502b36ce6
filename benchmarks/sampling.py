"""64 cells (16 edits × 4 seeds, 25 steps) drawn in four ways by the default model, interleaved; pictures a second.

    python benchmarks/sampling.py [ROUNDS] [--edits 16] [--seeds 4] [--steps 25] [--engine NAME] [--only lists]

    call    diffusers' pipeline, a call a picture                       (8 calls a round, or fewer cells)
    lists   diffusers' pipeline with lists of prompts, in the batch that is its fastest of those tried
    ours    embedlab.render, in the batch that is its fastest of those tried
    prefix  the same with edits that depart at half of the steps: the steps before are run once a seed in a batch

Everything is loaded before, all encode, sample and decode; pictures of the first three are compared (1e-3). Printed are
medians over rounds of ours/call (3 or more wanted), ours/lists (1.25 or more) and prefix/ours (1.5 or more), each with
a 95 % interval of the median (bootstrap over rounds), of seconds and of the processor's seconds; the rows of the UNet
that were asked for and run; and where ours spends its time. `--engine` runs ours with another one than eager.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from paired import ENGINES, Took, machine, ratio, rounds, took, with_engine

from embedlab import Cell, During, Interpolate, Sampler, Source, embed_all, encode, load, render
from embedlab.condition import condition_calls
from embedlab.operators import edit
from embedlab.rendering import sample_batch
from embedlab.samples import Request
from embedlab.timing import Timer

PROMPT, SCALE = "A picture of a puppy", 4.0
SIZES = (8, 16, 32, 64)
WANTED = {"call": 3.0, "lists": 1.25, "prefix": 1.5}


def fastest(draw: Callable[[int], object], most: int) -> int:
    """The batch of the most pictures a second: each once to warm up and twice for the shorter time."""
    found = {}
    for size in sorted({min(size, most) for size in SIZES}):
        draw(size)
        found[size] = size / min(took(lambda size=size: draw(size)).seconds for _ in range(2))
    return max(found, key=lambda size: found[size])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    parser.add_argument("--edits", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--engine", default="eager", choices=["eager", *ENGINES])
    parser.add_argument("--only", choices=list(WANTED), help="ours beside this arm alone")
    given = parser.parse_args()
    print(machine())
    model = load("emoji", dtype=given.dtype)
    ours = with_engine(model, given.engine)
    pipe = StableDiffusionPipeline.from_pretrained(
        Source("emoji").location, safety_checker=None, torch_dtype=model.unet.dtype
    ).to(model.device)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    edits = [Interpolate("puppy", "skunk", (n + 1) / given.edits) for n in range(given.edits)]
    seeds = list(range(given.seeds))
    pairs = [(op, seed) for op in edits for seed in seeds]

    def cells(begin: float, steps: int = given.steps, ops: list = edits) -> list[Cell]:
        operators = [op if not begin else During(op, begin=begin) for op in ops]
        return [Cell(PROMPT, (op,), sampler=Sampler("ddim", steps)) for op in operators]

    @torch.inference_mode()
    def piped(some: list, steps: int = given.steps) -> torch.Tensor:
        texts = [
            embed_all("", model.towers),
            *(edit(embed_all(PROMPT, model.towers), [op], model.towers) for op, _ in some),
        ]
        uncond, *cond = encode(texts, model.towers)
        found: torch.Tensor = pipe(
            prompt_embeds=torch.stack([one.hidden for one in cond]),
            negative_prompt_embeds=uncond.hidden.expand(len(cond), -1, -1),
            num_inference_steps=steps,
            guidance_scale=SCALE,
            generator=[torch.Generator().manual_seed(seed) for _, seed in some],
            output_type="pt",
        ).images
        return found

    def in_lists(size: int) -> list[torch.Tensor]:
        return [piped(pairs[k : k + size]) for k in range(0, len(pairs), size)]

    mine = fastest(lambda size: render(ours, cells(0, 2), seeds, at_once=size), len(pairs))
    theirs = fastest(lambda size: piped(pairs[:size], 2), len(pairs))
    print(f"{len(pairs)} cells, {given.steps} steps; pictures at once: embedlab {mine}, the pipeline {theirs}")
    few = min(8, len(pairs))
    arms: dict[str, tuple[int, Callable[[], object]]] = {
        "call": (few, lambda: [piped([pair]) for pair in pairs[:few]]),
        "lists": (len(pairs), lambda: in_lists(theirs)),
        "ours": (len(pairs), lambda: render(ours, cells(0), seeds, at_once=mine)),
        "prefix": (len(pairs), lambda: render(ours, cells(0.5), seeds, at_once=mine)),
    }
    arms = {name: arm for name, arm in arms.items() if given.only is None or name in ("ours", given.only)}
    found = rounds({name: work for name, (_, work) in arms.items()}, given.rounds)
    for name, wanted in WANTED.items():
        if name in arms:
            above, below = ("ours", name) if name != "prefix" else ("prefix", "ours")
            said = ratio(found[below], found[above], arms[below][0], arms[above][0])
            print(f"{above:6s} / {below:5s} ({wanted:g} or more wanted) {said}")
    print(", ".join(f"{name} {speed(found[name], arms[name][0]):.2f} pictures a second" for name in arms))
    drawn = torch.cat([one.pictures for one in render(ours, cells(0, 4, edits[:2]), seeds)])
    gap = (drawn.cpu() - piped(pairs[: len(drawn)], 4).float().cpu()).abs().max()
    print(f"largest difference of a picture from the pipeline's, of 4 steps: {float(gap):.1e}")
    for name, begin in (("ours", 0.0), ("prefix", 0.5)):
        if name in arms:
            timer = Timer()
            with timer:
                told = condition_calls(ours, cells(begin), timer)
                every = [Request(calls, seed) for seed in seeds for calls in told]
                for k in range(0, len(every), mine):
                    sample_batch(ours, every[k : k + mine], timer=timer)
            times = timer.times()
            spent = times.spent("UNet")
            print(f"{name}: {spent.rows} rows of {spent.asked} asked for, {times.rate('UNet'):.0f} a second; {times}")
    print(machine())


def speed(times: list[Took], pictures: int) -> float:
    """Pictures a second, the median."""
    return statistics.median(pictures / one.seconds for one in times)


if __name__ == "__main__":
    main()
