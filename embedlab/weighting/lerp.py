"""Rows on the line through another row: ComfyUI's and compel's from the empty prompt, lpw_xl's from the last row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.weighting.reading import OneByOne, Read
from embedlab.weighting.scale import rounded
from embedlab.windows import Windows


def lerped(origin: Tensor, hidden: Tensor, weights: Tensor) -> Tensor:
    """`origin + (hidden - origin) · weight`; a row of weight 1 is itself to the bit."""
    return torch.where(weights == 1, hidden, origin + (hidden - origin) * weights)


@dataclass(frozen=True)
class FromEmpty(OneByOne):
    """ComfyUI: each row on the line from the empty prompt's row at its place, weight 0, through itself, weight 1."""

    def variants(self, windows: Windows) -> list[Windows]:
        """The empty prompt."""
        return [windows.empty()] if windows.weighted else []

    def one(self, read: Read) -> Float[Tensor, "window position dim"]:
        """The weighted hidden states of a prompt."""
        return lerped(read.others[0].hidden, read.own.hidden, read.own.weights)


@dataclass(frozen=True)
class FromLast(OneByOne):
    """diffusers' lpw_stable_diffusion_xl: from the last row of the window; `half` rounds weights to float16 first."""

    half: bool = True

    def variants(self, windows: Windows) -> list[Windows]:
        """None."""
        return []

    def one(self, read: Read) -> Float[Tensor, "window position dim"]:
        """The weighted hidden states of a prompt."""
        hidden = read.own.hidden
        return lerped(hidden[:, -1:], hidden, rounded(read.own.weights, self.half))


def resolute(weight: float) -> float:
    """How much an encoding without a piece counts beside 1 of the whole: 0 at weight 1, 1 at 0.5, towards ∞ at 0."""
    return math.tan((1 - max(weight, 1e-5)) * math.pi / 2)


@dataclass(frozen=True)
class Compel(OneByOne):
    """compel 2.5.1: ComfyUI's, then a mean with encodings that lack each piece of a weight below 1.

    without: what lacks a piece. `mask`: its rows are there, but attended to by none; `remove`: it is left out, and what
    follows moves up. The mean is `(whole + Σ t·lacking) / (1 + Σ t)` with t = tan((1 - weight)·π/2) of each piece; the
    line from the empty prompt is used in all of them, so below 1 it counts as well.

    In compel a piece with a window border inside masks what stands between as well, the end and the padding of a window
    that was filled up, and one that truncation cuts off masks the end of text; here it does so with `exact`. With
    `remove`, compel fails where a piece less means a window less; here the prompt is filled up with empty windows.
    """

    without: Literal["mask", "remove"] = "mask"
    exact: bool = True

    def variants(self, windows: Windows) -> list[Windows]:
        """The empty prompt, and for each piece of a weight below 1 the prompt that lacks it."""
        if not windows.weighted:
            return []
        low = self.low(windows)
        if self.without == "remove":
            return [windows.empty(), *[windows.without(piece) for piece, _ in low]]
        return [windows.empty(), *[windows.masking(self.masked_rows(windows, piece)) for piece, _ in low]]

    def low(self, windows: Windows) -> list[tuple[int, float]]:
        """Pieces of a weight below 1."""
        return [(piece, weight) for piece, weight in windows.weight_of.items() if weight < 1]

    def masked_rows(self, windows: Windows, piece: int) -> Tensor:
        """Which rows of a window are attended to by none, for want of a piece."""
        rows = windows.pieces == piece
        if not self.exact:
            return rows
        at = rows.flatten().nonzero().flatten()
        last = -1 if windows.cut_off(piece) else int(at[-1])
        rows = torch.zeros_like(rows).flatten()
        rows[at[0] :] = True
        rows[last:][1:] = False
        rows = rows.view_as(windows.pieces)
        if not windows.how.truncate:
            rows[:, [0, -1]] = False
        return rows

    def one(self, read: Read) -> Float[Tensor, "window position dim"]:
        """The weighted hidden states of a prompt."""
        empty = read.others[0].hidden
        parts = [lerped(empty, part.hidden, part.weights) for part in (read.own, *read.others[1:])]
        shares = [1.0, *[resolute(weight) for _, weight in self.low(read.own.windows)]]
        share = torch.tensor(shares, dtype=torch.float64, device=empty.device).to(empty)
        share = share / share.sum()
        return (torch.stack(parts) * share[:, None, None, None]).sum(0) if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class Perp(OneByOne):
    """ComfyUI-prompt-control's `perp`: p is what a row's empty row has of it, `(E0·B / |B|²) B`.

    Above 1, `B + w·p`; below, `B - (1 - w)·p`; at 0, E0. It jumps at 1 and at 0.
    """

    def variants(self, windows: Windows) -> list[Windows]:
        """The empty prompt."""
        return [windows.empty()] if windows.weighted else []

    def one(self, read: Read) -> Float[Tensor, "window position dim"]:
        """The weighted hidden states of a prompt."""
        empty, own, w = read.others[0].hidden, read.own.hidden, read.own.weights
        p = (empty * own).sum(-1, keepdim=True) / own.square().sum(-1, keepdim=True) * own
        return torch.where(w == 0, empty, torch.where(w.abs() > 1, own + w * p, own - (1 - w) * p))


@dataclass(frozen=True)
class Perpendicular(OneByOne):
    """Only the part of a row that is perpendicular to the empty prompt's row is weighted: `B + (w - 1)·(B - P(B))`.

    At 0 what a row has in common with the empty prompt is left; it is linear in the weight, below 0 as well.
    """

    def variants(self, windows: Windows) -> list[Windows]:
        """The empty prompt."""
        return [windows.empty()] if windows.weighted else []

    def one(self, read: Read) -> Float[Tensor, "window position dim"]:
        """The weighted hidden states of a prompt."""
        empty, own, w = read.others[0].hidden, read.own.hidden, read.own.weights
        shared = (empty * own).sum(-1, keepdim=True) / empty.square().sum(-1, keepdim=True) * empty
        return torch.where(w == 1, own, own + (w - 1) * (own - shared))
