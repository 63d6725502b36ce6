"""Chance, seeded: noise on rows, rows turned in a random direction, rows in random order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from embedlab.embeddings import Lookup
from embedlab.encoder import Texts
from embedlab.errors import OperatorError
from embedlab.limits import Stage
from embedlab.operators.base import Number, OnRows, Value, edit_rows, number_of, stage_label, tables
from embedlab.schedule import Setting, format_number, value_of
from embedlab.select import Spans
from embedlab.selector import Selector, format_selector


def generator(seed: int) -> torch.Generator:
    """A seeded generator on the CPU, so that a seed means the same on every machine."""
    return torch.Generator().manual_seed(seed)


@lru_cache(maxsize=32)
def normal(seed: int, shape: tuple[int, ...], table: int = 0) -> Tensor:
    """Standard normal numbers on the CPU, the same for a seed on every machine; each table has a stream of its own.

    Kept, because a sweep over an amount draws them again and again; nobody writes into them.
    """
    return torch.randn(shape, generator=generator((seed + table * 0x9E3779B97F4A7C15) % 2**63))


@dataclass(frozen=True)
class Noise(OnRows):
    """Add a random vector to each selected row, `amount` times as long as the row: `r + a · |r| · u`, |u| = 1.

    Directions (n, dim) are uniform and drawn from `seed`; amount 0 is the identity, and the same seed gives the same
    directions whatever the amount. prompt-control's NOISE() mixes noise into the conditioning: stage `hidden`.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> prompt = embed("a cat", tower)
    >>> moved = Noise("cat", amount=0.5)(prompt, lookup_of(tower)).token[0, 2] - prompt.token[0, 2]
    >>> torch.allclose(moved.norm(), 0.5 * prompt.token[0, 2].norm())
    True
    """

    amount: Setting[Number] = 0.5
    seed: Setting[int] = 0
    stage: Stage = "token"

    def __str__(self) -> str:
        return f"{format_selector(self.rows)} + {format_number(self.amount)} noise {self.seed}{stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        def change(rows: Tensor, table: str, spans: Spans) -> Tensor:
            drawn = normal(value_of(self.seed), tuple(rows.shape), tables(self.stage).index(table))
            unit = torch.nn.functional.normalize(drawn, dim=-1).to(rows)
            lengths: Tensor = rows.norm(dim=-1, keepdim=True)
            return rows + number_of(self.amount) * lengths * unit

        return edit_rows(prompt, self.rows, self.stage, change)


@dataclass(frozen=True)
class Rotate(OnRows):
    """Turn each selected row by `angle` degrees toward a random direction at right angles to it; lengths stay.

    `cos φ · r + sin φ · |r| · u` with `u ⟂ r`, `|u| = 1`, one for each row (n, dim), drawn from `seed`; 0 is the
    identity, 180 the opposite. The control for `Interpolate`: as far away, but toward nothing.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> prompt = embed("a cat", tower)
    >>> edited = Rotate("cat", angle=60)(prompt, lookup_of(tower)).token[0, 2]
    >>> round(float(torch.nn.functional.cosine_similarity(edited, prompt.token[0, 2], dim=0)), 4)
    0.5
    """

    angle: Setting[Number] = 45.0
    seed: Setting[int] = 0
    stage: Stage = "token"

    def __str__(self) -> str:
        return f"{format_selector(self.rows)} turned {format_number(self.angle)}°{stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        angle = torch.as_tensor(number_of(self.angle)) * (math.pi / 180)

        def change(rows: Tensor, table: str, spans: Spans) -> Tensor:
            lengths: Tensor = rows.norm(dim=-1, keepdim=True)
            if not bool((lengths.detach() > 0).all()):
                raise OperatorError(f"a row of '{format_selector(self.rows)}' has no length to be turned.")
            unit = rows / lengths
            other = normal(value_of(self.seed), tuple(rows.shape), tables(self.stage).index(table)).to(rows)
            other = torch.nn.functional.normalize(other - (other * unit).sum(-1, keepdim=True) * unit, dim=-1)
            return angle.cos().to(rows) * rows + angle.sin().to(rows) * lengths * other

        return edit_rows(prompt, self.rows, self.stage, change)


@dataclass(frozen=True)
class Shuffle(OnRows):
    """Put the selected rows (n, dim) in random order, drawn from `seed`; all together, across words and windows.

    At stage `position` the words stay and their places are dealt out anew; no other tool offers it.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> prompt = embed("a cat above a dog", tower)
    >>> edited = Shuffle({"role": "words"}, seed=3)(prompt, lookup_of(tower))
    >>> torch.equal(edited.position.sort(dim=1).values, prompt.position.sort(dim=1).values)
    True
    """

    role = "words"

    rows: Setting[Selector] = None  # type: ignore[assignment]  # `role` says which
    seed: Setting[int] = 0
    stage: Stage = "position"

    def __str__(self) -> str:
        return f"{format_selector(self.rows)} shuffled {self.seed}{stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        def change(rows: Tensor, table: str, spans: Spans) -> Tensor:
            order = torch.randperm(rows.shape[0] * rows.shape[1], generator=generator(value_of(self.seed)))
            return rows.flatten(0, 1)[order].view_as(rows)

        return edit_rows(prompt, self.rows, self.stage, change)
