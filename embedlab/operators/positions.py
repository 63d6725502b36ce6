"""Position rows: where a word is said to stand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.embeddings import Embeddings, Lookup, between, stretched
from embedlab.errors import OperatorError
from embedlab.operators.base import Number, OnRows, edit_rows, number_of
from embedlab.schedule import Setting, format_number, value_of
from embedlab.select import Spans
from embedlab.selector import Selector, format_selector


def at(places: Tensor, prompt: Embeddings, what: str) -> Float[Tensor, "*position dim"]:
    """Position rows at places, which need not be whole; OperatorError for one past the table."""
    last = len(prompt.position_table) - 1
    outside = places[(places < 0) | (places > last)]
    if len(outside):
        raise OperatorError(f"{what} asks for position {float(outside[0]):g}; the table has positions 0 to {last}.")
    return between(prompt.position_table, places.to(prompt.position_table.device))


def places_of(spans: Spans, prompt: Embeddings) -> Tensor:
    """Where rows stand in their window, (span, row)."""
    return torch.tensor(spans) % prompt.tokens.window


@dataclass(frozen=True)
class Shift(OnRows):
    """Move the selected rows' places by a number of tokens, along the table; half a token is half way between rows.

    Row p of the position table (77, dim) becomes row p + `by`, between two rows by their line: words are read as if so
    many more stood before them. 0 is the identity; a place past the table is refused. No other tool offers it.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> edited = Shift("cat", by=3)(embed("a cat", tower), lookup_of(tower))
    >>> torch.equal(edited.position[0, 2], tower.position_table[5])
    True
    """

    by: Setting[Number] = 1

    def __str__(self) -> str:
        return f"{format_selector(self.rows)} shifted {format_number(self.by)}"

    def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings:
        def change(rows: Tensor, table: str, spans: Spans) -> Tensor:
            return rows if self.by == 0 else at(places_of(spans, prompt) + number_of(self.by), prompt, str(self))

        return edit_rows(prompt, self.rows, "position", change)


@dataclass(frozen=True)
class Place(OnRows):
    """Let the selected rows stand from place `at` on: its first token there, the next ones after it.

    Their position rows (n, dim) become rows `at`, `at + 1`, … of the table, whatever stands there already (the
    `position_ids` of a text encoder, word by word).

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> edited = Place("cat", at=10)(embed("a cat", tower), lookup_of(tower))
    >>> torch.equal(edited.position[0, 2], tower.position_table[10])
    True
    """

    at: Setting[int]

    def __str__(self) -> str:
        return f"{format_selector(self.rows)} at {self.at}"

    def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings:
        def change(rows: Tensor, table: str, spans: Spans) -> Tensor:
            return at(value_of(self.at) + torch.arange(rows.shape[1]), prompt, str(self))

        return edit_rows(prompt, self.rows, "position", change)


@dataclass(frozen=True)
class Freeze(OnRows):
    """Let all selected rows stand at one place, by a share `weight`: 0 is the identity, 1 leaves no order among them.

    Position rows (n, dim) move to row `at` of the table on a straight line; causal attention still knows the order.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> edited = Freeze({"role": "all"}, at=1)(embed("a cat", tower), lookup_of(tower)).position[0]
    >>> torch.equal(edited, tower.position_table[[1]].expand(77, -1))
    True
    """

    role = "all"

    rows: Setting[Selector] = None  # type: ignore[assignment]  # `role` says which
    at: Setting[int] = 1
    weight: Setting[Number] = 1.0

    def __str__(self) -> str:
        return f"{format_selector(self.rows)} frozen at {self.at}" + (
            "" if self.weight == 1 else f", {format_number(self.weight)}"
        )

    def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings:
        def change(rows: Tensor, table: str, spans: Spans) -> Tensor:
            there = at(torch.tensor([value_of(self.at)]), prompt, str(self))
            return torch.lerp(rows, there.expand_as(rows), number_of(self.weight))

        return edit_rows(prompt, self.rows, "position", change)


@dataclass(frozen=True)
class Stretch(OnRows):
    """Let the selected rows stand on a stretched position table: after the first `keep` places, steps are 1/`factor`.

    Long-CLIP's way of reading 248 tokens with 77 trained places, inside a window; factor 1 is the identity.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> edited = Stretch(keep=1, factor=2)(embed("a cat", tower), lookup_of(tower)).position[0]
    >>> torch.equal(edited[1], tower.position_table[1]), torch.equal(edited[3], tower.position_table[2])
    (True, True)
    """

    role = "all"

    rows: Setting[Selector] = None  # type: ignore[assignment]  # `role` says which
    keep: Setting[int] = 20
    factor: Setting[Number] = 4.0

    def __str__(self) -> str:
        return f"places stretched {format_number(self.factor)} after {self.keep}"

    def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings:
        def change(rows: Tensor, table: str, spans: Spans) -> Tensor:
            if self.factor == 1:
                return rows
            longer = stretched(prompt.position_table, value_of(self.keep), number_of(self.factor))
            return longer[places_of(spans, prompt)]

        return edit_rows(prompt, self.rows, "position", change)
