"""(model, cell, seeds) → what the loop starts with: noise, the latents of a picture, and what stays of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab import images
from embedlab.cell import Cell, picture_size
from embedlab.errors import check_kind
from embedlab.limits import seeds_asked
from embedlab.models import Model, Pipeline, model_of
from embedlab.sampler import begun, generators, noise, picture_latents, varied
from embedlab.sampler.handed_in import as_mask
from embedlab.sampler.inpainting import led_back, put_back
from embedlab.sampler.loop import After


@dataclass(frozen=True)
class Beginning:
    """What the loop starts with.

    noise: unit noise of each seed, (image, c, h, w). picture: the latents that are noised to the first step, None where
    sampling starts from noise. first: the first step that is run. random: the seeds' generators, as far as they were
    used. after: puts back what stays of a picture, behind each call of the scheduler. beside: channels that the UNet
    takes behind the latents.
    """

    noise: Float[Tensor, "image c h w"]
    picture: Float[Tensor, "image c h w"] | None
    first: int
    random: Sequence[torch.Generator]
    after: After | None = None
    beside: Float[Tensor, "c h w"] | None = None


@torch.inference_mode()
def begin(
    model: Model, cell: Cell, seeds: Sequence[int], scheduler: Any, inverted: Sequence[Tensor] | None = None
) -> Beginning:
    """What the pictures of a cell start with, for some seeds and a scheduler that `Sampler.make` made.

    `inverted` is the way from the latents of its picture to those of its first step, where these were found by
    inversion.

    Raises SamplerError for a size that the model cannot make.

    >>> from embedlab import Sampler, Start, models
    >>> model, cell = models.load("emoji"), Cell("a cat", start=Start("puppy.png", strength=0.5))
    >>> begun = begin(model, cell, [0, 1], cell.sampler.make(model.scheduler))
    >>> begun.first, begun.noise.shape, begun.picture.shape
    (13, torch.Size([2, 8, 16, 16]), torch.Size([2, 8, 16, 16]))
    """
    start, random = cell.start, generators(seeds)
    height, width = size = picture_size(cell, model)
    shape = (model.vae.config.latent_channels, height // model.factor, width // model.factor)
    if inverted is not None:
        noise(shape, random)
        back = None
        if "mask" in start.taken:
            mask = as_mask(start.taken["mask"].open(), size, model.factor, cell.size != "picture")
            back = led_back(inverted, mask.to(model.device) > 0)
        first = start.first(cell.sampler.steps)
        return Beginning(inverted[-1].expand(len(seeds), -1, -1, -1), None, first, random, back)
    known = known_latents(model, cell, size, seeds, random)
    if known is not None:
        known = known.to(model.device)
    if "latents" in start.taken and start.from_noise:
        drawn = of_seeds(start.taken["latents"].open(), seeds)
        noise(shape, random)  # what ancestral samplers draw on the way is that of the seed, as with its own noise
    else:
        drawn = noise(shape, random)
    drawn = varied(drawn, start.variation).to(model.device)
    after = None
    if "mask" in start.taken and known is not None and model.beside != "mask":
        mask = as_mask(start.taken["mask"].open(), size, model.factor, cell.size != "picture")
        after = put_back(known, drawn, mask.to(model.device) > 0, scheduler)
    first = start.first(cell.sampler.steps)
    return Beginning(drawn, None if start.from_noise else known, first, random, after, beside_of(model, cell, size))


def beside_of(model: Model, cell: Cell, size: tuple[int, int]) -> Float[Tensor, "c h w"] | None:
    """The channels that a UNet takes behind the latents; None for one that takes none.

    A mask, 1 where it is white, and the latents of the picture with grey in the place of what is white, as
    `StableDiffusionInpaintPipeline` has them; or a depth map from -1 to 1, as `StableDiffusionDepth2ImgPipeline` does.
    """
    taken, cut = cell.start.taken, cell.size != "picture"
    if model.beside == "mask":
        mask = as_mask(taken["mask"].open(), size, 1, cut)
        picture = images.to_tensor(cell.start.open(), size, cut).mul(2).sub(1)
        masked = picture_latents(model.vae, picture * (mask < 0.5)).to(model.device)[0]
        return torch.cat([as_mask(taken["mask"].open(), size, model.factor, cut).to(masked), masked])
    if model.beside == "depth":
        depth = images.to_tensor(taken["depth"].open().convert("L").convert("RGB"), size, cut)[:1]
        sides = size[0] // model.factor, size[1] // model.factor
        depth = torch.nn.functional.interpolate(depth[None], size=sides, mode="bicubic", align_corners=False)[0]
        depth = 2 * (depth - depth.amin()) / (depth.amax() - depth.amin()) - 1
        return depth.to(model.device)
    return None


def known_latents(
    model: Model, cell: Cell, size: tuple[int, int], seeds: Sequence[int], random: Sequence[torch.Generator]
) -> Float[Tensor, "image c h w"] | None:
    """The latents of the picture that a cell starts from, for each seed; None where there is no picture."""
    start = cell.start
    if "picture" in start.taken:
        picture = images.to_tensor(start.open(), size, cell.size != "picture").mul(2).sub(1)
        return picture_latents(model.vae, picture, random)
    if "latents" in start.taken and not start.from_noise:
        return of_seeds(start.taken["latents"].open(), seeds)
    return None


def of_seeds(rows: Float[Tensor, "row c h w"], seeds: Sequence[int]) -> Float[Tensor, "image c h w"]:
    """Row n for seed n; the only one for all.

    >>> of_seeds(torch.arange(3.0).view(3, 1, 1, 1), [2, 0]).flatten().tolist()
    [2.0, 0.0]
    """
    return rows[list(seeds)] if len(rows) > 1 else rows.expand(len(seeds), -1, -1, -1)


@torch.inference_mode()
def start_latents(model: Model | Pipeline, cell: Cell, seeds: int | Sequence[int]) -> Float[Tensor, "image c h w"]:
    """The latents that the first step of a cell meets, for each seed: noise, or a picture noised to that step.

    They are scaled as the scheduler has them; `images.decode` shows them, and a file of them can be a start.

    >>> from embedlab import Sampler, Start, models
    >>> cell = Cell("a cat", sampler=Sampler(steps=10), start=Start("puppy.png", step=7))
    >>> start_latents(models.load("emoji"), cell, [0, 1]).shape
    torch.Size([2, 8, 16, 16])
    """
    model = model_of(model)
    check_kind(cell, Cell, "cell", "lab.Cell(PROMPT)")
    seeds = seeds_asked(seeds)
    scheduler = cell.sampler.make(model.scheduler)
    first = begin(model, cell, seeds, scheduler)
    return begun(scheduler, first.noise, first.picture, first.first, cell.start.warmup)
