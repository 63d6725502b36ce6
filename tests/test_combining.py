"""Several prompts in one picture: sums, means, right angles, regions, concepts."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import diffusers
import pytest
import torch
from conftest import open_pipeline
from diffusers.pipelines.deprecated.semantic_stable_diffusion import SemanticStableDiffusionPipeline
from parity import close
from PIL import Image

from embedlab import Cell, Encoder, Guidance, Job, Sampler, Source, Switch, embed_all, encode, render
from embedlab.cell import cells_per_call, denoiser_calls
from embedlab.composition import named_sections
from embedlab.errors import PictureError, PromptError, SamplerError
from embedlab.guidance import combine, guided, masks_of
from embedlab.language import parse, write
from embedlab.language.tree import Text
from embedlab.validate import validate

A1111 = Encoder(language="a1111")
LEFT, RIGHT = [0, 0, 0.5, 1], [0.5, 0, 1, 1]


def cell_of(prompt, guidance, steps=4, **more):
    return Cell(prompt, encoder=A1111, guidance=guidance, sampler=Sampler("ddim", steps), **more)


def latents(model, prompt, seeds=(0,), steps=4, **settings):
    return render(model, [cell_of(prompt, Guidance(4.0, **settings), steps)], seeds)[0].latents


def changes_of(count=3, seed=0):
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


# ── formulas ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parity(
    "sd-webui-neutral-prompt",
    "AND_PERP, AND_SALT, AND_TOPK",
    "guidance.combine, and words of language=a1111",
    "formula",
)
def test_the_ways_are_those_of_neutral_prompt():
    first, second, third = changes_of()
    base = 0.8 * first
    right = second - base * (base * second).sum() / base.norm() ** 2
    close(combine(torch.stack([first, second]), [0.8, 0.5], ["sum", "perp"]), base + 0.5 * right)
    maps = [one.abs().flatten().softmax(0).reshape_as(one) for one in (base, second, third)]
    speaks = torch.stack(maps).argmax(0)
    said = base + 0.5 * (speaks == 1) * (second - base) - 0.7 * (speaks == 2) * (third - base)
    close(combine(torch.stack([first, second, third]), [0.8, 0.5, -0.7], ["sum", "salient", "salient"]), said)
    least = second.abs().flatten().kthvalue(int(second.numel() * 0.95)).values
    kept = second * (second.abs() >= least)
    close(combine(torch.stack([first, second]), [0.8, 0.5], ["sum", "top_k"]), base + 0.5 * kept)
    assert int((kept != 0).sum()) == 14


WORDED = {
    "perp": ("a puppy AND_PERP a hat:0.5", "a puppy AND a hat:0.5", ["perp"]),
    "negative": ("a puppy AND_PERP a hat:-1", "a puppy AND a hat:-1", ["perp"]),
    "all": (
        "a puppy AND_SALT a hat AND_TOPK snow:0.7 AND grass",
        "a puppy AND a hat AND snow:0.7 AND grass",
        ["salient", "top_k", "sum"],
    ),
    "mean": ("a puppy AND grass AND_PERP a hat", "a puppy AND grass AND a hat", ["mean", "perp"]),
}


@pytest.mark.parametrize("case", WORDED)
def test_words_beside_and_are_the_ways_of_combine(emoji, case):
    worded, plain, ways = WORDED[case]
    default = "mean" if "mean" in ways else "sum"
    assert torch.equal(latents(emoji, worded, combine=default), latents(emoji, plain, combine=ways))
    assert not torch.equal(latents(emoji, worded, combine=default), latents(emoji, plain, combine=default))


def test_words_beside_and_may_change_over_time_and_are_written_as_they_are_read():
    cell = cell_of(Switch(["a puppy AND_PERP a hat", "a puppy AND a hat"], at=0.5), Guidance(4.0))
    calls = denoiser_calls(cell, Source("emoji").scheduler)
    assert [one.guidance.combine for one in cells_per_call(cell, calls)] == [["perp"], ["perp"], "sum", "sum"]
    assert cell.parsed().parsed() == cell.parsed()
    (tokens,) = validate(cell_of("a puppy AND_PERP a hat:0.5", Guidance(4.0)), Source("emoji"))
    assert [name for _, name in named_sections(tokens.layout)] == ["AND 1", "AND_PERP 0.5"]
    for text in ("a puppy AND_PERP a hat:0.5 AND_SALT snow AND_TOPK grass:-1", "a puppy AND a hat"):
        tree = parse(text, "a1111")
        assert parse(write(tree.root, "a1111"), "a1111").root == tree.root
    assert parse(write((Text("a AND_PERP b"),), "a1111"), "a1111").root == (Text("a AND_PERP b"),)


@pytest.mark.parity(
    "Perp-Neg", "a perpendicular negative prompt (eq. 8)", "guidance.combine=perp, weight < 0", "formula"
)
def test_a_perpendicular_negative_prompt_leaves_what_the_prompt_wants():
    wanted, negative = changes_of(2)
    made = combine(torch.stack([wanted, negative]), [1.0, -1.5], ["sum", "perp"])
    along = (negative * wanted).sum() / (wanted * wanted).sum() * wanted
    close(made, wanted - 1.5 * (negative - along))
    assert abs(float(((made - wanted) * wanted).sum())) < 1e-3


@pytest.mark.parity(
    *("ComfyUI", "ConditioningCombine, areas and masks", "guidance.combine=mean guidance.regions", "formula"),
    differs="where no mask is, ComfyUI predicts nothing, and here the picture is what it is without a prompt",
)
def test_a_mean_is_that_of_comfyui():
    first, second = changes_of(2)
    uncond = changes_of(1, seed=9)[0]
    masks = [torch.rand(8, 8, generator=torch.Generator().manual_seed(n)) for n in (1, 2)]
    out, counts = torch.zeros(4, 8, 8), torch.full((4, 8, 8), 1e-37)
    for change, weight, mask in ((first, 1.0, masks[0]), (second, 0.5, masks[1])):
        out += (uncond + change) * (mask * weight)
        counts += mask * weight
    made = uncond + combine(torch.stack([first, second]), [1.0, 0.5], ["mean", "mean"], masks)
    close(made, out / counts)
    nowhere = combine(torch.stack([first, second]), [1, 1], ["mean", "mean"], [torch.zeros(8, 8)] * 2)
    assert not nowhere.any()


@pytest.mark.parity("diffusers", "SemanticStableDiffusionPipeline (SEGA)", "guidance=sega", "live")
def test_concepts_are_those_of_the_semantic_pipeline(folders, sd1):
    """Theirs reads texts itself, so that both are given the same ones; clip_sample is off in both."""
    pipe = open_pipeline(folders["sd1"])
    own = SemanticStableDiffusionPipeline(
        vae=pipe.vae,
        text_encoder=pipe.text_encoder,
        tokenizer=pipe.tokenizer,
        unet=pipe.unet,
        scheduler=diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    own.set_progress_bar_config(disable=True)
    steps, edits = 4, {"edit_warmup_steps": 1, "edit_threshold": 0.8, "edit_guidance_scale": 2.0}
    theirs = own(
        "a puppy",
        negative_prompt="a cat",
        num_inference_steps=steps,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
        editing_prompt=["a fox", "snow"],
        reverse_editing_direction=[False, True],
        edit_weights=[1.0, 0.5],
        edit_cooldown_steps=[3, 3],
        **edits,
    ).images
    guidance = Guidance(2.0, "a cat", guider="sega", settings={"edit_cooldown_steps": 3, **edits})
    ours = render(sd1, [cell_of("a puppy AND a fox AND snow:-0.5", guidance, steps)], (3,))[0].latents
    close(ours, theirs, atol=1e-5, rtol=1e-5)


# ── laws ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sum_is_what_it_was_and_other_ways_are_others(sd1):
    prompt = "a puppy AND a fox:0.6"
    plain = latents(sd1, prompt)
    told, other, empty = encode([embed_all(text, sd1.towers) for text in ("a puppy", "a fox", "")], sd1.towers)
    both = dataclasses.replace(told, others=((0.6, other),))
    x, t = torch.randn(1, 4, 8, 8), torch.tensor(500)
    with torch.inference_mode():
        made = guided(sd1.unet, [both], [empty], [4.0])(x, t)
        none, one, two = (sd1.unet(x, t, c.hidden[None]).sample for c in (empty, told, other))
    torch.testing.assert_close(made, none + 4 * (one - none + 0.6 * (two - none)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(latents(sd1, prompt, regions=[None, None]), plain, atol=2e-5, rtol=1e-5)
    found = [plain, *(latents(sd1, prompt, combine=way) for way in ("mean", "perp", "salient", "top_k"))]
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in pairwise(found))


@pytest.mark.parametrize("way", ["sum", "perp", "top_k"])
def test_a_prompt_of_no_weight_is_not_there(sd1, way):
    alone = latents(sd1, "a puppy")
    torch.testing.assert_close(latents(sd1, "a puppy AND a fox:0", combine=way), alone, atol=2e-5, rtol=1e-5)


def test_a_way_for_one_prompt_changes_no_bit(sd1):
    plain = latents(sd1, "a puppy", interval=[0, 1])
    assert torch.equal(latents(sd1, "a puppy", combine="perp"), plain)
    assert torch.equal(latents(sd1, "a puppy", regions=[None]), plain)


def test_the_mean_of_a_prompt_with_itself_is_the_prompt(sd1):
    twice = latents(sd1, "a puppy AND a puppy:3", combine="mean")
    torch.testing.assert_close(twice, latents(sd1, "a puppy"), atol=2e-5, rtol=1e-5)


def test_a_region_is_its_part_of_the_picture(sd1):
    """One step, so that no place has seen another yet but through the UNet itself."""
    both = latents(sd1, "a puppy AND a fox", steps=1, regions=[LEFT, RIGHT])
    left, right = latents(sd1, "a puppy", steps=1), latents(sd1, "a fox", steps=1)
    torch.testing.assert_close(both[..., :4], left[..., :4], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(both[..., 4:], right[..., 4:], atol=2e-5, rtol=1e-5)


def test_a_mask_from_a_file_is_the_box_that_it_draws(sd1, tmp_path):
    file = tmp_path / "left.png"
    mask = Image.new("L", (16, 16))
    mask.paste(255, (0, 0, 8, 16))
    mask.save(file)
    regions = [str(file), RIGHT]
    drawn = latents(sd1, "a puppy AND a fox", regions=regions)
    assert torch.equal(drawn, latents(sd1, "a puppy AND a fox", regions=[LEFT, RIGHT]))
    cell = cell_of("a puppy AND a fox", Guidance(4.0, regions=regions))
    before = Job(Source("emoji"), cell, (0,), Path()).pictures
    mask.paste(255, (0, 0, 16, 16))
    mask.save(file)
    assert Job(Source("emoji"), cell, (0,), Path()).pictures != before, "another mask of the same name"
    assert float(masks_of([str(file)], 1, (8, 8))[0].min()) == 1


def test_pictures_of_all_kinds_share_a_batch(sd1):
    cells = [
        cell_of("a puppy", Guidance(4.0)),
        cell_of("a puppy AND a fox AND snow", Guidance(4.0, combine=["perp", "sum"])),
        cell_of("a puppy AND a fox", Guidance(3.0, guider="apg", combine="mean", regions=[LEFT, None])),
        cell_of("a puppy AND a fox", Guidance(4.0, guider="pag", interval=[0, 0.5])),
        cell_of("a puppy AND a fox:2", Guidance(4.0, guider="sega", settings={"edit_warmup_steps": 0})),
        cell_of("a puppy", Guidance(4.0, guider="sega")),
        cell_of("a puppy AND a fox", Guidance(1.0)),
    ]
    together = render(sd1, cells, (0, 1))
    for cell, many in zip(cells, together, strict=True):
        alone = render(sd1, [cell], (1,))[0].latents
        torch.testing.assert_close(many.latents[1:], alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(together[5].latents, together[0].latents, atol=1e-4, rtol=0)


# ── what cannot be ────────────────────────────────────────────────────────────────────────────────────────────────

TWO = "a puppy AND a fox"
REFUSED = {
    "way": (TWO, {"combine": "orthogonal"}, "guidance.combine is 'orthogonal'; choose one of sum, mean, perp"),
    "no way": (TWO, {"combine": []}, "guidance.combine is empty"),
    "both": (TWO, {"combine": ["mean", "sum"]}, "holds mean and sum"),
    "too many": (TWO, {"combine": ["perp", "perp"]}, "has 2 ways, and 1 prompt follows an AND"),
    "regions": (TWO, {"regions": "left"}, "guidance.regions is .*; it has to be a list, for each prompt a box"),
    "regions of one": (TWO, {"regions": [LEFT]}, "has 1 region and the prompt 2 parts"),
    "inside out": (TWO, {"regions": [[0.5, 0, 0.2, 1], None]}, "a box is .* in shares of the picture"),
    "pixels": (TWO, {"regions": [[0, 0, 64, 128], None]}, "a box is .* in shares of the picture"),
    "too small": (TWO, {"regions": [[0, 0, 0.01, 1], None]}, "holds no place of 16 × 16 latents; make it larger"),
    "words and a list": (
        "a puppy AND_PERP a fox",
        {"combine": ["salient"]},
        "the prompt says by itself how its parts come together",
    ),
    "words of sega": ("a puppy AND_PERP a fox", {"guider": "sega"}, "leave guidance.combine and AND_… out"),
    "sega": (TWO, {"guider": "sega", "regions": [LEFT, None]}, "guidance=sega finds by itself where concepts are"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_combined_is_refused_before_weights(case):
    prompt, settings, line = REFUSED[case]
    with pytest.raises((SamplerError, PromptError), match=line):
        validate(cell_of(prompt, Guidance(4.0, **settings)), Source("emoji"))


def test_a_mask_that_does_not_fit_is_refused_before_weights(tmp_path):
    def refused(name):
        validate(cell_of(TWO, Guidance(4.0, regions=[str(tmp_path / name), None])), Source("emoji"))

    with pytest.raises(PictureError, match="and there is no such file"):
        refused("none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(PictureError, match="cannot be read as a picture"):
        refused("text.png")
    Image.new("L", (32, 16), 255).save(tmp_path / "wide.png")
    with pytest.raises(SamplerError, match="the mask wide.png is 32 × 16, of another shape than the picture's 16 × 16"):
        refused("wide.png")
    Image.new("L", (16, 16), 0).save(tmp_path / "black.png")
    with pytest.raises(SamplerError, match="the mask black.png is black"):
        refused("black.png")
