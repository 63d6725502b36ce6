"""Settings of how latents are denoised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedlab.errors import EmbedlabError, SamplerError
from embedlab.limits import SCHEDULERS, check_part
from embedlab.sampler.schedulers import as_trained, reason, set_steps


@dataclass(frozen=True)
class Sampler:
    """Settings of how latents are denoised: a diffusers scheduler by name, how many steps, which to keep for viewing.

    >>> from embedlab import Source
    >>> scheduler = Sampler("dpmpp_2m", steps=20).make(Source("emoji").scheduler)
    >>> type(scheduler).__name__, len(scheduler.timesteps)
    ('DPMSolverMultistepScheduler', 20)
    """

    scheduler: str = "ddim"
    steps: int = 25
    keep: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_part(self)
        object.__setattr__(self, "keep", tuple(self.keep))

    def make(self, config: Mapping[str, Any]) -> Any:
        """The scheduler, with the noise levels that the model was trained on, and its timesteps set.

        Raises SamplerError where a config makes no such scheduler, or none of so many steps whose noise levels fall.
        """
        name, settings = SCHEDULERS[self.scheduler]
        try:
            scheduler = as_trained(config, name, settings)
            fault = set_steps(scheduler, self.steps)
            fewer = (n for n in range(self.steps - 1, 0, -1) if set_steps(scheduler, n) is None)
            most = next(fewer, None) if fault else None
        except EmbedlabError:
            raise
        except Exception as error:  # whatever a config from elsewhere makes a constructor stumble on
            raise SamplerError(f"the model's scheduler config does not make a {name}: {reason(error)}") from None
        if fault:
            hint = f"take {most}, or a sampler other than {self.scheduler}" if most else "take another sampler"
            raise SamplerError(f"sampler.steps is {self.steps}, and {fault}; {hint}.")
        return scheduler
