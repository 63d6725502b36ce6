"""What a prompt says in its language reaches the conditioning: weights, windows, mixes, time, several prompts."""

import copy
import dataclasses
import shutil
from pathlib import Path

import parity
import pytest
import torch
from compel import Compel, ReturnedEmbeddingsType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity import close

from embedlab import (
    Cell,
    Encoder,
    Guidance,
    Interpolate,
    Replace,
    Sampler,
    Scale,
    Source,
    Truncate,
    guided,
    load,
    render,
)
from embedlab.cell import cells_per_call, changes, denoiser_calls
from embedlab.condition import condition
from embedlab.embeddings import drawn_out
from embedlab.errors import ConfigError, EmbedlabError, LanguageError, OperatorError, PromptError, SamplerError
from embedlab.explanation import UNCHANGED, explain
from embedlab.export import prompt_embeds
from embedlab.language import parse, stages, write
from embedlab.limits import LANGUAGES, NORMALISERS, POOLED, SPLITS, WEIGHTINGS
from embedlab.parsed_prompt import parsed
from embedlab.schedule import Moment, Switch, resolve
from embedlab.sweep.job import Job
from embedlab.sweep.recorded_config import check_config
from embedlab.validate import validate
from embedlab.weighting import METHODS

laws = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COMPEL = Encoder(language="compel", weighting="compel", windows="sentence", pooled="raw")
A1111 = Encoder(language="a1111", weighting="a1111", windows="comma", pooled="first")
COMFY = Encoder(language="comfyui", weighting="comfyui", windows="segment", pooled="first")


def conditioned(model, prompt, encoder=None, operators=(), **more):
    (one,) = condition([Cell(prompt, operators, encoder or Encoder(), **more)], model.towers)
    return one


def hidden(model, prompt, encoder=None, operators=(), **more):
    return conditioned(model, prompt, encoder, operators, **more).cond.hidden


# ── what names no language stays as it was ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_plain_text_is_itself_in_every_language(model, language):
    text = "a picture of a red star, and a cat on blue"
    for weighting in ("comfy++", "comfyui", "a1111", "compel"):
        encoder = Encoder(language=language, weighting=weighting)
        made, plain = conditioned(model, text, encoder).cond, conditioned(model, text).cond
        assert torch.equal(made.hidden, plain.hidden) or weighting == "a1111"
        close(made.hidden, plain.hidden)
        assert torch.equal(made.pooled, plain.pooled)


def test_syntax_of_another_language_is_a_notice(sd1):
    tokens = conditioned(sd1, "a (red:1.3) star").original[0].tokens
    assert any("read with language=a1111" in note for note in tokens.notes())
    assert not conditioned(sd1, "a (red:1.3) star", A1111).original[0].tokens.notes()
    (note,) = conditioned(sd1, "a star <lora:fog:0.8>", A1111).original[0].tokens.notes()
    assert "'<lora:fog:0.8>' loads a network in A1111; here none is loaded" in note


def test_export_of_several_conditionings_is_refused_before_anything_is_drawn(folders, tmp_path):
    source = Source(str(folders["sd1"]))
    with pytest.raises(ConfigError, match="a prompt with AND is several"):
        Job(source, Cell("a cat AND a star", encoder=A1111), [0], tmp_path, export=True)
    Job(source, Cell("a cat :1", encoder=A1111), [0], tmp_path, export=True)


# ── compel, live ──────────────────────────────────────────────────────────────────────────────────────────────────


def beside_compel(model, pipeline, prompt):
    """Hidden states before each encoder; of two, the pooled output is that of the text as it was written."""
    two = len(model.towers) > 1
    kind = ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED
    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    if two:
        kind = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
        pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    compels = [Compel(*pair, returned_embeddings_type=kind, truncate_long_prompts=False) for pair in pairs]
    with torch.no_grad():
        theirs = torch.cat([compel(prompt)[0] for compel in compels], dim=-1)
        pooled = compels[-1].conditioning_provider.get_pooled_embeddings([prompt])[0] if two else None
    made = conditioned(model, prompt, COMPEL).cond
    close(made.hidden, theirs)
    if two:
        close(made.pooled, pooled)


WEIGHTS = (
    "a red++ star and a cat--",
    "a (red star)1.5 and (a cat)0.4 on an (owl)0.0",
    "a (picture of a (cat)1.2)1.3 \\(red\\) star",
)
BLENDS = (
    '("a picture of a cat", "a red star++").blend(0.3, 0.7)',
    '("a picture of a cat", "a red star").blend(1.4, -0.4)',
    '("a cat", "a red star and an owl, " ).blend(1, 1, no_normalize)',
    '("a cat", "' + "a red star and an owl, " * 14 + '").blend(0.5, 0.5)',
)


@pytest.mark.turns
@pytest.mark.parity("compel 2.5.1", "`word++`, `(phrase)0.4`, nested; pooled output", "tool=compel", "live")
@pytest.mark.parametrize("prompt", WEIGHTS)
def test_weights_are_compels(model, pipeline, prompt):
    beside_compel(model, pipeline, prompt)


@pytest.mark.turns
@pytest.mark.parity("compel 2.5.1", "`.blend()`", "tool=compel", "live")
@pytest.mark.parametrize("prompt", BLENDS)
def test_blends_are_compels(model, pipeline, prompt):
    beside_compel(model, pipeline, prompt)


@pytest.mark.parity("compel 2.5.1", "`.and()` with weights", "tool=compel", "live")
def test_conjunctions_are_compels(model, pipeline):
    beside_compel(model, pipeline, '("a picture of a cat", "a red-- star", "an owl").and(1, 0.5, 1.5)')


@pytest.mark.parity("compel 2.5.1", "prompts of several windows, weighted", "tool=compel", "live")
def test_long_prompts_are_compels(model, pipeline):
    beside_compel(model, pipeline, "a red star. " * 12 + "(a cat)0.5. " + "one owl, " * 20)


# ── A1111 ─────────────────────────────────────────────────────────────────────────────────────────────────────────

words = st.sampled_from(["cat", "red star", "owl", "a fox,"])
times = st.one_of(st.integers(0, 12).map(str), st.floats(0, 1).map(lambda x: f"{x:.2f}"))
nested = st.recursive(
    words,
    lambda inner: st.one_of(
        st.builds("({}:1.3)".format, inner),
        st.builds("[{}:{}:{}]".format, inner, inner, times),
        st.builds("[{}|{}]".format, inner, inner),
        st.builds("{} {}".format, inner, inner),
        st.builds("{} BREAK {}".format, inner, inner),
    ),
    max_leaves=6,
)


@pytest.mark.parity("A1111 1.10", "which text is drawn at which step", "language=a1111", "golden")
@laws
@given(nested, st.integers(1, 12))
def test_what_is_drawn_when_is_what_a1111_lists(text, steps):
    """The schedules that a prompt becomes, moment by moment, against the list of stages that A1111 makes at once."""
    prompt = parsed(text, "a1111")
    listed = stages(parse(text, "a1111").root, steps)
    for call in range(steps):
        moment = Moment(call, call, steps, 0.0, 0.0, calls=steps)
        wanted = next(parts for end, parts in listed if call <= end)
        now = resolve(prompt, moment)
        assert str(now) == write(wanted, "a1111")


def test_stages_of_a_prompt_are_conditioned_each_in_its_steps(sd1):
    cell = Cell("a [red star:cat:0.5]", encoder=A1111, sampler=Sampler(steps=4))
    assert changes(cell)
    calls = cells_per_call(cell, denoiser_calls(cell, sd1.scheduler))
    assert [str(one.prompt) for one in calls] == ["a red star"] * 3 + ["a cat"]
    made = condition(calls, sd1.towers)
    assert torch.equal(made[0].cond.hidden, hidden(sd1, "a red star", Encoder(windows="comma", pooled="first")))
    assert made[0].cond is made[1].cond
    assert made[3].original[0].tokens.rows("cat") == [(2,)]


@pytest.mark.parity(
    "A1111 1.10",
    "mean restored over the stages of a prompt",
    "tool=a1111",
    "formula",
    differs="stages that no step draws are not encoded, and so not in the mean",
)
def test_a1111s_mean_is_restored_over_all_stages_of_a_prompt_and_over_no_others(sd1):
    """One call of its text encoder has the stages of one prompt; another prompt beside it changes nothing by a bit."""
    one = [Cell(f"a ({word}:1.5)", encoder=A1111) for word in ("cat", "star")]
    staged = Cell("a [(cat:1.5):(star:1.5):0.5]", encoder=A1111, sampler=Sampler(steps=4))
    alone = [made.cond.hidden for made in condition(one, sd1.towers)]
    calls = cells_per_call(staged, denoiser_calls(staged, sd1.scheduler))
    together = [made.cond.hidden for made in condition([*calls, *one], sd1.towers)]
    assert all(torch.equal(a, b) for a, b in zip(alone, together[len(calls) :], strict=True))
    z = torch.stack([hidden(sd1, "a cat"), hidden(sd1, "a star")])
    scaled = z.clone()
    scaled[:, 2] *= 1.5
    close(together[0], (scaled * (z.mean() / scaled.mean()))[0])
    assert not torch.allclose(together[0], alone[0], atol=1e-6)


def test_break_begins_a_window_in_which_words_are_found(model):
    """Rows of a window after BREAK are those of its text alone, and every selector finds its words."""
    encoder = Encoder(language="a1111")
    made = conditioned(model, "a red star BREAK a cat", encoder, [Scale("cat", 2.0, stage="hidden")])
    plain = [hidden(model, text) for text in ("a red star", "a cat")]
    assert torch.equal(made.cond.hidden[:77], plain[0])
    assert torch.equal(made.cond.hidden[79], 2 * plain[1][2])
    assert made.original[0].tokens.rows("cat") == [(79,)]
    edited = conditioned(model, "a red star BREAK a cat", encoder, [Replace("cat", "dog")])
    assert torch.equal(edited.cond.hidden[77:], hidden(model, "a dog"))


# ── AND ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parity("A1111 1.10", "AND: predictions added, by weight", "language=a1111", "formula")
def test_and_adds_predictions(model):
    """`uncond + scale · Σ weight · (cond - uncond)`, from predictions that were made one by one."""
    encoder = Encoder(language="a1111")
    size = (64, 64) if model.size_conditioned else None
    unet = (
        copy.deepcopy(model.unet).double().requires_grad_(False)
    )  # sums of four predictions in float32 differ in the fourth digit
    both = conditioned(model, "a red star AND a cat :0.5", encoder)
    assert [weight for weight, _ in both.cond.streams] == [1.0, 0.5]
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double(), torch.tensor(500)
    texts = [conditioned(model, text).cond for text in ("a red star", "a cat")]
    other = conditioned(model, "an owl").cond
    with torch.inference_mode():
        made = guided(unet, [both.cond, other], [both.uncond] * 2, [4.0, 2.0], size)(x, t)
        one = [guided(unet, [text] * 2, [both.uncond] * 2, [1.0] * 2, size)(x, t) for text in texts]
        free = guided(unet, [both.uncond] * 2, [both.uncond] * 2, [1.0] * 2, size)(x, t)
        beside = guided(unet, [other] * 2, [both.uncond] * 2, [2.0] * 2, size)(x, t)
    expected = free + 4 * ((one[0] - free) + 0.5 * (one[1] - free))
    close(made[0], expected[0], atol=1e-9)
    close(made[1], beside[1], atol=1e-9)


def test_and_of_one_prompt_twice_at_half_is_that_prompt(sd1):
    sampler = Sampler(steps=2)
    encoder = Encoder(language="a1111")
    twice, once, more = render(
        sd1,
        [
            Cell("a cat :0.5 AND a cat :0.5", encoder=encoder, sampler=sampler),
            Cell("a cat", sampler=sampler),
            Cell("a cat AND a red star :0.5", encoder=encoder, sampler=sampler),
        ],
        [0],
    )
    torch.testing.assert_close(twice.pictures, once.pictures, atol=1e-4, rtol=0)
    assert not torch.allclose(more.pictures, once.pictures, atol=1e-3)


def test_an_operator_edits_the_prompts_of_and_that_have_its_word(sd1):
    encoder = Encoder(language="a1111")
    plain = conditioned(sd1, "a cat AND a red star", encoder).cond
    made = conditioned(sd1, "a cat AND a red star", encoder, [Scale("star", 2.0, stage="hidden")]).cond
    assert torch.equal(made.hidden, plain.hidden)
    assert torch.equal(made.others[0][1].hidden[3], 2 * plain.others[0][1].hidden[3])
    with pytest.raises(PromptError, match="'owl' is not in the prompt"):
        conditioned(sd1, "a cat AND a red star", encoder, [Scale("owl", 2.0, stage="hidden")])


def test_an_edit_of_a_later_prompt_of_and_changes_something(sd1):
    for by, said in ((2.0, False), (1.0, True)):
        cell = Cell("a cat AND a star", [Scale("star", by, stage="hidden")], Encoder(language="a1111"))
        assert (UNCHANGED in explain(cell, sd1.towers).notes) == said


def test_and_weighs_the_prompts_of_all_text_encoders_alike(folders):
    source, encoder = Source(str(folders["sdxl"])), Encoder(language="a1111")
    (tokens,) = validate(Cell("a cat AND a star :0.5", encoder=encoder), source)
    assert tokens.notes() == ["the prompt is 2 prompts whose predictions are added (AND), a row of the UNet for each"]
    validate(Cell("a cat AND a star :0.5", encoder=encoder, prompt_2="a dog AND an owl :0.5"), source)
    with pytest.raises(PromptError, match="alike; here are weights 1, 0.5 and 1, 0.3"):
        validate(Cell("a cat AND a star :0.5", encoder=encoder, prompt_2="a dog AND an owl :0.3"), source)


def test_an_operator_after_the_encoder_meets_a_word_in_each_prompt_of_and(sd1):
    encoder, prompt = Encoder(language="a1111"), "a cat AND a red cat BREAK a star"
    plain = conditioned(sd1, prompt, encoder).cond
    made = conditioned(sd1, prompt, encoder, [Scale("cat", 2.0, stage="hidden")]).cond
    for (_, before), (_, after), row in zip(plain.streams, made.streams, (2, 3), strict=True):
        assert torch.equal(after.hidden[row], 2 * before.hidden[row])
        assert (after.hidden != before.hidden).any(1).sum() == 1
    with pytest.raises(OperatorError, match="only a part is among the 5 rows"):
        conditioned(sd1, prompt, encoder, [Truncate(5), Scale("a", 2.0, stage="hidden")])


def test_after_the_encoders_words_of_another_prompt_are_found_where_they_stand(folders):
    model, operator = load(str(folders["sdxl"])), Scale("dog", 2.0, stage="hidden")
    first, second = (tower.width for tower in model.towers)
    plain = conditioned(model, "a big dog", prompt_2="a dog").cond
    for encoder, rows in ((None, (3, 2)), (1, (3, None)), (2, (None, 2))):
        cell = Cell("a big dog", [dataclasses.replace(operator, encoder=encoder)], prompt_2="a dog")
        validate(cell, Source(str(folders["sdxl"])))
        (made,) = condition([cell], model.towers)
        for row, columns in zip(rows, (slice(first), slice(first, first + second)), strict=True):
            changed = (made.cond.hidden[:, columns] / plain.hidden[:, columns]).mean(1)
            assert changed.gt(1.5).nonzero().flatten().tolist() == ([] if row is None else [row])


# ── mixes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_mix_is_interpolate_and_its_ends_are_the_words(model, language):
    encoder = Encoder(language=language)
    assert torch.equal(hidden(model, "a {cat|star:0} on blue", encoder), hidden(model, "a cat on blue"))
    assert torch.equal(hidden(model, "a {cat|star:1} on blue", encoder), hidden(model, "a star on blue"))
    half = hidden(model, "a {cat|star:0.3} on blue", encoder)
    assert torch.equal(half, hidden(model, "a cat on blue", operators=[Interpolate("cat", "star", 0.3)]))
    assert not torch.allclose(half, hidden(model, "a cat on blue"), atol=1e-4)


def test_a_word_is_widened_to_the_tokens_of_another(sd1):
    """`hippopotamus` has several tokens: each of them is mixed with the one of `cat`; nesting goes on inside."""
    (tower,) = sd1.towers
    made = conditioned(sd1, "a {cat|hippopotamus:0.5} on blue").original[0]
    (span,) = made.tokens.rows("hippopotamus")
    assert len(span) > 1
    assert made.tokens.rows("cat") == [span]
    ids = made.tokens.ids.flatten()[list(span)]
    rows = (tower.token_table[ids] + tower.token_table[2368]) / 2
    close(made.token.flatten(0, 1)[list(span)], rows)
    inner = conditioned(sd1, "a {red {cat|star:0.25}|hippopotamus:0.5}").original[0]
    red, cat, star = (tower.token_table[sd1.towers[0].tokenizer.encode(w)[1]] for w in ("red", "cat", "star"))
    long = tower.token_table[ids]
    mixed = torch.stack([red, torch.lerp(cat, star, 0.25)])
    close(inner.token.flatten(0, 1)[2 : 2 + len(ids)], torch.lerp(drawn_out(mixed, len(ids)), long, 0.5))


def test_a_mix_is_edited_and_weighted_as_other_words_are(sd1):
    made = conditioned(sd1, "a {cat|star} on blue", operators=[Replace("star", "owl")])
    assert torch.equal(made.cond.hidden, hidden(sd1, "a owl on blue"))
    encoder = dataclasses.replace(A1111, weighting="no_norm")
    plain = hidden(sd1, "a {cat|star} on blue")
    assert torch.equal(hidden(sd1, "a ({cat|star}:1.5) on blue", encoder)[2], 1.5 * plain[2])
    assert torch.equal(hidden(sd1, "a {(cat:1.5)|star} on blue", encoder)[2], 1.25 * plain[2])


# ── each text encoder ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def sdxl(folders):
    from embedlab import models  # noqa: PLC0415  (loaded where one kind is needed alone)

    return models.load(str(folders["sdxl"]), device="cpu")


@pytest.mark.parity("diffusers", "`prompt_2`, `negative_prompt_2` of SDXL; pooled output", "prompt_2=", "live")
def test_each_encoder_of_sdxl_reads_its_own_prompt_as_diffusers_does(sdxl, folders):
    from conftest import open_pipeline  # noqa: PLC0415

    pipe = open_pipeline(folders["sdxl"])
    made = conditioned(sdxl, "a red star", prompt_2="a cat").cond
    embeds, _, pooled, _ = pipe.encode_prompt("a red star", "a cat", do_classifier_free_guidance=False)
    close(made.hidden, embeds[0])
    close(made.pooled, pooled[0])
    guidance = Guidance(negative="blue", negative_2="an owl")
    made = conditioned(sdxl, "a red star", guidance=guidance).uncond
    _, embeds, _, pooled = pipe.encode_prompt("a", negative_prompt="blue", negative_prompt_2="an owl")
    close(made.hidden, embeds[0])
    close(made.pooled, pooled[0])
    long = conditioned(sdxl, "a red star", prompt_2="a cat, " * 60).cond
    assert len(long.hidden) == 3 * 77


def test_each_encoder_is_balanced_and_edited_by_itself(sdxl):
    plain = conditioned(sdxl, "a red star").cond
    first = plain.widths[0]
    made = hidden(sdxl, "a red star", Encoder(balance=[0.5, 1]))
    assert torch.equal(made, torch.cat([plain.hidden[:, :first] * 0.5, plain.hidden[:, first:]], dim=1))
    cat = hidden(sdxl, "a red cat")
    made = hidden(sdxl, "a red star", operators=[Replace("star", "cat", encoder=2)])
    assert torch.equal(made, torch.cat([plain.hidden[:, :first], cat[:, first:]], dim=1))
    made = hidden(sdxl, "a red star", operators=[Scale("star", 2.0, stage="hidden", encoder=1)])
    assert torch.equal(made[3, :first], 2 * plain.hidden[3, :first])
    assert torch.equal(made[:, first:], plain.hidden[:, first:])


def test_pooled_output_hears_of_weights_blends_and_windows(sdxl):
    encoder = Encoder(language="compel")
    plain = conditioned(sdxl, "a red star").cond.pooled
    assert not torch.allclose(conditioned(sdxl, "a (red)0.2 star", encoder).cond.pooled, plain, atol=1e-5)
    cat = conditioned(sdxl, "a cat").cond.pooled
    blend = conditioned(sdxl, '("a red star", "a cat").blend(0.25, 0.75)', encoder).cond.pooled
    close(blend, 0.25 * plain + 0.75 * cat)
    joined = {
        how: conditioned(sdxl, '("a red star", "a cat").and()', Encoder(language="compel", pooled=how)).cond.pooled
        for how in ("first", "last", "mean", "weighted")
    }
    close(joined["first"], plain)
    close(joined["last"], cat)
    close(joined["mean"], (plain + cat) / 2)
    close(joined["weighted"], (3 * plain + 2 * cat) / 5)


def test_an_encoder_of_248_places_is_read_to_its_end(folders, tmp_path):
    """As Long-CLIP has them: 246 tokens in one window, each at a position of its own; the hidden states are its own."""
    from transformers import CLIPTextModel  # noqa: PLC0415

    from embedlab import models  # noqa: PLC0415

    folder = shutil.copytree(folders["sd1"], tmp_path / "long")
    config = CLIPTextModel.from_pretrained(folder / "text_encoder").config
    config.max_position_embeddings = 248
    torch.manual_seed(0)
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    long = models.load(str(folder), device="cpu")
    text = "a red star, " * 60 + "a cat"
    (tokens,) = validate(Cell(text), Source(str(folder)))
    assert tokens.ids.shape == (1, 248)
    made = conditioned(long, text)
    (tower,) = long.towers
    assert torch.equal(made.cond.hidden, tower.encoder(made.original[0].tokens.ids).last_hidden_state[0])
    assert conditioned(long, text * 2).cond.hidden.shape[0] == 2 * 248
    assert len(render(long, [Cell(text, sampler=Sampler(steps=1))], [0])[0].pictures) == 1


# ── over time ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_language_within_a_schedule_and_a_negative_prompt_in_a_language(sd1):
    cell = Cell(
        Switch(["a (cat:1.5)", "a [star|owl]"], at=0.5),
        encoder=A1111,
        guidance=Guidance(negative="[red:blue:2]"),
        sampler=Sampler(steps=4),
    )
    calls = cells_per_call(cell, denoiser_calls(cell, sd1.scheduler))
    assert [str(one.prompt) for one in calls] == ["a (cat:1.5)", "a (cat:1.5)", "a owl", "a star"]
    assert [str(one.guidance.negative) for one in calls] == ["red", "red", "red", "blue"]
    assert len(render(sd1, [cell], [0])[0].pictures) == 1


# ── what the settings are ─────────────────────────────────────────────────────────────────────────────────────────


def test_names_of_the_limits_are_those_of_what_does_the_work():
    from embedlab import language  # noqa: PLC0415
    from embedlab.weighting.normalise import BY  # noqa: PLC0415
    from embedlab.windows import CUTS  # noqa: PLC0415

    assert tuple(METHODS) == WEIGHTINGS
    assert language.LANGUAGES == LANGUAGES
    assert tuple(CUTS) == SPLITS
    assert tuple(BY) == NORMALISERS


@pytest.mark.turns
@pytest.mark.parametrize("pooled", [name for name in POOLED if name != "row"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_every_weighting_reads_a_whole_prompt(sd1, weighting, pooled):
    text = "a (red:1.4) star, (and a cat:0.3) on (blue:-0.5), " * 12
    encoder = Encoder(language="a1111", weighting=weighting, pooled=pooled, normalise=["length", "mean"])
    made = conditioned(sd1, text, encoder).cond
    assert made.finite
    assert len(made.hidden) % 77 == 0


def test_a_config_of_before_cuts_windows_as_it_did():
    """What 0.1 recorded says nothing of windows and the pooled output: they were cut hard, and it was the first's."""
    target = {"_target_": "embedlab.encoder.Encoder", "join": "windows", "skip": 0, "stretch": None}
    parts = {"model": "models.Source", "guidance": "Guidance", "sampler": "Sampler", "start": "Start"}
    config = {name: {"_target_": f"embedlab.{kind}"} for name, kind in parts.items()}
    model = {"_target_": "embedlab.Source", "name": "emoji"}
    clean = check_config({**config, "prompt": "a cat", "operators": {}, "encoder": target, "model": model})
    assert (clean.encoder.windows, clean.encoder.pooled) == ("hard", "first")


REFUSED = (
    ({"prompt": '("a", "b").blend(1)', "encoder": COMPEL}, LanguageError, "line 1, column"),
    ({"prompt": '("a cat", "a star").blend(1, -1)', "encoder": COMPEL}, PromptError, "sum to"),
    ({"prompt": "a {cat|star:nan}"}, LanguageError, "line 1, column"),
    ({"prompt": "a {cat BREAK star|owl}", "encoder": A1111}, PromptError, "BREAK"),
    ({"prompt": "a {(big:1.2) cat|owl}", "encoder": A1111}, PromptError, "several weights"),
    ({"prompt": "a cat", "guidance": Guidance(negative="a AND b"), "encoder": A1111}, PromptError, "holds AND"),
    ({"prompt": "(" * 500 + "cat", "encoder": A1111}, LanguageError, "too many"),
    ({"prompt": "a cat <|endoftext|> (red:1.2)", "encoder": A1111}, PromptError, "would end it"),
    ({"prompt": "a cat", "prompt_2": "a star"}, PromptError, "has one"),
    ({"prompt": "a cat", "encoder": Encoder(balance=[1, 1])}, SamplerError, "2 numbers"),
    ({"prompt": "a cat", "operators": [Replace("cat", "star", encoder=2)]}, OperatorError, "names encoder 2"),
    (
        {
            "prompt": "a [cat:star:0.5]",
            "operators": [Replace("cat", "owl")],
            "encoder": A1111,
            "sampler": Sampler(steps=4),
        },
        PromptError,
        "in step 3, where the prompt is 'a star': 'cat' is not in the prompt",
    ),
)


@pytest.mark.parametrize(("settings", "kind", "line"), REFUSED)
def test_what_is_wrong_is_one_line_before_weights_load(folders, unread, settings, kind, line):
    with pytest.raises(kind, match=line) as told:
        validate(Cell(**settings), Source(str(folders["sd1"])))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"language": "a1112"}, "language is 'a1112'; choose one of plain, a1111"),
        ({"weighting": "comfy"}, "weighting is 'comfy'; choose one of comfy"),
        ({"windows": "soft"}, "windows is 'soft'; choose one of whole"),
        ({"pooled": "second"}, "pooled is 'second'; choose one of weighted"),
        ({"normalise": "mean"}, "has to be a list"),
        ({"balance": 0.5}, "has to be a number for each"),
        ({"backtrack": -1}, "whole number"),
    ],
)
def test_settings_that_there_are_not(settings, line):
    with pytest.raises(EmbedlabError, match=line):
        Encoder(**settings)


def test_a_language_cannot_change_over_time():
    with pytest.raises(ConfigError, match="cannot change over time"):
        Encoder(language=Switch(["plain", "a1111"], at=0.5))


def test_a_prompt_with_and_is_no_one_conditioning_for_pipelines(sd1):
    with pytest.raises(PromptError, match="several conditionings"):
        prompt_embeds(Cell("a cat AND a star", encoder=A1111), sd1.towers)


def test_the_page_of_parity_has_each_row():
    lines = parity.PAGE.read_text(encoding="utf-8").splitlines()
    said = {tuple(line.split(" | ")[:4]) for line in lines if line.startswith("| ") and not line.startswith("| tool")}
    wanted = {tuple(parity.row(*mark, None).split(" | ")[:4]) for _, *mark in parity.marks()}
    assert said == wanted, "EMBEDLAB_PARITY=docs/parity.md python -m pytest tests writes it"


def test_a_tool_sets_all_that_makes_its_numbers():
    """Each of conf/tool names settings that there are."""
    import yaml  # noqa: PLC0415

    for path in sorted((Path(__file__).parent.parent / "conf" / "tool").glob("*.yaml")):
        said = yaml.safe_load(path.read_text())
        encoder = said.pop("encoder", {})
        assert Encoder(**said, **encoder).language != "plain"
