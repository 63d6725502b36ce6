"""A model's noise levels → a scheduler of diffusers, and the calls of the denoiser that it makes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch

from embedlab.errors import SamplerError, listed
from embedlab.memo import Memo
from embedlab.sampler.spaced import SpacedDDIM
from embedlab.sampler.start import Start
from embedlab.schedule import Moment
from embedlab.scheduler_options import FIELDS, NEEDS, names_with


class Timetable(Protocol):
    """A scheduler of diffusers whose timesteps are set, as far as the loop has to know it; `Sampler.make` gives one."""

    config: Any
    order: Any
    timesteps: Any
    init_noise_sigma: Any
    scale_model_input: Any
    step: Any


EQUAL = "two of them have the same noise level, by whose distance this scheduler divides"
TRAINING = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "clip_sample")
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}  # of every Stable Diffusion


_MADE = Memo[str, Any](16)  # DPM2's are made by way of 1000 steps, which takes a quarter of a second


def as_trained(config: Mapping[str, Any], name: str, settings: Mapping[str, Any], respaced: bool = False) -> Any:
    """A scheduler of diffusers by the name of its class, with a model's noise levels.

    What a config leaves out is what its own class takes for it, where it tells of the training (`silent`). A config of
    a class that never clips the predicted x0 (DPM++, Euler, UniPC, PNDM) makes none that does: DDIM and DDPM would by
    default. `respaced` makes the DDIM that takes a list of timesteps. `settings` come before what the config says.
    """
    import diffusers  # noqa: PLC0415  it takes seconds

    kind = getattr(diffusers, name)
    known = inspect.signature(kind).parameters
    whole = {**silent(config), **config, **settings}
    if whole.get("rescale_betas_zero_snr") and "rescale_betas_zero_snr" not in known:
        raise SamplerError(
            f"the model was trained with zero terminal SNR (rescale_betas_zero_snr), which a {name} does not know; "
            f"choose one of {listed(names_with(FIELDS['zero_snr']))}."
        )
    if "clip_sample" in known:
        whole.setdefault("clip_sample", False)
    if name == "DPMSolverSinglestepScheduler" and whole.get("final_sigmas_type", "zero") == "zero":
        whole.setdefault("lower_order_final", True)  # it would say at length that it sets this
    key = repr((name, sorted(whole.items())))
    scheduler = copy.deepcopy(_MADE([key], lambda _: [kind.from_config(whole)])[0])
    return SpacedDDIM(scheduler) if respaced and name == "DDIMScheduler" else scheduler


def silent(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's scheduler config does not say of its training, and its own class does.

    A config that says neither its betas nor a class of diffusers is taken to have Stable Diffusion's betas.

    >>> silent({"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear", "beta_end": 0.012})
    {'num_train_timesteps': 1000, 'beta_start': 0.0001, 'prediction_type': 'epsilon'}
    """
    import diffusers  # noqa: PLC0415  it takes seconds

    name = str(config.get("_class_name"))
    own = None if name in NEEDS else getattr(diffusers, name, None)
    defaults = inspect.signature(own).parameters if inspect.isclass(own) else {}
    filled = {key: defaults[key].default for key in TRAINING if key in defaults and key not in config}
    betas = {key: value for key, value in BETAS.items() if key not in config}
    return filled if defaults or config.get("trained_betas") is not None else {**betas, **filled}


def set_steps(scheduler: Any, steps: int, timesteps: Sequence[int] | None = None) -> str | None:
    """Set a scheduler's timesteps; answers with what is wrong with them, None where they can be run.

    `trailing` spacing ends one step too late for 61, 103, … steps, at timestep -1: that one is taken away. Of two steps
    of the same noise level the second is no step, unless the scheduler divides by the distance (`EQUAL`).
    """
    original = scheduler.config.get("original_inference_steps")
    if original is not None and steps > original:
        return f"its scheduler picks them from {original} (options.original_inference_steps)"
    if timesteps is not None and (wrong := out_of_range(timesteps, scheduler)):
        return wrong
    if timesteps is None:
        scheduler.set_timesteps(steps)
    else:
        scheduler.set_timesteps(timesteps=list(timesteps))
    calls = 2 * steps - 1 if scheduler.order == 2 else steps + 1 if is_pndm(scheduler) and steps > 1 else steps
    times = scheduler.timesteps
    if len(times) == calls + scheduler.order and float(times[-1]) < 0:
        if hasattr(scheduler, "sigmas_interpol"):  # its tables hang together: a hair less makes one timestep less
            scheduler.set_timesteps(steps * (1 - 1e-9))
        else:
            if per_call(scheduler):
                scheduler.sigmas = torch.cat([scheduler.sigmas[:calls], scheduler.sigmas[-1:]])
            scheduler.timesteps = times[:calls]
        scheduler.num_inference_steps = steps
        times = scheduler.timesteps
    if len(times) != calls:
        return f"its scheduler makes {len(times)} calls of them where there have to be {calls}"
    if wrong := out_of_range(times, scheduler):
        return wrong
    levels: dict[int, float] = {}
    for moment in moments(scheduler):
        levels.setdefault(moment.step, moment.sigma)
    if any(not a >= b > 0 for a, b in pairwise(levels.values())):
        return "the noise level of one of them is not below that of the step before"
    if divides(scheduler) and any(a == b for a, b in pairwise(levels.values())):
        return EQUAL
    if per_call(scheduler) and float(scheduler.sigmas[0]) == float(scheduler.sigmas[-1]):
        return "they end with the noise that they begin with"
    return None


def out_of_range(timesteps: Sequence[int] | torch.Tensor, scheduler: Any) -> str | None:
    """What is wrong with timesteps that a model was not trained on."""
    if scheduler.config.get("timestep_type") == "continuous":
        return None
    lowest, highest, top = float(min(timesteps)), float(max(timesteps)), scheduler.config.num_train_timesteps - 1
    if 0 <= lowest <= highest <= top:
        return None
    return f"they go from timestep {highest:g} to {lowest:g} where the model was trained on {top} to 0"


def divides(scheduler: Any) -> bool:
    """Whether a step divides by how far apart the noise levels of steps are: multistep solvers of an order above 1."""
    if hasattr(scheduler, "derivatives"):  # LMS
        return True
    return hasattr(scheduler, "lower_order_nums") and not (
        scheduler.config.get("solver_order") == 1 and not hasattr(scheduler, "predict_x0")
    )


def spaced(spacing: str | Sequence[int], steps: int, top: int) -> tuple[int, ...]:
    """Timesteps from the highest down: CompVis' `uniform` or `quad` discretisation (ldm's util.py), or a list as it is.

    `uniform` takes every ⌊top / steps⌋th, which are more than `steps` where that does not divide; `quad` takes squares
    of evenly spaced numbers, so that low noise has more steps, the lowest twice or more with many.

    >>> spaced("uniform", 4, 1000), spaced("quad", 4, 1000)
    ((751, 501, 251, 1), (801, 356, 89, 1))
    """
    if not isinstance(spacing, str):
        return tuple(spacing)
    if spacing == "uniform":
        return tuple(t + 1 for t in reversed(range(0, top, top // steps)))
    return tuple(int(t) + 1 for t in reversed(np.linspace(0, np.sqrt(top * 0.8), steps) ** 2))


def is_pndm(scheduler: Any) -> bool:
    """Whether a scheduler calls the denoiser twice in its second step, to have a history sooner."""
    return hasattr(scheduler, "plms_timesteps")


def halfway(scheduler: Any) -> bool:
    """Whether the second call of a step is halfway to the next (DPM2, DPM++ SDE), and not at it (Heun)."""
    return hasattr(scheduler, "sigmas_interpol") or hasattr(scheduler, "mid_point_sigma")


def level_of(scheduler: Any, place: int) -> float:
    """The noise level of a call by its place: the ratio of noise to picture in what the model sees."""
    if place % 2 and halfway(scheduler):
        if not hasattr(scheduler, "sigmas_interpol"):
            return float((scheduler.sigmas[place - 1] * scheduler.sigmas[place]) ** 0.5)
        return float(scheduler.sigmas_interpol[place - hasattr(scheduler, "sigmas_up")])
    if per_call(scheduler) or halfway(scheduler):
        return float(scheduler.sigmas[place])
    a = max(float(scheduler.alphas_cumprod[int(scheduler.timesteps[place])]), 2**-24)
    sigma: float = ((1 - a) / a) ** 0.5
    return sigma


def per_call(scheduler: Any) -> bool:
    """Whether a scheduler has a list of noise levels for its calls, and one more for the end."""
    sigmas = getattr(scheduler, "sigmas", None)
    return sigmas is not None and len(sigmas) == len(scheduler.timesteps) + 1


def reason(error: Exception) -> str:
    """What another library says of an error, on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def calls_of(scheduler: Any, first: int = 0, warmup: str = "history") -> list[tuple[int, int]]:
    """Every call of the denoiser from step `first` on: its step, and its place among the scheduler's timesteps.

    A step of Heun is the call that corrects the step before, and its own; one of DPM2 is its own call and the one
    halfway to the next. PNDM calls twice in the second step that it runs; diffusers, which starts late by leaving out
    calls, in the second step of all.
    """
    count = len(scheduler.timesteps)
    if scheduler.order == 2:
        return [((place + (not halfway(scheduler))) // 2, place) for place in range(2 * first, count)]
    if not is_pndm(scheduler):
        return [(place, place) for place in range(first, count)]
    if warmup == "diffusers":
        return [(place - (place > 1), place) for place in range(first, count)]
    steps = list(range(first, max(count - 1, 1)))
    return [(step, step + (step > 0)) for step in (*steps[:2], *steps[1:])]


def moments(scheduler: Timetable, first: int = 0, warmup: str = "history") -> list[Moment]:
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
        calls.append(Moment(first * every + n, step, steps, t, level_of(scheduler, place), steps * every, top))
    return calls


def noise_of(calls: Sequence[Moment], start: Start) -> str | None:
    """What to mind where noise is handed over at a timestep at which the model expects a picture in it.

    `leading` spacing begins at the first multiple below the top: at timestep 1 with one step, at 667 with 334.
    """
    first = calls[0]
    if start.holds_a_picture or first.timestep >= 0.7 * first.top:
        return None
    return (
        f"with {first.steps} steps this sampler begins at timestep {first.timestep:g} of {first.top:g}, where the "
        "model expects a picture under the noise, and gets none; another number of steps begins higher"
    )
