"""How good the default model is: the table of the bars (`embedlab.pretrain.bars`), a column a model and detector.

    python -m embedlab.pretrain.quality [MODEL …] [--work FOLDER] [--out FILE.json]

The detector that ships with a model judges what it draws. With `--work`, the folder of the recipe's stages, a second
judge (`judge.pt`) does too, and held-out scenes are painted; without, they are those that ship with the model. A run
that was stopped goes on from what it left in `--out`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from embedlab import images
from embedlab.cell import Cell
from embedlab.cli.messages import as_user_error
from embedlab.detector.detect import detect
from embedlab.detector.detections import Detections, look
from embedlab.errors import ConfigError
from embedlab.files import write
from embedlab.guidance import Guidance
from embedlab.metrics.clip_score import image_features, text_features
from embedlab.models import Model, Scorer, Source, find, tokenizer
from embedlab.pretrain import bars, captions, drawings, eye, world
from embedlab.pretrain.autoencoder import psnr
from embedlab.pretrain.bars import Rate, Trial
from embedlab.pretrain.image_encoder import with_near_ones
from embedlab.pretrain.stage import HELD_OUT, painted
from embedlab.rendering import render
from embedlab.sampler import Sampler

EVERY_WORD = 8  # seeds for each word of the measure `single` at the least
Look = Callable[[Tensor], list[Detections]]


def held_out(folder: Path) -> tuple[Tensor, list[dict[str, Any]]]:
    """The scenes that are shipped with a model: pictures in [0, 1] and their captions."""
    if not (folder / "held_out.json").exists():
        raise ConfigError(f"'{folder}' has no held-out scenes; name the folder of the recipe's stages: --work FOLDER.")
    rows = json.loads((folder / "held_out.json").read_text())
    sheet = images.to_tensor(Image.open(folder / "held_out.png"))
    side = world.SIDE
    tiles = sheet.unfold(1, side, side).unfold(2, side, side).permute(1, 2, 0, 3, 4).flatten(0, 1)
    return tiles[: len(rows)], rows


@torch.inference_mode()
def reconstruction(model: Model, pictures: Tensor) -> float:
    """PSNR of the autoencoder in dB, from the mean of its posterior."""
    wanted = pictures.mul(2).sub(1)
    parts = wanted.to(model.vae.device, model.vae.dtype).split(16)
    rebuilt = torch.cat([model.vae.decode(model.vae.encode(p).latent_dist.mean).sample for p in parts])
    return psnr(rebuilt.float().cpu(), wanted)


def retrieved(scorer: Scorer, pictures: Tensor, texts: Sequence[str]) -> Rate:
    """How often a picture's caption, or one that reads the same, is the nearest of all."""
    best = (image_features(scorer, pictures) @ text_features(scorer, texts).T).argmax(1)
    return Rate(sum(texts[i] == text for i, text in zip(best.tolist(), texts, strict=True)), len(texts))


def captions_found(scorer: Scorer, sprites: drawings.Sprites, sets: int = 4) -> Rate:
    """How often a picture's caption is the nearest of 64, of which half differ in order, colour or count only."""
    hits = 0
    for part in range(sets):
        pairs = with_near_ones(1000 * part, 64, held_out=True)
        rng = np.random.default_rng(part)
        texts = [captions.caption(scene, rng).text for scene, _ in pairs]
        painted = [world.paint(scene, sprites, np.random.default_rng((n, 1))) for scene, n in pairs]
        hits += retrieved(scorer, torch.stack([images.to_tensor(picture) for picture in painted]), texts).hits
    return Rate(hits, 64 * sets)


# ── what is drawn, and what is on it ──────────────────────────────────────────────────────────────────────────────


def in_turn(
    trials: Sequence[Trial], pictures: int, seeds: int, every_seed: bool = False
) -> list[tuple[Trial, tuple[int, ...]]]:
    """Each trial, and the seeds that it is drawn with: about `pictures` a measure, a trial's seeds begin where those of
    the one before end. Every word of the measure `single` gets `EVERY_WORD` at the least, or every seed.

    >>> trials = [Trial("kind", f"a picture of {what}", lambda seen: {}) for what in ("a fruit", "a plant", "a bird")]
    >>> [seeds for _, seeds in in_turn(trials, pictures=5, seeds=4)]
    [(0, 1), (2, 3), (0, 1)]
    """
    once = {(trial.measure, trial.prompt): trial for trial in trials}
    many, first = Counter(trial.measure for trial in once.values()), Counter[str]()
    shared = []
    for trial in once.values():
        count = -(-pictures // many[trial.measure])
        if trial.measure == "single":
            count = seeds if every_seed else max(count, EVERY_WORD)
        count = min(count, seeds)
        start = first[trial.measure]
        first[trial.measure] += count
        shared.append((trial, tuple((start + n) % seeds for n in range(count))))
    return shared


def key_of(trial: Trial, seed: int) -> str:
    """The name under which a picture's marks are kept."""
    return f"{trial.measure}/{trial.prompt}/{seed}"


def noted(trial: Trial, seen: Detections) -> dict[str, Any]:
    """What is kept of a picture as a detector sees it: marks; objects with their colours, the likeliest first."""
    things = [[thing.word, thing.colour] for thing in seen.things]
    return {"marks": dict(trial.ask(seen)), "things": things, "ground": seen.ground}


Notes = dict[str, dict[str, Any]]  # by picture: what each detector saw, and the image tower's word where it was asked


class Kept:
    """What is known of one model's pictures, in a file that may hold those of others too.

    `of` says whose pictures they are, `by` (detector → hash) who looked: another's are not taken.
    """

    def __init__(self, path: Path | None, name: str, of: str, by: Mapping[str, str]) -> None:
        self.path = path
        self.all: dict[str, Any] = {}
        if path is not None and path.exists():
            try:
                self.all = dict(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                raise ConfigError(f"'{path}' holds no marks of pictures; name another file, or remove it.") from None
        mine = self.all.setdefault(of, {"model": name, "detectors": {}, "pictures": {}})
        self.pictures: Notes = mine["pictures"]
        for detector, known in by.items():
            if mine["detectors"].get(detector) != known:
                for notes in self.pictures.values():
                    notes.pop(detector, None)
        mine["detectors"] |= by

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path is not None:
            write(self.path, json.dumps(self.all, separators=(",", ":")).encode())


def parts_of(
    plan: Sequence[tuple[Trial, tuple[int, ...]]], missing: Callable[[Trial, int], bool], most: int
) -> Iterator[tuple[list[Trial], tuple[int, ...]]]:
    """What is left of a plan, in calls of about `most` pictures: trials of one measure that want the same seeds."""
    left: dict[tuple[str, tuple[int, ...]], list[Trial]] = defaultdict(list)
    for trial, seeds in plan:
        if mine := tuple(seed for seed in seeds if missing(trial, seed)):
            left[trial.measure, mine].append(trial)
    order = list(dict.fromkeys(trial.measure for trial, _ in plan))
    for _, mine in sorted(left, key=lambda one: order.index(one[0])):
        trials = left[_, mine]
        at_once = max(1, most // len(mine))
        yield from ((trials[i : i + at_once], mine) for i in range(0, len(trials), at_once))


def look_at_all(
    model: Model,
    plan: Sequence[tuple[Trial, tuple[int, ...]]],
    detectors: Mapping[str, Look],
    kept: Kept,
    closest: Callable[[Tensor], list[str]],
    sampler: Sampler,
    guidance: Guidance,
    say: Callable[[str], None],
) -> None:
    """Draw the pictures of a plan that are not yet known, and keep what detectors and image tower see on them."""

    def missing(trial: Trial, seed: int) -> bool:
        wanted = {*detectors, *(["closest"] if trial.measure == "single" else [])}
        return not wanted <= set(kept.pictures.get(key_of(trial, seed), {}))

    at_once = 64 if model.device.type == "cuda" else 16
    total = sum(len(seeds) for _, seeds in plan)
    before = done = total - sum(missing(trial, seed) for trial, seeds in plan for seed in seeds)
    began = time.perf_counter()
    for trials, seeds in parts_of(plan, missing, 4 * at_once):
        cells = [Cell(one.prompt, one.operators, sampler=sampler, guidance=guidance) for one in trials]
        for trial, rendered in zip(trials, render(model, cells, seeds, at_once), strict=True):
            sights = {name: detector(rendered.pictures) for name, detector in detectors.items()}
            words = closest(rendered.pictures) if trial.measure == "single" else [""] * len(seeds)
            for n, seed in enumerate(seeds):
                notes = {name: noted(trial, seen[n]) for name, seen in sights.items()}
                kept.pictures[key_of(trial, seed)] = {
                    **kept.pictures.get(key_of(trial, seed), {}),
                    **notes,
                    **({"closest": words[n]} if words[n] else {}),
                }
        kept.save()
        done += len(trials) * len(seeds)
        rate = (done - before) / (time.perf_counter() - began)
        left = (total - done) / rate / 60
        say(f"{model.name}: {trials[0].measure}  {done}/{total} pictures  {rate:.1f} a second  {left:.0f} min to go")


# ── what comes of it ──────────────────────────────────────────────────────────────────────────────────────────────


def agreements(pictures: Notes) -> dict[str, Rate]:
    """How often the two detectors and the image tower see the same on the pictures that were drawn."""
    same: dict[str, list[bool]] = defaultdict(list)
    for key, notes in pictures.items():
        measure, sights = key.split("/")[0], [notes[name] for name in ("eye", "judge") if name in notes]
        if len(sights) == 2:
            one, other = sights
            words = [sorted(word for word, _ in sight["things"]) for sight in sights]
            same["eye and judge: the same objects, on all pictures"].append(set(words[0]) == set(words[1]))
            if measure == "count":
                same["eye and judge: as many of each, measure count"].append(words[0] == words[1])
            if measure in ("colour", "colours"):
                first, second = (dict(reversed(sight["things"])) for sight in sights)
                for word in first.keys() & second.keys():
                    same["eye and judge: the same colour of an object that both find"].append(
                        first[word] == second[word]
                    )
            for mark in one["marks"].keys() & other["marks"].keys() & {"relation", "tokens turned", "positions turned"}:
                same["eye and judge: relation right or wrong, where both find both"].append(
                    one["marks"][mark] == other["marks"][mark]
                )
            if measure == "single":
                same["eye and judge: the same ground, measure single"].append(one["ground"] == other["ground"])
        for name in ("eye", "judge"):
            if "closest" in notes and name in notes:
                first_of = notes[name]["things"][0][0] if notes[name]["things"] else ""
                same[f"{name} and image tower: the same word, measure single"].append(first_of == notes["closest"])
        if "closest" in notes:
            asked = any(mark.endswith(f"/{notes['closest']}") for mark in sights[0]["marks"]) if sights else False
            same["image tower: the word asked for, measure single"].append(asked)
    return {name: Rate(sum(marks), len(marks)) for name, marks in same.items()}


@dataclass(frozen=True)
class Column:
    """What one model reaches: the rates by mark, as each detector sees them; what no detector is needed for; and how
    often those who look agree.
    """

    model: str
    seen: Mapping[str, Mapping[str, Rate]]
    psnr: float
    found: Rate
    agreement: Mapping[str, Rate]


def column(
    name: str,
    work: Path | None = None,
    pictures: int = 512,
    seeds: int = 64,
    prompts: int = 64,
    every_seed: bool = False,
    out: Path | None = None,
    words: Sequence[str] = tuple(drawings.WORDS),
    sampler: Sampler | None = None,
    guidance: Guidance | None = None,
    held: int = 64,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> Column:
    """Put a model to trials of those of `words` that it knows: `prompts` a measure at the most, `pictures` in all, of
    `seeds` seeds that take turns.

    With `work` the autoencoder is measured on `held` painted scenes, and the captions of four times as many are looked
    for (64 at least). Raises ConfigError for a model of which nobody can tell what it draws.
    """
    source, sampler, guidance = find(name), sampler or Sampler(), guidance or Guidance()
    model = source.load()
    scorer, words = model.scorer, [word for word in model.concepts if word in words]
    if not words or scorer is None:
        raise ConfigError(f"'{name}' names no concepts that the scenes have; the table is of models trained on them.")
    sprites = {} if work is None else drawings.load(work / "sprites")
    detectors, by = detectors_of(source, model, work)
    if work is None:
        scenes, rows = held_out(Path(source.location))
        found = retrieved(scorer, scenes, [row["caption"] for row in rows])
    else:
        scenes = painted(range(held), sprites, HELD_OUT, held_out=True).add(1).div(2)
        found = captions_found(scorer, sprites, sets=max(1, held // 16))

    named = text_features(scorer, [f"a picture of {captions.article(word)}" for word in words])

    def closest(pictures: Tensor) -> list[str]:
        return [words[i] for i in (image_features(scorer, pictures) @ named.T).argmax(1).tolist()]

    plan = in_turn(bars.trials(words, prompts, ids=captions.Ids(tokenizer())), pictures, seeds, every_seed)
    drawn_by = [line for line in source.identity if not line.startswith(("eye/", "image_encoder/"))]
    drawn_by += [repr(sampler), repr(guidance)]
    by["closest"] = _hash("\n".join(line for line in source.identity if line.startswith("image_encoder/")).encode())
    kept = Kept(out, name, _hash("\n".join(drawn_by).encode()), by)
    look_at_all(model, plan, detectors, kept, closest, sampler, guidance, say)
    mine = {key: kept.pictures[key] for trial, numbers in plan for seed in numbers if (key := key_of(trial, seed))}
    seen = {kind: bars.rates([notes[kind]["marks"] for notes in mine.values()]) for kind in detectors}
    return Column(model.name, seen, reconstruction(model, scenes), found, agreements(mine))


def detectors_of(source: Source, model: Model, work: Path | None) -> tuple[dict[str, Look], dict[str, str]]:
    """Who looks at a model's pictures, and the hashes of what they are: its own eye, else that of `work`; the judge."""
    detectors: dict[str, Look] = {}
    by: dict[str, str] = {}
    if source.eye_folder is not None:
        detectors["eye"] = lambda pictures: detect(pictures, model)
        by["eye"] = _hash("\n".join(line for line in source.identity if line.startswith("eye/")).encode())
    for kind, size in (("eye", eye.EYE), ("judge", eye.JUDGE)):
        path = (work or Path()) / f"{kind}.pt"
        if work is not None and path.exists() and kind not in detectors:
            detectors[kind] = _looking(eye.load(path, size).to(model.device))
            by[kind] = _hash(path.read_bytes())
    if not detectors:
        raise ConfigError(
            f"'{source.name}' has no detector; name a folder that holds eye.pt or judge.pt: --work FOLDER."
        )
    return detectors, by


def _looking(detector: Any) -> Look:
    device = next(detector.parameters()).device
    return lambda pictures: look(detector, pictures.to(device).mul(2).sub(1))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def table(columns: Sequence[Column]) -> str:
    """The bars as a table in Markdown, a column a model and detector; a rate of another rate is a share of it."""
    heads = [(c, kind) for c in columns for kind in c.seen]
    lines = ["| measure | bar | " + " | ".join(f"{c.model}, {kind}" for c, kind in heads) + " |"]
    lines.append("|---" * (2 + len(heads)) + "|")
    for name, (what, least, of) in bars.BARS.items():
        row = [f"| {what} | ≥ {100 * least:.0f} %"]
        for c, kind in heads:
            rate, whole = c.seen[kind].get(name), c.seen[kind].get(of or "")
            share = "" if rate is None or not whole or not whole.hits else f"{100 * rate.share / whole.share:.0f} %: "
            row.append(f"{share}{rate if rate and rate.of else 'nothing to judge'}")
        lines.append(" | ".join(row) + " |")
    lines.append(
        "| autoencoder, held-out scenes | ≥ 29 dB | " + " | ".join(f"{c.psnr:.1f} dB" for c, _ in heads) + " |"
    )
    found = " | ".join(str(c.found) for c, _ in heads)
    lines.append(f"| caption found among 64 | ≥ 80 % | {found} |")
    return "\n".join(lines)


def agreement_table(columns: Sequence[Column]) -> str:
    """How often those who look agree, as a table in Markdown, a column a model."""
    names = list(dict.fromkeys(name for column in columns for name in column.agreement))
    lines = [
        "| agreement | " + " | ".join(column.model for column in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    rows = [[str(column.agreement.get(name, "")) for column in columns] for name in names]
    return "\n".join(lines + [f"| {name} | " + " | ".join(row) + " |" for name, row in zip(names, rows, strict=True)])


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    about, _, _ = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(prog="python -m embedlab.pretrain.quality", description=about)
    parser.add_argument("model", nargs="*", default=["emoji"])
    parser.add_argument("--work", type=Path, help="the folder of the recipe's stages: drawings and the second judge")
    parser.add_argument("--out", type=Path, help="a JSON file that keeps what is done: a stopped run goes on from it")
    parser.add_argument("--pictures", type=int, default=512, help="about so many a measure (512)")
    parser.add_argument("--seeds", type=int, default=64, help="so many take turns (64)")
    parser.add_argument("--prompts", type=int, default=64, help="so many a measure at the most (64)")
    parser.add_argument("--all", action="store_true", help="every seed for every word of the measure single")
    parser.add_argument("--guidance", type=float, default=Guidance().scale, help="guidance scale")
    parser.add_argument("--steps", type=int, default=Sampler().steps, help="sampling steps")
    chosen = parser.parse_args(words)
    with as_user_error(
        lambda: f" What was drawn is in '{chosen.out}'; the same command goes on." if chosen.out else ""
    ):
        for name in ("pictures", "seeds", "prompts"):
            if getattr(chosen, name) < 1:
                raise ConfigError(f"--{name} is {getattr(chosen, name)}; it has to be 1 or more.")
        columns = [
            column(
                name,
                chosen.work,
                chosen.pictures,
                chosen.seeds,
                chosen.prompts,
                chosen.all,
                chosen.out,
                sampler=Sampler(steps=chosen.steps),
                guidance=Guidance(chosen.guidance),
            )
            for name in chosen.model
        ]
        print(table(columns))
        if chosen.work is None:
            print("\nThe captions are those of the shipped scenes, which differ in more than order, colour or count.")
        print("\n" + agreement_table(columns))


if __name__ == "__main__":
    main()
