"""Weights → weights, before any of the methods: ADV_CLIP_emb's `length` and `mean`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from embedlab.checks import in_choices
from embedlab.errors import PromptError
from embedlab.limits import NORMALISERS, Normaliser
from embedlab.windows import Windows


def by_length(windows: Windows) -> Tensor:
    """A piece of n tokens is as strong as one of one: `1 + sign(w - 1)·√((w - 1)² / n)`."""
    weights = windows.weights.clone()
    for piece in windows.weight_of:
        rows = windows.pieces == piece
        weights[rows] = 1 + (weights[rows] - 1) / rows.sum().sqrt()
    return weights


def by_mean(windows: Windows) -> Tensor:
    """The mean weight of the words is 1; start, end and padding stay at 1."""
    words = windows.pieces >= 0
    if not words.any():
        return windows.weights
    return torch.where(words, windows.weights + (1 - windows.weights[words].mean()), windows.weights)


BY: dict[Normaliser, Callable[[Windows], Tensor]] = {"length": by_length, "mean": by_mean}


def normalised(windows: Windows, by: Sequence[Normaliser]) -> Windows:
    """The prompt with weights normalised, one way after the other, as in `mean+length+mean`.

    >>> from embedlab.models import tokenizer
    >>> from embedlab.windows import windows_of
    >>> two = windows_of([("a cat", 1.0), ("red star", 1.5)], tokenizer())
    >>> normalised(two, ["mean"]).weights[0, :6].tolist()
    [1.0, 0.75, 0.75, 1.25, 1.25, 1.0]
    """
    for name in by:
        in_choices(name, "normalise", NORMALISERS, PromptError)
        new = BY[name](windows)
        at = dict(zip(windows.numbers.flatten().tolist(), new.flatten().tolist(), strict=True))
        segments = tuple(tuple(t._replace(weight=at.get(t.number, t.weight)) for t in s) for s in windows.segments)
        windows = replace(windows, weights=new, segments=segments)
    return windows
