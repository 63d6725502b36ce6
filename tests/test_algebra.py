"""Laws that every operator keeps, over random prompts, rows and settings."""

import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedlab import (
    Add,
    Average,
    Drop,
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
    Rows,
    Scale,
    Shift,
    Shuffle,
    Stretch,
    Subtract,
    Swap,
    edit,
    embed,
)
from embedlab.embeddings import lookup_of, stretched
from embedlab.errors import EmbedlabError
from embedlab.memo import once_per_table
from embedlab.operators import slerp_whole
from embedlab.select import roles, select
from embedlab.selector import ROLES

WORDS = ("cat", "dog", "fox", "owl", "bear", "star")
laws = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
prompts = st.lists(st.sampled_from(WORDS), min_size=3, max_size=90).map(lambda w: " ".join(["cat", *w, "rocket"]))
amounts = st.floats(-2, 2, allow_nan=False).filter(lambda x: abs(x) > 0.01)
seeds = st.integers(0, 2**31)
stages = st.sampled_from(["token", "position"])
SELECTORS = [
    "cat",
    "rocket",
    {"word": "cat", "nth": 1},
    {"role": "bos"},
    {"role": "eos"},
    {"role": "pad"},
    {"role": "words"},
    {"role": "all"},
    {"role": "words", "window": 0},
    {"role": "all", "but": {"role": "bos"}},
    [1, 2, 5],
    ["cat", {"role": "eos"}],
]
selectors = st.sampled_from(SELECTORS)


def neutral(rows, stage, seed):
    """Every operator that has a neutral setting, at it."""
    token = [Interpolate(rows, "dog", 0, path=path) for path in ("lerp", "slerp", "slerp_whole")]
    places = [Shift(rows, 0), Freeze(rows, 3, 0), Stretch(rows, 5, 1)]
    both = [Add(rows, "cat", 0, stage), Subtract(rows, "cat", 0, stage), ProjectOut(rows, "cat", 0, stage)]
    both += [Scale(rows, 1, stage), Normalise(rows, 2, 0, stage), Average(rows, 0, stage)]
    both += [Noise(rows, 0, seed, stage), Rotate(rows, 0, seed, stage)]
    return [*both, *places, *(op for op in token if stage == "token")]


def moving(rows, stage, amount, seed):
    """Every operator, at a setting that has to change something."""
    both = [Add(rows, "rocket", amount, stage), Subtract(rows, "rocket", amount, stage)]
    both += [ProjectOut(rows, {"rocket": 1, "cat": 0.5}, amount, stage), Scale(rows, 1 + amount, stage)]
    both += [
        Normalise(rows, 3, amount, stage),
        Noise(rows, amount, seed, stage),
        Rotate(rows, 40 * amount, seed, stage),
    ]
    places = [Freeze(rows, 60, amount), Place(rows, 0 if select_size(rows) > 60 else 9)]
    return both + (places if stage == "position" else [Interpolate(rows, 48, amount)])


def select_size(rows):
    return 77 if isinstance(rows, dict) and rows.get("role") in ("pad", "all", "words") else 3


def tables(prompt):
    return prompt.token, prompt.position


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(tables(a), tables(b), strict=True))


@laws
@given(prompts, selectors, stages, seeds)
def test_neutral_is_the_identity_to_the_bit(sd1, text, rows, stage, seed):
    tower = sd1.towers[0]
    prompt, lookup = embed(text, tower), lookup_of(tower)
    for operator in neutral(rows, stage, seed):
        assert same(operator(prompt, lookup), prompt), operator


@laws
@given(prompts, selectors, stages, amounts, seeds)
def test_a_setting_in_between_changes_the_selected_rows_and_nothing_else(sd1, text, rows, stage, amount, seed):
    tower = sd1.towers[0]
    prompt, lookup = embed(text, tower), lookup_of(tower)
    chosen = [r for span in select(rows, prompt.tokens) for r in span]
    other = torch.ones(prompt.tokens.ids.numel(), dtype=torch.bool)
    other[chosen] = False
    kept = [table.clone() for table in tables(prompt)]
    for operator in moving(rows, stage, amount, seed):
        if isinstance(operator, Place):
            span = select(rows, prompt.tokens)[0]
            if len(span) > 60 or span[0] == operator.at:
                continue  # past the table, which is refused; or there already
        made = operator(prompt, lookup)
        assert not same(made, prompt), operator
        for before, after in zip(tables(prompt), tables(made), strict=True):
            assert torch.equal(before.flatten(0, 1)[other], after.flatten(0, 1)[other]), operator
        assert torch.equal(getattr(made, "position" if stage == "token" else "token"), kept[stage == "token"])
        assert all(torch.equal(a, b) for a, b in zip(kept, tables(prompt), strict=True)), "the input was changed"
        assert same(operator(prompt, lookup), made), "it does not repeat to the bit"


@laws
@given(prompts, stages, amounts, seeds)
def test_operators_on_disjoint_rows_commute(sd1, text, stage, amount, seed):
    tower = sd1.towers[0]
    prompt, lookup = embed(text, tower), lookup_of(tower)
    for a in moving("cat", stage, amount, seed):
        for b in moving("rocket", stage, -amount, seed + 1):
            assert same(a(b(prompt, lookup), lookup), b(a(prompt, lookup), lookup)), (a, b)


@laws
@given(prompts, selectors, stages, amounts, seeds)
def test_composition_is_associative(sd1, text, rows, stage, amount, seed):
    prompt = (embed(text, sd1.towers[0]),)
    a, b, c = moving(rows, stage, amount, seed)[:3]
    whole = edit(prompt, [a, b, c], sd1.towers)
    for split in ([a], [b, c]), ([a, b], [c]), ([], [a, b, c]):
        parts = prompt
        for some in split:
            parts = edit(parts, some, sd1.towers)
        assert same(parts[0], whole[0])


@laws
@given(prompts)
def test_full_settings_are_the_target_to_the_bit(sd1, text):
    tower = sd1.towers[0]
    prompt, lookup = embed(text, tower), lookup_of(tower)
    there = prompt.tokens.rows("rocket")[0][0]
    for path in ("lerp", "slerp", "slerp_whole"):
        assert same(
            Interpolate("rocket", "owl", 1, path=path)(prompt, lookup), Replace("rocket", "owl")(prompt, lookup)
        )
    frozen = Freeze({"role": "all"}, at=4)(prompt, lookup).position
    assert torch.equal(frozen, tower.position_table[4].expand_as(frozen))
    assert torch.equal(Scale("rocket", 0)(prompt, lookup).token.flatten(0, 1)[there], torch.zeros(16))
    mean = Average({"role": "words"})(prompt, lookup)
    rows = mean.take("token", select({"role": "words"}, prompt.tokens))
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    turned = Rotate("rocket", 180)(prompt, lookup).token.flatten(0, 1)[there]
    torch.testing.assert_close(turned, -prompt.token.flatten(0, 1)[there], atol=1e-6, rtol=1e-5)
    out = ProjectOut("rocket", "owl")(prompt, lookup).token.flatten(0, 1)[there]
    assert abs(float(out @ lookup("owl")[0])) < 1e-5
    assert torch.equal(
        Drop("rocket")(prompt, lookup).token.flatten(0, 1)[there], lookup(tower.tokenizer.pad_token_id)[0]
    )


@laws
@given(prompts, seeds)
def test_orders_are_permutations_and_undo_each_other(sd1, text, seed):
    tower = sd1.towers[0]
    prompt, lookup = embed(text, tower), lookup_of(tower)
    words = {"role": "words"}
    for operator in (Reverse(words), Swap("rocket", {"word": "cat", "nth": 1})):
        assert same(operator(operator(prompt, lookup), lookup), prompt), operator
        assert not same(operator(prompt, lookup), prompt)
    count = len(select(words, prompt.tokens)[0])
    back = Permute(words, tuple(reversed(range(count))))
    assert same(back(prompt, lookup), Reverse(words)(prompt, lookup))
    mixed = Shuffle(words, seed)(prompt, lookup)
    (chosen,) = select(words, prompt.tokens)
    before, after = (p.position.flatten(0, 1)[list(chosen)] for p in (prompt, mixed))
    assert torch.equal(after[:, 0].sort().values, before[:, 0].sort().values)


@laws
@given(st.text(min_size=1, max_size=400))
def test_roles_and_words_agree_for_every_text(sd1, text):
    tower = sd1.towers[0]
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text) or "<|" in text:
        return
    tokens = embed(text, tower).tokens
    masks = dict(zip(ROLES, roles(tokens), strict=True))
    assert torch.equal(masks["words"].long() + masks["bos"].long() + masks["eos"] + masks["pad"], masks["all"].long())
    rows = [row for word in tokens.words for row in word.rows]
    assert masks["words"].flatten().nonzero().flatten().tolist() == sorted(rows)
    assert int(masks["bos"].sum()) == int(masks["eos"].sum()) == len(tokens.ids)
    if rows:
        assert select(Rows(role="words"), tokens) == [tuple(sorted(rows))]


def test_the_stretched_table_is_long_clips(sd1):
    """The loop of Long-CLIP's load_from_clip, written out (Zhang et al. 2024)."""
    old = sd1.towers[0].position_table.detach()
    keep, length = 20, 77
    new = torch.zeros(4 * length - 3 * keep, old.shape[1])
    for i in range(keep):
        new[i] = old[i]
    for i in range(length - 1 - keep):
        for k in range(4):
            new[4 * i + keep + k] = (1 - k / 4) * old[i + keep] + (k / 4) * old[i + 1 + keep]
    for k in range(4):
        new[4 * length - 3 * keep - 4 + k] = old[length - 1] + k / 4 * (old[length - 1] - old[length - 2])
    made = stretched(old)
    assert len(made) == 248
    torch.testing.assert_close(made, new, atol=1e-5, rtol=0)
    assert torch.equal(stretched(old, factor=1.0), old)


def test_slerp_over_the_whole_is_stable_diffusion_videos(sd1):
    """Its utils.slerp, written out: one angle for the whole tensor, weights on the vectors as they are."""
    lookup = lookup_of(sd1.towers[0])
    a, b = lookup("golden retriever"), lookup("pomeranian")
    for weight in (0.2, 0.5, 0.9):
        dot = (a * b).sum() / (a.norm() * b.norm())
        angle = dot.arccos()
        expected = (((1 - weight) * angle).sin() * a + (weight * angle).sin() * b) / angle.sin()
        torch.testing.assert_close(slerp_whole(a, b, weight), expected, atol=1e-5, rtol=1e-5)


def test_sums_of_words_are_embedding_merges(sd1):
    """`'a'*x + 'b'*y` on token vectors, the shorter one filled up with zero vectors."""
    tower = sd1.towers[0]
    prompt, lookup = embed("a golden retriever", tower), lookup_of(tower)
    made = Replace("golden retriever", {"pomeranian": 0.5, "cat": 2}, lengths="zero")(prompt, lookup)
    expected = 0.5 * lookup("pomeranian") + 2 * torch.cat([lookup("cat"), torch.zeros(1, 16)])
    torch.testing.assert_close(made.token[0, 2:4], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scale({"role": "word"}, 2), "role is 'word'; choose one of words, bos, eos, pad, all"),
        (lambda: Scale({"wrd": "cat"}, 2), "a selector has no 'wrd'; it has word, nth, tokens, role, window, but"),
        (lambda: Scale("", 2), "word is ''; it has to be a word or phrase of the prompt"),
        (lambda: Scale(["puppy", [1]], 2), "rows holds the list [1]; its selectors stand in one list"),
        (lambda: Scale({"word": "cat", "nth": 3}, 2), "'cat' stands 2 times; there is no occurrence 3"),
        (lambda: Scale({"word": "cat", "nth": 0}, 2), "it counts the occurrences of a `word` from 1"),
        (lambda: Scale(77, 2), "there is no row 77; this prompt has rows 0 to 76"),
        (lambda: Scale({"window": 1}, 2), "there is no window 1; this prompt has windows 0 to 0"),
        (lambda: Scale({"word": "cat", "role": "pad"}, 2), "match nothing; in 1 window this prompt has 5 words, 1 bos"),
        (lambda: Scale([], 2), "it has to be a word, a row number, a selector or a list of those"),
        (lambda: Scale({}, 2), "a selector has to say something"),
        (lambda: Scale("cat", "loud"), "by is 'loud'; it has to be a finite number"),
        (
            lambda: Scale("cat", 2, stage="layers"),
            "stage is 'layers'; choose one of token, position, both, hidden, pool",
        ),
        (lambda: Scale("cat", 2, stage="hidden"), "an operator of stage 'hidden' met rows; apply it with edit_encoded"),
        (lambda: Add("cat", {"dog": 1, "fox": float("nan")}), "weight of fox is nan"),
        (lambda: Add("cat", {"dog": 1, 1929: -1}), "has no length"),
        (lambda: Add("cat", {}), "direction is {}; it has to be a word, a token id or a place, vectors, or a sum"),
        (lambda: Rotate("cat", "right"), "angle is 'right'; it has to be a finite number"),
        (lambda: Noise("cat", 0.5, seed=-1), "seed is -1; it has to be a whole number from 0"),
        (lambda: Shift("cat", 75), "asks for position 77; the table has positions 0 to 76"),
        (lambda: Shift("cat", -5), "asks for position -3; the table has positions 0 to 76"),
        (lambda: Place("cat", 77), "asks for position 77; the table has positions 0 to 76"),
        (lambda: Place("cat", 1.5), "at is 1.5; it has to be a position"),
        (lambda: Permute("cat", (1, 2)), "it has to hold each number from 0 up once"),
        (lambda: Permute("cat", (1, 0)), "order names 2 rows, 'cat' has 1"),
        (lambda: Swap("cat", "dog"), "'cat' stands 2 times and 'dog' 1 times; say which by nth"),
        (lambda: Swap("dog", "dog"), "share row 4; nothing to trade"),
        (lambda: Stretch(factor=0.5), "factor is 0.5; it has to be 1 or more"),
        (lambda: Normalise("cat", to=0), "to is 0; it has to be above 0"),
    ],
)
def test_bad_settings_are_one_clear_line(make, message, sd1):
    tower = sd1.towers[0]
    with pytest.raises(EmbedlabError, match=re.escape(message)) as caught:
        make()(embed("a cat, dog cat", tower), lookup_of(tower))
    assert "\n" not in str(caught.value)


def test_a_table_is_measured_once_until_it_is_written_to():
    seen = []
    length = once_per_table(lambda table: seen.append(0) or table.norm())
    table = torch.nn.Parameter(torch.ones(4, 4))
    with torch.inference_mode():
        assert length(table.detach()) == 4
    assert length(table.detach()) == 4
    assert len(seen) == 1
    by = torch.tensor(2.0, requires_grad=True)
    (by * length(table.detach())).backward()
    assert by.grad == 4, "also of what was first measured in inference mode"
    assert length(table).requires_grad, "a table that is learned is measured with its gradient"
    with torch.no_grad():
        table[1:] = 0
    assert length(table.detach()) == 2
    assert length(table.detach()[1:]) == 0
    with torch.inference_mode():
        table = torch.ones(9)
        assert [length(table), length(table.zero_())] == [3, 0]
    for n in range(20):  # whatever comes to lie where another was
        assert length(torch.full((64, 64), float(n))) == 64 * n


def test_nearest_finds_the_words_that_a_row_lies_between(emoji, sd1):
    lookup = lookup_of(emoji.towers[0])
    half = torch.lerp(lookup("puppy"), lookup("skunk"), 0.5)
    (near,) = lookup.nearest(half[0], most=2)
    assert {n.text for n in near} == {"puppy", "skunk"}
    lookup = lookup_of(sd1.towers[0])
    for by in ("cosine", "distance"):
        (near,) = lookup.nearest(1.01 * lookup("cat"), most=2, by=by)
        assert near[0].id == 2368
        assert abs(near[0].cosine - 1) < 1e-5
        assert near[0].distance < near[1].distance or by == "cosine"
    with pytest.raises(EmbedlabError, match="by is 'angle'; choose one of cosine, distance"):
        lookup.nearest(lookup("cat"), by="angle")
