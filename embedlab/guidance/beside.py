"""A UNet that takes a picture beside the latents, called like one that does not."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class Beside:
    """A UNet that is given the same channels behind the latents in each row: hybrid conditioning, as CompVis calls it.

    The channels are as many pixels wide and high as latents; in all else it is the UNet.

    >>> unet = Beside(lambda x, t, **told: (x,), torch.ones(5, 2, 2))
    >>> unet(torch.zeros(3, 4, 2, 2), torch.tensor(1))[0].shape
    torch.Size([3, 9, 2, 2])
    """

    def __init__(self, unet: Any, channels: Float[Tensor, "c h w"]):
        self.unet, self.channels = unet, channels

    def __call__(self, x: Float[Tensor, "row c h w"], t: Tensor, **told: Any) -> Any:
        """What the UNet says of latents with the channels behind them."""
        more = self.channels.to(x).expand(len(x), -1, -1, -1)
        return self.unet(torch.cat([x, more], dim=1), t, **told)

    def over(self, other: Any) -> Beside:
        """Another UNet that is given the same channels."""
        return Beside(other, self.channels)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.unet, name)
        if name != "reading":
            return found
        return lambda conditionings: self.over(found(conditionings))  # a watched UNet answers with one to be called
