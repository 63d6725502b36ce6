"""What functions of the library say when they are handed something else."""

import pytest
import torch

import embedlab as lab
from embedlab.errors import EmbedlabError

CELL = lab.Cell("a puppy", sampler=lab.Sampler("ddim", steps=1))
HALF = lab.Scale("puppy", 0.5)


@pytest.fixture(scope="module")
def rendered(sd1):
    return lab.render(sd1, [CELL], [0])[0]


CALLS = {
    "model is 'emoji'; it has to be a Model": lambda m, p, r: lab.render("emoji", [CELL], [0]),
    "cells is a Cell; it has to be a list of Cell": lambda m, p, r: lab.render(m, CELL, [0]),
    r"cells is \['a cat'\]; it has to be a list of Cell": lambda m, p, r: lab.render(m, ["a cat"], [0]),
    "seeds is 0; it has to be a list": lambda m, p, r: lab.render(m, [CELL], 0),
    r"seeds is \[\]; it has to be a list": lambda m, p, r: lab.render(m, [CELL], []),
    "on_step is 3; it has to be a callable": lambda m, p, r: lab.render(m, [CELL], [0], on_step=3),
    "model is 'sd1'; it has to be a Model": lambda m, p, r: lab.score("sd1", r, r),
    "before is None; it has to be a Rendered": lambda m, p, r: lab.score(m, None, r),
    "after is .a Rendered.; it has to be a Rendered": lambda m, p, r: lab.score(m, r, [r]),
    "settings is 'cat'; it has to be a Metrics": lambda m, p, r: lab.score(m, r, r, "cat"),
    "is no prompt before the encoders": lambda m, p, r: lab.encode(p, m.towers),
    "'a cat' is no prompt before the encoders: embed_all": lambda m, p, r: lab.encode(["a cat"], m.towers),
    "prompts is 'a cat'; it has to be a list": lambda m, p, r: lab.encode("a cat", m.towers),
    "towers is a Model; it has to be a list of Tower": lambda m, p, r: lab.encode([p], m),
    "towers is a Tower; it has to be a list of Tower": lambda m, p, r: lab.embed_all("a cat", m.towers[0]),
    "a prompt is a text; b'a cat' is none": lambda m, p, r: lab.embed_all(b"a cat", m.towers),
    "tower is a Model; it has to be a Tower": lambda m, p, r: lab.embed("a cat", m),
    "prompt is 'a cat'; it has to be what embed_all": lambda m, p, r: lab.edit("a cat", [HALF], m.towers),
    "prompt is a Embeddings; it has to be what": lambda m, p, r: lab.edit(p[0], [HALF], m.towers),
    "operators is a Scale; it has to be a list": lambda m, p, r: lab.edit(p, HALF, m.towers),
    "None is no operator": lambda m, p, r: lab.edit(p, [None], m.towers),
    "Scale is no operator": lambda m, p, r: lab.edit(p, [lab.Scale], m.towers),
    "towers is None; it has to be": lambda m, p, r: lab.edit(p, [HALF], None),
    "a Conditioning and Texts were expected": lambda m, p, r: lab.edit_encoded("a", [HALF], lab.texts_of(m.towers)),
    "'a' is no Cell; write Cell": lambda m, p, r: lab.prompt_embeds("a", m.towers),
    "None is no Cell": lambda m, p, r: lab.edited_rows(None, m.towers),
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


def test_scores_need_no_settings(sd1, rendered):
    assert lab.score(sd1, rendered, rendered)[1]["change/pixels"] == 0
