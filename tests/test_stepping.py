"""A loop that one can step through: what it gives, what is seen on the way, and what is changed."""

import pytest
import torch

import embedlab as lab
from embedlab.errors import EmbedlabError

SHORT = lab.Sampler("ddim", steps=4)
PUPPY = "a picture of a puppy"
CELLS = {
    "plain": lab.Cell(PUPPY, sampler=SHORT),
    "edited": lab.Cell(PUPPY, [lab.Replace("puppy", "cat")], sampler=SHORT),
    "pndm": lab.Cell(PUPPY, sampler=lab.Sampler("pndm", steps=5)),
    "heun": lab.Cell(PUPPY, sampler=lab.Sampler("heun", steps=3)),
    "noise on the way": lab.Cell(PUPPY, sampler=lab.Sampler("euler_ancestral", steps=4)),
    "drawn noise": lab.Cell(PUPPY, sampler=lab.Sampler("dpmpp_2m_sde", steps=3)),
    "picture": lab.Cell(PUPPY, sampler=SHORT, start=lab.Start("puppy.png", step=1)),
    "inverted": lab.Cell(PUPPY, [lab.Scale("puppy", 2)], sampler=SHORT, start=lab.Inversion("puppy.png")),
    "alone": lab.Cell(PUPPY, sampler=SHORT, guidance=lab.Guidance(1.0)),
    "guider": lab.Cell(PUPPY, sampler=SHORT, guidance=lab.Guidance(4.0, guider="apg", interval=[0.2, 0.8])),
    "changing": lab.Cell(lab.Switch([PUPPY, "a cat"], at=0.5), sampler=SHORT),
    "led by a loss": lab.Cell(PUPPY, sampler=SHORT, guidance=lab.Guidance(4.0, loss=lab.Loss(lab.Colour(blue=0.9)))),
    "attention": lab.Cell(
        PUPPY, [lab.Replace("puppy", "cat")], sampler=SHORT, attention=lab.Attention(maps=True, edits=[lab.CopyCross()])
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_loop_without_a_change_gives_the_pictures_of_render_to_the_bit(name, sd1):
    cell = CELLS[name]
    loop = lab.denoise(sd1, cell, [0, 3])
    steps = list(loop)
    assert len(steps) == len(loop)
    (rendered,) = lab.render(sd1, [cell], [0, 3])
    assert torch.equal(loop.latents, rendered.latents)
    assert torch.equal(loop.pictures(), rendered.pictures)


def test_what_a_step_shows_is_what_the_textbook_computes(sd1):
    scheduler = SHORT.make(sd1.scheduler)
    for step in lab.denoise(sd1, CELLS["plain"], 0):
        assert torch.allclose(step.prediction, step.uncond + 4.0 * (step.cond - step.uncond))
        alpha = scheduler.alphas_cumprod[int(step.timestep)]
        assert step.sigma == pytest.approx(float(((1 - alpha) / alpha).sqrt()), rel=1e-5)
        own = (step.before - (1 - alpha).sqrt() * step.prediction) / alpha.sqrt()
        assert torch.allclose(step.predicted, own, atol=1e-4)
        assert torch.equal(step.latents, scheduler.step(step.prediction, int(step.timestep), step.before).prev_sample)
        assert len(repr(step)) < 400
        assert step._repr_html_().count("<img") == 2


def test_without_guidance_there_is_no_half_without_the_prompt(sd1):
    first = next(iter(lab.denoise(sd1, CELLS["alone"], 0)))
    assert first.uncond is None
    assert torch.equal(first.cond, first.prediction)


@pytest.mark.parametrize("name", ["plain", "pndm", "attention"])
def test_sampling_goes_on_with_the_latents_that_were_set(name, sd1):
    met, set_ones = [], []
    loop = lab.denoise(sd1, CELLS[name], [0, 1])
    for step in loop:
        met.append(step.before.clone())
        step.latents = step.latents * 0.9 if step.index % 2 else step.latents
        step.latents[:, 0] += 0.1  # in place, too
        set_ones.append(step.latents.clone())
    for before, after in zip(set_ones, met[1:], strict=False):
        assert torch.equal(before, after)
    assert torch.equal(loop.latents, set_ones[-1])
    assert not torch.equal(loop.pictures(), lab.render(sd1, [CELLS[name]], [0, 1])[0].pictures)


def test_other_pictures_may_be_made_while_a_loop_waits(sd1):
    cell = CELLS["attention"]
    loop, others = lab.denoise(sd1, cell, 0), []
    processors = dict(sd1.unet.attn_processors)
    for step in loop:
        assert dict(sd1.unet.attn_processors) == processors  # nothing of the UNet stays changed between two steps
        others += lab.render(sd1, [CELLS["plain"]], [step.index])
    assert torch.equal(loop.pictures(), lab.render(sd1, [cell], [0])[0].pictures)
    assert torch.equal(others[2].pictures, lab.render(sd1, [CELLS["plain"]], [2])[0].pictures)


def test_what_does_not_fit_is_said_in_a_line(sd1):
    loop = lab.denoise(sd1, CELLS["plain"], 0)
    with pytest.raises(EmbedlabError, match=r"step.latents is \(4, 8\); it has to be a tensor of shape \(1, 4, 8, 8\)"):
        for step in loop:
            step.latents = torch.zeros(4, 8)
    with pytest.raises(EmbedlabError, match="gone through already"):
        next(iter(loop))
    with pytest.raises(EmbedlabError, match="cell is 'a cat'; it has to be a Cell"):
        lab.denoise(sd1, "a cat")
