"""Position rows: where a word is said to stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.embeddings import Embeddings, Lookup, Table, finite, is_whole
from embedlab.errors import OperatorError
from embedlab.operators.apply import OnRows, between, over
from embedlab.prompt import WINDOW
from embedlab.select import Spans, said, words_of


def at(places: Tensor, lookup: Lookup, what: str) -> Float[Tensor, "*place dim"]:
    """Position rows at places, which need not be whole; OperatorError for one past the table."""
    last = len(lookup.position_table) - 1
    outside = places[(places < 0) | (places > last)]
    if len(outside):
        raise OperatorError(f"{what} asks for place {float(outside[0]):g}; the table has places 0 to {last}.")
    return between(lookup.position_table, places.to(lookup.position_table.device))


def places_of(spans: Spans) -> Tensor:
    """Where rows stand in their window, (span, row)."""
    return torch.tensor(spans) % WINDOW


@dataclass(frozen=True)
class Shift(OnRows):
    """Move the selected rows' places by a number of tokens, along the table; half a token is half way between rows.

    0 is the identity; a place past the table is refused.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> made = Shift("cat", by=3)(embed("a cat", tower), lookup_of(tower))
    >>> torch.equal(made.position[0, 2], tower.position_table[5])
    True
    """

    by: Any = 1

    def __post_init__(self) -> None:
        words_of(self.rows)
        finite(self.by, "by")

    def __str__(self) -> str:
        return f"{said(self.rows)} shifted {float(self.by):+g}"

    def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings:
        def change(rows: Tensor, table: Table, spans: Spans) -> Tensor:
            return rows if self.by == 0 else at(places_of(spans) + self.by, lookup, str(self))

        return over(prompt, self.rows, "position", change)


@dataclass(frozen=True)
class Place(OnRows):
    """Let the selected rows stand from place `at` on: its first token there, the next ones after it.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> made = Place("cat", at=10)(embed("a cat", tower), lookup_of(tower))
    >>> torch.equal(made.position[0, 2], tower.position_table[10])
    True
    """

    at: int

    def __post_init__(self) -> None:
        words_of(self.rows)
        if not is_whole(self.at):
            raise OperatorError(f"at is {self.at!r}; it has to be a place, a whole number from 0.")

    def __str__(self) -> str:
        return f"{said(self.rows)} at {self.at}"

    def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings:
        def change(rows: Tensor, table: Table, spans: Spans) -> Tensor:
            return at(self.at + torch.arange(rows.shape[1]), lookup, str(self))

        return over(prompt, self.rows, "position", change)


@dataclass(frozen=True)
class Freeze(OnRows):
    """Let all selected rows stand at one place, by a share `weight`: 0 is the identity, 1 leaves no order among them.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> made = Freeze({"role": "all"}, at=1)(embed("a cat", tower), lookup_of(tower)).position[0]
    >>> torch.equal(made, tower.position_table[[1]].expand(77, -1))
    True
    """

    at: int = 1
    weight: Any = 1.0

    def __post_init__(self) -> None:
        Place.__post_init__(self)  # type: ignore[arg-type]
        finite(self.weight, "weight")

    def __str__(self) -> str:
        return f"{said(self.rows)} frozen at {self.at}" + ("" if self.weight == 1 else f", {float(self.weight):g}")

    def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings:
        def change(rows: Tensor, table: Table, spans: Spans) -> Tensor:
            return torch.lerp(rows, at(torch.tensor([self.at]), lookup, str(self)).expand_as(rows), self.weight)

        return over(prompt, self.rows, "position", change)


def stretched(table: Float[Tensor, "place dim"], keep: int = 20, factor: float = 4.0) -> Float[Tensor, "longer dim"]:
    """A position table with the rows after the first `keep` drawn out `factor` times (Long-CLIP, Zhang et al. 2024).

    New row `keep + factor·i + k` is `(1 - k/factor) · old[keep + i] + (k/factor) · old[keep + i + 1]`; past the last
    old row the line through the last two goes on. 77 rows, 20 kept, factor 4 make 248; factor 1 is the table itself.

    >>> table = torch.arange(77.0)[:, None]
    >>> longer = stretched(table)
    >>> len(longer), longer[[19, 20, 21, 24, 247]].flatten().tolist()
    (248, [19.0, 20.0, 20.25, 21.0, 76.75])
    """
    length = keep + int((len(table) - keep) * factor)
    where = torch.arange(length - keep) / factor
    beyond = torch.cat([table, 2 * table[-1:] - table[-2:-1]])
    return torch.cat([table[:keep], between(beyond[keep:], where.to(table.device))])


@dataclass(frozen=True)
class Stretch(OnRows):
    """Let the selected rows stand on a stretched position table: after the first `keep` places, steps are 1/`factor`.

    Long-CLIP's way of reading 248 tokens with 77 trained places, inside a window; factor 1 is the identity.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> made = Stretch(keep=1, factor=2)(embed("a cat", tower), lookup_of(tower)).position[0]
    >>> torch.equal(made[1], tower.position_table[1]), torch.equal(made[3], tower.position_table[2])
    (True, True)
    """

    rows: Any = None
    keep: int = 20
    factor: Any = 4.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", {"role": "all"} if self.rows is None else self.rows)
        words_of(self.rows)
        if not is_whole(self.keep) or not 0 <= self.keep < WINDOW:
            raise OperatorError(f"keep is {self.keep!r}; it has to be a whole number from 0 to {WINDOW - 1}.")
        if finite(self.factor, "factor") < 1:
            raise OperatorError(f"factor is {self.factor}; it has to be 1 or more: 4 makes 248 places of 77.")

    def __str__(self) -> str:
        return f"places stretched {float(self.factor):g} after {self.keep}"

    def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings:
        def change(rows: Tensor, table: Table, spans: Spans) -> Tensor:
            if self.factor == 1:
                return rows
            return stretched(lookup.position_table, self.keep, self.factor)[places_of(spans)]

        return over(prompt, self.rows, "position", change)
