"""How evenly does a word follow its weight, and what becomes of the others? Dose–response on the default model.

    python benchmarks/weighting.py doses.csv [--seeds 3] [--seconds S]    makes pictures; goes on where it was
    python benchmarks/weighting.py doses.csv --report                     prints the tables

A word is weighted from -1 to 2 in "a picture of a WORD and a OTHER", in "a picture of a OTHER and a WORD", and as the
colour in "a picture of a WORD OTHER", by every method. Measured are CLIPScore with "a picture of a WORD" (of a colour,
"a picture of a WORD OTHER"), the detector's probability of the word (of a colour: of the thing in it), and that of the
other one. For each method, means over prompts with bootstrap intervals of

    rank    Spearman's correlation of the weight with the word's CLIPScore and with its probability, from -1 to 2
    even    R² of a line through the word's CLIPScore, from 0 to 2
    span    the word's CLIPScore at 2 less that at 0
    drift   how far the other's probability moves from what it is at weight 1, over all other weights
"""

import argparse
import csv
import time
from collections.abc import Sequence
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

PAIRS = [
    ("rocket", "cat"), ("apple", "puppy"), ("fox", "star"), ("owl", "house"), ("guitar", "bear"), ("pizza", "penguin"),
    ("castle", "frog"), ("mug", "lion"), ("banana", "robot"), ("whale", "cactus"), ("bee", "book"), ("train", "ghost"),
]  # fmt: skip
COLOURS = [
    ("red", "car"), ("blue", "star"), ("green", "house"), ("yellow", "mug"), ("purple", "fish"), ("pink", "umbrella"),
    ("orange", "book"), ("blue", "apple"), ("red", "guitar"), ("green", "crown"), ("purple", "balloon"),
    ("pink", "truck"),
]  # fmt: skip
KINDS = {"second": PAIRS, "colour": COLOURS, "first": PAIRS}
METHODS = ["comfy++", "masked", "comfyui", "compel", "a1111", "no_norm", "perpendicular", "down_weight", "perp"]
WEIGHTS = [-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0]
KEY = ["kind", "word", "other", "method", "weight", "seed"]
MEASURES = ["clip", "eye", "other_clip", "other_eye"]


def pieces(kind: str, word: str, other: str, weight: float) -> list[tuple[str, float]]:
    """A prompt with its word at a weight."""
    if kind == "second":
        return [(f"a picture of a {other} and a", 1.0), (word, weight)]
    return [("a picture of a", 1.0), (word, weight), (other if kind == "colour" else f"and a {other}", 1.0)]


@torch.inference_mode()
def pictures(model, hidden: Sequence[torch.Tensor], seeds: Sequence[int], steps: int, scale: float) -> torch.Tensor:
    """The picture of each conditioning with its seed, all in one batch."""
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


def measured(model, made: torch.Tensor, kind: str, word: str, other: str) -> list[list[float]]:
    """The `MEASURES` of each picture."""
    texts = [
        f"a picture of a {word} {other}" if kind == "colour" else f"a picture of a {word}",
        f"a picture of a {other}",
    ]
    answers = []
    for (clip, other_clip), seen in zip(
        clip_scores(model.scorer, made, texts).tolist(), detect(made, model), strict=True
    ):
        eye = seen.presence(word)
        if kind == "colour":
            eye = max((thing.probability * thing.colours[word] for thing in seen.of(other)), default=0.0)
        answers.append([round(x, 4) for x in (clip, eye, other_clip, seen.presence(other))])
    return answers


def read(path: Path) -> dict[tuple, list[float]]:
    """What a file holds: the measures of each picture."""
    if not path.exists():
        return {}
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {
        (*(row[k] for k in KEY[:4]), float(row["weight"]), int(row["seed"])): [float(row[m]) for m in MEASURES]
        for row in rows
    }


def run(path: Path, seeds: int, steps: int, scale: float, seconds: float) -> None:
    """Make what is not there yet; the picture at weight 1 is one for all methods."""
    begun = time.monotonic()
    model = models.load("emoji", device="cpu")
    (tower,) = model.towers
    done = read(path)
    with path.open("a", newline="") as file:
        out = csv.writer(file)
        if not done:
            out.writerow([*KEY, *MEASURES])
        for kind, seed, method in product(KINDS, range(seeds), ["", *METHODS]):
            for prompt in ((kind, *pair) for pair in KINDS[kind]):
                weights = [
                    w for w in WEIGHTS if (w == 1.0) == (method == "") and (*prompt, method, w, seed) not in done
                ]
                if not weights:
                    continue
                asked = [windows_of(pieces(*prompt, w), tower.tokenizer) for w in weights]
                hidden = [weigh([one], encoder_of(tower), method or "no_norm")[0].hidden for one in asked]
                made = pictures(model, hidden, [seed] * len(weights), steps, scale)
                for weight, values in zip(weights, measured(model, made, *prompt), strict=True):
                    out.writerow([*prompt, method, weight, seed, *values])
                file.flush()
                if time.monotonic() - begun > seconds:
                    return


def interval(values: Sequence[float]) -> str:
    """The mean over prompts, and a bootstrap interval of it."""
    draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{np.mean(values):5.2f} ({low:5.2f} to {high:5.2f})"


def rank(weights: np.ndarray, values: np.ndarray) -> float:
    """Spearman's correlation; 0 where nothing changes."""
    from scipy.stats import spearmanr

    return float(spearmanr(weights, values).statistic) if np.ptp(values) else 0.0


def evenness(weights: np.ndarray, values: np.ndarray) -> float:
    """R² of a line; 0 where nothing changes."""
    return float(np.corrcoef(weights, values)[0, 1] ** 2) if np.ptp(values) else 0.0


def curves(done: dict[tuple, list[float]], prompt: tuple, method: str) -> np.ndarray | None:
    """The mean over seeds of each measure at each weight, (weight, measure); None where a weight is missing."""
    found = []
    for weight in WEIGHTS:
        name = "" if weight == 1.0 else method
        mine = [values for key, values in done.items() if key[:5] == (*prompt, name, weight)]
        if not mine:
            return None
        found.append(np.mean(mine, axis=0))
    return np.array(found)


def report(path: Path) -> None:
    """What is measured of each kind of prompt and each method."""
    done = read(path)
    weights, up = np.array(WEIGHTS), np.array(WEIGHTS) >= 0
    for kind, pairs in KINDS.items():
        mine = [(kind, *pair) for pair in pairs]
        seeds = len({key[-1] for key in done if key[0] == kind})
        print(f"\n{kind}: {len(mine)} prompts, {seeds} seeds; at weights", *WEIGHTS)
        for method in METHODS:
            found = [one for prompt in mine if (one := curves(done, prompt, method)) is not None]
            if not found:
                continue
            figures = {
                "rank": [rank(weights, one[:, 0]) for one in found],
                "of the eye": [rank(weights, one[:, 1]) for one in found],
                "even": [evenness(weights[up], one[up, 0]) for one in found],
                "span": [one[-1, 0] - one[1, 0] for one in found],
                "drift": [np.abs(one[:, 3] - one[WEIGHTS.index(1.0), 3])[weights != 1].mean() for one in found],
            }
            print(f"{method:14s}", "  ".join(f"{name} {interval(values)}" for name, values in figures.items()))
            for n, name in enumerate(MEASURES):
                means = np.mean([one[:, n] for one in found], axis=0)
                print(f"{'':14s} {name:10s}", " ".join(f"{value:6.2f}" for value in means))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    if given.report:
        report(given.path)
    else:
        run(given.path, given.seeds, given.steps, given.scale, given.seconds)
