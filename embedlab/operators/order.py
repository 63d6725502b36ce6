"""Rows in another order, and words in each other's places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from embedlab.embeddings import Lookup
from embedlab.encoder import Texts
from embedlab.errors import OperatorError
from embedlab.limits import Lengths, Stage, order_of
from embedlab.operators.base import OnRows, Value, edit_rows, match_length, stage_label, tables
from embedlab.schedule import Setting, value_of, varies
from embedlab.select import Spans
from embedlab.selector import Selector, format_selector, words_of


@dataclass(frozen=True)
class Reverse(OnRows):
    """Turn the order of the selected rows round: within each occurrence of a phrase, or of what is selected together.

    Rows are (n, dim) of the table that `stage` names; twice is the identity. No other tool offers it for places.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> prompt = embed("a cat", tower)
    >>> torch.equal(Reverse("a cat", stage="token")(prompt, lookup_of(tower)).token, embed("cat a", tower).token)
    True
    """

    role = "words"

    rows: Setting[Selector] = None  # type: ignore[assignment]  # `role` says which
    stage: Stage = "position"

    def __str__(self) -> str:
        return f"{format_selector(self.rows)} reversed{stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        return edit_rows(prompt, self.rows, self.stage, lambda rows, table, spans: rows.flip(1))


@dataclass(frozen=True)
class Permute(OnRows):
    """Give the selected rows (n, dim) a stated order: row `i` becomes row `order[i]` of the selection, from 0.

    prompt-control permutes words of the text (SHUFFLE, SHIFT); this permutes what they are read as.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> prompt = embed("red green blue", tower)
    >>> edited = Permute({"role": "words"}, order=(2, 0, 1), stage="token")(prompt, lookup_of(tower))
    >>> torch.equal(edited.token, embed("blue red green", tower).token)
    True
    """

    order: Setting[Sequence[int]]
    stage: Stage = "position"

    def check(self) -> None:
        super().check()
        object.__setattr__(self, "order", order_of(self.order))

    def __str__(self) -> str:
        order = self.order if varies(self.order) else " ".join(map(str, value_of(self.order)))
        return f"{format_selector(self.rows)} in order {order}{stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        def change(rows: Tensor, table: str, spans: Spans) -> Tensor:
            if rows.shape[1] != len(value_of(self.order)):
                raise OperatorError(
                    f"order names {len(value_of(self.order))} rows, '{format_selector(self.rows)}' has {rows.shape[1]}."
                )
            return rows[:, list(value_of(self.order))]

        return edit_rows(prompt, self.rows, self.stage, change)


@dataclass(frozen=True)
class Swap(OnRows):
    """Let two selections trade their rows: at stage `position` two words trade places, at `token` their vectors.

    Rows are (n, dim) of the table that `stage` names. Where their counts differ, `lengths` says how each is made to fit
    the other. At stage `token` it is the prompt with the words exchanged; at `position` no other tool offers it.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> prompt = embed("a cat above a dog", tower)
    >>> edited = Swap("cat", "dog", stage="token")(prompt, lookup_of(tower))
    >>> torch.equal(edited.token, embed("a dog above a cat", tower).token)
    True
    """

    by: Setting[Selector]
    stage: Stage = "position"
    lengths: Setting[Lengths] = "error"

    @property
    def words(self) -> tuple[str, ...]:
        """The words that this edit is about, for scores."""
        return (*words_of(self.rows), *words_of(self.by))

    def __str__(self) -> str:
        return f"{format_selector(self.rows)} ↔ {format_selector(self.by)}{stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        names = format_selector(self.rows), format_selector(self.by)
        lengths: Lengths = value_of(self.lengths)
        for table in tables(self.stage):
            here, there = prompt.spans(self.rows, table), prompt.spans(self.by, table)
            if shared := {r for s in here for r in s} & {r for s in there for r in s}:
                raise OperatorError(f"'{names[0]}' and '{names[1]}' share row {min(shared)}; nothing to trade.")
            if len(here) != len(there):
                raise OperatorError(
                    f"'{names[0]}' stands {len(here)} times and '{names[1]}' {len(there)} times; say which by nth."
                )
            a, b = prompt.take(table, here), prompt.take(table, there)
            to_there = torch.stack([match_length(rows, b.shape[1], lengths, names[1], names[0]) for rows in a])
            to_here = torch.stack([match_length(rows, a.shape[1], lengths, *names) for rows in b])
            prompt = prompt.put(table, here, to_here).put(table, there, to_there)
        return prompt
