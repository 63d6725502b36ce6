"""Structural similarity."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # it is kept, and a caller may want gradients
def sliding(side: int) -> Float[Tensor, "output side"]:
    """The window at each of its places along a side, as the rows of a matrix: two products are a convolution."""
    x = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-x.square() / (2 * 1.5**2))
    rows = torch.zeros(side - 10, side, dtype=torch.float64)
    for n in range(side - 10):
        rows[n, n : n + 11] = line / line.sum()
    return rows


def ssim(a: Float[Tensor, "image 3 height width"], b: Float[Tensor, "image 3 height width"]) -> Float[Tensor, " image"]:
    """SSIM of pictures in [0, 1], pair by pair: 1 for the same, near 0 for strangers (Wang et al. 2004).

    A Gaussian window of 11 pixels, σ = 1.5, K = (0.01, 0.03), borders left out; mean over colours and places.

    >>> picture = torch.rand(1, 3, 16, 16)
    >>> ssim(picture, picture).item()
    1.0
    """
    down, across = sliding(a.shape[2]), sliding(a.shape[3]).T

    def mean(picture: Tensor) -> Tensor:
        return down @ picture @ across

    def one(a: Tensor, b: Tensor) -> Tensor:
        ma, mb = mean(a), mean(b)
        va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
        c1, c2 = 0.01**2, 0.03**2
        return ((2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))).mean()

    return torch.stack([one(x.double(), y.double()) for x, y in zip(a, b, strict=True)]).float()
