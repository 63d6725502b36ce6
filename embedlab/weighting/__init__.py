"""Weights of pieces → hidden states: what each tool makes of `(red:1.5)`, by name, and what we make of it.

A method is a value with two verbs: which variants of a prompt it wants encoded, and what it makes of them. `weigh` asks
for those of all prompts at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from embedlab.checks import in_choices
from embedlab.errors import PromptError, brief
from embedlab.limits import Normaliser, Pooled
from embedlab.weighting.lerp import Compel, FromEmpty, FromLast, Perp, Perpendicular
from embedlab.weighting.masked import DownWeight, Masked
from embedlab.weighting.normalise import normalised
from embedlab.weighting.pooled import pooled_of, pooled_variants
from embedlab.weighting.reading import Encode, Encoded, Method, Read, content, encoded, encoder_of
from embedlab.weighting.scale import Scaled
from embedlab.windows import Windows

__all__ = ["DEFAULT", "METHODS", "Encode", "Encoded", "Method", "Read", "Weighted", "content", "encoder_of", "weigh"]

METHODS: dict[str, Method] = {
    "comfy++": DownWeight(relative=False, up="masked"),
    "masked": Masked(),
    "a1111": Scaled("batch"),
    "a1111_sample": Scaled("sample"),
    "a1111_window": Scaled("window"),
    "no_norm": Scaled(None),
    "comfyui": FromEmpty(),
    "compel": Compel(),
    "compel_remove": Compel("remove"),
    "adv_compel": DownWeight(relative=False, up="comfyui"),
    "down_weight": DownWeight(),
    "perp": Perp(),
    "perpendicular": Perpendicular(),
    "lpw": Scaled("sample"),
    "lpw_xl": FromLast(),
    "sd_embed": Scaled(None, half=True),
}
DEFAULT = "comfy++"  # follows its weight both ways, and leaves the other words be: benchmarks/weighting.py


@dataclass(frozen=True)
class Weighted:
    """A prompt as one text encoder gives it, weighted: hidden states by window, and one pooled output."""

    windows: Windows
    hidden: Float[Tensor, "window position dim"]
    pooled: Float[Tensor, " joint"]


def weigh(
    prompts: Sequence[Windows],
    encode: Encode,
    method: str | Method = DEFAULT,
    normalise: Sequence[Normaliser] = (),
    pooled: Pooled = "weighted",
    edited: bool = False,
    groups: Sequence[Any] | None = None,
) -> list[Weighted]:
    """Encode prompts before one text encoder and weigh them; equal windows go through it once.

    `method` is a name of `METHODS`, or one of your own; `normalise` changes the weights first. `encode` is called with
    (ids, mask, source, place) of many windows, at most once without a mask and once with one: `encoder_of(tower)` is
    one. Say `edited` where token or position rows are handed to it. With all weights 1, hidden states are the encoder's
    own to the bit. Prompts of one of `groups` are one batch to methods that look at batches (A1111's); left out, all.

    Raises PromptError for an unknown name.

    >>> from embedlab import models
    >>> from embedlab.windows import windows_of
    >>> (tower,) = models.load("emoji").towers
    >>> red = windows_of([("a ", 1.0), ("red", 1.5), (" cat", 1.0)], tower.tokenizer)
    >>> weigh([red], encoder_of(tower), "comfyui")[0].hidden.shape
    torch.Size([1, 77, 96])
    """
    if isinstance(method, str):
        in_choices(method, "weighting", METHODS, PromptError)
        method = METHODS[method]
    if wrong := [prompt for prompt in prompts if not isinstance(prompt, Windows)]:
        raise PromptError(f"{brief(wrong[0])} is no Windows, as windows_of gives them.")
    asked = [normalised(prompt, normalise) for prompt in prompts]
    plans = [(method.variants(prompt), pooled_variants(prompt, pooled)) for prompt in asked]
    starts = [0]
    for prompt in asked:
        starts.append(starts[-1] + prompt.ids.numel())
    every, begins, ends = [], [], []
    for prompt, start, (for_hidden, for_pooled) in zip(asked, starts, plans, strict=False):
        every += [prompt, *for_hidden, *for_pooled]
        begins += [start] * (1 + len(for_hidden) + len(for_pooled))
        ends.append(len(every))
    read = encoded(every, encode, begins, edited)
    batch, firsts = [], []
    for begin, end, (for_hidden, _) in zip([0, *ends], ends, plans, strict=False):
        split = begin + 1 + len(for_hidden)
        batch.append(Read(read[begin], tuple(read[begin + 1 : split])))
        firsts.append(Read(read[begin], tuple(read[split:end])))
    hidden: dict[int, Tensor] = {}
    names = [0] * len(batch) if groups is None else list(groups)
    for name in dict.fromkeys(names):
        mine = [n for n, other in enumerate(names) if other == name]
        hidden |= zip(mine, method([batch[n] for n in mine]), strict=True)
    return [
        Weighted(prompt, states, pooled_of(first, pooled, states))
        for prompt, states, first in zip(asked, (hidden[n] for n in range(len(batch))), firsts, strict=True)
    ]
