"""Every scheduler with every option beside diffusers' own loop, on four numbers and a denoiser that is one formula.

`EMBEDLAB_TURN=all` walks all; else a seventh of what takes long is walked, by the day (turns.py).
"""

import copy
import dataclasses
import inspect
import re
import zlib
from functools import partial
from itertools import product
from pathlib import Path

import diffusers
import pytest
import torch
from parity import close
from tiny import NOISE
from turns import mine

from embedlab import Cell, Guidance, render
from embedlab.errors import SamplerError
from embedlab.images.infotext import SAMPLERS
from embedlab.limits import check_settings
from embedlab.memo import Memo
from embedlab.sampler import Sampler, generators, moments, noise, rehearsed, sample
from embedlab.scheduler_options import (
    COMPVIS,
    FIELDS,
    IN_STEP,
    KEYS,
    KINDS,
    LEVELS,
    NEEDS,
    NEVER,
    OPTIONS,
    SAME,
    SCHEDULERS,
    SPACINGS,
    UNFIT,
    WITHOUT_EFFECT,
    installed,
    options_of,
)

SEEDS = (0, 1)
CONFIG = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "prediction_type": "epsilon", **NOISE}
USE = dict(zip(LEVELS[1:], KEYS["sigmas"], strict=True))
OTHER = {  # option → a value that is not the default, and the options without which it does nothing
    "beta_schedule": ("linear", {}),
    "beta_start": (0.002, {}),
    "beta_end": (0.02, {}),
    "clip_sample": (True, {}),
    "clip_sample_range": (0.5, {"clip_sample": True}),
    "thresholding": (True, {}),
    "dynamic_thresholding_ratio": (0.6, {"thresholding": True, "sample_max_value": 9.0}),
    "sample_max_value": (3.0, {"thresholding": True}),
    "set_alpha_to_one": (True, {}),
    "steps_offset": (3, {}),
    "variance_type": ("fixed_large", {}),
    "final_sigmas_type": ("sigma_min", {}),
    "sigma_min": (0.1, {}),
    "sigma_max": (9.0, {}),
    "solver_type": ("heun", {"final_sigmas_type": "sigma_min"}),  # bh1 ends in infinity without
    "lower_order_final": (False, {"final_sigmas_type": "sigma_min"}),
    "euler_at_final": (True, {"final_sigmas_type": "sigma_min"}),
    "lambda_min_clipped": (-1.0, {}),
    "predict_x0": (False, {"final_sigmas_type": "sigma_min"}),
    "disable_corrector": ((0, 1), {}),
    "predictor_order": (3, {}),
    "corrector_order": (1, {}),
    "algorithm_type": ("noise_prediction", {}),
    "original_inference_steps": (100, {}),
    "timestep_scaling": (0.1, {}),
    "use_clipped_model_output": (True, {"clip_sample": True}),
    "s_churn": (20.0, {}),
    "s_tmin": (5.0, {"s_churn": 20.0}),
    "s_tmax": (5.0, {"s_churn": 20.0}),
    "s_noise": (1.1, {"s_churn": 20.0}),
}


def denoiser(x, t):
    """A prediction that bends, so that no two solvers agree by chance."""
    return 0.3 * torch.tanh(x) + 0.1 * torch.cos(3 * x) + float(t) / 5000


def variants(name):
    """Each setting of a scheduler alone: what `Sampler` is told, and what that has to differ from."""
    kind = SCHEDULERS[name][0]
    yield "plain", {}, None
    if kind in FIELDS["sigmas"]:
        for level in LEVELS[1:]:
            if level != "lu" or "use_lu_lambdas" in inspect.signature(getattr(diffusers, kind)).parameters:
                yield level, {"sigmas": level}, {}
    if kind in FIELDS["spacing"]:
        for spacing in () if kind == "DPMSolverSinglestepScheduler" else SPACINGS:
            yield spacing, {"spacing": spacing}, None
        if name != "ddim" and takes_timesteps(kind):
            yield "quad", {"spacing": "quad"}, {}
    for field, value in (("eta", 0.7), ("zero_snr", True), ("order", 1), ("order", 3)):
        if kind in FIELDS[field]:
            yield f"{field} {value}", {field: value}, {}
    for option in (*OPTIONS[kind], *IN_STEP.get(kind, ())):
        value, with_it = OTHER[option]
        if option == "solver_type" and name == "unipc":
            value = "bh1"
        if option == "lower_order_final" and name == "dpmpp_2s":
            value = True
        with_it = {key: v for key, v in with_it.items() if key in (*OPTIONS[kind], *IN_STEP.get(kind, ()))}
        more = {"sigmas": "karras"} if option in ("sigma_min", "sigma_max") else {}
        more |= {"spacing": "leading"} if option == "steps_offset" else {}
        yield option, {"options": {**with_it, option: value}, **more}, {"options": with_it, **more}


def takes_timesteps(kind):
    return kind in {SCHEDULERS[name][0] for name in ("ddpm", "euler", "heun", "dpmpp_2m", "dpmpp_2s")}


def quad(steps):
    return [int(t) + 1 for t in reversed(torch.linspace(0, 800**0.5, steps, dtype=torch.float64).numpy() ** 2)]


MADE = Memo(64)


def tau(eta, t):
    return eta if 200 <= t <= 800 else 0


def made_once(kind, settings):
    """A scheduler of diffusers; of those that are made by way of 1000 steps, one that is told otherwise."""
    betas = {key: settings.pop(key) for key in list(settings) if key.startswith("beta_")}
    if kind.startswith("KDPM2"):
        scheduler = copy.deepcopy(
            MADE([repr((kind, betas))], lambda _: [getattr(diffusers, kind).from_config(betas)])[0]
        )
        scheduler.register_to_config(**{key: settings[key] for key in settings if key in scheduler.config})
        return scheduler
    settings = {**settings, **betas}
    return MADE([repr((kind, settings))], lambda _: [getattr(diffusers, kind).from_config(settings)])[0]


def library(name, steps, prediction, told, first=0, seeds=SEEDS):
    """Latents as diffusers' pipelines make them, the timesteps, and what it began with."""
    kind, settings = SCHEDULERS[name]
    settings = {**CONFIG, **settings, "prediction_type": prediction}
    in_step = {key: v for key, v in dict(told.get("options", {})).items() if key in IN_STEP.get(kind, ())}
    settings |= {key: v for key, v in dict(told.get("options", {})).items() if key in OPTIONS[kind]}
    if level := USE.get(told.get("sigmas")):
        settings[level] = True
    if told.get("spacing") in SPACINGS:
        settings["timestep_spacing"] = told["spacing"]
    if told.get("zero_snr"):
        settings |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if "order" in told:
        (in_step if name == "lms" else settings)["order" if name == "lms" else "solver_order"] = told["order"]
    if "eta" in told and name != "sa_solver":
        in_step["eta"] = told["eta"]
    elif "eta" in told:
        settings["tau_func"] = partial(tau, told["eta"])
    settings |= {"noise_sampler_seed": list(seeds)} if kind in NEEDS else {}
    scheduler = copy.deepcopy(made_once(kind, settings))
    random = generators(seeds)
    if told.get("spacing") == "quad":
        scheduler.set_timesteps(timesteps=quad(steps))
    else:
        scheduler.set_timesteps(steps)
    accepted = inspect.signature(scheduler.step).parameters
    in_step |= {"generator": random} if "generator" in accepted else {}
    x = noise((4, 4, 4), random)
    timesteps = scheduler.timesteps[first * scheduler.order :]
    if first:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first * scheduler.order)
        x = scheduler.add_noise(torch.full_like(x, 0.5), x, timesteps[:1].repeat(len(x)))
    else:
        if len(set(timesteps[:2].tolist())) == 1 and len(timesteps) > 1 and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)  # else its pipeline looks for the first timestep, finds the second, and fails
        x = x * scheduler.init_noise_sigma
    began = x
    for t in timesteps:
        x = scheduler.step(denoiser(scheduler.scale_model_input(x, t), t), t, x, **in_step).prev_sample
    return x, scheduler.timesteps, began


def ours(name, steps, prediction, told, first=0, seeds=SEEDS, warmup="history"):
    scheduler = Sampler(name, steps, **told).make({**CONFIG, "prediction_type": prediction})
    random = generators(seeds)
    drawn = noise((4, 4, 4), random)
    start = torch.full_like(drawn, 0.5) if first else None
    return sample(denoiser, drawn, scheduler, random, start, first, warmup=warmup).latents


def refused(name, steps, prediction, told):
    """The line with which a rehearsal refuses; empty where it does not."""
    try:
        rehearsed(Sampler(name, steps, **told), {**CONFIG, "prediction_type": prediction})
    except SamplerError as error:
        return str(error).replace("\n", "two lines")
    return ""


def same(a, b):
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


def compared(name, steps, prediction, told):
    """Our latents, after they were found to be diffusers'; None where it raises or ends in NaN, and we say so."""
    line, case = refused(name, steps, prediction, told), (name, steps, prediction, told)
    assert "two lines" not in line, line
    try:
        theirs, timesteps, began = library(*case)
    except Exception:  # whatever it stumbles on
        theirs, timesteps, began = torch.tensor(torch.nan), [], None
    if not theirs.isfinite().all():
        assert line, case
        return None
    if "where the model was trained on" in line:
        assert timesteps.max() > 999 or timesteps.min() < 0, line
        return None
    if "they end with the noise that they begin with" in line:
        assert same(theirs, began), line
        return None
    if re.search(r"its scheduler makes \d+ calls of them", line):
        assert len(timesteps) != steps, line
        return None
    assert not line, (case, line)
    latents = ours(*case)
    assert same(latents, theirs), (case, float((latents - theirs).abs().max() / theirs.abs().max()))
    return latents


SLOW = ("dpm_2", "dpm_2_ancestral")  # they are made by way of 1000 steps


def today(case):
    """Whether a long case is walked in this turn."""
    return mine(zlib.crc32(repr(case).encode()))


@pytest.mark.parametrize("name", installed())
def test_every_setting_is_that_of_diffusers_own_loop_and_changes_something(name):
    bare, many = {}, ("epsilon", "v_prediction", "sample")
    for label, told, beside in variants(name) if mine(installed().index(name)) else [("plain", {}, None)]:
        changed = False
        for steps, prediction in product((1, 2, 3, 50), many):
            usual = label == "plain" or (
                prediction == "v_prediction" and steps in ((3,) if name in SLOW else (1, 2, 3))
            )
            usual |= label in ("euler_at_final", "order 3", "predictor_order") and steps == 50  # which needs many
            if not usual and (
                (name in SLOW and prediction != "v_prediction") or not today((name, label, steps, prediction))
            ):
                continue
            latents = compared(name, steps, prediction, told)
            if label == "plain":
                bare[steps, prediction] = latents
            elif latents is not None and beside is not None and not changed:
                before = ours(name, steps, prediction, beside) if beside else bare[steps, prediction]
                changed = before is not None and not same(latents, before)
        assert changed or beside is None, f"{label} changes nothing"


@pytest.mark.turns
@pytest.mark.parametrize("name", installed())
def test_the_most_steps_are_those_of_diffusers_or_refused(name):
    for steps, spacing in ((999, None), (1000, "trailing"), (1000, None)):
        told = {"spacing": spacing} if SCHEDULERS[name][0] in FIELDS["spacing"] and name != "dpmpp_2s" else {}
        if today((name, steps, spacing)):
            compared(name, steps, "v_prediction", told)
        elif line := refused_to_make(name, steps, told):
            assert re.match(rf"sampler.steps is {steps}, and .*; take \d+, or a sampler other than {name}", line), line


def refused_to_make(name, steps, told):
    try:
        Sampler(name, steps, **told).make(CONFIG)
    except SamplerError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", installed())
def test_a_late_start_is_that_of_diffusers(name):
    warmup = "diffusers" if name in ("pndm", "lms") else "history"
    for prediction, first in (("epsilon", 1), ("v_prediction", 6)):
        theirs, *_ = library(name, 10, prediction, {}, first)
        assert same(ours(name, 10, prediction, {}, first, warmup=warmup), theirs)


@pytest.mark.parametrize("name", installed())
def test_noise_is_that_of_a_seed_whatever_the_batch(name):
    kind = SCHEDULERS[name][0]
    told = {"options": {"s_churn": 30}} if name == "euler" else {"eta": 0.5} if kind in FIELDS["eta"] else {}
    for first in (0,) if name in SLOW else (0, 4):
        both = ours(name, 8, "epsilon", told, first, (7, 3))
        assert torch.equal(both[1:], ours(name, 8, "epsilon", told, first, (3,)))
        assert not torch.equal(both[:1], both[1:])


NEUTRAL = {
    "ddim": {"eta": 0, "spacing": "leading", "options": {"clip_sample": False, "set_alpha_to_one": False}},
    "tcd": {"eta": 0.3},
    "sa_solver": {"eta": 1, "spacing": "linspace", "sigmas": "normal"},
    "lms": {"order": 4, "sigmas": "normal"},
    "dpmpp_2m": {"order": 2, "sigmas": "normal", "zero_snr": False},
    "unipc": {"order": 2, "options": {"disable_corrector": ()}},
    "euler": {"sigmas": "normal", "options": {"s_churn": 0, "s_noise": 1.5, "final_sigmas_type": "zero"}},
    "lcm": {"options": {"original_inference_steps": 50}},
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_is_said_as_it_is_anyway_changes_nothing(name):
    assert torch.equal(ours(name, 8, "epsilon", {}), ours(name, 8, "epsilon", NEUTRAL[name]))


# ── CompVis' discretisation ───────────────────────────────────────────────────────────────────────────────────────


def compvis_ddim(timesteps, eta):
    """DDIMSampler.p_sample_ddim of CompVis' ldm/models/diffusion/ddim.py, written down again for one formula."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0)
    a = alphas[list(timesteps)]
    before = torch.cat([a[1:], alphas[:1]])
    sigmas = eta * ((1 - before) / (1 - a) * (1 - a / before)).sqrt()
    random = generators(SEEDS)
    x = noise((4, 4, 4), random).double()
    for n, t in enumerate(timesteps):
        e = denoiser(x, t)
        x0 = (x - (1 - a[n]).sqrt() * e) / a[n].sqrt()
        drawn = noise((4, 4, 4), random) if eta else 0
        x = before[n].sqrt() * x0 + (1 - before[n] - sigmas[n] ** 2).sqrt() * e + sigmas[n] * drawn
    return x


@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize(("spacing", "steps"), [("uniform", 10), ("quad", 10), ("quad", 50), ([900, 300, 299, 7], 4)])
def test_ddim_over_timesteps_of_ones_own_is_compvis(spacing, steps, eta):
    told = {"spacing": spacing, "eta": eta}
    scheduler = Sampler("ddim", steps, **told).make(CONFIG)
    latents = ours("ddim", steps, "epsilon", told)
    assert same(latents.double(), compvis_ddim(scheduler.timesteps.tolist(), eta))
    if spacing == "uniform":
        assert same(latents, ours("ddim", steps, "epsilon", {"eta": eta}))
    if eta == 0:
        as_euler = {"spacing": spacing, "options": {"final_sigmas_type": "sigma_min"}}
        theirs = ours("euler", steps, "epsilon", as_euler)  # which steps along the same line, at other scales
        begins = moments(scheduler)[0].sigma
        assert (latents - theirs).abs().max() < theirs.abs().max() * 0.2 or begins < 14
    calls = moments(scheduler)
    assert [call.step for call in calls] == list(range(steps)), "a step is its place, not its timestep"
    late = ours("ddim", steps, "v_prediction", told, first=2)
    assert late.isfinite().all()
    assert not same(late, ours("ddim", steps, "v_prediction", told, first=1))


def test_quad_repeats_its_lowest_timesteps_and_solvers_that_divide_refuse_them():
    assert Sampler("ddim", 50, spacing="quad").make(CONFIG).timesteps.tolist() == quad(50)
    assert len(set(quad(50))) == 49
    assert Sampler("dpmpp_2m", 50, spacing="quad").make(CONFIG).timesteps[-1] == 1, "at the end it divides by nothing"
    with pytest.raises(SamplerError, match=r"steps is 4, and two of them have the same noise level, .*; take another"):
        Sampler("dpmpp_2m", 4, spacing=[900, 500, 500, 100]).make(CONFIG)
    assert ours("euler", 4, "epsilon", {"spacing": [900, 500, 500, 100]}).isfinite().all()
    with pytest.raises(SamplerError, match=r"steps is 30, and spacing uniform makes 31 of them; take 25, or"):
        Sampler("ddim", 30, spacing="uniform").make(CONFIG)
    with pytest.raises(SamplerError, match="they go from timestep 1000 to 1 where the model was trained on 999 to 0"):
        Sampler("ddim", 2, spacing=[1000, 1]).make(CONFIG)


# ── the model's own, and what was concluded ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [name for name in installed() if name not in SLOW])
def test_own_is_the_class_and_the_settings_of_the_models_config(name):
    kind, settings = SCHEDULERS[name]
    config = {**CONFIG, **settings, "_class_name": kind}
    theirs = ours(name, 6, "epsilon", {})
    scheduler = Sampler("own", 6).make(config)
    assert type(scheduler).__name__ == kind
    random = generators(SEEDS)
    assert torch.equal(sample(denoiser, noise((4, 4, 4), random), scheduler, random).latents, theirs)
    assert Sampler("own").notes(config) == [f"sampler=own is the model's {kind}"]


def test_own_keeps_what_a_name_would_set_and_takes_settings():
    config = {**CONFIG, "_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}
    made = Sampler("own", 5, sigmas="karras", order=3, options={"solver_type": "heun"}).make(config).config
    assert (made.algorithm_type, made.use_karras_sigmas, made.solver_order) == ("sde-dpmsolver++", True, 3)
    assert made.solver_type == "heun"
    assert type(Sampler("own", 5).make({**CONFIG, "_class_name": "DDIMParallelScheduler"})).__name__ == "DDIMScheduler"


SOLVERS = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler")


@pytest.mark.parametrize("own", SOLVERS)
def test_how_another_solver_is_set_says_nothing_of_this_one(own):
    """diffusers raises where it makes SA-Solver of the config of a DPM++: both call something algorithm_type."""
    default = {key: value for key, value in getattr(diffusers, own)().config.items() if key[0] != "_"}
    config = {**CONFIG, **default, **NOISE, "_class_name": own}
    for name in ("dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2s", "unipc", "deis", "sa_solver"):
        latents = []
        for settings in (config, CONFIG):
            scheduler, random = Sampler(name, 5).make({**settings, "prediction_type": "epsilon"}), generators(SEEDS)
            latents.append(sample(denoiser, noise((4, 4, 4), random), scheduler, random).latents)
        assert torch.equal(*latents), name


NOTES = [
    ("ddim", {}, []),
    ("euler", {"_class_name": "EulerDiscreteScheduler", "clip_sample": None}, []),
    (
        "ddim",
        {"_class_name": "EulerDiscreteScheduler", "clip_sample": None},
        ["the scheduler config does not say clip_sample, and its class EulerDiscreteScheduler never clips: nor does "],
    ),
    (
        "euler",
        {"_class_name": "PNDMScheduler", "beta_end": None},
        ["the scheduler config leaves out what its class PNDMScheduler has: beta_end 0.02"],
    ),
    (
        "euler",
        {"_class_name": None, "beta_end": None, "beta_start": None, "beta_schedule": None},
        [
            "the scheduler config leaves out what Stable Diffusion has: beta_schedule scaled_linear, beta_start "
            "0.00085, beta_end 0.012"
        ],
    ),
    (
        "ddim",
        {"use_karras_sigmas": True},
        [
            "the scheduler config asks for use_karras_sigmas, which ddim does not have: its noise levels are those of "
            "its timesteps"
        ],
    ),
]


@pytest.mark.parametrize(("name", "changed", "notes"), NOTES)
def test_what_is_concluded_is_said(name, changed, notes):
    config = {key: value for key, value in {**CONFIG, **changed}.items() if value is not None}
    said = Sampler(name).notes(config)
    assert len(said) == len(notes)
    assert all(a.startswith(b) for a, b in zip(said, notes, strict=True))
    made = Sampler(name, 5).make(config)
    assert not made.config.get("clip_sample")
    if "_class_name" not in config:
        assert (made.config.beta_schedule, made.config.beta_end) == ("scaled_linear", 0.012)


def test_zero_snr_begins_where_there_is_no_picture():
    made = Sampler("ddim", 5, zero_snr=True).make({**CONFIG, "prediction_type": "v_prediction"})
    assert made.timesteps[0] == 999
    assert moments(made)[0].sigma == pytest.approx(4096, rel=1e-3)
    assert Sampler("ddim", zero_snr=True).notes(CONFIG) == [
        "sampler.zero_snr: timesteps are trailing, so that the first holds no picture"
    ]


WRONG = [
    (
        {"scheduler": "euler", "eta": 0.5},
        r"sampler.eta is 0.5, and the scheduler euler has no .*; ddim, sa_solver, tcd have",
    ),
    ({"eta": 2}, "sampler.eta is 2; it has to be a number from 0 to 1"),
    ({"sigmas": "karras"}, r"sampler.sigmas is 'karras', and the scheduler ddim has no such setting; lms, euler"),
    ({"scheduler": "euler", "sigmas": "lu"}, "sampler.sigmas of euler is 'lu'; choose one of normal, karras"),
    ({"spacing": "wild"}, "sampler.spacing of ddim is 'wild'; choose one of leading, trailing, linspace, uniform"),
    ({"scheduler": "unipc", "spacing": "quad"}, "scheduler unipc takes no timesteps of one's own; ddim, ddpm"),
    ({"scheduler": "lcm", "spacing": "leading"}, "sampler.spacing is 'leading', and the scheduler lcm has no such"),
    (
        {"scheduler": "dpmpp_2s", "spacing": "leading"},
        "sampler.spacing of dpmpp_2s is 'leading'; choose one of uniform",
    ),
    ({"spacing": [999, 1]}, "sampler.spacing lists 2 timesteps, and sampler.steps is 25"),
    ({"spacing": [1, 999], "steps": 2}, "timesteps have to fall"),
    ({"spacing": 3}, "sampler.spacing is 3; it has to be one of leading"),
    ({"scheduler": "euler", "spacing": "quad", "sigmas": "beta"}, "sampler.sigmas is beta: each says where steps are"),
    ({"scheduler": "lms", "zero_snr": True}, "sampler.zero_snr is True, and the scheduler lms has no such"),
    ({"zero_snr": 1}, "sampler.zero_snr is 1; it has to be true or false"),
    ({"order": 2}, "sampler.order is 2, and the scheduler ddim has no such"),
    ({"scheduler": "unipc", "order": 4}, "sampler.order of unipc is 4; it has to be a whole number from 1 to 3"),
    ({"options": 3}, "sampler.options is 3; it has to be names with values"),
    (
        {"options": {"s_churn": 1}},
        r"options has s_churn, which the scheduler ddim does not take \(it is of euler\); it takes",
    ),
    ({"options": {"nope": 1}}, r"does not take \(no scheduler has it\)"),
    ({"options": {"use_karras_sigmas": True}}, r"\(sampler.sigmas says it\)"),
    ({"options": {"num_train_timesteps": 10}}, "it is the model's"),
    ({"options": {"clip_sample": 1}}, "sampler.options.clip_sample is 1; it has to be true or false"),
    ({"options": {"beta_start": 2}}, "sampler.options.beta_start is 2; it has to be a number between 0 and 1"),
    ({"scheduler": "unipc", "options": {"solver_type": "heun"}}, "solver_type is 'heun'; choose one of bh1, bh2"),
    ({"scheduler": "unipc", "options": {"disable_corrector": 1}}, "has to be a list of steps"),
]


@pytest.mark.parametrize(("told", "said"), WRONG)
def test_what_a_scheduler_does_not_have_is_one_line(told, said):
    with pytest.raises(SamplerError, match=said) as caught:
        Sampler(**told)
    assert "\n" not in str(caught.value)


OWNS = [
    (
        {"_class_name": "EDMEulerScheduler"},
        {},
        "sampler=own is a EDMEulerScheduler, which does not fit: its noise levels",
    ),
    ({"_class_name": "IPNDMScheduler"}, {}, "does not fit: its noise levels are a sine"),
    ({"_class_name": None}, {}, r"the model's scheduler config names no scheduler \(None\); choose one of ddim"),
    ({"_class_name": "PNDMScheduler"}, {}, "sampler=pndm leaves them out"),
    ({}, {"sigmas": "karras"}, r"the scheduler own \(DDIMScheduler\) has no such setting"),
    ({}, {"options": {"s_churn": 1}}, r"the scheduler own \(DDIMScheduler\) does not take"),
]


@pytest.mark.parametrize(("config", "told", "said"), OWNS)
def test_an_own_that_does_not_fit_is_one_line(config, told, said):
    with pytest.raises(SamplerError, match=said) as caught:
        rehearsed(Sampler("own", 5, **told), {**CONFIG, **config})
    assert "\n" not in str(caught.value)


def test_settings_are_compared_by_value_and_checked_before_torch():
    a, b = (
        Sampler("euler", options={"s_noise": 1.1, "s_churn": 3}),
        Sampler("euler", options=[["s_churn", 3], ["s_noise", 1.1]]),
    )
    assert a == b
    assert hash(a) == hash(b)
    assert a != Sampler("euler", options={"s_churn": 3})
    assert dataclasses.replace(a, steps=3).options == a.options
    with pytest.raises(SamplerError, match="sampler.options has wild"):
        check_settings("embedlab.Sampler", {"scheduler": "euler", "options": {"wild": 1}})


# ── the tables ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_scheduler_of_diffusers_fits_or_has_its_reason():
    there = {name for name in dir(diffusers) if name.endswith("Scheduler") and not name.startswith("Flax")}
    assert {*KINDS, *UNFIT, *SAME} >= there - {"KarrasDiffusionSchedulers"}
    assert not set(KINDS) & set(UNFIT)
    assert set(OPTIONS) == set(KINDS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NEEDS])
def test_the_options_are_those_of_the_class(kind):
    made = inspect.signature(getattr(diffusers, kind)).parameters
    fields = {key for field, keys in KEYS.items() if kind in FIELDS[field] for key in keys if key in made}
    left = set(made) - set(OPTIONS[kind]) - fields
    assert left <= {*NEVER, *WITHOUT_EFFECT.get(kind, ())}, "each has a field, an option or a reason"
    assert set(OPTIONS[kind]) <= set(made)
    stepped = inspect.signature(getattr(diffusers, kind).step).parameters
    own = {"self", "model_output", "timestep", "sample", "generator", "return_dict", "variance_noise", "eta", "order"}
    assert set(IN_STEP.get(kind, ())) == set(stepped) - own
    for field, words in {"zero_snr": "rescale_betas_zero_snr", "sigmas": "use_karras_sigmas"}.items():
        assert (kind in FIELDS[field]) == (words in made)
    assert (kind in FIELDS["eta"]) == ("eta" in stepped or "tau_func" in made)
    assert (kind in FIELDS["order"]) == ("solver_order" in made or "order" in stepped)
    assert hasattr(getattr(diffusers, kind), "add_noise"), "a start from a picture"
    assert COMPVIS == ("uniform", "quad")


def test_the_page_tells_the_same():
    page = (Path(__file__).parent.parent / "docs" / "schedulers.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:2] == "| "]
    told = {row[0]: row[1:] for row in rows}
    for name, (kind, _) in SCHEDULERS.items():
        fields = " ".join(field for field in FIELDS if kind in FIELDS[field])
        assert told[name] == [kind, SAMPLERS[name], fields, " ".join(sorted(options_of(kind)))]
    for why in UNFIT.values():
        assert told[why] == [", ".join(kind for kind, reason in UNFIT.items() if reason == why)]
    assert all(told[option] == [why] for option, why in NEVER.items())


# ── the whole way, with a model ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.turns
@pytest.mark.parametrize("name", [name for name in installed() if name not in ("ddim", "pndm", "lms", "euler", "heun")])
@pytest.mark.parity(
    "diffusers",
    "each scheduler, guided",
    "sampler=…",
    "live",
    differs="ddpm clips nothing where a config does not say that it does",
)
def test_pictures_are_those_of_diffusers_pipeline(sd1, pipeline_sd1, name):
    kind, settings = SCHEDULERS[name]
    settings = {**settings, "clip_sample": False} if name == "ddpm" else settings
    pipeline_sd1.scheduler = getattr(diffusers, kind).from_config(pipeline_sd1.scheduler.config, **settings)
    scale = 1.5 if name in ("lcm", "tcd") else 4.0
    more = {"eta": 0.3} if name == "tcd" else {}
    (made,) = render(sd1, [Cell("a puppy", sampler=Sampler(name, 4), guidance=Guidance(scale))], SEEDS)
    random = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    told = {"num_inference_steps": 4, "guidance_scale": scale, "generator": random, "output_type": "latent", **more}
    theirs = pipeline_sd1(["a puppy"] * len(SEEDS), **told).images
    size = theirs.abs().max()
    close(made.latents / size, theirs / size)
