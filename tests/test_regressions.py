"""Edges that were found by trying: each was once silent, wrong or a traceback."""

import re
import shutil
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from embedlab import (
    Add,
    Alternate,
    Average,
    Blend,
    Cell,
    Concatenate,
    During,
    Embeddings,
    Encoder,
    Freeze,
    Guidance,
    Interpolate,
    Job,
    Metrics,
    Noise,
    Normalise,
    OpenVINO,
    Permute,
    Place,
    ProjectOut,
    Ramp,
    Replace,
    Reverse,
    Rotate,
    Rows,
    Sampler,
    Scale,
    Shift,
    Shuffle,
    Source,
    Start,
    Stretch,
    Subtract,
    Switch,
    Truncate,
    detect,
    edit,
    embed,
    embed_all,
    encode,
    explain,
    noise,
    render,
    texts_of,
    to_pil,
)
from embedlab.attention import Attention, Confine, CopyCross, CopySelf, Reweight
from embedlab.cell import fingerprint
from embedlab.cli import signals
from embedlab.condition import condition_calls
from embedlab.embeddings import lookup_of
from embedlab.errors import EmbedlabError, PromptError
from embedlab.export import recipe
from embedlab.guidance import Colour, Loss, Mass
from embedlab.limits import check_at_once, check_seeds
from embedlab.metrics.score import score, scored_words
from embedlab.operators.base import edit_encoded
from embedlab.sampler import Inversion, moments
from embedlab.select import select
from embedlab.sweep.job import reason_of, validate_job
from embedlab.validate import validate

PROMPT = "a picture of a puppy"
ALL = {"role": "all"}
T = torch.tensor


class Own:
    """Somebody's own operator, of which two look alike."""

    def __init__(self, by):
        self.by = by

    def __repr__(self):
        return "Own()"

    def __call__(self, prompt, lookup):
        return prompt.put("token", [(5,)], self.by * prompt.take("token", [(5,)]))


def test_cells_that_differ_have_other_fingerprints():
    a = np.random.default_rng(0).normal(size=(30, 96)).astype("float32")
    b = a.copy()
    b[15] *= 5
    pairs = [
        (Replace("puppy", {5: 1}), Replace("puppy", {"5": 1})),
        (Replace("puppy", {5: 0.2, "5": 0.5}), Replace("puppy", {5: 0.5, "5": 0.2})),
        (Add("puppy", a), Add("puppy", b)),
        (Own(1), Own(2)),
        (Scale("puppy", T(2.0)), Scale("puppy", T(3.0))),
    ]
    for one, other in pairs:
        assert fingerprint(one) != fingerprint(other), one
        assert fingerprint(one) == fingerprint(one)
    own = Own(1)
    before = fingerprint(own)
    own.by = 3
    assert fingerprint(own) != before
    assert recipe(Scale("puppy", T(2.0)))["by"]["tensor"] == []


def test_a_learned_number_renders(emoji):
    sampler = Sampler("ddim", steps=1)
    cells = [Cell(PROMPT, [Scale("puppy", by)], sampler=sampler) for by in (2.0, T(2.0), torch.nn.Parameter(T(2.0)))]
    cells.append(Cell(PROMPT, [Blend("a cat", T(0.5))], sampler=sampler))
    made = [one.latents for one in render(emoji, cells, [0])]
    assert torch.allclose(made[0], made[1], atol=1e-4)
    assert torch.allclose(made[0], made[2], atol=1e-4)


def test_a_list_of_selectors_is_one_group(sd1):
    prompt, lookup = embed(PROMPT, sd1.towers[0]), lookup_of(sd1.towers[0])
    for rows in (["picture", "puppy"], [2, 5], {"tokens": [2, 5]}):
        mean = Average(rows)(prompt, lookup).token[0]
        assert torch.equal(mean[2], mean[5])
        turned = Reverse(rows, "token")(prompt, lookup).token[0]
        assert torch.equal(turned[[2, 5]], prompt.token[0, [5, 2]])
    assert select({"tokens": [5, 2]}, prompt.tokens) == [(5, 2)]
    two = Replace({"tokens": [5, 2]}, "golden retriever")(prompt, lookup).token[0]
    assert torch.equal(two[[5, 2]], lookup("golden retriever"))


def test_several_vectors_are_several_rows(sd1):
    prompt, lookup = embed(PROMPT, sd1.towers[0]), lookup_of(sd1.towers[0])
    first, second = torch.ones(16), 2 * torch.ones(16)
    made = Replace("a picture", [first, second])(prompt, lookup).token[0]
    assert torch.equal(made[1:3], torch.stack([first, second]))


def test_what_an_own_operator_does_in_place_is_done_to_a_copy(sd1):
    kept = [table.clone() for table in (sd1.towers[0].token_table, sd1.towers[0].position_table)]

    def harsh(prompt: Embeddings, lookup):
        prompt.token.mul_(2)
        prompt.position.mul_(2)
        return prompt

    prompt = embed_all(PROMPT, sd1.towers)
    made = edit(prompt, [harsh], sd1.towers)
    assert torch.equal(made[0].token, 2 * prompt[0].token)
    assert all(
        torch.equal(a, b) for a, b in zip(kept, (sd1.towers[0].token_table, sd1.towers[0].position_table), strict=True)
    )


def test_tensor_weights_keep_the_laws(emoji):
    tower = emoji.towers[0]
    prompt, lookup, texts = embed(PROMPT, tower), lookup_of(tower), texts_of(emoji.towers)
    for path in ("lerp", "slerp", "slerp_whole"):
        for zero, one in ((T(0.0), T(1.0)), (T([0.0]), T([1.0]))):
            assert torch.equal(Interpolate("puppy", "cat", zero, path=path)(prompt, lookup).token, prompt.token)
            full = Interpolate("puppy", "cat", one, path=path)(prompt, lookup).token
            assert torch.equal(full, Replace("puppy", "cat")(prompt, lookup).token)
            both = Interpolate("puppy", ["cat", "dog"], [zero, one], path=path)(prompt, lookup).token
            assert torch.equal(both, Replace("puppy", "dog")(prompt, lookup).token)
    long = "a star " * 60
    assert torch.equal(Blend(long, T(0.0))(texts(PROMPT), texts).hidden, texts(PROMPT).hidden)


LABELS = [
    Truncate(Switch([16, 77], 0.5)),
    Scale({"tokens": Alternate([1, 2])}, 2),
    Permute("a picture", Alternate([[0, 1], [1, 0]])),
    Replace("puppy", {"cat": Ramp([0, 1]), "dog": Ramp([1, 0])}),
    Replace("puppy", {"prompt": Switch(["a cat", "a dog"], 0.5), "rows": 2}, "hidden"),
    Interpolate("puppy", ["cat", "dog"], Switch([[1, 0], [0, 1]], 0.5)),
    Interpolate("puppy", Switch([["cat", "dog"], ["fox", "owl"]], 0.5), [0.5, 0.5]),
    Scale({"word": "a", "nth": Switch([1, 2], 0.5)}, 2),
    Scale({"role": Switch(["eos", "pad"], 0.5)}, 2),
    Scale([Switch(["puppy", "picture"], 0.5), "of"], 2),
    Scale(Rows(word="a", nth=Switch([1, 2], 0.5)), 2),
    Scale(Rows(tokens=Switch([1, 2], 0.5)), 2),
    During(Scale("puppy", Ramp([1, 2])), begin=0.2, end=0.9),
]


@pytest.mark.parametrize("operator", LABELS, ids=lambda o: type(o).__name__)
def test_every_setting_that_changes_over_time_has_a_label_and_renders(emoji, operator):
    cell = Cell(PROMPT, [operator], sampler=Sampler("ddim", steps=2))
    validate(cell, Source("emoji"))
    assert "embedlab" not in cell.label
    before, after = render(emoji, [cell.baseline(), cell], [0])
    assert all(isinstance(word, str) for word in scored_words(cell, Metrics()))
    assert score(emoji, before, after, Metrics(words=("puppy", "cat")))[1]["change/latents"] > 0


def test_calls_at_one_noise_level_are_one_step(emoji):
    calls = moments(Sampler("pndm", steps=5).make(emoji.scheduler))
    assert [m.step for m in calls] == [0, 1, 1, 2, 3, 4]
    assert {m.steps for m in calls} == {5}
    plain = Cell(PROMPT, sampler=Sampler("pndm", steps=5, keep=(4,)))
    never = Cell(PROMPT, [During(Replace("puppy", "cat"), 5, clock="step")], sampler=plain.sampler)
    one, two = render(emoji, [plain, never], [0])
    assert torch.allclose(one.latents, two.latents, atol=1e-4)
    assert len(one.steps) == 1
    assert torch.allclose(one.steps[0].latents, one.pictures, atol=1e-5), "the last step is the picture"


BAD = [
    (lambda: Cell(PROMPT, [Scale(ALL, 5, "pooled")]), "the UNet of 'emoji' takes none; take stage hidden"),
    (lambda: Cell(PROMPT, [ProjectOut("puppy", {"cat": 1e20, "dog": 1e20})]), "is too long for its dtype"),
    (lambda: Cell(PROMPT, [ProjectOut("puppy", {"cat": 0.1, "CAT": 0.2, "Cat": -0.3})]), "has no length"),
    (lambda: Cell(PROMPT, [ProjectOut("puppy", {"cat": 1e-20})]), "has no length"),
    (lambda: Cell(PROMPT, [Scale("puppy", 0), Rotate("puppy", 90)]), "has no length to be turned"),
    (lambda: Cell(PROMPT, [Add({"role": "bos"}, {"a cat": 1, "a dog": -1}, 1, "hidden")]), "has no length"),
    (
        lambda: Cell(PROMPT, [Truncate(2), Scale("a picture", 2, "hidden")]),
        "only a part is among the 2 rows that reach",
    ),
    (lambda: Cell(PROMPT, [During(Replace("puppy", "cat"), 5000, clock="timestep")]), "timestep 5000 is past the end"),
    (lambda: Cell(PROMPT, [Replace("puppy", Switch(["cat", "dog", "fox"], [0.9, 1], "a1111"))]), "out of order"),
    (lambda: Encoder(skip=((0, 0.5), (0, 0.5))), "a mix of layers is written {0: 0.5, 2: 0.5}"),
    (lambda: Encoder(skip=(1, 2)), "a mix of layers is written {0: 0.5, 2: 0.5}"),
    (lambda: Encoder(skip={}), "a mix of layers is written {0: 0.5, 2: 0.5}"),
    (lambda: Scale("puppy", 1e39), "by is 1e+39; it has to be a finite number of float32, up to 3.4e+38"),
    (lambda: Scale("puppy", 10**400), "it has to be a finite number"),
    (lambda: Scale("puppy", Fraction(3, 2)), "it has to be a finite number"),
    (lambda: Scale("puppy", T([1.0, 2.0])), "it has to be a finite number"),
    (lambda: Scale("puppy", T(2j)), "it has to be a finite number"),
    (lambda: Concatenate("a cat", 1e39), "weight is 1e+39; it has to be a finite number"),
    (lambda: Ramp([0, 10**400]), "a ramp runs between numbers"),
    (lambda: Rows(tokens=1.5), "tokens is 1.5; it has to be row numbers"),
    (lambda: Rows(tokens=True), "tokens is True; it has to be row numbers"),
    (lambda: Rows(tokens=(1, 1)), "it has to be row numbers, each once"),
    (lambda: Scale("puppy", 2, ["token"]), "choose one of token, position, both"),
    (lambda: Interpolate("puppy", "cat", 0.5, path=["lerp"]), "choose one of lerp, slerp, slerp_whole"),
    (lambda: Place("puppy", 10**20), "it has to be a position, a whole number from 0"),
    (lambda: Freeze("puppy", 10**20), "it has to be a position, a whole number from 0"),
    (lambda: Stretch(factor=1e12), "it has to be 1 or more, and 64 at most"),
    (lambda: Cell(PROMPT, [Replace("puppy", [T(5.0)])]), "a vector of shape (1,) does not fit rows of width 96"),
    (lambda: Cell(PROMPT, None), "operators is None; it has to be a list of operators"),
    (lambda: Cell(PROMPT, 5), "operators is 5; it has to be a list of operators"),
    (lambda: Cell(PROMPT, [Replace("puppy", {"rows": "cat"}, "hidden")]), "`prompt` is missing"),
    (lambda: Cell(PROMPT, [type("Late", (Own,), {"stage": "late"})(2)]), "stage is 'late'; choose one of"),
    (
        lambda: Cell(PROMPT, [lambda p, _: p.put("token", [(5,)], p.take("token", [(5,)])) and None]),
        "returned a None",
    ),
    (
        lambda: Cell(PROMPT, [lambda p, _: Embeddings(p.tokens, p.token.double(), p.position, p.position_table)]),
        "torch.float64; they were",
    ),
    (
        lambda: Cell(PROMPT, [lambda p, _: Embeddings(p.tokens, p.token[..., :5], p.position, p.position_table)]),
        "made token rows of shape (1, 77, 5)",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_each_is_one_clear_line_before_weights(make, message):
    def whole():
        made = make()
        if isinstance(made, Cell):
            validate(made, Source("emoji"))

    with pytest.raises(EmbedlabError, match=re.escape(message)) as caught:
        whole()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: embed("a", m.towers[0], stretch=float("nan")), "stretch is nan; it has to be a finite number"),
        (lambda m: embed("a", m.towers[0], stretch=0.5), "stretch is 0.5; it goes from 1 to 64"),
        (lambda m: encode([embed_all("a", m.towers)], m.towers, at_once=0), "at_once is 0"),
        (lambda m: encode([embed_all("a", m.towers)], m.towers, skip=1.5), "encoder.skip is 1.5"),
        (lambda m: encode([embed_all("a", m.towers)], m.towers, skip=((0, 5.0),)), "do not sum to 1"),
        (lambda m: lookup_of(m.towers[0]).nearest(torch.ones(96), 10**6), "it has to be a number of neighbours"),
        (
            lambda m: render(m, [Cell(PROMPT, [Scale("puppy", 3e38), Scale("puppy", 3e38)])], [0]),
            "its settings are too",
        ),
        (lambda m: lookup_of(m.towers[0])([]), "a vector of shape (0,) does not fit rows of width 96"),
    ],
)
def test_public_functions_say_what_they_take(emoji, call, message):
    with pytest.raises(EmbedlabError, match=re.escape(message)):
        call(emoji)
    assert encode([], emoji.towers) == []


def test_an_edit_that_changes_nothing_is_said_so(emoji):
    said = "the edit changes nothing that reaches the UNet"
    assert said in explain(Cell(PROMPT, [Normalise("puppy", weight=0)]), emoji.towers).notes
    assert said in explain(Cell(PROMPT, [Reverse("puppy")]), emoji.towers).notes
    assert said not in explain(Cell(PROMPT), emoji.towers).notes
    assert said not in explain(Cell(PROMPT, guidance=Guidance(2)), emoji.towers).notes


NUMBERS = {  # settings that hold a number, each in a cell
    "Add.weight": lambda n: [Add("puppy", "cat", n)],
    "Add.direction": lambda n: [Add("puppy", {"cat": n, "dog": 1})],
    "Subtract.weight": lambda n: [Subtract("puppy", "cat", n)],
    "ProjectOut.weight": lambda n: [ProjectOut("puppy", "cat", n)],
    "ProjectOut.direction": lambda n: [ProjectOut("puppy", {"cat": n, "dog": 1})],
    "Scale.by": lambda n: [Scale("puppy", n)],
    "Scale.by hidden": lambda n: [Scale("puppy", n, "hidden")],
    "Normalise.to": lambda n: [Normalise("puppy", n)],
    "Normalise.weight": lambda n: [Normalise("puppy", 1, n)],
    "Average.weight": lambda n: [Average("a picture", n)],
    "Noise.amount": lambda n: [Noise("puppy", n)],
    "Noise.seed": lambda n: [Noise("puppy", 1, n)],
    "Rotate.angle": lambda n: [Rotate("puppy", n)],
    "Rotate.seed": lambda n: [Rotate("puppy", 9, n)],
    "Shuffle.seed": lambda n: [Shuffle("a picture", n)],
    "Interpolate.weight": lambda n: [Interpolate("puppy", "cat", n)],
    "Interpolate.weight slerp": lambda n: [Interpolate("puppy", "cat", n, path="slerp")],
    "Interpolate.weight list": lambda n: [Interpolate("puppy", ["cat", "dog"], [n, 0.2])],
    "Interpolate.toward": lambda n: [Interpolate("puppy", n, 0.5)],
    "Permute.order": lambda n: [Permute("a picture", [n, 0])],
    "Shift.by": lambda n: [Shift("puppy", n)],
    "Place.at": lambda n: [Place("puppy", n)],
    "Freeze.at": lambda n: [Freeze("puppy", n)],
    "Freeze.weight": lambda n: [Freeze("puppy", 1, n)],
    "Stretch.keep": lambda n: [Stretch("puppy", n)],
    "Stretch.factor": lambda n: [Stretch("puppy", 1, n)],
    "Replace.by": lambda n: [Replace("puppy", n)],
    "Replace.by place": lambda n: [Replace("puppy", n, "position")],
    "Replace.by sum": lambda n: [Replace("puppy", {"cat": n, "dog": 1})],
    "Blend.weight": lambda n: [Blend("a cat", n)],
    "Blend.own": lambda n: [Blend("a cat", 0.5, n)],
    "Blend.weight list": lambda n: [Blend(["a cat", "a dog"], [n, 0.1])],
    "Concatenate.weight": lambda n: [Concatenate("a cat", n)],
    "Truncate.to": lambda n: [Truncate(n)],
    "rows": lambda n: [Scale(n, 2)],
    "rows list": lambda n: [Scale([n, "puppy"], 2)],
    "rows.nth": lambda n: [Scale({"word": "a", "nth": n}, 2)],
    "rows.tokens": lambda n: [Scale({"tokens": n}, 2)],
    "rows.window": lambda n: [Scale({"word": "a", "window": n}, 2)],
    "Ramp.values": lambda n: [Scale("puppy", Ramp([0, n]))],
    "Ramp.at": lambda n: [Scale("puppy", Ramp([0, 1], [0, n], "step"))],
    "Switch.values": lambda n: [Scale("puppy", Switch([1, n], 0.5))],
    "Switch.at": lambda n: [Scale("puppy", Switch([1, 2], n))],
    "Switch.at sigma": lambda n: [Scale("puppy", Switch([1, 2], n, "sigma"))],
    "Switch.at a1111": lambda n: [Scale("puppy", Switch([1, 2], n, "a1111"))],
    "Alternate.every": lambda n: [Scale("puppy", Alternate([1, 2], n))],
    "During.begin": lambda n: [During(Scale("puppy", 2), n)],
    "During.end": lambda n: [During(Scale("puppy", 2), None, n)],
    "encoder.skip": lambda n: {"encoder": Encoder(skip=n)},
    "encoder.skip weight": lambda n: {"encoder": Encoder(skip={0: n, 1: 0.5})},
    "encoder.skip layer": lambda n: {"encoder": Encoder(skip=((n, 0.5), (0, 0.5)))},
    "encoder.stretch": lambda n: {"encoder": Encoder(stretch=n)},
    "encoder.join": lambda n: {"encoder": Encoder(n)},
    "guidance.scale": lambda n: {"guidance": Guidance(n)},
    "guidance.negative": lambda n: {"guidance": Guidance(4, n)},
    "prompt": lambda n: {"prompt": n},
    "operators": lambda n: {"operators": n},
    "an operator": lambda n: [n],
    "operator's blocks": lambda n: [Scale("puppy", 2, blocks=n)],
    "operator's layer": lambda n: [Scale("puppy", 2, stage={"layer": n})],
    "sampler.scheduler": lambda n: {"sampler": Sampler(n)},
    "sampler.steps": lambda n: {"sampler": Sampler("ddim", n)},
    "sampler.keep": lambda n: {"sampler": Sampler("ddim", 2, [n])},
    "start.step": lambda n: {"start": Start("puppy.png", step=n)},
    "start.strength": lambda n: {"start": Start("puppy.png", strength=n)},
    "start.warmup": lambda n: {"start": Start("puppy.png", step=1, warmup=n)},
    "start.picture": lambda n: {"start": Start(n, step=1)},
    "start.mask": lambda n: {"start": Start("puppy.png", mask=n)},
    "start.latents": lambda n: {"start": Start(latents=n)},
    "start.variation": lambda n: {"start": Start(variation=n)},
    "start.variation.seed": lambda n: {"start": Start(variation={"seed": n, "strength": 0.5})},
    "start.variation.strength": lambda n: {"start": Start(variation={"seed": 1, "strength": n})},
    "start.depth": lambda n: {"start": Start(depth=n)},
    "inversion.scale": lambda n: {"start": Inversion("puppy.png", scale=n)},
    "inversion.iterations": lambda n: {"start": Inversion("puppy.png", iterations=n)},
    "inversion.unconditional": lambda n: {"start": Inversion("puppy.png", unconditional=n)},
    "guidance.rescale": lambda n: {"guidance": Guidance(rescale=n)},
    "guidance.interval": lambda n: {"guidance": Guidance(interval=n)},
    "guidance.interval begin": lambda n: {"guidance": Guidance(interval=[n, 1])},
    "guidance.interval end": lambda n: {"guidance": Guidance(interval=[0, n], clock="sigma")},
    "guidance.guider": lambda n: {"guidance": Guidance(guider=n)},
    "guidance.settings": lambda n: {"guidance": Guidance(guider="apg", settings=n)},
    "guidance.settings.eta": lambda n: {"guidance": Guidance(guider="apg", settings={"eta": n})},
    "guidance.settings layers": lambda n: {
        "guidance": Guidance(guider="pag", settings={"perturbed_guidance_layers": n})
    },
    "guidance.combine": lambda n: {"guidance": Guidance(combine=n)},
    "guidance.regions": lambda n: {"guidance": Guidance(regions=n)},
    "guidance.regions box": lambda n: {"guidance": Guidance(regions=[[0, 0, n, 1]])},
    "sampler.eta": lambda n: {"sampler": Sampler("ddim", 2, eta=n)},
    "sampler.sigmas": lambda n: {"sampler": Sampler("euler", 2, sigmas=n)},
    "sampler.spacing": lambda n: {"sampler": Sampler("ddim", 2, spacing=n)},
    "sampler.spacing list": lambda n: {"sampler": Sampler("ddim", 2, spacing=[n, 1])},
    "sampler.zero_snr": lambda n: {"sampler": Sampler("ddim", 2, zero_snr=n)},
    "sampler.order": lambda n: {"sampler": Sampler("dpmpp_2m", 2, order=n)},
    "sampler.options": lambda n: {"sampler": Sampler("euler", 2, options=n)},
    "sampler.options.s_churn": lambda n: {"sampler": Sampler("euler", 2, options={"s_churn": n})},
    "sampler.options.beta_start": lambda n: {"sampler": Sampler("ddim", 2, options={"beta_start": n})},
    "sampler.keep all": lambda n: {"sampler": Sampler("ddim", 2, keep=n)},
    "sampler.watch": lambda n: {"sampler": Sampler("ddim", 2, watch=n)},
    "attention": lambda n: {"attention": n},
    "attention.maps": lambda n: {"attention": Attention(maps=n)},
    "attention.words": lambda n: {"attention": Attention(maps=True, words=n)},
    "attention.by": lambda n: {"attention": Attention(maps=True, by=n)},
    "attention.layers": lambda n: {"attention": Attention(maps=True, layers=n)},
    "attention.edits": lambda n: {"attention": Attention(edits=n)},
    "attention.source": lambda n: {"attention": Attention(edits=[CopyCross()], source=n)},
    "Reweight.by": lambda n: {"attention": Attention(edits=[Reweight("puppy", n)])},
    "Reweight.rows": lambda n: {"attention": Attention(edits=[Reweight(n, 2)])},
    "CopyCross.amount": lambda n: {"attention": Attention(edits=[CopyCross(amount=n)])},
    "CopySelf.most": lambda n: {"attention": Attention(edits=[CopySelf(most=n)])},
    "Confine.box": lambda n: {"attention": Attention(edits=[Confine("puppy", [0, 0, n, 1])])},
    "guidance.loss": lambda n: {"guidance": Guidance(loss=n)},
    "loss.score": lambda n: {"guidance": Guidance(loss=Loss(n))},
    "loss.scale": lambda n: {"guidance": Guidance(loss=Loss(Colour(blue=0.9), scale=n))},
    "loss.every": lambda n: {"guidance": Guidance(loss=Loss(Colour(blue=0.9), every=n))},
    "loss.form": lambda n: {"guidance": Guidance(loss=Loss(Colour(blue=0.9), form=n))},
    "Colour.blue": lambda n: {"guidance": Guidance(loss=Loss(Colour(blue=n)))},
    "Mass.word": lambda n: {"guidance": Guidance(loss=Loss(Mass(n), form="unet"))},
    "Mass.box": lambda n: {"guidance": Guidance(loss=Loss(Mass("puppy", [0, 0, n, 1]), form="unet"))},
    "size": lambda n: {"size": n},
    "size list": lambda n: {"size": [n, 128]},
}
CALLS = {  # and functions that take one
    "seeds": lambda n, m: check_seeds([n]),
    "at_once": lambda n, m: check_at_once(n),
    "encode.at_once": lambda n, m: encode([embed_all("a", m.towers)], m.towers, at_once=n),
    "encode.skip": lambda n, m: encode([embed_all("a", m.towers)], m.towers, skip=n),
    "embed.stretch": lambda n, m: embed("a", m.towers[0], stretch=n),
    "lookup": lambda n, m: lookup_of(m.towers[0])(n),
    "nearest": lambda n, m: lookup_of(m.towers[0]).nearest(torch.ones(96), n),
    "metrics.words": lambda n, m: Metrics(words=[n]),
    "metrics.template": lambda n, m: Metrics(template=n),
}
LARGE = [10**9, 2**53 + 1, 10**18, 2**63, -(2**63), 2**64, 10**30, -(10**30), 10**400, -(10**400), 1e30, 1e39, -1e39]
ODD = [
    float("nan"),
    float("inf"),
    -float("inf"),
    1e-45,
    -0.0,
    0,
    1,
    True,
    None,
    "0.5",
    b"1",
    1j,
    [],
    {},
    [0.5],
    object(),
]
ODD += [np.float32(0.5), np.float64(1e300), np.uint8(1), np.uint64(2**63), np.int8(-128), np.bool_(True), np.array(0.5)]
ODD += [np.float32("nan"), np.complex64(1), np.longdouble(1.5), np.int64(-(2**63)), Fraction(1, 2), Decimal("0.5")]
ODD += [T(True), T(2), T(2**62), T(2j), T([1.0, 2.0]), T(float("nan")), T([[0.5]]), T([]), T(1e300).double()]


@pytest.mark.parametrize("setting", [*NUMBERS, *CALLS])
def test_whatever_stands_where_a_number_belongs_is_taken_or_one_line(emoji, setting):
    source, taken = Source("emoji"), 0
    for number in [*LARGE, *ODD]:
        try:
            if setting in CALLS:
                CALLS[setting](number, emoji)
            else:
                made = NUMBERS[setting](number)
                more = made if isinstance(made, dict) else {"operators": made}
                cell = Cell(**{"prompt": PROMPT, "sampler": Sampler("ddim", 2), **more})
                validate(cell, source)
                assert cell.label
                condition_calls(emoji, [cell])
            taken += 1
        except EmbedlabError as error:
            assert str(error).isprintable(), number  # noqa: PT017
    assert taken < len(LARGE) + len(ODD), "not all of these can be right"


def test_a_whole_number_is_taken_as_far_as_floats_have_all(sd1):
    prompt, lookup = embed(PROMPT, sd1.towers[0]), lookup_of(sd1.towers[0])
    made = Scale("puppy", 2**53)(prompt, lookup).token
    assert torch.equal(made, Scale("puppy", 2.0**53)(prompt, lookup).token)
    with pytest.raises(
        EmbedlabError, match=re.escape("by is a whole number beyond 2^53; write it with a point, such as 1e+30")
    ):
        Scale("puppy", 10**30)
    assert torch.isfinite(Scale("puppy", 1e30)(prompt, lookup).token).all()


def test_numbers_of_numpy_are_those_of_python(sd1):
    """Some of numpy's wrap around: `1 - np.uint8(2)` is 255, `-np.int8(-128)` is -128."""
    prompt, lookup = embed(PROMPT, sd1.towers[0]), lookup_of(sd1.towers[0])
    for number in (np.uint8(2), np.int8(-128), np.int64(3), np.float32(0.5), np.float64(0.5), np.float16(0.5)):
        for make in (
            lambda n: Subtract("puppy", "cat", n),
            lambda n: Interpolate("puppy", "cat", n, path="slerp"),
            lambda n: Replace("puppy", {"cat": n, "dog": 1}),
            lambda n: Rotate("puppy", n),
        ):
            assert make(number) == make(number.item())
            assert fingerprint(make(number)) == fingerprint(make(number.item()))
            assert torch.equal(make(number)(prompt, lookup).token, make(number.item())(prompt, lookup).token)
    assert Guidance(np.uint8(9)) == Guidance(9)
    assert Encoder(stretch=np.uint8(4)).window == 248


PARTS = {
    "steps": (2, lambda n: Sampler(steps=n)),
    "keep": (2, lambda n: Sampler(keep=[n])),
    "skip": (2, lambda n: Encoder(skip=n)),
    "size": (64, lambda n: Cell("a cat", size=[n, n])),
    "seed": (2, lambda n: Noise("cat", 0.5, seed=n)),
    "rows": (2, lambda n: Scale(n, 2.0, encoder=n)),
    "every": (2, lambda n: Alternate(["cat", "dog"], every=n)),
    "scale": (2.0, lambda n: Guidance(scale=n)),
    "rescale": (0.5, lambda n: Guidance(rescale=n, interval=[0, n])),
    "line": (0.5, lambda n: Ramp([0, n], at=[0, n])),
    "snr": (True, lambda n: Sampler(zero_snr=n)),
    "eye": (True, lambda n: Metrics(eye=n)),
    "engine": (True, lambda n: OpenVINO(text_encoder=n)),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_number_of_numpy_or_torch_makes_the_very_part(name):
    value, make = PARTS[name]
    kinds = (np.array(value), torch.tensor(value), np.array(value)[()], np.array([value])[0])
    for given in kinds:
        assert repr(make(given)) == repr(make(value))
        assert fingerprint(make(given)) == fingerprint(make(value))


def test_arrays_of_numbers_are_lists_and_fractions_are_no_whole_numbers(emoji):
    assert Sampler(keep=np.arange(3)) == Sampler(keep=[0, 1, 2])
    assert Encoder(balance=torch.tensor([1.0, 0.5])) == Encoder(balance=[1.0, 0.5])
    assert check_seeds(np.arange(3)) == check_seeds(torch.arange(3)) == (0, 1, 2)
    shown = [render(emoji, Cell("a cat", sampler=Sampler(steps=1)), seeds).pictures for seeds in (np.int64(3), 3)]
    assert torch.equal(*shown)
    assert torch.equal(noise(emoji, np.array(3)), noise(emoji, [3]))
    whole = render(emoji, Cell("a cat", sampler=Sampler(steps=1)), 3)
    assert to_pil(whole) == to_pil(whole.pictures)
    assert detect(whole, emoji) == detect(whole.pictures, emoji)
    with pytest.raises(EmbedlabError, match=re.escape("sampler.steps is 2.0; it has to be a whole number")):
        Sampler(steps=np.float32(2))
    learned = torch.tensor(0.5, requires_grad=True)
    assert Scale("cat", learned).by is learned
    assert isinstance(Scale("cat", torch.tensor(0.5)).by, torch.Tensor)


class Odd:
    """Somebody's own operator, and what is odd about it."""

    def __init__(self, does=lambda prompt, lookup: prompt):
        self.does = does

    def __call__(self, prompt, lookup):
        return self.does(prompt, lookup)


def odd(**what):
    """An operator of a class with these attributes."""
    return type("Odd", (Odd,), {"__module__": __name__, **what})()


def raises(error):
    """A function that raises."""

    def never(*_):
        raise error

    return never


ODDITIES = [
    (
        odd(__str__=raises(RuntimeError("none\ntoday"))),
        "the label of the operator Odd, its str, cannot be read: Runtime",
    ),
    (odd(__str__=lambda _: None), "the label of the operator Odd, its str, cannot be read: TypeError"),
    (odd(__str__=raises(SystemExit(7))), "cannot be read: RuntimeError: it raised SystemExit(7)"),
    (odd(__repr__=raises(RuntimeError("none"))), "its settings and its repr: RuntimeError: none"),
    (odd(__repr__=raises(SystemExit(7))), "its repr: RuntimeError: its repr raised SystemExit(7)"),
    (odd(words="puppy"), "the words of the operator 'Odd' are 'puppy', not a list of texts"),
    (odd(words=5), "the words of the operator 'Odd' cannot be read: TypeError"),
    (odd(words=(None,)), "the words of the operator 'Odd' are (None,), not a list of texts"),
    (odd(words=property(raises(SystemExit(7)))), "cannot be read: RuntimeError: it raised SystemExit(7)"),
    (odd(stage=property(raises(RuntimeError("none")))), "the stage of the operator 'Odd' cannot be read: none"),
    (odd(stage=None), "stage is None; choose one of token"),
    (
        Odd(lambda prompt, _: None),
        "'Odd' returned a NoneType; an operator of its stage returns an Embeddings",
    ),
    (Odd(lambda prompt, _: (prompt,)), "'Odd' returned a tuple"),
    (
        Odd(lambda prompt, _: replace(prompt, token=[[1]])),
        "'Odd': token is [[1]]; it has to be a tensor (window, position, dim)",
    ),
    (Odd(lambda prompt, _: replace(prompt, token=prompt.token.to("meta"))), "are torch.strided on meta; they were"),
    (Odd(lambda prompt, _: replace(prompt, token=prompt.token.to_sparse())), "are torch.sparse_coo on cpu; they were"),
    (Odd(lambda prompt, _: replace(prompt, token=prompt.token[:, :5])), "made token rows of shape (1, 5, 96)"),
    (
        Odd(lambda prompt, _: replace(prompt, position_table=None)),
        "'Odd': position_table is None; it has to be a tensor",
    ),
    (Odd(lambda prompt, _: replace(prompt, tokens=None)), "'Odd': tokens is None; it has to be a Tokens"),
    (Odd(lambda prompt, _: prompt.tokens.ids.zero_() is None or prompt), "returned other tokens"),
    (Odd(lambda prompt, lookup: lookup.token_table.mul_(2) is None or prompt), "'Odd' wrote into the vocabulary"),
    (
        type("Late", (Odd,), {"stage": "hidden"})(lambda told, _: replace(told, rows=(1,))),
        "'Late' says which rows 1 hidden states stand for, and made 77",
    ),
]


@pytest.mark.parametrize(("operator", "message"), ODDITIES, ids=[message for _, message in ODDITIES])
def test_what_is_odd_about_an_operator_of_ones_own_is_one_line_before_weights(tmp_path, operator, message):
    with pytest.raises(EmbedlabError, match=re.escape(message)) as caught:
        validate_job(Job(Source("emoji"), Cell(PROMPT, [operator]), (0,), tmp_path))
    assert "\n" not in reason_of(caught.value)


def test_an_operator_that_changes_its_settings_is_refused(tmp_path):
    own = Own([1])
    own.by, kept = 1, []
    counting = Odd(lambda prompt, _: kept.append(len(kept)) or prompt)
    counting.kept = kept
    with pytest.raises(EmbedlabError, match="'Odd' changes its own settings when it is applied"):
        validate_job(Job(Source("emoji"), Cell(PROMPT, [counting]), (0,), tmp_path))


def test_what_an_operator_remembers_in_itself_is_forgotten(sd1):
    class Remembers:
        def __call__(self, prompt, lookup):
            self.first = getattr(self, "first", prompt.token.sum())
            return replace(prompt, token=prompt.token * 0 + self.first)

    own = Remembers()
    before = fingerprint(own)
    one, two = (edit(embed_all(text, sd1.towers), [own], sd1.towers)[0].token for text in (PROMPT, "a cat"))
    assert not torch.equal(one, two), "what was made of one prompt is not in the next"
    assert fingerprint(own) == before


@pytest.mark.parametrize(
    "error", [SystemExit(7), KeyboardInterrupt(), GeneratorExit(), type("Mine", (BaseException,), {})()]
)
def test_an_operator_does_not_end_the_process(sd1, error):
    with signals.listening(), pytest.raises(RuntimeError, match=re.escape(f"'Odd' raised {type(error).__name__}(")):
        edit(embed_all(PROMPT, sd1.towers), [Odd(raises(error))], sd1.towers)


INTERRUPTED = """
import os, signal, sys, time
from contextlib import nullcontext
from embedlab import edit, embed_all, models
from embedlab.cli import signals


class Interrupted:
    def __call__(self, prompt, lookup):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)  # the signal ends it


towers = models.load(sys.argv[1], device="cpu").towers
for listening in (nullcontext, signals.listening):
    try:
        with listening():
            edit(embed_all("a picture of a puppy", towers), [Interrupted()], towers)
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_a_signal_within_an_operator_is_a_signal(forks, folders, tmp_path):
    done = forks.python(INTERRUPTED, str(folders["sd1"]), cwd=tmp_path)  # pytest's worker would go with it
    assert (done.returncode, done.stdout) == (0, "interrupted\n" * 2), done.stderr


def test_what_contains_itself_has_a_fingerprint(tmp_path):
    loops = []
    for by in (1, 1, 2):
        own = Own(by)
        own.me, own.more = own, [own, {"me": own}]
        loops.append(own)
    one, same, other = map(fingerprint, loops)
    assert one == same != other
    job = Job(Source("emoji"), Cell(PROMPT, [loops[0]]), (0,), tmp_path)
    validate_job(job)
    assert job.key
    deep = Own([])
    for _ in range(5000):
        deep.by = [deep.by]
    with pytest.raises(EmbedlabError, match="nested too deep to be compared"):
        fingerprint(deep)


def test_nothing_that_an_operator_writes_into_is_anybody_elses(sd1):
    tower = sd1.towers[0]
    kept = [tower.token_table.clone(), tower.position_table.clone()]

    def harsh(prompt, lookup):
        for tensor in (prompt.token, prompt.position, prompt.position_table, lookup("cat")):
            tensor.mul_(2)
        return prompt

    def late(told, texts):
        for other in (told, texts("a cat")):
            other.hidden.mul_(2)
            other.pooled.mul_(2)
        return told

    late.stage = "hidden"
    prompt, texts = embed_all(PROMPT, sd1.towers), texts_of(sd1.towers)
    told, cat = texts(PROMPT), texts("a cat")
    before = [tensor.clone() for tensor in (told.hidden, told.pooled, cat.hidden, cat.pooled)]
    edit(prompt, [harsh], sd1.towers)
    edit_encoded(told, [late], texts)
    assert all(map(torch.equal, kept, (tower.token_table, tower.position_table)))
    assert all(map(torch.equal, before, (told.hidden, told.pooled, texts("a cat").hidden, texts("a cat").pooled)))

    def worst(prompt, lookup):
        lookup.token_table[5] = 7
        return prompt

    for _ in range(2):
        with pytest.raises(EmbedlabError, match="wrote into the vocabulary"):
            edit(prompt, [worst], sd1.towers)
    with torch.inference_mode(), pytest.raises(EmbedlabError, match="wrote into the vocabulary"):
        edit(prompt, [worst], sd1.towers)
    assert torch.equal(kept[0], tower.token_table)
    same = edit(prompt, [lambda p, lookup: p.put("token", p.spans("puppy"), lookup("cat"))], sd1.towers)[0]
    assert torch.equal(same.token, Replace("puppy", "cat")(prompt[0], lookup_of(tower)).token)


END = "<|endoftext|>"
SCENE = "cat{}<|startoftext|>"
UNREAD = {
    "scored words": (Cell(PROMPT), Metrics(words=("cat", END)), "cannot be scored, a word of metrics.words: "),
    "template": (Cell(PROMPT), Metrics(words=("cat",), template=SCENE), "'cat' cannot be scored, a word of metrics.wo"),
    "words of their own": (Cell(PROMPT, [odd(words=(END,))]), Metrics(), "a word of the edit; metrics.words=[…] names"),
    "prompt": (Cell(END), Metrics(), ""),
    "prompt over time": (Cell(Switch([PROMPT, END], 0.9)), Metrics(), ""),
    "negative": (Cell(PROMPT, guidance=Guidance(negative=f"a {END}")), Metrics(), ""),
    "negative over time": (Cell(PROMPT, guidance=Guidance(negative=Switch(["a", END], 0.9))), Metrics(), ""),
    "rows": (Cell(PROMPT, [Scale(END, 2)]), Metrics(), ""),
    "rows to leave out": (Cell(PROMPT, [Scale({"role": "all", "but": END}, 2)]), Metrics(), ""),
    "by": (Cell(PROMPT, [Replace("puppy", END)]), Metrics(), ""),
    "by of a sum": (Cell(PROMPT, [Replace("puppy", {"cat": 1, END: 1})]), Metrics(), ""),
    "by over time": (Cell(PROMPT, [Replace("puppy", Switch(["cat", END], 0.9))]), Metrics(), ""),
    "by after the encoder": (Cell(PROMPT, [Replace(ALL, END, "hidden")]), Metrics(), ""),
    "by of another prompt": (Cell(PROMPT, [Replace("puppy", {"prompt": END, "rows": 1}, "hidden")]), Metrics(), ""),
    "by of rows there": (Cell(PROMPT, [Replace("puppy", {"prompt": "a cat", "rows": END}, "hidden")]), Metrics(), ""),
    "toward": (Cell(PROMPT, [Interpolate("puppy", ["cat", END], [0.5, 0.5])]), Metrics(), ""),
    "direction": (Cell(PROMPT, [Add("puppy", {"cat": 1, END: -1})]), Metrics(), ""),
    "place": (Cell(PROMPT, [Replace("puppy", END, "position")]), Metrics(), ""),
    "blend": (Cell(PROMPT, [Blend(["a cat", END], [0.5, 0.1])]), Metrics(), ""),
    "concatenate": (Cell(PROMPT, [Concatenate(END, 0.5)]), Metrics(), ""),
    "between two times": (Cell(PROMPT, [During(Replace("puppy", END), begin=0.9)]), Metrics(), ""),
}


@pytest.mark.parametrize("where", UNREAD)
def test_a_text_that_cannot_be_tokenised_is_refused_before_weights(tmp_path, where, unread):
    cell, metrics, message = UNREAD[where]
    with pytest.raises(EmbedlabError, match=re.escape("text|>'")) as caught:
        validate_job(Job(Source("emoji"), cell, (0,), tmp_path, metrics=metrics))
    assert message in str(caught.value)


@pytest.fixture(scope="module", params=["tokenizer", "tokenizer_2"])
def greenless(folders, tmp_path_factory, request):
    """A small SDXL for one of whose tokenizers green is the end of a text, which no text may hold."""
    folder = shutil.copytree(folders["sdxl"], tmp_path_factory.mktemp("model") / "sdxl")
    words = CLIPTokenizer.from_pretrained(folder / request.param, eos_token="green")
    words.save_pretrained(folder / request.param)
    return Source(str(folder))


@pytest.mark.parametrize(
    "cell",
    [
        Cell(PROMPT, guidance=Guidance(negative="green")),
        Cell(PROMPT, [Replace(ALL, "green", "hidden")]),
        Cell(PROMPT, [Blend("green", 0.5)]),
    ],
    ids=["negative", "by after the encoder", "blend"],
)
def test_a_text_is_read_by_each_text_encoder_before_weights(greenless, cell, unread):
    with pytest.raises(PromptError, match="'green'"):
        validate(cell, greenless)


@pytest.mark.parametrize(
    ("prompt", "pasted"),
    [
        (None, """null is none, but 'prompt="null"'"""),
        (["a", "it's"], """'prompt="['"'"'a'"'"', \\"it"""),
        (1e3, "1000.0"),
    ],
)
def test_what_is_offered_for_a_prompt_that_is_no_text_can_be_pasted(prompt, pasted):
    with pytest.raises(EmbedlabError) as refused:
        Cell(prompt)
    assert pasted in str(refused.value)
