"""Settings of how latents are denoised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from embedlab.display import Shown
from embedlab.errors import EmbedlabError, SamplerError, counted, listed
from embedlab.limits import check_part, steps_kept
from embedlab.sampler.loop import sample
from embedlab.sampler.schedulers import EQUAL, as_trained, reason, set_steps, silent, spaced
from embedlab.sampler.seeds import generators
from embedlab.scheduler_options import (
    FIELDS,
    IN_STEP,
    KEYS,
    KINDS,
    LEVELS,
    OPTIONS,
    OWN,
    SAME,
    SCHEDULERS,
    SPACINGS,
    UNFIT,
    check_field,
    check_installed,
    check_options_of,
    pairs_of,
)


@dataclass(frozen=True)
class Sampler(Shown):
    """Settings of how latents are denoised: a diffusers scheduler by name, how many steps, which to keep for viewing.

    `scheduler` is a name of `SCHEDULERS`, or `own`: the class and the settings of the model's own config. Each other
    setting that is None is as the model's config says, or else as the scheduler's class has it.

    `keep` lists steps, from 0, whose latents and predicted x0 are kept as pictures; `start` among them is what there is
    before the first, and `every 5` and `all` stand for such lists. `watch` says what is written down beside:
    latents: those of the kept steps, and their x0, as tensors. predictions: what the model predicted in the kept steps,
    after guidance, and with and without the prompt. curves: norms of all of these, and the angle between the last two,
    in every step.

    eta: how much noise each step adds, from 0 to 1: ddim (Song et al. 2021), tcd (their γ), sa_solver (their τ).
    sigmas: the noise levels: normal (those of the timesteps), karras, exponential, beta; lu for dpmpp_2m.
    spacing: leading, trailing or linspace (Lin et al. 2024, table 2), CompVis' uniform or quad, or the timesteps.
    zero_snr: betas that end without any picture (Lin et al. 2024); timesteps are trailing then, if nothing is said.
    order: how many predictions a solver steps with.
    options: whatever else the scheduler has, by diffusers' names: {"s_churn": 20}.

    Raises SamplerError for what the scheduler does not have.

    >>> from embedlab import Source
    >>> scheduler = Sampler("dpmpp_2m", steps=20, sigmas="karras").make(Source("emoji").scheduler)
    >>> type(scheduler).__name__, len(scheduler.timesteps)
    ('DPMSolverMultistepScheduler', 20)
    """

    scheduler: str = "ddim"
    steps: int = 25
    keep: Sequence[int | str] | str = ()
    eta: float | None = None
    sigmas: str | None = None
    spacing: str | Sequence[int] | None = None
    zero_snr: bool | None = None
    order: int | None = None
    options: Mapping[str, Any] | Sequence[tuple[str, Any]] = ()
    watch: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_part(self)
        object.__setattr__(self, "keep", steps_kept(self.keep, self.steps))
        object.__setattr__(self, "watch", tuple(self.watch))
        object.__setattr__(self, "options", pairs_of(self.options))
        if self.spacing is not None and not isinstance(self.spacing, str):
            object.__setattr__(self, "spacing", tuple(self.spacing))

    @property
    def kept(self) -> tuple[int, ...]:
        """The steps that are kept; -1 is the start.

        >>> Sampler(steps=6, keep="every 3").kept
        (0, 3, 5)
        """
        return steps_kept(self.keep, self.steps)

    def make(self, config: Mapping[str, Any]) -> Any:
        """The scheduler, with the noise levels that the model was trained on, and its timesteps set.

        Raises SamplerError where a config makes no such scheduler, or none of so many steps whose noise levels fall.
        """
        name, settings = self.chosen(config)
        respaced = self.spacing is not None and self.spacing not in SPACINGS
        try:
            scheduler = as_trained(config, name, settings, respaced)
            fault = self._set(scheduler, self.steps)
            fewer = (n for n in range(self.steps - 1, 0, -1) if self._set(scheduler, n) is None)
            listed_steps = respaced and not isinstance(self.spacing, str)
            most = next(fewer, None) if fault and not listed_steps else None
        except EmbedlabError:
            raise
        except Exception as error:  # whatever a config from elsewhere makes a constructor stumble on
            raise SamplerError(f"the model's scheduler config does not make a {name}: {reason(error)}") from None
        if fault:
            hint = f"take {most}, or a sampler other than {self.scheduler}" if most else "take another sampler"
            raise SamplerError(f"sampler.steps is {self.steps}, and {fault}; {hint}.")
        return self._told(scheduler, name)

    def chosen(self, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The class of the scheduler, and what it is made with beside a model's scheduler config.

        Raises SamplerError where `own` is a class that does not fit, or that lacks a setting.

        >>> Sampler("own", sigmas="karras").chosen({"_class_name": "EulerDiscreteScheduler"})[0]
        'EulerDiscreteScheduler'
        """
        name, stands_for = (self._own(config), {}) if self.scheduler == OWN else SCHEDULERS[self.scheduler]
        settings = dict(stands_for)
        sigmas = self.sigmas
        if self.spacing in SPACINGS:
            settings["timestep_spacing"] = self.spacing
        elif self.spacing is not None and name in FIELDS["sigmas"]:
            sigmas = "normal"  # a list of timesteps says where the levels are
        if sigmas is not None:
            wanted = dict(zip(LEVELS[1:], KEYS["sigmas"], strict=True))
            settings |= {key: level == sigmas for level, key in wanted.items() if level != "lu" or _knows_lu(name)}
        if self.zero_snr is not None:
            settings["rescale_betas_zero_snr"] = self.zero_snr
            if self.zero_snr and self.spacing is None:
                settings["timestep_spacing"] = "trailing"
        if self.order is not None and name != "LMSDiscreteScheduler":
            settings["solver_order"] = self.order
        made_with = OPTIONS[name]
        return name, settings | {key: value for key, value in pairs_of(self.options) if key in made_with}

    def notes(self, config: Mapping[str, Any]) -> list[str]:
        """What was concluded about a model's scheduler config where it does not say, for people.

        >>> from embedlab import Source
        >>> Sampler("own").notes(Source("emoji").scheduler)
        ["sampler=own is the model's DDIMScheduler"]
        """
        name, settings = self.chosen(config)
        whole, own = {**config, **settings}, config.get("_class_name")
        filled = silent(config)
        notes = [f"sampler=own is the model's {own}"] if self.scheduler == OWN else []
        if left_out := [key for key in filled if key.startswith("beta_") and key not in settings]:
            whose = f"its class {own} has" if own in (*KINDS, *UNFIT, *SAME) else "Stable Diffusion has"
            said = ", ".join(f"{key} {filled[key]}" for key in left_out)
            notes.append(f"the scheduler config leaves out what {whose}: {said}")
        if name in ("DDIMScheduler", "DDPMScheduler") and "clip_sample" not in {**filled, **whole}:
            notes.append(
                f"the scheduler config does not say clip_sample, and its class {own} never clips: nor does "
                f"{self.scheduler}"
            )
        asked = [key for key in KEYS["sigmas"] if whole.get(key)]
        if asked and name not in FIELDS["sigmas"]:
            notes.append(
                f"the scheduler config asks for {asked[0]}, which {self.scheduler} does not have: its noise levels are "
                "those of its timesteps"
            )
        if self.zero_snr and self.spacing is None:
            notes.append("sampler.zero_snr: timesteps are trailing, so that the first holds no picture")
        return notes

    def _own(self, config: Mapping[str, Any]) -> str:
        """The class that a model's config names."""
        said = str(config.get("_class_name"))
        name = SAME.get(said, said)
        if name in UNFIT:
            raise SamplerError(f"sampler=own is a {said[:80]}, which does not fit: {UNFIT[name]}; {_TRY}.")
        if name not in KINDS:
            raise SamplerError(
                f"sampler=own, and the model's scheduler config names no scheduler ({said[:80]}); {_TRY}."
            )
        if name == "PNDMScheduler" and not config.get("skip_prk_steps", False):
            raise SamplerError(
                "sampler=own is a PNDMScheduler that begins with Runge-Kutta steps of four calls (skip_prk_steps is "
                "false), which embedlab does not count; sampler=pndm leaves them out."
            )
        check_installed(OWN, name)
        for field in FIELDS:
            check_field(field, getattr(self, field), f"own ({name})", (name,))
        check_options_of(f"own ({name})", (name,), pairs_of(self.options))
        return name

    def _set(self, scheduler: Any, steps: int) -> str | None:
        """Set so many steps; what is wrong with them."""
        timesteps = None
        if self.spacing is not None and self.spacing not in SPACINGS:
            top = scheduler.config.num_train_timesteps
            if steps > top:
                return f"the model was trained on {counted(top, 'timestep')}"
            timesteps = spaced(self.spacing, steps, top)
            if len(timesteps) != steps:
                return f"spacing {self.spacing} makes {len(timesteps)} of them"
        fault = set_steps(scheduler, steps, timesteps)
        if fault == EQUAL and _ends(scheduler):  # at the end of all, where nothing is divided any more
            set_steps(scheduler, steps, timesteps)
            return None
        return fault

    def _told(self, scheduler: Any, name: str) -> Any:
        """The scheduler, with what each of its steps is told."""
        told = {key: value for key, value in pairs_of(self.options) if key in IN_STEP.get(name, ())}
        if name == "SASolverScheduler":
            if self.eta is not None:  # as its own default, 1, between timesteps 200 and 800
                scheduler.tau_func = partial(_tau, self.eta)
        elif self.eta is not None:
            told["eta"] = self.eta
        if name == "LMSDiscreteScheduler" and self.order is not None:
            told["order"] = self.order
        if told:
            scheduler.step = partial(scheduler.step, **told)
        return scheduler


_TRY = f"choose one of {listed(SCHEDULERS)}"


@torch.inference_mode()
def _ends(scheduler: Any) -> bool:
    """Whether a scheduler whose steps are set comes to numbers, with a denoiser that says something else each time."""
    begin = torch.ones(1, 4, 1, 1)
    return bool(sample(lambda x, t: torch.sin(x + t), begin, scheduler, generators([0])).latents.isfinite().all())


def _knows_lu(name: str) -> bool:
    return name == "DPMSolverMultistepScheduler"


def _tau(eta: float, t: Any) -> float:
    """How stochastic a step of SA-Solver is, by its timestep (Xue et al. 2023, their τ(t))."""
    return eta if 200 <= t <= 800 else 0
