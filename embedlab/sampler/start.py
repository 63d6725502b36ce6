"""Where sampling starts: seeds → noise; picture → start latents."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from embedlab import images
from embedlab.errors import PictureError, SamplerError
from embedlab.limits import SHIPPED, check_part, found


@dataclass(frozen=True)
class Start:
    """Where sampling starts: from noise, or from a picture (img2img, Meng et al. 2022).

    `picture` is a path, the name of a picture that embedlab ships (`puppy.png`), a PIL image or a tensor (3, height,
    width) in [0, 1]. Of `step` (the first step that is run) and `strength` (the share of steps that is run, diffusers'
    word) one is given. The picture is read at once; a file that changes later is refused.

    `warmup` is how a multistep sampler (lms, pndm) begins late. `history`: as it begins from noise, with an order that
    grows with the steps that were run. `diffusers`: as diffusers' pipelines do, which take the order from the place in
    the schedule, and leave noise that no step has taken away.

    >>> Start("puppy.png", strength=0.6).first(steps=25)  # of 25 steps, the last 15 are run
    10
    """

    picture: Any = None
    step: int | None = None
    strength: float | None = None
    warmup: Literal["history", "diffusers"] = "history"

    def __post_init__(self) -> None:
        check_part(self)
        if self.picture is None:
            return
        if isinstance(self.picture, Image.Image | Tensor):
            object.__setattr__(self, "picture", images.pixels_of(self.picture))
        elif isinstance(self.picture, Path):
            object.__setattr__(self, "picture", str(self.picture))
        if isinstance(self.picture, images.Pixels):
            path, content = None, self.picture.content
        else:
            path = found(self.picture)
            content = images.content_of(images.open_picture(path))
        object.__setattr__(self, "_path", path)
        object.__setattr__(self, "_content", content)

    @property
    def path(self) -> Path | None:
        """Where the picture is, whatever the working directory became since; None for one in memory, and for noise."""
        return getattr(self, "_path", None)

    @property
    def content(self) -> str | None:
        """A hash of the size and the colours of the picture; None for noise."""
        return getattr(self, "_content", None)

    def open(self) -> Image.Image:
        """The picture, as RGB."""
        if isinstance(self.picture, images.Pixels):
            return self.picture.picture
        assert self.path is not None
        picture = images.open_picture(self.path)
        if images.content_of(picture) != self.content:
            raise PictureError(f"'{self.path}' is another picture than it was when this was set up; start over.")
        return picture

    def about(self, folder: Path) -> dict[str, str] | None:
        """What is kept in a file in `folder` so that the picture is found from there and known again."""
        if self.content is None:
            return None
        about = {"content": self.content}
        if self.path is not None and self.path.parent != SHIPPED:
            about["path"] = os.path.relpath(self.path, folder.absolute())
        return about

    def first(self, steps: int) -> int:
        """The first of `steps` that is run."""
        if self.picture is None:
            return 0
        if self.strength is not None:
            if not int(steps * self.strength):
                digits = 10 ** (2 + len(str(steps)))  # rounded up, because a little less would be none again
                raise SamplerError(
                    f"start.strength is {self.strength}: of {steps} steps none would be run; "
                    f"take {-(-digits // steps) / digits:g} or more."
                )
            return max(steps - min(int(steps * self.strength), steps), 0)
        assert self.step is not None
        if self.step >= steps:
            raise SamplerError(
                f"start.step is {self.step}, past the end: with {steps} steps it is {steps - 1} at the most."
            )
        return self.step


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


@torch.inference_mode()
def picture_latents(vae: Any, picture: Tensor, random: Sequence[torch.Generator]) -> Float[Tensor, "image c h w"]:
    """Scaled latents of one picture (3, h, w) in [-1, 1], sampled anew for each generator as diffusers does.

    >>> from embedlab import models
    >>> picture_latents(models.load("emoji").vae, torch.zeros(3, 64, 64), generators([0, 1])).shape
    torch.Size([2, 8, 8, 8])
    """
    encoded = vae.encode(picture[None].to(vae.device, vae.dtype))
    if not hasattr(encoded, "latent_dist"):  # a tiny autoencoder has one answer
        return images.to_unet(encoded.latents.repeat(len(random), 1, 1, 1), vae)
    posterior = encoded.latent_dist
    drawn = [torch.randn(posterior.mean.shape[1:], generator=generator).to(posterior.mean) for generator in random]
    return images.to_unet(torch.stack([posterior.mean[0] + posterior.std[0] * d for d in drawn]), vae)
