"""Seeds → noise, and the noise between two seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.arguments import plain
from embedlab.checks import is_whole
from embedlab.display import Shown
from embedlab.errors import SamplerError, brief
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


def generators(seeds: int | Sequence[int]) -> list[torch.Generator]:
    """One generator a picture, on the CPU, so that a seed means the same on every machine and in every batch.

    >>> [generator.initial_seed() for generator in generators([3, 7])]
    [3, 7]
    """
    seeds = plain(seeds)
    every: Any = [seeds] if is_whole(seeds) else seeds
    if (
        not isinstance(every, Sequence)
        or isinstance(every, str)
        or not all(is_whole(s) and 0 <= s < 2**63 for s in every)
    ):
        raise SamplerError(f"seeds is {brief(seeds)}; it has to be whole numbers from 0 to 2^63 - 1, one a picture.")
    return [torch.Generator().manual_seed(seed) for seed in every]


def noise(shape: Any, random: int | Sequence[int] | Sequence[torch.Generator]) -> Float[Tensor, "image c h w"]:
    """Standard normal noise, each row from its own generator: the noise of diffusers' pipelines for the same seeds.

    shape: (channels, height, width) in latents, or a model or diffusers pipeline: its usual size. random: seeds, or
    generators, which go on where they are. Raises SamplerError for what is neither.

    >>> both, alone = noise((4, 8, 8), generators([0, 1])), noise((4, 8, 8), generators([1]))
    >>> both.shape, torch.equal(both[1], alone[0])
    (torch.Size([2, 4, 8, 8]), True)
    """
    if hasattr(shape, "unet"):
        side = shape.unet.config.sample_size
        sides = tuple(side) if isinstance(side, list | tuple) else (side, side)
        shape = (shape.vae.config.latent_channels, *sides)
    if not isinstance(shape, list | tuple) or len(shape) != 3 or not all(is_whole(n) and n > 0 for n in shape):
        raise SamplerError(f"shape is {brief(shape)}; it has to be (channels, height, width), or a model.")
    drawn = isinstance(random, list | tuple) and random and all(isinstance(one, torch.Generator) for one in random)
    every: Any = random if drawn else generators(random)  # type: ignore[arg-type]
    if not every:
        raise SamplerError("random is empty; it has to be seeds, or generators, one a picture.")
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in every])


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
