"""A word's rows are learned: the loss falls, the model stays as it was, and what is saved is what was learned."""

import contextlib
import csv
import dataclasses
import inspect
import json
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from omegaconf import OmegaConf
from PIL import Image

import embedlab as lab
from embedlab import images
from embedlab.errors import ConfigError, ModelError, PictureError, PromptError
from embedlab.learning.hard import typed_ids
from embedlab.limits import CHECKS, SHIPPED
from embedlab.metrics.clip_score import clip_scores
from embedlab.models.loading import models_read
from embedlab.sweep.config import conf_dir
from embedlab.token_ids import ids_of
from embedlab.view.replay import replay

CAT = "a picture of a cat"
WAYS = {
    "denoising": {"like": ["puppy.png"], "steps": 4, "batch": 2},
    "clip": {"like": ["puppy.png"], "by": "clip", "steps": 10},
    "text": {"text": CAT, "steps": 10, "begin": "puppy"},
    "two prompts": {"text": CAT, "prompt": ["a <x> on grass", "two <x> <x>"], "steps": 10},
    "hard": {"text": CAT, "hard": True, "vectors": 2, "steps": 10, "rate": 1.0},
    "hard by denoising": {"like": ["puppy.png"], "by": "denoising", "hard": True, "steps": 4, "rate": 3.0, "batch": 2},
    "positions": {"text": CAT, "prompt": "a puppy", "table": "position", "steps": 5},
}


def learned(model, way, **more):
    word = "puppy" if way == "positions" else "<x>"
    return lab.learn(model, word, **WAYS[way] | more)


def weights_of(model):
    parts = [*(tower.encoder for tower in model.towers), model.unet, model.vae, model.scorer.image]
    return [tensor for part in parts for tensor in part.state_dict(keep_vars=True).values()]


@pytest.fixture(scope="module")
def small(folders):
    return {kind: lab.load(str(folders[kind]), device="cpu") for kind in ("sd1", "sd2", "sdxl")}


# ── laws ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.turns
@pytest.mark.parametrize("way", WAYS)
def test_the_loss_falls_and_the_same_seed_learns_the_same(emoji, way):
    first, again = learned(emoji, way), learned(emoji, way)
    assert first.after < first.before
    assert len(first.curve) == WAYS[way]["steps"]
    assert first.curve == again.curve
    assert all(torch.equal(a, b) for a, b in zip(first.rows, again.rows, strict=True))
    assert all(rows.dtype == torch.float32 and not rows.requires_grad for rows in first.rows)


@pytest.mark.turns
@pytest.mark.parametrize("way", WAYS)
def test_the_model_stays_as_it_was(emoji, way):
    before = [tensor.detach().clone() for tensor in weights_of(emoji)]
    sizes = [len(tower.tokenizer) for tower in emoji.towers]
    trained = list(emoji.unet.parameters())
    for weight in trained:
        weight.requires_grad_()  # as in a pipeline of somebody's own
    try:
        learned(emoji, way, steps=2)
    finally:
        for weight in trained:
            weight.requires_grad_(False)
    assert all(torch.equal(old, new) for old, new in zip(before, weights_of(emoji), strict=True))
    assert all(tensor.grad is None for tensor in weights_of(emoji))
    assert [len(tower.tokenizer) for tower in emoji.towers] == sizes
    assert all(tower.added is None for tower in emoji.towers)


@pytest.mark.turns
def test_another_seed_sees_other_noise(emoji):
    one, other = (learned(emoji, "denoising", steps=2, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.rows[0], other.rows[0])


def test_grad_modes_of_the_caller_change_nothing(emoji):
    wanted = learned(emoji, "text", steps=3)
    for mode in (torch.inference_mode(), torch.no_grad()):
        with mode:
            assert torch.equal(learned(emoji, "text", steps=3).rows[0], wanted.rows[0])


@pytest.mark.turns
def test_rows_begin_at_a_word_at_several_or_at_the_mean_of_all(emoji):
    table = emoji.towers[0].token_table
    still = {"text": CAT, "steps": 1, "rate": 1e-7}
    for begin, vectors, ids in (("puppy", 1, [6829]), ("puppy", 3, [6829] * 3), ("cat puppy", 3, [2368, 6829, 2368])):
        rows = lab.learn(emoji, "<x>", begin=begin, vectors=vectors, **still).rows[0]
        torch.testing.assert_close(rows, table[ids], atol=1e-6, rtol=0)
    words = table[typed_ids(emoji.towers[0].tokenizer, emoji.words)]
    torch.testing.assert_close(lab.learn(emoji, "<x>", **still).rows[0][0], words.mean(0), atol=1e-6, rtol=0)


@pytest.mark.turns
@pytest.mark.parametrize("way", ["hard", "hard by denoising"])
def test_hard_rows_are_rows_of_the_vocabulary_to_the_bit_and_can_be_typed(emoji, way):
    one = learned(emoji, way)
    ids = ids_of(one.text, emoji.towers[0].tokenizer)
    assert len(ids) == len(one.rows[0])
    assert torch.equal(one.rows[0], emoji.towers[0].token_table[ids])
    assert set(one.text.split()) <= set(emoji.words), "a row that was never trained means nothing"


def test_words_that_can_be_typed_are_read_back_as_themselves_side_by_side():
    words = lab.Source("emoji").tokenizers[0]
    ids = typed_ids(words)
    assert len(ids) > 30_000
    some = ids[:: len(ids) // 500].tolist()
    assert ids_of(" ".join(words.decode([number]).strip() for number in some), words) == some


@pytest.mark.turns
def test_a_hard_prompt_finds_the_words_of_a_text(emoji):
    for text in ("a picture of a rocket", "a picture of a dog"):
        found = lab.learn(emoji, "<x>", text=text, hard=True, rate=1.0)
        assert f"a picture of a {found.text}" == text
        assert found.after == pytest.approx(0, abs=1e-5)


def test_position_rows_are_learned_in_the_place_of_the_prompts_own(emoji):
    one = learned(emoji, "positions")
    assert one.concept is None
    edited = lab.edit(
        lab.embed_all("a puppy", emoji.towers), [lab.Replace("puppy", one.rows[0], "position")], emoji.towers
    )
    pooled, cat, before = (
        lab.encode([prompt], emoji.towers)[0].pooled
        for prompt in (edited, lab.embed_all(CAT, emoji.towers), lab.embed_all("a puppy", emoji.towers))
    )
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(pooled, cat, dim=0).item() == pytest.approx(1 - one.after, abs=1e-6)
    assert cosine(before, cat, dim=0).item() == pytest.approx(1 - one.before, abs=1e-6)
    with pytest.raises(ConfigError, match="learned position rows"):
        one.save("nowhere.safetensors")


@pytest.mark.turns
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("way", ["denoising", "text"])
def test_every_kind_of_model_learns_for_all_its_encoders_and_keeps_it_in_a_file(small, folders, kind, way, tmp_path):
    model = small[kind]
    one = learned(model, way, vectors=2, steps=3, seed=3)
    assert [tuple(rows.shape) for rows in one.rows] == [(2, tower.width) for tower in model.towers]
    assert way == "denoising" or one.after < one.before, "a UNet of random weights hears little of a word"
    named = lab.load(str(folders[kind]), device="cpu", concepts=[f"<x>={one.save(tmp_path / 'x.safetensors')}"])
    for part, rows in zip(lab.embed_all("A picture of a <x>", named.towers), one.rows, strict=True):
        assert torch.equal(part.take("token", part.tokens.rows("<x>"))[0], rows)
    ready = lab.learn(named, "<y>", text="a <x>", steps=2)
    assert ready.concept.names == ("<y>",), "beside a concept that is there"


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_the_denoising_loss_is_that_of_diffusers_training(small, kind):
    """diffusers' example of textual inversion again: its scheduler, the UNet called by hand, the target by name."""
    model = small[kind]
    one = lab.learn(model, "<x>", like=["puppy.png"], begin="cat", batch=2, steps=1, seed=5)
    random = torch.Generator().manual_seed(5 * 1_000_003)
    torch.randint(1, (2,), generator=random)
    times = ((torch.arange(2) + torch.rand(2, generator=random)) * 500).long()
    assert times[0] < 500 <= times[1]
    picture = images.to_tensor(images.open_picture(SHIPPED / "puppy.png"), (model.size, model.size))
    latents = lab.picture_latents(model.vae, picture * 2 - 1, lab.generators([0])).repeat(2, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=random)
    scheduler = DDPMScheduler.from_config({**model.scheduler, "clip_sample": False})
    (cond,) = lab.encode([lab.embed_all("A picture of a cat", model.towers)], model.towers)
    more = {}
    if kind == "sdxl":
        ids = torch.tensor([[model.size, model.size, 0, 0, model.size, model.size]] * 2)
        more = {"added_cond_kwargs": {"text_embeds": cond.pooled.expand(2, -1), "time_ids": ids}}
    with torch.no_grad():
        noisy = scheduler.add_noise(latents, noise, times)
        predicted = model.unet(noisy, times, encoder_hidden_states=cond.hidden.expand(2, -1, -1), **more).sample
    velocity = model.scheduler["prediction_type"] == "v_prediction"
    target = scheduler.get_velocity(latents, noise, times) if velocity else noise
    assert velocity == (kind == "sd2")
    assert one.curve[0] == pytest.approx((predicted - target).square().mean().item(), rel=1e-5)


READ = {
    "a picture of a (<x>:1.3) on grass": {"language": "a1111", "weighting": "a1111"},
    "a (<x>:0.7) BREAK on grass": {"language": "a1111"},
    "a <x>++ on grass": {"language": "compel", "weighting": "compel"},
    "a (<x>)0.5 on grass": {"language": "compel"},
    "a <x> AND a dog": {"language": "a1111"},
    "((<x>:1.3))": {"language": "comfyui", "weighting": "comfyui"},
    "a {<x>|cat:0.3}": {},
}


@pytest.mark.turns
@pytest.mark.parametrize("prompt", READ)
@pytest.mark.parametrize("way", ["denoising", "text"])
def test_a_word_is_learned_in_a_prompt_of_any_language(small, prompt, way):
    """Weightings encode variants of a prompt, with the word in them; AND is heard beside the empty prompt."""
    how = {"encoder": lab.Encoder(**READ[prompt]), "begin": "puppy", "rate": 0.01}
    one = learned(small["sd1"], way, prompt=prompt, **how | {"steps": 2})
    rows = one.rows[0] - small["sd1"].towers[0].token_table[[6829]]
    assert rows.abs().min() > 0
    assert one.before != one.after


def test_a_prompt_that_changes_over_time_teaches_nothing(folders):
    source, how = lab.Source(str(folders["sd1"]), dtype="bfloat16"), lab.Encoder(language="a1111")
    read = models_read()
    for settings in ({"prompt": "a [<x>:cat:0.5]", "text": CAT}, {"text": "a [dog:cat:0.5]"}):
        with pytest.raises(PromptError, match="changes over time"):
            lab.learn(source, "<x>", encoder=how, **settings)
    assert models_read() == read


# ── something learned ─────────────────────────────────────────────────────────────────────────────────────────────


def drawn(model, prompt, seeds, steps=8):
    return lab.render(model, [lab.Cell(prompt, sampler=lab.Sampler(steps=steps))], seeds)[0].pictures


@pytest.mark.turns
@pytest.mark.parametrize("way", ["denoising", "clip", "text"])
def test_a_learned_word_is_drawn_whatever_the_seed(emoji, way, tmp_path):
    """CLIPScore rises and the detector finds what was meant, with every seed of learning and of drawing."""
    rockets = drawn(emoji, "A picture of a rocket", [10, 11, 12, 13], 12)
    aim = {
        "denoising": {"like": list(rockets), "steps": 60},
        "clip": {"like": list(rockets), "by": "clip"},
        "text": {"text": "a picture of a rocket"},
    }[way]
    before = drawn(emoji, "A picture of a puppy", [0, 1, 2])
    wanted = clip_scores(emoji.scorer, before, ["a picture of a rocket"]).flatten()
    for seed in (0,) if way == "denoising" else (0, 1):
        one = lab.learn(emoji, "<my-rocket>", begin="puppy", seed=seed, **aim)
        file = one.save(tmp_path / f"{seed}.safetensors")
        after = drawn(lab.load("emoji", concepts=[str(file)]), "A picture of a <my-rocket>", [0, 1, 2])
        assert (clip_scores(emoji.scorer, after, ["a picture of a rocket"]).flatten() > wanted + 15).all()
        assert min(found.presence("rocket") for found in lab.detect(after, emoji)) > 0.5
        assert one.text == "rocket"


# ── what it is told ───────────────────────────────────────────────────────────────────────────────────────────────

WRONG = {
    "steps is 0": (ConfigError, {"steps": 0}),
    "rate is -1": (ConfigError, {"rate": -1}),
    "rate is nan": (ConfigError, {"rate": float("nan")}),
    "batch is 0": (ConfigError, {"batch": 0}),
    "seed is -1": (ConfigError, {"seed": -1}),
    "vectors is 76": (ConfigError, {"vectors": 76}),
    "hard is 1": (ConfigError, {"hard": 1}),
    "word is ''": (ConfigError, {"word": ""}),
    "word is '<a=b>'": (ConfigError, {"word": "<a=b>"}),
    "'puppy', the name of the concept, is a word of the vocabulary": (ModelError, {"word": "puppy"}),
    "there is nothing to learn from": (ConfigError, {"text": None}),
    "both like and text came": (ConfigError, {"like": ["puppy.png"]}),
    "like is 3": (ConfigError, {"like": 3, "text": None}),
    "like holds 3": (PictureError, {"like": [3], "text": None}),
    "there is no picture 'nowhere.png'": (PictureError, {"like": ["nowhere.png"], "text": None}),
    "is not a picture that can be read": (PictureError, {"like": [__file__], "text": None}),
    "a picture as a tensor has the shape": (PictureError, {"like": [torch.ones(3)], "text": None}),
    "by=denoising learns from images": (ConfigError, {"by": "denoising"}),
    "by is 'lpips'; choose one of denoising, clip": (ConfigError, {"by": "lpips"}),
    "table is 'both'": (ConfigError, {"table": "both"}),
    "table is 'hidden'; choose one of token, position": (ConfigError, {"table": "hidden"}),
    "vectors is 2; a word has as many positions": (ConfigError, {"table": "position", "vectors": 2}),
    "'<x>' is not in the prompt; its words are a, cat": (PromptError, {"prompt": "a cat"}),
    "'skunk' is not in the prompt": (
        PromptError,
        {"table": "position", "word": "cat", "prompt": "a cat", "begin": "skunk"},
    ),
    "prompt is 3": (PromptError, {"prompt": 3}),
    "begin is ''": (ConfigError, {"begin": ""}),
    "model is 3": (ConfigError, {"model": 3}),
}


@pytest.mark.parametrize("line", WRONG)
def test_what_does_not_fit_is_one_line_before_weights_are_read(line, folders):
    error, settings = WRONG[line]
    read = models_read()
    with pytest.raises(error) as caught:
        lab.learn(**{"model": lab.Source(str(folders["sd1"]), dtype="float16"), "word": "<x>", "text": CAT} | settings)
    assert line in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert models_read() == read


def test_losses_that_a_model_has_no_parts_for(small, emoji):
    like = {"like": [Image.new("RGB", (20, 30))], "by": "clip"}
    with pytest.raises(ModelError, match="has no image encoder for by=clip; name one: model.scorer=PATH"):
        lab.learn(dataclasses.replace(small["sd1"], scorer=None), "<x>", **like)
    two = dataclasses.replace(small["sdxl"], scorer=emoji.scorer)
    with pytest.raises(ModelError, match="with one text encoder, and .* has 2; take by=denoising"):
        lab.learn(two, "<x>", **like)
    with pytest.raises(ModelError, match="the token rows of the scorer of .* are not the model's"):
        lab.learn(dataclasses.replace(small["sd1"], scorer=emoji.scorer), "<x>", **like)
    with pytest.raises(ConfigError, match="the engine 'openvino' has no gradients"):
        lab.learn(dataclasses.replace(emoji, engine="openvino"), "<x>", text=CAT)


def test_a_loss_that_is_not_finite_says_so(emoji):
    broken = dataclasses.replace(emoji.towers[0], added=None)
    with torch.no_grad():
        weight = broken.core.final_layer_norm.weight
        kept = weight.clone()
        weight.fill_(torch.nan)
    try:
        with pytest.raises(ConfigError, match="the loss is nan at step 0; take a lower rate"):
            lab.learn(emoji, "<x>", text=CAT, steps=2)
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_the_config_has_the_settings_that_learn_and_its_checks_have():
    names = set(inspect.signature(lab.learn).parameters) - {"model", "prompt", "encoder", "on_step"}
    assert set(OmegaConf.load(Path(conf_dir(), "learn", "default.yaml"))) - {"_target_"} == names
    assert {name for key in CHECKS["embedlab.learn"] for name in key.split()} == names | {"prompt"}
    defaults = {key: p.default for key, p in inspect.signature(lab.learn).parameters.items() if key in names}
    told = OmegaConf.to_container(OmegaConf.load(Path(conf_dir(), "learn", "default.yaml")))
    for name in names - {"word"}:
        assert told[name] == (list(defaults[name]) if name == "like" else defaults[name]), name


@pytest.mark.turns
def test_a_pipeline_of_ones_own_is_learned_with(folders):
    """Through its parts: text encoders that ask for gradients are given none."""
    model = lab.load(str(folders["sd1"]), device="cpu")
    pipe = StableDiffusionPipeline.from_pretrained(folders["sd1"], safety_checker=None)
    mine = dataclasses.replace(model, towers=lab.text_encoders_of(pipe), unet=pipe.unet, vae=pipe.vae)
    assert any(weight.requires_grad for weight in pipe.text_encoder.parameters())
    lab.learn(mine, "<x>", like=["puppy.png"], steps=1, batch=1)
    assert all(w.grad is None for part in (pipe.text_encoder, pipe.unet, pipe.vae) for w in part.parameters())


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_leaves_a_concept_its_curve_and_images_of_it(embedlab, tmp_path, folders):
    with contextlib.suppress(FileExistsError):
        (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "in" / "red one.png")
    words = ["word=<my-cat>", "like=['in/red one.png',puppy.png]", "begin=cat", "steps=3", "batch=2", "vectors=2"]
    code, out, err = embedlab("learn", *words, "hydra.run.dir=out", "tracker=disk")
    assert (code, err) == (0, "")
    assert "learning <my-cat> from 2 images …\n" in out
    assert out.count("step 3 of 3: loss ") == 1
    assert "<my-cat>: loss " in out
    folder = tmp_path / "out"
    (concept,) = lab.load_concepts(folder / "concept.safetensors")
    assert concept.names == ("<my-cat>", "<my-cat>_1")
    with (folder / "learning" / "curve.csv").open() as file:
        curve = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert [n for n, _ in curve] == [0, 1, 2]
    log = [json.loads(line) for line in (folder / "learning" / "log" / "scores.jsonl").read_text().splitlines()]
    assert [(row["step"], row["learn/loss"]) for row in log[:3]] == curve
    about = json.loads((folder / "learning" / "learned.json").read_text())
    assert about["settings"]["word"] == "<my-cat>"
    model = lab.load(str(folders["sd1"]), device="cpu")
    again = lab.learn(model, "<my-cat>", [str(tmp_path / "in" / "red one.png"), "puppy.png"], begin="cat", **SAME)
    assert torch.equal(again.rows[0], concept.vectors[0])
    assert (about["before"], about["after"]) == (again.before, again.after)
    for seed in (0, 1):
        settings = images.settings_of(folder / f"seed-{seed}.png")
        assert settings["config"]["prompt"] == "A picture of a <my-cat>"
        assert settings["concepts"][0]["path"] == "concept.safetensors"
    result = json.loads((folder / "result.json").read_text())
    assert result["command"].startswith("embedlab ")
    assert " learn 'word=<my-cat>' " in result["command"]
    assert replay(folder / "seed-1.png").identical
    code, _, err = embedlab("learn", *words, "hydra.run.dir=out")
    assert code == 2
    assert "holds a result already; name another: hydra.run.dir=FOLDER" in err


SAME = {"steps": 3, "batch": 2, "vectors": 2}


def test_the_command_draws_position_rows_where_they_were_learned(embedlab, tmp_path):
    words = ["word=puppy", "table=position", "prompt=A puppy and a cat", f"text={CAT}", "steps=2"]
    code, out, err = embedlab("learn", *words, "hydra.run.dir=out")
    assert (code, err) == (0, "")
    assert "nearest positions" in out
    assert not (tmp_path / "out" / "concept.safetensors").exists()
    assert replay(tmp_path / "out" / "seed-0.png").identical
    assert (tmp_path / "out" / "baseline-seed-0.png").exists()


REFUSED = {
    "": "word has to be given, the name of the concept: 'word=<my-cat>'",
    "word=<x>": "there is nothing to learn from; give one: like=[cat.png] or 'text=a picture of a cat'.",
    "word=<x> text=a vectr=2": "learn: there is no setting 'vectr'; try: vectors=2",
    "word=<x> text=a text=b": "learn: text is given twice; leave one out.",
    "word=<x> text=a -m": "learn takes one job; leave out -m and the lists of values.",
    "word=<x> text=a operators=[scale]": "learn draws its word as it is learned; leave out operators=[scale].",
    "word=<x> like=[a": "learn: 'like=[a' cannot be read; a list of images is like=[cat.png,cat-2.png], names with "
    "other signs in quotes.",
    "word=<x> text=a steps=1,2": "learn: 'steps=1,2' cannot be read.",
    "word=<x> text=a prompt=cats": "'<x>' is not in the prompt; its words are cats.",
    "word=cat text=a": "'cat', the name of the concept, is a word of the vocabulary already; give it another: '<cat>'.",
}


@pytest.mark.parametrize("words", REFUSED)
def test_the_command_says_in_a_line_what_does_not_fit(words, embedlab, tmp_path):
    code, _, err = embedlab("learn", *words.split())
    assert (code, err) == (2, f"embedlab: {REFUSED[words]}\n")
    assert not list(tmp_path.rglob("concept*"))
    assert not list(tmp_path.rglob("result.json"))
