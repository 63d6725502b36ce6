"""The most memory that a batch takes, embedlab's beside diffusers' pipeline's, each in a process of its own.

    python benchmarks/memory.py [ROUNDS] [--batches 1,16,32] [--steps 4] [--model emoji] [--device cuda]

Each process loads the default model, draws one picture to warm up, and then so many at once: with the same prompt,
seeds and steps, decoded. What counts is the peak of what the process holds (Linux), or of what is allocated on the GPU,
while they are drawn. Printed is, by batch, the median of both in MiB, that above what was held before, and their
ratio: 1 or less is wanted of the peak.
"""

import argparse
import json
import statistics
import subprocess
import sys

ARMS = ("pipeline", "embedlab")
PROMPT, SCALE = "A picture of a puppy", 4.0


def child(arm: str, batch: int, steps: int, name: str, device: str) -> dict[str, int]:
    """Draw a batch in this process: bytes held before, and at the most while it was drawn."""
    import torch

    from embedlab import Source
    from embedlab.structure.rate import peak_bytes

    peak = peak_bytes(torch.device(device))
    assert peak is not None, "nobody tells here what a process holds at the most"
    if arm == "embedlab":
        from embedlab import Cell, Sampler, load, render

        model = load(name, device=device)

        def draw(count: int) -> None:
            render(model, [Cell(PROMPT, sampler=Sampler("ddim", steps))], range(count), at_once=count)

    else:
        from diffusers import DDIMScheduler, StableDiffusionPipeline

        pipe = StableDiffusionPipeline.from_pretrained(Source(name).location, safety_checker=None).to(device)
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)

        def draw(count: int) -> None:
            generator = [torch.Generator().manual_seed(seed) for seed in range(count)]
            pipe(
                [PROMPT] * count,
                num_inference_steps=steps,
                guidance_scale=SCALE,
                generator=generator,
                output_type="pt",
            )

    draw(1)
    peak()
    before = peak()  # nothing was done in between
    draw(batch)
    return {"before": before, "peak": peak()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--batches", default="1,16,32")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--child", choices=ARMS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.child, int(given.batches), given.steps, given.model, given.device)))
        return
    print(f"{given.model} on {given.device}, {given.steps} steps, {given.rounds} rounds; MiB")
    for batch in given.batches.split(","):
        found: dict[str, list[dict[str, int]]] = {arm: [] for arm in ARMS}
        for turn in range(given.rounds):
            for arm in ARMS if turn % 2 else ARMS[::-1]:
                words = [sys.executable, __file__, "--child", arm, "--batches", batch, "--steps", str(given.steps)]
                words += ["--model", given.model, "--device", given.device]
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                found[arm].append(json.loads(done.stdout.splitlines()[-1]))
        peak = {arm: statistics.median(one["peak"] for one in some) for arm, some in found.items()}
        more = {arm: statistics.median(one["peak"] - one["before"] for one in some) for arm, some in found.items()}
        said = ", ".join(f"{arm} {peak[arm] / 2**20:.0f} ({more[arm] / 2**20:+.0f})" for arm in ARMS)
        print(
            f"{batch:>3s} at once: {said}; embedlab / pipeline {peak['embedlab'] / peak['pipeline']:.3f} (1 or less "
            f"wanted), of what is added {more['embedlab'] / max(more['pipeline'], 1):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
