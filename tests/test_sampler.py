import json
import re
import shutil
from itertools import pairwise

import diffusers
import pytest
import torch
from conftest import open_pipeline
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image
from tiny import NOISE

from embedlab import Cell, Guidance, Job, Sampler, Source, Start, embed_all, encode, render, rendering
from embedlab.condition import condition_calls
from embedlab.errors import PictureError, SamplerError
from embedlab.guidance import guided, stack
from embedlab.limits import check_seeds
from embedlab.models import load
from embedlab.sampler import (
    check_size,
    generators,
    moments,
    noise,
    noise_of,
    predicted_x0,
    rehearsed,
    sample,
)
from embedlab.samples import Request
from embedlab.scheduler_options import SCHEDULERS, installed
from embedlab.sweep.explained import explained
from embedlab.validate import validate

LIBRARY = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),  # by default theirs clips, with a config that does not say
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "heun": ("HeunDiscreteScheduler", {}),
}


def library_latents(pipeline, cell: Cell, towers, seeds, **more):
    """Final latents of diffusers' own pipeline, given our conditionings."""
    name, settings = LIBRARY[cell.sampler.scheduler]
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config, **settings)
    told, plain = encode([embed_all(cell.prompt, towers), embed_all(cell.guidance.negative or "", towers)], towers)
    n = len(seeds)
    inputs = {"prompt_embeds": told.hidden.expand(n, -1, -1), "negative_prompt_embeds": plain.hidden.expand(n, -1, -1)}
    if len(towers) > 1:
        inputs |= {
            "pooled_prompt_embeds": told.pooled.expand(n, -1),
            "negative_pooled_prompt_embeds": plain.pooled.expand(n, -1),
        }
    return pipeline(
        **inputs,
        num_inference_steps=cell.sampler.steps,
        guidance_scale=cell.guidance.scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="latent",
        **more,
    ).images


@pytest.mark.turns
@pytest.mark.parametrize("scale", [1.0, 5.0], ids=["unguided", "guided"])
@pytest.mark.parametrize("scheduler", LIBRARY)
def test_final_latents_are_those_of_the_pipeline(model, pipeline, scheduler, scale):
    cell = Cell("a puppy", sampler=Sampler(scheduler, 7), guidance=Guidance(scale, negative="a cat"))
    seeds = (3, 4)
    ours = render(model, [cell], seeds)[0].latents
    own = library_latents(pipeline, cell, model.towers, seeds)
    torch.testing.assert_close(ours, own, atol=1e-5, rtol=1e-5)


@pytest.mark.turns
@pytest.mark.parametrize(
    ("scheduler", "warmup"),
    [
        *((name, "history") for name in ("ddim", "euler", "dpmpp_2m", "heun")),
        ("pndm", "diffusers"),
        ("lms", "diffusers"),
    ],
)
def test_image_to_image_is_that_of_the_pipeline(folders, sd1, tmp_path, scheduler, warmup):
    """Multistep samplers that take their order from the place in the schedule do so only where that is asked for."""
    own = StableDiffusionImg2ImgPipeline(**open_pipeline(folders["sd1"]).components, requires_safety_checker=False)
    own.set_progress_bar_config(disable=True)
    file = tmp_path / "in.png"
    Image.effect_noise((16, 16), 90).convert("RGB").save(file)
    cell = Cell(
        "a puppy",
        sampler=Sampler(scheduler, 10),
        start=Start(str(file), strength=0.6, warmup=warmup),
        guidance=Guidance(5.0, ""),
    )
    ours = render(sd1, [cell], (7, 8))[0].latents
    theirs = library_latents(own, cell, sd1.towers, (7, 8), image=Image.open(file), strength=0.6)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_strength_and_step_name_the_same_start(tmp_path):
    file = tmp_path / "in.png"
    Image.new("RGB", (16, 16)).save(file)
    assert Start(str(file), strength=0.6).first(10) == Start(str(file), step=4).first(10) == 4
    assert Start(str(file), strength=1.0).first(10) == 0


@pytest.mark.turns
@pytest.mark.parametrize("scheduler", installed())
def test_a_picture_depends_on_its_seed_not_on_its_batch(sd1, scheduler):
    # a first step that keeps its x0 alone is rounded 14-fold
    scales = (1.2, 1.5) if scheduler in ("lcm", "tcd") else (1.5, 4.0)
    cells = [
        Cell("a puppy", sampler=Sampler(scheduler, 6), guidance=Guidance(scale, negative))
        for scale in scales
        for negative in (None, "cat " * 90)
    ]
    together = render(sd1, cells, (0, 1, 2), at_once=5)
    for cell, many in zip(cells, together, strict=True):
        alone = render(sd1, [cell], (1,))[0]
        torch.testing.assert_close(many.latents[1], alone.latents[0], atol=1e-4, rtol=0)


def test_noise_is_the_pipelines():
    ours = noise((4, 8, 8), generators([5, 6]))
    assert torch.equal(ours[1], torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(6))[0])


def test_a_negative_of_another_length_is_masked_not_padded(sd1):
    told, plain = encode([embed_all("a cat", sd1.towers), embed_all("puppy " * 100, sd1.towers)], sd1.towers)
    x, t = torch.randn(1, 4, 8, 8), torch.tensor(500)
    ours = guided(sd1.unet, [told], [plain], [3.0])(x, t)
    apart = [sd1.unet(x, t, c.hidden[None]).sample for c in (plain, told)]
    torch.testing.assert_close(ours, apart[0] + 3.0 * (apart[1] - apart[0]), atol=1e-5, rtol=1e-5)
    hidden, mask = stack([told, plain])
    assert hidden.shape == (2, 154, 16)
    assert mask.sum(dim=1).tolist() == [77, 154]


def test_both_halves_share_a_call_and_scale_one_needs_only_one(sd1):
    calls = []
    handle = sd1.unet.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    try:
        render(sd1, [Cell("a puppy", sampler=Sampler("ddim", 3))], (0, 1))
        assert calls == [4, 4, 4]
        calls.clear()
        render(sd1, [Cell("a puppy", sampler=Sampler("ddim", 3), guidance=Guidance(1.0))], (0, 1))
        assert calls == [2, 2, 2]
    finally:
        handle.remove()


@pytest.mark.parametrize("scheduler", installed())
def test_kept_steps_end_at_the_final_latents(sd1, scheduler):
    made = render(sd1, [Cell("a cat", sampler=Sampler(scheduler, 5, keep=(0, 2, 4)))], (0,))[0]
    assert [step.step for step in made.steps] == [0, 2, 4]
    assert not torch.equal(made.steps[0].x0, made.steps[1].x0)
    if scheduler != "pndm":  # its first step is run twice, so that its calls are one more than its steps
        torch.testing.assert_close(made.steps[-1].latents, made.pictures, atol=1e-5, rtol=1e-5)


def test_predicted_x0_at_no_noise_is_the_picture(sd1):
    """Where the library does not tell x0, ours is its own formula: DDIM's, here asked of both."""
    scheduler = Sampler("ddim", 5).make(sd1.scheduler | {"clip_sample": False})
    x, seen, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), scheduler.timesteps[2]
    sigma = moments(scheduler)[2].sigma
    mine = predicted_x0(scheduler.config.prediction_type, seen, x, sigma)
    torch.testing.assert_close(mine, scheduler.step(seen, t, x).pred_original_sample)


# ── noise levels ──────────────────────────────────────────────────────────────────────────────────────────────────

LEVELS = {
    "leading": {"timestep_spacing": "leading"},
    "linspace": {"timestep_spacing": "linspace"},
    "trailing": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "lu": {"use_lu_lambdas": True},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "cosine karras": {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True},
}


def config_of(**more):
    return {"_class_name": "PNDMScheduler", "num_train_timesteps": 1000, "prediction_type": "epsilon", **NOISE, **more}


@pytest.mark.turns
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("scheduler", installed())
def test_a_step_is_a_noise_level_whatever_the_spacing_rounds_timesteps_to(scheduler, levels):
    for steps in (1, 2, 20, 50):
        sampler = Sampler(scheduler, steps, keep=(0, steps - 1))
        if steps == 1 and scheduler in ("deis", "sa_solver") and any("sigmas" in key for key in LEVELS[levels]):
            said = refusal(lambda: sampler.make(config_of(**LEVELS[levels])))  # noqa: B023
            assert said == "sampler.steps is 1, and they end with the noise that they begin with; take another sampler."
            continue
        if steps == 2 and scheduler == "dpm_2_ancestral" and "cosine" in levels:  # of levels 20,000 and 0.006
            with pytest.raises(SamplerError, match="2 steps of the sampler dpm_2_ancestral end in NaN"):
                rehearsed(sampler, config_of(**LEVELS[levels]))
            continue
        calls = rehearsed(sampler, config_of(**LEVELS[levels]))
        often = [[call.step for call in calls].count(step) for step in range(steps)]
        between = range(steps - 1)
        twice = {"heun": range(1, steps), "pndm": range(1, 2), "dpm_2": between, "dpm_2_ancestral": between}
        twice = twice.get(scheduler, ())
        assert often == [2 if step in twice else 1 for step in range(steps)]
        assert [call.call for call in calls] == list(range(len(calls)))
        assert {call.steps for call in calls} == {steps}
        falling = list({call.step: call.sigma for call in reversed(calls)}.values())[::-1]
        assert all(a > b > 0 for a, b in pairwise(falling))
        kept = sample(
            lambda x, t: 0 * x, torch.ones(1, 4, 1, 1), sampler.make(config_of(**LEVELS[levels])), keep=sampler.keep
        ).kept
        assert [one.step for one in kept] == sorted({0, steps - 1})


def refusal(make):
    """The line with which something is refused, or nothing."""
    try:
        make()
    except SamplerError as error:
        return str(error)
    return ""


@pytest.mark.turns
@pytest.mark.parametrize("levels", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("scheduler", installed())
def test_very_many_steps_are_made_or_refused_with_a_number_that_is_not(scheduler, levels):
    config = config_of(**LEVELS[levels])
    # trailing ends at timestep -1 in diffusers, one step too late, for 61, 103 and 58 other numbers
    for steps in (61, 103, 466, 500, 998, 999, 1000):
        if said := refusal(lambda: Sampler(scheduler, steps).make(config)):  # noqa: B023
            line = f"sampler.steps is {steps}, and .*; take (99[89]|50), or a sampler other than {scheduler}."
            steps = int(re.fullmatch(line, said)[1])  # noqa: PLW2901
        calls = moments(Sampler(scheduler, steps).make(config))
        assert calls[-1].step == steps - 1
        assert all(0 <= call.timestep <= 999 for call in calls)


@pytest.mark.turns
def test_every_number_of_steps_of_the_shipped_model_is_so_many(emoji):
    for steps in range(1, 1001):
        scheduler = Sampler("ddim", steps).make(emoji.scheduler)
        assert len(scheduler.timesteps) == steps
        assert 0 <= scheduler.timesteps[-1] < scheduler.timesteps[0] + (steps == 1) == 999 + (steps == 1)


def test_noise_where_the_model_expects_a_picture_is_said(folders, tmp_path):
    for scheduler, steps, said in [("ddim", 1, 1), ("ddim", 334, 667), ("euler", 600, 600), ("dpmpp_2m", 1, 501)]:
        sampler = Sampler(scheduler, steps)
        begins = f"with {steps} steps this sampler begins at timestep {said} of 1000, where the model expects a picture"
        assert noise_of(rehearsed(sampler, config_of(**LEVELS["leading"])), Start()).startswith(begins)
        assert noise_of(rehearsed(sampler, config_of(timestep_spacing="trailing")), Start()) is None
        start = Start("puppy.png", step=0)
        assert noise_of(rehearsed(sampler, config_of(), start), start) is None
    assert all(
        noise_of(rehearsed(Sampler(one, 25), config_of(**LEVELS["leading"])), Start()) is None for one in installed()
    )
    job = Job(Source(str(folders["sd1"])), Cell("a puppy", sampler=Sampler("ddim", 1)), (0,), tmp_path)
    assert "begins at timestep 1 of 1000" in job.notes[-1]
    assert explained(job).endswith(f"\nnotice: {job.notes[-1]}.")


def test_a_scheduler_that_cannot_do_what_the_model_needs_is_refused_before_weights(folders, tmp_path):
    for changed, scheduler, said in [
        (
            {"prediction_type": "sample"},
            "pndm",
            "the sampler pndm cannot run 5 steps .*prediction_type given as sample",
        ),
        ({"prediction_type": "sample"}, "euler_ancestral", "cannot run 5 steps .*not implemented yet: sample"),
        (
            {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
            "ddim",
            "end in NaN or infinite numbers with",
        ),
        (
            {"rescale_betas_zero_snr": True},
            "lms",
            "which a LMSDiscreteScheduler does not know; choose one of ddim, ddpm",
        ),
        ({"rescale_betas_zero_snr": True}, "pndm", "which a PNDMScheduler does not know"),
        ({"rescale_betas_zero_snr": True}, "heun", "which a HeunDiscreteScheduler does not know"),
        (
            {"num_train_timesteps": 4},
            "ddim",
            "does not make a DDIMScheduler: `num_inference_steps`: 5 cannot be larger",
        ),
        ({"beta_schedule": "wild"}, "heun", "does not make a HeunDiscreteScheduler: wild is not implemented"),
        ({"timestep_spacing": "wild"}, "unipc", "does not make a UniPCMultistepScheduler: wild is not supported"),
    ]:
        folder = tmp_path / f"{scheduler}-{len(str(changed))}"
        shutil.copytree(folders["sd1"], folder)
        file = folder / "scheduler" / "scheduler_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
        with pytest.raises(SamplerError, match=said) as caught:
            validate(Cell("a puppy", sampler=Sampler(scheduler, 5)), Source(str(folder)))
        assert "\n" not in str(caught.value)


@pytest.mark.turns
@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "euler", "euler_ancestral", "dpmpp_2m", "unipc"])
def test_zero_terminal_snr_is_drawn_as_the_pipeline_draws_it(folders, tmp_path, scheduler):
    folder = tmp_path / "sd2"
    shutil.copytree(folders["sd2"], folder)
    file = folder / "scheduler" / "scheduler_config.json"
    changed = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "clip_sample": False}
    config = {**json.loads(file.read_text()), **changed}
    file.write_text(json.dumps(config))
    model, pipeline = load(str(folder), device="cpu"), open_pipeline(folder)
    name, settings = SCHEDULERS[scheduler]
    pipeline.scheduler = getattr(diffusers, name).from_config(config, **settings)
    cell = Cell("a puppy", sampler=Sampler(scheduler, 5, keep=(0,)), guidance=Guidance(4.0))
    (ours,) = render(model, [cell], [3])
    seeded = [torch.Generator().manual_seed(3)]
    own = pipeline("a puppy", num_inference_steps=5, guidance_scale=4.0, generator=seeded, output_type="latent").images
    torch.testing.assert_close(ours.latents, own, atol=1e-4, rtol=1e-4)
    assert torch.isfinite(ours.steps[0].x0).all()
    assert moments(cell.sampler.make(config))[0].sigma == pytest.approx(4096, rel=1e-3)


@pytest.mark.parametrize(
    "own", ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler", "PNDMScheduler"]
)
@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "heun"])
def test_a_config_that_says_nothing_of_clipping_makes_no_sampler_that_clips(own, scheduler):
    config = {key: value for key, value in config_of(_class_name=own).items() if key != "clip_sample"}
    assert not Sampler(scheduler, 5).make(config).config.clip_sample
    assert not Sampler(scheduler, 5).make({**config, "_class_name": "no such class"}).config.clip_sample
    assert Sampler(scheduler, 5).make({**config, "clip_sample": True}).config.clip_sample
    assert Sampler(scheduler, 5).make({**config, "_class_name": "DDIMScheduler"}).config.clip_sample, "its own default"
    made = Sampler("ddim", 4).make(config)
    far = sample(lambda x, t: 0 * x, torch.full((1, 4, 1, 1), 3.0), made).latents
    assert far.abs().max() > 3, "no noise was seen, so that all of it is picture"


def test_noise_levels_that_a_config_leaves_out_are_those_of_its_own_class():
    betas = Sampler("ddim", 5).make({"_class_name": "HeunDiscreteScheduler"}).betas
    assert (betas[0].item(), betas[-1].item()) == (pytest.approx(0.00085), pytest.approx(0.012))


# ── from a picture ────────────────────────────────────────────────────────────────────────────────────────────────


def from_a_picture(scheduler, first, warmup="history"):
    """What is left of a start at step `first` of 20: normal numbers about 1 with a spread of 0.3, seen exactly."""
    made = Sampler(scheduler, 20).make(config_of())
    calls = iter(moments(made, first, warmup))

    def denoise(x, t):
        a = 1 / (1 + next(calls).sigma ** 2)
        return (1 - a) ** 0.5 * (x - a**0.5) / (a * 0.09 + 1 - a)

    random = torch.Generator().manual_seed(0)
    noise, spread = torch.randn(2, 1, 4, 16, 16, generator=random)
    return sample(denoise, noise, made, start=1 + 0.3 * spread, first=first, warmup=warmup).latents


def apart(a, b):
    return float((a - b).square().mean().sqrt())


@pytest.mark.parametrize("scheduler", ["lms", "pndm"])
def test_a_multistep_sampler_that_starts_late_starts_as_it_starts(scheduler):
    for first in range(20):
        late = from_a_picture(scheduler, first)
        assert apart(late, from_a_picture("euler", first)) < 0.06, first
        assert late.std().item() == pytest.approx(0.3, abs=0.05), first
    whole, theirs = (from_a_picture(scheduler, 0, warmup) for warmup in ("history", "diffusers"))
    assert torch.equal(whole, theirs)


def test_what_diffusers_leaves_of_a_late_start():
    """The order of the place in the schedule, with a history that was never run: what `history` is for."""
    assert apart(from_a_picture("lms", 17, "diffusers"), from_a_picture("euler", 17)) > 0.5
    assert apart(from_a_picture("pndm", 19, "diffusers"), from_a_picture("euler", 19)) > 0.15


def test_a_late_start_of_pndm_repeats_its_own_second_step():
    made = Sampler("pndm", 5).make(config_of())
    assert [(m.call, m.step) for m in moments(made)] == [(0, 0), (1, 1), (2, 1), (3, 2), (4, 3), (5, 4)]
    assert [(m.call, m.step) for m in moments(made, 2)] == [(2, 2), (3, 3), (4, 3), (5, 4)]
    assert [(m.call, m.step) for m in moments(made, 4)] == [(4, 4)]
    assert [(m.call, m.step) for m in moments(made, 2, "diffusers")] == [(2, 1), (3, 2), (4, 3), (5, 4)]
    times = [m.timestep for m in moments(made)]
    assert [m.timestep for m in moments(made, 2)] == [times[3], times[4], times[4], times[5]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Start("puppy.png", step=1, warmup="none"), "start.warmup is 'none'; choose one of history, diffusers"),
        (lambda: Start(warmup="diffusers"), "start.warmup need a picture"),
        (lambda: Sampler("dimm"), r"sampler.scheduler is 'dimm'; choose one of ddim, .*lms"),
        (lambda: Sampler(steps=0), r"sampler.steps is 0; it has to be a whole number from 1"),
        (lambda: Sampler(steps=-3), "steps is -3"),
        (lambda: Sampler(steps=2.5), "steps is 2.5"),
        (lambda: Sampler(steps=5, keep=[5]), "keep names step 5; there are steps 0 to 4"),
        (lambda: Guidance(float("nan")), "guidance.scale is nan; it has to be a finite number"),
        (lambda: Guidance("four"), "guidance.scale is 'four'"),
        (lambda: Guidance(0.5), "guidance.scale is 0.5; 1 is the prompt alone"),
        (lambda: Start(step=3), "need a picture"),
        (lambda: Start("/nowhere.png", step=3), "there is no picture '/nowhere.png'"),
        (lambda: Start(__file__, step=3), "is not a picture that can be read"),
        (lambda: check_size(100, 128, 8, 3), "a size of 100 is no multiple of the VAE factor 8; try 96"),
        (lambda: check_size(0, 128, 8, 3), "a size of 0 is not between 1 and 8192 pixels"),
        (lambda: check_size(8, 128, 8, 3), "has to be 32 or more"),
        (lambda: check_seeds([]), r"seeds is \[\]"),
        (lambda: check_seeds([-1]), "seed -1 is no whole number from 0"),
        (lambda: check_seeds(["a"]), "seed 'a' is no whole number"),
    ],
)
def test_bad_settings_are_one_clear_line(make, message):
    with pytest.raises((SamplerError, PictureError), match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_strength_that_is_advised_is_taken():
    for steps in range(1, 1001):
        said = refusal(lambda: Start("puppy.png", strength=1e-4).first(steps))  # noqa: B023
        advised = float(re.search("none would be run; take ([0-9.]+) or more", said)[1])
        assert Start("puppy.png", strength=advised).first(steps) == steps - 1
        assert advised < 1.05 / steps
    for scheduler in installed():
        for steps in (1, 2, 3, 7, 22, 58):
            if steps > 50 and scheduler in ("lcm", "tcd"):
                continue
            strength = -(-1000 // steps) / 1000
            (*_, last) = rehearsed(Sampler(scheduler, steps), config_of(), Start("puppy.png", strength=strength))
            assert last.step == steps - 1


def test_a_start_past_the_end_is_refused(tmp_path):
    file = tmp_path / "in.png"
    Image.new("RGB", (16, 16)).save(file)
    with pytest.raises(SamplerError, match="start.step is 10, past the end: with 10 steps it is 9 at the most"):
        Start(str(file), step=10).first(10)


def test_latents_with_nan_are_reported_and_spoil_no_neighbour(sd1):
    cell, at_once = Cell("a puppy", sampler=Sampler("ddim", 2)), 4
    (good,) = rendering.render(sd1, [cell], [0, 1, 2], at_once)
    (calls,) = condition_calls(sd1, [cell])
    spoilt = torch.tensor([1.0, float("nan"), 1.0] * 2).view(6, 1, 1, 1)  # seed 1 of both halves of guidance
    handle = sd1.unet.register_forward_hook(lambda unet, given, predicted: (predicted[0] * spoilt,))
    try:
        broken = r"the latents of seed 1 hold NaN or infinite numbers from step 0 on \(as written\)"
        with pytest.raises(SamplerError, match=broken):
            rendering.render(sd1, [cell], [0, 1, 2], at_once)
        samples = rendering.sample_batch(sd1, [Request(calls, seed) for seed in (0, 1, 2)])
    finally:
        handle.remove()
    assert [(one.finite, one.broke) for one in samples] == [(True, None), (False, 0), (True, None)]
    assert torch.equal(samples[2].latents, good.latents[2])
