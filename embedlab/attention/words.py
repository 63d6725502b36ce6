"""Which tokens of each call a picture's maps are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embedlab.errors import NoRowsError, OperatorError, PromptError
from embedlab.selector import Selector, format_selector


@dataclass(frozen=True)
class Slots:
    """Tokens that sums are kept of: of each name so many, one after the other, and where they stand in each call.

    places: by call and stream, the columns of the hidden states, and the slot of each.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    places: tuple[tuple[tuple[list[int], list[int]], ...], ...]

    @property
    def count(self) -> int:
        """How many tokens."""
        return sum(self.counts)

    def at(self, call: int, stream: int) -> tuple[list[int], list[int]]:
        """The columns of a call and stream, and their slots."""
        return self.places[call][stream]

    def words_of(self, maps: Tensor) -> Tensor:
        """Maps of tokens (…, slot, h, w) → of words, each the mean of its tokens."""
        return torch.stack([part.mean(-3) for part in maps.split(list(self.counts), dim=-3)], dim=-3)


def slots_of(words: Sequence[Selector] | None, calls: Sequence[Any]) -> Slots:
    """The tokens that maps of `words` are of, in each call of a picture; None is all words of its prompts.

    Raises PromptError or OperatorError for what is in none of its prompts.
    """
    known: dict[int, list[dict[str, list[int]]]] = {}
    refused: dict[str, Exception] = {}
    for call in calls:
        if id(call) not in known:
            streams = [one for _, one in call.cond.streams]
            known[id(call)] = [_found(words, one, refused) for one in streams]
    names = [format_selector(word) for word in words] if words is not None else []
    every = [found for streams in known.values() for found in streams]
    names = list(dict.fromkeys([*names, *(name for found in every for name in found)]))
    for name in names:
        if not any(name in found for found in every):
            raise refused[name]
    counts = [max(len(found.get(name, ())) for found in every) for name in names]
    begins = [sum(counts[:n]) for n in range(len(counts))]
    places = []
    for call in calls:
        mine = []
        for found in known[id(call)]:
            columns = [column for name in names for column in found.get(name, ())]
            slots = [b + k for name, b in zip(names, begins, strict=True) for k in range(len(found.get(name, ())))]
            mine.append((columns, slots))
        places.append(tuple(mine))
    return Slots(tuple(names), tuple(counts), tuple(places))


def _found(words: Sequence[Selector] | None, conditioning: Any, refused: dict[str, Exception]) -> dict[str, list[int]]:
    """The columns of each word in a conditioning that has it."""
    if words is None:
        return every_word(conditioning)
    found = {}
    for word in words:
        try:
            found[format_selector(word)] = [n for span in conditioning.spans(word) for n in span]
        except (NoRowsError, PromptError, OperatorError) as error:
            refused[format_selector(word)] = error
    return found


def every_word(conditioning: Any) -> dict[str, list[int]]:
    """All words of a conditioning's prompt that reach the UNet, and their columns; signs alone are no words."""
    where = {row: n for n, row in enumerate(conditioning.rows) if row >= 0}
    found: dict[str, list[int]] = {}
    for word in conditioning.tokens.words if conditioning.tokens is not None else ():
        columns = [where[row] for row in word.rows if row in where]
        if columns and any(sign.isalnum() for sign in word.text):
            found.setdefault(word.text, []).extend(columns)
    return found
