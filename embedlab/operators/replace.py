"""Put another word, id or vector in the place of a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedlab.embeddings import Embeddings, Lookup
from embedlab.errors import OperatorError
from embedlab.operators.apply import Lengths, Rows, check_lengths, fit, shown, source, tables, where


@dataclass(frozen=True)
class Replace:
    """Every occurrence of `word` gets the rows of `by`.

    On token rows `by` is a word or phrase, a token id, or a vector `(dim,)` or several `(n, dim)`. On position rows it
    is a word of the prompt (the place where that stands), a place 0 to 76, or vectors. A single row fills all tokens of
    `word`; other counts have to agree unless `lengths` says how they are made to.

    The edit of Fast.ai's "Stable Diffusion Deep Dive", where the row of puppy (6829) gives way to that of cat (2368).

    >>> from embedlab import embed, models
    >>> tower = models.load("emoji").towers[0]
    >>> from embedlab.embeddings import lookup_of
    >>> cat = Replace("puppy", by="cat")(embed("a puppy", tower), lookup_of(tower))
    >>> bool((cat.token == embed("a cat", tower).token).all())
    True
    """

    word: str
    by: Any
    rows: Rows = "token"
    lengths: Lengths = "error"

    def __post_init__(self) -> None:
        check_lengths(self.lengths)
        if len(tables(self.rows)) > 1 and not isinstance(self.by, str):
            raise OperatorError("rows is 'both', so `by` has to be a word of the prompt: an id is no place.")

    @property
    def words(self) -> tuple[str, ...]:
        """The words that this edit is about, for scores."""
        return tuple(w for w in (self.word, self.by) if isinstance(w, str))

    def __str__(self) -> str:
        return f"{self.word} → {shown(self.by)}{where(self.rows)}"

    def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings:
        spans = prompt.tokens.rows(self.word)
        for table in tables(self.rows):
            there = source(self.by, table, prompt, lookup)
            prompt = prompt.put(table, spans, fit(there, len(spans[0]), self.lengths, self.word, self.by))
        return prompt
