"""What functions, classes and methods of the library say when they are handed something else."""

import dataclasses
import inspect
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

import embedlab as lab
from embedlab.errors import EmbedlabError
from embedlab.timing import Spent, Times

CELL = lab.Cell("a puppy", sampler=lab.Sampler("ddim", steps=1))
HALF = lab.Scale("puppy", 0.5)
OLD = Path(__file__).parent / "fixtures" / "v0.1" / "sweep"


@pytest.fixture(scope="module")
def rendered(sd1):
    return lab.render(sd1, [CELL], [0])[0]


def told(model):
    """A conditioning, as a list of one."""
    return lab.encode(["a cat"], model)


CALLS = {
    "model is 'emoji'; it has to be a Model": lambda m, p, r: lab.render("emoji", [CELL], [0]),
    r"cells is \['a cat'\]; it has to be a list of Cell": lambda m, p, r: lab.render(m, ["a cat"], [0]),
    "seeds is 'a'; it has to be a list": lambda m, p, r: lab.render(m, CELL, "a"),
    r"seeds is \[\]; it has to be a list": lambda m, p, r: lab.render(m, [CELL], []),
    "on_step is 3; it has to be a callable": lambda m, p, r: lab.render(m, [CELL], [0], on_step=3),
    "model is 'sd1'; it has to be a Model": lambda m, p, r: lab.score("sd1", r, r),
    "before is None; it has to be a Rendered": lambda m, p, r: lab.score(m, None, r),
    "after is .a Rendered.; it has to be a Rendered": lambda m, p, r: lab.score(m, r, [r]),
    "settings is 'cat'; it has to be a Metrics": lambda m, p, r: lab.score(m, r, r, "cat"),
    "3 is no prompt before the encoders": lambda m, p, r: lab.encode([3], m),
    "prompts is 3; it has to be a text, what embed_all": lambda m, p, r: lab.encode(3, m),
    "an Encoder was given, and settings beside it": lambda m, p, r: lab.encode(p, m, lab.Encoder(), skip=1),
    "3 has no text encoders; a model .lab.load.": lambda m, p, r: lab.encode(p, 3),
    "a prompt is a text; b'a cat' is none": lambda m, p, r: lab.embed_all(b"a cat", m.towers),
    "there are 2 text encoders; embed_all takes all": lambda m, p, r: lab.embed("a cat", (*m.towers, *m.towers)),
    "prompt is 3; it has to be what embed_all": lambda m, p, r: lab.edit(3, [HALF], m.towers),
    "operators is 'loud'; it has to be a list": lambda m, p, r: lab.edit(p, "loud", m.towers),
    "None is no operator": lambda m, p, r: lab.edit(p, [None], m.towers),
    "Scale is no operator": lambda m, p, r: lab.edit(p, [lab.Scale], m.towers),
    "None has no text encoders": lambda m, p, r: lab.edit(p, [HALF], None),
    "vae is 3; a model": lambda m, p, r: lab.decode(r.latents, 3),
    r"latents is a tensor of shape \(1, 2\); this model's are": lambda m, p, r: lab.decode(torch.zeros(1, 2), m),
    "unet is 'x'; a model": lambda m, p, r: lab.guided("x", None, None, 1.0),
    "there are 2 cond for 3 pictures; one for each": lambda m, p, r: lab.guided(m, told(m) * 2, told(m) * 3, 1.0),
    "cond holds 'a cat'; it has to be a Conditioning": lambda m, p, r: lab.guided(m, "a cat", told(m), 1.0),
    "shape is 3; it has to be .channels": lambda m, p, r: lab.noise(3, [0]),
    "picture is 3; it has to be a path": lambda m, p, r: lab.encode_picture(3, m),
    "size is 7 × 7; both have to be multiples": lambda m, p, r: lab.encode_picture("puppy.png", m, size=7),
    "a picture as an array has the shape": lambda m, p, r: lab.Start(np.zeros((3, 8, 8)), step=1),
    "scheduler is None; it has to be a Timetable": lambda m, p, r: lab.moments(None),
    "engine is 'fast'; it has to be an Engine": lambda m, p, r: lab.with_engine(m, "fast"),
    "tokens is 3; it has to be a list of whole numbers": lambda m, p, r: lab.word_mass(torch.zeros(1, 2, 4, 5), 3),
    "a Conditioning and Texts were expected": lambda m, p, r: lab.edit_encoded("a", [HALF], lab.texts_of(m.towers)),
    "'a' is no Cell; write Cell": lambda m, p, r: lab.prompt_embeds("a", m.towers),
    "None is no Cell": lambda m, p, r: lab.edited_rows(None, m.towers),
    "a Model is no Cell; the cell comes first": lambda m, p, r: lab.explain(m, lab.Cell("a cat")),
    "'a cat' is no Cell": lambda m, p, r: lab.explain("a cat", m.towers),
    "embeds is None; it has to be named tensors": lambda m, p, r: lab.save_embeds("x.safetensors", None),
    "embeds is {a: 1}; it has to be named tensors": lambda m, p, r: lab.save_embeds("x.safetensors", {"a": 1}),
    "has no numbers": lambda m, p, r: lab.save_embeds("x.st", {"a": torch.ones(1, device="meta")}),
    "is no path of a file": lambda m, p, r: lab.save_embeds("a\0b", {"a": torch.ones(1)}),
    "'.ud800' is no path of a file": lambda m, p, r: lab.load_embeds("\ud800"),
    "None is no path of a file": lambda m, p, r: lab.load_embeds(None),
    "there is no file 'nowhere'": lambda m, p, r: lab.load_embeds("nowhere"),
    "'/dev/zero' is no regular file": lambda m, p, r: lab.load_embeds("/dev/zero"),
    "tokenizer is None; it has to be": lambda m, p, r: lab.tokenize("a", None),
    "moment is 3; it has to be a Moment": lambda m, p, r: lab.resolve(CELL, 3),
    "jobs is 'x'; it has to be a list of Job": lambda m, p, r: lab.run_jobs("x", lab.Store("s")),
    "store is 's'; it has to be a Store": lambda m, p, r: lab.run_jobs([], "s"),
    "is no list of Conditionings": lambda m, p, r: lab.equal_lengths(p),
}


@pytest.mark.parametrize("said", CALLS)
def test_one_line_says_what_came_and_what_would_fit(said, sd1, rendered):
    prompt = lab.embed_all("a puppy", sd1.towers)
    with pytest.raises(EmbedlabError, match=said) as refused:
        CALLS[said](sd1, prompt, rendered)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_what_is_rendered_is_shown_in_a_place_of_a_grid_where_it_is_one_picture(sd1, rendered):
    both = lab.show([[rendered, None], [rendered, rendered]], rows=["a", "b"], columns=["c", "d"])
    assert [(name, [one is not None for one in row]) for name, row in both.rows] == [
        ("a", [True, False]),
        ("b", [True, True]),
    ]
    with pytest.raises(EmbedlabError, match="has 2 pictures, and one place is one picture"):
        lab.show([[lab.render(sd1, CELL, [0, 1])]])


def test_scores_need_no_settings(sd1, rendered):
    assert lab.score(sd1, rendered, rendered)[1]["change/pixels"] == 0


# ── one shape of argument ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def pipeline(folders):
    return StableDiffusionPipeline.from_pretrained(folders["sd1"], safety_checker=None)


@pytest.mark.parametrize("given", ["model", "towers", "tower", "pipeline"])
def test_whatever_has_text_encoders_does_where_these_are_asked_for(given, sd1, pipeline):
    had = {"model": sd1, "towers": list(sd1.towers), "tower": sd1.towers[0], "pipeline": pipeline}[given]
    own, (tower,) = lab.text_encoders_of(had), sd1.towers
    assert torch.equal(own[0].token_table, tower.token_table)
    (rows,), (plain,) = lab.embed_all("a puppy", had), lab.embed_all("a puppy", sd1.towers)
    assert torch.equal(rows.token, plain.token)
    assert torch.equal(lab.embed("a puppy", had).token, plain.token)
    assert torch.equal(lab.tokenize("a puppy", had).ids, plain.tokens.ids)
    assert torch.equal(lab.lookup_of(had)("puppy"), lab.lookup_of(tower)("puppy"))
    (edited,) = lab.edit("a puppy", HALF, had)
    assert torch.equal(edited.token, lab.edit([plain], [HALF], sd1.towers)[0].token)
    one, (other,) = lab.encode("a puppy", had), lab.encode([(plain,)], sd1.towers)
    assert torch.equal(one.hidden, other.hidden)
    deep = lab.encode("a (puppy:1.5)", had, lab.Encoder(skip=1, language="a1111"))
    rows = lab.Encoder(language="a1111").embed("a (puppy:1.5)", sd1.towers)
    assert torch.equal(deep.hidden, lab.encode([rows], sd1.towers, skip=1)[0].hidden)
    louder = lab.Scale("puppy", 2, stage="hidden")
    by_texts = lab.edit_encoded(one, [louder], lab.texts_of(sd1.towers))
    assert torch.equal(lab.edit_encoded(one, louder, had).hidden, by_texts.hidden)
    assert lab.explain(CELL, had).as_dict() == lab.explain(CELL, sd1.towers).as_dict()
    assert all(map(torch.equal, lab.prompt_embeds(CELL, had).values(), lab.prompt_embeds(CELL, sd1.towers).values()))


def test_a_pipeline_is_a_model(sd1, pipeline):
    own, theirs = lab.render(sd1, CELL, 3), lab.render(pipeline, CELL, 3)
    assert torch.allclose(own.pictures, theirs.pictures, atol=1e-3)  # ours lies in memory by channels
    assert lab.load(pipeline).unet is pipeline.unet
    with pytest.raises(EmbedlabError, match="settings are for what is loaded"):
        lab.load(pipeline, device="cpu")


def test_one_cell_gives_one_answer_and_a_list_gives_a_list(sd1):
    (listed,) = lab.render(sd1, [CELL], [0])
    assert torch.equal(lab.render(sd1, CELL).pictures, listed.pictures)
    assert lab.render(sd1, CELL, 5).seeds == (5,)


def test_the_parts_of_a_loop_take_a_model(sd1):
    told_that, nothing = lab.encode(["a puppy", ""], sd1)
    x = lab.noise(sd1, [0, 1])
    assert torch.equal(x, lab.noise((4, 8, 8), lab.generators([0, 1])))
    with torch.inference_mode():
        one = lab.guided(sd1, told_that, nothing, 4.0)(x, torch.tensor(500))
        each = lab.guided(sd1.unet, [told_that] * 2, [nothing] * 2, [4.0, 4.0])(x, torch.tensor(500))
        assert torch.equal(one, each)
        assert torch.equal(lab.decode(x, sd1), lab.decode(x, sd1.vae))


def test_pictures_of_any_kind_are_the_same_picture(sd1):
    image = lab.Start("puppy.png", step=1).open().resize((16, 16))
    array = np.asarray(image)
    kinds = [image, array, array / 255, torch.from_numpy(array.copy()).permute(2, 0, 1)]
    first, *others = [lab.encode_picture(one, sd1, seeds=[0]) for one in kinds]
    assert first.shape == (1, 4, 8, 8)
    assert all(torch.equal(first, other) for other in others)
    assert len({lab.Start(one, step=1).content for one in kinds}) == 1
    assert torch.equal(lab.to_tensor(array), lab.to_tensor(image))
    grey = lab.encode_picture(np.zeros((16, 16)), sd1)
    assert torch.equal(grey, lab.encode_picture(np.zeros((16, 16, 3), np.uint8), sd1))


# ── whatever comes ────────────────────────────────────────────────────────────────────────────────────────────────


class Strange:
    """Something of somebody's own."""


WRONG = [None, True, 3, -1, float("nan"), "a puppy", "", b"a", [], [None], {}, {1}, ["a", "b"], 10**30, 1j]
WRONG += [torch.zeros(2, 3), np.zeros(3), np.float64("nan"), np.int64(2)]
WRONG += [lab.Cell, Strange(), CELL, Path("nowhere"), lab.Switch(["a", Strange()], at=0.5)]
NO_NUMBER = torch.zeros((), device="meta")
COSTLY = ("anatomy", "grid", "learn", "load", "profile", "run", "run_jobs", "show")  # they have tests of their own
CLASSES = [name for name in lab.__all__ if inspect.isclass(getattr(lab, name))]
NOT_MADE = ("EmbedlabError", "Engine", "Operator")  # an error, and two protocols
OF_SAMPLING = ("check", "choose", "compile", "depends_on", "load")  # what no user calls: methods of engines


def in_a_line(call, *where):
    """What a call answers with; None where it says in a line that something does not fit."""
    try:
        return call()
    except EmbedlabError as error:
        said = str(error)
        assert "\n" not in said, (*where, said)
        assert len(said) < 400, (*where, said)
        assert not re.search(r"object at 0x|tensor\(\[|\[\[", said), (*where, said)
    except TypeError as error:
        if "missing" not in str(error):  # another argument, which Python says in a line
            raise
    return None


@pytest.fixture(scope="module")
def good(sd1, rendered, tmp_path_factory):
    """An argument that fits, by its name."""
    cat = lab.encode("a puppy and a cat", sd1)
    fit = dict.fromkeys(("tokenizer", "model", "tower", "towers", "vae", "unet", "texts", "shape", "pipeline"), sd1)
    fit |= {"text": "a puppy", "prompt": "a puppy", "prompts": "a puppy", "word": "<w>", "picture": "puppy.png"}
    fit |= {"cell": CELL, "cells": CELL, "value": CELL, "operators": HALF, "seeds": [0], "random": [0], "scales": 4.0}
    fit |= {"conditioning": cat, "conditionings": [cat], "cond": cat, "uncond": cat, "before": rendered}
    fit |= {"after": rendered, "latents": torch.zeros(1, 4, 8, 8), "pictures": torch.zeros(1, 3, 16, 16)}
    fit |= {"moment": lab.Moment(0, 0, 4, 999.0, 1.0), "engine": lab.Eager(), "embeds": {"a": torch.ones(1)}}
    fit |= {"scheduler": CELL.sampler.make(sd1.scheduler), "noise": torch.zeros(1, 4, 8, 8), "tokens": [1]}
    fit |= {"denoise": lab.guided(sd1, cat, cat, 1.0), "probabilities": torch.full((1, 2, 4, 5), 0.2)}
    return fit | {"rows": [torch.ones(1, 16)], "path": tmp_path_factory.mktemp("wrong") / "x.safetensors"}


@pytest.mark.parametrize(
    "name", [name for name in lab.__all__ if inspect.isfunction(getattr(lab, name)) and name not in COSTLY]
)
@pytest.mark.filterwarnings("ignore")
def test_whatever_a_function_is_handed_it_says_so_in_a_line(name, good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = getattr(lab, name)
    own = inspect.signature(function).parameters.values()
    fit = {one.name: good[one.name] for one in own if one.default is one.empty and one.name in good}
    for parameter in own:
        for wrong in WRONG:
            in_a_line(partial(function, **{**fit, parameter.name: wrong}), parameter.name, wrong)


@pytest.fixture(scope="module")
def values(sd1, good):
    """One of each class that takes more than its defaults: what it is made of, by name, or itself."""
    tokens, anatomy, ones = lab.tokenize("a puppy and a cat", sd1), lab.anatomy("emoji"), (torch.ones(1, 16),)
    rows = {"rows": "puppy"}
    toward = {name: {**rows, "direction": "cat"} for name in ("Add", "ProjectOut", "Subtract")}
    toward |= {"Interpolate": {**rows, "toward": "cat"}} | {name: {**rows, "by": "cat"} for name in ("Replace", "Swap")}
    toward |= {"Permute": {"rows": "a", "order": [0]}, "Place": {**rows, "at": 3}, "Truncate": {"to": 8}}
    toward |= {name: {"prompts": "a cat"} for name in ("Blend", "Concatenate")}
    toward |= {"During": {"operator": HALF, "begin": 1}}
    scored = {"Colour": {"red": 0.5}, "Distance": {"picture": "puppy.png"}, "Likeness": {"text": "a cat"}}
    scored |= {"Loss": {"score": lab.Colour(red=0.5)}, "Mass": {"word": "puppy"}, "Rows": {"word": "puppy"}}
    changing = {
        "Alternate": {"values": ["a", "b"]},
        "Switch": {"values": [0, 1], "at": 0.5},
        "Ramp": {"values": [0, 1]},
    }
    started = {"Start": {"picture": "puppy.png", "step": 1}, "Inversion": {"picture": "puppy.png"}}
    kept = {"Job": {"source": lab.Source(), "cell": CELL, "seeds": (0,), "folder": Path()}, "Store": {"folder": Path()}}
    kept |= {
        "Grid": {"title": "", "columns": ("a",), "rows": (("", (None,)),)},
        "Sweep": {"folder": OLD},
        "Cell": {"prompt": "a puppy"},
    }
    concept, detection = lab.Concept("<w>", ones), lab.Detection("cat", 0.5, 0.5, 0.5, 0.5)
    made = [concept, detection, lab.Detections((detection,)), lab.Maps(("cat",), torch.ones(1, 4, 4)), good["moment"]]
    made += [tokens, lab.embed("a puppy and a cat", sd1), good["cond"], lab.lookup_of(sd1), lab.texts_of(sd1)]
    made += [sd1, sd1.towers[0], anatomy, lab.Comparison(("a",), (anatomy,))]
    made += [lab.Learned("<w>", "token", ones, (1.0,), 1.0, 0.5, (), concept)]
    spent = Times({"UNet": Spent(1.0, 1, 1)})
    made += [lab.Profile("t", "m", "e", "cpu", "float32", 1, 1, (16, 16), 2, None, 0.1, spent, {"UNet": 1}, 1e9, ())]
    return toward | scored | changing | started | kept | {type(one).__name__: one for one in made}


def one_of(name, values):
    """A value of a public class, and what it is made of."""
    kind, given = getattr(lab, name), values.get(name, {})
    if isinstance(given, dict):
        needed = [one.name for one in inspect.signature(kind).parameters.values() if one.default is one.empty]
        given = {**{key: "puppy" for key in needed if key == "rows"}, **({"by": 1} if "by" in needed else {}), **given}
        return kind(**given), given
    fields = dataclasses.fields(given) if dataclasses.is_dataclass(given) else ()
    return given, {field.name: getattr(given, field.name) for field in fields if field.init}


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in NOT_MADE])
@pytest.mark.filterwarnings("ignore")
def test_whatever_a_class_is_made_of_it_says_so_in_a_line(name, values):
    kind, (_, fit) = getattr(lab, name), one_of(name, values)
    for parameter in inspect.signature(kind).parameters:
        for wrong in (*WRONG, NO_NUMBER):
            made = in_a_line(partial(kind, **{**fit, parameter: wrong}), parameter, wrong)
            assert repr(made), "what is taken shows itself"


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in NOT_MADE])
@pytest.mark.filterwarnings("ignore")
def test_whatever_a_method_is_handed_it_says_so_in_a_line(name, values, good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value, _ = one_of(name, values)
    late = "texts" if isinstance(value, lab.Blend | lab.Concatenate | lab.Truncate) else "lookup"
    prompt = good["cond"] if late == "texts" or isinstance(value, lab.Texts) else values["Embeddings"]
    fit = good | {"prompt": prompt, "lookup": values["Texts" if late == "texts" else "Lookup"], "what": "cat"}
    fit |= {"phrase": "cat", "word": "cat", "rows": [(2,)], "values": torch.zeros(1, 1, 16), "clock": "step"}
    fit |= {"table": "hidden" if prompt is good["cond"] else "token", "name": "unet", "key": "0" * 64, "steps": 4}
    for called in dir(value):
        method = inspect.getattr_static(value, called)
        if (called.startswith("_") and called != "__call__") or not inspect.isfunction(method) or called in OF_SAMPLING:
            continue
        own = [one for one in inspect.signature(method).parameters.values() if one.name != "self"]
        needed = {one.name: fit[one.name] for one in own if one.default is one.empty and one.name in fit}
        for parameter in own:
            for wrong in (*WRONG, NO_NUMBER):
                given = {**needed, parameter.name: wrong}
                in_order = [
                    given.pop(one.name) for one in own if one.kind is not one.KEYWORD_ONLY and one.name in given
                ]
                in_a_line(partial(getattr(value, called), *in_order, **given), called, parameter.name, wrong)
