"""The plan of a picture, by which the text encoder learns: which word and which colour stand where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from embedlab.pretrain import captions, drawings, world
from embedlab.pretrain.rows import Batch, hidden_of, keep_some, roles
from embedlab.pretrain.stage import HELD_OUT

WIDTH = 96
WORDS, COLOURS = list(drawings.WORDS), list(drawings.COLOURS)
GROUNDS, STYLES = list(world.GROUNDS), list(drawings.STYLES)
CELLS = 8


def layout_of(scene: world.Scene) -> tuple[Tensor, Tensor]:
    """The word and the colour at each of 8 × 8 cells (64,): past the words none, past the colours its own."""
    words = np.full((CELLS, CELLS), len(WORDS))
    colours = np.full((CELLS, CELLS), -100)
    y, x = (np.mgrid[:CELLS, :CELLS] + 0.5) * world.SIDE / CELLS
    for thing in world.in_order(scene):
        inside = (x - thing.x) ** 2 + (y - thing.y) ** 2 < (0.46 * thing.size) ** 2
        words[inside] = WORDS.index(thing.word)
        colours[inside] = len(COLOURS) if thing.colour is None else COLOURS.index(thing.colour)
    return torch.from_numpy(words).flatten(), torch.from_numpy(colours).flatten()


class Layout(nn.Module):
    """From hidden states to a plan of the picture: what a UNet reads from them, without the noise and for a tenth of
    the work. Only training has a use for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Parameter(torch.randn(CELLS**2 + 1, WIDTH) * 0.1)
        layer = nn.TransformerDecoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.read = nn.TransformerDecoder(layer, 2, nn.LayerNorm(WIDTH))
        self.word = nn.Linear(WIDTH, len(WORDS) + 1)
        self.colour = nn.Linear(WIDTH, len(COLOURS) + 1)
        self.rest = nn.Linear(WIDTH, len(GROUNDS) + len(STYLES))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the word and of the colour at each cell, and of ground and style."""
        cells = self.read(self.cells.expand(len(hidden), -1, -1), hidden)
        return self.word(cells[:, 1:]), self.colour(cells[:, 1:]), self.rest(cells[:, 0])


def layout_loss(predicted: tuple[Tensor, Tensor, Tensor], scenes: Sequence[world.Scene]) -> Tensor:
    """Cross-entropy of the plans of scenes."""
    word, colour, rest = (part.float() for part in predicted)
    words, colours = (torch.stack(part).to(word.device) for part in zip(*map(layout_of, scenes), strict=True))
    ground = torch.tensor([GROUNDS.index(scene.ground) for scene in scenes], device=word.device)
    style = torch.tensor([STYLES.index(scene.style) for scene in scenes], device=word.device)
    return (
        functional.cross_entropy(word.flatten(0, 1), words.flatten())
        + 0.3 * functional.cross_entropy(colour.flatten(0, 1), colours.flatten())
        + 0.1 * functional.cross_entropy(rest[:, : len(GROUNDS)], ground)
        + 0.1 * functional.cross_entropy(rest[:, len(GROUNDS) :], style)
    )


ON_SIDES = {"above": (1, 1), "below": (1, -1), "left of": (0, 1), "right of": (0, -1)}  # axis, order


@torch.no_grad()
def relations_read(model: Any, ids: captions.Ids, count: int = 200) -> dict[str, float]:
    """How often the plan of a held-out pair has both words, on the sides that the prompt says: from all rows, from the
    words', the end's and the padding's alone; and with two position rows exchanged, on the other sides.
    """
    rng = np.random.default_rng(HELD_OUT)
    pairs: list[tuple[str, str, str]] = []
    while len(pairs) < count:
        one, other = (str(w) for w in rng.choice(WORDS, 2, replace=False))
        if world.held_out_pair(one, other):
            pairs.append((one, other, str(rng.choice(list(ON_SIDES)))))
    texts = [f"{captions.article(a)} {relation} {captions.article(b)}" for a, b, relation in pairs]
    tables = torch.stack([captions.windows(ids(text)) for text in texts])
    in_order = torch.arange(77).repeat(count, 1, 1)
    turned = in_order.clone()
    for row, (a, b, _) in enumerate(pairs):
        i, j = (int((tables[row, 0] == ids(w)[0]).nonzero()) for w in (a, b))
        turned[row, 0, i], turned[row, 0, j] = j, i
    y, x = (torch.arange(CELLS**2) // CELLS).float(), (torch.arange(CELLS**2) % CELLS).float()
    figures = {}
    cases = {"all": (in_order, (1, 1, 1, 1)), "words": (in_order, (1, 1, 0, 0)), "end": (in_order, (1, 0, 1, 0))}
    cases |= {"padding": (in_order, (1, 0, 0, 1)), "turned": (turned, (1, 1, 1, 1))}
    for name, (places, keep) in cases.items():
        hidden, empty = hidden_of(model["text"], Batch(tables, places, ()), next(model.parameters()).device)
        kept = torch.tensor([keep], dtype=torch.bool).expand(count, -1)
        kinds = roles(tables).flatten(1)
        chance = model["layout"](keep_some(hidden, empty, kinds.to(hidden.device), kept.to(hidden.device)))[0]
        chance = chance.float().softmax(-1).cpu()
        right = []
        for row, (a, b, relation) in enumerate(pairs):
            one, other = chance[row, :, WORDS.index(a)], chance[row, :, WORDS.index(b)]
            axis, order = ON_SIDES[relation]
            way = (y if axis else x) * (order if name != "turned" else -order)
            ahead = (other * way).sum() / other.sum() - (one * way).sum() / one.sum()
            right.append(bool(ahead > 1 and min(one.max(), other.max()) > 0.3))
        figures[f"relation/{name}"] = float(np.mean(right))
    return figures
