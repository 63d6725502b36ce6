"""The schedulers of diffusers by name, the options that each takes, and those that do not fit. No import of torch here.

`SCHEDULERS` has for each name the class, and what the name stands for. `FIELDS` says which settings of `Sampler` change
something in a class, `OPTIONS` which of its own settings `sampler.options` may hold, by diffusers' names. `UNFIT` says
of every other scheduler of diffusers why it makes no picture with a model that was trained on betas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

from embedlab.checks import (
    finite_number,
    in_choices,
    is_list,
    is_number,
    is_whole,
    number_within,
    true_or_false,
    whole_number,
)
from embedlab.errors import SamplerError, brief, listed, perhaps

OWN = "own"  # the class that the model's scheduler config names, with its settings
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm_2": ("KDPM2DiscreteScheduler", {}),
    "dpm_2_ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_2s": ("DPMSolverSinglestepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpmpp_sde": ("DPMSolverSDEScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {"algorithm_type": "deis"}),
    "sa_solver": ("SASolverScheduler", {"algorithm_type": "data_prediction"}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}
NEEDS = {"DPMSolverSDEScheduler": "torchsde"}  # what is not installed with embedlab
SAME = {"DDIMParallelScheduler": "DDIMScheduler", "DDPMParallelScheduler": "DDPMScheduler"}  # step by step, by name
KINDS = tuple(dict.fromkeys(kind for kind, _ in SCHEDULERS.values()))

LEVELS = ("normal", "karras", "exponential", "beta", "lu")
SPACINGS = ("leading", "trailing", "linspace")
COMPVIS = ("uniform", "quad")
_RESPACED = {"DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"} | {
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
}
_UNSPACED = {"DPMSolverSinglestepScheduler", "LCMScheduler", "TCDScheduler"}  # they place their timesteps in one way
_LEVELLED = {"LMSDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler"} | {
    *("KDPM2AncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("DPMSolverSDEScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"),
}
_ZERO = {"DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"} | {
    *("DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "LCMScheduler", "TCDScheduler"),
}
FIELDS: dict[str, set[str]] = {  # setting of `Sampler` → the classes that have it
    "eta": {"DDIMScheduler", "TCDScheduler", "SASolverScheduler"},
    "sigmas": _LEVELLED,
    "spacing": set(KINDS) - (_UNSPACED - _RESPACED),
    "zero_snr": _ZERO,
    "order": {
        *("LMSDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
        *("UniPCMultistepScheduler", "DEISMultistepScheduler"),
    },
}
ORDERS = {"LMSDiscreteScheduler": 4}  # the highest; 3 of all others
KEYS = {  # setting of `Sampler` → the keys of a scheduler config that say the same
    "sigmas": ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"),
    "spacing": ("timestep_spacing",),
    "zero_snr": ("rescale_betas_zero_snr",),
    "order": ("solver_order",),
    "eta": ("tau_func",),
}

_BETAS = ("beta_schedule", "beta_start", "beta_end")
_CLIP = ("clip_sample", "clip_sample_range")
_THRESHOLD = ("thresholding", "dynamic_thresholding_ratio", "sample_max_value")
_DPM = (*_THRESHOLD, "solver_type", "lower_order_final", "final_sigmas_type", "lambda_min_clipped")
OPTIONS: dict[str, tuple[str, ...]] = {  # class → what it is made with
    "DDIMScheduler": (*_BETAS, *_CLIP, *_THRESHOLD, "set_alpha_to_one", "steps_offset"),
    "DDPMScheduler": (*_BETAS, *_CLIP, *_THRESHOLD, "steps_offset", "variance_type"),
    "PNDMScheduler": (*_BETAS, "set_alpha_to_one", "steps_offset"),
    "LMSDiscreteScheduler": (*_BETAS, "steps_offset"),
    "EulerDiscreteScheduler": (*_BETAS, "steps_offset", "final_sigmas_type", "sigma_min", "sigma_max"),
    "EulerAncestralDiscreteScheduler": (*_BETAS, "steps_offset"),
    "HeunDiscreteScheduler": (*_BETAS, *_CLIP, "steps_offset"),
    "KDPM2DiscreteScheduler": (*_BETAS, "steps_offset"),
    "KDPM2AncestralDiscreteScheduler": (*_BETAS, "steps_offset"),
    "DPMSolverMultistepScheduler": (*_BETAS, *_DPM, "euler_at_final", "steps_offset"),
    "DPMSolverSinglestepScheduler": (*_BETAS, *_DPM),
    "DPMSolverSDEScheduler": (*_BETAS, "steps_offset"),
    "UniPCMultistepScheduler": (
        *(*_BETAS, *_THRESHOLD, "solver_type", "lower_order_final", "final_sigmas_type", "steps_offset"),
        *("predict_x0", "disable_corrector", "sigma_min", "sigma_max"),
    ),
    "DEISMultistepScheduler": (*_BETAS, *_THRESHOLD, "lower_order_final", "steps_offset"),
    "SASolverScheduler": (
        *(*_BETAS, *_THRESHOLD, "predictor_order", "corrector_order", "algorithm_type", "lower_order_final"),
        *("lambda_min_clipped", "steps_offset"),
    ),
    "LCMScheduler": (*_BETAS, *_CLIP, *_THRESHOLD, "original_inference_steps", "timestep_scaling"),
    "TCDScheduler": (*_BETAS, "original_inference_steps"),
}
IN_STEP: dict[str, tuple[str, ...]] = {  # class → what each of its steps is told
    "DDIMScheduler": ("use_clipped_model_output",),
    "EulerDiscreteScheduler": ("s_churn", "s_tmin", "s_tmax", "s_noise"),
    "DPMSolverSDEScheduler": ("s_noise",),
}
NEVER = {  # what a scheduler of diffusers can be told, and `sampler.options` cannot: why
    **dict.fromkeys(("num_train_timesteps", "prediction_type"), "it is the model's; model.prediction_type corrects it"),
    "trained_betas": "betas are the model's, or a curve: options.beta_schedule",
    **dict.fromkeys(
        ("use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type", "shift_terminal"),
        "it is for models trained by flow matching",
    ),
    **dict.fromkeys(("timestep_type", "interpolation_type"), "it is for models trained as EDM's"),
    "tau_func": "it is a function; sampler.eta is its value",
    "solver_p": "it is a scheduler of its own",
    "skip_prk_steps": "the Runge-Kutta calls of PNDM are left out, as in CompVis' PLMS",
    "noise_sampler_seed": "noise is that of seeds",
    **dict.fromkeys(KEYS["sigmas"], "sampler.sigmas says it"),
    "timestep_spacing": "sampler.spacing says it",
    "rescale_betas_zero_snr": "sampler.zero_snr says it",
    "solver_order": "sampler.order says it",
    "eta": "sampler.eta says it",
}
WITHOUT_EFFECT = {  # settings of a class that change nothing in it
    "DPMSolverMultistepScheduler": {"variance_type", "algorithm_type"},  # of models that predict it; the name says it
    "DPMSolverSinglestepScheduler": {"variance_type", "algorithm_type"},
    "SASolverScheduler": {"variance_type"},
    "DEISMultistepScheduler": {"algorithm_type", "solver_type"},
    "LCMScheduler": {"set_alpha_to_one", "steps_offset", "timestep_spacing"},
    "TCDScheduler": {
        *(*_CLIP, *_THRESHOLD, "set_alpha_to_one", "steps_offset", "timestep_spacing", "timestep_scaling"),
    },
}

_EDM = "its noise levels and its scaling are EDM's (Karras et al. 2022), which a UNet has to be trained with"
_FLOW = "it goes from noise to picture along straight lines (flow matching), which a model has to be trained for"
_TOKENS = "it samples tokens, not latents"
UNFIT: dict[str, str] = {  # every other scheduler of diffusers: why it does not fit
    **dict.fromkeys(("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"), _EDM),
    **dict.fromkeys(("CosineDPMSolverMultistepScheduler", "CMStochasticIterativeScheduler"), _EDM),
    **dict.fromkeys(("KarrasVeScheduler",), _EDM),
    **dict.fromkeys(("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"), _FLOW),
    **dict.fromkeys(("FlowMatchLCMScheduler", "FlowMapEulerDiscreteScheduler", "LTXEulerAncestralRFScheduler"), _FLOW),
    **dict.fromkeys(("HeliosScheduler", "HeliosDMDScheduler", "MiniMaxH3Scheduler", "PiflowScheduler"), _FLOW),
    **dict.fromkeys(("AmusedScheduler", "VQDiffusionScheduler", "BlockRefinementScheduler"), _TOKENS),
    **dict.fromkeys(("DiscreteDDIMScheduler", "EntropyBoundScheduler"), _TOKENS),
    "CogVideoXDDIMScheduler": "its betas are shifted by CogVideoX's signal-to-noise scale; sampler=ddim is DDIM",
    "CogVideoXDPMScheduler": "its step takes two predictions and CogVideoX's shifted betas; sampler=dpmpp_2m is DPM++",
    "ConsistencyDecoderScheduler": "it is for a decoder of latents, not for a UNet that makes them",
    "DDIMInverseScheduler": "it goes from picture to noise",
    "DPMSolverMultistepInverseScheduler": "it goes from picture to noise",
    "DDPMWuerstchenScheduler": "its time is a share from 0 to 1 on a cosine, for Würstchen's models",
    "IPNDMScheduler": "its noise levels are a sine of a time from 0 to 1, whatever betas and prediction the model has",
    "RePaintScheduler": "it goes back and forth between noise levels to fill a hole in pixels",
    "RFD4ProteinaScheduler": "it is for the coordinates of proteins",
    "SCMScheduler": "its time is an angle (TrigFlow), which a model has to be trained with",
    "ScoreSdeVeScheduler": "its noise grows without the picture shrinking (variance exploding), from another training",
    "ScoreSdeVpScheduler": "its time is a share from 0 to 1, for models of continuous time",
    "UnCLIPScheduler": "it is for DALL-E 2's priors and decoders, which predict their variance",
}


# ── checks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_scheduler(scheduler: Any) -> None:
    """A name of `SCHEDULERS`, or `own`."""
    in_choices(scheduler, "sampler.scheduler", [*SCHEDULERS, OWN], SamplerError)
    if scheduler == OWN:
        return
    check_installed(scheduler, SCHEDULERS[scheduler][0])


def check_installed(scheduler: str, kind: str) -> None:
    """Refuse a class that needs what is not installed."""
    needed = NEEDS.get(kind)
    if needed and find_spec(needed) is None:
        raise SamplerError(
            f"sampler={scheduler} needs {needed}, which is not installed: pip install {needed}; dpmpp_2m_sde is a "
            "stochastic DPM++ without it."
        )


def installed() -> list[str]:
    """The names whose class needs nothing that is not installed.

    >>> installed()[:3]
    ['ddim', 'ddpm', 'pndm']
    """
    return [name for name, (kind, _) in SCHEDULERS.items() if kind not in NEEDS or find_spec(NEEDS[kind])]


def kinds_of(scheduler: str) -> tuple[str, ...]:
    """The classes that a name may stand for: its own, or any where the model says which.

    >>> kinds_of("euler")
    ('EulerDiscreteScheduler',)
    """
    return (SCHEDULERS[scheduler][0],) if scheduler in SCHEDULERS else KINDS


def names_with(kinds: set[str]) -> list[str]:
    """The names of schedulers of some classes.

    >>> names_with({"DDIMScheduler", "TCDScheduler"})
    ['ddim', 'tcd']
    """
    return [name for name, (kind, _) in SCHEDULERS.items() if kind in kinds]


def options_of(kind: str) -> tuple[str, ...]:
    """What `sampler.options` may hold for a class of scheduler."""
    return (*OPTIONS[kind], *IN_STEP.get(kind, ()))


def check_field(field: str, value: Any, scheduler: str, kinds: Sequence[str]) -> None:
    """Refuse a setting that is not null where the scheduler has no such thing."""
    if value is not None and not FIELDS[field] & set(kinds):
        raise SamplerError(
            f"sampler.{field} is {brief(value)}, and the scheduler {scheduler} has no such setting; "
            f"{listed(names_with(FIELDS[field]))} have. Leave it null."
        )


def check_eta(scheduler: Any, eta: Any) -> None:
    """How much noise each step adds: from none to that of the full stochastic process."""
    check_field("eta", eta, scheduler, kinds_of(scheduler))
    if eta is not None:
        number_within(eta, "sampler.eta", SamplerError, most=1)


def check_sigmas(scheduler: Any, sigmas: Any) -> None:
    """A name of `LEVELS` that the scheduler knows."""
    kinds = kinds_of(scheduler)
    check_field("sigmas", sigmas, scheduler, kinds)
    if sigmas is not None:
        known = LEVELS if "DPMSolverMultistepScheduler" in kinds else LEVELS[:-1]
        in_choices(sigmas, f"sampler.sigmas of {scheduler}", known, SamplerError)


def check_spacing(scheduler: Any, spacing: Any, steps: Any, sigmas: Any) -> None:
    """Where the timesteps are: a word, or the timesteps themselves."""
    kinds = set(kinds_of(scheduler))
    check_field("spacing", spacing, scheduler, tuple(kinds))
    if spacing is None:
        return
    if isinstance(spacing, str):
        words = SPACINGS if kinds - _UNSPACED else ()  # a singlestep solver has one spacing of its own
        in_choices(spacing, f"sampler.spacing of {scheduler}", (*words, *COMPVIS), SamplerError)
        if spacing in SPACINGS:
            return
    elif not is_list(spacing) or not all(is_whole(t) and t >= 0 for t in spacing):
        raise SamplerError(
            f"sampler.spacing is {brief(spacing)}; it has to be one of {listed((*SPACINGS, *COMPVIS))}, or the list of "
            "timesteps itself, from 999 down: sampler.spacing=[999,666,333]."
        )
    elif len(spacing) != steps:
        raise SamplerError(f"sampler.spacing lists {len(spacing)} timesteps, and sampler.steps is {steps}.")
    elif any(a < b for a, b in pairwise(spacing)):
        raise SamplerError(f"sampler.spacing is {brief(spacing)}; timesteps have to fall.")
    if not kinds & _RESPACED:
        raise SamplerError(
            f"sampler.spacing is {brief(spacing)}, and the scheduler {scheduler} takes no timesteps of one's own; "
            f"{listed(names_with(_RESPACED))} do."
        )
    if sigmas not in (None, "normal"):
        raise SamplerError(
            f"sampler.spacing is {brief(spacing)}, and sampler.sigmas is {sigmas}: each says where steps are; give one."
        )


def check_zero(scheduler: Any, zero_snr: Any) -> None:
    """Whether betas are rescaled so that the last timestep holds no picture (Lin et al. 2024)."""
    check_field("zero_snr", zero_snr, scheduler, kinds_of(scheduler))
    if zero_snr is not None:
        true_or_false(zero_snr, "sampler.zero_snr", SamplerError)


def check_order(scheduler: Any, order: Any) -> None:
    """How many predictions of the past a step is made of."""
    kinds = kinds_of(scheduler)
    check_field("order", order, scheduler, kinds)
    if order is not None:
        most = max(ORDERS.get(kind, 3) for kind in kinds)
        whole_number(order, f"sampler.order of {scheduler}", SamplerError, least=1, most=most)


def pairs_of(options: Any) -> tuple[tuple[str, Any], ...]:
    """Options as pairs in the order of their names, with lists as tuples: what can be compared and hashed.

    >>> pairs_of({"s_noise": 1.01, "disable_corrector": [0]})
    (('disable_corrector', (0,)), ('s_noise', 1.01))
    """
    pairs = options.items() if isinstance(options, Mapping) else options
    if pairs is None:
        return ()
    wrong = isinstance(pairs, str) or not isinstance(pairs, Iterable) or getattr(pairs, "ndim", 1) == 0
    whole = [] if wrong else [tuple(pair) if isinstance(pair, list | tuple) else () for pair in pairs]
    if wrong or any(len(pair) != 2 or not isinstance(pair[0], str) for pair in whole):
        raise SamplerError(
            f"sampler.options is {brief(options)}; it has to be names with values: {{clip_sample: true}}."
        )
    return tuple(sorted((name, tuple(value) if isinstance(value, list) else value) for name, value in whole))


def check_options(scheduler: Any, options: Any) -> None:
    """Options that the scheduler has, each with a value that fits."""
    check_options_of(scheduler, kinds_of(scheduler), pairs_of(options))


def check_options_of(scheduler: str, kinds: Sequence[str], options: Sequence[tuple[str, Any]]) -> None:
    """Refuse an option that none of some classes has, or a value that does not fit."""
    known = list(dict.fromkeys(name for kind in kinds for name in options_of(kind)))
    first, last = (dict(options).get(name) for name in ("beta_start", "beta_end"))
    for name, value in options:
        if name not in known:
            others = names_with({kind for kind in KINDS if name in options_of(kind)})
            why = NEVER.get(name) or (f"it is of {listed(others)}" if others else "no scheduler has it")
            raise SamplerError(
                f"sampler.options has {name[:80]}, which the scheduler {scheduler} does not take ({why})"
                f"{'' if others or name in NEVER else perhaps(name, known)}; it takes {listed(sorted(known))}."
            )
        called = f"sampler.options.{name}"
        if name == "solver_type":
            words = {"UniPCMultistepScheduler": ("bh1", "bh2"), "DPMSolverMultistepScheduler": ("midpoint", "heun")}
            in_choices(
                value,
                called,
                [w for kind in kinds for w in words.get(kind, ())] or words["DPMSolverMultistepScheduler"],
                SamplerError,
            )
        else:
            CHECKS[name](value, called, SamplerError)
    if is_number(first) and is_number(last) and first > last:
        raise SamplerError(
            f"sampler.options: beta_start is {first} and beta_end {last}; betas rise, as of Stable Diffusion from "
            "0.00085 to 0.012."
        )


def _numbers(value: Any, name: str, error: type[SamplerError]) -> None:
    if not isinstance(value, list | tuple) or not all(is_whole(one) and one >= 0 for one in value):
        raise error(f"{name} is {brief(value)}; it has to be a list of steps: [0, 1].")


def _bound(value: Any, name: str, error: type[SamplerError]) -> None:
    if value != float("inf"):
        number_within(value, name, error)


def _above(value: Any, name: str, error: type[SamplerError]) -> None:
    if not is_number(value) or value <= 0:
        raise error(f"{name} is {brief(value)}; it has to be a number above 0.")


def _lowest(value: Any, name: str, error: type[SamplerError]) -> None:
    if value != float("-inf"):
        finite_number(value, name, error)


def _beta(value: Any, name: str, error: type[SamplerError]) -> None:
    if not is_number(value) or not 0 < value < 1:
        raise error(f"{name} is {brief(value)}; it has to be a number between 0 and 1.")


def _choices(*choices: str) -> Callable[..., None]:
    return lambda value, name, error: in_choices(value, name, choices, error)


CHECKS: dict[str, Callable[..., Any]] = {
    "beta_schedule": _choices("linear", "scaled_linear", "squaredcos_cap_v2"),
    "beta_start": _beta,
    "beta_end": _beta,
    "clip_sample": true_or_false,
    "clip_sample_range": _above,
    "thresholding": true_or_false,
    "dynamic_thresholding_ratio": partial(number_within, most=1),
    "sample_max_value": partial(number_within, least=1),
    "set_alpha_to_one": true_or_false,
    "steps_offset": partial(whole_number, most=999),
    "variance_type": _choices("fixed_small", "fixed_small_log", "fixed_large"),
    "final_sigmas_type": _choices("zero", "sigma_min"),
    "sigma_min": _above,
    "sigma_max": _above,
    "lower_order_final": true_or_false,
    "euler_at_final": true_or_false,
    "lambda_min_clipped": _lowest,
    "predict_x0": true_or_false,
    "disable_corrector": _numbers,
    "predictor_order": partial(whole_number, least=1, most=4),
    "corrector_order": partial(whole_number, most=4),
    "algorithm_type": _choices("data_prediction", "noise_prediction"),
    "original_inference_steps": partial(whole_number, least=1, most=1000),
    "timestep_scaling": _above,
    "use_clipped_model_output": true_or_false,
    "s_churn": number_within,
    "s_tmin": number_within,
    "s_tmax": _bound,
    "s_noise": number_within,
}
