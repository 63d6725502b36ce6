"""Guidance by a loss: the gradient of a score of what the model sees moves the latents."""

import copy
import dataclasses
from functools import partial
from pathlib import Path

import diffusers
import pytest
import torch
from conftest import open_pipeline
from parity import close
from PIL import Image

from embedlab import (
    Attention,
    Cell,
    Colour,
    Distance,
    Guidance,
    Job,
    Likeness,
    Loss,
    Mass,
    OpenVINO,
    Ramp,
    Sampler,
    Source,
    Switch,
    embed_all,
    encode,
    images,
    render,
)
from embedlab.attention import Confine
from embedlab.attention.probabilities import probabilities_of
from embedlab.cell import denoiser_calls, fingerprint
from embedlab.condition import condition_calls
from embedlab.errors import ConfigError, EngineError, OperatorError, PictureError, PromptError, SamplerError
from embedlab.guidance import Losses, predictor
from embedlab.rendering import sample_batch
from embedlab.sampler import generators, noise
from embedlab.samples import Request
from embedlab.schedule import Moment
from embedlab.timing import Timer
from embedlab.validate import validate

STEPS = 4
BLUE = Loss(Colour(blue=0.9), scale=20.0, every=2)


def cell_of(loss, scheduler="ddim", steps=STEPS, **guidance):
    return Cell("a puppy", guidance=Guidance(4.0, loss=loss, **guidance), sampler=Sampler(scheduler, steps))


def latents(model, loss, seeds=(0,), scheduler="ddim", **more):
    return render(model, [cell_of(loss, scheduler, **more)], seeds)[0].latents


def blue_loss(images):
    return torch.abs(images[:, 2] - 0.9).mean()


@pytest.mark.parity("Stable Diffusion Deep Dive", "guidance by the blue loss", "guidance=loss", "formula")
@pytest.mark.parametrize("scheduler", ["lms", "euler"])
def test_more_blue_is_that_of_the_deep_dive(sd1, scheduler):
    """The notebook's last loop: latents are moved every k steps, and the step is taken with the noise from before."""
    steps, every, scale = 5, 2, 20.0
    told, empty = encode([embed_all(text, sd1.towers) for text in ("a puppy", "")], sd1.towers)
    both = torch.stack([empty.hidden, told.hidden])
    scheduler_ = Sampler(scheduler, steps).make(sd1.scheduler)
    x = noise((4, 8, 8), generators([3])) * scheduler_.init_noise_sigma
    values = []
    for i, t in enumerate(scheduler_.timesteps):
        sigma = scheduler_.sigmas[i]
        with torch.no_grad():
            two = sd1.unet(scheduler_.scale_model_input(torch.cat([x] * 2), t), t, both).sample
        uncond, cond = two.chunk(2)
        noise_pred = uncond + 4.0 * (cond - uncond)
        if i % every == 0:
            x = x.detach().requires_grad_()
            x0 = x - sigma * noise_pred
            decoded = sd1.vae.decode(x0 / sd1.vae.config.scaling_factor).sample / 2 + 0.5
            loss = blue_loss(decoded) * scale
            values.append(float(loss.detach()) / scale)
            gradient = torch.autograd.grad(loss, x)[0]
            x = x.detach() - gradient * sigma**2
        x = scheduler_.step(noise_pred, t, x).prev_sample
    for score in (Colour(blue=0.9), blue_loss):
        ours = latents(sd1, Loss(score, scale, every), (3,), scheduler, steps=steps)
        close(ours, x, rtol=1e-5)
    assert len(values) == 3


@pytest.mark.parity("universal guidance", "forward guidance (eq. 6)", "guidance.loss.form=universal", "formula")
@torch.no_grad()
def test_universal_guidance_is_that_of_the_paper(model):
    """One DDIM step of an x0, a noise and a velocity model: noise + s · √(1 - ᾱ) · ∇ loss(x0), through the UNet."""
    loss = Loss(Colour(red=0.2), scale=30.0, form="universal")
    cell = cell_of(loss, steps=1)
    (call,) = denoiser_calls(cell, model.scheduler)
    told, empty = encode([embed_all(text, model.towers) for text in ("a puppy", "")], model.towers)
    if model.zero_negative:
        empty = empty.zeros()
    scheduler = cell.sampler.make(model.scheduler)
    z, t = noise((4, 8, 8), generators([0])), scheduler.timesteps[0]
    alpha = scheduler.alphas_cumprod[t]
    pixels = 8 * model.factor
    more = {"text_embeds": torch.stack([empty.pooled, told.pooled])} if model.size_conditioned else {}
    more |= {"time_ids": torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]] * 2)} if more else {}
    with torch.enable_grad():
        z = z.requires_grad_()
        own = {"added_cond_kwargs": more} if more else {}
        uncond, cond = model.unet(torch.cat([z, z]), t, torch.stack([empty.hidden, told.hidden]), **own).sample.chunk(2)
        seen = uncond + 4.0 * (cond - uncond)
        velocity = scheduler.config.prediction_type == "v_prediction"
        eps = alpha.sqrt() * seen + (1 - alpha).sqrt() * z if velocity else seen
        x0 = (z - (1 - alpha).sqrt() * eps) / alpha.sqrt()
        decoded = model.vae.decode(x0 / model.vae.config.scaling_factor).sample / 2 + 0.5
        gradient = torch.autograd.grad(30.0 * torch.abs(decoded[:, 0] - 0.2).mean(), z)[0]
    eps = eps + (1 - alpha).sqrt() * gradient
    seen = (eps - (1 - alpha).sqrt() * z) / alpha.sqrt() if velocity else eps
    wanted = scheduler.step(seen.detach(), t, z.detach()).prev_sample
    close(render(model, [cell], (0,))[0].latents, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)
    assert call.sigma > 0


# ── laws ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_scale_changes_no_bit_and_steps_without_a_loss_are_plain(sd1):
    plain = latents(sd1, None)
    assert torch.equal(latents(sd1, dataclasses.replace(BLUE, scale=0.0)), plain)
    assert torch.equal(latents(sd1, dataclasses.replace(BLUE, scale=Ramp([0.0, 0.0]))), plain)
    assert not torch.allclose(latents(sd1, BLUE), plain, atol=1e-3)
    assert not torch.allclose(latents(sd1, dataclasses.replace(BLUE, scale=Ramp([20.0, 0.0]))), plain, atol=1e-3)


@pytest.mark.turns
@pytest.mark.parametrize("scheduler", ["ddim", "euler", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("form", ["latents", "unet", "universal"])
def test_a_loss_falls_whatever_the_scheduler(sd1, scheduler, form):
    def red(loss):
        return float((images.decode(latents(sd1, loss, (0, 1), scheduler), sd1.vae)[:, 0] - 0.1).abs().mean())

    assert red(Loss(Colour(red=0.1), scale=40.0, form=form)) < red(None) - 1e-3


def test_schedulers_of_both_kinds_of_latents_move_alike(sd1):
    """Euler and DDIM are one solver in two coordinates, but for the noise level that the schedule ends at."""
    moved = [latents(sd1, BLUE, scheduler=name) - latents(sd1, None, scheduler=name) for name in ("ddim", "euler")]
    assert float((moved[0] - moved[1]).norm()) < 0.05 * float(moved[0].norm())


def test_a_loss_is_a_pictures_own(sd1):
    losses = [None, BLUE, Loss(Colour(red=0.0), 30.0, form="unet"), Loss(Colour(green=0.0), 30.0, form="universal")]
    cells = [cell_of(loss, guider="apg" if n == 1 else "cfg") for n, loss in enumerate(losses)]
    together = render(sd1, cells, (0, 1))
    for cell, many in zip(cells, together, strict=True):
        alone = render(sd1, [cell], (1,))[0].latents
        torch.testing.assert_close(many.latents[1:], alone, atol=1e-4, rtol=0)
    assert not torch.is_inference_mode_enabled()


def test_scores_lead_where_they_say(emoji, tmp_path):
    target = tmp_path / "red.png"
    Image.new("RGB", (64, 64), (255, 0, 0)).save(target)
    scores = [
        Likeness(text="a cat"),
        Likeness(picture=str(target)),
        Distance(str(target)),
        Distance(str(target), "features"),
    ]
    for score in scores:
        ready = score.prepare(emoji, (64, 64))
        with torch.enable_grad():
            shape = (1, 8, 8, 8) if getattr(ready, "reads", "") == "latents" else (1, 3, 64, 64)
            seen = (0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.5).requires_grad_()
            before = ready(seen)
            (gradient,) = torch.autograd.grad(before, seen)
        after = ready((seen - 1e-2 * gradient / gradient.norm()).detach())
        assert float(after) < float(before.detach()), score
    picture = images.to_tensor(Image.open(target), (64, 64))[None]
    assert float(Distance(str(target), "features").prepare(emoji, (64, 64))(picture)) < 1e-6
    assert abs(float(Likeness(picture=str(target)).prepare(emoji, (64, 64))(picture))) < 0.05


def test_another_picture_of_the_same_name_is_another_key(tmp_path):
    file = tmp_path / "target.png"
    Image.new("RGB", (8, 8)).save(file)
    job = Job(Source("emoji"), cell_of(Loss(Distance(str(file)))), (0,), Path())
    before = job.pictures
    Image.new("RGB", (8, 8), "red").save(file)
    assert Job(Source("emoji"), cell_of(Loss(Distance(str(file)))), (0,), Path()).pictures != before


def test_another_function_of_the_same_name_is_another_key():
    some, more = (Guidance(loss=Loss(score)) for score in (lambda p: (p - 0.1).mean(), lambda p: (p - 0.2).mean()))
    assert some.contents != more.contents
    assert some.contents == Guidance(loss=Loss(some.loss.score)).contents


# ── a word's mass ─────────────────────────────────────────────────────────────────────────────────────────────────

LEFT = (0.0, 0.0, 0.5, 1.0)


def mass_by_hand(unet, told, z, box, word=(2,)):
    """1 - the share of a word's attention in the left half, or Attend-and-Excite's, of all layers (8 x 8 and 4 x 4)."""
    with probabilities_of(unet) as seen:
        unet(z, torch.tensor(400.0), told.hidden.to(z)[None])
    values, best = [], {}
    for one in (one[0].double() for one in seen.values()):
        side = int(one.shape[1] ** 0.5)
        heat = one[..., list(word)].mean((0, 2)).view(side, side)
        values.append(heat[:, : side // 2].sum() / heat.sum())
        best.setdefault(side, []).append((one[..., list(word)].sum(-1) / one[..., 1:].sum(-1)).mean(0))
    if box is not None:
        return 1 - sum(values) / len(values)
    return 1 - sum(sum(one).max() / len(one) for one in best.values()) / len(best)


@pytest.mark.parity("Attend-and-Excite", "the loss of a word's attention (eq. 1) and its step", "Mass", "formula")
@pytest.mark.parametrize("box", [LEFT, None])
@pytest.mark.parametrize("grown", [False, True])
def test_latents_move_down_the_slope_of_a_words_mass(sd1, box, grown):
    """The step is -scale · (1 - ᾱ) · gradient, by differences; the answer is the UNet's at the moved latents."""
    with torch.no_grad():
        (told,) = encode([embed_all("a puppy", sd1.towers)], sd1.towers)
        unet, sigma, scale = copy.deepcopy(sd1.unet).double(), 1.5, 3.0
        spread = (1 + sigma**2) ** 0.5
        z = torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        x, alone = z * (spread if grown else 1), predictor(unet, [told])
        model, loss = dataclasses.replace(sd1, unet=unet), Loss(Mass("puppy", box), scale, form="unet")
        curve = []
        losses = Losses(
            model,
            [[loss]],
            (64, 64),
            lambda *_: None,
            "epsilon",
            grown,
            lambda *one: curve.append(one),
            lambda call, n: (told, alone),
        )
        moved, answer = losses(Moment(0, 0, 4, 400.0, sigma), x, lambda at: at * 2)
        assert torch.equal(answer, moved * 2)
        step = (moved - x) / (spread if grown else 1)
        close(curve[0][2].double(), mass_by_hand(unet, told, z, box).reshape(1), rtol=1e-5)
        share = sigma**2 / (1 + sigma**2)
        for n in range(3):
            way = torch.randn(z.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(n + 1))
            up, down = (mass_by_hand(unet, told, z + h * way, box) for h in (1e-4, -1e-4))
            close((step * way).sum(), -scale * share * (up - down) / 2e-4, rtol=2e-4)


@pytest.mark.parametrize("box", [LEFT, None])
def test_a_words_mass_without_scale_changes_no_bit(model, box):
    none, led = (cell_of(Loss(Mass("puppy", box), scale, form="unet")) for scale in (0.0, 50.0))
    plain, none, led = (render(model, [cell], (0, 1))[0] for cell in (cell_of(None), none, led))
    assert torch.equal(none.latents, plain.latents)
    assert (led.latents - plain.latents).abs().amax((1, 2, 3)).min() > 1e-3
    assert led.curves[0]["step"] == (0.0, 1.0, 2.0, 3.0)


@pytest.mark.parametrize("box", [LEFT, None])
def test_a_words_mass_is_a_pictures_own(sd1, box):
    cells = [cell_of(None), cell_of(Loss(Mass("puppy", box), 50.0, form="unet")), cell_of(BLUE)]
    for cell, many in zip(cells, render(sd1, cells, (0, 1)), strict=True):
        alone = render(sd1, [cell], (1,))[0].latents
        torch.testing.assert_close(many.latents[1:], alone, atol=1e-5, rtol=1e-5)


EXCITED = {"sharp": 100.0, "smooth": 0.5}


@pytest.mark.parity(
    "Attend-and-Excite", "smoothed maps and iterative refinement", "Mass(sharp=100, smooth=0.5, refine=…)", "live"
)
@pytest.mark.parametrize("thresholds", [{}, {0: 0.05, 1: 0.02, 2: 0.9}], ids=["once", "refined"])
def test_a_words_mass_is_that_of_diffusers_attend_and_excite(folders, sd1, thresholds):
    """The whole pipeline: of two words the one looked at least, at 4 x 4, smoothed, moved until it is looked at."""
    steps, factor = 4, 1000.0
    pipe = open_pipeline(folders["sd1"])
    parts = {name: getattr(pipe, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    theirs = diffusers.StableDiffusionAttendAndExcitePipeline(
        **parts, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    theirs.set_progress_bar_config(disable=True)
    start = noise((4, 8, 8), generators([0]))
    told = {"token_indices": [2, 5], "num_inference_steps": steps, "guidance_scale": 4.0, "negative_prompt": ""}
    told |= {"thresholds": thresholds, "max_iter_to_alter": steps, "scale_factor": factor, "attn_res": (4, 4)}
    expected = theirs("a puppy and a cat", latents=start, output_type="latent", **told).images

    score = Mass(["puppy", "cat"], refine=thresholds or None, **EXCITED)
    plain = Cell("a puppy and a cat", guidance=Guidance(4.0, ""), sampler=Sampler("ddim", steps))
    shares = [call.sigma**2 / (1 + call.sigma**2) for call in denoiser_calls(plain, sd1.scheduler)]
    sizes = [factor * (1 - 0.5 * n / (steps - 1)) ** 0.5 for n in range(steps)]  # theirs; ours is times 1 - alpha
    scale = Switch(
        [size / share for size, share in zip(sizes, shares, strict=True)], list(range(1, steps)), clock="step"
    )
    led = dataclasses.replace(plain, guidance=Guidance(4.0, "", loss=Loss(score, scale, form="unet")))
    none, ours = (render(sd1, [cell], (0,))[0].latents for cell in (plain, led))
    assert (ours - none).abs().max() > 0.05
    close(ours, expected, 1e-4)


def test_equal_pictures_ask_for_a_words_mass_once_to_the_bit(sd1):
    cells = [cell_of(Loss(Mass(word), 50.0, form="unet")) for word in ("puppy", "puppy", "a")]
    requests, timer = [Request(calls, 0) for calls in condition_calls(sd1, cells)], Timer()
    with timer:
        first, again, other = sample_batch(sd1, requests, timer=timer)
    assert torch.equal(first.latents, again.latents)
    assert first.curves == again.curves
    assert not torch.equal(first.latents, other.latents)
    # of two pictures both halves in each step, and the row that the loss looks into
    assert (timer.spent("UNet").rows, timer.spent("UNet").asked) == (2 * 3 * STEPS, 3 * 3 * STEPS)


def test_a_words_mass_in_a_box_rises(emoji):
    """By the maps that the picture's own calls make, which the loss's own call has no part in."""

    def inside(scale):
        loss = Loss(Mass("puppy", LEFT), scale, form="unet")
        cell = dataclasses.replace(cell_of(loss), attention=Attention(maps=True, words=["puppy"]))
        heat = render(emoji, [cell], (0, 1, 2))[0].maps.of("puppy")
        return heat[..., : heat.shape[-1] // 2].sum((-1, -2)) / heat.sum((-1, -2))

    assert (inside(1000.0) > inside(0.0) + 0.05).all()


MASS = {
    "box": (lambda: Mass("cat", (0.5, 0, 0.2, 1)), ConfigError, r"box is \[0.5, 0, 0.2, 1\]; it has to be left, top"),
    "word": (lambda: Mass(""), OperatorError, "word is ''; it has to be a word"),
    "layers": (lambda: Mass("cat", layers=["x"]), ConfigError, "guidance.loss.score.layers is 'x'; it has to be a"),
    "smooth": (
        lambda: Mass("cat", smooth=0),
        SamplerError,
        "score.smooth is 0; it has to be a number above 0",
    ),
    "sharp in a box": (
        lambda: Mass("cat", LEFT, sharp=100),
        SamplerError,
        "score.sharp is of a word's maximum",
    ),
    "refine": (lambda: Mass("cat", refine={0: 5}), SamplerError, r"score.refine is .* by step how much .* from 0 to 1"),
    "iterations": (lambda: Mass("cat", iterations=0), SamplerError, "guidance.loss.score.iterations is 0"),
    "refined": (
        lambda: Loss(Mass("cat", refine={0: 0.1, 3: 0.5}), every=2, form="unet"),
        SamplerError,
        "score.refine names step 3, in which a loss of guidance.loss.every=2 is not asked",
    ),
    "form": (lambda: Loss(Mass("cat")), SamplerError, r"form is latents, and a Mass reads .* guidance.loss.form=unet"),
}


@pytest.mark.parametrize("case", MASS)
def test_settings_of_a_mass_that_cannot_be_are_refused(case):
    make, error, line = MASS[case]
    with pytest.raises(error, match=line):
        make()


UNFIT = {
    "word": (
        Mass("cat"),
        {},
        PromptError,
        "guidance.loss.score.word: 'cat' is not in the prompt; its words are a, pup",
    ),
    "layers": (
        Mass("puppy", layers=["up.3"]),
        {},
        ConfigError,
        "guidance.loss.score.layers names 'up.3', where this UNet",
    ),
    "refine": (
        Mass("puppy", refine={4: 0.5}),
        {},
        SamplerError,
        "names step 4, past the end: with 4 steps it is 3",
    ),
    "edits": (
        Mass("puppy"),
        {"attention": Attention(edits=[Confine("puppy", LEFT)])},
        SamplerError,
        "the UNet's own attention, which attention.edits and operators with blocks change",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_mass_that_does_not_fit_is_refused_before_weights(case, unread):
    score, more, error, line = UNFIT[case]
    with pytest.raises(error, match=line):
        validate(dataclasses.replace(cell_of(Loss(score, form="unet")), **more), Source("emoji"))


def test_an_engine_that_shows_no_attention_and_a_box_between_places_are_refused(sd1):
    cell = cell_of(Loss(Mass("puppy"), form="unet"))
    with pytest.raises(EngineError, match="has no attention maps .* engine=eager"):
        Job(Source("emoji"), cell, (0,), Path(), engine=OpenVINO())
    with pytest.raises(EngineError, match="engine=openvino .* shows no attention, which this cell's loss reads"):
        render(dataclasses.replace(sd1, engine="openvino"), [cell], (0,))
    with pytest.raises(SamplerError, match="no place of these layers has its middle there; take a larger"):
        render(sd1, [cell_of(Loss(Mass("puppy", (0, 0, 0.01, 0.01)), form="unet"))], (0,))


# ── what cannot be ────────────────────────────────────────────────────────────────────────────────────────────────


def nan_after(picture):
    return (picture.mean() * torch.nan).sum()


REFUSED = {
    "picture": (lambda picture: picture, r"returns a tensor of shape \[1, 3, 128, 128\]; it has to return one number"),
    "float": (lambda picture: 3.0, "returns 3.0; it has to return one number for a picture"),
    "detached": (lambda picture: picture.detach().mean(), "has no gradient: .* without detach, numpy or no_grad"),
    "another": (lambda picture: torch.ones(1, requires_grad=True).sum(), "does not depend on the picture"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_loss_that_is_none_is_refused_before_weights(case):
    score, line = REFUSED[case]
    with pytest.raises(SamplerError, match=line):
        validate(cell_of(Loss(score)), Source("emoji"))


WRONG = {
    "no callable": (
        lambda: Loss("blue"),
        SamplerError,
        "the score of guidance.loss is 'blue'; it has to be",
    ),
    "class": (lambda: Loss(Colour), SamplerError, "it has to be a callable of a picture"),
    "form": (lambda: Loss(blue_loss, form="dps"), SamplerError, "guidance.loss.form is 'dps'; choose one of latents"),
    "every": (lambda: Loss(blue_loss, every=0), SamplerError, "guidance.loss.every is 0; it has to be a whole number"),
    "scale": (lambda: Loss(blue_loss, scale="x"), SamplerError, "guidance.loss.scale is 'x'; it has to be a finite"),
    "no channel": (Colour, SamplerError, "names no channel; give red, green or blue"),
    "256": (lambda: Colour(red=255), SamplerError, "guidance.loss.score.red is 255; it has to be a number from 0 to 1"),
    "both": (lambda: Likeness("a", "puppy.png"), SamplerError, "a likeness is to a text or to a picture: give one"),
    "no file": (lambda: Distance("none.png"), PictureError, "there is no picture 'none.png'"),
    "no loss": (lambda: Guidance(loss=3), SamplerError, "guidance.loss is 3; it has to be a Loss"),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_are_none_are_refused_where_they_are_written(case):
    make, error, line = WRONG[case]
    with pytest.raises(error, match=line):
        make()


def test_a_model_without_scorer_is_told_before_weights(folders):
    with pytest.raises(SamplerError, match="asks a CLIP model, and there is none: model.scorer=FOLDER"):
        validate(cell_of(Loss(Likeness("a cat"))), Source(str(folders["sd1"])))


def test_a_loss_of_nan_spoils_its_own_picture(sd1):
    with pytest.raises(SamplerError, match="the latents of seed 0 hold NaN or infinite numbers from step 0 on"):
        render(sd1, [cell_of(Loss(nan_after)), cell_of(None)], (0,))


def test_the_loss_by_step_is_a_curve_of_its_picture(sd1):
    led, none = render(sd1, [cell_of(BLUE), cell_of(None)], (0, 1))
    for seed in range(2):
        curve = led.curves[seed]
        assert curve["step"] == (0.0, 2.0)
        assert all(0 < value < 1.5 for value in curve["loss"])
    assert none.curves == ({}, {}), "whoever has none says so in any company"


def test_a_function_is_known_by_what_it_does_and_not_by_where_it_is():
    def written(body: str):
        names: dict = {"__name__": "somebodys"}
        exec(f"def score(picture, by=2):\n    return {body}", names)
        return names["score"]

    same, again, other = written("picture.mean()"), written("picture.mean()"), written("picture.sum()")
    assert same is not again
    assert fingerprint(Loss(same)) == fingerprint(Loss(again)) != fingerprint(Loss(other))
    assert fingerprint(partial(same, by=3)) == fingerprint(partial(again, by=3)) != fingerprint(partial(again, by=4))
    assert fingerprint(partial(same)) != fingerprint(partial(other))
