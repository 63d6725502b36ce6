"""Move the rows of a word toward those of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.checks import float_of
from embedlab.embeddings import Lookup
from embedlab.encoder import Texts
from embedlab.limits import PATHS, Lengths, Stage, Way, ends_of
from embedlab.operators.base import (
    Number,
    OnRows,
    RowSource,
    Value,
    edit_rows,
    format_setting,
    match_length,
    source,
    stage_label,
)
from embedlab.schedule import Setting, format_number, value_of, varies
from embedlab.select import Spans
from embedlab.selector import format_selector


def lerp(
    here: Float[Tensor, "*rows dim"], there: Float[Tensor, "*rows dim"], weight: float
) -> Float[Tensor, "*rows dim"]:
    """The straight line: `here` at weight 0 and `there` at weight 1, both to the bit.

    >>> lerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.25).tolist()
    [0.75, 0.25]
    """
    return torch.lerp(here, there.to(here), weight)


def slerp(
    here: Float[Tensor, "*rows dim"], there: Float[Tensor, "*rows dim"], weight: float
) -> Float[Tensor, "*rows dim"]:
    """The arc between two rows, each row by its own angle, at the speed of the angle (Shoemake 1985).

    As in stable-diffusion-videos the weights `sin((1-w)θ)/sin θ` and `sin(wθ)/sin θ` go on the vectors as they are, so
    that lengths are blended too, and nearly parallel rows (|cos θ| > 0.9995) take the straight line. Weights 0 and 1
    give the ends to the bit.

    >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5).tolist()
    [0.7071067690849304, 0.7071067690849304]
    """
    return _arc(
        here, there, weight, torch.nn.functional.cosine_similarity(here.float(), there.float(), dim=-1)[..., None]
    )


def slerp_whole(
    here: Float[Tensor, "*rows dim"], there: Float[Tensor, "*rows dim"], weight: float
) -> Float[Tensor, "*rows dim"]:
    """`slerp` by the one angle between all rows taken together, as stable-diffusion-videos does with a whole tensor.

    >>> a, b = torch.eye(2), torch.eye(2).flip(0)
    >>> torch.allclose(slerp_whole(a, b, 0.5), (a + b) * 0.5**0.5)
    True
    """
    a, b = (x.float().flatten() for x in torch.broadcast_tensors(here, there))
    return _arc(here, there, weight, torch.nn.functional.cosine_similarity(a, b, dim=0))


def _arc(here: Tensor, there: Tensor, weight: float, cosine: Tensor) -> Tensor:
    there = there.to(here)
    learned = isinstance(weight, Tensor) and weight.requires_grad  # its gradient is wanted at the ends, too
    if not learned and float_of(weight) in (0, 1):
        return there if float_of(weight) else here
    a, b = here.float(), there.float()
    angle = cosine.clamp(-0.9995, 0.9995).arccos()
    arc = (torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b) / torch.sin(angle)
    return torch.where(cosine.abs() > 0.9995, torch.lerp(a, b, weight), arc).to(here)


WAYS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = dict(zip(PATHS, (lerp, slerp, slerp_whole), strict=True))


@dataclass(frozen=True)
class Interpolate(OnRows):
    """Move the selected rows toward others: weight 0 stays, weight 1 lands exactly there; beyond 1 goes on past it.

    `toward` and `weight` may be lists of the same length: the rows keep what the weights leave of 1, and the ends are
    taken in one after the other, each by its share of what has been mixed so far (for `lerp` that is the weighted
    mean). `toward` takes what `Replace` takes as `by`. `path` is `lerp`, `slerp` (each row by
    its own angle) or `slerp_whole` (all by one).

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> half = Interpolate("puppy", toward="skunk", weight=0.5)(embed("a puppy", tower), lookup_of(tower))
    >>> torch.equal(half.token[0, 2], torch.lerp(tower.token_table[6829], tower.token_table[42194], 0.5))
    True
    """

    named = ("toward",)

    toward: Setting[RowSource]
    weight: Setting[Number | Sequence[Setting[Number]]] = 0.5
    stage: Stage = "token"
    path: Setting[Way] = "lerp"
    lengths: Setting[Lengths] = "error"

    @property
    def ends(self) -> list[tuple[Any, Any]]:
        """Each end with its weight."""
        return ends_of(self.toward, self.weight)

    def __str__(self) -> str:
        if varies(self.weight) or varies(self.toward):
            mix = f"{format_number(self.weight)} {format_setting(self.toward)}"
        else:
            mix = " + ".join(f"{format_number(weight)} {format_setting(end)}" for end, weight in self.ends)
        path = "" if self.path == "lerp" else f", {self.path}"
        return f"{format_selector(self.rows)} → {mix}{path}{stage_label(self.stage)}"

    def __call__(self, prompt: Value, lookup: Lookup | Texts) -> Value:
        def change(rows: Tensor, table: str, spans: Spans) -> Tensor:
            ends, path = self.ends, WAYS[value_of(self.path)]
            lengths: Lengths = value_of(self.lengths)
            kept = 1 - sum(weight for _, weight in ends)
            for end, weight in ends:
                there = source(end, table, prompt, lookup, lengths, self.rows)
                there = match_length(there, rows.shape[1], lengths, format_selector(self.rows), end).expand_as(rows)
                kept = kept + weight  # not in place: it may be learned
                if len(ends) == 1:
                    rows = path(rows, there, weight)
                elif float_of(kept):  # else nothing of the rows is left and this end has no weight
                    rows = path(rows, there, weight / kept)
            return rows

        return edit_rows(prompt, self.rows, self.stage, change)
