"""Pooled outputs of a prompt's windows → the one that SDXL reads beside the hidden states."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.checks import in_choices
from embedlab.errors import PromptError
from embedlab.limits import POOLED, Pooled
from embedlab.weighting.masked import heavy
from embedlab.weighting.reading import Encoded, Read
from embedlab.windows import Windows


def pooled_variants(windows: Windows, how: Pooled) -> list[Windows]:
    """What else has to be encoded for it: for each weighted piece, the prompt in which no row attends to it."""
    in_choices(how, "pooled", POOLED, PromptError)
    return [windows.masking(windows.pieces == piece) for piece in heavy(windows)] if how == "weighted" else []


def pooled_of(
    read: Read, how: Pooled = "weighted", hidden: Float[Tensor, "window position dim"] | None = None
) -> Float[Tensor, " joint"]:
    """One pooled output of a prompt; `read` holds it as it is, and `pooled_variants` of it.

    how:
      weighted  what each piece changes in it, times its weight: `P + Σ (w - 1)·(P - P without the piece)`; of several
                windows the mean by their numbers of tokens
      first     that of the first window, unweighted (A1111, ComfyUI; compel, of the text with its syntax)
      last      that of the last window, unweighted (sd_embed, lpw_stable_diffusion_xl)
      mean      the mean over windows, unweighted
      row       the last row of the first window's weighted `hidden` states (ADV_CLIP_emb's `apply_to_pooled`)
    """
    in_choices(how, "pooled", POOLED, PromptError)
    own = read.own
    if how == "row":
        if hidden is None or hidden.shape[-1] != own.pooled.shape[-1]:
            raise PromptError("pooled=row needs hidden states as wide as the pooled output; choose another.")
        return hidden[0, -1]
    if how == "mean":
        return own.pooled.mean(0)
    if how == "weighted":
        return weighted_pooled(own, read.others)
    return own.pooled[0 if how == "first" else -1]


def weighted_pooled(own: Encoded, lacking: tuple[Encoded, ...]) -> Float[Tensor, " joint"]:
    """The pooled output by weights and by lengths; of one window of weights 1, its own to the bit."""
    answer = own.pooled
    weight_of = own.windows.weight_of
    for piece, other in zip(heavy(own.windows), lacking, strict=True):
        answer = answer + (weight_of[piece] - 1) * (own.pooled - other.pooled)
    if len(answer) == 1:
        return answer[0]
    counts = (own.windows.pieces >= 0).sum(1)
    shares = (counts / counts.sum() if counts.any() else torch.ones_like(counts) / len(counts)).to(answer)
    return (answer * shares[:, None]).sum(0)
