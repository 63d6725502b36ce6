"""How good the default model is, in figures.

    python -m embedlab.pretrain.quality [MODEL]
    python -m embedlab.pretrain.quality [MODEL …] --work pretrain-runs/emoji2 [--seeds 64]

The first form: PSNR of the autoencoder and caption retrieval of the CLIP towers, both on the held-out scenes that are
shipped with the model; the share of generated pictures that are recognised as the word asked for and stand on the
ground asked for, over all concept words × 8 seeds. Where the sprites are at hand, a classifier that saw nothing but
them judges as well. The second form prints the table of the bars (`embedlab.pretrain.bars`), a column a model and
detector; it needs the drawings and the judge that the recipe of the second edition leaves in its folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from embedlab import images
from embedlab.cell import Cell
from embedlab.detector.detections import look
from embedlab.errors import ConfigError
from embedlab.metrics.clip_score import image_features, text_features
from embedlab.models import Model, Scorer, find, tokenizer
from embedlab.pretrain import bars, captions, drawings, eye, recipe, scenes, world
from embedlab.pretrain.loop import Training, fit
from embedlab.pretrain.stages import psnr
from embedlab.rendering import render
from embedlab.sampler import Sampler

SEEDS = tuple(range(8))


def held_out(folder: Path) -> tuple[Tensor, list[dict[str, Any]]]:
    """The scenes that are shipped with the model: pictures in [0, 1] and their captions."""
    rows = json.loads((folder / "held_out.json").read_text())
    sheet = images.to_tensor(Image.open(folder / "held_out.png"))
    side = scenes.SIDE
    tiles = sheet.unfold(1, side, side).unfold(2, side, side).permute(1, 2, 0, 3, 4).flatten(0, 1)
    return tiles[: len(rows)], rows


@torch.inference_mode()
def reconstruction(model: Model, pictures: Tensor) -> float:
    """PSNR of the autoencoder in dB, from the mean of its posterior."""
    wanted = pictures.mul(2).sub(1)
    parts = wanted.to(model.vae.device, model.vae.dtype).split(16)
    rebuilt = torch.cat([model.vae.decode(model.vae.encode(p).latent_dist.mean).sample for p in parts])
    return psnr(rebuilt.float().cpu(), wanted)


def ground_of(pictures: Tensor) -> list[str]:
    """The named ground nearest to the median colour of each picture's border."""
    edge = torch.cat([pictures[..., :4, :].flatten(2), pictures[..., -4:, :].flatten(2)], dim=2)
    colours = torch.tensor(list(scenes.GROUNDS.values())) / 255
    nearest = torch.cdist(edge.median(dim=2).values, colours).argmin(1)
    return [list(scenes.GROUNDS)[i] for i in nearest.tolist()]


def measure(name: str = "emoji", work: Path | None = None) -> dict[str, Any]:
    """All figures of a model that was trained on the scenes; `work` is the folder of the training stages."""
    source = find(name)
    model = source.load()
    assert model.scorer is not None
    pictures, rows = held_out(Path(source.location))
    features = image_features(model.scorer, pictures)
    texts = text_features(model.scorer, [row["caption"] for row in rows])
    same = torch.tensor([[a["caption"] == b["caption"] for b in rows] for a in rows])
    best = (texts @ features.T).argmax(1)

    grounds = list(scenes.GROUNDS)
    words = list(model.concepts)
    named = text_features(model.scorer, [f"a picture of {scenes.article(word)}" for word in words])
    judge = sprite_judge(work) if work and (work / "sprites").exists() else None
    hits: dict[str, list[int]] = {}
    ground_hits, judge_hits = [], []
    for w, word in enumerate(words):
        on = grounds[w % len(grounds)]
        cell = Cell(f"a picture of {scenes.article(word)} on {on}")
        rendered = render(model, [cell], SEEDS)[0].pictures
        guess = (image_features(model.scorer, rendered) @ named.T).argmax(1)
        hits[word] = (guess == w).int().tolist()
        ground_hits += [g == on for g in ground_of(rendered)]
        if judge:
            judge_hits += (judge_of(judge, rendered) == list(scenes.WORDS).index(word)).tolist()
    return {
        "psnr": reconstruction(model, pictures),
        "retrieval": float(same[torch.arange(len(rows)), best].float().mean()),
        "recognised": float(np.mean([hit for row in hits.values() for hit in row])),
        "ground": float(np.mean(ground_hits)),
        "recognised_by_sprite_classifier": float(np.mean(judge_hits)) if judge else None,
        "words": {word: sum(row) for word, row in hits.items()},
    }


def report(figures: dict[str, Any]) -> str:
    """The figures as text."""
    weak = [f"{word} {hits}/{len(SEEDS)}" for word, hits in figures["words"].items() if hits < len(SEEDS)]
    judge = figures["recognised_by_sprite_classifier"]
    pictures = f"{len(figures['words'])} words × {len(SEEDS)} seeds"
    lines = [
        f"VAE on held-out scenes            {figures['psnr']:.2f} dB PSNR",
        f"CLIP retrieval on held-out scenes {100 * figures['retrieval']:.1f} %",
        f"recognised as the word asked for  {100 * figures['recognised']:.1f} %  ({pictures})",
        f"ground in the colour asked for    {100 * figures['ground']:.1f} %",
    ]
    if judge is not None:
        lines.append(f"recognised by a classifier that saw only the drawings  {100 * judge:.1f} %")
    if weak:
        lines.append(f"not always recognised: {', '.join(weak)}")
    return "\n".join(lines)


def sprite_judge(work: Path, steps: int = 500) -> nn.Module:
    """A small classifier trained on single drawn objects alone, blurred by chance; it knows nothing of CLIP."""
    net = nn.Sequential(
        *(nn.Conv2d(3, 32, 5, 2, 2), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()),
        *(nn.Conv2d(64, 128, 3, 2, 1), nn.ReLU(), nn.Conv2d(128, 128, 3, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(128 * 16, 128), nn.ReLU(), nn.Linear(128, len(scenes.WORDS))),
    )
    sprites = scenes.load_sprites(work / "sprites")
    drawn = [(scene, picture) for scene, _, picture in scenes.scenes(3000, 7, sprites, two=0.0)]
    pictures = interpolate(torch.stack([images.to_tensor(p) for _, p in drawn]), scale_factor=0.5, mode="area")
    labels = torch.tensor([list(scenes.WORDS).index(scene.words[0]) for scene, _ in drawn])

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        pick = torch.randint(len(pictures), (64,), generator=generator)
        seen = pictures[pick]
        if step % 2:
            seen = interpolate(interpolate(seen, scale_factor=0.5, mode="area"), scale_factor=2.0, mode="bilinear")
        seen = seen + 0.05 * torch.randn(seen.shape, generator=generator)
        return cross_entropy(net(seen), labels[pick]), {}

    training = Training(steps=steps, lr=1e-3, batch=64)
    return fit(net, loss_of, training, work / "judge.pt", lambda figures, step: None, say=lambda line: None)


@torch.inference_mode()
def judge_of(judge: nn.Module, pictures: Tensor) -> Tensor:
    """The classifier's word for each picture, as its place in the list of words."""
    logits: Tensor = judge(interpolate(pictures, (64, 64), mode="area"))
    return logits.argmax(1)


@dataclass(frozen=True)
class Column:
    """What one model reaches: the rates by mark, as each detector sees them; and what no detector is needed for."""

    model: str
    seen: Mapping[str, Mapping[str, bars.Rate]]
    psnr: float
    found: bars.Rate


def column(
    name: str,
    work: Path,
    seeds: Sequence[int] = SEEDS,
    size: int = 32,
    at_once: int = 8,
    words: Sequence[str] = tuple(drawings.WORDS),
    sampler: Sampler | None = None,
    held: int = 64,
) -> Column:
    """Put a model to all trials of those of `words` that it knows, `size` prompts a measure, each with every seed.

    The autoencoder is measured on `held` scenes, and the captions of four times as many are looked for (64 at least).
    `work` is the folder of the second edition's stages: it holds the drawings, the judge and, once trained, the eye.
    """
    source = find(name)
    model = source.load()
    words = [word for word in model.concepts if word in words]
    if not words or model.scorer is None:
        raise ConfigError(f"'{name}' names no concepts that the scenes have; the table is of models trained on them.")
    ids = captions.Ids(tokenizer())
    trials = bars.trials(words, size, ids=ids)
    kinds = {"judge": eye.JUDGE, "eye": eye.EYE}
    detectors = {
        kind: eye.load(work / f"{kind}.pt", size) for kind, size in kinds.items() if (work / f"{kind}.pt").exists()
    }
    how = sampler or Sampler()
    marks: dict[str, list[Mapping[str, bool]]] = {kind: [] for kind in detectors}
    for i in range(0, len(trials), at_once):
        part = trials[i : i + at_once]
        rendered_cells = render(model, [Cell(trial.prompt, trial.operators, sampler=how) for trial in part], seeds)
        for kind, detector in detectors.items():
            for trial, rendered in zip(part, rendered_cells, strict=True):
                seen = look(detector, rendered.pictures.mul(2).sub(1))
                marks[kind] += [trial.ask(one) for one in seen]
    sprites = drawings.load(work / "sprites")
    pictures = recipe.painted(range(held), sprites, recipe.HELD_OUT, held_out=True).add(1).div(2)
    return Column(
        name,
        {kind: bars.rates(mine) for kind, mine in marks.items()},
        reconstruction(model, pictures),
        captions_found(model.scorer, sprites, sets=max(1, held // 16)),
    )


def captions_found(scorer: Scorer, sprites: drawings.Sprites, sets: int = 4) -> bars.Rate:
    """How often a picture's caption is the nearest of 64, of which half differ in order, colour or count only."""
    hits = 0
    for part in range(sets):
        pairs = recipe.with_near_ones(1000 * part, 64, held_out=True)
        rng = np.random.default_rng(part)
        texts = [captions.caption(scene, rng).text for scene, _ in pairs]
        painted = [world.paint(scene, sprites, np.random.default_rng((n, 1))) for scene, n in pairs]
        features = image_features(scorer, torch.stack([images.to_tensor(picture) for picture in painted]))
        hits += int(((features @ text_features(scorer, texts).T).argmax(1) == torch.arange(64)).sum())
    return bars.Rate(hits, 64 * sets)


def table(columns: Sequence[Column]) -> str:
    """The bars as a table in Markdown, a column a model and detector; a rate of another rate is a share of it."""
    heads = [(c, kind) for c in columns for kind in c.seen]
    lines = ["| measure | bar | " + " | ".join(f"{c.model}, {kind}" for c, kind in heads) + " |"]
    lines.append("|---" * (2 + len(heads)) + "|")
    for name, (what, least, of) in bars.BARS.items():
        row = [f"| {what} | ≥ {100 * least:.0f} % "]
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


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m embedlab.pretrain.quality", description=__doc__)
    parser.add_argument("model", nargs="*", default=["emoji"])
    parser.add_argument("--work", type=Path, help="the folder of the second edition's stages: prints the table")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--prompts", type=int, default=32, help="prompts a measure")
    chosen = parser.parse_args(words)
    if chosen.work is None:
        print(report(measure(chosen.model[0])))
    else:
        print(table([column(name, chosen.work, tuple(range(chosen.seeds)), chosen.prompts) for name in chosen.model]))


if __name__ == "__main__":
    main()
