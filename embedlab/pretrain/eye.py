"""Two small detectors are trained of which objects are on a picture, where and in what colour.

The *eye* ships with the model: it saw painted scenes and their passage through the autoencoder. The *judge* saw
drawings alone, at half the size and with another network; it is there to tell how good the model is. Neither ever saw
what the UNet draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from embedlab.detector.detections import Detections, look
from embedlab.detector.network import GRID, Detector, Scale, Vocabulary
from embedlab.pretrain import drawings, world
from embedlab.pretrain.autoencoder import again
from embedlab.pretrain.loop import Feed, Training, fit
from embedlab.pretrain.stage import CPU, HELD_OUT, Log, Show, averaged, begin, fast, numbers_of, painted, pixels

WORDS, COLOURS, GROUNDS = list(drawings.WORDS), list(drawings.COLOURS), list(world.GROUNDS)
VOCABULARY = Vocabulary(tuple(WORDS), tuple(COLOURS), tuple(GROUNDS), drawings.KINDS)
EYE: Mapping[str, Any] = {"side": 128, "widths": (24, 48, 96, 128)}
JUDGE: Mapping[str, Any] = {"side": 64, "widths": (40, 112, 144)}


def loss(predicted: tuple[Tensor, Tensor, Tensor, Tensor], scenes: Sequence[world.Scene]) -> Tensor:
    """CenterNet's focal loss of the words' maps; colour and box where the middle of an object is; the ground."""
    words, colours, boxes, grounds = (part.float() for part in predicted)
    heat = torch.zeros(words.shape)
    y, x = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    where, hues, places = [], [], []
    for n, scene in enumerate(scenes):
        for thing in scene.things:
            gx, gy = (min(max(at * GRID / world.SIDE, 0), GRID - 1e-3) for at in (thing.x, thing.y))
            column, row = int(gx), int(gy)
            word = WORDS.index(thing.word)
            spread = max(0.7, thing.size / world.SIDE * GRID / 9)
            around = torch.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * spread**2))
            heat[n, word] = torch.maximum(heat[n, word], around)
            where.append((n, row, column))
            hues.append(len(COLOURS) if thing.colour is None else COLOURS.index(thing.colour))
            places.append((gx - column - 0.5, gy - row - 0.5, thing.size / world.SIDE))
    heat, at = heat.to(words.device), torch.tensor(where, device=words.device).T
    chance = words.sigmoid().clamp(1e-4, 1 - 1e-4)
    hit = heat == 1
    focal = torch.where(
        hit, (1 - chance) ** 2 * chance.log(), (1 - heat) ** 4 * chance**2 * (1 - chance).log()
    ).sum() / -len(where)
    hue = functional.cross_entropy(colours[at[0], :, at[1], at[2]], torch.tensor(hues, device=words.device))
    box = functional.l1_loss(boxes[at[0], :, at[1], at[2]], torch.tensor(places, device=words.device))
    floor = functional.cross_entropy(
        grounds, torch.tensor([GROUNDS.index(scene.ground) for scene in scenes], device=words.device)
    )
    return focal + 0.5 * hue + 2 * box + 0.3 * floor


def worn(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures as a model might make them: blurred by chance, a little noisy, lighter or darker, shifted in colour."""
    n = len(pictures)
    for factor in (2, 4):
        soft = functional.interpolate(functional.avg_pool2d(pictures, factor), scale_factor=factor, mode="bilinear")
        share = torch.rand(n, 1, 1, 1, generator=generator) * (torch.rand(n, 1, 1, 1, generator=generator) < 0.4)
        pictures = pictures + share * (0.9 if factor == 2 else 0.6) * (soft - pictures)
    gain = 1 + 0.08 * torch.randn(n, 3, 1, 1, generator=generator)
    noise = torch.randn(pictures.shape, generator=generator) * 0.1 * torch.rand(n, 1, 1, 1, generator=generator)
    return pictures * gain + 0.05 * torch.randn(n, 3, 1, 1, generator=generator) + noise


def marks(seen: Sequence[Detections], scenes: Sequence[world.Scene]) -> dict[str, float]:
    """How well scenes were seen: shares of objects found, of sights that are true, of places within 8 pixels, of
    colours, of scenes with exactly the right objects, and of grounds.
    """
    found, places, hues, exact, claimed, true = [], [], [], [], 0, 0
    for sight, scene in zip(seen, scenes, strict=True):
        left = list(sight.things)
        for thing in scene.things:
            near = [s for s in left if s.word == thing.word and math.hypot(s.x - thing.x, s.y - thing.y) < 20]
            found.append(bool(near))
            if near:
                best = min(near, key=lambda s: math.hypot(s.x - thing.x, s.y - thing.y))
                left.remove(best)
                places.append(math.hypot(best.x - thing.x, best.y - thing.y) < 8)
                if thing.colour:
                    hues.append(best.colour == thing.colour)
        claimed += len(sight.things)
        true += len(sight.things) - len(left)
        exact.append(sorted(s.word for s in sight.things) == sorted(t.word for t in scene.things))

    def share(marks: Sequence[bool]) -> float:
        return sum(marks) / max(1, len(marks))

    grounds = [sight.ground == scene.ground for sight, scene in zip(seen, scenes, strict=True)]
    figures = {"found": share(found), "true": true / max(1, claimed), "places": share(places), "colours": share(hues)}
    return figures | {"exact": share(exact), "grounds": share(grounds)}


def load(path: Path, kind: Mapping[str, Any]) -> Detector:
    """A detector from its checkpoint."""
    model = Detector(**kind, vocabulary=VOCABULARY).eval()
    model.load_state_dict(averaged(path))
    return model


def detector(
    folder: Path,
    training: Training,
    log: Log,
    show: Show,
    device: torch.device = CPU,
    workers: int = 0,
    stage: Literal["eye", "judge"] = "eye",
) -> nn.Module:
    """Train the eye on painted scenes and what the autoencoder makes of them, or the judge on painted ones alone.

    Every fourth painted scene is of the combinations that the other stages never see: who is to tell whether the model
    draws a green hat has to know one. A judge that did not missed 6 of 21 painted ones.
    """
    sprites = drawings.load(folder / "sprites")
    model = Detector(**(EYE if stage == "eye" else JUDGE), vocabulary=VOCABULARY).to(device)
    passed = again(folder) if stage == "eye" else None
    if stage == "eye":
        begin(model, folder, "eye")
    held = [world.scene_of(i, HELD_OUT, held_out=True) for i in range(200)]
    pictures = painted(range(200), sprites, HELD_OUT, held_out=True)
    first = {"eye": 2_000_000, "judge": 3_000_000}[stage]

    def prepare(step: int) -> tuple[tuple[world.Scene, ...], Tensor]:
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
        if passed is not None and step % 2:
            numbers = torch.randint(len(passed), (training.batch,), generator=generator).sort().values.tolist()
            scenes, wanted = [world.scene_of(i) for i in numbers], pixels(passed[numbers])
        else:
            numbers = list(numbers_of(step, training, first))
            usual, rare = numbers[::4] + numbers[1::4] + numbers[2::4], numbers[3::4]
            scenes = [world.scene_of(i) for i in usual] + [world.scene_of(i, held_out=True) for i in rare]
            parts = [painted(usual, sprites), *([painted(rare, sprites, held_out=True)] if rare else [])]
            wanted = torch.cat(parts)
        return tuple(scenes), worn(wanted, generator)

    feed = Feed(prepare, training.steps, workers)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        scenes, wanted = feed(step)
        with fast(device):
            predicted = model(wanted.to(device, memory_format=torch.channels_last))
        return loss(predicted, scenes), {}

    def sheet(model: Any, step: int) -> None:
        log(marks(look(model, pictures.to(device)), held), step)

    return fit(model, loss_of, training, folder / f"{stage}.pt", log, sheet)


# ── calibration ───────────────────────────────────────────────────────────────────────────────────────────────────


def calibrated(
    detector: Any, pictures: Tensor, scenes: Sequence[world.Scene]
) -> tuple[Scale, dict[str, tuple[float, float]]]:
    """What makes probabilities of a detector's logits, by every second picture, and how far they are off on the others.

    The errors are expected calibration errors before and after: of the objects that are given 1 % or more, of the
    colours of those that have one, of the grounds.
    """
    there = torch.tensor([[word in {t.word for t in scene.things} for word in WORDS] for scene in scenes])
    with torch.inference_mode():
        parts = [[part.float().cpu() for part in detector(some)] for some in pictures.split(32)]
    words, colours, _, grounds = (torch.cat(part).double().clone() for part in zip(*parts, strict=True))
    cells = [
        (n, int(thing.y * GRID / world.SIDE), int(thing.x * GRID / world.SIDE), COLOURS.index(thing.colour))
        for n, scene in enumerate(scenes)
        for thing in scene.things
        if thing.colour
    ]
    picture, row, column, hue = torch.tensor(cells).reshape(-1, 4).T
    floor = torch.tensor([GROUNDS.index(scene.ground) for scene in scenes])
    best, hues = words.amax((2, 3)), colours[picture, :-1, row, column]
    first = torch.arange(len(scenes)) % 2 == 0
    slope, shift = _fitted(lambda s: s[0] * best[first] + s[1], there[first], 2)
    (hue_slope,) = _fitted(lambda s: s[0] * hues[first[picture]], hue[first[picture]], 1)
    (floor_slope,) = _fitted(lambda s: s[0] * grounds[first], floor[first], 1)
    rest = ~first
    # of 400 held-out scenes 99.0 % were seen exactly from 0.25 on, 98.3 % from 0.5 on, where faint objects are missed
    scale, errors = Scale(slope, shift, hue_slope, floor_slope, least=0.25), {}
    for name, logits, right, times in (
        ("colours", hues[rest[picture]], hue[rest[picture]], hue_slope),
        ("grounds", grounds[rest], floor[rest], floor_slope),
    ):
        sides = [(by * logits).softmax(1).max(1) for by in (1.0, times)]
        errors[name] = (calibration_error(*_hits(sides[0], right)), calibration_error(*_hits(sides[1], right)))
    sides_ = [best[rest].sigmoid(), (slope * best[rest] + shift).sigmoid()]
    objects = [calibration_error(p[p >= 0.01], there[rest][p >= 0.01]) for p in sides_]
    return scale, {"objects": (objects[0], objects[1]), **errors}


def _hits(best: Any, right: Tensor) -> tuple[Tensor, Tensor]:
    return best.values, best.indices == right


def _fitted(logits_of: Any, target: Tensor, count: int) -> tuple[float, ...]:
    """The slope, or slope and intercept, by which logits are likeliest; 1 and 0 where nothing tells."""
    start = torch.tensor([1.0, 0.0][:count], dtype=torch.float64)
    if not len(target):
        return tuple(start.tolist())
    with torch.inference_mode(False), torch.enable_grad():
        settings = start.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([settings], max_iter=50, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = logits_of(settings)
            if count == 2:
                error = functional.binary_cross_entropy_with_logits(logits, target.double())
            else:
                error = functional.cross_entropy(logits, target)
            # as one expects them before looking, within 3 or so: else what is told apart by a line has no finite slope
            error = error + ((settings - start) / 3).square().sum() / (2 * target.numel())
            error.backward()
            return error

        optimizer.step(closure)
    return tuple(settings.tolist())


def calibration_error(probabilities: Tensor, right: Tensor, bins: int = 15) -> float:
    """Expected calibration error: how far probabilities (n) are from the shares that are right (n), by bins of equal
    width (Guo et al. 2017).

    >>> calibration_error(torch.tensor([0.9, 0.9, 0.9, 0.9]), torch.tensor([True, True, True, False]))
    0.15
    """
    where = (probabilities * bins).long().clamp_max(bins - 1)
    total = 0.0
    for n in range(bins):
        inside = where == n
        if inside.any():
            total += float((probabilities[inside].double().mean() - right[inside].double().mean()).abs() * inside.sum())
    return round(total / max(1, len(probabilities)), 6)
