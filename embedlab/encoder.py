"""Many Embeddings → many Conditionings, in one batched call of each text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.clip import Tower, forward, read
from embedlab.embeddings import Embeddings, embed, is_whole
from embedlab.errors import SamplerError
from embedlab.prompt import Join, check_join, joined

Prompt = tuple[Embeddings, ...]  # one prompt before each text encoder: one for SD 1 and 2, two for SDXL


@dataclass(frozen=True)
class Conditioning:
    """What the UNet is told: hidden states of one prompt, widths of all encoders joined, and the pooled output."""

    hidden: Float[Tensor, "row width"]
    pooled: Float[Tensor, " joint"]

    def zeros(self) -> Conditioning:
        """Nothing at all: SDXL's unconditional half when no negative prompt is given."""
        return Conditioning(torch.zeros_like(self.hidden), torch.zeros_like(self.pooled))


@dataclass(frozen=True)
class Encoder:
    """How prompts are read: `join` of windows (`windows`, `run` or `truncate`), and `skip` last layers (clip skip)."""

    join: Join = "windows"
    skip: int = 0

    def __post_init__(self) -> None:
        check_join(self.join)
        if not is_whole(self.skip) or self.skip < 0:
            raise SamplerError(f"encoder.skip is {self.skip!r}; it has to be a whole number, 0 or more.")

    @property
    def truncate(self) -> bool:
        """Whether only the first window is read."""
        return self.join == "truncate"


def embed_all(prompt: str, towers: Sequence[Tower], truncate: bool = False) -> Prompt:
    """The rows of a prompt before every text encoder."""
    return tuple(embed(prompt, tower, truncate) for tower in towers)


def encode(
    prompts: Sequence[Prompt], towers: Sequence[Tower], join: Join = "windows", skip: int = 0, at_once: int = 256
) -> list[Conditioning]:
    """Encode prompts, edited or not, of any lengths together; `at_once` windows a call at the most.

    `join` is how windows reach the UNet: one after the other with all their rows (A1111, ComfyUI, compel), or as one
    run with only the outer start and end (`no_boseos_middle` of diffusers' long prompt weighting). The pooled output is
    that of the first window. `skip` reads an earlier hidden state.
    """
    check_join(join)
    hidden: list[list[Tensor]] = [[] for _ in prompts]
    for t, tower in enumerate(towers):
        parts = [prompt[t] for prompt in prompts]
        ids = torch.cat([part.tokens.ids for part in parts])
        rows = torch.cat([part.summed for part in parts])
        states = [forward(tower, i, r) for i, r in zip(ids.split(at_once), rows.split(at_once), strict=True)]
        windows = torch.cat([read(tower, s, skip) for s in states])
        pooled = torch.cat([s.pooled for s in states])
        counts = [len(part.tokens.ids) for part in parts]
        for mine, block in zip(hidden, windows.split(counts), strict=True):
            mine.append(block.flatten(0, 1)[joined(len(block), join)])
        firsts = torch.tensor([0, *counts[:-1]]).cumsum(0)
    return [
        Conditioning(torch.cat(mine, dim=-1), pooled[first])
        for mine, first in zip(hidden, firsts.tolist(), strict=True)
    ]
