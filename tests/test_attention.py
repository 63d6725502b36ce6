"""Attention looked at: laws first, then DAAM's sums by hand, then what the files say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compel.prompt_parser import CrossAttentionControlSubstitute
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from parity import close
from safetensors import safe_open
from torch.nn import functional

from embedlab import (
    Attention,
    Cell,
    Confine,
    CopyCross,
    CopySelf,
    During,
    Guidance,
    Job,
    OpenVINO,
    Replace,
    Reweight,
    Sampler,
    Source,
    Switch,
    load,
    probabilities_of,
    render,
    word_mass,
)
from embedlab.attention.align import mapping_of, words_in
from embedlab.attention.edits import Scene
from embedlab.attention.layers import Layer, chosen, layers_of, side_of
from embedlab.attention.maps import places_in
from embedlab.attention.swaps import options_of
from embedlab.attention.watch import Watch
from embedlab.cell import cells_per_call, denoiser_calls
from embedlab.condition import condition
from embedlab.errors import ConfigError, EngineError, OperatorError, PromptError
from embedlab.language.tree import Swap
from embedlab.metrics.score import score, score_names
from embedlab.models import SHIPPED
from embedlab.sweep.result import read_result
from embedlab.validate import validate
from embedlab.view.contact_sheet import write_sheets

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
            r"attention.layers names 'down.7'.*its blocks with some are down.1, down.2, mid",
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


def test_a_picture_that_nobody_looks_into_has_its_bits_beside_one_that_is_looked_into(sd1):
    plain, looked = cell(attention=Attention()), cell()
    alone, together = render(sd1, [plain], [0])[0], render(sd1, [plain, looked], [0])[0]
    assert torch.equal(alone.latents, together.latents)


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
    assert set(score_names(one, Job(Source("emoji"), one, (0,), Path()).metrics, Source("emoji"))) >= {
        k for k in whole if k.startswith("attention/")
    }
    assert all(0 <= row["attention/inside/puppy"] <= 1 for row in rows)


def test_a_job_has_its_maps_as_arrays_and_pictures_and_says_what_is_off(embedlab, tmp_path):
    words = ["prompt=a puppy", "attention=maps", "attention.words=[puppy]", "operators=[replace]", "seeds=[0]"]
    words += ["operators.replace.rows=puppy", "sampler.steps=2", "hydra.run.dir=job", "tracker=disk"]
    out = embedlab(*words)
    assert "attention is looked at: no fused attention in 4 of 4 cross-attention layers, no engine but" in out[1]
    folder = tmp_path / "job"
    result = json.loads((folder / "result.json").read_text())
    assert result["pictures"][0]["maps"] == ["maps/baseline-seed-0-puppy.png", "maps/seed-0-puppy.png"]
    assert all((folder / name).is_file() for name in result["pictures"][0]["maps"])
    (told,) = tmp_path.rglob("pictures.jsonl")
    keys = {json.loads(line)["key"] for line in told.read_text().splitlines()}
    assert {"maps/puppy", "maps/unedited/puppy"} <= keys
    (sheet,) = write_sheets(folder.parent, [read_result(folder)], to=tmp_path / "maps.png", maps="puppy")
    assert sheet.is_file()
    with pytest.raises(ConfigError, match="no picture of this sweep has a map of 'cat'; they have maps of puppy"):
        write_sheets(folder.parent, [read_result(folder)], to=tmp_path / "maps.png", maps="cat")
    with safe_open(folder / "maps.safetensors", "pt") as file:
        assert file.get_tensor("edited heat").shape == (1, 1, 8, 8)
        assert json.loads(file.metadata()["maps"])["edited"]["words"] == ["puppy"]


# ── edits ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def edited(*edits, source=None, prompt="a picture of a puppy", **more):
    return cell(prompt, attention=Attention(edits=edits, source=source), **more)


COPY = (CopyCross(), CopySelf())
NEUTRAL = [
    CopyCross(amount=0),
    CopySelf(amount=0),
    During(CopyCross(), end=0),
    Reweight("puppy", 1),
    Confine("puppy", (0, 0, 1, 1)),
    Confine("puppy", (0, 0, 0.5, 1), amount=0),
]


@pytest.mark.parametrize("edit", NEUTRAL, ids=str)
def test_a_neutral_edit_of_attention_changes_nothing_to_the_bit(sd1, edit):
    plain, same = (render(sd1, [one], [0, 1])[0] for one in (cell(attention=Attention()), edited(edit)))
    assert torch.equal(plain.latents, same.latents)


@pytest.mark.parametrize(
    "edit", [*COPY, Reweight("cat", 3), Confine("cat", (0, 0, 0.5, 1)), During(CopyCross(), end=0.5)]
)
def test_an_edit_of_attention_changes_a_picture_and_half_of_it_otherwise(model, edit):
    plain = cell("a picture of a cat", attention=Attention())
    source = "a picture of a puppy" if not isinstance(edit, Reweight | Confine) else None
    (before,) = render(model, [plain], [0])
    (after,) = render(model, [edited(edit, source=source, prompt="a picture of a cat")], [0])
    assert (before.latents - after.latents).abs().max() > 1e-4
    if not isinstance(edit, Reweight | During):
        half = replace(edit, amount=0.5)
        (between,) = render(model, [edited(half, source=source, prompt="a picture of a cat")], [0])
        assert (between.latents - after.latents).abs().max() > 1e-5
        assert (between.latents - before.latents).abs().max() > 1e-5


def test_attention_of_ones_own_source_is_ones_own(model):
    plain, copied = (render(model, [one], [0, 1])[0] for one in (cell(attention=Attention()), edited(*COPY)))
    close(copied.latents, plain.latents, 1e-4)


def test_all_of_a_copy_is_the_sources_probabilities_to_the_bit(sd1):
    """Seen inside: layer by layer what the target looks with is what the source looked with."""
    seen = []
    own = Watch._edited

    def look(self, kind, layer, probabilities):
        after = own(self, kind, layer, probabilities)
        seen.append((kind, self.rows, probabilities, after))
        return after

    Watch._edited = look
    try:
        render(sd1, [edited(*COPY, operators=[Replace("puppy", "cat")])], [0])
    finally:
        Watch._edited = own
    assert {kind for kind, *_ in seen} == {"cross", "self"}
    for _, rows, before, after in seen:
        target, source = rows.index([(0, 0)]), rows.index([(1, 0)])
        assert torch.equal(after[target], before[source])
        assert torch.equal(after[source], before[source])
        untold = [n for n, same in enumerate(rows) if all(stream == -1 for _, stream in same)]
        assert torch.equal(after[untold], before[untold])


def test_a_copy_does_not_depend_on_its_company(sd1):
    cells = [edited(*COPY, operators=[Replace("puppy", by)]) for by in ("cat", "owl")]
    alone = [render(sd1, [one], [0, 1])[0] for one in cells]
    together = render(sd1, [*cells, cell(attention=Attention())], [0, 1])
    for a, b in zip(alone, together, strict=False):
        close(a.latents, b.latents, 1e-4)


def conditioned(model, prompt):
    return condition([cell(prompt)], model.towers)[0].cond


@pytest.mark.parity(
    "prompt-to-prompt",
    "mapper of a replacement",
    "attention=p2p how=replace",
    "formula",
    differs="behind a word of another length its columns are those of the same words, theirs of the same number",
)
@pytest.mark.parametrize(
    ("before", "after"),
    [("a puppy on grass", "a cat on grass"), ("a fox", "a puppyish"), ("a puppyish hat", "a fox hat")],
)
def test_replacement_maps_as_prompt_to_prompts(sd1, before, after):
    """Its `get_replacement_mapper_`, written plainly, up to the last word that differs; beyond, it counts columns."""
    source, target = conditioned(sd1, before), conditioned(sd1, after)
    words = [[span for _, span in words_in(one)] for one in (source, target)]
    expected = torch.zeros(77, 77)
    i = j = 0
    different = [n for n, (a, b) in enumerate(zip(before.split(), after.split(), strict=True)) if a != b]
    pairs = [(words[0][n], words[1][n]) for n in different]
    while i < 77 and j < 77:
        if pairs and pairs[0][0][0] == i:
            mine, theirs = pairs.pop(0)
            for column in theirs:
                expected[mine, column] = 1 if len(mine) == len(theirs) else 1 / len(theirs)
            if len(mine) == len(theirs) > 1:
                expected[mine[0] : mine[-1] + 1, theirs[0] : theirs[-1] + 1] = torch.eye(len(mine))
            i, j = i + len(mine), j + len(theirs)
        else:
            expected[i if pairs else j, j] = 1
            i, j = i + 1, j + 1
    ours = mapping_of(source, target).matrix
    upto = words[1][different[-1]][-1] + 1
    close(ours[:, :upto], expected[:, :upto], 0)
    if sum(map(len, words[0])) == sum(map(len, words[1])):
        close(ours, expected, 0)


@pytest.mark.parity("prompt-to-prompt", "mapper of a refinement", "attention=p2p how=refine", "formula")
@pytest.mark.parametrize(
    ("before", "after"), [("a puppy", "a red puppy on grass"), ("a cat and a dog", "a fat cat and a dog")]
)
def test_refinement_maps_as_prompt_to_prompts(sd1, before, after):
    """Its `get_mapper`: global alignment of the ids, start and end with them; columns past the end by their number."""
    source, target = conditioned(sd1, before), conditioned(sd1, after)
    x, y = (sd1.towers[0].tokenizer(text).input_ids for text in (before, after))
    score = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    trace = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    trace[0][1:], trace[0][0] = [1] * len(y), 4
    for i in range(1, len(x) + 1):
        trace[i][0] = 2
        for j in range(1, len(y) + 1):
            left, up = score[i][j - 1], score[i - 1][j]
            pair = score[i - 1][j - 1] + (1 if x[i - 1] == y[j - 1] else -1)
            score[i][j] = max(left, up, pair)
            trace[i][j] = 1 if score[i][j] == left else 2 if score[i][j] == up else 3
    mapper, i, j = [], len(x), len(y)
    while i > 0 or j > 0:
        if trace[i][j] == 3:
            i, j = i - 1, j - 1
            mapper.insert(0, i)
        elif trace[i][j] == 1:
            j -= 1
            mapper.insert(0, -1)
        else:
            i -= 1
    mapper += list(range(len(y), 77))
    ours = mapping_of(source, target, "refine")
    assert ours.found.tolist() == [n >= 0 for n in mapper]
    assert [int(column.argmax()) for column in ours.matrix.T[ours.found]] == [n for n in mapper if n >= 0]


def test_copies_at_any_length_and_of_prompts_of_several_lengths(model):
    long = "a picture of a puppy and " + "very " * 80 + "small cat"
    (one,) = render(model, [edited(*COPY, source=long, prompt=long.replace("puppy", "fox"))], [0])
    (two,) = render(model, [edited(*COPY, source=long, prompt="a picture of a puppy")], [0])
    assert torch.isfinite(one.latents).all()
    assert torch.isfinite(two.latents).all()


def test_reweighting_and_boxes_by_hand():
    model = load("emoji")
    own = conditioned(model, "a cat")
    seen = torch.rand(4, 16, 77).softmax(-1)
    scene = Scene(Layer("mid.0.0"), (4, 4), own)
    heavier = Reweight("cat", 3)(seen, scene)
    close(heavier[..., 2], 3 * seen[..., 2], 0)
    assert torch.equal(heavier[..., :2], seen[..., :2])
    boxed = Confine("cat", (0, 0, 0.5, 1))(seen, scene)
    left = places_in((0, 0, 0.5, 1), (4, 4))
    assert (boxed[:, ~left][..., 2] == 0).all()
    close(boxed[:, left], seen[:, left], 1e-6)
    close(boxed.sum(-1), torch.ones(4, 16))


def test_words_of_an_edit_keep_their_attention_alone(sd1):
    own = conditioned(sd1, "a cat")
    theirs, seen = torch.rand(2, 16, 77), torch.rand(2, 16, 77)
    scene = Scene(Layer("mid.0.0"), (4, 4), own, theirs, mapping_of(own, own))
    after = CopyCross("cat")(seen, scene)
    assert torch.equal(after[..., 2], theirs[..., 2])
    assert torch.equal(after[..., 3:], seen[..., 3:])
    assert torch.equal(CopyCross()(seen, scene), theirs)


def test_compels_swap_is_drawn_with_the_attention_of_its_first_text(sd1):
    compel = replace(cell().encoder, language="compel")
    swap = Cell("a picture of a puppy.swap(cat, s_end=0.4)", encoder=compel, sampler=STEPS)
    attention = swap.parsed().attention
    assert [str(edit) for edit in attention.edits] == [
        "self-attention copied from 0 until 0.4",
        "cross-attention copied from 0.2 until 1",
    ]
    by_hand = edited(*attention.edits, source="a picture of a puppy", prompt="a picture of a cat")
    ours, theirs = (render(sd1, [one], [0])[0] for one in (swap, by_hand))
    close(ours.latents, theirs.latents, 1e-6)
    unedited, source = (render(sd1, [one], [0])[0] for one in (swap.baseline(), cell(attention=Attention())))
    close(unedited.latents, source.latents, 1e-6)
    assert swap.wording == "a picture of a cat"


def test_a_swap_in_a_prompt_that_changes_over_time_copies_while_its_text_is_drawn(sd1):
    compel, sampler = replace(cell().encoder, language="compel"), Sampler("ddim", steps=4)
    texts = ["a picture of a puppy.swap(cat, s_end=0.7, t_start=0)", "a picture of a fox"]
    swap = Cell(Switch(texts, 0.5), encoder=compel, sampler=sampler)
    attention = swap.parsed().attention
    assert [str(edit) for edit in attention.edits] == [
        "(self-attention copied from 0 until 0.7 until 0.5, then nothing)",
        "(cross-attention copied from 0 until 1 until 0.5, then nothing)",
    ]
    told = cells_per_call(swap, denoiser_calls(swap, sd1.scheduler))
    assert [str(one.prompt) for one in told] == ["a picture of a cat"] * 2 + ["a picture of a fox"] * 2
    assert [str(one.attention.source) for one in told] == ["a picture of a puppy"] * 2 + ["a picture of a fox"] * 2
    assert [len(one.attention.edits) for one in told] == [2, 2, 0, 0]
    by_hand = Cell(
        Switch(["a picture of a cat", "a picture of a fox"], 0.5),
        sampler=sampler,
        attention=Attention(
            edits=[During(CopySelf(), end=0.5), During(CopyCross(), end=0.5)],
            source=Switch(["a picture of a puppy", "a picture of a fox"], 0.5),
        ),
    )
    ours, theirs = (render(sd1, [one], [0])[0].latents for one in (swap, by_hand))
    assert torch.equal(ours, theirs)
    sources = Cell(by_hand.attention.source, sampler=sampler), swap.baseline()
    source, before = (render(sd1, [one], [0])[0].latents for one in sources)
    assert torch.equal(source, before)
    assert (ours - source).abs().max() > 1e-4
    # and the other way round: its text comes late, and it copies from there on
    late = Cell(Switch(["a picture of a fox", texts[0]], 0.5), encoder=compel, sampler=sampler)
    assert [len(one.attention.edits) for one in cells_per_call(late, denoiser_calls(late, sd1.scheduler))] == [
        0,
        0,
        2,
        1,
    ]
    validate(late, Source("emoji"))
    plain = replace(late, prompt=Switch(["a picture of a fox", "a picture of a cat"], 0.5))
    drawn, other = (render(sd1, [one], [0])[0].latents for one in (late, plain))
    assert (drawn - other).abs().max() > 1e-4
    assert late.wording == "a picture of a cat"


@pytest.mark.parity("compel", "when a .swap() copies", "language=compel", "live")
@pytest.mark.parametrize(
    "given", [{}, {"shape_freedom": 0.5}, {"s_end": 0.3, "t_start": 0.1}, {"shape_freedom": 0.0, "t_end": 0.8}]
)
def test_the_windows_of_a_swap_are_compels(given):
    theirs = CrossAttentionControlSubstitute([], [], dict(given)).options
    assert options_of(Swap((), (), tuple(given.items()))) == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (Attention(edits=[Reweight("dog")]), "'attention to dog ×2': 'dog' is not in the prompt"),
        (Attention(edits=[CopySelf(layers=["up.3"])]), "layers of 'self-attention copied' names 'up.3'"),
        (Attention(edits=[CopyCross("fox")], source="a fox"), "'fox' is not in the prompt; its words are a, picture"),
        (
            Attention(edits=[CopyCross(how="replace")], source="a fox"),
            "the source has 2 words, the target 5",
        ),
    ],
)
def test_edits_that_do_not_fit_are_refused_before_weights(attention, message):
    with pytest.raises((ConfigError, PromptError, OperatorError), match=message):
        validate(cell(attention=attention), Source("emoji"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Attention(edits=["more"]), "attention.edits holds 'more'"),
        (lambda: CopyCross(amount=2), "amount is 2; it goes from 0"),
        (lambda: CopyCross(how="guess"), "how"),
        (lambda: Confine("cat", (0.5, 0, 0.5, 1)), "box is"),
        (lambda: CopySelf(most=0), "most"),
        (lambda: Attention(source=5), "attention.source is 5"),
    ],
)
def test_edits_that_cannot_be_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
