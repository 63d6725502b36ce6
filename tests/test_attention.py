"""Attention looked at: laws first, then DAAM's sums by hand, then what the files say."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from parity import close
from safetensors import safe_open
from torch.nn import functional

from embedlab import (
    Attention,
    Cell,
    Guidance,
    Job,
    OpenVINO,
    Replace,
    Sampler,
    Source,
    Switch,
    probabilities_of,
    render,
    word_mass,
)
from embedlab.attention.layers import chosen, layers_of, side_of
from embedlab.attention.maps import places_in
from embedlab.errors import ConfigError, EngineError, PromptError
from embedlab.metrics.score import score, score_names
from embedlab.models import SHIPPED
from embedlab.validate import validate

STEPS = Sampler("ddim", steps=3)
MAPS = Attention(maps=True)


def cell(prompt="a picture of a puppy", operators=(), attention=MAPS, **more):
    return Cell(prompt, operators, sampler=STEPS, attention=attention, **more)


def processors(unet):
    return {name: id(one) for name, one in unet.attn_processors.items()}


# ── layers ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_layers_are_those_that_diffusers_builds_of_the_config_in_the_order_of_its_modules(kind):
    config = json.loads((SHIPPED["emoji"].parent / "layouts" / kind / "unet" / "config.json").read_text())
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    there = {name.removesuffix(".attn2.processor") for name in unet.attn_processors if ".attn2." in name}
    assert {layer.path for layer in layers_of(unet.config)} == there
    assert all(unet.get_submodule(layer.path) for layer in layers_of(config))


def test_layers_are_chosen_by_block_module_or_layer_and_by_diffusers_names():
    layers = layers_of(Source("emoji").part("unet"))

    def names(wanted):
        return [layer.name for layer in chosen(wanted, layers)]

    assert names(["down"]) == ["down.1.0.0", "down.2.0.0"]
    assert names(["up.0.1", "mid"]) == ["mid.0.0", "up.0.1.0"]
    assert names(["up_blocks.0.attentions.1.transformer_blocks.0.attn2"]) == ["up.0.1.0"]
    assert names(None) == [layer.name for layer in layers]
    assert side_of(6, (7, 9)) == (2, 3)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (
            Attention(maps=True, layers=["down.7"]),
            r"attention.layers names 'down.7'.*its blocks are down.1, down.2, mid",
        ),
        (Attention(maps=True, words=["dog"]), "attention.words: 'dog' is not in the prompt"),
    ],
)
def test_what_is_not_there_is_refused_before_weights(attention, message):
    with pytest.raises((ConfigError, PromptError), match=message):
        validate(cell(attention=attention), Source("emoji"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"maps": "yes"}, "attention.maps"),
        ({"by": ["hour"]}, "attention.by"),
        ({"by": ["head"]}, r"attention.by=\[layer,head\]"),
        ({"layers": ["sideways.1"]}, "attention.layers is 'sideways.1'"),
        ({"layers": []}, "attention.layers"),
        ({"words": Switch(["cat", "dog"], 0.5)}, "cannot change over time"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Attention(**settings)


def test_an_engine_that_has_no_maps_is_refused_before_weights(tmp_path):
    with pytest.raises(EngineError, match="engine=openvino runs the UNet as a whole and has no attention maps"):
        Job(Source("emoji"), cell(), (0,), tmp_path, engine=OpenVINO())


def test_a_model_that_is_compiled_is_refused(sd1):
    with pytest.raises(EngineError, match="engine=openvino .* no attention maps"):
        render(replace(sd1, engine="openvino"), [cell()], [0])


# ── laws ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_off_no_processor_is_changed_and_on_they_are_back_afterwards(sd1):
    before, seen = processors(sd1.unet), []
    (off,) = render(sd1, [cell(attention=Attention())], [0], on_step=lambda _: seen.append(processors(sd1.unet)))
    assert all(one == before for one in seen)
    assert off.maps is None
    seen.clear()
    render(sd1, [cell()], [0], on_step=lambda _: seen.append(processors(sd1.unet)))
    changed = {name for name in before if seen[0][name] != before[name]}
    assert changed == {name for name in before if ".attn2." in name}
    assert processors(sd1.unet) == before
    with pytest.raises(ZeroDivisionError):
        render(sd1, [cell()], [0], on_step=lambda _: 1 // 0)
    assert processors(sd1.unet) == before


def test_pictures_are_the_same_with_maps_to_rounding(model):
    off, on = render(model, [cell(attention=Attention()), cell()], [0, 1])
    close(on.latents, off.latents, 1e-4)


def test_probabilities_sum_to_one_and_are_the_librarys(model):
    unet = model.unet
    x, t, hidden = torch.randn(2, 4, 8, 8), torch.tensor(300), torch.randn(2, 77, unet.config.cross_attention_dim)
    more = {}
    if model.size_conditioned:
        more = {"added_cond_kwargs": {"text_embeds": torch.randn(2, 24), "time_ids": torch.zeros(2, 6)}}
    with torch.no_grad(), probabilities_of(unet) as seen:
        unet(x, t, hidden, **more)
    assert list(seen) == [layer.name for layer in layers_of(unet.config)]
    for one in seen.values():
        close(one.sum(-1), torch.ones(one.shape[:-1]))
    with torch.no_grad():
        theirs = by_hand(unet, lambda: unet(x, t, hidden, **more))
    for layer in layers_of(unet.config):
        close(seen[layer.name], theirs[layer.name][0], 1e-6)


def by_hand(unet, call):
    """diffusers' own probabilities of each cross-attention layer, by its plain processor and hooks."""
    own, found, undo = dict(unet.attn_processors), {}, []
    unet.set_attn_processor(AttnProcessor())
    for layer in layers_of(unet.config):
        attn = unet.get_submodule(f"{layer.path}.attn2")

        def scores(query, key, mask=None, attn=attn, name=layer.name):
            made = type(attn).get_attention_scores(attn, query, key, mask)
            found.setdefault(name, []).append(made.unflatten(0, (-1, attn.heads)))
            return made

        attn.get_attention_scores = scores
        undo.append(attn)
    call()
    for attn in undo:
        del attn.get_attention_scores
    unet.set_attn_processor(own)
    return found


@pytest.mark.parity("daam", "map of a word", "attention=maps", "formula")
def test_maps_are_daams_sums_by_hand(model):
    """Σ over steps of the conditional half, bicubic, ≥ 0, mean over layers and heads, then over a word's rows."""
    one = cell("a picture of a puppyish cat", guidance=Guidance(3.0))
    (ours,) = render(model, [one], [0])
    plain = replace(one, attention=Attention())
    found = by_hand(model.unet, lambda: render(model, [plain], [0]))
    (rows,) = ours.conditioning[0].cond.spans("puppyish")
    assert len(rows) > 1
    heads = []
    for layer in layers_of(model.unet.config):
        total = sum(step[1] for step in found[layer.name])  # row 0 is the unconditional half
        for head in total:  # (place, token)
            side = int(len(head) ** 0.5)
            per_token = head.T.reshape(77, 1, side, side)
            heads.append(functional.interpolate(per_token, size=(8, 8), mode="bicubic").clamp(min=0)[:, 0])
    expected = torch.stack(heads).mean(0)[list(rows)].mean(0)
    close(ours.maps.of("puppyish")[0], expected)


def test_axes_are_sums_that_come_to_the_whole(emoji):
    by = Attention(maps=True, words=["puppy"], by=["step", "layer", "head"])
    (apart,) = render(emoji, [cell(attention=by)], [0])
    assert apart.maps.parts.shape == (1, 3, 5, 4, 1, 16, 16)
    assert apart.maps.layers == ("down.1.0.0", "down.2.0.0", "mid.0.0", "up.0.0.0", "up.0.1.0")
    close(apart.maps.parts.sum(1).mean((1, 2)), apart.maps.heat, 0.01)  # each step has lost what was below 0 by itself
    (layers,) = render(emoji, [cell(attention=replace(by, by=["layer"]))], [0])
    close(layers.maps.parts.mean(1), layers.maps.heat, 1e-5)
    (mid,) = render(emoji, [cell(attention=replace(by, by=[], layers=["mid"]))], [0])
    close(mid.maps.heat, layers.maps.parts[:, 2], 1e-5)


def test_maps_of_a_picture_do_not_depend_on_its_company(model):
    cells = [
        cell(),
        cell("a cat AND a dog", encoder=replace(cell().encoder, language="a1111")),
        cell(attention=Attention()),
    ]
    alone = [render(model, [one], [0])[0] for one in cells]
    together = render(model, cells, [0])
    for a, b in zip(alone, together, strict=True):
        assert (a.maps is None) == (b.maps is None)
        if a.maps is not None:
            assert a.maps.words == b.maps.words
            close(a.maps.heat, b.maps.heat, 1e-4)
    assert set(alone[1].maps.words) == {"a", "cat", "dog"}


def test_maps_of_windows_edits_selectors_and_words_that_come_late(model):
    long = "a picture of a puppy and " + "very " * 80 + "small cat"
    (two,) = render(model, [cell(long, attention=replace(MAPS, words=["puppy", "cat", {"role": "pad"}]))], [0])
    assert two.maps.words == ("puppy", "cat", "role pad")
    assert (two.maps.heat > 0).any(-1).any(-1).all()
    (late,) = render(model, [cell(Switch(["a dog", "a big cat"], 0.5))], [0])
    assert late.maps.words == ("a", "dog", "big", "cat")
    (edited,) = render(model, [cell(operators=[Replace("puppy", "cat")])], [0])
    assert "puppy" in edited.maps.words


# ── a word's mass ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_words_mass_in_a_box_keeps_gradients(sd1):
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    with probabilities_of(sd1.unet, ["mid"]) as seen:
        sd1.unet(x, torch.tensor(300), torch.randn(1, 77, 16))
    ((name, one),) = seen.items()
    assert name == "mid.0.0"
    box = places_in((0, 0, 0.5, 1), side_of(one.shape[2], (8, 8)))
    inside, outside = word_mass(one, [3, 4], box), word_mass(one, [3, 4], ~box)
    close(inside + outside, torch.ones(1))
    inside.sum().backward()
    assert x.grad.abs().sum() > 0


# ── figures and files ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_map_of_a_noun_lies_on_its_object(emoji):
    one = cell(attention=Attention(maps=True, words=["puppy", {"role": "bos"}]), guidance=Guidance(4.0))
    one = replace(one, sampler=Sampler("ddim", steps=8))
    (made,) = render(emoji, [one], [0, 1])
    rows, whole = score(emoji, made, made)
    assert whole["attention/iou/puppy"] > 0.3
    assert set(score_names(one, Job(Source("emoji"), one, (0,), None).metrics, Source("emoji"))) >= {
        k for k in whole if k.startswith("attention/")
    }
    assert all(0 <= row["attention/inside/puppy"] <= 1 for row in rows)


def test_a_job_has_its_maps_as_arrays_and_pictures_and_says_what_is_off(embedlab, tmp_path):
    words = ["prompt=a puppy", "attention=maps", "attention.words=[puppy]", "operators=[replace]", "seeds=[0]"]
    out = embedlab(*words, "operators.replace.rows=puppy", "sampler.steps=2", "hydra.run.dir=job")
    assert "attention is looked at: no fused attention in 4 of 4 cross-attention layers, no engine but" in out[1]
    folder = tmp_path / "job"
    result = json.loads((folder / "result.json").read_text())
    assert result["pictures"][0]["maps"] == ["maps/baseline-seed-0-puppy.png", "maps/seed-0-puppy.png"]
    assert all((folder / name).is_file() for name in result["pictures"][0]["maps"])
    with safe_open(folder / "maps.safetensors", "pt") as file:
        assert file.get_tensor("edited heat").shape == (1, 1, 8, 8)
        assert json.loads(file.metadata()["maps"])["edited"]["words"] == ["puppy"]
