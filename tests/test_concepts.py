"""Textual inversion: every layout is read, means what diffusers makes of it, and leaves as others read it."""

import hashlib
import json
import pickle

import pytest
import torch
from diffusers import StableDiffusionPipeline
from parity import close
from safetensors.torch import load_file, save_file
from test_replay import draw

import embedlab as lab
from embedlab import images
from embedlab.clip import forward
from embedlab.encoder import embed_all, encode
from embedlab.errors import ConfigError, EmbedlabError, ModelError, OperatorError, PictureError, PromptError
from embedlab.explanation import explain
from embedlab.models.concept_files import LAYOUTS
from embedlab.prompt import tokenize
from embedlab.sweep.explained import explained
from embedlab.sweep.identity import files_of, key_of
from embedlab.token_ids import concepts_of
from embedlab.validate import validate
from embedlab.view.replay import replay

WIDTHS = {"sd1": (16,), "sd2": (24,), "sdxl": (16, 24)}
PARTS = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))
PROMPTS = [
    *("<my-cat> on a bench", "a photo of <my-cat>", "a <my-cat>, a dog and <my-cat>!", "!!<my-cat>!!!", "<my-cat>"),
    *("a photo of<my-cat>s", "(<my-cat>:1.2) <my-cat><my-cat>", "a star, " * 22 + "<my-cat> far out", ""),
]


def rows(count, width, seed=0):
    return 0.3 * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def concept_file(path, kind, count=2, name="<my-cat>"):
    """A file for one of the small models, as its users have them, and what is in it."""
    vectors = [rows(count, width, n) for n, width in enumerate(WIDTHS[kind])]
    state = {name: vectors[0]} if len(vectors) == 1 else dict(zip(("clip_l", "clip_g"), vectors, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return f"{name}={path}", vectors


def into_pipeline(pipeline, vectors, token="<my-cat>"):
    """diffusers' own loading, as its documentation does it for SDXL: an encoder at a time."""
    for (words, encoder), mine in zip(PARTS, vectors, strict=False):
        own = {"tokenizer": getattr(pipeline, words), "text_encoder": getattr(pipeline, encoder)}
        pipeline.load_textual_inversion({token: mine}, token=token, **own)


def theirs(pipeline, prompt):
    """Hidden states, and of SDXL the pooled output, as diffusers encodes a prompt of at most 77 tokens."""
    return pipeline.encode_prompt(prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)


# ── what a prompt becomes ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.turns
@pytest.mark.parity(
    "diffusers", "textual inversion, one and three vectors, anywhere in a prompt", "model.concepts=", "live"
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_prompt_encodes_to_what_diffusers_makes_of_it(folders, kind, pipeline, count, tmp_path):
    entry, vectors = concept_file(tmp_path / "my-cat.safetensors", kind, count)
    towers = lab.Source(str(folders[kind]), device="cpu", concepts=[entry]).towers()
    same = lab.text_encoders_of(pipeline, concepts=[entry])
    before = {prompt: theirs(pipeline, prompt) for prompt in ("a photo of <my-cat>", "a cat")}
    sizes = [(len(t.tokenizer), t.encoder.get_input_embeddings().weight.shape) for t in lab.text_encoders_of(pipeline)]
    assert [(len(w), len(e.get_input_embeddings().weight)) for w, e in parts_of(pipeline)] == [(49408, 49408)] * len(
        vectors
    )
    for prompt, known in before.items():
        assert torch.equal(theirs(pipeline, prompt)[0], known[0]), "the pipeline is as it was"
    assert sizes == [(49408, (49408, width)) for width in WIDTHS[kind]]
    into_pipeline(pipeline, vectors)
    loaded = lab.text_encoders_of(pipeline)  # found there
    for prompt in PROMPTS:
        hidden, *_, pooled, _ = theirs(pipeline, prompt) if kind == "sdxl" else (*theirs(pipeline, prompt), None, None)
        for ours in (towers, same, loaded):
            (one,) = encode([embed_all(prompt, ours)], ours)
            close(one.hidden[: hidden.shape[1]], hidden[0], atol=1e-6)
            if kind == "sdxl" and len(one.hidden) == 77:
                close(one.pooled, pooled[0], atol=1e-6)


def test_a_name_in_capitals_is_the_same_word(folders, tmp_path):
    """diffusers takes the first vector alone there: it writes names out in the text, where it tells letters apart."""
    entry, _ = concept_file(tmp_path / "x.safetensors", "sd1", 3)
    towers = lab.Source(str(folders["sd1"]), concepts=[entry]).towers()
    small, large = (embed_all(f"a {name} here", towers)[0] for name in ("<my-cat>", "<MY-Cat>"))
    assert torch.equal(small.token, large.token)
    assert large.tokens.rows("<my-CAT>") == [(2, 3, 4)]


def parts_of(pipeline):
    return [(getattr(pipeline, t), getattr(pipeline, e)) for t, e in PARTS if getattr(pipeline, t, None) is not None]


def test_pooled_is_read_at_the_true_end_and_knows_the_concept(folders, kind, tmp_path):
    entry, _ = concept_file(tmp_path / "my-cat.pt.safetensors", kind, 2)
    towers = lab.Source(str(folders[kind]), device="cpu", concepts=[entry]).towers()
    (one,) = encode([embed_all("a <my-cat> on a bench", towers)], towers)
    (plain,) = encode([embed_all("a cat on a bench", towers)], towers)
    assert not torch.allclose(one.pooled, plain.pooled, atol=1e-3)
    last = embed_all("a <my-cat> on a bench", towers)[-1]
    end = (last.tokens.ids[0] == 49407).int().argmax()
    assert end == 7
    tower = towers[-1]
    with torch.no_grad():
        states = forward(tower, last.tokens.ids, last.summed)
        wanted = states.last[0, end]
        wanted = tower.encoder.text_projection(wanted) if kind == "sdxl" else wanted
    torch.testing.assert_close(one.pooled, wanted, atol=1e-6, rtol=0)


def test_it_is_a_word_in_every_selector_and_operator(folders, kind, tmp_path):
    entry, vectors = concept_file(tmp_path / "x.safetensors", kind, 2)
    source = lab.Source(str(folders[kind]), device="cpu", concepts=[entry])
    towers = source.towers()
    prompt = "a !<my-cat>! and a puppy"
    made = embed_all(prompt, towers)
    assert [[w.text for w in part.tokens.words] for part in made] == [
        ["a", "!", "<my-cat>", "!", "and", "a", "puppy"]
    ] * len(towers)
    for part, mine in zip(made, vectors, strict=True):
        spans = part.tokens.rows("<my-cat>")
        assert torch.equal(part.take("token", spans)[0], mine)
    for operator in (
        lab.Swap("<my-cat>", "puppy", lengths="repeat"),
        lab.Interpolate("puppy", "<my-cat>", 0.5, lengths="repeat"),
        lab.Scale({"word": "<my-cat>"}, 2.0, "hidden"),
        lab.Replace("<my-cat>", "skunk"),
        lab.Noise({"role": "words", "but": "<my-cat>"}, 0.1),
        lab.Shift("<my-cat>", 2.0),
    ):
        cell = lab.Cell(prompt, [operator])
        validate(cell, source)
        assert lab.prompt_embeds(cell, towers)["prompt_embeds"].isfinite().all()
    half = lab.edit(embed_all("a puppy", towers), [lab.Interpolate("puppy", "<my-cat>_1", 0.5)], towers)
    for part, tower, mine in zip(half, towers, vectors, strict=True):
        torch.testing.assert_close(part.token[0, 2], (tower.token_table[6829] + mine[1]) / 2)


def test_names_of_letters_are_whole_words_and_names_over_names_are_told_apart(tmp_path, folders):
    entries = [concept_file(tmp_path / f"{n}.safetensors", "sd1", n + 1, name)[0] for n, name in enumerate(NAMED)]
    (tower,) = lab.Source(str(folders["sd1"]), concepts=entries).towers()
    text = "a Xqart, xqarts and XQART-22; xqart2 myxqart xqart_x"
    tokens = tokenize(text, tower.tokenizer)
    assert len(tokens.rows("xqart")) == 1
    assert len(tokens.rows("xqart-22")) == 1
    assert [len(tokens.rows(name)[0]) for name in NAMED] == [1, 2]
    assert tokens.length == len(tower.tokenizer(text, add_special_tokens=False).input_ids) + 1


NAMED = ("xqart", "xqart-22")


def test_an_empty_list_changes_nothing_and_a_model_is_read_once(folders):
    one, other = lab.Source(str(folders["sd1"])), lab.Source(str(folders["sd1"]), concepts=())
    assert one == other
    assert one.identity == other.identity
    assert one.tokenizers is not None
    assert one.tokenizers[0] is one.own_tokenizers[0]
    assert one.load() is other.load()


def test_concepts_share_the_weights_of_a_model_and_a_file_that_changed_is_read_anew(folders, tmp_path):
    name, file = str(folders["sd1"]), tmp_path / "x.safetensors"
    plain = lab.load(name, device="cpu")
    lab.save_concept(file, rows(1, 16, 0), name="<c>")
    first = lab.load(name, device="cpu", concepts=[str(file)])
    assert lab.load(name, device="cpu", concepts=[str(file)]) is first
    lab.save_concept(file, rows(1, 16, 1), name="<c>")
    second = lab.load(name, device="cpu", concepts=[str(file)])
    assert first.unet is second.unet is plain.unet
    assert [torch.equal(lab.lookup_of(m.towers[0])("<c>"), rows(1, 16, n)) for n, m in enumerate((first, second))] == [
        True,
        True,
    ]
    assert len(plain.towers[0].tokenizer) == len(plain.towers[0].token_table) == 49408
    assert first.towers[0].token_table.data_ptr() == first.towers[0].token_table.data_ptr(), "made once"


def test_a_concept_of_a_negative_prompt_is_read_there(folders, tmp_path):
    file = tmp_path / "EasyNegative.safetensors"
    save_file({"emb_params": rows(2, 16)}, file)
    source = lab.Source(str(folders["sd1"]), device="cpu", concepts=[str(file)])
    cell = lab.Cell("a cat", guidance=lab.Guidance(3, "easynegative, blurry"))
    assert [tokens.text for tokens in validate(cell, source)] == ["a cat", "easynegative, blurry"]
    towers = source.towers()
    embeds = lab.prompt_embeds(cell, towers)["negative_prompt_embeds"][0]
    (wanted,) = encode([embed_all("EasyNegative, blurry", towers)], towers)
    assert torch.equal(embeds, wanted.hidden)
    assert not torch.allclose(embeds[2], encode([embed_all("blurry", towers)], towers)[0].hidden[2], atol=1e-3)


# ── layouts ───────────────────────────────────────────────────────────────────────────────────────────────────────

CAT = rows(2, 16)
A1111 = {"string_to_token": {"*": torch.tensor(265)}, "name": "inner", "step": 500, "sd_checkpoint": "abc"}
LAYOUT_FILES = {
    "diffusers .safetensors, two vectors": ("cat.safetensors", {"<cat-toy>": CAT}, "<cat-toy>", CAT),
    "diffusers .safetensors, one vector": ("cat.safetensors", {"<cat-toy>": CAT[0]}, "<cat-toy>", CAT[:1]),
    "diffusers .bin": ("learned.bin", {"<cat-toy>": CAT}, "<cat-toy>", CAT),
    "a parameter in half precision": ("x.bin", {"<h>": torch.nn.Parameter(CAT.half())}, "<h>", CAT.half().float()),
    "EasyNegative": ("EasyNegative.safetensors", {"emb_params": CAT}, "EasyNegative", CAT),
    "a name that begins like a LoRA's": ("f.safetensors", {"flora_te-style": CAT}, "flora_te-style", CAT),
    "A1111": ("outer.pt", A1111 | {"string_to_param": {"*": torch.nn.Parameter(CAT)}}, "inner", CAT),
    "A1111, without a name": ("outer.pt", {"string_to_param": {"*": CAT}, "name": None}, "outer", CAT),
    "A1111 of old torch": (
        "outer.pt",
        {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(CAT)}), "name": "*"},
        "outer",
        CAT,
    ),
    "ComfyUI, SD 1": ("comfy.safetensors", {"clip_l": CAT}, "comfy", CAT),
    "ComfyUI, a list": ("listed.pt", [{"a": CAT[0], "b": CAT[1:]}], "listed", CAT),
    "a tensor alone": ("bare.bin", CAT, "bare", CAT),
    "beside a LoRA": (
        "lora.safetensors",
        {"lora_unet.up": torch.ones(3, 3), "bundle_emb.mine.string_to_param.*": CAT},
        "mine",
        CAT,
    ),
}


@pytest.mark.parametrize("layout", LAYOUT_FILES)
def test_every_layout_is_read(layout, tmp_path, folders):
    file, state, name, wanted = LAYOUT_FILES[layout]
    path = tmp_path / file
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    (concept,) = lab.load_concepts(path)
    assert concept.name == name
    assert torch.equal(concept.vectors[0], wanted)
    assert lab.load_concepts(path, "mine")[0].name == "mine"
    (tower,) = lab.Source(str(folders["sd1"]), concepts={"<mine>": str(path)}).towers()
    assert torch.equal(lab.lookup_of(tower)("<mine>"), wanted)


def test_both_encoders_several_names_and_folders_of_training(tmp_path, folders):
    one, other = rows(2, 16), rows(2, 24)
    save_file({"clip_g": other, "clip_l": one}, tmp_path / "toy-xl.safetensors")
    towers = lab.Source(str(folders["sdxl"]), concepts=str(tmp_path / "toy-xl.safetensors")).towers()
    assert torch.equal(lab.lookup_of(towers[0])("toy-xl"), one)
    assert torch.equal(lab.lookup_of(towers[1])("toy-xl"), other)
    torch.save([{"a": other[:1], "b": one[0]}, {"a": one[1], "b": other[1]}], tmp_path / "listed.pt")
    (listed,) = lab.load_concepts(tmp_path / "listed.pt")
    assert listed.keys == ("clip_l", "clip_g")
    assert all(torch.equal(mine, wanted) for mine, wanted in zip(listed.vectors, (one, other), strict=True))
    pair = {"clip_l": one, "clip_g": other}
    bundle = {f"bundle_emb.{n}.{key}": value.clone() for n in "ab" for key, value in pair.items()}
    save_file(bundle | {"lora_te.down": one.clone()}, tmp_path / "bundle.safetensors")
    assert [(c.name, c.keys) for c in lab.load_concepts(tmp_path / "bundle.safetensors")] == [
        ("a", ("clip_l", "clip_g")),
        ("b", ("clip_l", "clip_g")),
    ]
    (tmp_path / "trained").mkdir()
    save_file({"<s0>": one[0], "<s1>": one[1]}, tmp_path / "trained" / "learned_embeds.safetensors")
    assert [c.name for c in lab.load_concepts(tmp_path / "trained")] == ["<s0>", "<s1>"]


# ── written ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.turns
@pytest.mark.parity("diffusers", "files of concepts that we write", "save_concept", "live")
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("layout", "ending"), [(a, e) for a in LAYOUTS for e in (".safetensors", ".pt")])
def test_what_is_written_is_read_by_us_and_by_diffusers(pipeline_sd1, tmp_path, layout, ending, count):
    wanted = rows(count, 16)
    path = lab.save_concept(tmp_path / f"my-toy{ending}", wanted, layout, name="<toy>")
    (again,) = lab.load_concepts(path)
    assert torch.equal(again.vectors[0], wanted)
    own = again.name
    pipeline_sd1.load_textual_inversion(str(path), token="<toy>")
    table = pipeline_sd1.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[49408:], wanted)
    assert own == ("<toy>" if layout == "diffusers" or (layout, ending) == ("a1111", ".pt") else "my-toy")
    state = load_file(path) if ending == ".safetensors" else torch.load(path, weights_only=True)
    assert torch.equal(a1111_reads(state), wanted)
    assert torch.equal(comfyui_reads(state, "clip_l"), wanted)


def a1111_reads(data):
    """How A1111 finds the vectors of one encoder, by its description: string_to_param, else the only tensor."""
    if "string_to_param" in data:
        assert len(data["string_to_param"]) == 1
        return data["string_to_param"]["*"]
    (tensor,) = data.values()
    return tensor[None] if tensor.ndim == 1 else tensor


def comfyui_reads(data, key):
    """How ComfyUI does: string_to_param, else the key of the encoder, else the first tensor."""
    if "string_to_param" in data:
        return next(iter(data["string_to_param"].values()))
    return data[key] if key in data else next(iter(data.values()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_encoders_are_written_in_one_file(folders, tmp_path, layout):
    one, other = rows(2, 16), rows(2, 24)
    path = lab.save_concept(tmp_path / "toy-xl.safetensors", [one, other], layout)
    state = load_file(path)
    assert set(state) == {"clip_l", "clip_g"}
    assert torch.equal(comfyui_reads(state, "clip_g"), other)
    towers = lab.Source(str(folders["sdxl"]), concepts=[str(path)]).towers()
    assert torch.equal(lab.lookup_of(towers[1])("toy-xl"), other)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"layout": "invoke"}, "layout is 'invoke'"),
        ({"rows": "cat"}, "'cat', where a concept has vectors"),
        ({"rows": torch.full((2, 16), torch.nan)}, "NaN or infinite"),
        ({"rows": [CAT] * 3}, "rows for 3 encoders came"),
        ({"rows": [CAT, CAT[:1]]}, "2, 1 vectors for two encoders; they have to agree"),
        ({"name": "  "}, "which is no name"),
        ({"path": "x.png"}, r"'x.png' ends in '.png'"),
        ({"path": ""}, "is no path of a file"),
    ],
)
def test_what_cannot_be_written_is_one_line(tmp_path, monkeypatch, given, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said) as error:
        lab.save_concept(**({"path": "x.pt", "rows": CAT} | given))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_job_leaves_its_edited_word_as_a_concept(folders, kind, tmp_path, request):
    cell = lab.Cell("a puppy and a cat", [lab.Interpolate("puppy", "skunk", 0.5)], sampler=lab.Sampler("ddim", steps=1))
    job = lab.Job(lab.Source(str(folders[kind]), device="cpu"), cell, (0,), tmp_path / "job", export=True)
    assert not lab.run_jobs([job], lab.Store(tmp_path / ".cells")).failures
    file = tmp_path / "job" / "concept.safetensors"
    towers = lab.Source(str(folders[kind]), device="cpu", concepts={"<half>": str(file)}).towers()
    (mixed,) = encode([embed_all("a <half> and a cat", towers)], towers)
    (edited,) = encode([lab.edit(embed_all(cell.prompt, towers), cell.operators, towers)], towers)
    assert torch.equal(mixed.hidden, edited.hidden)
    assert torch.equal(mixed.pooled, edited.pooled)
    assert lab.load_embeds(file)[1]["cell"]["operators"][0]["toward"] == "skunk"
    if kind != "sdxl":
        pipe = request.getfixturevalue("pipeline")
        pipe.load_textual_inversion(str(file))
        into = theirs(pipe, "a <puppy> and a cat")[0][0]
        torch.testing.assert_close(into, edited.hidden, atol=1e-6, rtol=0)


def test_words_side_by_side_are_one_concept_and_others_have_files_of_their_own(folders, tmp_path):
    cell = lab.Cell(
        "a red fox and a cat",
        [lab.Scale("red fox", 2.0), lab.Scale("cat", 0.5)],
        sampler=lab.Sampler("ddim", steps=1),
    )
    job = lab.Job(lab.Source(str(folders["sd1"]), device="cpu"), cell, (0,), tmp_path / "job", export=True)
    assert not lab.run_jobs([job], lab.Store(tmp_path / ".cells")).failures
    found = [lab.load_concepts(tmp_path / "job" / f"concept{n}.safetensors")[0] for n in ("", "-2")]
    assert [(c.name, len(c.vectors[0])) for c in found] == [("<red-fox>", 2), ("<cat>", 1)]


# ── identity, replay ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_depends_on_what_is_in_the_file_and_not_on_its_layout(tmp_path, folders):
    name = str(folders["sd1"])
    files = [lab.save_concept(tmp_path / f"a{n}.safetensors", rows(1, 16, n), name="<c>") for n in (0, 1)]
    same = lab.save_concept(tmp_path / "same.pt", rows(1, 16, 0), "a1111", name="<c>")
    sources = [lab.Source(name, concepts=[str(file)]) for file in (*files, same)]
    cell = lab.Cell("a <c>")
    keys = [key_of(source, cell)(0) for source in (*sources, lab.Source(name))]
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3
    assert len({files_of(source) for source in sources}) == 2
    again = pickle.loads(pickle.dumps(sources[0]))
    assert again == sources[0]
    assert key_of(again, cell)(0) == keys[0], "a worker finds the same"


def test_replay_finds_the_file_or_says_that_it_is_missing_or_another(tmp_path, monkeypatch):
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    file = lab.save_concept("toy.safetensors", rows(2, 96), name="<toy>")
    made = draw(
        tmp_path / "out",
        "seeds=[1]",
        "prompt='a <mine>'",
        "model.concepts=['<mine>=toy.safetensors']",
    )
    settings = images.settings_of(made / "seed-1.png")
    assert settings["concepts"][0]["path"] == "../there/toy.safetensors"
    assert "concept <mine>" in settings["concluded"]
    assert replay(made / "seed-1.png").identical
    monkeypatch.chdir(tmp_path)
    assert replay(made / "seed-1.png").identical, "found beside the picture's own folder"
    lab.save_concept(there / file, rows(2, 96, 9), name="<toy>")
    with pytest.raises(PictureError, match=r"the concept of '.*' is another one: '.*toy.safetensors' is not what"):
        replay(made / "seed-1.png")
    (there / file).write_text("no more")
    with pytest.raises(PictureError, match="is another one"):
        replay(made / "seed-1.png")
    (there / file).unlink()
    with pytest.raises(PictureError, match=r"is not there any more: 'toy.safetensors' and '.*there/toy.safetensors'"):
        replay(made / "seed-1.png")


# ── what cannot be used ───────────────────────────────────────────────────────────────────────────────────────────


class Evil:
    def __reduce__(self):
        return (open, ("ran", "w"))


BAD = {
    "another width": ({"<c>": rows(1, 768)}, "holds vectors 768 wide, and the one of '.*' is 16 wide"),
    "SDXL's": ({"clip_l": rows(1, 16), "clip_g": rows(1, 24)}, "clip_l 16 and clip_g 24 wide, and the one of"),
    "a word already": ({"cat": CAT}, "'cat', the name of the concept '.*', is a word of the vocabulary already; give"),
    "a piece already": ({"ing": CAT}, "'ing', the name of the concept"),
    "a LoRA": ({"lora_unet_down.lora_down.weight": CAT}, "is no file of textual inversion but a LoRA: its keys are"),
    "large": ({"<c>": torch.ones(2048, 1024, dtype=torch.float16)}, r"a tensor of shape \(2048, 1024\), which is no"),
    "a UNet": ({"model.diffusion_model.x.weight": CAT}, "is no file of textual inversion but a unet"),
    "many": ({f"k{n}": CAT.clone() for n in range(65)}, "but something else: its keys are"),
    "whole numbers": ({"<c>": torch.ones(1, 16, dtype=torch.int64)}, r"where a concept has vectors"),
    "a picture": ({"<c>": torch.ones(3, 8, 16)}, r"a tensor of shape \(3, 8, 16\), where"),
    "too many vectors": ({"<c>": rows(76, 16)}, "has 76 vectors for a concept; a window holds 75"),
    "not a number": ({"<c>": torch.full((16,), torch.inf)}, "holds NaN or infinite numbers"),
    "unequal": ({"clip_l": rows(1, 16), "clip_g": rows(2, 24)}, "has other numbers of vectors for its encoders"),
    "a bad name": ({"\n": CAT}, "which is no name; give one: NAME="),
    "an end inside": ({"a<|endoftext|>": CAT}, "which is no name"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_cannot_be_used_is_one_line_before_weights_are_read(case, tmp_path, folders, unread):
    state, said = BAD[case]
    save_file(state, tmp_path / "bad.safetensors")
    source = lab.Source(str(folders["sd1"]), concepts=[str(tmp_path / "bad.safetensors")])
    with pytest.raises(ModelError, match=said) as error:
        validate(lab.Cell("a cat"), source)
    assert "\n" not in str(error.value)


PICKLES = {
    "code": (lambda path: torch.save({"<c>": Evil()}, path), "is not plain tensors and is not opened: it asks to run"),
    "text": (lambda path: path.write_text("no"), "it holds something else, or was cut short"),
    "a layout unknown": (lambda path: torch.save({"<c>": CAT, "mean": 3}, path), "in no known layout: .* 'mean'"),
    "a list": (lambda path: torch.save([CAT], path), "holds .*, where a concept has vectors by name"),
    "a list of three widths": (
        lambda path: torch.save([{"a": CAT}, {"b": CAT[:, :8]}, {"c": CAT[:, :4]}], path),
        r"a list of vectors of 3 widths \(4, 8, 16\)",
    ),
    "a list of numbers": (
        lambda path: torch.save([{"a": CAT, "step": 3}], path),
        "holds 3, where a concept has vectors",
    ),
    "A1111 of nothing": (lambda path: torch.save({"string_to_param": {}}, path), "string_to_param holds no vectors"),
    "empty": (lambda path: torch.save({}, path), "something else: it is empty"),
}


@pytest.mark.parametrize("case", PICKLES)
def test_pickles_are_read_without_running_them(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, said = PICKLES[case]
    write(tmp_path / "x.pt")
    with pytest.raises(ModelError, match=said) as error:
        lab.load_concepts(tmp_path / "x.pt")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_damaged_and_missing_files(tmp_path, folders):
    path = lab.save_concept(tmp_path / "x.safetensors", CAT)
    path.write_bytes(path.read_bytes()[:-3])
    for given, said in {
        str(path): "cannot be read as safetensors",
        "/no/where.pt": "there is no concept '/no/where.pt'",
        str(tmp_path): "holds no concept: it has neither learned_embeds.safetensors nor",
        "/dev/null": "is no regular file",
        "a\0b": "there is no concept",
    }.items():
        with pytest.raises(ModelError, match=said):
            lab.Source(str(folders["sd1"]), concepts=[given]).checked  # noqa: B018


def test_two_of_one_name_and_names_over_vectors(tmp_path, folders):
    one, other = (lab.save_concept(tmp_path / f"{n}.pt", CAT, name="<c>") for n in "ab")
    third = lab.save_concept(tmp_path / "c.pt", CAT, name="<c>_1")
    for second, name in ((other, "<c>"), (third, "<c>_1")):
        with pytest.raises(
            ModelError, match=rf"two concepts are called '{name}', of '.*a.pt' and '.*'; give one anothe"
        ):
            lab.Source(str(folders["sd1"]), concepts=[str(one), str(second)]).checked  # noqa: B018
    named = lab.Source(str(folders["sd1"]), concepts=[str(one), f"<d>={other}"])
    assert [concept.name for concept in named.loaded_concepts] == ["<c>", "<d>"]


@pytest.mark.parametrize("given", [3, [3], [None], [""], {"a": 3}, [["a"]]])
def test_what_is_no_list_of_files_is_refused_at_once(given):
    with pytest.raises(ModelError, match=r"model.concepts is .*; it has to be a list of files of textual inversion"):
        lab.Source("emoji", concepts=given)


def test_a_pipeline_refuses_what_it_has(pipeline_sd1, tmp_path):
    entry, vectors = concept_file(tmp_path / "x.safetensors", "sd1")
    into_pipeline(pipeline_sd1, vectors)
    with pytest.raises(ModelError, match="'<my-cat>', the name of the concept .*, is a word of the vocabulary already"):
        lab.text_encoders_of(pipeline_sd1, concepts=entry)
    assert isinstance(pipeline_sd1, StableDiffusionPipeline)
    with pytest.raises(EmbedlabError, match="model.concepts is 3"):
        lab.text_encoders_of(pipeline_sd1, concepts=3)


# ── what is said ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_concept_that_is_not_loaded_is_refused(tmp_path, folders):
    source, pndm = lab.Source(str(folders["sd1"])), lab.Sampler("pndm")
    line = r"^the prompt names <my-cat>, embedding:toy, and no concept of that name is loaded \(there is none\): model"
    with pytest.raises(PromptError, match=line):
        validate(lab.Cell("a <my-cat>, embedding:toy and 3 < 4 > 2"), source)
    text = "a < my-cat>, embedding : toy, 3 <4> 2"
    assert lab.Job(source, lab.Cell(text, sampler=pndm), (0,), tmp_path).notes == []
    entry, _ = concept_file(tmp_path / "x.safetensors", "sd1")
    known = lab.Source(str(folders["sd1"]), concepts=[entry])
    assert lab.Job(known, lab.Cell("a <My-Cat>", sampler=pndm), (0,), tmp_path).notes == []


def test_explain_names_concepts_as_words_with_their_vectors(tmp_path, folders):
    entry, _ = concept_file(tmp_path / "x.safetensors", "sd1", 3)
    source = lab.Source(str(folders["sd1"]), concepts=[entry])
    text = explained(lab.Job(source, lab.Cell("a <my-cat>"), (0,), tmp_path))
    for n in (1, 2, 3):
        assert f"<my-cat> ({n} of 3)" in text
    assert f"concept <my-cat> 3 vectors (by {tmp_path / 'x.safetensors'})" in text
    told = explain(lab.Cell("a <my-cat>"), source.towers(), known=("a",))
    assert not [note for note in told.notes if "never saw" in note]
    assert concepts_of(source.tokenizers) == ("<my-cat>", "<my-cat>_1", "<my-cat>_2")


def test_lengths_that_differ_are_the_operators_to_refuse(tmp_path, folders):
    entry, _ = concept_file(tmp_path / "x.safetensors", "sd1", 3)
    source = lab.Source(str(folders["sd1"]), concepts=[entry])
    with pytest.raises(OperatorError, match="'<my-cat>' has 3 tokens and 'cat' has 1|'<my-cat>' has 3"):
        validate(lab.Cell("a <my-cat>", [lab.Replace("<my-cat>", "a cat")]), source)


def test_the_command_line_takes_them(embedlab, tmp_path):
    file = lab.save_concept(tmp_path / "toy.pt", rows(2, 16), "a1111", name="sks-toy")
    code, out, err = embedlab("explain", f"model.concepts=[{file}]", "prompt=a sks-toy on a bench")
    assert code == 0, err
    assert "sks-toy (2 of 2)" in out
    code, out, err = embedlab("explain", f"model.concepts=[{tmp_path}/gone.pt]", "prompt=a cat")
    assert code == 2
    assert err.strip().count("\n") == 0
    assert "there is no concept" in err
    code, _, err = embedlab("explain", "model.concepts=3")
    assert (code, "model.concepts is 3" in err) == (2, True)


def test_content_is_a_hash_of_vectors():
    assert lab.Concept("a", (CAT,)).content == lab.Concept("b", (CAT.clone(),), ("clip_l",)).content
    assert lab.Concept("a", (CAT,)).content != lab.Concept("a", (CAT.reshape(1, -1),)).content
    assert len(bytes.fromhex(lab.Concept("a", (CAT,)).content)) == hashlib.sha256().digest_size
    assert json.dumps(lab.Concept("a", (CAT,)).content)
