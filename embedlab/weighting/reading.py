"""Windows → hidden states and pooled outputs: what a weighting wants encoded, each distinct window once."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embedlab.clip import Tower, forward, mixed
from embedlab.errors import PromptError
from embedlab.memo import Memo
from embedlab.windows import Windows

# (ids, mask or none, source, place) → hidden states and pooled outputs of windows. Rows of all prompts of a call are
# counted through: `source` says where the token vector of a place stands, -1 for that of the vocabulary, and `place`
# where its position vector does. Both may have been edited.
Encode = Callable[
    [
        Int[Tensor, "window position"],
        Int[Tensor, "window position"] | None,
        Int[Tensor, "window position"],
        Int[Tensor, "window position"],
    ],
    tuple[Float[Tensor, "window position dim"], Float[Tensor, "window joint"]],
]
# windows that were encoded before, by what they were made of: `Memo(256)` holds 60 MB of CLIP-L's
Known = Memo[tuple[Any, ...], tuple[Tensor, Tensor]]


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


class OneByOne(ABC):
    """A weighting that looks at one prompt at a time."""

    @abstractmethod
    def one(self, read: Read) -> Float[Tensor, "window position dim"]:
        """The weighted hidden states of a prompt."""

    def __call__(self, batch: Sequence[Read]) -> list[Float[Tensor, "window position dim"]]:
        """The weighted hidden states of each prompt; one whose weights are all 1 stays as it is."""
        return [self.one(read) if read.own.windows.weighted else read.own.hidden for read in batch]


def encoded(variants: Sequence[Windows], encode: Encode, starts: Sequence[int], edited: bool) -> list[Encoded]:
    """Encode many prompts' windows together, equal windows once, those without a mask apart from those with one.

    Where rows were `edited`, windows are equal only if their vectors come from the same rows. `starts` is the number of
    rows before each prompt.
    """
    order: dict[Any, tuple[Tensor, Tensor | None, Tensor, Tensor]] = {}
    keys: list[list[Any]] = []
    for windows, start in zip(variants, starts, strict=True):
        source = torch.where(windows.source < 0, -1, windows.source + start)
        place = start + torch.arange(source.numel()).view_as(source)
        mine = []
        for n, ids in enumerate(windows.ids):
            mask = None if windows.mask is None or windows.mask[n].all() else windows.mask[n]
            rows = (tuple(source[n].tolist()), int(place[n, 0])) if edited else None
            key = (tuple(ids.tolist()), None if mask is None else tuple(mask.tolist()), rows)
            order.setdefault(key, (ids, mask, source[n], place[n]))
            mine.append(key)
        keys.append(mine)
    answers: dict[Any, tuple[Tensor, Tensor]] = {}
    for has_mask in (False, True):
        asked = {key: row for key, row in order.items() if (row[1] is not None) is has_mask}
        if not asked:
            continue
        masks = torch.stack([row[1] for row in asked.values() if row[1] is not None]) if has_mask else None
        ids, source, place = (torch.stack([row[k] for row in asked.values()]) for k in (0, 2, 3))  # type: ignore[misc]
        hidden, pooled = encode(ids, masks, source, place)
        answers.update(zip(asked, zip(hidden, pooled, strict=True), strict=True))
    return [
        Encoded(windows, torch.stack([answers[k][0] for k in mine]), torch.stack([answers[k][1] for k in mine]))
        for windows, mine in zip(variants, keys, strict=True)
    ]


def encoder_of(
    tower: Tower,
    mix: Sequence[tuple[int, float]] = ((0, 1.0),),
    token: Float[Tensor, "row dim"] | None = None,
    at_once: int = 1,
    position: Float[Tensor, "row dim"] | None = None,
    known: Known | None = None,
) -> Encode:
    """One text encoder as an `Encode`, with so many layers skipped (clip skip), or a mix of them.

    `token` and `position` hold the rows of all prompts of a call, edited or not, window after window: of Embeddings,
    `torch.cat([one.token.flatten(0, 1) for one in prompts])`. `position` may be given alone, and `token` too. What a
    method takes away or puts into a prompt keeps the position rows of its place. Without, rows are those of the
    vocabulary and of the position table, from its first to as many as a window has.

    Windows of equal rows go through once; `known`, of this encoder alone, keeps them for the next call. With one window
    `at_once`, a prompt's numbers do not depend on its company by one bit (see `encoder.encode`).

    Raises PromptError for windows that are longer than the position table.

    >>> from embedlab import models
    >>> from embedlab.windows import windows_of
    >>> (tower,) = models.load("emoji").towers
    >>> cat = windows_of([("a cat", 1.0)], tower.tokenizer)
    >>> hidden, _ = encoder_of(tower)(cat.ids, None, cat.source, cat.source)
    >>> hidden.shape
    torch.Size([1, 77, 96])
    """
    table, places = tower.token_table.detach(), tower.position_table.detach()

    def rows_at(ids: Tensor, source: Tensor, place: Tensor) -> Tensor:
        rows = table[ids.to(table.device)]
        if token is not None:
            at = source.to(table.device)
            rows = torch.where(at[..., None] < 0, rows, token[at.clamp(min=0)])
        if position is not None:
            return rows + position[place.to(table.device)]
        if ids.shape[1] > len(places):
            raise PromptError(
                f"windows of {ids.shape[1]} tokens do not fit {len(places)} positions; set another window."
            )
        return rows + places[: ids.shape[1]]

    def encode(ids: Tensor, mask: Tensor | None, source: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        rows = rows_at(ids, source, place)

        def run(at: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
            which = torch.tensor(at)
            masks = [None] * len(at) if mask is None else mask[which].split(at_once)
            parts = zip(ids[which].split(at_once), rows[which.to(rows.device)].split(at_once), masks, strict=False)
            states = [forward(tower, *part) for part in parts]
            return [pair for s in states for pair in zip(mixed(tower, s, mix), s.pooled, strict=True)]

        if torch.is_grad_enabled():  # what is kept would keep its graph, and equal rows need not be one leaf
            pairs = run(range(len(ids)))
        else:
            ends = (ids == tower.tokenizer.eos_token_id).int().argmax(1).tolist()
            keys = [(end, *content(rows[n], None if mask is None else mask[n]), *mix) for n, end in enumerate(ends)]
            first = {key: n for n, key in reversed(list(enumerate(keys)))}
            memo: Known = Memo(0) if known is None else known
            pairs = memo(keys, lambda new: run([first[key] for key in new]))
        return torch.stack([hidden for hidden, _ in pairs]), torch.stack([pooled for _, pooled in pairs])

    return encode


def content(rows: Float[Tensor, "position dim"], mask: Int[Tensor, " position"] | None) -> tuple[bytes, Any]:
    """A key of what a window's hidden states depend on, beside the encoder."""
    digest = hashlib.sha256(rows.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return digest.digest(), None if mask is None else tuple(mask.tolist())
