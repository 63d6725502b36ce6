"""Guiders: diffusers' own objects, called in a loop, make the same latents as ours in a batch."""

import copy
import dataclasses
import inspect
import math

import diffusers
import pytest
import torch
from conftest import open_pipeline
from diffusers import LayerSkipConfig, StableDiffusionPAGPipeline, guiders
from diffusers.pipelines.deprecated.semantic_stable_diffusion import SemanticStableDiffusionPipeline
from parity import close

from embedlab import Attention, Cell, Guidance, Ramp, Sampler, Start, Switch, embed_all, encode, render
from embedlab.cell import denoiser_calls
from embedlab.errors import ConfigError, SamplerError
from embedlab.guidance import left_out
from embedlab.guidance.guiders import Blur, guider_of, pyramid, worse
from embedlab.limits import GUIDERS
from embedlab.models import Source
from embedlab.rendering import batch_key
from embedlab.sampler import generators, noise
from embedlab.validate import validate

STEPS = 5
PLAIN = {  # settings for which nothing has to be looked for in the UNet
    "cfg": {"use_original_formulation": True},
    "cfg_zero_star": {"zero_init_steps": 1},
    "apg": {"eta": 0.3, "adaptive_projected_guidance_momentum": -0.5, "adaptive_projected_guidance_rescale": 2.0},
    "apg_mix": {"adaptive_projected_guidance_start_step": 2},
    "mambo_g": {"alpha": 1.0},
    "tcfg": {},
}
MIDDLE = "mid_block.attentions.0.transformer_blocks"
ALWAYS = {
    "auto": {},
    "pag": {"perturbed_guidance_start": 0.0, "perturbed_guidance_stop": 1.0},
    "slg": {"skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 0.9},
    "seg": {"seg_blur_sigma": 1.0},
}
HOOKED = {  # what diffusers' own need for one block of a UNet
    "auto": {"auto_guidance_config": LayerSkipConfig([0], MIDDLE)},
    "pag": {
        "perturbed_guidance_config": LayerSkipConfig(
            [0], MIDDLE, skip_attention=False, skip_attention_scores=True, skip_ff=False
        )
    },
    "slg": {"skip_layer_config": LayerSkipConfig([0], MIDDLE)},
}


@pytest.fixture(scope="module")
def exact(model):
    """The model with its UNet in double: guidance by 5 makes the rounding of another batch larger than 1e-5."""
    return dataclasses.replace(model, unet=copy.deepcopy(model.unet).double())


def cell_of(guidance, scheduler="ddim", **more):
    return Cell("a puppy", guidance=guidance, sampler=Sampler(scheduler, STEPS), **more)


def by_hand(model, cell, seed, guider):
    """Final latents of a loop over a guider of diffusers, used as its modular pipelines do: a call a prediction."""
    told, plain = encode([embed_all(cell.prompt, model.towers), embed_all("a cat", model.towers)], model.towers)
    scheduler = cell.sampler.make(model.scheduler)
    side = model.unet.config.sample_size
    x = noise((4, side, side), generators([seed])) * scheduler.init_noise_sigma
    halves = {part: tuple(getattr(c, part).double()[None] for c in (told, plain)) for part in ("hidden", "pooled")}
    pixels = side * model.factor
    for step, t in enumerate(scheduler.timesteps):
        guider.set_state(step, len(scheduler.timesteps), t)
        batches = guider.prepare_inputs(halves)
        for one in batches:
            guider.prepare_models(model.unet)
            more = {"text_embeds": one.pooled, "time_ids": torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]])}
            own = {"added_cond_kwargs": more} if model.size_conditioned else {}
            one.noise_pred = model.unet(scheduler.scale_model_input(x, t).double(), t, one.hidden, **own).sample
            guider.cleanup_models(model.unet)
        if isinstance(guider, guiders.MagnitudeAwareGuidance):  # whose norms torch takes of a flat prediction alone
            shape = batches[0].noise_pred.shape
            for one in batches:
                one.noise_pred = one.noise_pred.flatten(1)
            seen = guider(batches).pred.view(shape)
        else:
            seen = guider(batches).pred
        x = scheduler.step(seen.float(), t, x).prev_sample
    return x


def theirs(guidance, **more):
    settings = {**guidance.settings, **more}
    return getattr(guiders, GUIDERS[guidance.guider][0])(
        guidance_scale=guidance.scale, guidance_rescale=guidance.rescale, **settings
    )


@pytest.mark.parity("diffusers", "guiders of two predictions", "guidance.guider", "live")
@torch.inference_mode()
@pytest.mark.turns
def test_guiders_of_one_batch_make_what_their_own_loops_make(exact):
    guidances = [Guidance(5.0, "a cat", guider=name, settings=settings) for name, settings in PLAIN.items()]
    guidances += [Guidance(7.0, "a cat", rescale=0.7), Guidance(3.0, "a cat", guider="apg", rescale=0.5)]
    rows = []
    handle = exact.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    try:
        made = render(exact, [cell_of(guidance) for guidance in guidances], (3, 4))
    finally:
        handle.remove()
    first = 2 * 2  # in which pictures of a seed still have the same latents
    assert rows == [first, *[2 * 2 * len(guidances)] * (STEPS - 1)], "one call a step for all of them"
    for guidance, one in zip(guidances, made, strict=True):
        for k, seed in enumerate((3, 4)):
            own = by_hand(exact, cell_of(guidance), seed, theirs(guidance))
            close(one.latents[k : k + 1], own, rtol=1e-5)


@pytest.mark.parity(
    *("diffusers", "guiders with hooks, on a UNet", "guidance.guider", "live"),
    differs="blocks are named, over all stacks of a UNet; theirs are numbers in one stack",
)
@torch.inference_mode()
@pytest.mark.parametrize("name", HOOKED)
def test_guiders_with_hooks_make_what_their_own_loops_make(exact, name):
    guidance = Guidance(5.0, "a cat", guider=name, settings=ALWAYS[name])
    others = Guidance(2.0, "a cat", guider="slg" if name == "pag" else "pag", settings={})
    ours = render(exact, [cell_of(guidance), cell_of(others)], (3,))[0].latents
    close(ours, by_hand(exact, cell_of(guidance), 3, theirs(guidance, **HOOKED[name])), rtol=1e-5)
    plain = render(exact, [cell_of(Guidance(5.0, "a cat"))], (3,))[0].latents
    assert not torch.allclose(ours, plain, atol=1e-3)


@pytest.mark.parity("diffusers", "StableDiffusionPAGPipeline", "guidance=pag", "live")
def test_pag_is_that_of_its_pipeline(folders, sd1):
    pipe = open_pipeline(folders["sd1"])
    own = StableDiffusionPAGPipeline(**pipe.components, requires_safety_checker=False, pag_applied_layers="mid")
    own.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    own.set_progress_bar_config(disable=True)
    told, plain = encode([embed_all("a puppy", sd1.towers), embed_all("a cat", sd1.towers)], sd1.towers)
    theirs = own(
        prompt_embeds=told.hidden[None],
        negative_prompt_embeds=plain.hidden[None],
        num_inference_steps=2,
        guidance_scale=5.0,
        pag_scale=3.0,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images
    settings = {"perturbed_guidance_scale": 3.0, **ALWAYS["pag"]}
    cell = Cell("a puppy", guidance=Guidance(5.0, "a cat", guider="pag", settings=settings), sampler=Sampler("ddim", 2))
    ours = render(sd1, [cell], (3,))[0].latents
    assert not torch.allclose(ours, theirs, atol=1e-5), "diffusers' guider begins after the first step"
    with torch.inference_mode():  # a step that both perturb, by the same formula
        x, t = torch.randn(1, 4, 8, 8), torch.tensor(500)
        own.unet.set_attn_processor(dict(own.unet.attn_processors))
        halves = {name: sd1.unet(x, t, c.hidden[None]).sample for name, c in (("cond", told), ("uncond", plain))}
        with worse(sd1.unet, Guidance(5.0, guider="pag")) as unet:
            bad = unet(x, t, told.hidden[None]).sample
        own._set_pag_attn_processor(["mid"], do_classifier_free_guidance=True)
        three = own.unet(x.repeat(3, 1, 1, 1), t, torch.stack([plain.hidden, told.hidden, told.hidden])).sample
    close(torch.cat([halves["uncond"], halves["cond"], bad]), three, rtol=1e-5)


def test_the_table_of_settings_is_what_the_guiders_take():
    own = {"guidance_scale", "guidance_rescale", "start", "stop", "enabled"}
    left_out = {"fdg": {"guidance_rescale_space", "upcast_to_double"}, "auto": {"dropout"}}
    for name, (kind, settings) in GUIDERS.items():
        if name == "sega":
            there = inspect.signature(SemanticStableDiffusionPipeline.__call__).parameters
            assert {one: default for one, (_, default) in settings.items()} == {s: there[s].default for s in settings}
            continue
        there = inspect.signature(getattr(guiders, kind).__init__).parameters
        configs = {one for one in there if one.endswith("_config")}
        taken = set(there) - own - configs - {"self"} - left_out.get(name, set())
        assert set(settings) == taken, name
        for setting, (check, default) in settings.items():
            check(default)
            if not setting.endswith("_layers") and setting != "guidance_scales":
                assert default == there[setting].default, (name, setting)


# ── laws ──────────────────────────────────────────────────────────────────────────────────────────────────────────

NEUTRAL = {
    "apg": {"eta": 1.0, "adaptive_projected_guidance_rescale": 0.0},
    "mambo_g": {"alpha": 0.0},
    "fdg": {},
    "pag": {"perturbed_guidance_scale": 0.0, **ALWAYS["pag"]},
    "slg": {"skip_layer_guidance_scale": 0.0, **ALWAYS["slg"]},
    "seg": {"seg_guidance_scale": 0.0},
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_neutral_guider_is_plain_guidance(sd1, name):
    plain, neutral = (
        render(sd1, [cell_of(one)], (0, 1))[0].latents
        for one in (Guidance(4.0), Guidance(4.0, guider=name, settings=NEUTRAL[name]))
    )
    torch.testing.assert_close(neutral, plain, atol=2e-5, rtol=1e-5)


def test_rescale_and_interval_at_their_neutral_settings_change_no_bit_and_between_they_do(sd1):
    def latents(**more):
        return render(sd1, [cell_of(Guidance(4.0, **more))], (0, 1))[0].latents

    plain = latents()
    assert torch.equal(latents(interval=[0, 1]), plain)
    assert torch.equal(latents(interval=[1000, 0], clock="timestep"), plain)
    alone = render(sd1, [cell_of(Guidance(1.0))], (0, 1))[0].latents
    half = latents(interval=[0.4, 0.8])
    assert not torch.allclose(half, plain, atol=1e-3)
    assert not torch.allclose(half, alone, atol=1e-3)
    assert not torch.allclose(latents(rescale=0.5), plain, atol=1e-3)
    same = {latents(interval=[2, 4], clock="step"), latents(interval=[0.4, 0.8])}
    first, second = same
    assert torch.equal(first, second), "the same interval on two clocks"


def test_outside_the_interval_no_unconditional_row_is_run_for_a_picture(sd1):
    rows = []
    handle = sd1.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    late = Guidance(4.0, interval=[0.4, 1])
    try:
        render(sd1, [cell_of(late)], (0, 1))
        assert rows == [2, 2, 4, 4, 4]
        rows.clear()
        many = render(sd1, [cell_of(late), cell_of(Guidance(4.0)), cell_of(Guidance(4.0, guider="tcfg"))], (0, 1))
        assert rows == [4, 10, 12, 12, 12], "in the first call pictures of a seed have the same latents"
    finally:
        handle.remove()
    alone = render(sd1, [cell_of(late)], (0, 1))[0].latents
    torch.testing.assert_close(many[0].latents, alone, atol=1e-5, rtol=1e-5)


def test_an_interval_by_noise_level_is_that_of_the_paper(sd1):
    """Kynkäänniemi et al. 2024, eq. 5: guidance where the lower bound < σ ≤ the upper one."""
    cell = cell_of(Guidance(4.0, interval=[3.0, 0.5], clock="sigma"))
    calls = denoiser_calls(cell, sd1.scheduler)
    assert [cell.guidance.guides(call) for call in calls] == [0.5 < call.sigma <= 3.0 for call in calls]


def test_momentum_is_a_pictures_own_and_begins_with_its_first_call(sd1, tmp_path):
    settings = {"adaptive_projected_guidance_momentum": 0.9, "eta": 0.0}
    apg = Guidance(4.0, guider="apg", settings=settings)
    cells = [cell_of(apg), cell_of(Guidance(2.0, guider="apg", settings=settings)), cell_of(Guidance(4.0))]
    together = render(sd1, cells, (0, 1))
    for cell, many in zip(cells, together, strict=True):
        alone = render(sd1, [cell], (1,))[0].latents
        torch.testing.assert_close(many.latents[1:], alone, atol=1e-4, rtol=0)
    again = [render(sd1, cells[:1], (0, 1))[0].latents for _ in range(2)]
    assert torch.equal(*again), "nothing is left of the run before"
    none = Guidance(4.0, guider="apg", settings={"eta": 0.0})
    late = [cell_of(one, start=Start("puppy.png", step=2)) for one in (apg, none)]
    assert not torch.allclose(*(one.latents for one in render(sd1, late, (0,))), atol=1e-3), "also of a late start"


def test_a_guider_and_its_settings_change_over_time(sd1):
    ramped = Guidance(Ramp([2.0, 6.0]), guider="apg", settings={"eta": Ramp([0.0, 1.0])})
    turned = Guidance(4.0, guider=Switch(["tcfg", "cfg"], at=0.4))
    early = Guidance(4.0, guider="tcfg")
    made = [one.latents for one in render(sd1, [cell_of(g) for g in (ramped, turned, early, Guidance(4.0))], (0,))]
    assert all(not torch.allclose(made[0], other, atol=1e-3) for other in made[1:])
    assert not torch.allclose(made[1], made[2], atol=1e-4)
    assert not torch.allclose(made[1], made[3], atol=1e-4)


def test_guiders_share_batches_and_leave_the_unet_as_it_was(sd1):
    keys = {batch_key(cell_of(Guidance(4.0, guider=name, settings=ALWAYS.get(name, {}))), sd1) for name in GUIDERS}
    assert len(keys) == 1
    forwards = {name: module.forward for name, module in sd1.unet.named_modules()}
    with pytest.raises(RuntimeError), worse(sd1.unet, Guidance(4.0, guider="slg")):
        raise RuntimeError
    with worse(sd1.unet, Guidance(4.0, guider="seg")):
        assert sd1.unet.get_submodule(f"{MIDDLE}.0.attn1.to_q")._forward_hooks
    render(sd1, [cell_of(Guidance(4.0, guider=name, settings=ALWAYS[name])) for name in ALWAYS], (0,))
    assert not any(module._forward_hooks for module in sd1.unet.modules())
    assert all(module.forward == forwards[name] for name, module in sd1.unet.named_modules())


# ── formulas ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parity(
    *("SEG-SDXL", "blurred queries", "guidance=seg", "formula"),
    differs="diffusers' guider never blurs, and its blur takes the finite and the infinite case for each other",
)
def test_queries_are_blurred_as_the_papers_code_has_it():
    queries, sigma = torch.randn(2, 64, 6, generator=torch.Generator().manual_seed(0)), 1.0
    size = math.ceil(6 * sigma) + 1 - math.ceil(6 * sigma) % 2
    line = torch.exp(-0.5 * (torch.linspace(-(size - 1) / 2, (size - 1) / 2, size) / sigma) ** 2)
    line = line / line.sum()
    square = queries.transpose(1, 2).reshape(2, 6, 8, 8)
    padded = torch.nn.functional.pad(square, (size // 2,) * 4, mode="reflect")
    kernel = torch.outer(line, line).expand(6, 1, size, size)
    wanted = torch.nn.functional.conv2d(padded, kernel, groups=6).flatten(2).transpose(1, 2)
    close(Blur(sigma, 9999.0)(None, None, queries.clone()), wanted)
    close(Blur(1e5, 9999.0)(None, None, queries), queries.mean(1, keepdim=True).expand_as(queries))
    uneven = torch.randn(1, 15, 2)
    assert torch.equal(Blur(1.0, 9999.0)(None, None, uneven)[:, 9:], uneven[:, 9:]), "what no square holds stays"


@pytest.mark.parity(
    *("diffusers", "frequency-decoupled guidance", "guidance=fdg", "golden"),
    differs="no kornia; sides that are no powers of two keep their size; a band at scale 1 is the prompt's own",
)
def test_bands_are_those_of_diffusers_with_kornia():
    random = torch.Generator().manual_seed(0)
    cond, uncond = torch.randn(1, 2, 8, 8, generator=random), torch.randn(1, 2, 8, 8, generator=random)
    guider = guider_of(
        Guidance(
            4.0, guider="fdg", settings={"guidance_scales": [8.0, 3.0], "parallel_weights": [0.5, 1.0]}, rescale=0.3
        )
    )
    made = guider.forward(cond, uncond)
    close(made[0, :, 3, 2:5].flatten(), torch.tensor(FDG), atol=1e-5)
    fine, coarse = pyramid(torch.randn(1, 1, 6, 10), 2)
    assert fine.shape[-2:] == (6, 10)
    assert coarse.shape[-2:] == (3, 5)


FDG = [8.76323, -0.647678, 7.743317, -1.585591, -2.246998, -4.285571]  # kornia 0.9.0


def test_layers_are_named_or_numbered(model):
    names = [layer.name for layer in left_out(Guidance(guider="auto"), model.unet.config)]
    assert names == ["mid.0.0"]
    numbered = Guidance(guider="slg", settings={"skip_layer_guidance_layers": [0, "mid"]})
    assert [layer.name for layer in left_out(numbered, model.unet.config)] == ["down.1.0.0", "mid.0.0"]
    assert left_out(Guidance(guider="apg"), model.unet.config) == []


def test_attention_is_watched_in_the_unet_and_not_in_the_worse_one(sd1):
    """At nearly no scale the maps are those of plain guidance, which knows no worse UNet."""
    pag = Guidance(4.0, guider="pag", settings={"perturbed_guidance_scale": 1e-6, **ALWAYS["pag"]})
    plain, watched = (cell_of(one, attention=Attention(maps=True)) for one in (Guidance(4.0), pag))
    seen = [render(sd1, [one], (0,))[0].maps for one in (plain, watched)]
    torch.testing.assert_close(seen[1].heat, seen[0].heat, atol=1e-4, rtol=1e-4)


# ── what cannot be ────────────────────────────────────────────────────────────────────────────────────────────────

REFUSED = {
    "there is no such guider": ({"guider": "cfgg"}, "guidance.guider is 'cfgg'; choose one of cfg, cfg_zero_star"),
    "unknown setting": (
        {"guider": "apg", "settings": {"etta": 1}},
        "guidance=apg has no setting 'etta' \\(did you mean eta\\?\\); guidance.settings may hold adaptive_projected",
    ),
    "another guider's": ({"guider": "tcfg", "settings": {"eta": 1}}, "guidance=tcfg has no setting 'eta'"),
    "ours": (
        {"guider": "pag", "settings": {"stop": 1}},
        "no setting 'stop'; take guidance.interval; guidance.settings may hold",
    ),
    "no number": ({"guider": "apg", "settings": {"eta": "x"}}, "guidance.settings.eta is 'x'; it has to be a finite"),
    "no mapping": ({"guider": "apg", "settings": [1]}, "guidance.settings is .*; it has to be names with values"),
    "no list": ({"guider": "fdg", "settings": {"guidance_scales": 3}}, "has to be a list of numbers, the finest first"),
    "bands": ({"guider": "fdg", "settings": {"parallel_weights": [1.0]}}, "has 1 number for 2 of guidance_scales"),
    "rescale": ({"rescale": 1.5}, "guidance.rescale is 1.5; it has to be a number from 0 to 1"),
    "one time": ({"interval": [0.5]}, "guidance.interval is .*; it has to be two times"),
    "rising sigma": ({"interval": [0.5, 3], "clock": "sigma"}, "its times have to fall: the noisy end comes first"),
    "falling": ({"interval": [0.5, 0.2]}, r"guidance.interval is \[0.5, 0.2\]; .* its times have to rise"),
    "clock": ({"interval": [0, 1], "clock": "a1111"}, "guidance.clock is 'a1111'; choose one of step, fraction"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_guider_can_do_is_refused_where_it_is_written(case):
    settings, line = REFUSED[case]
    with pytest.raises(SamplerError, match=line):
        Guidance(4.0, **settings)


MODEL_REFUSES = {
    "past the end": ({"interval": [2, 30], "clock": "step"}, "guidance.interval: step 30 is past the end; there are 5"),
    "between steps": (
        {"interval": [0.45, 0.55]},
        "guidance.interval: none of the 5 calls lies in it; their clock fraction goes from 0 to 0.8",
    ),
    "layer": (
        {"guider": "pag", "settings": {"perturbed_guidance_layers": ["up.7"]}},
        "perturbed_guidance_layers names 'up.7', where this UNet has no cross-attention",
    ),
    "number": (
        {"guider": "slg", "settings": {"skip_layer_guidance_layers": [99]}},
        "skip_layer_guidance_layers names '99', where this UNet has no",
    ),
}


@pytest.mark.parametrize("case", MODEL_REFUSES)
def test_what_a_model_or_a_schedule_has_not_is_refused_before_weights(case):
    settings, line = MODEL_REFUSES[case]
    with pytest.raises((ConfigError, SamplerError), match=line):
        validate(cell_of(Guidance(4.0, **settings)), Source("emoji"))
