import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedlab import Interpolate, Replace, edit, embed, embed_all, encode
from embedlab.embeddings import lookup_of
from embedlab.errors import EmbedlabError, OperatorError, PromptError
from embedlab.operators import lerp, slerp
from embedlab.operators.base import match_length

PROMPT = "A picture of a puppy and a rocket"


def apply(op, model, prompt=PROMPT):
    """An operator on the first text encoder; the prompt before and after."""
    tower = model.towers[0]
    before = embed(prompt, tower)
    return before, op(before, lookup_of(tower)), lookup_of(tower)


NEUTRAL = [
    Interpolate("puppy", "skunk", 0.0),
    Interpolate("puppy", "skunk", 0.0, path="slerp"),
    Interpolate("puppy", ["skunk", "cat"], [0.0, 0.0]),
    Interpolate("puppy", "rocket", 0, stage="both"),
    Replace("puppy", "puppy"),
    Replace("puppy", "puppy", stage="both"),
    Replace("puppy", 5, stage="position"),
]


@pytest.mark.parametrize("op", NEUTRAL, ids=repr)
def test_the_neutral_setting_changes_nothing_to_the_bit(op, sd1):
    before, after, _ = apply(op, sd1)
    assert torch.equal(before.token, after.token)
    assert torch.equal(before.position, after.position)
    a, b = encode([(before,), (after,)], sd1.towers)
    assert torch.equal(a.hidden, b.hidden)


@pytest.mark.parametrize("path", ["lerp", "slerp"])
def test_the_full_setting_is_the_target_to_the_bit(sd1, path):
    _, after, lookup = apply(Interpolate("puppy", "skunk", 1, path=path), sd1)
    assert torch.equal(after.token[0, 5], lookup("skunk")[0])
    _, after, lookup = apply(Interpolate("puppy", ["skunk", "cat"], [0, 1.0], path=path), sd1)
    assert torch.equal(after.token[0, 5], lookup("cat")[0])
    _, after, lookup = apply(Replace("puppy", "cat"), sd1)
    assert torch.equal(after.token[0, 5], lookup(2368)[0])
    _, after, lookup = apply(Replace("puppy", "rocket", stage="position"), sd1)
    assert torch.equal(after.position[0, 5], after.position[0, 8])


@pytest.mark.parametrize(
    "op",
    [
        Interpolate("puppy", "skunk", 0.5),
        Interpolate("puppy", "skunk", 0.5, path="slerp"),
        Interpolate("puppy", "rocket", 0.5, stage="position"),
        Interpolate("puppy", ["skunk", "cat"], [0.25, 0.25]),
        Interpolate("puppy", "skunk", 1.5),
    ],
    ids=repr,
)
def test_a_setting_between_changes_its_rows_and_no_others(op, sd1):
    before, after, _ = apply(op, sd1)
    moved = (before.token != after.token).any(-1) | (before.position != after.position).any(-1)
    assert moved.nonzero().tolist() == [[0, 5]]
    a, b = encode([(before,), (after,)], sd1.towers)
    assert not torch.equal(a.hidden, b.hidden)


def test_the_input_is_never_changed(sd1):
    tower = sd1.towers[0]
    before = embed(PROMPT, tower)
    token, position, table = before.token.clone(), before.position.clone(), tower.token_table.clone()
    Replace("puppy", "cat")(before, lookup_of(tower))
    Interpolate("a", "rocket", 0.3, stage="both")(before, lookup_of(tower))
    assert torch.equal(before.token, token)
    assert torch.equal(before.position, position)
    assert torch.equal(tower.token_table, table)


@settings(max_examples=60, deadline=None)
@given(weight=st.floats(0, 1), seed=st.integers(0, 99))
def test_paths_start_and_end_where_they_should_and_stay_between(weight, seed):
    random = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 3, 16, generator=random)
    for path in (lerp, slerp):
        assert torch.equal(path(a, b, 0), a)
        assert torch.equal(path(a, b, 1), b)
        made = path(a, b, weight)
        torch.testing.assert_close(path(b, a, 1 - weight), made, atol=1e-5, rtol=1e-4)
    # unit rows stay on the sphere, and the angle grows evenly
    a, b = (torch.nn.functional.normalize(x, dim=-1) for x in (a, b))
    made = slerp(a, b, weight)
    torch.testing.assert_close(made.norm(dim=-1), torch.ones(3), atol=1e-5, rtol=0)
    whole = (a * b).sum(-1).acos()
    torch.testing.assert_close((a * made).sum(-1).clamp(-1, 1).acos(), weight * whole, atol=2e-3, rtol=1e-3)


def test_slerp_is_stable_diffusion_videos_formula():
    """Its numbers for two plain vectors, worked by hand: θ = 90°, lengths 1 and 2."""
    made = slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]), 1 / 3)
    expected = torch.tensor([math.sin(math.pi / 3), 2 * math.sin(math.pi / 6)])
    torch.testing.assert_close(made, expected)
    parallel = slerp(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0]), 0.5)
    assert parallel.tolist() == [2.0, 0.0]


def test_several_ends_are_the_weighted_mean(sd1):
    _, after, lookup = apply(Interpolate("puppy", ["skunk", "cat"], [0.5, 0.3]), sd1)
    mean = 0.2 * lookup("puppy") + 0.5 * lookup("skunk") + 0.3 * lookup("cat")
    torch.testing.assert_close(after.token[0, 5], mean[0])


def test_an_embedding_merge_sum_is_the_same_mix(sd1):
    """embedding-merge writes 'puppy'*0.5 + 'skunk'*0.5."""
    _, after, lookup = apply(Interpolate("puppy", "skunk", 0.5), sd1)
    torch.testing.assert_close(after.token[0, 5], (lookup("puppy") * 0.5 + lookup("skunk") * 0.5)[0])


def test_every_occurrence_is_edited_in_every_window(sd1):
    prompt = "puppy " + "cat " * 80 + "puppy"
    before, after, lookup = apply(Replace("puppy", "skunk"), sd1, prompt)
    (first,), (second,) = before.tokens.rows("puppy")
    flat = after.token.flatten(0, 1)
    assert second > 77
    assert torch.equal(flat[first], lookup("skunk")[0])
    assert torch.equal(flat[second], lookup("skunk")[0])


def test_the_same_operator_runs_on_every_encoder(model):
    prompt = embed_all("a puppy", model.towers)
    replaced = edit(prompt, [Replace("puppy", "cat")], model.towers)
    asked = embed_all("a cat", model.towers)
    for got, wanted in zip(replaced, asked, strict=True):
        assert torch.equal(got.token, wanted.token)
    a, b = encode([replaced, asked], model.towers)
    assert torch.equal(a.hidden, b.hidden)
    assert torch.equal(a.pooled, b.pooled)


def test_operators_are_applied_in_order(sd1):
    prompt = embed_all("a puppy", sd1.towers)
    there = edit(prompt, [Replace("puppy", "cat"), Interpolate("puppy", "skunk", 0.5)], sd1.towers)[0].token[0, 2]
    back = edit(prompt, [Interpolate("puppy", "skunk", 0.5), Replace("puppy", "cat")], sd1.towers)[0].token[0, 2]
    table = sd1.towers[0].token_table
    assert torch.equal(there, torch.lerp(table[2368], table[42194], 0.5))
    assert torch.equal(back, table[2368])


def test_unequal_token_counts_name_both_unless_a_policy_is_chosen(sd1):
    tower = sd1.towers[0]
    lookup = lookup_of(tower)
    long = lookup("pomeranian")
    assert len(long) == 2
    with pytest.raises(OperatorError, match="'puppy' has 1 token and 'pomeranian' has 2; .*repeat, resample, zero"):
        apply(Replace("puppy", "pomeranian"), sd1)
    with pytest.raises(OperatorError, match="'fluffy puppy' has 2 tokens and 'a very small cat' has 4"):
        apply(Interpolate("fluffy puppy", "a very small cat"), sd1, "a fluffy puppy")
    for policy, wanted in {"repeat": long[:1], "zero": long[:1], "resample": long.mean(0, keepdim=True)}.items():
        _, after, _ = apply(Replace("puppy", "pomeranian", lengths=policy), sd1)
        torch.testing.assert_close(after.token[0, 5:6], wanted)


def test_policies_keep_what_already_fits():
    rows = torch.randn(3, 4)
    for policy in ("error", "repeat", "resample", "zero"):
        assert torch.equal(match_length(rows, 3, policy, "a", "b"), rows)
    assert match_length(rows, 5, "repeat", "a", "b").equal(rows[[0, 1, 2, 0, 1]])
    assert match_length(rows, 4, "zero", "a", "b")[3].eq(0).all()
    assert match_length(rows, 5, "resample", "a", "b")[[0, 2, 4]].equal(rows)


def test_vectors_and_ids_are_targets_too(sd1):
    width = sd1.towers[0].width
    vector = torch.randn(width)
    _, after, _ = apply(Replace("puppy", vector), sd1)
    assert torch.equal(after.token[0, 5], vector)
    _, listed, _ = apply(Replace("puppy", vector.tolist()), sd1)
    assert torch.equal(listed.token, after.token)


def test_gradients_pass_from_the_conditioning_to_a_vector(sd1):
    vector = torch.zeros(sd1.towers[0].width, requires_grad=True)
    _, after, _ = apply(Replace("puppy", vector), sd1)
    encode([(after,)], sd1.towers)[0].hidden.square().sum().backward()
    assert vector.grad is not None
    assert vector.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Replace("kitten", "cat"),
            PromptError,
            r"'kitten' is not in the prompt; its words are A, picture, of, a, puppy, and, a, rocket\.",
        ),
        (lambda: Replace("puppy", ""), PromptError, "an empty text has no token rows"),
        (lambda: Replace("puppy", 50_000), OperatorError, "50000 is no token id; the vocabulary has ids 0 to 49407"),
        (
            lambda: Replace("puppy", 77, stage="position"),
            OperatorError,
            "77 is no position in a window; positions are 0 to 76",
        ),
        (lambda: Replace("puppy", "cat", stage="position"), PromptError, "'cat' is not in the prompt"),
        (
            lambda: Replace("puppy", torch.ones(2)),
            OperatorError,
            r"a vector of shape \(2,\) does not fit rows of width 16",
        ),
        (lambda: Replace("puppy", torch.full((16,), float("nan"))), OperatorError, "holds NaN"),
        (
            lambda: Replace("puppy", ["x"]),
            OperatorError,
            r"by is \['x'\]; it has to be a word, a token id or a place, vectors",
        ),
        (
            lambda: Replace("puppy", "cat", stage="rows"),
            OperatorError,
            "stage is 'rows'; choose one of token, position, both",
        ),
        (lambda: Replace("puppy", "cat", lengths="pad"), OperatorError, "lengths is 'pad'; choose one of error"),
        (lambda: Replace("puppy", 3, stage="both"), OperatorError, "an id has no position"),
        (
            lambda: Interpolate("puppy", "cat", float("nan")),
            OperatorError,
            "weight is nan; it has to be a finite number",
        ),
        (lambda: Interpolate("puppy", "cat", "half"), OperatorError, "weight is 'half'"),
        (lambda: Interpolate("puppy", "cat", True), OperatorError, "weight is True"),
        (
            lambda: Interpolate("puppy", "cat", path="bezier"),
            OperatorError,
            "path is 'bezier'; choose one of lerp, slerp",
        ),
        (lambda: Interpolate("puppy", ["cat"], [0.5, 0.5]), OperatorError, "there are 2 weights for 1 ends"),
        (lambda: Interpolate("puppy", ["cat", "fox"], 0.5), OperatorError, "give a list of as many weights"),
        (lambda: Interpolate("puppy", [], []), OperatorError, "names no end"),
        (lambda: Replace("puppy", [True] * 16), OperatorError, "it has to be a word, a token id or a place, vectors"),
        (lambda: Replace("puppy", 1.5), OperatorError, "by is 1.5; it has to be a word"),
        (lambda: Interpolate("puppy", ["cat", "fox"], [0.8, 0.4]), OperatorError, "sum to 1 at the most"),
    ],
)
def test_bad_settings_are_one_clear_line(make, error, message, sd1):
    with pytest.raises(error, match=message) as caught:
        apply(make(), sd1)
    assert isinstance(caught.value, EmbedlabError)
    assert "\n" not in str(caught.value)


def test_operators_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Replace("puppy", "cat").word = "dog"
