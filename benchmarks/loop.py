"""Our sampling loop against diffusers' pipeline: same model, scheduler, steps and seeds, interleaved in one process.

    python benchmarks/loop.py [ROUNDS] [--model NAME] [--engine openvino onnxruntime compile]

For eager and for each engine two ratios, medians of paired rounds with 95 % intervals, of seconds and of the
processor's seconds: one picture (ours / pipeline; 1.0 or less wanted eager, 0.6 by the best engine) and 16 pictures of
different edits (16 pipeline calls / our one batch; 3.5 or more wanted). All arms encode their prompts, denoise with
guidance and decode. Beside: what rows and decodings would take at the rate of matrix products, and the load average;
seconds want idle cores.
"""

import argparse
import statistics

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from paired import ENGINES, Limit, machine, ratio, rounds, with_engine

from embedlab import Cell, Guidance, Interpolate, Sampler, Source, embed_all, encode, load, render
from embedlab.operators import edit

STEPS, PROMPT, EDITS = 25, "A picture of a puppy", 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=9)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--engine", nargs="*", default=[], choices=ENGINES)
    given = parser.parse_args()
    source = Source(given.model)
    model = load(given.model)
    pipe = StableDiffusionPipeline.from_pretrained(source.location, safety_checker=None, torch_dtype=model.unet.dtype)
    pipe = pipe.to(model.device)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    settings = {"num_inference_steps": STEPS, "guidance_scale": 4.0}
    cell = Cell(PROMPT, guidance=Guidance(4.0), sampler=Sampler("ddim", STEPS))
    edits = [Interpolate("puppy", toward="skunk", weight=i / (EDITS - 1)) for i in range(EDITS)]
    cells = [Cell(PROMPT, (op,), guidance=Guidance(4.0), sampler=Sampler("ddim", STEPS)) for op in edits]
    ours = {name: with_engine(model, name) for name in ("eager", *given.engine)}

    def theirs_once() -> None:
        pipe(PROMPT, generator=torch.Generator().manual_seed(0), **settings)

    def theirs() -> None:
        for op in edits:
            prompts = [edit(embed_all(PROMPT, model.towers), [op], model.towers), embed_all("", model.towers)]
            cond, uncond = encode(prompts, model.towers)
            inputs = {"prompt_embeds": cond.hidden[None], "negative_prompt_embeds": uncond.hidden[None]}
            pipe(**inputs, generator=torch.Generator().manual_seed(0), **settings)

    limit = Limit.of(source, model)
    print(machine())
    print(limit)
    one = {name: lambda mine=mine: render(mine, [cell], [0]) for name, mine in ours.items()}
    many = {name: lambda mine=mine: render(mine, cells, [0]) for name, mine in ours.items()}
    quick = rounds({"pipeline": theirs_once, **one}, 3 * given.rounds)  # a short one has a ratio close to 1
    for name in ours:
        print(f"one picture, ours ({name}) / pipeline{'':12s}{ratio(quick[name], quick['pipeline'])}", flush=True)
    long = rounds({"pipeline": theirs, **many}, given.rounds)
    for name in ours:
        print(f"{EDITS} edits, {EDITS} pipeline calls / our batch ({name}) {ratio(long['pipeline'], long[name])}")
    for label, pictures, found in (("one picture", 1, quick), (f"{EDITS} edits", EDITS, long)):
        least = limit.seconds(2 * STEPS * pictures, pictures)
        medians = ", ".join(
            f"{name} {statistics.median(t.seconds for t in took):.2f} s" for name, took in found.items()
        )
        print(f"{label}: {least:.2f} s at that rate; {medians}")
    print(machine())


if __name__ == "__main__":
    main()
