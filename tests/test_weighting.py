"""Weights: each tool's numbers by name, live or from its formula read again here, and what a weight has to mean."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from compel import DownweightMode, ReturnedEmbeddingsType
from compel.embeddings_provider import EmbeddingsProvider, SplitLongTextMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity import close

from embedlab import embed_all, encode
from embedlab.clip import forward
from embedlab.composition import join_states
from embedlab.errors import PromptError
from embedlab.memo import Memo
from embedlab.weighting import METHODS, encoder_of, weigh
from embedlab.weighting.lerp import Compel
from embedlab.weighting.normalise import normalised
from embedlab.weighting.scale import Scaled
from embedlab.windows import BREAK, windows_of

laws = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LINEAR = ("masked", "comfyui", "perpendicular", "no_norm")
WEIGHTED = [("a picture of a", 1.0), ("red star", 1.5), ("and a cat", 0.4), ("on", 1.0), ("an owl", 0.7), (".", 1.0)]
LONG = [("a red star, " * 15, 1.0), ("hippopotamus. a cat and a dog", 0.4), (", owl" * 30, 1.3), ("and one fox", 0.0)]


@pytest.fixture(params=[0, -1], ids=["first", "last"])
def tower(model, request):
    """The first and the last text encoder; they differ for SDXL alone, in padding, width and projection."""
    return model.towers[request.param]


def weighed(pieces, tower, method, split="whole", **more):
    return weigh([windows_of(pieces, tower.tokenizer, split)], encoder_of(tower), method, **more)[0]


def raw(tower, windows, ids=None, mask=None):
    """An encoder's own hidden states of each window, straight from the library, and its pooled output."""
    ids = windows.ids if ids is None else ids
    out = tower.encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    hidden = out.last_hidden_state if tower.final_norm else out.hidden_states[-(tower.layer + 1)]
    return hidden.detach()


def blank(tower, windows):
    """The empty prompt's."""
    tok = tower.tokenizer
    row = [tok.bos_token_id, tok.eos_token_id, *[tok.pad_token_id] * 75]
    return raw(tower, windows, torch.tensor([row]))


# ── a mask ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mask_is_the_librarys_own(tower):
    windows = windows_of(WEIGHTED, tower.tokenizer)
    rows = tower.token_table[windows.ids] + tower.position_table
    mask = torch.ones_like(windows.ids)
    mask[:, 5:8] = 0
    out = tower.core(input_ids=windows.ids, attention_mask=mask)
    assert torch.equal(forward(tower, windows.ids, rows, mask).last, out.last_hidden_state)
    bare = forward(tower, windows.ids, rows)
    assert torch.equal(bare.last, tower.core(input_ids=windows.ids).last_hidden_state)
    assert torch.equal(bare.last[:, :5], out.last_hidden_state[:, :5]) or torch.allclose(
        bare.last[:, :5], out.last_hidden_state[:, :5], atol=1e-6
    )
    assert not torch.allclose(bare.last[:, 8:], out.last_hidden_state[:, 8:], atol=1e-4)


# ── laws ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_one_are_the_encoders_own_to_the_bit(tower, method):
    for text in ("", "a picture of a cat", "a red star, " * 40):
        made = weighed([(text, 1.0)], tower, method)
        (own,) = encode([embed_all(text, [tower])], [tower], at_once=10)
        assert torch.equal(made.hidden.flatten(0, 1), own.hidden)
        if len(made.hidden) == 1:
            assert torch.equal(made.pooled, own.pooled)


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_does_something_and_gives_numbers(tower, method):
    one = weighed([("a red star", 1.0)], tower, method)
    for weight in (1.5, 0.5, 0.0, -1.0):
        made = weighed([("a ", 1.0), ("red", weight), (" star", 1.0)], tower, method)
        assert torch.isfinite(made.hidden).all()
        assert not torch.allclose(made.hidden, one.hidden, atol=1e-5) or (method == "down_weight" and weight > 1)


def test_limits_that_the_methods_state(tower):
    """What each says of weight 0, and of the mean."""
    pieces = [("a", 1.0), ("red", 0.0), ("star", 1.0)]
    windows = windows_of(pieces, tower.tokenizer)
    z, empty, word = raw(tower, windows)[0], blank(tower, windows)[0], 2
    made = {name: weigh([windows], encoder_of(tower), name)[0].hidden[0] for name in METHODS}
    for name in ("comfyui", "perp", "compel"):
        torch.testing.assert_close(made[name][word], empty[word], atol=1e-4, rtol=0)
    assert (made["no_norm"][word] == 0).all()
    close(made["a1111"].mean(), z.mean())
    close(made["lpw_xl"][word], z[-1])
    gone = raw(tower, windows, windows.ids.masked_fill(windows.pieces == 1, 266))[0]
    for name in ("comfy++", "down_weight", "adv_compel"):
        close(made[name], gone)


@pytest.mark.parametrize("method", LINEAR)
def test_linear_methods_are_a_line_through_0_and_1_and_below(sd1, method):
    (tower,) = sd1.towers

    def at(weight):
        return weighed([("a", 1.0), ("red", weight), ("star", 1.0)], tower, method).hidden

    zero, one = at(0.0), at(1.0)
    for weight in (-1.0, -0.3, 0.5, 1.7):
        close(at(weight), zero + weight * (one - zero))


def test_masked_at_0_is_a_prompt_that_never_heard_of_the_word(tower):
    """Rows after it are those of the masked encoding, its own those of the empty prompt; and 0 of all is empty."""
    windows = windows_of([("a", 1.0), ("red", 0.0), ("star", 1.0)], tower.tokenizer)
    mask = (windows.pieces != 1).long()
    expected = raw(tower, windows, mask=mask)
    expected[0, 2] = blank(tower, windows)[0, 2]
    close(weigh([windows], encoder_of(tower), "masked")[0].hidden, expected)


def test_masked_adds_what_each_piece_changes(sd1):
    (tower,) = sd1.towers
    own = weighed([("a red star", 1.0)], tower, "masked").hidden
    red = weighed([("a", 1.0), ("red", 1.6), ("star", 1.0)], tower, "masked").hidden
    star = weighed([("a red", 1.0), ("star", 0.2)], tower, "masked").hidden
    both = weighed([("a", 1.0), ("red", 1.6), ("star", 0.2)], tower, "masked").hidden
    close(both, red + star - own)


def test_windows_that_no_weight_is_in_stay_as_they_are(sd1):
    (tower,) = sd1.towers
    pieces = [("a cat", 1.0), BREAK, ("a", 1.0), ("dog", 0.5), BREAK, ("an owl", 1.0)]
    one = weighed([(p[0], 1.0) if isinstance(p, tuple) else p for p in pieces], tower, "masked").hidden
    for method in ("masked", "comfyui", "compel", "perp", "perpendicular", "a1111_window", "comfy++"):
        made = weighed(pieces, tower, method).hidden
        torch.testing.assert_close(made[[0, 2]], one[[0, 2]], atol=1e-6, rtol=0)
        assert not torch.allclose(made[1], one[1], atol=1e-5)


@laws
@given(weight=st.floats(-2, 3, allow_nan=False), method=st.sampled_from(sorted(METHODS)))
def test_a_prompts_numbers_do_not_depend_on_its_company_but_for_a1111s_batch(sd1, weight, method):
    (tower,) = sd1.towers
    one = windows_of([("a", 1.0), ("red", weight), ("star", 1.0)], tower.tokenizer)
    other = windows_of([("a dog", 0.3)], tower.tokenizer)
    (alone,) = weigh([one], encoder_of(tower), method)
    together = weigh([other, one], encoder_of(tower), method)[1]
    if method != "a1111":
        torch.testing.assert_close(together.hidden, alone.hidden, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(together.pooled, alone.pooled, atol=2e-5, rtol=1e-5)


def test_equal_windows_are_encoded_once_and_masks_go_apart(sd1):
    (tower,) = sd1.towers
    calls = []

    def counting(ids, mask, source, place):
        calls.append((len(ids), mask is not None))
        return encoder_of(tower)(ids, mask, source, place)

    one = windows_of([("a", 1.0), ("red", 0.5), ("star", 1.0)], tower.tokenizer)
    weigh([one, one, windows_of([("a red star", 1.0)], tower.tokenizer)], counting, "compel")
    assert calls == [(2, False), (1, True)], "the prompt and the empty one; the one that lacks red"
    calls.clear()
    weigh([one, one], counting, "masked", edited=True)
    assert calls == [(4, False), (2, True)], "rows of two edited prompts are not known to be the same"


@pytest.fixture
def passes(monkeypatch):
    """How many windows each call of a text encoder had."""
    counts = []

    def counted(tower, ids, rows, mask=None):
        counts.append(len(ids))
        return forward(tower, ids, rows, mask)

    monkeypatch.setattr("embedlab.weighting.reading.forward", counted)
    return counts


@torch.no_grad()
def test_what_was_encoded_is_known_by_its_rows(sd1, passes):
    """A weight more, or the same rows from somewhere else, is no pass more; another row is one."""
    (tower,) = sd1.towers
    known = Memo(64)

    def weighed_by(weight, word="red", **more):
        windows = windows_of([("a", 1.0), (word, weight), ("star", 1.0)], tower.tokenizer)
        (made,) = weigh([windows], encoder_of(tower, known=known, at_once=8, **more), "masked", edited=bool(more))
        return windows, made

    windows, first = weighed_by(0.5)
    assert passes == [2, 1]
    _, second = weighed_by(-1.0)
    token, position = (t.repeat(1, 1) for t in (tower.token_table[windows.ids[0]], tower.position_table))
    _, third = weighed_by(0.5, token=token, position=position)
    assert passes == [2, 1], "nothing that is new"
    assert torch.equal(first.hidden, third.hidden)
    assert not torch.allclose(first.hidden, second.hidden, atol=1e-5)
    token[2] *= -1
    _, other = weighed_by(0.5, token=token)
    assert passes == [2, 1, 1, 1], "the prompt with another row and the same masked, but for the empty one"
    assert not torch.allclose(first.hidden, other.hidden, atol=1e-5)


@torch.no_grad()
def test_calls_are_of_as_many_windows_as_asked(sd1, passes):
    (tower,) = sd1.towers
    windows = windows_of([("a red star, " * 75, 1.0)], tower.tokenizer, "hard")
    assert len(windows.ids) == 4
    (many,) = weigh([windows], encoder_of(tower, at_once=3), "no_norm")
    (one,) = weigh([windows], encoder_of(tower), "no_norm")
    assert passes == [3, 1, 1, 1, 1, 1]
    close(many.hidden, one.hidden)


def test_gradients_reach_the_rows_that_are_handed_in(sd1):
    (tower,) = sd1.towers
    windows = windows_of([("a", 1.0), ("red", 0.5), ("star", 1.0)], tower.tokenizer)
    token = tower.token_table.detach()[windows.ids[0]].clone().requires_grad_()
    position = tower.position_table.detach().clone().requires_grad_()
    encode = encoder_of(tower, token=token, position=position, known=Memo(8))
    weigh([windows], encode, "comfy++", edited=True)[0].hidden.square().sum().backward()
    assert token.grad[2].abs().max() > 0
    assert position.grad.abs().amin(0).max() > 0


def test_edited_rows_reach_every_variant(sd1):
    """Operators edit rows; a method's variants have them too, at their own places or moved up."""
    (tower,) = sd1.towers
    tok = tower.tokenizer
    named = windows_of([("a", 1.0), ("fox", 0.5), ("star", 1.0)], tok)
    other = windows_of([("a", 1.0), ("cat", 0.5), ("star", 1.0)], tok)
    token = tower.token_table[torch.cat([named.ids, other.ids]).flatten()].clone()
    token[77 + 2] = token[2]  # cat's row becomes fox's
    for method in METHODS:
        expected = weigh([named, named], encoder_of(tower), method)[1]
        made = weigh([named, other], encoder_of(tower, token=token), method, edited=True)[1]
        close(made.hidden, expected.hidden)
        close(made.pooled, expected.pooled)


@pytest.mark.parametrize("method", METHODS)
def test_edited_positions_are_those_of_the_place_in_every_variant(sd1, method):
    """An encoder with another position table is what a prompt with other position rows meets, window by window."""
    (tower,) = sd1.towers
    tok = tower.tokenizer
    pieces = [("a", 1.0), ("red", 0.5), ("star", 1.4), BREAK, ("a dog", 1.0), ("and an owl", 0.7)]
    windows, company = windows_of(pieces, tok), windows_of([("a cat", 1.2), BREAK, ("a fox", 1.0)], tok)
    plain = tower.position_table.detach()
    moved = plain.roll(5, 0)
    position = torch.cat([plain, plain, moved, moved])
    made = weigh([company, windows], encoder_of(tower, position=position), method, edited=True)
    other = copy.deepcopy(tower.encoder)
    replace(tower, encoder=other).position_table.data.copy_(moved)
    (expected,) = weigh(
        [windows], encoder_of(replace(tower, encoder=other)), method if method != "a1111" else "no_norm"
    )
    if method != "a1111":
        close(made[1].hidden, expected.hidden)
    close(made[1].pooled, expected.pooled)
    half = weigh(
        [company, windows], encoder_of(tower, position=torch.cat([plain, plain, plain, moved])), "comfyui", edited=True
    )
    first, second = (
        weigh([windows], encoder_of(t), "comfyui")[0].hidden for t in (tower, replace(tower, encoder=other))
    )
    close(half[1].hidden, torch.stack([first[0], second[1]]))


@torch.no_grad()
def test_an_encoder_with_248_places_is_read_to_its_end(sd1):
    """Long-CLIP's table, read by the library itself."""
    (tower,) = sd1.towers
    config = copy.deepcopy(tower.encoder.config)
    config.max_position_embeddings = 248
    torch.manual_seed(0)
    long = replace(tower, encoder=type(tower.encoder)(config).eval())
    text = "a red star, " * 60
    windows = windows_of([(text, 1.0)], tower.tokenizer, "hard", window=248)
    assert len(windows.ids) == 1
    (made,) = weigh([windows], encoder_of(long))
    assert torch.equal(made.hidden, raw(long, windows))
    with pytest.raises(PromptError, match="windows of 248 tokens do not fit 77 positions"):
        weigh([windows], encoder_of(tower))


# ── compel 2.5.1, live ────────────────────────────────────────────────────────────────────────────────────────────


def provider(tower, **more):
    kinds = ReturnedEmbeddingsType
    kind = kinds.LAST_HIDDEN_STATES_NORMALIZED if tower.final_norm else kinds.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
    return EmbeddingsProvider(tower.tokenizer, tower.encoder, returned_embeddings_type=kind, **more)


@torch.no_grad()
def theirs(compel, pieces):
    texts, weights = [text for text, _ in pieces], [weight for _, weight in pieces]
    return compel.get_embeddings_for_weighted_prompt_fragments([texts], [weights])[0]


@pytest.mark.parity("compel 2.5.1", "one weight, from 1.5 to -0.5", "weighting=compel", "live")
@pytest.mark.parametrize("weight", [1.0, 1.5, 0.9, 0.5, 0.1, 0.0, -0.5])
def test_one_weight_is_compels(tower, weight):
    pieces = [("a picture of a", 1.0), ("red star", weight), ("and a cat", 1.0)]
    close(weighed(pieces, tower, "compel").hidden.flatten(0, 1), theirs(provider(tower), pieces))


@pytest.mark.parity(
    "compel 2.5.1", "several weights; down-weighting by masks and by removal", "weighting=compel, compel_remove", "live"
)
@pytest.mark.parametrize("mode", ["MASK", "REMOVE"])
def test_many_weights_are_compels(tower, mode):
    method = Compel("mask" if mode == "MASK" else "remove")
    compel = provider(tower, downweight_mode=DownweightMode[mode])
    close(weighed(WEIGHTED, tower, method).hidden.flatten(0, 1), theirs(compel, WEIGHTED))


@pytest.mark.parity(
    "compel 2.5.1",
    "splitting at words, phrases, sentences, hard; ends copied or merged",
    "windows=word, phrase, sentence, hard; encoder.join=copied, merged",
    "live",
)
@pytest.mark.parametrize("join", ["copied", "merged", "windows"])
@pytest.mark.parametrize(
    ("split", "mode"), [("sentence", "SENTENCES"), ("phrase", "PHRASES"), ("word", "WORDS"), ("hard", "BRUTAL")]
)
def test_long_prompts_are_compels(tower, split, mode, join):
    flags = SplitLongTextMode[mode]
    flags |= {"copied": SplitLongTextMode.COPY_FIRST_CLS_TOKEN, "merged": SplitLongTextMode.MERGE_CLS_TOKENS}.get(
        join, flags
    )
    made = weighed(LONG, tower, "compel", split)
    assert len(made.hidden) > 1
    close(
        join_states(made.hidden, made.windows, join),
        theirs(provider(tower, truncate=False, split_long_text_mode=flags), LONG),
    )


@pytest.mark.parity("compel 2.5.1", "truncation", "encoder.join=truncate", "live")
def test_truncated_prompts_are_compels(tower):
    pieces = [("a red star, " * 18, 1.0), ("a cat and a dog and an owl", 0.4), ("a fox", 0.2)]
    windows = windows_of(pieces, tower.tokenizer, "hard", truncate=True)
    close(weigh([windows], encoder_of(tower), "compel")[0].hidden[0], theirs(provider(tower), pieces))


def test_a_piece_over_a_border_leaves_the_end_alone_where_compel_is_not_followed(sd1):
    (tower,) = sd1.towers
    pieces = [("a red star. " + "cat " * 20, 1.0), ("owl. " + "dog " * 70, 0.4)]
    windows = windows_of(pieces, tower.tokenizer, "sentence")
    assert windows.ends[0] < 75
    exact, ours = (Compel(exact=e).variants(windows)[1].mask for e in (True, False))
    assert exact[0, windows.ends[0]] == 0
    assert ours[0, windows.ends[0]] == 1
    assert (ours == 0).equal(windows.pieces == 1)


def test_removing_a_piece_may_need_fewer_windows(sd1):
    """compel cannot put these together; here the rest is empty windows."""
    (tower,) = sd1.towers
    pieces = [("a red star", 1.0), ("cat " * 80, 0.5)]
    compel = provider(tower, truncate=False, downweight_mode=DownweightMode.REMOVE)
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        theirs(compel, pieces)
    made = weighed(pieces, tower, "compel_remove")
    assert torch.isfinite(made.hidden).all()


# ── formulas, read again ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parity("A1111 1.10", 'emphasis "Original": the mean of the batch restored', "weighting=a1111", "formula")
def test_a1111_restores_the_mean_of_the_batch(tower):
    """Of each window's place over all prompts; the shorter one counts with the empty window."""
    prompts = [LONG, WEIGHTED, [("a ", 1.0), ("dog", 1.3)]]
    windows = [windows_of(pieces, tower.tokenizer, "comma") for pieces in prompts]
    made = weigh(windows, encoder_of(tower), "a1111")
    count = max(len(w.ids) for w in windows)
    for n in range(count):
        z = torch.cat([raw(tower, w, w.ids[n : n + 1]) if n < len(w.ids) else blank(tower, w) for w in windows])
        w = torch.stack([w.weights[n] if n < len(w.ids) else torch.ones(77) for w in windows]).float()[..., None]
        weighted = z * w
        expected = weighted * (z.mean() / weighted.mean())
        for mine, row in zip(made, expected, strict=True):
            if n < len(mine.hidden):
                scale = row.abs().max().clamp(min=1)
                close(mine.hidden[n] / scale, row / scale)
    stages = weigh(windows[1:], encoder_of(tower), "a1111")
    assert not torch.allclose(stages[0].hidden, weigh(windows[1:2], encoder_of(tower), "a1111")[0].hidden, atol=1e-5)


@pytest.mark.parity("A1111 1.10, Forge", 'emphasis "No norm"', "weighting=no_norm", "formula")
@pytest.mark.parity("ComfyUI", "line from the empty prompt", "weighting=comfyui", "formula")
@pytest.mark.parity("diffusers, lpw_stable_diffusion", "scaled, mean restored", "weighting=lpw", "formula")
@pytest.mark.parity("diffusers, lpw_stable_diffusion_xl", "line from the last row", "weighting=lpw_xl", "formula")
@pytest.mark.parity("sd_embed", "scaled by weights in half precision", "weighting=sd_embed", "formula")
@pytest.mark.parity("ComfyUI-prompt-control", "perp_weight", "weighting=perp", "formula")
@pytest.mark.parametrize("pieces", [WEIGHTED, LONG], ids=["short", "long"])
def test_formulas_of_one_prompt(tower, pieces):
    windows = windows_of(pieces, tower.tokenizer)
    z, empty = raw(tower, windows), blank(tower, windows)
    w = windows.weights.float()[..., None]
    half = w.half().float()
    p = (empty * z).sum(-1, keepdim=True) / z.norm(dim=-1, keepdim=True) ** 2 * z
    perp = torch.where(w.abs() > 1, z + w * p, torch.where(w == 0, empty.expand_as(z), z - (1 - w) * p))
    along = (empty * z).sum(-1, keepdim=True) / empty.norm(dim=-1, keepdim=True) ** 2 * empty
    expected = {
        "no_norm": z * w,
        "lpw": z * w * (z.mean() / (z * w).mean()),
        "a1111_sample": z * w * (z.mean() / (z * w).mean()),
        "a1111_window": torch.stack([a * b * (a.mean() / (a * b).mean()) for a, b in zip(z, w, strict=True)]),
        "sd_embed": z * half,
        "lpw_xl": z[:, -1:] + (z - z[:, -1:]) * half,
        "comfyui": empty + (z - empty) * w,
        "perp": perp,
        "perpendicular": z + (w - 1) * (z - along),
    }
    for name, wanted in expected.items():
        made = weigh([windows], encoder_of(tower), name)[0].hidden
        scale = wanted.abs().max().clamp(min=1)
        close(made / scale, wanted / scale)


def adv_down_weight(tower, windows, weights, base, under=lambda z, w: z):
    """ADV_CLIP_emb's sum over nested prompts, by its flat positions: as the README's `.2A + .3B + .5C`."""
    flat = weights.flatten()
    ids, kept = windows.ids.clone(), torch.ones_like(windows.weights)
    steps = sorted({float(x) for x in flat if x <= 1})
    answer = steps[0] * base
    for low, high in pairwise(steps):
        gone = weights <= low
        ids[gone] = 266
        kept = torch.where(gone, torch.ones_like(kept), windows.weights.clamp(min=1))
        answer = answer + (high - low) * under(raw(tower, windows, ids), kept.float()[..., None])
    return answer


@pytest.mark.turns
@pytest.mark.parity(
    "ADV_CLIP_emb",
    "down_weight, compel, comfy++",
    "weighting=down_weight, adv_compel, comfy++",
    "formula",
    differs="under NumPy 2 the original takes the wrong words away: these are the numbers that are meant",
)
@pytest.mark.parametrize("pieces", [WEIGHTED, LONG, [("a", 1.0), ("cat", -0.5), ("star", 2.0)]])
def test_adv_clip_emb(tower, pieces):
    windows = windows_of(pieces, tower.tokenizer)
    z, empty = raw(tower, windows), blank(tower, windows)
    up = windows.weights.clamp(min=1)

    def comfy(states, w):
        return empty + (states - empty) * w

    made = {name: weigh([windows], encoder_of(tower), name)[0].hidden for name in METHODS}
    close(
        made["adv_compel"],
        adv_down_weight(tower, windows, windows.weights, comfy(z, up.float()[..., None]), comfy),
    )
    relative = torch.where(windows.pieces < 0, 1.0, windows.weights / windows.weights.max())
    close(made["down_weight"], adv_down_weight(tower, windows, relative, z))
    lifted = torch.zeros_like(z)
    for piece, weight in windows.weight_of.items():
        if weight > 1:
            rows = windows.pieces == piece
            lifted += rows[..., None] * (z - raw(tower, windows, windows.ids.masked_fill(rows, 266)))
    close(
        made["comfy++"],
        adv_down_weight(tower, windows, windows.weights, z) + (up.float()[..., None] - 1) * lifted,
    )


@pytest.mark.parity("ADV_CLIP_emb", "length, mean and both of weights", "encoder.normalise=", "formula")
def test_normalisers():
    from embedlab import models  # noqa: PLC0415

    two = windows_of([("a cat", 1.0), ("red star owl dog", 3.0), ("fox", 0.5)], models.tokenizer())
    by_length = normalised(two, ["length"]).weights[0, :9].tolist()
    assert by_length == [1, 1, 1, *[1 + math.sqrt(4 / 4)] * 4, 0.5, 1]
    mean = normalised(two, ["mean"]).weights[0]
    close(mean[two.pieces[0] >= 0].mean(), torch.tensor(1.0, dtype=torch.float64), atol=1e-12)
    assert (mean[two.pieces[0] < 0] == 1).all()
    twice = normalised(two, ["mean", "length", "mean"])
    close(twice.weights[0, 1:8].mean(), torch.tensor(1.0, dtype=torch.float64), atol=1e-12)
    assert normalised(two, []) is two
    with pytest.raises(PromptError, match="normalise is 'sum'; choose one of length, mean"):
        normalised(two, ["sum"])


def test_normalised_weights_are_those_of_all_variants(sd1):
    (tower,) = sd1.towers
    pieces = [("a", 1.0), ("red", 0.5), ("star", 1.0)]
    mean = 2.5 / 3
    shifted = [("a", 2 - mean), ("red", 1.5 - mean), ("star", 2 - mean)]
    for method in ("masked", "compel", "compel_remove"):
        made = weighed(pieces, tower, method, normalise=["mean"])
        close(made.hidden, weighed(shifted, tower, method).hidden)


# ── the pooled output ─────────────────────────────────────────────────────────────────────────────────────────────


def pool(tower, windows, mask=None):
    """At the first end of text, through the projection where there is one."""
    out = tower.core(input_ids=windows.ids, attention_mask=mask).last_hidden_state
    rows = out[torch.arange(len(out)), windows.ends]
    return getattr(tower.encoder, "text_projection", torch.nn.Identity())(rows).detach()


def test_pooled_by_name(tower):
    made = {how: weighed(LONG, tower, "a1111", pooled=how).pooled for how in ("first", "last", "mean")}
    every = pool(tower, windows_of(LONG, tower.tokenizer))
    close(made["first"], every[0])
    close(made["last"], every[-1])
    close(made["mean"], every.mean(0))


@pytest.mark.parity(
    "compel 2.5.1", "pooled output of SDXL: the first window of the text with its signs", "pooled=raw", "live"
)
def test_pooled_of_compel_is_that_of_the_text_as_it_was_written(tower):
    """With its syntax, truncated: the first window of a plain prompt."""
    for text in ("a (red star)1.5 and a cat--", "a red star, " * 40):
        raw_text = windows_of([(text, 1.0)], tower.tokenizer, "hard", truncate=True)
        made = weigh([raw_text], encoder_of(tower), pooled="first")[0].pooled
        close(made, provider(tower).get_pooled_embeddings([text])[0].detach())


def test_pooled_row_is_advs(sd1):
    (tower,) = sd1.towers
    made = weighed(WEIGHTED, tower, "comfy++", pooled="row")
    assert torch.equal(made.pooled, made.hidden[0, 76])


def test_pooled_follows_the_weights_as_the_words_do(tower):
    def at(weight):
        return weighed([("a", 1.0), ("red", weight), ("star", 1.0)], tower, "a1111").pooled

    windows = windows_of([("a", 1.0), ("red", 0.0), ("star", 1.0)], tower.tokenizer)
    without = pool(tower, windows, (windows.pieces != 1).long())[0]
    close(at(0.0), without)
    for weight in (-1.0, 0.4, 1.8):
        close(at(weight), without + weight * (at(1.0) - without))
    assert not torch.allclose(at(1.8), at(1.0), atol=1e-4)


def test_pooled_hears_every_window_by_its_length(tower):
    pieces = [("a red star", 1.0), BREAK, ("a cat and a dog and an owl", 1.0)]
    windows = windows_of(pieces, tower.tokenizer)
    every = pool(tower, windows)
    close(weighed(pieces, tower, "masked").pooled, (3 * every[0] + 8 * every[1]) / 11)


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "auto1111"}, r"weighting is 'auto1111'; choose one of comfy\+\+, masked"),
        ({"pooled": "both"}, "pooled is 'both'; choose one of weighted, first"),
        ({"normalise": ["l2"]}, "normalise is 'l2'"),
    ],
)
def test_unknown_names_are_refused(sd1, settings, message):
    with pytest.raises(PromptError, match=message):
        weighed(WEIGHTED, sd1.towers[0], **{"method": "masked"} | settings)


def test_what_is_no_prompt_is_refused(sd1):
    with pytest.raises(PromptError, match="'a cat' is no Windows, as windows_of gives them"):
        weigh(["a cat"], encoder_of(sd1.towers[0]))


def test_a1111_over_the_sample_is_an_own_method_too(sd1):
    (tower,) = sd1.towers
    made = weighed(WEIGHTED, tower, Scaled("sample"))
    assert torch.equal(made.hidden, weighed(WEIGHTED, tower, "lpw").hidden)
