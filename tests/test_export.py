"""Conditionings that leave: diffusers' own pipelines, given them, make our pictures."""

import json
import math

import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from PIL import Image
from safetensors.torch import save_file

from embedlab import (
    Blend,
    Cell,
    Guidance,
    Interpolate,
    Job,
    Ramp,
    Sampler,
    Scale,
    Source,
    edit,
    embed_all,
    encode,
    equal_lengths,
    load_embeds,
    prompt_embeds,
    render,
    save_embeds,
    text_encoders_of,
)
from embedlab.condition import condition
from embedlab.errors import EmbedlabError, OperatorError
from embedlab.export import recipe
from embedlab.sweep.run import run_jobs
from embedlab.sweep.store import Store

PROMPT = "A picture of a puppy"
EDIT = (Interpolate("puppy", "skunk", 0.5), Scale({"role": "pad"}, 0.5, "hidden"))
LONG = "a red star, " * 40


@pytest.mark.turns
@pytest.mark.parametrize(
    ("prompt", "negative"), [(PROMPT, None), (PROMPT, "blurry"), (LONG + PROMPT, "blurry"), (PROMPT, LONG)]
)
def test_a_pipeline_that_is_handed_our_embeds_draws_our_picture(model, pipeline, prompt, negative):
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    cell = Cell(prompt, EDIT, guidance=Guidance(3, negative), sampler=Sampler("ddim", steps=3))
    embeds = prompt_embeds(cell, text_encoders_of(pipeline))
    (one,) = condition([cell], model.towers)
    for name, own in (("prompt_embeds", one.cond), ("negative_prompt_embeds", one.uncond)):
        assert embeds[name].shape == embeds["prompt_embeds"].shape, "of one length"
        if negative is not None:
            torch.testing.assert_close(embeds[name][0, : len(own.hidden)], own.hidden, atol=1e-5, rtol=0)
    theirs = pipeline(
        **embeds,
        num_inference_steps=3,
        guidance_scale=3,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
        width=16,
        height=16,
    ).images
    (ours,) = render(model, [cell], [5])
    torch.testing.assert_close(ours.latents, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("long", "short"), [(1, 1), (2, 1), (3, 2), (5, 4)])
def test_conditionings_repeated_to_one_length_say_what_they_said(model, long, short):
    towers = model.towers
    texts = ["a red star, " * (18 * n) for n in (long, short)]
    before = encode([embed_all(text, towers) for text in texts], towers)
    after = equal_lengths(before)
    assert [len(c.hidden) for c in after] == [math.lcm(long, short) * 77] * 2
    x, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor(500)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(new.hidden[: len(old.hidden)], old.hidden)
        assert new.rows[: len(old.rows)] == old.rows
        assert set(new.rows[len(old.rows) :]) <= {-1}
        more = {"text_embeds": old.pooled[None], "time_ids": torch.zeros(1, 6)} if model.size_conditioned else None
        one, other = (model.unet(x, t, c.hidden[None], added_cond_kwargs=more).sample for c in (old, new))
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_lengths_that_only_meet_far_out_are_refused(sd1):
    runs = encode([embed_all("a star " * n, sd1.towers) for n in (50, 120)], sd1.towers, "run")
    with pytest.raises(
        OperatorError, match=r"152, 302 rows come to one length at 22952 rows only.*encoder\.join=windows"
    ):
        equal_lengths(runs)


@pytest.mark.turns
@pytest.mark.parametrize("prompt", ["<my-cat> on a bench", "a photo of <my-cat>", "a <my-cat>, a dog and <my-cat>!"])
def test_a_concept_of_several_vectors_is_read_as_its_pipeline_reads_it(pipeline, kind, prompt, tmp_path):
    parts = [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")][: 1 + (kind == "sdxl")]
    for n, (encoder, tokenizer) in enumerate(parts):
        own = getattr(pipeline, encoder)
        vectors = torch.randn(4, own.config.hidden_size, generator=torch.Generator().manual_seed(n))
        save_file({"<my-cat>": vectors}, tmp_path / "my-cat.safetensors")
        file = str(tmp_path / "my-cat.safetensors")
        pipeline.load_textual_inversion(
            file, token="<my-cat>", text_encoder=own, tokenizer=getattr(pipeline, tokenizer)
        )
    towers = text_encoders_of(pipeline)
    theirs = pipeline.encode_prompt(prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)[0]
    made = embed_all(prompt, towers)
    (told,) = encode([made], towers)
    assert torch.equal(told.hidden, theirs[0])
    written_out = pipeline.maybe_convert_prompt(prompt, pipeline.tokenizer)
    assert torch.equal(encode([embed_all(written_out, towers)], towers)[0].hidden, told.hidden)
    for part in made:
        first = part.tokens.rows("<my-cat>")[0]
        assert len(first) == 4
        assert [word.text for word in part.tokens.words if word.rows == first] == ["<my-cat>"]
    halved = edit(made, [Scale("<my-cat>", 0.5)], towers)
    for part, old in zip(halved, made, strict=True):
        changed = (part.token != old.token).any(-1).flatten().nonzero().flatten().tolist()
        assert changed == [row for span in old.tokens.rows("<my-cat>") for row in span]


def test_img2img_and_controlnet_take_them_too(pipeline, kind):
    xl = kind == "sdxl"
    parts = pipeline.components
    cell = Cell(PROMPT, [*EDIT, Blend("a cat", 0.5)])
    embeds = prompt_embeds(cell, text_encoders_of(pipeline))
    picture = Image.new("RGB", (16, 16), "red")
    extra = {} if xl else {"requires_safety_checker": False}
    settings = {"num_inference_steps": 2, "output_type": "latent"}
    again = (StableDiffusionXLImg2ImgPipeline if xl else StableDiffusionImg2ImgPipeline)(**parts, **extra)
    again.set_progress_bar_config(disable=True)
    assert torch.isfinite(again(**embeds, image=picture, strength=0.9, **settings).images).all()
    net = ControlNetModel.from_unet(pipeline.unet, conditioning_embedding_out_channels=(4, 8))
    steered = (StableDiffusionXLControlNetPipeline if xl else StableDiffusionControlNetPipeline)(
        **parts, controlnet=net, **extra
    )
    steered.set_progress_bar_config(disable=True)
    made = steered(**embeds, image=picture, width=16, height=16, **settings).images
    assert torch.isfinite(made).all()


def test_a_file_holds_the_tensors_and_their_recipe(model, tmp_path):
    cell = Cell(PROMPT, [*EDIT, Interpolate("picture", torch.zeros(model.towers[0].width), 0.1)][:2])
    embeds = prompt_embeds(cell, model.towers)
    path = save_embeds(tmp_path / "deep" / "puppy.safetensors", embeds, {"cell": cell})
    tensors, made_by = load_embeds(path)
    assert set(tensors) == set(embeds)
    assert all(torch.equal(tensors[name], embeds[name]) for name in embeds)
    assert made_by["cell"]["prompt"] == PROMPT
    assert made_by["cell"]["operators"][0] == recipe(EDIT[0])
    assert json.loads(json.dumps(made_by)) == made_by
    assert [p.name for p in path.parent.iterdir()] == ["puppy.safetensors"]


def test_a_recipe_of_vectors_names_them_by_content():
    one, two = (recipe(Interpolate("cat", torch.full((4,), v), 0.5))["toward"] for v in (1.0, 2.0))
    assert one["tensor"] == two["tensor"] == [4]
    assert one["sha256"] != two["sha256"]


def test_what_cannot_leave_is_refused(sd1, tmp_path):
    timed = Cell(PROMPT, [Interpolate("puppy", "cat", Ramp([0, 1]))])
    with pytest.raises(EmbedlabError, match="take one moment of it"):
        prompt_embeds(timed, sd1.towers)
    (tmp_path / "text").write_text("no")
    with pytest.raises(EmbedlabError, match="is not a safetensors file that can be read"):
        load_embeds(tmp_path / "text")
    with pytest.raises(EmbedlabError, match="cannot be written"):
        save_embeds(tmp_path / "text" / "x.safetensors", {"a": torch.ones(1)})


def test_a_job_writes_them_when_asked(tmp_path):
    cell = Cell(PROMPT, EDIT, sampler=Sampler("ddim", steps=1))
    job = Job(Source("emoji"), cell, (0,), tmp_path, export=True)
    assert not run_jobs([job], Store(tmp_path / ".cells")).failures
    tensors, made_by = load_embeds(tmp_path / "conditioning.safetensors")
    assert tensors["prompt_embeds"].shape == (1, 77, 96)
    assert made_by["model"] == "emoji"
    rows, again = load_embeds(tmp_path / "rows.safetensors")
    assert again == made_by
    assert {name: tuple(rows[name].shape) for name in rows} == {
        "token": (1, 77, 96),
        "position": (1, 77, 96),
        "ids": (1, 77),
    }
    with pytest.raises(EmbedlabError, match="this cell changes over time"):
        Job(Source("emoji"), Cell(PROMPT, guidance=Guidance(Ramp([1, 2]))), (0,), tmp_path, export=True)
