"""Encodings that lack pieces: ours, and ADV_CLIP_emb's down_weight, compel and comfy++."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.weighting.lerp import lerped
from embedlab.weighting.reading import OneByOne, Read
from embedlab.windows import Windows

STAND_IN = 266  # "+", what ADV_CLIP_emb writes in place of a word that it takes away


@dataclass(frozen=True)
class Masked(OneByOne):
    """What a piece changes in the whole prompt, times its weight: `B + Σ (w - 1)·(B - M)` over the weighted pieces.

    M is the prompt in which no row attends to the piece, and whose rows of the piece are those of the empty prompt. At
    weight 0 a piece is gone, from its own rows and from those after it, which heard of it; at 2 it says twice as much;
    below 0 it speaks against itself. It is linear in each weight.
    """

    def variants(self, windows: Windows) -> list[Windows]:
        """The empty prompt, and for each weighted piece the prompt in which none attends to it."""
        pieces = heavy(windows)
        return [windows.empty(), *[windows.masking(windows.pieces == piece) for piece in pieces]] if pieces else []

    def one(self, read: Read) -> Float[Tensor, "window position dim"]:
        """The weighted hidden states of a prompt."""
        own, empty = read.own, read.others[0].hidden
        weight_of = own.windows.weight_of
        answer = own.hidden
        for piece, masked in zip(heavy(own.windows), read.others[1:], strict=True):
            lacking = torch.where(own.rows_of(piece), empty, masked.hidden)
            answer = answer + (weight_of[piece] - 1) * (own.hidden - lacking)
        return answer


def heavy(windows: Windows) -> list[int]:
    """The pieces of a weight other than 1."""
    return [piece for piece, weight in windows.weight_of.items() if weight != 1]


@dataclass(frozen=True)
class DownWeight(OneByOne):
    """ADV_CLIP_emb's `down_weight`: prompts from which the lightest words, the two lightest, … were taken, mixed.

    With the weights up to 1 in order, `u₀·B + Σ (uₖ₊₁ - uₖ)·Mₖ`, where Mₖ has "+" in place of all words of weight uₖ or
    less. All words' weights are divided by the largest first, unless `relative` is off: then those above 1 are 1 here.

    up: what is done above 1, with `relative` off. `comfyui`: ComfyUI's line from the empty prompt, under all of them
    (the mode `compel`, which is not compel). `masked`: what changes in a word's own rows when "+" stands for it, times
    weight - 1 (the mode `comfy++`).

    Below 0 the sum goes on, away from the word. With NumPy 2 the original takes the wrong words away; these are the
    numbers that are meant.
    """

    relative: bool = True
    up: Literal["comfyui", "masked"] | None = None

    def weights(self, windows: Windows) -> Tensor:
        """The weights that are mixed by."""
        weights = windows.weights
        return torch.where(windows.pieces >= 0, weights / weights.max(), 1.0) if self.relative else weights

    def steps(self, windows: Windows) -> Tensor:
        """The different weights up to 1, in order."""
        weights = self.weights(windows)
        steps: Tensor = weights[weights <= 1].unique()
        return steps

    def up_weighted(self, windows: Windows) -> list[int]:
        """Pieces of a weight above 1 that are taken away one by one."""
        return [piece for piece, w in windows.weight_of.items() if w > 1] if self.up == "masked" else []

    def variants(self, windows: Windows) -> list[Windows]:
        """A prompt a step without the words up to it; one a piece above 1 without it; the empty prompt, if need be."""
        if not windows.weighted:
            return []
        weights = self.weights(windows)
        words = windows.pieces >= 0
        lacking = [windows.replacing(words & (weights <= u), STAND_IN) for u in self.steps(windows) if u < 1]
        lifted = [windows.replacing(windows.pieces == piece, STAND_IN) for piece in self.up_weighted(windows)]
        return [*lacking, *lifted, *[windows.empty()] * (self.up == "comfyui")]

    def one(self, read: Read) -> Float[Tensor, "window position dim"]:
        """The weighted hidden states of a prompt."""
        own, others = read.own, read.others
        steps = self.steps(own.windows)
        count = int((steps < 1).sum())
        parts = [part.hidden for part in (own, *others[:count])]
        if self.up == "comfyui":
            lifted = (part.weights.clamp(min=1) for part in (own, *others[:count]))
            parts = [lerped(others[-1].hidden, part, w) for part, w in zip(parts, lifted, strict=True)]
        shares = torch.diff(steps, prepend=steps.new_zeros(1)).to(own.hidden)
        answer = (torch.stack(parts) * shares[:, None, None, None]).sum(0) if count else parts[0]
        if self.up == "masked":
            changes = torch.zeros_like(own.hidden)
            for piece, lacking in zip(self.up_weighted(own.windows), others[count:], strict=True):
                changes += own.rows_of(piece) * (own.hidden - lacking.hidden)
            answer = answer + (own.weights.clamp(min=1) - 1) * changes
        return answer
