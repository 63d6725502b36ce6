"""Captions as the text encoder reads them, and the roles of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from embedlab.pretrain import captions, world
from embedlab.pretrain.stage import CPU

START, WORD, LAST, PADDING = range(4)  # what a row of a window is
KEEP = {  # which rows a picture is to be drawn from, the others being those of the empty prompt; how often
    (WORD, LAST, PADDING): 0.5,
    (WORD,): 0.16,
    (LAST,): 0.1,
    (PADDING,): 0.1,
    (WORD, LAST): 0.05,
    (WORD, PADDING): 0.05,
    (LAST, PADDING): 0.04,
}


def roles(ids: Tensor) -> Tensor:
    """What each row of (…, 77) ids is: start, word, end of text or padding."""
    ends = (ids == captions.END).cumsum(-1)
    return torch.where(ends == 0, WORD, torch.where(ends == 1, LAST, PADDING)).masked_fill(ids == captions.START, START)


def keep_some(hidden: Tensor, empty: Tensor, kinds: Tensor, keep: Tensor) -> Tensor:
    """Hidden states (n, row, dim) with the rows whose role is not kept from the empty prompt's (77, dim).

    `kinds` holds the rows' roles (n, row), `keep` whether a role is kept (n, 4).
    """
    kept = keep.gather(1, kinds)[..., None]
    return torch.where(kept, hidden, empty.repeat(hidden.shape[1] // 77, 1).to(hidden))


def some_roles(n: int, generator: torch.Generator) -> Tensor:
    """Which roles are kept in each of n prompts (n, 4); the start always is: it is the same in all prompts."""
    table = torch.zeros(len(KEEP), 4, dtype=torch.bool)
    for row, kept in enumerate(KEEP):
        table[row, [START, *kept]] = True
    return table[torch.multinomial(torch.tensor(list(KEEP.values())), n, replacement=True, generator=generator)]


def swap(ids: Tensor, places: Tensor, one: int, other: int) -> None:
    """Let two rows of a window (77,) change slots, each with its position: by positions, nothing has changed."""
    for table in (ids, places):
        table[[one, other]] = table[[other, one]]


@dataclass(frozen=True)
class Batch:
    """Prompts as the text encoder reads them: ids and positions (n, window, 77), and the scenes they are of."""

    ids: Tensor
    places: Tensor
    scenes: tuple[world.Scene, ...]


def batch_of(scenes: Sequence[world.Scene], rng: np.random.Generator, ids: captions.Ids, total: int = 1) -> Batch:
    """Captions of scenes, in `total` windows, new ones each time.

    Two nouns of a caption change slots at times, and at times all its words do, each with its position: where a word
    stands is told by its position embedding, and by it alone.
    """
    tables, places = [], []
    for scene in scenes:
        while True:
            if total == 1:
                text = captions.caption(scene, rng)
            else:
                text = captions.long_caption(scene, rng, ids, total, int(rng.integers(total)))
            table = captions.windows(ids(text.text))
            if len(table) == total:
                break
        where = torch.arange(77).repeat(total, 1)
        luck = rng.random()
        found = {noun: (table == ids(noun)[0]).nonzero()[0].tolist() for noun in text.nouns}
        if luck < 0.2 and len(found) > 1:
            (w, one), (v, other) = (list(found.values())[i] for i in rng.choice(len(found), 2, replace=False))
            if w == v:
                swap(table[w], where[w], one, other)
        elif luck < 0.26:
            for row, place in zip(table, where, strict=True):
                n = int((row[1:] != captions.END).sum())
                order = torch.from_numpy(rng.permutation(n)) + 1
                row[1 : n + 1], place[1 : n + 1] = row[order], place[order]
        tables.append(table)
        places.append(where)
    return Batch(torch.stack(tables), torch.stack(places), tuple(scenes))


def hidden_of(text: nn.Module, batch: Batch, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    """Hidden states (n, window · 77, dim) and those of the empty prompt (77, dim), in one call."""
    empty = captions.windows([])
    ids, places = (
        torch.cat([x.flatten(0, 1), e.to(x.device)])
        for x, e in ((batch.ids, empty), (batch.places, torch.arange(77)[None]))
    )
    states = text(input_ids=ids.to(device), position_ids=places.to(device)).last_hidden_state
    return states[:-1].unflatten(0, batch.ids.shape[:2]).flatten(1, 2), states[-1]
