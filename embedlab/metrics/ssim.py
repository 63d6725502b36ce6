"""Structural similarity."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

SIDE, SIGMA = 11, 1.5  # of the Gaussian window, in pixels
_CURVE = [math.exp(-((n - SIDE // 2) ** 2) / (2 * SIGMA**2)) for n in range(SIDE)]
WINDOW = [height / sum(_CURVE) for height in _CURVE]


def blurred(picture: Float[Tensor, "3 height width"], dim: int) -> Tensor:
    """Means under the window along one side, where all of it lies on the picture: shifted copies, added up.

    A seventh of the time of a product with a matrix of windows at 512 pixels, half of it at 128.
    """
    places = picture.shape[dim] - SIDE + 1
    mean = picture.narrow(dim, 0, places) * WINDOW[0]
    for shift in range(1, SIDE):
        mean = mean.add_(picture.narrow(dim, shift, places), alpha=WINDOW[shift])
    return mean


def ssim(a: Float[Tensor, "image 3 height width"], b: Float[Tensor, "image 3 height width"]) -> Float[Tensor, " image"]:
    """SSIM of pictures in [0, 1], pair by pair: 1 for the same, near 0 for strangers (Wang et al. 2004).

    A Gaussian window of 11 pixels, σ = 1.5, K = (0.01, 0.03), borders left out; mean over colours and places.

    >>> picture = torch.rand(1, 3, 16, 16)
    >>> ssim(picture, picture).item()
    1.0
    """

    def mean(picture: Tensor) -> Tensor:
        return blurred(blurred(picture, -2), -1)

    def one(a: Tensor, b: Tensor) -> Tensor:
        ma, mb = mean(a), mean(b)
        va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
        c1, c2 = 0.01**2, 0.03**2
        return ((2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))).mean()

    return torch.stack([one(x.double(), y.double()) for x, y in zip(a, b, strict=True)]).float()
