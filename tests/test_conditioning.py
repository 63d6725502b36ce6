"""Operators after the encoder: the same laws on hidden states and the pooled output, and what other tools do there."""

import dataclasses
import re

import pytest
import torch
from compel import Compel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity import close

from embedlab import (
    Add,
    Average,
    Blend,
    Cell,
    Concatenate,
    Encoder,
    Freeze,
    Interpolate,
    Noise,
    Normalise,
    Permute,
    Place,
    ProjectOut,
    Replace,
    Reverse,
    Rotate,
    Sampler,
    Scale,
    Shuffle,
    Source,
    Subtract,
    Swap,
    Truncate,
    edit,
    edit_encoded,
    embed_all,
    encode,
    operators,
    render,
    texts_of,
)
from embedlab.embeddings import stretched
from embedlab.errors import EmbedlabError
from embedlab.validate import validate

PROMPT = "a picture of a puppy"
OTHER = "a picture of a cat"
ALL = {"role": "all"}
laws = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
words = st.lists(st.sampled_from(["cat", "dog", "fox", "owl", "star"]), min_size=2, max_size=90)
prompts = words.map(lambda w: " ".join(["cat", *w, "rocket"]))
amounts = st.floats(-2, 2, allow_nan=False).filter(lambda x: abs(x) > 0.01)
seeds = st.integers(0, 2**31)
selectors = st.sampled_from(
    [
        "rocket",
        {"role": "eos"},
        {"role": "pad"},
        {"role": "words"},
        ALL,
        [1, 3],
        {"role": "all", "but": {"role": "bos"}},
    ]
)


def at_once(value, *operators, texts):
    return edit_encoded(value, operators, texts)


def same(a, b):
    return torch.equal(a.hidden, b.hidden) and torch.equal(a.pooled, b.pooled)


def on_rows(rows, stage, amount, seed):
    """Every operator that works at these stages, at a setting that has to change something."""
    there = {"prompt": "a fox and an owl", "rows": 2}
    there = there if stage == "hidden" else "a fox and an owl"
    return [
        Interpolate(rows, there, amount, stage),
        Add(rows, there, amount, stage),
        Subtract(rows, there, amount, stage),
        ProjectOut(rows, there, amount, stage),
        Scale(rows, 1 + amount, stage),
        Noise(rows, amount, seed, stage),
        Rotate(rows, 40 * amount, seed, stage),
    ]


@laws
@given(prompts, selectors, amounts, seeds)
def test_laws_hold_on_hidden_states(sd1, text, rows, amount, seed):
    texts = texts_of(sd1.towers)
    told = texts(text)
    kept = told.hidden.clone()
    chosen = [r for span in told.spans(rows) for r in span]
    others = torch.ones(len(kept), dtype=torch.bool)
    others[chosen] = False
    for operator in on_rows(rows, "hidden", amount, seed):
        made = at_once(told, operator, texts=texts)
        assert not torch.equal(made.hidden[chosen], kept[chosen]), operator
        assert torch.equal(made.hidden[others], kept[others]), operator
        assert torch.equal(made.pooled, told.pooled), operator
        assert same(at_once(told, operator, texts=texts), made), "it does not repeat to the bit"
        assert torch.equal(told.hidden, kept), "the input was changed"
    there = {"prompt": "a fox", "rows": 2}
    neutral = [Interpolate(rows, there, 0, "hidden"), Add(rows, there, 0, "hidden"), Scale(rows, 1, "hidden")]
    neutral += [Noise(rows, 0, seed, "hidden"), Rotate(rows, 0, seed, "hidden"), Average(rows, 0, "hidden")]
    neutral += [ProjectOut(rows, there, 0, "hidden"), Normalise(rows, 2, 0, "hidden")]
    for operator in neutral:
        assert same(at_once(told, operator, texts=texts), told), operator
    full = at_once(told, Replace(rows, there, "hidden"), texts=texts)
    assert torch.equal(full.hidden[chosen], texts("a fox").hidden[[2]].expand(len(chosen), -1))
    assert same(full, at_once(told, Interpolate(rows, there, 1, "hidden"), texts=texts))


@laws
@given(prompts, amounts, seeds)
def test_laws_hold_on_the_pooled_output(sd1, text, amount, seed):
    texts = texts_of(sd1.towers)
    told = texts(text)
    for operator in on_rows(ALL, "pooled", amount, seed):
        made = at_once(told, operator, texts=texts)
        assert not torch.equal(made.pooled, told.pooled), operator
        assert made.pooled.shape == told.pooled.shape
        assert torch.equal(made.hidden, told.hidden), operator
    full = at_once(told, Replace(ALL, "a fox", "pooled"), texts=texts)
    assert torch.equal(full.pooled, texts("a fox").pooled)


@laws
@given(prompts, amounts, seeds)
def test_on_disjoint_rows_they_commute_and_in_a_row_they_compose(sd1, text, amount, seed):
    texts = texts_of(sd1.towers)
    told = texts(text)
    for a in on_rows("rocket", "hidden", amount, seed):
        for b in on_rows({"role": "pad"}, "hidden", -amount, seed):
            one = at_once(told, a, b, texts=texts)
            assert same(one, at_once(told, b, a, texts=texts)), (a, b)
            assert same(one, at_once(at_once(told, a, texts=texts), b, texts=texts))


def test_orders_of_hidden_rows(sd1):
    texts = texts_of(sd1.towers)
    told = texts("a cat above a dog")
    span = list(told.spans({"role": "words"})[0])
    for operator in (Reverse({"role": "words"}, "hidden"), Permute({"role": "words"}, (4, 3, 2, 1, 0), "hidden")):
        assert torch.equal(at_once(told, operator, texts=texts).hidden[span], told.hidden[span[::-1]])
    swapped = at_once(told, Swap("cat", "dog", "hidden"), texts=texts)
    assert torch.equal(swapped.hidden[[2, 5]], told.hidden[[5, 2]])
    mixed = at_once(told, Shuffle({"role": "words"}, 1, "hidden"), texts=texts)
    assert torch.equal(mixed.hidden[span].sort(0).values, told.hidden[span].sort(0).values)


def test_rows_of_another_prompt_are_those_that_the_selector_finds_there(model):
    """What carries the concept? Only the EOS row, only the words, only the padding of the other prompt."""
    texts = texts_of(model.towers)
    told, cat = texts(PROMPT), texts("a cat")
    eos = at_once(told, Replace({"role": "eos"}, "a cat", "hidden"), texts=texts)
    assert torch.equal(eos.hidden[6], cat.hidden[3])
    changed = (eos.hidden != told.hidden).any(1).nonzero().flatten().tolist()
    assert changed == [6]
    with pytest.raises(EmbedlabError, match="'words' has 5|lengths: repeat, resample, zero"):
        at_once(told, Replace({"role": "words"}, "a cat", "hidden"), texts=texts)
    named = at_once(told, Replace("puppy", {"prompt": "a cat", "rows": "cat"}, "hidden"), texts=texts)
    assert torch.equal(named.hidden[5], cat.hidden[2])
    both = at_once(told, Replace(ALL, "a cat", "conditioning"), texts=texts)
    assert same(both, cat)


def test_an_edit_runs_in_the_loop_at_every_stage(model):
    """Replace of everything after the encoder is the other prompt, down to its picture."""
    sampler = Sampler("ddim", steps=2)
    cells = [
        Cell(PROMPT, sampler=sampler),
        Cell(OTHER, sampler=sampler),
        Cell(PROMPT, [Replace(ALL, OTHER, "conditioning")], sampler=sampler),
        Cell(PROMPT, [Blend(OTHER, 0.5)], sampler=sampler),
        Cell(PROMPT, [Truncate(20)], sampler=sampler),
        Cell(PROMPT, [Concatenate(OTHER)], sampler=sampler),
        Cell(PROMPT, [Replace("puppy", "cat"), Scale({"role": "pad"}, 0, "hidden")], sampler=sampler),
        Cell(PROMPT, encoder=Encoder(skip={0: 0.5, 1: 0.5}), sampler=sampler),
    ]
    if len(model.towers) > 1:
        cells.append(Cell(PROMPT, [Scale(ALL, 2, "pooled")], sampler=sampler))
    for cell in cells:
        validate(cell, Source(model.name))
    plain, other, replaced, *rest = [made.latents for made in render(model, cells, [0])]
    torch.testing.assert_close(replaced, other, atol=1e-5, rtol=0)
    for n, latents in enumerate(rest):
        assert not torch.allclose(latents, plain, atol=1e-6), cells[n + 3]


def test_blend_is_compels(sd1, pipeline_sd1):
    """`("a", "b").blend(x, y)` of compel 2.5, live, and with its no_normalize; hidden states to 1e-5."""
    compel = Compel(tokenizer=pipeline_sd1.tokenizer, text_encoder=pipeline_sd1.text_encoder)
    texts = texts_of(sd1.towers)
    for x, y in ((1.0, 1.0), (0.25, 0.75), (0.9, 0.4), (1.4, -0.4)):
        expected = compel(f'("{PROMPT}", "{OTHER}").blend({x}, {y})')[0]
        made = at_once(texts(PROMPT), Blend(OTHER, y, own=x), texts=texts)
        torch.testing.assert_close(made.hidden, expected, atol=1e-5, rtol=0)
    three = compel(f'("{PROMPT}", "{OTHER}", "a red star").blend(0.5, 0.3, 0.2)')[0]
    made = at_once(texts(PROMPT), Blend([OTHER, "a red star"], [0.3, 0.2]), texts=texts)
    torch.testing.assert_close(made.hidden, three, atol=1e-5, rtol=0)


def test_blend_of_prompts_of_other_lengths_is_compels(sd1, pipeline_sd1):
    """The shorter one is filled up with the windows of the empty prompt."""
    long = ", ".join(["a red star"] * 30) + "."
    compel = Compel(
        tokenizer=pipeline_sd1.tokenizer,
        text_encoder=pipeline_sd1.text_encoder,
        truncate_long_prompts=False,
    )
    short = compel(PROMPT)
    texts = texts_of(sd1.towers)
    longer = texts(long)
    padded = compel.pad_conditioning_tensors_to_same_length([short, longer.hidden[None]])[0]
    made = at_once(texts(PROMPT), Blend(long, 0.5), texts=texts)
    torch.testing.assert_close(made.hidden, (padded[0] + longer.hidden) / 2, atol=1e-5, rtol=0)


def test_concatenate_is_compels_and(sd1, pipeline_sd1):
    """`("a", "b").and()` puts one after the other; a weight moves its part from the empty prompt."""
    compel = Compel(tokenizer=pipeline_sd1.tokenizer, text_encoder=pipeline_sd1.text_encoder)
    texts = texts_of(sd1.towers)
    for weight in (1.0, 0.5, 1.5):
        expected = compel(f'("{PROMPT}", "{OTHER}").and(1, {weight})')[0]
        made = at_once(texts(PROMPT), Concatenate(OTHER, weight), texts=texts)
        torch.testing.assert_close(made.hidden, expected, atol=1e-5, rtol=0)


@pytest.mark.parity("ComfyUI", "ConditioningAverage", "operators=[blend], lengths=own", "formula")
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_blend_at_the_own_length_is_comfyuis_average(model, strength):
    """ConditioningAverage(to, from, s), written out: `from` cut or zero-padded to `to`; the pooled output likewise."""
    texts = texts_of(model.towers)
    long = "a red star " * 40
    for to, other in ((PROMPT, long), (long, PROMPT)):
        a, b = texts(to), texts(other)
        filled = torch.zeros_like(a.hidden)
        n = min(len(a.hidden), len(b.hidden))
        filled[:n] = b.hidden[:n]
        made = at_once(a, Blend(other, 1 - strength, lengths="own"), texts=texts)
        close(made.hidden, strength * a.hidden + (1 - strength) * filled)
        close(made.pooled, strength * a.pooled + (1 - strength) * b.pooled)


def test_whole_conditionings_keep_their_laws(model):
    texts = texts_of(model.towers)
    told, cat, star = texts(PROMPT), texts(OTHER), texts("a star")
    assert same(at_once(told, Blend(OTHER, 0), texts=texts), told)
    assert same(at_once(told, Blend(OTHER, 1), texts=texts), cat)
    assert same(at_once(told, Blend([OTHER, "a star"], [0, 1]), texts=texts), star)
    one = at_once(told, Concatenate([OTHER, "a star"]), texts=texts)
    two = at_once(told, Concatenate(OTHER), Concatenate("a star"), texts=texts)
    assert same(one, two)
    assert torch.equal(one.pooled, told.pooled)
    assert same(at_once(one, Truncate(77), texts=texts), told)
    assert same(at_once(told, Truncate(77), texts=texts), told)
    assert len(at_once(told, Truncate(-7), texts=texts).hidden) == 70
    # what was appended belongs to no word of this prompt
    scaled = at_once(one, Scale("puppy", 0, "hidden"), texts=texts)
    assert (scaled.hidden == 0).all(1).nonzero().flatten().tolist() == [5]


def test_a_mix_of_layers_is_their_weighted_sum(model):
    texts = [texts_of(model.towers, Encoder(skip=skip)) for skip in (0, 1, {0: 0.25, 1: 0.75}, {1: 1.0})]
    last, earlier, mix, alone = (one(PROMPT).hidden for one in texts)
    torch.testing.assert_close(mix, 0.25 * last + 0.75 * earlier, atol=1e-6, rtol=0)
    assert torch.equal(alone, earlier)


def test_one_window_of_248_places_reads_what_three_windows_cut(model):
    """Long-CLIP's table: the library's own forward on it, in one causal window, pooled at the true end."""
    text = "a red star, " * 60
    prompt = embed_all(text, model.towers, stretch=4)
    assert [part.tokens.ids.shape for part in prompt] == [(1, 248)] * len(model.towers)
    (told,) = encode([prompt], model.towers)
    assert len(told.hidden) == 248
    tower, part = model.towers[0], prompt[0]
    torch.testing.assert_close(part.position[0], stretched(tower.position_table), atol=0, rtol=0)
    other = embed_all(text.replace("red star, ", "blue moon ", 1), model.towers, stretch=4)
    (changed,) = encode([other], model.towers)
    assert not torch.allclose(changed.hidden[-1], told.hidden[-1], atol=1e-6), "the end has to see the beginning"
    causal = encode([embed_all(text + "a dog", model.towers, stretch=4)], model.towers)[0]
    torch.testing.assert_close(causal.hidden[:180], told.hidden[:180], atol=1e-5, rtol=0)
    # a prompt that fits 20 places is read as ever
    short = encode([embed_all(PROMPT, model.towers, stretch=4)], model.towers)[0].hidden[:7]
    torch.testing.assert_close(
        short, encode([embed_all(PROMPT, model.towers)], model.towers)[0].hidden[:7], atol=1e-5, rtol=0
    )
    made = render(model, [Cell(text, encoder=Encoder(stretch=4), sampler=Sampler("ddim", steps=1))], [0])[0]
    assert len(made.conditioning[0].cond.hidden) == 248
    longest = embed_all("star " * 500, model.towers, stretch=4)
    assert longest[0].tokens.ids.shape == (3, 248)


def test_places_of_a_stretched_window_can_be_edited(sd1):
    prompt = embed_all("a red star, " * 60, sd1.towers, stretch=4)
    made = edit(prompt, [Place({"tokens": 200}, at=247), Freeze({"tokens": 1}, at=240)], sd1.towers)[0]
    assert torch.equal(made.position[0, 200], prompt[0].position_table[247])
    assert torch.equal(made.position[0, 1], prompt[0].position_table[240])


def test_the_position_table_of_a_prompt_is_found_by_its_old_name(sd1):
    (prompt,) = embed_all("a cat", sd1.towers)
    with pytest.warns(DeprecationWarning, match="Embeddings.places is now Embeddings.position_table"):
        assert prompt.places is prompt.position_table


BAD = [
    (lambda: [Scale("puppy", 2, "pooled")], "the pooled output is one vector: rows is {role: all}, not 'puppy'"),
    (
        lambda: [Replace("puppy", "a cat", "hidden")],
        "'puppy' is not in the prompt; its words are a, cat. Say which rows of it",
    ),
    (
        lambda: [Replace("puppy", 2368, "hidden")],
        "2368 is no text; after the encoder, rows come from a prompt or a vector",
    ),
    (lambda: [Replace("puppy", torch.ones(7), "hidden")], "does not fit rows of width"),
    (lambda: [Replace("puppy", torch.full((96,), float("nan")), "hidden")], "a vector holds NaN or infinite numbers"),
    (
        lambda: [Replace("puppy", {"prompt": "a cat", "row": 1}, "hidden")],
        "rows of another prompt are {prompt: …, rows: …}",
    ),
    (lambda: [Replace("puppy", {"prompt": "a cat", "rows": 1})], "come after the encoder; set stage to hidden"),
    (
        lambda: [Add({"role": "eos"}, {"a cat": 1, OTHER: float("inf")}, 1, "hidden")],
        "weight of a picture of a cat is inf",
    ),
    (lambda: [Add({"role": "eos"}, {OTHER: 0}, 1, "hidden")], "has no length"),
    (lambda: [Blend([], 0.5)], "there is no other prompt; name one or several"),
    (lambda: [Blend(7, 0.5)], "7 is no prompt; it has to be a text"),
    (lambda: [Blend([OTHER, "a star"], 0.5)], "there are 1 weights for 2 prompts; each needs its own"),
    (lambda: [Blend(OTHER, 1, own=-1)], "the weights -1, 1 sum to 0; there is no mean"),
    (lambda: [Blend(OTHER, "half")], "weight is 'half'; it has to be a finite number"),
    (lambda: [Blend(OTHER, 0.5, lengths="cut")], "lengths is 'cut'; choose one of empty, own"),
    (lambda: [Concatenate(OTHER, [1, 2])], "there are 2 weights for 1 prompts"),
    (lambda: [Truncate(0)], "to is 0; it has to be a number of rows"),
    (lambda: [Truncate(100)], "to is 100; 77 rows reach the UNet"),
    (lambda: [Truncate(4), Scale("puppy", 2, "hidden")], "none of the rows 'puppy' is among the 4 that reach the UNet"),
    (
        lambda: [Blend("a star " * 50, 0.5), Truncate(90), Blend("a star " * 50, 0.5)],
        "cannot be filled up to 154 with whole",
    ),
]


@pytest.mark.parametrize(("operators", "message"), BAD)
def test_bad_edits_after_the_encoder_are_one_clear_line(operators, message):
    with pytest.raises(EmbedlabError, match=re.escape(message)) as caught:
        validate(Cell(PROMPT, operators()), Source("emoji"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Encoder(skip={0: 0.5, 1: 0.2}), "the weights of encoder.skip, 0.5, 0.2, do not sum to 1"),
        (lambda: Encoder(skip=[[]]), "encoder.skip is [[]]; a mix of layers is written"),
        (lambda: Encoder(skip={"last": 1}), "encoder.skip is 'last'; it has to be a whole number"),
        (lambda: Encoder(stretch=0.5), "encoder.stretch is 0.5; it goes from 1 to 64; 4 makes 248 positions"),
        (lambda: Encoder(stretch="long"), "encoder.stretch is 'long'; it has to be a finite number"),
        (
            lambda: validate(Cell(PROMPT, encoder=Encoder(skip={0: 0.5, 9: 0.5})), Source("emoji")),
            "encoder.skip is 9, but",
        ),
    ],
)
def test_bad_readings_are_one_clear_line(make, message):
    with pytest.raises(EmbedlabError, match=re.escape(message)):
        make()


def test_every_operator_is_frozen():
    made = [getattr(operators, name) for name in operators.__all__]
    kinds = [kind for kind in made if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    assert len(kinds) > 20
    assert all(kind.__dataclass_params__.frozen for kind in kinds)
