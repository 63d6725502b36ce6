"""Both halves of guidance, as they were predicted in the call that was made last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor


class Halves:
    """What the UNet predicted last for each image: with its prompt, and without where that was asked for.

    Of several prompts (A1111's AND) the half with the prompt is `uncond + Σ weight · (cond - uncond)`.

    >>> import torch
    >>> halves = Halves()
    >>> halves.put([0], torch.zeros(1, 4, 8, 8), [(0, 1.0), (1, 1.0)], torch.ones(2, 4, 8, 8))
    >>> sorted(halves.without), sorted(halves.prompted)
    ([0], [0, 1])
    """

    def __init__(self) -> None:
        self.without: dict[int, Tensor] = {}
        self.prompted: dict[int, Tensor] = {}

    def put(
        self,
        without: Sequence[int],
        predicted: Float[Tensor, "image c h w"],
        streams: Sequence[tuple[int, float]],
        prompted: Float[Tensor, "row c h w"],
    ) -> None:
        """Images and their predictions without the prompt; images, weights and predictions of their prompts."""
        for image in {*without, *(image for image, _ in streams)}:
            self.without.pop(image, None)
            self.prompted.pop(image, None)
        self.without |= zip(without, predicted, strict=True)
        count = Counter(image for image, _ in streams)
        for (image, weight), one in zip(streams, prompted, strict=True):
            if count[image] == weight == 1 or image not in self.without:
                self.prompted[image] = one
            else:
                base = self.without[image]
                self.prompted[image] = self.prompted.get(image, base) + weight * (one - base)
