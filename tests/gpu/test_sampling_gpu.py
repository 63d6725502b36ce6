"""Guiders, losses, attention, starts and what is watched, on the device as on the CPU; that they do not wait for it."""

import pytest
import torch
from conftest import DEVICE
from PIL import Image
from test_gpu import SEEDS, near
from tiny import PROMPT

from embedlab import (
    Attention,
    Cell,
    Colour,
    Confine,
    CopyCross,
    CopySelf,
    During,
    Encoder,
    Guidance,
    Interpolate,
    Inversion,
    Loss,
    Replace,
    Reweight,
    Sampler,
    Scale,
    Start,
    render,
)
from embedlab.limits import GUIDERS

NOT_ALONE = ("sega",)  # it takes directions after an AND
STEPS = Sampler("ddim", 4)
HALF = (Interpolate("puppy", "fox", 0.5),)
OPTIONS = [Sampler("euler", 5, sigmas="karras"), Sampler("dpmpp_2m", 5, sigmas="exponential", order=3)]
OPTIONS += [Sampler("ddim", 5, eta=0.5, spacing="trailing"), Sampler("unipc", 5, sigmas="beta")]
JOINED = f"{PROMPT} AND a cat :0.5"


def whiteness(left: int = 32) -> Image.Image:
    """A mask, the left of which is drawn anew."""
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, left, 64))
    return mask


def picture() -> Image.Image:
    return Image.linear_gradient("L").resize((64, 64)).convert("RGB")


CELLS = {
    **{
        f"guider {name}": Cell(PROMPT, HALF, guidance=Guidance(5.0, guider=name), sampler=STEPS)
        for name in GUIDERS
        if name not in NOT_ALONE
    },
    "rescale and interval": Cell(PROMPT, guidance=Guidance(7.0, rescale=0.7, interval=[0.25, 0.75]), sampler=STEPS),
    **{
        f"AND {way}": Cell(
            JOINED, guidance=Guidance(4.0, combine=way), encoder=Encoder(language="a1111"), sampler=STEPS
        )
        for way in ("sum", "mean", "perp", "salient", "top_k")
    },
    "sega": Cell(
        JOINED,
        guidance=Guidance(4.0, guider="sega", settings={"edit_warmup_steps": 1}),
        encoder=Encoder(language="a1111"),
        sampler=STEPS,
    ),
    "regions": Cell(
        JOINED,
        guidance=Guidance(4.0, combine="mean", regions=[[0, 0, 0.5, 1], [0.5, 0, 1, 1]]),
        encoder=Encoder(language="a1111"),
        sampler=STEPS,
    ),
    **{
        f"loss {form}": Cell(
            PROMPT, guidance=Guidance(4.0, loss=Loss(Colour(blue=0.9), 5.0, every=2, form=form)), sampler=STEPS
        )
        for form in ("latents", "unet", "universal")
    },
    "maps": Cell(PROMPT, HALF, attention=Attention(maps=True), sampler=STEPS),
    "reweighted": Cell(PROMPT, attention=Attention(edits=[Reweight("puppy", 3.0)]), sampler=STEPS),
    "in a box": Cell(PROMPT, attention=Attention(edits=[Confine("puppy", (0, 0, 0.5, 1))]), sampler=STEPS),
    "prompt to prompt": Cell(
        PROMPT,
        (Replace("puppy", "fox"),),
        attention=Attention(edits=[During(CopyCross(), end=0.8), During(CopySelf(), end=0.4)]),
        sampler=STEPS,
    ),
    "one block": Cell(PROMPT, (Interpolate("puppy", "fox", 1.0, blocks=["mid"]),), sampler=STEPS),
    "one layer": Cell(PROMPT, (Scale("puppy", 2.0, stage={"layer": 1}),), sampler=STEPS),
    "inpainted": Cell(PROMPT, start=Start(picture(), mask=whiteness()), sampler=STEPS),
    "variation": Cell(PROMPT, start=Start(variation={"seed": 7, "strength": 0.3}), sampler=STEPS),
    "inverted": Cell(PROMPT, HALF, start=Inversion(picture()), sampler=STEPS),
    "inverted by dpm": Cell(PROMPT, start=Inversion(picture()), sampler=Sampler("dpmpp_2m", 4)),
    "null text": Cell(
        PROMPT,
        start=Inversion(picture(), unconditional="null_text", iterations=2),
        guidance=Guidance(3.0),
        sampler=STEPS,
    ),
    "edited late": Cell(PROMPT, (During(HALF[0], begin=0.5),), sampler=STEPS),
    "watched": Cell(
        PROMPT, sampler=Sampler("ddim", 4, keep=["start", "every 2"], watch=["latents", "predictions", "curves"])
    ),
    **{f"{one.scheduler} {n}": Cell(PROMPT, sampler=one) for n, one in enumerate(OPTIONS)},
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_it_ends_as_on_the_cpu(load, kind, name):
    (here,), (there,) = (render(load(kind, device=d), [CELLS[name]], SEEDS) for d in (DEVICE, "cpu"))
    near(here.latents, there.latents)
    if there.maps is not None:
        assert here.maps.words == there.maps.words
        near(here.maps.heat, there.maps.heat)
    for a, b in zip(here.curves, there.curves, strict=True):
        assert a.keys() == b.keys()
        for line in a:
            assert a[line] == pytest.approx(b[line], rel=2e-3, abs=1e-3), line


def test_all_of_it_in_one_batch_is_each_alone(load):
    """Rows of different guiders, maps beside none, shared rows."""
    model, many = load("sd1"), list(CELLS.values())
    for together, one in zip(render(model, many, SEEDS), many, strict=True):
        (alone,) = render(model, [one], SEEDS, at_once=1)
        near(together.latents, alone.latents)


def test_half_precision_does_it_all(load):
    for one in render(load("sd1", "bfloat16"), list(CELLS.values()), SEEDS):
        assert torch.isfinite(one.latents).all()
