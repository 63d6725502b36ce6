"""What every operator shares: its stage, its rows, and how counts of rows are made to agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.clip import Tower
from embedlab.embeddings import Embeddings, Lookup, Table, finite, lookup_of
from embedlab.errors import OperatorError, listed
from embedlab.select import Spans, select, words_of

Stage = Literal["token", "position", "both"]
STAGES: dict[str, tuple[Table, ...]] = {
    "token": ("token",),
    "position": ("position",),
    "both": ("token", "position"),
}
Lengths = Literal["error", "repeat", "resample", "zero"]
LENGTHS = ("error", "repeat", "resample", "zero")


class Operator(Protocol):
    """Anything that answers with a new prompt and leaves the old one be."""

    def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings: ...


@dataclass(frozen=True)
class OnRows:
    """What an operator on selected rows has at least: its selector, and the words that pictures are scored with."""

    rows: Any

    @property
    def words(self) -> tuple[str, ...]:
        """The words that this edit is about, for scores."""
        return words_of(self.rows)


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


def tables(stage: str) -> tuple[Table, ...]:
    """The tables that a stage names."""
    if stage not in STAGES:
        raise OperatorError(f"stage is '{stage}'; choose one of {listed(STAGES)}.")
    return STAGES[stage]


def over(
    prompt: Embeddings,
    rows: Any,
    stage: Stage,
    change: Callable[[Float[Tensor, "span row dim"], Table, Spans], Float[Tensor, "*span row dim"]],
) -> Embeddings:
    """Put what `change` makes of the selected rows in their place, in each table that the stage names."""
    spans = select(rows, prompt.tokens)
    for table in tables(stage):
        prompt = prompt.put(table, spans, change(prompt.take(table, spans), table, spans))
    return prompt


def check_lengths(lengths: str) -> None:
    """Refuse an unknown policy for unequal token counts."""
    if lengths not in LENGTHS:
        raise OperatorError(f"lengths is '{lengths}'; choose one of {listed(LENGTHS)}.")


def source(
    what: Any, table: Table, prompt: Embeddings, lookup: Lookup, lengths: Lengths = "error"
) -> Float[Tensor, "row dim"]:
    """The rows that a setting names: token rows by word or id, position rows by word of the prompt or place.

    A mapping is a sum, `{king: 1, man: -1, woman: 1}`; its terms are brought to the longest of them by `lengths`
    (`zero` is embedding-merge's rule).
    """
    if isinstance(what, Mapping):
        terms = [
            (name, source(name, table, prompt, lookup), finite(w, f"weight of {name}")) for name, w in what.items()
        ]
        if not terms:
            raise OperatorError("an empty sum names no rows.")
        longest, there = max((len(rows), str(name)) for name, rows, _ in terms)
        parts = [weight * fit(rows, longest, lengths, there, name) for name, rows, weight in terms]
        return torch.stack(parts).sum(0)
    return lookup(what) if table == "token" else lookup.place(what, prompt.tokens)


def direction(what: Any, table: Table, prompt: Embeddings, lookup: Lookup) -> Float[Tensor, " dim"]:
    """One vector: of a word or phrase, the mean of its rows; of a mapping, the weighted sum of such means.

    Raises OperatorError for a direction of zero length.
    """
    if isinstance(what, Mapping):
        terms = [finite(w, f"weight of {name}") * direction(name, table, prompt, lookup) for name, w in what.items()]
        if not terms:
            raise OperatorError("an empty sum is no direction.")
        vector = torch.stack(terms).sum(0)
    else:
        vector = source(what, table, prompt, lookup).mean(0)
    if not bool(vector.detach().norm() > 0):
        raise OperatorError(f"the direction {shown(what)} has no length.")
    return vector


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
    return between(rows, at)


def between(rows: Float[Tensor, "row dim"], at: Float[Tensor, " count"]) -> Float[Tensor, "count dim"]:
    """Rows at places that need not be whole, by linear interpolation; whole places give their row to the bit."""
    low = at.floor().long().clamp(max=len(rows) - 1)
    high = (low + 1).clamp(max=len(rows) - 1)
    return torch.lerp(rows[low], rows[high], (at - low)[..., None].to(rows))


def plural(count: int) -> str:
    """`1 token`, `2 tokens`."""
    return "token" if count == 1 else "tokens"


def shown(what: Any) -> str:
    """A setting in a label: a word or number as it is, a vector by name, a sum as a sum."""
    if isinstance(what, Mapping):
        return " ".join(f"{weight:+g} {shown(name)}" for name, weight in what.items()).removeprefix("+")
    return "a vector" if isinstance(what, Tensor | list | tuple) else str(what)


def names(what: Any) -> tuple[str, ...]:
    """The words that a setting names, for scores."""
    if isinstance(what, Mapping | list | tuple):
        return tuple(word for w in what for word in names(w))
    return (what,) if isinstance(what, str) else ()


def where(stage: Stage) -> str:
    """Which rows a label speaks of, where those are not token rows."""
    return "" if stage == "token" else f" ({'position' if stage == 'position' else 'token and position'} rows)"
