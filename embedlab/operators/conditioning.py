"""Whole conditionings: several prompts as one, and parts of one left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.checks import float_of, is_whole
from embedlab.encoder import Conditioning, Texts, filled
from embedlab.errors import OperatorError
from embedlab.limits import Stage, many, shares
from embedlab.operators.base import Edit, Number
from embedlab.schedule import Setting, format_number, value_of


@dataclass(frozen=True)
class Blend(Edit):
    """The weighted mean of this prompt's conditioning and those of others, hidden states and pooled output alike.

    `own · c + Σ wᵢ cᵢ` over the sum of the weights; `own` is this prompt's weight, and left out it is what the others
    leave of 1. Weight 0 is the identity. With `lengths: empty` the result is as long as the longest, shorter ones
    filled up with the windows of an empty prompt (compel's `.blend`, whose pooled output stays unblended); with `own`
    the others are cut, or filled up with zeros, to this prompt's length (ComfyUI's ConditioningAverage).

    >>> from embedlab import models
    >>> from embedlab.encoder import texts_of
    >>> texts = texts_of(models.load("emoji").towers)
    >>> half = Blend("a cat", weight=0.5)(texts("a dog"), texts)
    >>> torch.allclose(half.hidden, (texts("a dog").hidden + texts("a cat").hidden) / 2, atol=1e-6)
    True
    """

    stage: ClassVar[Stage] = "conditioning"

    prompts: Setting[str | Sequence[Setting[str]]]
    weight: Setting[Number | Sequence[Setting[Number]]] = 0.5
    own: Setting[Number] | None = None
    lengths: Setting[Literal["empty", "own"]] = "empty"

    @property
    def weights(self) -> tuple[Any, ...]:
        """The weight of the prompt itself, and those of the others."""
        return shares(self.weight, self.own)

    def __str__(self) -> str:
        return " + ".join(
            f"{format_number(w)} '{p}'" for p, w in zip(many(self.prompts), many(self.weight), strict=False)
        )

    def __call__(self, prompt: Conditioning, lookup: Texts) -> Conditioning:
        total = sum(self.weights)
        own, *others = (weight / total for weight in self.weights)
        if not any(isinstance(w, Tensor) and w.requires_grad for w in others) and not any(map(float_of, others)):
            return prompt
        parts = [prompt, *(lookup(text) for text in many(self.prompts))]
        length = len(prompt.hidden) if self.lengths == "own" else max(len(part.hidden) for part in parts)
        hidden = [self._filled(part.hidden, length, lookup) for part in parts]
        return replace(
            prompt,
            hidden=mean(hidden, [own, *others]),
            pooled=mean([part.pooled for part in parts], [own, *others]),
            rows=(*prompt.rows, *[-1] * (length - len(prompt.hidden))),
        )

    def _filled(self, hidden: Float[Tensor, "row width"], length: int, lookup: Texts) -> Float[Tensor, "length width"]:
        if self.lengths == "empty":
            return filled(hidden, length, lookup("").hidden)
        more = max(0, length - len(hidden))
        return torch.cat([hidden[:length], hidden.new_zeros(more, hidden.shape[1])])


def mean(parts: Sequence[Tensor], weights: Sequence[Any]) -> Tensor:
    """A weighted sum by weights that sum to 1: `lerp` of two, so that a whole weight gives its part to the bit."""
    if len(parts) == 2:
        return torch.lerp(parts[0], parts[1], weights[1])
    if not any(isinstance(w, Tensor) for w in weights) and list(weights).count(0) == len(weights) - 1:
        return next(part for part, weight in zip(parts, weights, strict=True) if weight)
    return torch.stack([weight * part for part, weight in zip(parts, weights, strict=True)]).sum(0)


@dataclass(frozen=True)
class Concatenate(Edit):
    """The hidden states of other prompts after this one's; the pooled output stays this one's.

    ComfyUI's ConditioningConcat. A `weight` other than 1 moves what is appended from the empty prompt's hidden states,
    `e + w (c - e)`, as in compel's `.and`; 0 still takes up its rows.

    >>> from embedlab import models
    >>> from embedlab.encoder import texts_of
    >>> texts = texts_of(models.load("emoji").towers)
    >>> both = Concatenate("a cat")(texts("a dog"), texts)
    >>> torch.equal(both.hidden, torch.cat([texts("a dog").hidden, texts("a cat").hidden]))
    True
    """

    stage: ClassVar[Stage] = "conditioning"

    prompts: Setting[str | Sequence[Setting[str]]]
    weight: Setting[Number | Sequence[Setting[Number]]] = 1.0

    @property
    def weights(self) -> tuple[Any, ...]:
        """One weight for each prompt; a single one is for all."""
        return many(self.weight) if isinstance(self.weight, list | tuple) else (self.weight,) * len(many(self.prompts))

    def __str__(self) -> str:
        return "and " + " and ".join(
            f"'{text}'" if weight == 1 else f"{format_number(weight)} '{text}'"
            for text, weight in zip(many(self.prompts), self.weights, strict=False)
        )

    def __call__(self, prompt: Conditioning, lookup: Texts) -> Conditioning:
        parts = []
        for text, weight in zip(many(self.prompts), self.weights, strict=True):
            hidden = lookup(text).hidden
            if isinstance(weight, Tensor) or weight != 1:
                empty = lookup("").hidden
                if len(hidden) % len(empty):
                    raise OperatorError(f"'{text}' has no whole windows to be weighted; choose encoder.join=windows.")
                hidden = torch.lerp(empty.repeat(len(hidden) // len(empty), 1), hidden, weight)
            parts.append(hidden)
        more = sum(len(hidden) for hidden in parts)
        return replace(prompt, hidden=torch.cat([prompt.hidden, *parts]), rows=(*prompt.rows, *[-1] * more))


@dataclass(frozen=True)
class Truncate(Edit):
    """Only the first `to` hidden states reach the UNet, or, below 0, all but the last so many; the pooled output stays.

    As many as there are is the identity.

    >>> from embedlab import models
    >>> from embedlab.encoder import texts_of
    >>> texts = texts_of(models.load("emoji").towers)
    >>> Truncate(to=8)(texts("a dog"), texts).hidden.shape
    torch.Size([8, 96])
    """

    stage: ClassVar[Stage] = "hidden"

    to: Setting[int]

    def __str__(self) -> str:
        if not is_whole(self.to):
            return f"first {self.to} rows"
        return f"first {self.to} rows" if self.to > 0 else f"without the last {-self.to} rows"

    def __call__(self, prompt: Conditioning, lookup: Texts) -> Conditioning:
        to = value_of(self.to)
        if abs(to) > len(prompt.hidden) or not len(prompt.hidden[:to]):
            raise OperatorError(f"to is {to}; {len(prompt.hidden)} rows reach the UNet.")
        return replace(prompt, hidden=prompt.hidden[:to], rows=prompt.rows[:to])
