"""DDIM over any timesteps; diffusers' own steps back by one distance, whatever its timesteps are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stepped:
    """What a step of a scheduler answers with, by diffusers' names."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class SpacedDDIM:
    """DDIM (Song et al. 2021, equations 12 and 16) from each timestep of a list to the next, as CompVis' DDIMSampler.

    It is a DDIMScheduler of diffusers but for its timesteps and its step. A step is known by its place: two that have
    the same timestep leave the latents as they are.

    >>> from diffusers import DDIMScheduler
    >>> scheduler = SpacedDDIM(DDIMScheduler())
    >>> scheduler.set_timesteps(timesteps=[800, 356, 89, 1])
    >>> scheduler.timesteps.tolist(), scheduler.order
    ([800, 356, 89, 1], 1)
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler, self._place = scheduler, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_scheduler"], name)

    def set_timesteps(self, timesteps: Sequence[int]) -> None:
        """Take a list of falling timesteps."""
        self.timesteps, self.num_inference_steps, self._place = torch.tensor(list(timesteps)), len(timesteps), 0

    def set_begin_index(self, begin_index: int) -> None:
        """Begin at a place in the list."""
        self._place = begin_index

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: Sequence[torch.Generator] | None = None,
    ) -> Stepped:
        """From a timestep to the next of the list, from the last one to the end of the betas."""
        place, self._place = self._place, self._place + 1
        last, config = place + 1 == len(self.timesteps), self.config
        a = self.alphas_cumprod[self.timesteps[place]]
        b = self.final_alpha_cumprod if last else self.alphas_cumprod[self.timesteps[place + 1]]
        if config.prediction_type == "v_prediction":
            x0 = a**0.5 * sample - (1 - a) ** 0.5 * model_output
            noise = a**0.5 * model_output + (1 - a) ** 0.5 * sample
        elif config.prediction_type == "sample":
            x0, noise = model_output, (sample - a**0.5 * model_output) / (1 - a) ** 0.5
        else:
            x0, noise = (sample - (1 - a) ** 0.5 * model_output) / a**0.5, model_output
        if config.thresholding:
            x0 = self._threshold_sample(x0)
        elif config.clip_sample:
            x0 = x0.clamp(-config.clip_sample_range, config.clip_sample_range)
        if use_clipped_model_output:
            noise = (sample - a**0.5 * x0) / (1 - a) ** 0.5
        spread = eta * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
        x = b**0.5 * x0 + (1 - b - spread**2) ** 0.5 * noise
        if eta > 0:
            from diffusers.utils.torch_utils import randn_tensor  # noqa: PLC0415  it takes seconds

            shape, device, dtype = model_output.shape, model_output.device, model_output.dtype
            x = x + spread * randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        return Stepped(x, x0)
