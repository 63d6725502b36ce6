"""Put another word, id or vector in the place of a word."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from embedlab.embeddings import Lookup
from embedlab.encoder import Texts
from embedlab.limits import Lengths, Stage
from embedlab.operators.base import (
    OnRows,
    RowSource,
    Value,
    edit_rows,
    format_setting,
    match_length,
    source,
    stage_label,
)
from embedlab.schedule import Setting, value_of
from embedlab.select import Spans
from embedlab.selector import format_selector


@dataclass(frozen=True)
class Replace(OnRows):
    """The selected rows become those of `by`: every occurrence of a word, or any other selector.

    At stage `token`, `by` is a word or phrase, a token id, a vector `(dim,)` or several `(n, dim)`. At stage `position`
    it is a word of the prompt (the place where that stands), a place 0 to 76, or vectors. A mapping of any of these is
    their weighted sum: `{king: 1, man: -1, woman: 1}`. A single row fills all tokens of a word; other counts have to
    agree unless `lengths` says how they are made to.

    The edit of Fast.ai's "Stable Diffusion Deep Dive", where the row of puppy (6829) gives way to that of cat (2368).

    >>> from embedlab import embed, models
    >>> tower = models.load("emoji").towers[0]
    >>> from embedlab.embeddings import lookup_of
    >>> cat = Replace("puppy", by="cat")(embed("a puppy", tower), lookup_of(tower))
    >>> bool((cat.token == embed("a cat", tower).token).all())
    True
    """

    named = ("by",)

    by: Setting[RowSource]
    stage: Stage = "token"
    lengths: Setting[Lengths] = "error"

    def __str__(self) -> str:
        return f"{format_selector(self.rows)} → {format_setting(self.by)}{stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        def change(rows: Tensor, table: str, spans: Spans) -> Tensor:
            there = source(self.by, table, prompt, lookup, value_of(self.lengths), self.rows)
            return match_length(there, rows.shape[1], value_of(self.lengths), format_selector(self.rows), self.by)

        return edit_rows(prompt, self.rows, self.stage, change)
