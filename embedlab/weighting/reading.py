"""Windows → hidden states and pooled outputs: what a weighting wants encoded, each distinct window once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedlab.clip import Tower, forward
from embedlab.encoder import mixed
from embedlab.windows import Windows

# (ids, mask or none, source) → hidden states and pooled outputs of windows. `source` says at which row of all prompts
# of the call, counted through, the vectors of a place stand, edited or not; -1: those of the vocabulary.
Encode = Callable[
    [Int[Tensor, "window position"], Int[Tensor, "window position"] | None, Int[Tensor, "window position"]],
    tuple[Float[Tensor, "window position dim"], Float[Tensor, "window joint"]],
]


@dataclass(frozen=True)
class Encoded:
    """Windows with what an encoder made of them."""

    windows: Windows
    hidden: Float[Tensor, "window position dim"]
    pooled: Float[Tensor, "window joint"]

    @property
    def weights(self) -> Float[Tensor, "window position 1"]:
        """The weight of each row, beside its hidden state."""
        return self.windows.weights[..., None].to(self.hidden)

    def rows_of(self, piece: int) -> Tensor:
        """Which rows are of a piece, beside their hidden states."""
        return (self.windows.pieces == piece)[..., None].to(self.hidden.device)


@dataclass(frozen=True)
class Read:
    """A prompt as it is, and the variants of it that a method asked for."""

    own: Encoded
    others: tuple[Encoded, ...]


class Method(Protocol):
    """A weighting: which variants of a prompt it needs, and what it makes of them all."""

    def variants(self, windows: Windows) -> list[Windows]:
        """What else has to be encoded."""
        ...

    def __call__(self, batch: Sequence[Read]) -> list[Float[Tensor, "window position dim"]]:
        """The weighted hidden states of each prompt."""
        ...


class OneByOne:
    """A weighting that looks at one prompt at a time."""

    def one(self, read: Read) -> Float[Tensor, "window position dim"]:
        """The weighted hidden states of a prompt."""
        raise NotImplementedError

    def __call__(self, batch: Sequence[Read]) -> list[Float[Tensor, "window position dim"]]:
        """The weighted hidden states of each prompt; one whose weights are all 1 stays as it is."""
        return [self.one(read) if read.own.windows.weighted else read.own.hidden for read in batch]


def encoded(variants: Sequence[Windows], encode: Encode, starts: Sequence[int], edited: bool) -> list[Encoded]:
    """Encode many prompts' windows together, equal windows once, those without a mask apart from those with one.

    Where rows were `edited`, windows are equal only if their vectors come from the same rows. `starts` is the number of
    rows before each prompt.
    """
    order: dict[Any, tuple[Tensor, Tensor | None, Tensor]] = {}
    keys: list[list[Any]] = []
    for windows, start in zip(variants, starts, strict=True):
        source = torch.where(windows.source < 0, -1, windows.source + start)
        mine = []
        for n, ids in enumerate(windows.ids):
            mask = None if windows.mask is None or windows.mask[n].all() else windows.mask[n]
            key = (
                tuple(ids.tolist()),
                None if mask is None else tuple(mask.tolist()),
                tuple(source[n].tolist()) if edited else None,
            )
            order.setdefault(key, (ids, mask, source[n]))
            mine.append(key)
        keys.append(mine)
    answers: dict[Any, tuple[Tensor, Tensor]] = {}
    for has_mask in (False, True):
        asked = {key: row for key, row in order.items() if (row[1] is not None) is has_mask}
        if not asked:
            continue
        masks = torch.stack([row[1] for row in asked.values() if row[1] is not None]) if has_mask else None
        ids, source = (torch.stack([row[k] for row in asked.values()]) for k in (0, 2))  # type: ignore[misc]
        hidden, pooled = encode(ids, masks, source)
        answers.update(zip(asked, zip(hidden, pooled, strict=True), strict=True))
    return [
        Encoded(windows, torch.stack([answers[k][0] for k in mine]), torch.stack([answers[k][1] for k in mine]))
        for windows, mine in zip(variants, keys, strict=True)
    ]


def encoder_of(
    tower: Tower, mix: Sequence[tuple[int, float]] = ((0, 1.0),), token: Tensor | None = None, at_once: int = 1
) -> Encode:
    """One text encoder as an `Encode`, with so many layers skipped (clip skip), or a mix of them.

    `token` holds the token rows of all prompts of a call (row, dim), edited or not; without, the vocabulary's are read.
    With one window `at_once`, a prompt's numbers do not depend on its company by one bit (see `encoder.encode`).
    """
    table, position = tower.token_table.detach(), tower.position_table.detach()

    def encode(ids: Tensor, mask: Tensor | None, source: Tensor) -> tuple[Tensor, Tensor]:
        rows = table[ids.to(table.device)]
        if token is not None:
            at = source.to(table.device)
            rows = torch.where(at[..., None] < 0, rows, token[at.clamp(min=0)])
        rows = rows + position[: ids.shape[1]]
        masks = [None] * len(ids) if mask is None else mask.split(at_once)
        parts = zip(ids.split(at_once), rows.split(at_once), masks, strict=False)
        states = [forward(tower, *part) for part in parts]
        return torch.cat([mixed(tower, s, mix) for s in states]), torch.cat([s.pooled for s in states])

    return encode
