"""A picture becomes noise from which it comes out again, and another prompt goes on from there."""

import dataclasses
import re

import diffusers
import numpy as np
import pytest
import torch
from conftest import open_pipeline
from parity import close
from PIL import Image

from embedlab import Cell, Guidance, Inversion, Replace, Sampler, Source, Start, Switch, images, inverting, render
from embedlab.condition import condition_calls
from embedlab.errors import EmbedlabError, EngineError, PictureError, PromptError, SamplerError
from embedlab.guidance import guided
from embedlab.rendering import batch_key, sample_batch
from embedlab.sampler import generators, picture_latents
from embedlab.sampler.inversion import inverse_of, inverted
from embedlab.samples import Request
from embedlab.sweep.store import packed, unpacked
from embedlab.validate import validate

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def cell(scheduler="ddim", steps=8, scale=1.0, prompt="a puppy", operators=(), **start) -> Cell:
    start = Inversion(PICTURE, **start)
    return Cell(prompt, operators, sampler=Sampler(scheduler, steps), guidance=Guidance(scale), start=start)


def found(model, cell):
    (calls,) = condition_calls(model, [cell])
    return inverting.invert(model, [Request(calls, 0)])[1]


def clean(model):
    return picture_latents(model.vae, images.to_tensor(PICTURE).mul(2).sub(1))


def theirs(model, pipe, scheduler, steps, cond):
    """diffusers' inverse scheduler, over a UNet told a prompt alone."""
    inverse = scheduler.from_config(pipe.scheduler.config, timestep_spacing=pipe.scheduler.config.timestep_spacing)
    inverse.set_timesteps(steps)
    x = clean(model)
    for t in inverse.timesteps:
        seen = pipe.unet(inverse.scale_model_input(x, t), t, encoder_hidden_states=cond.hidden[None]).sample
        x = inverse.step(seen, t, x).prev_sample
    return x


@pytest.mark.parity("diffusers", "DDIM inversion", "start=inversion sampler=ddim", "live")
@torch.no_grad()
def test_ddim_backwards_is_diffusers(sd1, folders):
    pipe = open_pipeline(folders["sd1"])
    pipe.scheduler.register_to_config(timestep_spacing="leading")
    (calls,) = condition_calls(sd1, [cell()])
    close(found(sd1, cell()).latents, theirs(sd1, pipe, diffusers.DDIMInverseScheduler, 8, calls[0].cond), rtol=1e-5)


@pytest.mark.parity(
    *("diffusers", "DPM-Solver++ inversion", "start=inversion sampler=dpmpp_2m", "live"),
    differs="the way back goes over the sampler's own noise levels, where diffusers' two schedulers have others",
)
@torch.no_grad()
def test_dpm_backwards_is_diffusers_where_its_levels_are_those_of_its_scheduler(sd1, folders):
    """With linspace spacing the two of diffusers meet; else ours has the levels of the scheduler."""
    pipe = open_pipeline(folders["sd1"])
    model = dataclasses.replace(sd1, scheduler={**sd1.scheduler, "timestep_spacing": "linspace"})
    pipe.scheduler.register_to_config(timestep_spacing="linspace")
    told = cell("dpmpp_2m", 9)
    (calls,) = condition_calls(model, [told])
    theirs_ = theirs(model, pipe, diffusers.DPMSolverMultistepInverseScheduler, 9, calls[0].cond)
    close(found(model, told).latents, theirs_, rtol=1e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp_2m"])
def test_a_way_there_is_a_way_back(scheduler, spacing):
    """With a model that says the same noise at all levels, both ways are exact: what comes back is what went."""
    config = {**Source("emoji").scheduler, "prediction_type": "epsilon", "timestep_spacing": spacing}
    if scheduler == "ddim" and spacing == "linspace":
        with pytest.raises(SamplerError, match="ddim cannot be run backwards with these settings: linspace"):
            inverse_of(Sampler("ddim", 10).make(config), "ddim", Inversion(PICTURE))
        return
    forward = Sampler(scheduler, 10).make(config)
    inverse = inverse_of(forward, scheduler, Inversion(PICTURE))
    noise, picture = torch.randn(1, 4, 2, 2, generator=generators([0])[0]), torch.randn(1, 4, 2, 2)
    lowest = inverse.alphas_cumprod[0] if scheduler != "ddim" else forward.final_alpha_cumprod
    x = lowest**0.5 * picture + (1 - lowest) ** 0.5 * noise
    way = inverted(lambda x, t: noise, x, inverse, 10)
    top = forward.alphas_cumprod[int(forward.timesteps[0])]
    torch.testing.assert_close(way[-1], top**0.5 * picture + (1 - top) ** 0.5 * noise, atol=2e-5, rtol=1e-4)


def test_the_shipped_model_brings_its_picture_back(emoji):
    told = Cell("A picture of a puppy on green", sampler=Sampler("ddim", 8), guidance=Guidance(1.0))
    told = dataclasses.replace(told, start=Inversion("puppy.png"))
    figures = found(emoji, told).figures
    assert figures["round_trip/psnr"] > 20
    assert figures["round_trip/decoded"] >= figures["round_trip/psnr"] - 0.5
    (one,) = render(emoji, [told], [0])
    again = inverting.psnr(one.pictures[0], images.to_tensor(told.start.open()))
    assert again == pytest.approx(figures["round_trip/psnr"], abs=0.05)
    assert dict(one.figures[0]) == figures


def test_a_part_of_the_way_is_run(sd1):
    for start in ({"step": 5}, {"strength": 0.4}):
        half = found(sd1, cell(steps=8, **start))
        (calls,) = condition_calls(sd1, [cell(steps=8, **start)])
        assert len(calls) == 3
        forward = Sampler("ddim", 8).make(sd1.scheduler)
        inverse = inverse_of(forward, "ddim", Inversion(PICTURE))
        denoise = guided(sd1.unet, [calls[0].shown.cond], [calls[0].shown.uncond], [1.0])
        with torch.inference_mode():
            expected = inverted(denoise, clean(sd1), inverse, 3)[-1]
        torch.testing.assert_close(half.latents, expected)


def test_negative_prompt_inversion_comes_back_whatever_the_scale(sd1):
    plain = found(sd1, cell(scale=1.0)).figures["round_trip/latents"]
    guided_ = found(sd1, cell(scale=5.0)).figures["round_trip/latents"]
    kept = found(sd1, cell(scale=5.0, unconditional="prompt")).figures["round_trip/latents"]
    assert kept == pytest.approx(plain, rel=1e-3)
    assert guided_ > 1.02 * plain


def test_null_text_leads_nearer_along_the_way(sd1):
    own = found(sd1, cell(scale=5.0, steps=5))
    nulls = found(sd1, cell(scale=5.0, steps=5, unconditional="null_text", iterations=15))
    assert len(nulls.hidden) == 5
    assert nulls.figures["round_trip/latents"] < own.figures["round_trip/latents"]
    at_one = found(sd1, cell(scale=1.0, steps=5, unconditional="null_text"))
    assert all(torch.equal(one, at_one.hidden[0]) for one in at_one.hidden), "no prompt has no say at scale 1"
    assert not [p for p in sd1.unet.parameters() if p.grad is not None]
    (calls,) = condition_calls(sd1, [cell(scale=5.0, steps=5, unconditional="null_text", iterations=15)])
    requests, _ = inverting.invert(sd1, [Request(calls, 0)])
    assert all(torch.equal(one.uncond.hidden, h) for one, h in zip(requests[0].conditioning, nulls.hidden, strict=True))


def test_a_picture_is_inverted_once_for_all_cells(sd1, monkeypatch):
    count = []
    real = inverting.inverted
    monkeypatch.setattr(inverting, "inverted", lambda *args: count.append(1) or real(*args))
    edits = [(), [Replace("puppy", "cat")], [Replace("puppy", "fox")]]
    cells = [cell(steps=7, scale=2.0, operators=one) for one in edits]
    made = render(sd1, cells, [0, 1])
    assert count == [1]
    assert len({batch_key(one, sd1) for one in cells}) == 1
    assert torch.equal(made[0].latents[0], made[0].latents[1]), "all seeds start alike"
    assert not torch.equal(made[0].latents, made[1].latents)
    other = cell(steps=7, scale=2.0, prompt="a cat")
    assert batch_key(other, sd1) != batch_key(cells[0], sd1)
    said = cell(steps=7, scale=2.0, prompt="a cat")
    said = dataclasses.replace(said, start=Inversion(PICTURE, prompt="a puppy"))
    (one,) = render(sd1, [said], [0])
    replaced = render(sd1, [cells[1]], [0])[0]
    assert one.figures[0]["round_trip/latents"] == pytest.approx(replaced.figures[0]["round_trip/latents"])


@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp_2m"])
@pytest.mark.parametrize("part", [{}, {"step": 5}], ids=["all the way", "a part of it"])
def test_outside_of_a_mask_latents_go_back_the_way_that_they_came(sd1, monkeypatch, scheduler, part):
    count, real = [], inverting.inverted
    monkeypatch.setattr(inverting, "inverted", lambda *args: count.append(1) or real(*args))
    white, black, half = (Image.new("L", (16, 16), tone) for tone in (255, 0, 0))
    half.paste(255, (0, 0, 8, 16))
    told = {"operators": [Replace("puppy", "cat")], "scale": 3.0, **part}
    plain, *masked = (cell(scheduler, mask=mask, **told) for mask in (None, white, black, half))
    plain, *masked = (dataclasses.replace(c, sampler=Sampler(scheduler, 8, keep="all")) for c in (plain, *masked))
    free, everywhere, nowhere, left = render(sd1, [plain, *masked], [0])
    assert len(count) == 1, "one way for all masks"
    assert torch.equal(everywhere.latents, free.latents)
    way = found(sd1, plain).way
    close(way[0], clean(sd1), 0)
    assert torch.equal(nowhere.latents, way[0])
    middle = left.latents.shape[-1] // 2
    assert torch.equal(left.latents[..., middle:], way[0][..., middle:])
    assert not torch.equal(left.latents[..., :middle], way[0][..., :middle])
    assert not torch.equal(left.latents[..., :middle], free.latents[..., :middle]), "what is inside sees what stays"
    shown = [one.latents for one in nowhere.steps]
    assert len(shown) == len(way) - 1
    for one, latents in zip(shown, reversed(way[:-1]), strict=True):
        assert torch.equal(one, images.decode(latents, sd1.vae))


def test_null_texts_ask_for_gradients_which_an_engine_has_not(sd1):
    told = cell(scale=2.0, unconditional="null_text")
    (calls,) = condition_calls(sd1, [told])
    with pytest.raises(EngineError, match="engine=openvino gives no gradients"):
        inverting.invert(dataclasses.replace(sd1, engine="openvino"), [Request(calls, 0)])


def test_figures_of_an_inversion_are_kept_with_the_picture(sd1):
    told = cell(steps=3)
    (calls,) = condition_calls(sd1, [told])
    (made,) = sample_batch(sd1, [Request(calls, 0)])
    assert set(made.figures) == {"round_trip/psnr", "round_trip/decoded", "round_trip/latents"}
    assert unpacked(packed(made, "key"), "key").figures == made.figures


def test_the_other_kinds_of_model_are_inverted_too(model, caplog):
    made = render(model, [cell(steps=3, scale=2.0, unconditional="prompt")], [0])[0]
    assert not [one for one in caplog.records if "were passed" in one.getMessage()], "the inverse is told what it knows"
    assert torch.isfinite(made.latents).all()
    assert not torch.equal(made.latents, render(model, [Cell("a puppy", sampler=Sampler("ddim", 3))], [0])[0].latents)


WRONG = {
    "no inverse": (lambda: cell("euler"), "the sampler euler cannot be run backwards"),
    "eta": (
        lambda: dataclasses.replace(cell(), sampler=Sampler("ddim", 8, eta=0.5)),
        "sampler.eta is 0.5: noise in each",
    ),
    "null text": (lambda: cell("dpmpp_2m", unconditional="null_text"), "null-text inversion follows the steps of ddim"),
    "no picture": (Inversion, "start=inversion finds the noise of a picture: set start.picture"),
    "depth": (lambda: cell(depth=PICTURE), "leave start.depth out"),
    "mask": (
        lambda: cell(mask=PICTURE.resize((8, 8))),
        "start.mask is 8 pixels high and 8 wide, and start.picture is 16",
    ),
    "variation": (lambda: cell(variation={"seed": 1, "strength": 0.5}), "leave start.variation out"),
    "unconditional": (lambda: cell(unconditional="null"), "start.unconditional is 'null'; choose one of own, prompt"),
    "scale": (lambda: Inversion(PICTURE, scale=0.5), "start.scale is 0.5"),
    "prompt": (lambda: Inversion(PICTURE, prompt=5), "start.prompt is 5; it has to be a"),
    "iterations": (lambda: Inversion(PICTURE, iterations=0), "start.iterations is 0; it has to be a whole number"),
    "past the end": (lambda: cell(step=8), "start.step is 8, past the end"),
    "time": (lambda: cell(prompt=Switch(("a cat", "a dog"), 0.5)), "say what the picture shows: start.prompt="),
    "nowhere": (lambda: Inversion("nowhere.png"), "there is no picture 'nowhere.png'"),
    "concept": (lambda: cell(prompt="a <my-cat>"), "no concept of that name is loaded"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_inverted_is_one_line_before_weights(wrong, unread, folders):
    make, said = WRONG[wrong]
    with pytest.raises((SamplerError, PictureError, PromptError), match=re.escape(said)) as caught:
        made = make()
        validate(made, Source(str(folders["sd1"]), device="cpu"))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, EmbedlabError)


def test_a_start_from_a_picture_is_as_it_was(sd1):
    """The autoencoder's mean is for inversions alone."""
    start = Start(PICTURE, strength=0.5)
    one = render(sd1, [Cell("a puppy", sampler=Sampler("ddim", 4), start=start)], [0, 1])[0]
    assert not torch.equal(one.latents[0], one.latents[1])
    assert dict(one.figures[0]) == {}
