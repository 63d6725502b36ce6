"""Seeds → noise, and the noise between two seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.display import Shown
from embedlab.limits import check_part


@dataclass(frozen=True)
class Variation(Shown):
    """How far each seed's noise goes toward the noise of one other seed: strength 0 stays, 1 is the other's.

    It is what A1111 calls a variation seed. There a batch counts the variation seeds up and keeps the seed; here seeds
    count as ever and the other seed is an axis: `start.variation.seed=7,8,9`.

    >>> Variation(seed=7, strength=0.2).on, Variation().on
    (True, False)
    """

    seed: int | None = None
    strength: float = 0.0

    def __post_init__(self) -> None:
        check_part(self)

    @property
    def on(self) -> bool:
        """Whether it changes anything."""
        return self.seed is not None and self.strength > 0


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator a picture, on the CPU, so that a seed means the same on every machine and in every batch.

    >>> [generator.initial_seed() for generator in generators([3, 7])]
    [3, 7]
    """
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noise(shape: tuple[int, int, int], random: Sequence[torch.Generator]) -> Float[Tensor, "image c h w"]:
    """Standard normal noise, each row from its own generator: the noise of diffusers' pipelines for the same seeds.

    >>> both, alone = noise((4, 8, 8), generators([0, 1])), noise((4, 8, 8), generators([1]))
    >>> both.shape, torch.equal(both[1], alone[0])
    (torch.Size([2, 4, 8, 8]), True)
    """
    return torch.stack([torch.randn(shape, generator=generator) for generator in random])


def varied(own: Float[Tensor, "image c h w"], variation: Variation) -> Float[Tensor, "image c h w"]:
    """Each seed's noise on its way toward the noise of the variation's seed.

    >>> own, other = noise((4, 8, 8), generators([0])), noise((4, 8, 8), generators([7]))
    >>> torch.equal(varied(own, Variation(7, 0.0)), own), torch.equal(varied(own, Variation(7, 1.0)), other)
    (True, True)
    """
    if not variation.on:
        return own
    assert variation.seed is not None
    (other,) = noise((own.shape[1], own.shape[2], own.shape[3]), generators([variation.seed]))
    return torch.stack([between(one, other, variation.strength) for one in own])


def between(low: Float[Tensor, "c h w"], high: Float[Tensor, "c h w"], strength: float) -> Float[Tensor, "c h w"]:
    """Noise between two of a kind, as A1111's `slerp` has it (`modules/rng.py`): each column of each channel is turned
    from one to the other along the arc between them; noise that is nearly the same is mixed straight.

    Where A1111 mixes straight it takes the two in the other order, which is not repeated here.

    >>> a, b = torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[0.0], [1.0]]])
    >>> between(a, b, 0.5).flatten()
    tensor([0.7071, 0.7071])
    """
    cosine = (low / low.norm(dim=1, keepdim=True) * (high / high.norm(dim=1, keepdim=True))).sum(1)
    if cosine.mean() > 0.9995:
        return low.lerp(high, strength)
    angle = cosine.clamp(-1, 1).acos()
    first, second = ((1 - strength) * angle).sin() / angle.sin(), (strength * angle).sin() / angle.sin()
    mixed: Tensor = first.unsqueeze(1) * low + second.unsqueeze(1) * high
    return mixed
