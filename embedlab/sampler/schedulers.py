"""A model's noise levels → a scheduler of diffusers, and the calls of the denoiser that it makes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from embedlab.errors import SamplerError, listed
from embedlab.limits import SCHEDULERS
from embedlab.sampler.start import Start
from embedlab.schedule import Moment


def as_trained(config: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> Any:
    """A scheduler of diffusers by the name of its class, with a model's noise levels.

    What a config leaves out is what its own class takes for it, where it tells of the training. A config of a class
    that never clips the predicted x0 (DPM++, Euler, UniPC, PNDM) makes none that does: DDIM and DDPM would by default.
    """
    import diffusers  # noqa: PLC0415  it takes seconds

    kind, own = getattr(diffusers, name), getattr(diffusers, str(config.get("_class_name")), None)
    known = inspect.signature(kind).parameters
    defaults = inspect.signature(own).parameters if inspect.isclass(own) else {}
    training = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "clip_sample")
    filled = {key: defaults[key].default for key in training if key in defaults}
    if config.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in known:
        able = [
            one
            for one, (other, _) in SCHEDULERS.items()
            if "rescale_betas_zero_snr" in inspect.signature(getattr(diffusers, other)).parameters
        ]
        raise SamplerError(
            f"the model was trained with zero terminal SNR (rescale_betas_zero_snr), which a {name} does not know; "
            f"choose one of {listed(able)}."
        )
    clips = {"clip_sample": False} if "clip_sample" in known else {}
    return kind.from_config({**clips, **filled, **config}, **settings)


def set_steps(scheduler: Any, steps: int) -> str | None:
    """Set a scheduler's timesteps; answers with what is wrong with them, None where each step has less noise.

    `trailing` spacing ends one step too late for 61, 103, … steps, at timestep -1: that one is taken away.
    """
    scheduler.set_timesteps(steps)
    calls = 2 * steps - 1 if scheduler.order == 2 else steps + 1 if is_pndm(scheduler) and steps > 1 else steps
    times = scheduler.timesteps
    if len(times) == calls + scheduler.order and float(times[-1]) < 0:
        if per_call(scheduler):
            scheduler.sigmas = torch.cat([scheduler.sigmas[:calls], scheduler.sigmas[-1:]])
        scheduler.timesteps, scheduler.num_inference_steps = times[:calls], steps
        times = scheduler.timesteps
    if len(times) != calls:
        return f"its scheduler makes {len(times)} calls of them where there have to be {calls}"
    lowest, highest, top = float(times.min()), float(times.max()), scheduler.config.num_train_timesteps - 1
    if scheduler.config.get("timestep_type") != "continuous" and not 0 <= lowest <= highest <= top:
        return f"they go from timestep {highest:g} to {lowest:g} where the model was trained on {top} to 0"
    levels = {moment.step: moment.sigma for moment in moments(scheduler)}
    if any(not a > b > 0 for a, b in pairwise(levels.values())):
        return "two of them have the same noise level"
    return None


def is_pndm(scheduler: Any) -> bool:
    """Whether a scheduler calls the denoiser twice in its second step, to have a history sooner."""
    return hasattr(scheduler, "plms_timesteps")


def per_call(scheduler: Any) -> bool:
    """Whether a scheduler has a list of noise levels for its calls, and one more for the end."""
    sigmas = getattr(scheduler, "sigmas", None)
    return sigmas is not None and len(sigmas) == len(scheduler.timesteps) + 1


def reason(error: Exception) -> str:
    """What another library says of an error, on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def calls_of(scheduler: Any, first: int = 0, warmup: str = "history") -> list[tuple[int, int]]:
    """Every call of the denoiser from step `first` on: its step, and its place among the scheduler's timesteps.

    A step of a second-order scheduler (Heun) is the call that corrects the step before, and its own. PNDM calls twice
    in the second step that it runs; diffusers, which starts late by leaving out calls, in the second step of all.
    """
    count = len(scheduler.timesteps)
    if scheduler.order == 2:
        return [((place + 1) // 2, place) for place in range(2 * first, count)]
    if not is_pndm(scheduler):
        return [(place, place) for place in range(first, count)]
    if warmup == "diffusers":
        return [(place - (place > 1), place) for place in range(first, count)]
    steps = list(range(first, max(count - 1, 1)))
    return [(step, step + (step > 0)) for step in (*steps[:2], *steps[1:])]


def moments(scheduler: Any, first: int = 0, warmup: str = "history") -> list[Moment]:
    """Every call of the denoiser that `sample` will make, with its step and noise level.

    At zero terminal SNR the noise level is 4096, as in diffusers' own schedulers, and not infinite.

    >>> from embedlab import Sampler, models
    >>> scheduler = Sampler("heun", steps=3).make(models.Source("emoji").scheduler)
    >>> [(moment.call, moment.step) for moment in moments(scheduler)]
    [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)]
    """
    every, top = scheduler.order, float(scheduler.config.num_train_timesteps)
    steps = calls_of(scheduler)[-1][0] + 1
    calls = []
    for n, (step, place) in enumerate(calls_of(scheduler, first, warmup)):
        t = float(scheduler.timesteps[place])
        if per_call(scheduler):
            sigma = float(scheduler.sigmas[place])
        else:
            a = max(float(scheduler.alphas_cumprod[int(t)]), 2**-24)
            sigma = ((1 - a) / a) ** 0.5
        calls.append(Moment(first * every + n, step, steps, t, sigma, steps * every, top))
    return calls


def noise_of(calls: Sequence[Moment], start: Start) -> str | None:
    """What to mind where noise is handed over at a timestep at which the model expects a picture in it.

    `leading` spacing begins at the first multiple below the top: at timestep 1 with one step, at 667 with 334.
    """
    first = calls[0]
    if not start.from_noise or first.timestep >= 0.7 * first.top:
        return None
    return (
        f"with {first.steps} steps this sampler begins at timestep {first.timestep:g} of {first.top:g}, where the "
        "model expects a picture under the noise, and gets none; another number of steps begins higher"
    )
