"""What do half precision and 8-bit weights do to pictures?

    python experiments/lossy.py [FOLDER]

Twelve prompts of the default model, two seeds each, 25 steps of DDIM: by eager, by OpenVINO in float32 and in bfloat16,
by ONNX Runtime with 8-bit weights. For each: how far final latents are from eager's (root mean square, over the
latents' standard deviation), how far pixels are (mean, of 255), the cosine of CLIP image features to eager's picture
and to the prompt, and how often the prompt that fits a picture best is its own. `lossy.png` has a row for each.

Seen: on the sheet, neither can be told from eager but by holding two beside each other: with 8-bit weights a shade
moves here and there. Things, places and colours stay, and as many pictures are best described by their own prompts.

                 latents    pixels  to eager to prompt  own prompt is best
    eager       0.00e+00     0.000    1.0000     0.441                 92%
    OpenVINO    2.13e-06     0.000    1.0000     0.441                 92%
    bf16        2.26e-02     0.772    0.9984     0.442                 92%
    int8        1.98e-01     4.221    0.9749     0.441                 96%
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from embedlab import Cell, Engine, ONNXRuntime, OpenVINO, Sampler, load, render, to_pil, with_engine
from embedlab.errors import EngineError
from embedlab.images import sheet
from embedlab.metrics.clip_score import image_features, text_features

ENGINES = {"OpenVINO": OpenVINO(), "bf16": OpenVINO("bf16"), "int8": ONNXRuntime("int8")}


@torch.inference_mode()
def main(
    folder: Path = Path("outputs/lossy"), engines: Mapping[str, Engine] = ENGINES, of: int = 12, steps: int = 25
) -> None:
    model = load("emoji")
    things = model.concepts[:of]
    prompts = [f"A picture of a {thing}" for thing in things]
    cells = [Cell(prompt, sampler=Sampler("ddim", steps)) for prompt in prompts]
    found = {"eager": render(model, cells, [0, 1])}
    for name, engine in engines.items():
        try:
            found[name] = render(with_engine(model, engine), cells, [0, 1])
        except EngineError as error:
            print(f"{name}: {error}")
    latents = {name: torch.cat([one.latents for one in made]) for name, made in found.items()}
    pictures = {name: torch.cat([one.pictures for one in made]) for name, made in found.items()}
    features = {name: image_features(model.scorer, some) for name, some in pictures.items()}
    own = torch.arange(len(prompts)).repeat_interleave(2)
    texts = text_features(model.scorer, prompts)
    print(f"{'':10s}{'latents':>10s}{'pixels':>10s}{'to eager':>10s}{'to prompt':>10s}{'own prompt is best':>20s}")
    for name in found:
        far = (latents[name] - latents["eager"]).pow(2).mean().sqrt() / latents["eager"].std()
        pixels = 255 * (pictures[name] - pictures["eager"]).abs().mean()
        cosine = (features[name] * features["eager"]).sum(-1).mean()
        scores = features[name] @ texts.T
        best = (scores.argmax(1) == own).float().mean()
        words = f"{far:10.2e}{pixels:10.3f}{cosine:10.4f}{scores[torch.arange(len(own)), own].mean():10.3f}"
        print(f"{name:10s}{words}{best:20.0%}")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [to_pil(some[::4]) for some in pictures.values()]
    sheet(rows, things[::2], list(pictures), "final pictures by engine, seed 0").save(folder / "lossy.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
