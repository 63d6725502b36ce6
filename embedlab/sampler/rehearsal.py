"""A whole schedule, run on four numbers before weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from embedlab.errors import SamplerError
from embedlab.sampler.inversion import Inversion, inverse_of
from embedlab.sampler.loop import sample
from embedlab.sampler.schedulers import moments, reason
from embedlab.sampler.seeds import generators
from embedlab.sampler.settings import Sampler
from embedlab.sampler.start import Start
from embedlab.schedule import Moment


@torch.inference_mode()
def rehearsed(sampler: Sampler, config: Mapping[str, Any], start: Start | None = None) -> list[Moment]:
    """Every call of the denoiser, after the whole schedule was run on four numbers, with a denoiser that says zero.

    Raises SamplerError for a scheduler that would fail, or end in NaN, with these settings.
    """
    start = start or Start()
    first, scheduler = start.first(sampler.steps), sampler.make(config)
    if isinstance(start, Inversion):
        if sampler.eta:
            raise SamplerError(
                f"sampler.eta is {sampler.eta}: noise in each step, which no inversion knows; leave it out with "
                "start=inversion."
            )
        inverse_of(scheduler, sampler.scheduler, start)
    calls = moments(scheduler, first, start.warmup)
    x, random = torch.ones(1, 4, 1, 1), generators([0])
    begin = None if start.from_noise else x
    try:
        end = sample(lambda x, t: torch.zeros_like(x), x, scheduler, random, begin, first, warmup=start.warmup).latents
    except Exception as error:  # diffusers' schedulers say what they cannot do when they come to it
        raise SamplerError(
            f"the sampler {sampler.scheduler} cannot run {sampler.steps} steps with the model's scheduler config: "
            f"{reason(error)}"
        ) from None
    if not torch.isfinite(end).all():
        raise SamplerError(
            f"{sampler.steps} steps of the sampler {sampler.scheduler} end in NaN or infinite numbers with the model's "
            f"scheduler config ({scheduler.config.prediction_type}); take other steps or another sampler."
        )
    return calls
