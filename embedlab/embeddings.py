"""Tokens → Embeddings: token rows and position rows, apart until the encoder adds them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from numbers import Real
from typing import Any, Literal, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTokenizer

from embedlab.clip import Tower
from embedlab.errors import OperatorError, PromptError
from embedlab.prompt import WINDOW, Tokens, ids_of, tokenize

Table = Literal["token", "position"]


@dataclass(frozen=True)
class Embeddings:
    """One prompt before one text encoder. Values are never changed in place: `put` answers with a new prompt."""

    tokens: Tokens
    token: Float[Tensor, "window 77 dim"]
    position: Float[Tensor, "window 77 dim"]

    def take(self, table: Table, rows: Sequence[Sequence[int]]) -> Float[Tensor, "span row dim"]:
        """The vectors of `rows` in a table; all spans are of one length."""
        return getattr(self, table).flatten(0, 1)[torch.tensor(rows)]

    def put(self, table: Table, rows: Sequence[Sequence[int]], values: Float[Tensor, "*span row dim"]) -> Embeddings:
        """The prompt with other vectors at `rows` of a table; `values` broadcast over the spans."""
        old = getattr(self, table)
        new = old.flatten(0, 1).clone()
        new[torch.tensor(rows)] = values.to(new)
        return replace(self, **{table: new.view_as(old)})

    @property
    def summed(self) -> Float[Tensor, "window 77 dim"]:
        """What enters the encoder."""
        return self.token + self.position


@dataclass(frozen=True)
class Neighbour:
    """An entry of the vocabulary near a row."""

    id: int
    text: str
    cosine: float
    distance: float


@lru_cache(maxsize=8)
def mean_norm(table: Tensor) -> Tensor:
    """The mean norm of a table's rows, computed once a table."""
    return table.float().norm(dim=1).mean()


@dataclass(frozen=True)
class Lookup:
    """From a word, an id or a vector to rows of one encoder's tables.

    >>> from embedlab import models
    >>> lookup = lookup_of(models.load("emoji").towers[0])
    >>> torch.equal(lookup("cat"), lookup(2368))
    True
    """

    tokenizer: CLIPTokenizer
    token_table: Float[Tensor, "vocab dim"]
    position_table: Float[Tensor, "place dim"]

    def __call__(self, what: str | int | Tensor | Sequence[Any]) -> Float[Tensor, "row dim"]:
        """Token rows of a word or phrase, of a token id, or a vector as it is."""
        if isinstance(what, str):
            ids = ids_of(what, self.tokenizer)
            if not ids:
                raise PromptError("an empty text has no token rows; name a word.")
            return self.token_table[ids]
        if is_whole(what):
            if not 0 <= what < len(self.token_table):
                raise OperatorError(f"{what} is no token id; the vocabulary has ids 0 to {len(self.token_table) - 1}.")
            return self.token_table[[what]]
        return vectors(what, self.token_table)

    def table(self, name: Table) -> Float[Tensor, "entry dim"]:
        """The table of a stage."""
        return self.token_table if name == "token" else self.position_table

    def mean_length(self, name: Table) -> Tensor:
        """The mean norm of a table's rows."""
        return mean_norm(self.table(name))

    def nearest(
        self, rows: Float[Tensor, "*row dim"], most: int = 5, by: Literal["cosine", "distance"] = "cosine"
    ) -> list[list[Neighbour]]:
        """The vocabulary entries closest to each row, nearest first, with cosine similarity and Euclidean distance.

        Rows (n, dim) or one row (dim,); `by` says what "closest" means.

        >>> from embedlab import models
        >>> lookup = lookup_of(models.load("emoji").towers[0])
        >>> [[n.text for n in row] for row in lookup.nearest(lookup("cat"), most=1)]
        [['cat']]
        """
        if by not in ("cosine", "distance"):
            raise OperatorError(f"nearest by '{by}'; choose one of cosine, distance.")
        rows, table = vectors(rows, self.token_table).float(), self.token_table.float()
        distances = torch.cdist(rows, table)
        cosines = torch.nn.functional.normalize(rows, dim=-1) @ torch.nn.functional.normalize(table, dim=-1).T
        best = (cosines if by == "cosine" else -distances).topk(most, dim=-1).indices
        return [
            [
                Neighbour(i, self.tokenizer.decode([i]).strip(), float(cosines[r, i]), float(distances[r, i]))
                for i in row
            ]
            for r, row in enumerate(best.tolist())
        ]

    def place(self, what: str | int | Tensor | Sequence[Any], tokens: Tokens) -> Float[Tensor, "row dim"]:
        """Position rows: where a word of the prompt stands, of a place 0 to 76, or a vector as it is."""
        if isinstance(what, str):
            return self.position_table[[row % WINDOW for row in tokens.rows(what)[0]]]
        if is_whole(what):
            if not 0 <= what < len(self.position_table):
                raise OperatorError(f"{what} is no place in a window; places are 0 to {len(self.position_table) - 1}.")
            return self.position_table[[what]]
        return vectors(what, self.position_table)


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether a setting is a whole number; YAML's true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def finite(value: Any, name: str) -> float:
    """A setting that has to be a finite number."""
    if isinstance(value, bool) or not isinstance(value, Real | Tensor) or not math.isfinite(float(value)):
        raise OperatorError(f"{name} is {value!r}; it has to be a finite number.")
    return value  # type: ignore[return-value]


def vectors(what: Any, like: Float[Tensor, "any dim"]) -> Float[Tensor, "row dim"]:
    """A vector, or several, as rows beside a table. Of several tensors (one an encoder) the one that fits is taken."""
    width = like.shape[1]
    if isinstance(what, list | tuple) and what and all(isinstance(w, Tensor) for w in what):
        fit = [w for w in what if w.shape[-1] == width]
        widths = ", ".join(str(w.shape[-1]) for w in what)
        if not fit:
            raise OperatorError(f"vectors of width {widths} do not fit rows of width {width}.")
        what = fit[0]
    try:
        rows = torch.as_tensor(what)
        if rows.dtype == torch.bool or rows.is_complex() or isinstance(what, bool | float):
            raise TypeError
        rows = rows.to(like)
    except (TypeError, ValueError, RuntimeError):
        raise OperatorError(f"{repr(what)[:80]} is no word, no id and no vector of {width} numbers.") from None
    if rows.ndim not in (1, 2) or rows.shape[-1] != width or not len(rows):
        raise OperatorError(f"a vector of shape {tuple(rows.shape)} does not fit rows of width {width}.")
    if not torch.isfinite(rows).all():
        raise OperatorError("a vector holds NaN or infinite numbers.")
    return rows.reshape(-1, width)


def lookup_of(tower: Tower) -> Lookup:
    """The tables of an encoder, as they are now."""
    return Lookup(tower.tokenizer, tower.token_table.detach(), tower.position_table.detach())


def embed(prompt: str | Tokens, tower: Tower, truncate: bool = False) -> Embeddings:
    """Look up the rows of a prompt of any length; the position rows start again in every window."""
    tokens = tokenize(prompt, tower.tokenizer, truncate) if isinstance(prompt, str) else prompt
    table = tower.token_table.detach()
    position = tower.position_table.detach()[:WINDOW]
    return Embeddings(tokens, table[tokens.ids.to(table.device)], position.expand(len(tokens.ids), -1, -1))
