"""Gradients pass from a picture's score to rows and settings of operators."""

import pytest
import torch

from embedlab import (
    Add,
    Blend,
    Guidance,
    Interpolate,
    Noise,
    Normalise,
    ProjectOut,
    Replace,
    Rotate,
    Sampler,
    Scale,
    Shift,
    edit,
    edit_encoded,
    embed_all,
    encode,
    texts_of,
)
from embedlab.guidance import guided
from embedlab.images import decode
from embedlab.metrics.clip_score import clip_scores, image_features, text_features
from embedlab.sampler import generators, noise, sample

PROMPT = "a picture of a puppy"


def picture(model, operators, steps=4, seed=0):
    """A picture with the graph of how it came about."""
    rows = embed_all(PROMPT, model.towers)
    told, empty = encode([edit(rows, operators, model.towers), embed_all("", model.towers)], model.towers)
    told = edit_encoded(told, operators, texts_of(model.towers))
    scheduler = Sampler("ddim", steps).make(model.scheduler)
    denoise = guided(model.unet, [told], [empty], [Guidance().scale])
    return decode(sample(denoise, noise((8, 16, 16), generators([seed])), scheduler).latents, model.vae)


@pytest.mark.turns
def test_textual_inversion_in_small_raises_the_clip_score_in_twenty_steps(emoji):
    """A token row, begun at "puppy", learns to be drawn as a rocket (Gal et al. 2022, with the cosine as the loss)."""
    wanted = text_features(emoji.scorer, ["a picture of a rocket"])[0]
    row = emoji.towers[0].token_table[6829].clone().requires_grad_()
    descent = torch.optim.Adam([row], lr=0.03)
    for _ in range(20):
        cosine = image_features(emoji.scorer, picture(emoji, [Replace("puppy", row)]))[0] @ wanted
        descent.zero_grad()
        (-cosine).backward()
        descent.step()
    with torch.no_grad():
        learned = torch.cat([picture(emoji, []), picture(emoji, [Replace("puppy", row)])])
    before, after = clip_scores(emoji.scorer, learned, ["a picture of a rocket"]).flatten().tolist()
    assert after > before + 15, (before, after)


def number(value):
    return torch.tensor(value, requires_grad=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda w: Interpolate("puppy", "skunk", w),
        lambda w: Interpolate("puppy", "skunk", w, path="slerp"),
        lambda w: Interpolate("puppy", ["skunk", "cat"], [w, 0.2]),
        lambda w: Add("puppy", {"skunk": w, "cat": -1}),
        lambda w: Add("puppy", "skunk", w),
        lambda w: ProjectOut("puppy", "skunk", w),
        lambda w: Scale("puppy", w),
        lambda w: Normalise("puppy", to=w),
        lambda w: Noise("puppy", w),
        lambda w: Rotate("puppy", 90 * w),
        lambda w: Shift("puppy", w),
        lambda w: Scale({"role": "eos"}, w, "hidden"),
        lambda w: Interpolate({"role": "all"}, "a picture of a cat", w, "conditioning"),
        lambda w: Blend("a picture of a cat", w),
    ],
)
def test_every_number_of_an_operator_can_be_learned(emoji, make):
    """The gradient is that of the difference of two pictures."""
    weight = number(0.4)
    score = picture(emoji, [make(weight)], steps=1).mean()
    (gradient,) = torch.autograd.grad(score, weight)
    step = 1e-2
    with torch.no_grad():
        up, down = (picture(emoji, [make(0.4 + sign * step)], steps=1).double().mean() for sign in (1, -1))
    assert float(gradient) == pytest.approx(float((up - down) / (2 * step)), rel=0.1, abs=2e-5)
    assert gradient != 0
