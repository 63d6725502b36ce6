"""Our sampling loop against diffusers' pipeline: same model, scheduler, steps and seeds, interleaved in one process.

    python benchmarks/loop.py [ROUNDS] [MODEL]

Two ratios, each the median over rounds with the middle half of them: one picture (ours / pipeline, 1.0 or less wanted)
and 16 pictures of different edits (16 pipeline calls / our one batch, 2 or more wanted). Both arms encode their
prompts, denoise with guidance and decode.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from embedlab import Cell, Guidance, Interpolate, Sampler, Source, embed_all, encode, load, render
from embedlab.operators import edit

STEPS, PROMPT = 25, "A picture of a puppy"


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def quartiles(ratios: list[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f}  (middle half {low:.3f} to {high:.3f}, {len(ratios)} rounds)"


def main(rounds: int = 9, name: str = "emoji") -> None:
    model = load(name)
    pipe = StableDiffusionPipeline.from_pretrained(
        Source(name).location, safety_checker=None, torch_dtype=model.unet.dtype
    )
    pipe = pipe.to(model.device)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    settings = {"num_inference_steps": STEPS, "guidance_scale": 4.0}
    cell = Cell(PROMPT, guidance=Guidance(4.0), sampler=Sampler("ddim", STEPS))
    edits = [Interpolate("puppy", toward="skunk", weight=i / 15) for i in range(16)]
    cells = [Cell(PROMPT, (op,), guidance=Guidance(4.0), sampler=Sampler("ddim", STEPS)) for op in edits]

    def theirs_once() -> None:
        pipe(PROMPT, generator=torch.Generator().manual_seed(0), **settings)

    def theirs() -> None:
        for op in edits:
            prompts = [edit(embed_all(PROMPT, model.towers), [op], model.towers), embed_all("", model.towers)]
            told, empty = encode(prompts, model.towers)
            inputs = {"prompt_embeds": told.hidden[None], "negative_prompt_embeds": empty.hidden[None]}
            pipe(**inputs, generator=torch.Generator().manual_seed(0), **settings)

    arms: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "one picture, ours / pipeline": (lambda: render(model, [cell], [0]), theirs_once),
        "16 edits, 16 pipeline calls / our batch": (theirs, lambda: render(model, cells, [0])),
    }
    for label, (above, below) in arms.items():
        above(), below()
        pairs = [
            (seconds(above), seconds(below)) if k % 2 else (seconds(below), seconds(above))[::-1]
            for k in range(3 * rounds if above is not theirs else rounds)  # one picture is quick, its ratio close to 1
        ]
        print(f"{label:42s}{quartiles([a / b for a, b in pairs])}")


if __name__ == "__main__":
    main(*(int(word) if word.isdigit() else word for word in sys.argv[1:3]))
