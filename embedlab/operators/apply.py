"""What every operator shares: which tables it edits, and how word counts are made to agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.clip import Tower
from embedlab.embeddings import Embeddings, Lookup, Table, lookup_of
from embedlab.errors import OperatorError, listed

Rows = Literal["token", "position", "both"]
Lengths = Literal["error", "repeat", "resample", "zero"]
LENGTHS = ("error", "repeat", "resample", "zero")


class Operator(Protocol):
    """Anything that answers with a new prompt and leaves the old one be."""

    def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings: ...


def edit(
    prompt: Sequence[Embeddings], operators: Iterable[Operator], towers: Sequence[Tower]
) -> tuple[Embeddings, ...]:
    """Apply operators in order to the prompt before each text encoder."""
    return edit_with(prompt, operators, [lookup_of(tower) for tower in towers])


def edit_with(
    prompt: Sequence[Embeddings], operators: Iterable[Operator], lookups: Sequence[Lookup]
) -> tuple[Embeddings, ...]:
    """`edit` with tables that are at hand already."""
    parts = []
    operators = list(operators)
    for whole, lookup in zip(prompt, lookups, strict=True):
        part = whole
        for operator in operators:
            part = operator(part, lookup)
            if not isinstance(part, Embeddings):
                raise OperatorError(
                    f"{operator!r} answered with a {type(part).__name__}; an operator answers with Embeddings."
                )
        parts.append(part)
    return tuple(parts)


def tables(rows: Rows) -> tuple[Table, ...]:
    """The tables that a `rows` setting names."""
    named: dict[str, tuple[Table, ...]] = {
        "token": ("token",),
        "position": ("position",),
        "both": ("token", "position"),
    }
    if rows not in named:
        raise OperatorError(f"rows is '{rows}'; choose one of {listed(named)}.")
    return named[rows]


def check_lengths(lengths: str) -> None:
    """Refuse an unknown policy for unequal token counts."""
    if lengths not in LENGTHS:
        raise OperatorError(f"lengths is '{lengths}'; choose one of {listed(LENGTHS)}.")


def source(what: Any, table: Table, prompt: Embeddings, lookup: Lookup) -> Float[Tensor, "row dim"]:
    """The rows that a setting names: token rows by word or id, position rows by word of the prompt or place."""
    return lookup(what) if table == "token" else lookup.place(what, prompt.tokens)


def fit(
    rows: Float[Tensor, "row dim"], count: int, lengths: Lengths, here: str, there: Any
) -> Float[Tensor, "count dim"]:
    """Make `rows` as many as the word they go to has.

    error: refuse when the counts differ. repeat: start again from the first. resample: linear interpolation along the
    rows, ends on ends. zero: pad with zero vectors (embedding-merge) or cut.

    >>> fit(torch.tensor([[0.0], [1.0]]), 3, "resample", "a", "b").flatten().tolist()
    [0.0, 0.5, 1.0]
    """
    have = len(rows)
    if have == count or (have == 1 and lengths != "zero"):
        return rows.expand(count, -1)
    if lengths == "error":
        other = f"'{there}'" if isinstance(there, str) else shown(there)
        raise OperatorError(
            f"'{here}' has {count} {plural(count)} and {other} has {have}; "
            f"choose words of one length, or lengths: {listed(LENGTHS[1:])}."
        )
    if lengths == "repeat":
        return rows[torch.arange(count) % have]
    if lengths == "zero":
        return torch.cat([rows[:count], rows.new_zeros(max(0, count - have), rows.shape[1])])
    at = (
        torch.linspace(0, have - 1, count, device=rows.device)
        if count > 1
        else torch.full((1,), (have - 1) / 2, device=rows.device)
    )
    low = at.floor().long().clamp(max=have - 1)
    high = (low + 1).clamp(max=have - 1)
    return torch.lerp(rows[low], rows[high], (at - low)[:, None].to(rows))


def plural(count: int) -> str:
    """`1 token`, `2 tokens`."""
    return "token" if count == 1 else "tokens"


def shown(what: Any) -> str:
    """A setting in a label: a word or number as it is, a vector by name."""
    return "a vector" if isinstance(what, Tensor | list | tuple) else str(what)


def where(rows: Rows) -> str:
    """Which rows a label speaks of, where those are not token rows."""
    return "" if rows == "token" else f" ({'position' if rows == 'position' else 'token and position'} rows)"
