"""Structural similarity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d


def ssim(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """SSIM of pictures in [0, 1], pair by pair: 1 for the same, near 0 for strangers (Wang et al. 2004).

    A Gaussian window of 11 pixels, σ = 1.5, K = (0.01, 0.03), borders left out; mean over colours and places.

    >>> picture = torch.rand(1, 3, 16, 16)
    >>> ssim(picture, picture).item()
    1.0
    """
    x = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-x.square() / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 11, 11)

    def mean(picture: Tensor) -> Tensor:
        return conv2d(picture, window, groups=3)

    a, b = a.double(), b.double()
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return index.flatten(1).mean(1).float()
