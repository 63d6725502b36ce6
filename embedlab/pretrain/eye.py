"""Which objects are on a picture, where, how many and in what colour, and what they stand on.

Two small detectors of this kind are trained. The *eye* ships with the model: it saw painted scenes and their passage
through the autoencoder. The *judge* saw drawings alone, at half the size and with another network; it is there to tell
how good the model is. Neither ever saw what the UNet draws.

Each cell of 16 × 16 answers for the object whose middle it holds (CenterNet, arXiv 1904.07850).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from embedlab.pretrain import drawings, world

GRID = 16
WORDS, COLOURS, GROUNDS = list(drawings.WORDS), list(drawings.COLOURS), list(world.GROUNDS)
EYE: Mapping[str, Any] = {"side": 128, "widths": (24, 48, 96, 128)}
JUDGE: Mapping[str, Any] = {"side": 64, "widths": (40, 112, 144)}


@dataclass(frozen=True)
class Sight:
    """An object that was seen: the middle of its box and its longer side in pixels, and how likely it is there.

    `colour` is the likeliest of the named colours, whether or not it is the drawing's own.
    """

    word: str
    x: float
    y: float
    size: float
    chance: float
    colour: str
    colour_chance: float


@dataclass(frozen=True)
class Seen:
    """What is on a picture, the likeliest object first."""

    things: tuple[Sight, ...]
    ground: str
    ground_chance: float

    def of(self, word: str) -> tuple[Sight, ...]:
        """All objects of a word."""
        return tuple(thing for thing in self.things if thing.word == word)


class Block(nn.Module):
    """Two convolutions past a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) → the same."""
        return functional.relu(x + self.body(x))


def _down(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inward, outward, 3, 2, 1), nn.GroupNorm(8, outward), nn.ReLU())


class Detector(nn.Module):
    """A small CenterNet: pictures (n, 3, side, side) in [-1, 1] → maps of words, colours and boxes, and the ground.

    The widths but the last lead down to 16 × 16 cells; the last one is that of 8 × 8 and 4 × 4, where an object is seen
    as a whole.
    """

    def __init__(self, side: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.side = side
        inward = [3, *widths[:-1]]
        steps: list[nn.Module] = []
        for n, (a, b) in enumerate(pairwise(inward)):
            steps += [_down(a, b), *([Block(b)] if n else [])]
        fine, coarse = widths[-2:]
        self.fine = nn.Sequential(*steps, Block(fine))
        self.middle = nn.Sequential(_down(fine, coarse), Block(coarse))
        self.coarse = nn.Sequential(_down(coarse, coarse), Block(coarse))
        self.join = nn.ModuleList([nn.Conv2d(coarse, coarse, 1), nn.Conv2d(coarse, fine, 1)])
        self.last = Block(fine)
        self.maps = nn.Conv2d(fine, len(WORDS) + len(COLOURS) + 4, 1)  # a colour more: its own; and x, y, size
        self.ground = nn.Linear(fine, len(GROUNDS))
        nn.init.constant_(self.maps.bias[: len(WORDS)], -4.0)  # type: ignore[index]

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits of words (n, 64, 16, 16) and colours (n, 8, 16, 16), boxes (n, 3, 16, 16), logits of grounds."""
        if pictures.shape[-1] != self.side:
            pictures = functional.interpolate(pictures, (self.side, self.side), mode="area")
        fine = self.fine(pictures)
        middle = self.middle(fine)
        middle = middle + functional.interpolate(self.join[0](self.coarse(middle)), scale_factor=2.0)
        fine = self.last(fine + functional.interpolate(self.join[1](middle), scale_factor=2.0))
        words, colours, boxes = self.maps(fine).split([len(WORDS), len(COLOURS) + 1, 3], dim=1)
        return words, colours, boxes, self.ground(fine.mean((2, 3)))


@torch.inference_mode()
def look(detector: Any, pictures: Tensor, least: float = 0.3) -> list[Seen]:
    """What is on pictures (n, 3, h, w) in [-1, 1]: of cells that lie side by side only the likeliest counts.

    A detector that was calibrated has `scale`: slope and intercept of the objects' logits, and the slopes of the
    colours' and the grounds'.
    """
    slope, shift, colour_slope, ground_slope = getattr(detector, "scale", (1.0, 0.0, 1.0, 1.0))
    answers = []
    for part in pictures.split(64):
        words, colours, boxes, grounds = (x.float() for x in detector(part))
        best, which = words.max(1)
        peaks = (best == functional.max_pool2d(best[:, None], 3, 1, 1)[:, 0]) & (best.sigmoid() > least)
        chances = (slope * best + shift).sigmoid()
        hues = (colour_slope * colours[:, :-1]).softmax(1)
        floors = (ground_slope * grounds).softmax(1)
        for n in range(len(part)):
            things = []
            for row, column in peaks[n].nonzero().tolist():
                dx, dy, size = boxes[n, :, row, column].tolist()
                hue = hues[n, :, row, column]
                things.append(
                    Sight(
                        WORDS[int(which[n, row, column])],
                        (column + 0.5 + dx) * world.SIDE / GRID,
                        (row + 0.5 + dy) * world.SIDE / GRID,
                        size * world.SIDE,
                        float(chances[n, row, column]),
                        COLOURS[int(hue.argmax())],
                        float(hue.max()),
                    )
                )
            things.sort(key=lambda thing: -thing.chance)
            answers.append(Seen(tuple(things), GROUNDS[int(floors[n].argmax())], float(floors[n].max())))
    return answers


# ── training ──────────────────────────────────────────────────────────────────────────────────────────────────────


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


def marks(seen: Sequence[Seen], scenes: Sequence[world.Scene]) -> dict[str, float]:
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
    state = torch.load(path, weights_only=True, map_location="cpu")["average"]
    model = Detector(**kind).eval()
    model.load_state_dict({k.removeprefix("module."): v for k, v in state.items() if k.startswith("module.")})
    return model


# ── what a picture of a prompt shows ──────────────────────────────────────────────────────────────────────────────


def stands(one: Sight, relation: str, other: Sight) -> bool:
    """Whether one object stands to another as a relation says, by middles and sizes alone."""
    dx, dy = other.x - one.x, other.y - one.y
    near = math.hypot(dx, dy) < 0.9 * (one.size + other.size) / 2
    return {
        "above": dy > 12 and dy > abs(dx),
        "below": -dy > 12 and -dy > abs(dx),
        "left of": dx > 12 and dx > abs(dy),
        "right of": -dx > 12 and -dx > abs(dy),
        "beside": abs(dx) > 12 and abs(dx) > abs(dy),
        "in front of": near and -dy > 6,
        "behind": near and dy > 6,
        "bigger than": one.size > 1.4 * other.size,
        "smaller than": other.size > 1.4 * one.size,
    }[relation]


def outcome(seen: Seen, first: str, second: str) -> str:
    """What became of a prompt with two objects: `both`, `first only`, `second only`, `twice first`, `twice second`,
    `other` or `nothing`.
    """
    one, two, all_ = len(seen.of(first)), len(seen.of(second)), len(seen.things)
    if one and two:
        return "both"
    if one or two:
        name = "first" if one else "second"
        return f"twice {name}" if one + two > 1 else f"{name} only"
    return "other" if all_ else "nothing"
