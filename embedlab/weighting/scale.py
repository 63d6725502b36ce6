"""Rows times their weight: A1111's emphasis with its restored mean, diffusers' long prompt weighting, sd_embed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.weighting.reading import Encoded, Read
from embedlab.windows import Windows, lengthened

Over = Literal["batch", "sample", "window"]


def rounded(weights: Tensor, half: bool) -> Tensor:
    """Weights as sd_embed and lpw_xl have them, rounded to float16 first: 1.1 becomes 1.0996."""
    return weights.half().to(weights) if half else weights


@dataclass(frozen=True)
class Scaled:
    """Each row times its weight; then all of them so that their mean is what it was before.

    over: what the mean is of. `batch`: the windows at one place of all prompts of a call, where a shorter prompt counts
    with empty windows (A1111, Forge: the stages of `[a:b:0.5]` are one call). `sample`: all windows of a prompt
    (diffusers' long prompt weighting, ADV_CLIP_emb). `window`: each by itself. None leaves the rows as long as they
    become (A1111's "No norm"; with weights rounded by `half`, sd_embed).

    The mean of rows with negative weights can come near 0 or change its sign: then so does the whole prompt, as in
    A1111 (its issue 13791).
    """

    over: Over | None = "batch"
    half: bool = False

    def variants(self, windows: Windows) -> list[Windows]:
        """An empty window for prompts that are shorter than others of their batch."""
        return [windows.empty(1)] if self.over == "batch" else []

    def __call__(self, batch: Sequence[Read]) -> list[Float[Tensor, "window position dim"]]:
        """The weighted hidden states of each prompt."""
        if self.over == "batch":
            return self._together(batch)
        return [self._alone(read.own) for read in batch]

    def _together(self, batch: Sequence[Read]) -> list[Tensor]:
        count = max(len(read.own.hidden) for read in batch)
        filled = torch.stack(
            [torch.cat([read.own.hidden, *[read.others[0].hidden] * (count - len(read.own.hidden))]) for read in batch]
        )
        weights = [lengthened(read.own.windows, count).weights[..., None].to(filled) for read in batch]
        scaled = filled * rounded(torch.stack(weights), self.half)
        ratio = [filled[:, n].mean() / scaled[:, n].mean() for n in range(count)]
        restored = scaled * torch.stack(ratio)[None, :, None, None]
        return [new[: len(read.own.hidden)] for new, read in zip(restored, batch, strict=True)]

    def _alone(self, own: Encoded) -> Tensor:
        scaled = own.hidden * rounded(own.weights, self.half)
        if self.over is None:
            return scaled
        of = None if self.over == "sample" else (1, 2)
        return scaled * (own.hidden.mean(dim=of, keepdim=True) / scaled.mean(dim=of, keepdim=True))
