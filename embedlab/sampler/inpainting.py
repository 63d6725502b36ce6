"""A part of a picture that stays: put back after each step, as noisy as the step left the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from embedlab.sampler.loop import After
from embedlab.schedule import Moment


def put_back(
    known: Float[Tensor, "image c h w"],
    noise: Float[Tensor, "image c h w"],
    anew: Bool[Tensor, "1 h w"],
    scheduler: Any,
) -> After:
    """What stands behind each call of the scheduler and puts `known` latents back wherever nothing is drawn `anew`.

    They are noised to the level of the next call, with the noise that sampling started with, and after the last call
    come as they are: diffusers' `StableDiffusionInpaintPipeline` with a UNet of four channels; blended diffusion
    (Avrahami et al. 2022), in latents.
    """

    def after(moment: Moment, then: Tensor | None, x: Tensor) -> Tensor:
        original = known if then is None else scheduler.add_noise(known, noise, then.reshape(1).repeat(len(x)))
        return torch.where(anew, x, original.to(x.dtype))

    return after


def led_back(way: Sequence[Float[Tensor, "1 c h w"]], anew: Bool[Tensor, "1 h w"]) -> After:
    """The same where a picture was inverted: outside of what is drawn `anew` latents go back along the `way` that the
    inversion came, from its end to the picture's own, which stand at its beginning.

    >>> back = led_back([torch.full((1, 1, 1, 2), float(n)) for n in range(3)], torch.tensor([[True, False]]))
    >>> back(Moment(0, 2, 4, 0.0, 0.0), None, torch.full((1, 1, 1, 2), 9.0)).flatten().tolist()
    [9.0, 1.0]
    """

    def after(moment: Moment, then: Tensor | None, x: Tensor) -> Tensor:
        return torch.where(anew, x, way[moment.steps - 1 - moment.step].to(x))

    return after
