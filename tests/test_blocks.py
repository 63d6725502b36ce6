"""An edit that some blocks of the UNet read, and edits at a layer of the text encoder: laws, then by hand."""

from dataclasses import replace

import pytest
import torch
from parity import close

from embedlab import (
    Attention,
    Blend,
    Cell,
    Concatenate,
    Encoder,
    Interpolate,
    Job,
    OpenVINO,
    Replace,
    Sampler,
    Scale,
    Source,
    Switch,
    embed_all,
    encode,
    render,
)
from embedlab.attention.layers import layers_of
from embedlab.condition import condition, condition_calls
from embedlab.errors import ConfigError, EngineError, OperatorError, PromptError
from embedlab.operators import edit
from embedlab.validate import validate

STEPS = Sampler("ddim", steps=2)
BLOCKS = ["down.1", "mid", "up.0"]  # of the tiny models


def cell(*operators, prompt="a picture of a puppy", **more):
    return Cell(prompt, operators, sampler=STEPS, **more)


# ── blocks of the UNet ────────────────────────────────────────────────────────────────────────────────────────────


def test_all_blocks_are_no_blocks_to_the_bit_and_one_of_them_is_something_else(sd1):
    plain, edited, every, mid = (
        render(sd1, [one], [0, 1])[0].latents
        for one in (
            cell(),
            cell(Replace("puppy", "cat")),
            cell(Replace("puppy", "cat", blocks=BLOCKS)),
            cell(Replace("puppy", "cat", blocks=["mid"])),
        )
    )
    assert torch.equal(edited, every)
    for other in (plain, edited):
        assert (mid - other).abs().max() > 1e-5


def test_a_neutral_edit_in_a_block_is_none_to_the_bit(model):
    plain, neutral = (
        render(model, [one], [0])[0].latents for one in (cell(), cell(Interpolate("puppy", "fox", 0, blocks="mid")))
    )
    assert torch.equal(plain, neutral)


@pytest.mark.parity("P+", "another prompt for some layers", "operators.….blocks", "formula")
def test_each_layer_reads_what_its_operators_make(model):
    """Voynov et al. 2023: a conditioning for each cross-attention layer, put there by hand before its module runs."""
    one = cell(Replace("puppy", "cat", blocks=["down"]), Scale("picture", 2, stage="hidden", blocks="up.0.1"))
    (ours,) = render(model, [one], [0])
    made = {
        name: condition([cell(*operators)], model.towers, model.zero_negative)[0].cond
        for name, operators in {"": (), "down": one.operators[:1], "up.0.1": one.operators[1:]}.items()
    }
    seen, undo = [], []
    for layer in layers_of(model.unet.config):
        hidden = made[next((name for name in ("down", "up.0.1") if layer.is_in(name)), "")].hidden

        def put(module, args, kwargs, hidden=hidden, name=layer.name):
            seen.append(name)
            read = kwargs["encoder_hidden_states"].clone()
            read[1] = hidden
            return args, {**kwargs, "encoder_hidden_states": read}

        attn = model.unet.get_submodule(f"{layer.path}.attn2")
        undo.append(attn.register_forward_pre_hook(put, with_kwargs=True))
    (theirs,) = render(model, [cell()], [0])
    for handle in undo:
        handle.remove()
    assert set(seen) == {layer.name for layer in layers_of(model.unet.config)}
    close(ours.latents, theirs.latents)


def test_the_pooled_output_is_that_of_what_all_blocks_read(folders):
    model = Source(str(folders["sdxl"])).load()
    calls = condition_calls(model, [cell(Replace("puppy", "cat", blocks=["mid"])), cell()])
    assert torch.equal(calls[0][0].cond.pooled, calls[1][0].cond.pooled)
    assert not torch.equal(calls[0][0].cond.hidden, calls[1][0].cond.hidden)


def test_blocks_may_change_over_time_and_do_not_depend_on_company(sd1):
    blocks = cell(Replace("puppy", "cat", blocks=Switch([["mid"], ["up"]], at=0.5)))
    alone = render(sd1, [blocks], [0])[0]
    together = render(sd1, [cell(), blocks, cell(Scale("puppy", 2))], [0])
    close(alone.latents, together[1].latents, 1e-4)
    assert [set(one.layers) for one in alone.conditioning] == [{layer.name for layer in layers_of(sd1.unet.config)}] * 2
    assert alone.cell.label.startswith("puppy → cat in")


def test_maps_see_what_a_block_reads(sd1):
    maps = Attention(maps=True, words=["puppy"], by=["layer"])
    plain, mid = (
        render(sd1, [replace(one, attention=maps)], [0])[0].maps
        for one in (cell(), cell(Scale("puppy", 9, blocks="mid")))
    )
    assert not torch.equal(plain.parts[0, plain.layers.index("mid.0.0")], mid.parts[0, mid.layers.index("mid.0.0")])
    close(plain.parts[0, 0], mid.parts[0, 0], 0.2)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (
            Replace("puppy", "cat", blocks=["up.7"]),
            "blocks of 'puppy → cat in up.7' names 'up.7'.*its blocks with some are down.1",
        ),
        (Scale({"role": "all"}, 2, stage="pooled", blocks="mid"), "edits the pooled output, which no block reads"),
    ],
)
def test_blocks_that_are_not_there_are_refused_before_weights(operator, message):
    with pytest.raises((ConfigError, OperatorError), match=message):
        validate(cell(operator), Source("emoji"))


def test_what_blocks_do_not_go_with_is_refused(tmp_path, sd1):
    one = cell(Replace("puppy", "cat", blocks="mid"))
    with pytest.raises(EngineError, match=r"engine=openvino runs the UNet as a whole"):
        Job(Source("emoji"), one, (0,), tmp_path, engine=OpenVINO())
    with pytest.raises(ConfigError, match="export writes one conditioning .* operators with blocks make several"):
        Job(Source("emoji"), one, (0,), tmp_path, export=True)
    with pytest.raises(OperatorError, match="makes 77, 154 rows in different blocks"):
        render(sd1, [cell(Concatenate("a cat", blocks="mid"))], [0])
    with pytest.raises(ConfigError, match="blocks is 'sideways'"):
        Blend("a cat", blocks="sideways")


# ── layers of the text encoder ────────────────────────────────────────────────────────────────────────────────────


def hidden(model, operator, prompt="a picture of a puppy", **settings):
    return condition([cell(operator, prompt=prompt, encoder=Encoder(**settings))], model.towers)[0].cond


def test_layer_0_is_what_enters(model):
    """Scaled there it is token and position rows scaled alike."""
    both, layer = hidden(model, Scale("puppy", 3, stage="both")), hidden(model, Scale("puppy", 3, stage={"layer": 0}))
    close(layer.hidden, both.hidden, 1e-5)
    close(layer.pooled, both.pooled, 1e-5)


def test_the_last_layer_is_what_the_final_norm_meets(sd1):
    depth = sd1.towers[0].core.config.num_hidden_layers
    plain, last = hidden(sd1, Scale("of", 1)), hidden(sd1, Scale("puppy", 2, stage={"layer": depth}))
    assert torch.equal(plain.hidden[:5], last.hidden[:5])
    core, (rows,) = sd1.towers[0].core, embed_all("a picture of a puppy", sd1.towers)
    with torch.no_grad():
        own = core(input_ids=rows.tokens.ids, output_hidden_states=True).hidden_states[-1][0]
        close(last.hidden[5], core.final_layer_norm(2 * own[5]), 1e-5)


def test_a_neutral_edit_at_a_layer_changes_nothing_and_another_what_comes_later_alone(model):
    plain = hidden(model, Scale("of", 1))
    assert torch.equal(hidden(model, Scale("of", 1, stage={"layer": 2})).hidden, plain.hidden)
    edited = hidden(model, Scale("of", 4, stage={"layer": 1}))
    assert torch.equal(edited.hidden[:3], plain.hidden[:3])  # the encoder is causal
    assert not torch.equal(edited.hidden[3:], plain.hidden[3:])


def test_rows_of_another_prompt_at_a_layer_are_its_states_there(model):
    """By hand: the other prompt's states are read, the library runs once more, and the row is put there on its way."""
    layer, operator = 2, Replace("puppy", "a picture of a cat", stage={"layer": 2})
    operator = replace(operator, by={"prompt": "a picture of a cat", "rows": "cat"})
    ours, parts = hidden(model, operator), []
    for tower in model.towers:
        (mine,), (other,) = (embed_all(text, [tower]) for text in ("a picture of a puppy", "a picture of a cat"))
        with torch.no_grad():
            there = tower.core(input_ids=other.tokens.ids, output_hidden_states=True).hidden_states[layer][0, 5]

            def put(module, args, output, there=there):
                first = output[0] if isinstance(output, tuple) else output
                first[0, 5] = there
                return output

            handle = tower.core.encoder.layers[layer - 1].register_forward_hook(put)
            out = tower.core(input_ids=mine.tokens.ids, output_hidden_states=True)
            handle.remove()
        parts.append(out.last_hidden_state[0] if tower.final_norm else out.hidden_states[-2][0])
    if len(parts) == 1:
        close(ours.hidden, parts[0], 1e-5)
    else:
        close(ours.hidden[6:], torch.cat(parts, -1)[6:], 1e-5)


def test_the_edited_state_is_the_one_that_is_read(sd1):
    """With clip skip the very layer that was edited reaches the UNet, and the pooled output goes on."""
    skipped = hidden(sd1, Scale("puppy", 2, stage={"layer": 2}), skip=1)
    plain = hidden(sd1, Scale("puppy", 1), skip=1)
    assert torch.equal(skipped.hidden[:5], plain.hidden[:5])
    assert not torch.equal(skipped.hidden[5], plain.hidden[5])
    assert torch.equal(skipped.hidden[6:], plain.hidden[6:])


def test_one_of_two_encoders_and_windows(folders):
    model = Source(str(folders["sdxl"])).load()
    first = hidden(model, Scale("puppy", 2, stage={"layer": 1}, encoder=1))
    plain = hidden(model, Scale("puppy", 1))
    assert not torch.equal(first.hidden[:, :16], plain.hidden[:, :16])
    assert torch.equal(first.hidden[:, 16:], plain.hidden[:, 16:])
    long = "very " * 80 + "small puppy"
    edited = hidden(model, Scale("puppy", 2, stage={"layer": 1}), long)
    plain = hidden(model, Scale("puppy", 1), long)
    assert torch.equal(edited.hidden[:77], plain.hidden[:77])
    assert not torch.equal(edited.hidden[77:], plain.hidden[77:])


def test_edits_at_a_layer_go_the_way_of_edit_and_encode(sd1):
    operator = Scale("puppy", 2, stage={"layer": 1})
    prompt = edit(embed_all("a picture of a puppy", sd1.towers), [operator], sd1.towers)
    (by_hand,) = encode([prompt], sd1.towers)
    assert torch.equal(by_hand.hidden, hidden(sd1, operator).hidden)


def test_hooks_are_gone_afterwards(sd1):
    before = [len(layer._forward_hooks) for layer in sd1.towers[0].core.encoder.layers]
    with pytest.raises(ZeroDivisionError):
        operator = Scale("puppy", 2, stage={"layer": 1})
        (prompt,) = edit(embed_all("a puppy", sd1.towers), [operator], sd1.towers)
        broken = replace(prompt, later=(replace(prompt.later[0], apply=lambda conditioning, texts: 1 // 0),))
        encode([(broken,)], sd1.towers)
    hidden(sd1, Scale("puppy", 2, stage={"layer": 1}))
    assert [len(layer._forward_hooks) for layer in sd1.towers[0].core.encoder.layers] == before


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (Scale("puppy", 2, stage={"layer": 99}), "is at layer 99 of the part 'text_encoder', which has"),
        (Scale("dog", 2, stage={"layer": 1}), "'dog' is not in the prompt"),
        (Replace("puppy", [1.0, 2.0], stage={"layer": 1}), "does not fit rows of width"),
    ],
)
def test_layers_and_rows_that_are_not_there_are_refused_before_weights(operator, message):
    with pytest.raises((OperatorError, PromptError), match=message):
        validate(cell(operator), Source("emoji"))


@pytest.mark.parametrize("stage", [{"layer": -1}, {"level": 1}, {"layer": "two"}, {"layer": 1, "of": 2}])
def test_a_stage_that_is_no_layer_is_refused(stage):
    with pytest.raises(OperatorError, match=r"a layer of the text encoder is \{layer: 3\}"):
        Scale("puppy", 2, stage=stage)


def test_weights_that_leave_words_out_do_not_fit_edits_at_a_layer(sd1):
    operator, settings = Scale("puppy", 2, stage={"layer": 1}), {"language": "a1111"}
    plain = hidden(sd1, Scale("puppy", 1), "a (red:1.3) puppy", weighting="a1111", pooled="first", **settings)
    edited = hidden(sd1, operator, "a (red:1.3) puppy", weighting="a1111", pooled="first", **settings)
    assert not torch.equal(plain.hidden, edited.hidden)
    with pytest.raises(
        OperatorError, match="weighting=comfy\\+\\+ with pooled=weighted reads the prompt with words left"
    ):
        hidden(sd1, operator, "a (red:0.5) puppy", **settings)
