"""Move the rows of a word toward those of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.embeddings import Embeddings, Lookup, finite
from embedlab.errors import OperatorError, listed
from embedlab.operators.apply import Lengths, Rows, check_lengths, fit, shown, source, tables, where


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
    there = there.to(here)
    if weight == 0:
        return here
    if weight == 1:
        return there
    a, b = here.float(), there.float()
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1).unsqueeze(-1)
    angle = cosine.clamp(-0.9995, 0.9995).arccos()
    arc = (torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b) / torch.sin(angle)
    return torch.where(cosine.abs() > 0.9995, torch.lerp(a, b, weight), arc).to(here)


PATHS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"lerp": lerp, "slerp": slerp}


@dataclass(frozen=True)
class Interpolate:
    """Move `word` toward another: weight 0 stays, weight 1 lands exactly on it; beyond 1 goes on past it.

    `toward` and `weight` may be lists of the same length: the word keeps what the weights leave of 1, and the ends are
    taken in one after the other, each by its share of what has been mixed so far (for `lerp` that is the weighted
    mean). `toward` takes what `Replace` takes as `by`. `path` is `lerp` or `slerp`.

    >>> from embedlab import embed, models
    >>> from embedlab.embeddings import lookup_of
    >>> tower = models.load("emoji").towers[0]
    >>> half = Interpolate("puppy", toward="skunk", weight=0.5)(embed("a puppy", tower), lookup_of(tower))
    >>> torch.equal(half.token[0, 2], torch.lerp(tower.token_table[6829], tower.token_table[42194], 0.5))
    True
    """

    word: str
    toward: Any
    weight: Any = 0.5
    rows: Rows = "token"
    path: Literal["lerp", "slerp"] = "lerp"
    lengths: Lengths = "error"

    def __post_init__(self) -> None:
        check_lengths(self.lengths)
        tables(self.rows)
        if self.path not in PATHS:
            raise OperatorError(f"path is '{self.path}'; choose one of {listed(PATHS)}.")
        ends = self.ends
        for _, weight in ends:
            finite(weight, "weight")
        if len(tables(self.rows)) > 1 and not all(isinstance(end, str) for end, _ in ends):
            raise OperatorError("rows is 'both', so `toward` has to be words of the prompt: an id is no place.")
        if len(ends) > 1 and (min(w for _, w in ends) < 0 or sum(w for _, w in ends) > 1 + 1e-9):
            raise OperatorError(f"weights {listed(w for _, w in ends)} have to be 0 or more and sum to 1 at the most.")

    @property
    def ends(self) -> list[tuple[Any, Any]]:
        """Each end with its weight."""
        if not isinstance(self.weight, list | tuple):
            if isinstance(self.toward, list | tuple) and any(isinstance(end, str) for end in self.toward):
                raise OperatorError(f"`toward` names {len(self.toward)} ends; give a list of as many weights.")
            return [(self.toward, self.weight)]
        if not isinstance(self.toward, list | tuple) or len(self.toward) != len(self.weight):
            many = len(self.toward) if isinstance(self.toward, list | tuple) else 1
            raise OperatorError(
                f"there are {len(self.weight)} weights for {many} ends of `toward`; each needs its own."
            )
        if not self.weight:
            raise OperatorError("`toward` names no end; name a word, or several with a weight each.")
        return list(zip(self.toward, self.weight, strict=True))

    @property
    def words(self) -> tuple[str, ...]:
        """The words that this edit is about, for scores."""
        return tuple(w for w in (self.word, *(end for end, _ in self.ends)) if isinstance(w, str))

    def __str__(self) -> str:
        mix = " + ".join(f"{weight:g} {shown(end)}" for end, weight in self.ends)
        return f"{self.word} → {mix}{where(self.rows)}"

    def __call__(self, prompt: Embeddings, lookup: Lookup) -> Embeddings:
        spans = prompt.tokens.rows(self.word)
        for table in tables(self.rows):
            mixed = prompt.take(table, spans)
            ends = self.ends
            kept = 1 - sum(weight for _, weight in ends)
            for end, weight in ends:
                there = fit(source(end, table, prompt, lookup), len(spans[0]), self.lengths, self.word, end)
                kept += weight
                if len(ends) == 1:
                    mixed = PATHS[self.path](mixed, there.expand_as(mixed), weight)
                elif kept:  # else nothing of the word is left and this end has no weight either
                    mixed = PATHS[self.path](mixed, there.expand_as(mixed), weight / kept)
            prompt = prompt.put(table, spans, mixed)
        return prompt
