"""How evenly does a word follow its weight? Dose–response of a word over weightings, on the default model.

`python benchmarks/weighting.py doses.csv` makes the pictures of "a picture of a FIRST and a SECOND" with SECOND at each
weight, by every method, and appends a line a picture; what is there is not made again, and `--seconds` ends it early.
`python benchmarks/weighting.py doses.csv --report` prints the table.
"""

import argparse
import csv
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch

from embedlab import Sampler, models
from embedlab.detector.detect import detect
from embedlab.encoder import Conditioning
from embedlab.guidance import guided
from embedlab.images import decode
from embedlab.metrics.clip_score import clip_scores
from embedlab.sampler import generators, noise, sample
from embedlab.weighting import encoder_of, weigh
from embedlab.windows import windows_of

PAIRS = [("cat", "rocket"), ("puppy", "apple"), ("star", "fox"), ("house", "owl"), ("tree", "skunk"), ("car", "cat")]
METHODS = ["masked", "comfyui", "compel", "a1111", "no_norm", "comfy++", "perpendicular", "down_weight", "perp"]
WEIGHTS = [-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0]
FIELDS = ["method", "first", "second", "weight", "seed", "clip_first", "clip_second", "eye_first", "eye_second"]


@torch.inference_mode()
def pictures(model, hidden, seeds, steps, scale):
    """The pictures of one conditioning a seed, all in one batch."""
    (tower,) = model.towers
    (nothing,) = weigh([windows_of([("", 1.0)], tower.tokenizer)], encoder_of(tower))
    cond = [Conditioning(one[0], one[0, 0]) for one in hidden]
    uncond = [Conditioning(nothing.hidden[0], nothing.hidden[0, 0])] * len(cond)
    denoise = guided(model.unet, cond, uncond, [scale] * len(cond))
    random = generators(seeds)
    side = model.unet.config.sample_size
    start = noise((model.unet.config.in_channels, side, side), random)
    out = sample(denoise, start, Sampler("dpmpp_2m", steps).make(model.scheduler), random)
    return decode(out.latents, model.vae)


def run(path: Path, seeds: int, steps: int, scale: float, seconds: float) -> None:
    begun = time.monotonic()
    model = models.load("emoji", device="cpu")
    (tower,) = model.towers
    done = set()
    if path.exists():
        with path.open() as file:
            done = {
                (r["method"], r["first"], r["second"], float(r["weight"]), int(r["seed"])) for r in csv.DictReader(file)
            }
    with path.open("a", newline="") as file:
        out = csv.DictWriter(file, FIELDS)
        if not done:
            out.writeheader()
        for (first, second), method in product(PAIRS, METHODS):
            asked = [
                (w, s)
                for w, s in product(WEIGHTS, range(seeds))
                if (method, first, second, w, s) not in done and (w != 1.0 or method == METHODS[0])
            ]
            if not asked:
                continue
            hidden = {}
            for w in {w for w, _ in asked}:
                pieces = [(f"a picture of a {first} and a", 1.0), (second, w)]
                hidden[w] = weigh([windows_of(pieces, tower.tokenizer)], encoder_of(tower), method)[0].hidden
            for k in range(0, len(asked), 8):
                part = asked[k : k + 8]
                made = pictures(model, [hidden[w] for w, _ in part], [s for _, s in part], steps, scale)
                scores = clip_scores(model.scorer, made, [f"a picture of a {word}" for word in (first, second)])
                found = detect(made, model)
                for (w, s), (a, b), seen in zip(part, scores.tolist(), found, strict=True):
                    eyes = [round(seen.presence(word), 4) for word in (first, second)]
                    row = [method, first, second, w, s, round(a, 3), round(b, 3), *eyes]
                    out.writerow(dict(zip(FIELDS, row, strict=True)))
                file.flush()
                if time.monotonic() - begun > seconds:
                    return


def report(path: Path) -> None:
    """A line a method: how the word follows its weight from 0 to 2, and what becomes of the other."""
    with path.open() as file:
        rows = [{k: v if k in FIELDS[:3] else float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    one = [row for row in rows if row["weight"] == 1.0]
    print("method         mean of the word's eye / CLIPScore at each weight, then of the other's eye")
    for method in dict.fromkeys(row["method"] for row in rows):
        pairs = {(row["first"], row["second"]) for row in rows if row["method"] == method}
        mine = [row for row in rows if row["method"] == method and row["weight"] != 1.0]
        mine += [row for row in one if (row["first"], row["second"]) in pairs]
        lines = {}
        for name in ("eye_second", "clip_second", "eye_first"):
            lines[name] = [np.mean([r[name] for r in mine if r["weight"] == w] or [np.nan]) for w in WEIGHTS]
        at = [n for n, w in enumerate(WEIGHTS) if 0 <= w <= 2]
        doses, clip = np.array(WEIGHTS)[at], np.array(lines["clip_second"])[at]
        line = np.polyval(np.polyfit(doses, clip, 1), doses)
        even = 1 - ((clip - line) ** 2).sum() / ((clip - clip.mean()) ** 2).sum()
        drift = np.mean(np.abs(np.array(lines["eye_first"])[at] - lines["eye_first"][WEIGHTS.index(1.0)]))
        rising = np.mean(np.diff(clip) > 0)
        for name, values in lines.items():
            print(f"{method:14s} {name:12s}", " ".join(f"{value:6.2f}" for value in values))
        span = f"from {clip[0]:.1f} to {clip[-1]:.1f}, R² {even:.2f}, rising {rising:.0%}"
        print(f"{'':14s} {span}, drift of the other {drift:.3f}, {len(mine)} pictures")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    if given.report:
        report(given.path)
    else:
        run(given.path, given.seeds, given.steps, given.scale, given.seconds)
