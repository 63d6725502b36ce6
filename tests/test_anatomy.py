"""What `anatomy` says of a model: laws of its sums, figures from the literature, torch and torchinfo as judges."""

import contextlib
import copy
import csv
import io
import json
import re
import shlex
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
import yaml
from diffusers.models.attention_processor import AttnProcessor
from rich.console import Console
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from turns import one_of

import embedlab as lab
from embedlab import models
from embedlab.clean import clean_streams
from embedlab.cli.commands import anatomy as command
from embedlab.engines import onnx_file
from embedlab.errors import ConfigError, ModelError, SamplerError
from embedlab.structure import counting, onnx_export, pages
from embedlab.structure.anatomy import HUB, described, odd_sides
from embedlab.structure.drawing import outline_of
from embedlab.structure.onnx_export import export
from embedlab.structure.tables import SPARE, Comparison, tables_of
from embedlab.sweep.config import conf_dir
from embedlab.tables import show

MANUAL = (Path(__file__).parent.parent / "docs" / "inside.md").read_text()
COMMANDS = re.findall(r"^embedlab anatomy(.*?)(?:  +#.*)?$", MANUAL, re.MULTILINE)
KNOWN = {  # from the papers' repositories and model cards
    "sd1": {"text_encoder": 123_060_480, "unet": 859_520_964},
    "sd2": {"text_encoder": 340_387_840, "unet": 865_910_724},
    "sdxl": {"text_encoder": 123_060_480, "text_encoder_2": 694_659_840, "unet": 2_567_463_684},
}


class Inside(dict):
    """The anatomy of each model at its own size, made when it is first asked for."""

    def __missing__(self, name):
        self[name] = lab.anatomy(name)
        return self[name]


@pytest.fixture(scope="module")
def inside():
    return Inside()


@pytest.mark.parametrize("name", one_of([*KNOWN]))
def test_parameters_are_those_of_the_literature(inside, name):
    assert {part.name: part.whole.parameters for part in inside[name].parts if part.name in KNOWN[name]} == KNOWN[name]
    halves = [inside[name].part(f"vae.{half}").whole.parameters for half in ("encoder", "decoder")]
    assert halves == [34_163_664, 49_490_199]


@pytest.mark.parametrize("name", ["emoji", *one_of([*KNOWN])])
def test_totals_are_the_sums_of_what_each_layer_has_of_its_own(inside, name):
    for part in inside[name].parts:
        assert part.whole.parameters == sum(layer.own_parameters for layer in part.layers)
        assert part.whole.flops == sum(layer.own_flops for layer in part.layers)
        assert part.whole.activations == sum(
            layer.activations
            for layer in part.layers
            if not any(other.name.startswith(f"{layer.name}.") for other in part.layers)
        )
        assert all(layer.own_flops >= 0 and layer.own_parameters >= 0 for layer in part.layers)
        assert 0 < part.peak <= part.whole.activations
    whole = inside[name]
    assert whole.parameters == sum(part.whole.parameters for part in whole.parts)
    assert whole.flops == sum(part.called * part.whole.flops for part in whole.parts)


def test_the_shipped_model_is_as_it_is_when_it_is_loaded(inside, emoji):
    """Parameters, shapes and FLOPs of real modules on real numbers, with attention spelled out as matrix products."""
    (tower,) = emoji.towers
    parts = {part.name: part for part in inside["emoji"].parts}
    assert parts["text_encoder"].whole.parameters == sum(p.numel() for p in tower.encoder.parameters())
    assert parts["unet"].whole.parameters == sum(p.numel() for p in emoji.unet.parameters())
    halves = parts["vae.encoder"].whole.parameters + parts["vae.decoder"].whole.parameters
    assert halves == sum(p.numel() for p in emoji.vae.parameters())
    shapes = {}
    own = emoji.unet.attn_processors
    hooks = [
        module.register_forward_hook(lambda m, args, out, name=name: shapes.update({name: tuple(out.shape)}))
        for name, module in emoji.unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    try:
        emoji.unet.set_attn_processor(AttnProcessor())
        with torch.no_grad(), FlopCounterMode(display=False) as counted:
            emoji.unet(torch.zeros(2, 8, 16, 16), 5, torch.zeros(2, 77, tower.width))
    finally:
        emoji.unet.set_attn_processor(own)
        for hook in hooks:
            hook.remove()
    assert parts["unet"].whole.flops == counted.get_total_flops()
    plain = copy.deepcopy(emoji.unet).to(memory_format=torch.contiguous_format)
    given = torch.zeros(2, 8, 16, 16), torch.tensor(5.0), torch.zeros(2, 77, tower.width)
    with torch.no_grad(), counting.LiveBytes([*plain.parameters(), *given]) as memory:
        plain(*given)
    assert memory.peak == parts["unet"].peak, "real tensors live and die as fake ones do"
    seen = {layer.name: layer.output for layer in parts["unet"].layers}
    assert {name: seen[f"unet.{name}"] for name in shapes} == shapes


def test_a_matrix_product_a_convolution_and_attention_cost_what_formulas_say():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.conv = nn.Linear(6, 8, bias=False), nn.Conv2d(3, 5, 3, stride=2, padding=1)

        def forward(self, rows, picture):
            mixed = nn.functional.scaled_dot_product_attention(rows[:, None], rows[:, None], rows[:, None])
            return self.linear(mixed[:, 0]), self.conv(picture)

    layers, _ = counting.layers_of(
        "small", lambda: (Small(), {"rows": torch.empty(2, 7, 6), "picture": torch.empty(2, 3, 8, 8)})
    )
    found = {layer.name: layer for layer in layers}
    assert found["small.linear"].flops == 2 * (2 * 7) * 6 * 8
    assert found["small.linear"].multiply_adds == 2 * 7 * 6 * 8
    assert found["small.conv"].flops == 2 * 2 * (4 * 4) * 5 * 3 * 9
    assert (found["small.conv"].kernel, found["small.conv"].stride) == ((3, 3), (2, 2))
    assert found["small"].own_flops == 2 * 2 * 7 * 7 * 6 * 2, "attention: rows with rows, and once more with the values"


@pytest.mark.turns
def test_flops_follow_pictures_guidance_and_windows():
    one, four = (lab.anatomy("emoji", pictures=n) for n in (1, 4))
    for name in ("unet", "vae.encoder", "vae.decoder"):
        assert four.part(name).whole.flops == pytest.approx(4 * one.part(name).whole.flops, rel=0.02 * (name == "unet"))
    assert four.part("unet").rows == 8
    assert four.part("text_encoder").whole == one.part("text_encoder").whole, "all pictures are of one prompt"
    alone = lab.anatomy("emoji", guided=False)
    assert alone.part("unet").rows == 1
    assert 2 * alone.part("text_encoder").whole.flops == one.part("text_encoder").whole.flops
    long = lab.anatomy("emoji", tokens=227)
    assert long.part("text_encoder").whole.flops == 3 * one.part("text_encoder").whole.flops
    assert long.layer("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k").input == (2, 227, 96)
    assert long.part("unet").whole.flops > one.part("unet").whole.flops
    assert lab.anatomy("emoji", steps=50).part("unet").called == 50


@pytest.mark.turns
def test_half_precision_halves_the_bytes_of_all_but_the_vae(inside):
    half = lab.anatomy("sd1", dtype="float16")
    for name in ("text_encoder", "unet"):
        assert 2 * half.part(name).whole.weights == inside["sd1"].part(name).whole.weights
        assert half.part(name).peak < inside["sd1"].part(name).peak
    assert half.part("vae.decoder") == inside["sd1"].part("vae.decoder")
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.turns
def test_inputs_by_name_and_hidden_states_are_seen(inside):
    """Where torchinfo alone is wrong."""
    text = inside["sdxl"].part("text_encoder_2")
    assert text.whole.output == (2, 77, 1280)
    assert inside["sd1"].layer("text_encoder.encoder").input == (2, 77, 768)
    assert inside["sd1"].part("text_encoder").whole.output == (2, 77, 768)
    assert inside["sdxl"].part("unet").whole.input == (2, 4, 128, 128)


@pytest.mark.turns
def test_every_kind_of_folder_and_components_with_files_and_hashes(folders, kind):
    seen = lab.anatomy(lab.Source(str(folders[kind])))
    assert seen.size == (16, 16)
    by = {one.name: one for one in seen.components}
    weights = next(file for file in by["unet"].files if file.path.suffix == ".safetensors")
    assert (weights.dtype, weights.bytes) == ("F32", weights.path.stat().st_size)
    assert re.fullmatch("[0-9a-f]{64}", weights.sha256)
    assert weights.bytes > seen.part("unet").whole.weights, "a header stands before them"
    assert by["text_encoder"].kind == "CLIPTextModel"
    predicts = "v_prediction" if kind == "sd2" else "epsilon"
    assert predicts in seen.scheduler["predicts"]
    assert "scaled_linear" in seen.scheduler["noise"]
    assert [words.special["pad"][1] for words in seen.tokenizers] == {"sd1": [49407], "sd2": [0], "sdxl": [49407, 0]}[
        kind
    ]


def test_the_models_of_the_hub_are_looked_at_by_the_shipped_configs(inside):
    for layout, names in HUB.items():
        option = yaml.safe_load(Path(conf_dir(), "model", f"{layout}.yaml").read_text())
        assert option["name"] in names
        source, name, said = described(lab.Source(option["name"]))
        assert (source.location, name) == (models.LAYOUTS / layout, layout)
        assert f"'{option['name']}' is not on this machine" in said[0]
    assert lab.anatomy(lab.Source(HUB["sd1"][0])).parts == inside["sd1"].parts


@pytest.mark.turns
@pytest.mark.parametrize(("predicts", "size"), [("epsilon", 512), ("v_prediction", 768)])
def test_a_single_file_1024_wide_says_what_it_was_taken_for_and_why(tmp_path, predicts, size, inside):
    block = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    held = {block: torch.zeros(320, 1024, dtype=torch.float16), "first_stage_model.a": torch.zeros(1)}
    held["cond_stage_model.a"] = torch.zeros(1)
    save_file(held, tmp_path / "some.safetensors", {"modelspec.prediction_type": predicts})
    seen = lab.anatomy(str(tmp_path / "some.safetensors"))
    assert seen.size == (size, size)
    assert {part.name: part.whole.parameters for part in seen.parts} == {
        part.name: part.whole.parameters for part in inside["sd2"].parts
    }
    assert "layout: Stable Diffusion 2 (by the names and shapes of its weights)" in seen.notices
    assert any(line.startswith(f"prediction_type: {predicts} (by its metadata") for line in seen.notices)
    (file,) = seen.components[-1].files
    assert (file.path.name, file.dtype) == ("some.safetensors", "F32, F16")
    assert predicts in seen.scheduler["predicts"]


# ── sizes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("size", "layer", "side", "near"),
    [
        (100, "vae.encoder.down_blocks.2.downsamplers.0", 25, "96 and 104"),
        (101, "vae.encoder.down_blocks.0.downsamplers.0", 101, "96 and 104"),
        ([512, 60], "vae.encoder.down_blocks.2.downsamplers.0", 15, "64"),
        (8, "unet.down_blocks.0.downsamplers.0", 1, "64"),
    ],
)
def test_a_size_that_does_not_fit_names_the_layer_and_what_would(size, layer, side, near):
    with pytest.raises(SamplerError) as error:
        lab.anatomy("sd1", size=size)
    text = str(error.value)
    assert f"{layer} gets a side of {side}, which cannot be halved" in text
    assert f"the nearest to fit: {near};" in text
    assert "\n" not in text


def test_a_size_with_a_remainder_is_said(inside):
    seen = lab.anatomy("emoji", size=104)
    assert seen.part("unet").whole.output == (2, 8, 13, 13)
    assert any("unet.down_blocks.0.downsamplers.0 halves a side of 13" in line for line in seen.notices)
    assert not odd_sides(inside["emoji"].part("unet").layers)


@pytest.mark.parametrize(
    ("asked", "error", "line"),
    [
        ({"size": "big"}, SamplerError, "size is 'big'; it has to be one side"),
        ({"size": 10_000}, SamplerError, "not between 1 and 8192"),
        ({"pictures": 0}, SamplerError, "pictures is 0"),
        ({"guided": 1}, SamplerError, "guided is 1; it has to be true or false"),
        ({"tokens": 100}, SamplerError, "tokens is 100; .* nearest are 77 and 152"),
        ({"tokens": True}, SamplerError, "tokens is True"),
        ({"steps": 0.5}, SamplerError, "steps is 0.5"),
        ({"dtype": "int8"}, ModelError, "dtype 'int8' is unknown"),
        ({"source": 3}, ConfigError, "source is 3"),
        ({"source": "nothing"}, ModelError, "there is no model 'nothing'"),
    ],
)
def test_what_cannot_be_is_one_line(asked, error, line):
    with pytest.raises(error, match=line) as found:
        lab.anatomy(**asked)
    assert "\n" not in str(found.value)


def test_what_is_no_diffusion_model_is_refused(folders, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline", "transformer": ["diffusers", "Flux"]}')
    with pytest.raises(ModelError, match="is a FluxPipeline: it has no UNet"):
        lab.anatomy(str(folder))
    with pytest.raises(ConfigError, match=r"there is no layer 'unet.nothing'"):
        lab.anatomy("emoji").layer("unet.nothing")
    with pytest.raises(ConfigError, match=r"there is no part 'head'; there are text_encoder, unet"):
        lab.anatomy("emoji").part("head")


# ── files, tables, the drawing ────────────────────────────────────────────────────────────────────────────────────


def test_files_hold_what_the_values_hold(inside, tmp_path):
    seen = inside["emoji"]
    rows = list(csv.DictReader(seen.save(tmp_path / "a.csv").open()))
    layers = [layer for part in seen.parts for layer in part.layers]
    assert [row["name"] for row in rows] == [layer.name for layer in layers]
    assert sum(int(row["own_flops"]) for row in rows) == sum(part.whole.flops for part in seen.parts)
    assert next(row["output"] for row in rows if row["name"] == "unet.conv_in") == "2x64x16x16"
    told = json.loads(seen.save(tmp_path / "a.json").read_text())
    assert told["total"]["flops"] == seen.flops
    assert told["layers"][0]["output"] == list(layers[0].output)
    assert {one["name"] for one in told["components"]} >= {"unet", "vae", "scheduler"}
    page = seen.save(tmp_path / "a.html").read_text()
    assert "<svg" in page
    assert "unet.conv_in" not in page
    assert "<td>conv_in</td>" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page), "it asks for nothing outside"
    assert (tmp_path / "a.csv").read_text() != seen.save(tmp_path / "b.csv", depth=1).read_text()
    with pytest.raises(ConfigError, match="has to end in"):
        seen.save(tmp_path / "a.pdf")
    with pytest.raises(ConfigError, match=r"the folder '.*a.csv' cannot be written: it is a file"):
        seen.save(tmp_path / "a.csv" / "b.csv")


def test_names_are_escaped_on_the_page(inside, tmp_path):
    hostile = replace(inside["emoji"], name="<script>alert(1)</script>", notices=("<img src=x onerror=1>",))
    page = hostile.save(tmp_path / "a.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "<script" not in hostile._repr_html_()


def test_the_text_has_no_line_cut(inside):
    text = str(inside["sd1"])
    assert "123,060,480" in text
    assert "…" not in text
    assert "in all" in text


@pytest.mark.parametrize("wide", [80, 100, 160])
def test_a_narrow_terminal_goes_without_columns_and_cuts_no_figure(inside, wide):
    out = io.StringIO()
    show(
        tables_of(inside["emoji"], 1)[:5], Console(file=out, width=wide, force_terminal=True, color_system=None), SPARE
    )
    lines = out.getvalue().splitlines()
    assert "6,415,336" in out.getvalue()
    assert not [line for line in lines if "…" in line]
    assert max(len(line.rstrip()) for line in lines if "FLOPs" in line or "UNet2D" in line) <= max(wide, 80)
    assert ("activations" in out.getvalue()) == (wide == 160)


def test_a_terminal_gets_its_own_signs_and_a_file_none(monkeypatch, capsys):
    for terminal in (True, False):
        with clean_streams():
            monkeypatch.setattr(sys.stdout.stream, "isatty", lambda terminal=terminal: terminal, raising=False)
            monkeypatch.setenv("TERM", "xterm")
            command.main(["depth=0"])
        out = capsys.readouterr().out
        assert ("\x1b[1m" in out) == terminal
        assert "\\x1b" not in out


@pytest.mark.turns
def test_the_drawing_has_the_boxes_and_skip_connections_of_the_model(inside, tmp_path):
    for name, readers in (("emoji", 5), ("sd1", 16), ("sd2", 16), ("sdxl", 70)):
        unet = inside[name].part("unet")
        outline = outline_of(unet)
        assert outline.readers == readers
        assert (outline.rows, outline.width) == (77, {"emoji": 96, "sd1": 768, "sd2": 1024, "sdxl": 2048}[name])
        layers = {layer.name: layer for layer in unet.layers}
        before = outline.middle[-1]
        for block in (block for level in outline.up for block in level):
            assert layers[block.name].input[1] == before.channels + block.skip, "joined to what comes from below"
            before = block
        assert len([b for level in outline.up for b in level]) == len([b for level in outline.down for b in level])
        assert [level[0].height for level in outline.down] == [level[0].height for level in outline.up][::-1]
    svg = inside["emoji"].save(tmp_path / "unet.svg").read_text()
    assert svg == inside["emoji"].save(tmp_path / "again.svg").read_text(), "the same file for the same model"
    assert inside["emoji"].save(tmp_path / "unet.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.turns
@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_the_drawings_of_the_manual_are_what_the_command_draws(inside, name, tmp_path):
    drawn = inside[name].save(tmp_path / "unet.svg").read_text()
    kept = Path(__file__).parent.parent / "docs" / f"unet-{name}.svg"
    assert drawn == kept.read_text(), f"embedlab anatomy model={name} out=docs/unet-{name}.svg"


@pytest.mark.turns
def test_the_tables_of_the_manual_are_what_the_command_says(inside):
    written = re.findall(r"^\| (?:\S.*) \|$", MANUAL.partition("## SD 1 beside")[2], re.MULTILINE)
    studies = [
        Comparison(("sd1", "sd2", "sdxl"), tuple(inside[name] for name in ("sd1", "sd2", "sdxl"))),
        Comparison(("", "", ""), (inside["sdxl"], *(lab.anatomy("sdxl", tokens=n) for n in (154, 227)))),
        Comparison(("", "", ""), (inside["sd1"], *(lab.anatomy("sd1", size=n) for n in (1024, 2048)))),
    ]
    said = {f"| {' | '.join(row)} |" for study in studies for row in study.table.rows}
    assert len(written) > 30
    assert not [line for line in written if line not in said and not line.startswith("| |")]


@pytest.mark.turns
def test_beside_each_other(inside, tmp_path):
    both = Comparison(("sd1", "sdxl"), (inside["sd1"], inside["sdxl"]))
    rows = {row[0]: row[1:] for row in both.table.rows}
    assert rows["unet parameters"] == ("859,520,964", "2,567,463,684 (×2.987)")
    assert rows["text_encoder_2 parameters"] == ("–", "694,659,840")
    assert rows["pixels"] == ("512 × 512", "1024 × 1024")
    told = json.loads(pages.save(both, tmp_path / "a.json").read_text())
    assert told["labels"] == ["sd1", "sdxl"]
    assert "859520964" in pages.save(both, tmp_path / "a.csv").read_text()
    assert "2,567,463,684" in both._repr_html_()
    assert "2,567,463,684" in pages.save(both, tmp_path / "a.html").read_text()


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_prints_and_writes(embedlab, tmp_path, unread):
    code, out, _ = embedlab("anatomy", plain=True)
    assert code == 0
    assert "unet: UNet2DConditionModel, float32, 2 in a call" in out
    assert "bos <|startoftext|> 49406" in out
    code, out, errors = embedlab("anatomy", "model=sd1", "steps=50", "out=sub/sd1.csv", plain=True)
    assert (code, out.splitlines()[-1]) == (0, "sub/sd1.csv")
    assert "82.87 T" in out
    assert "not on this machine" in errors
    code, out, _ = embedlab("anatomy", "tokens=77,227", "guided=true,false", "out=both.html", plain=True)
    assert code == 0
    assert "tokens 227, guided False" in out


@pytest.mark.turns
@pytest.mark.parametrize("words", [words for words in COMMANDS if "onnx=" not in words])
def test_a_command_of_the_manual_runs(words, inside, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with clean_streams():
        command.main(shlex.split(words))
    said = capsys.readouterr().out
    assert "unet" in said
    assert [path.name for path in tmp_path.iterdir()] == re.findall(r"out=(\S+)", words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["depth"], "it takes depth=VALUE"),
        (["sizes=3"], "try: embedlab anatomy size=3"),
        (["at_once=3"], "try: embedlab anatomy pictures=3"),
        (["nothing=3"], "it has model, size"),
        (["size=abc"], "size is 'abc'"),
        (["size=[1,2,3]"], r"size is \[1, 2, 3\]"),
        (["model=sd3"], "there is no model=sd3; try: embedlab anatomy model=sd1"),
        (["model=custom"], "model.name has to be given"),
        (["model.vae=x"], "model=emoji has no setting 'vae'"),
        (["out=x.pdf"], "it has to end in .csv"),
        (["out=a.svg", "tokens=77,227"], "several values are written as .csv, .json, .html"),
        (["onnx=a", "tokens=77,227"], "exports one model at one size"),
        (["depth=1,2"], "depth is one number"),
        (["steps=0"], "steps is 0"),
        (["tokens=12.5"], "tokens is 12.5"),
        (["pictures=true"], "pictures is True"),
        (["guided=2"], "guided is 2"),
        (["dtype=int8"], "dtype 'int8' is unknown"),
        (["steps="], "steps is empty"),
        (["size=interval(1,2)"], "is no list of values"),
        (["size=[1"], "opens a bracket"),
        (["size=range(8,4096,8)"], "size has more than 24 values"),
        (["tokens=77,154,231", "steps=1,2,3,4,5,6,7,8,9"], "tokens, steps make 27 columns; 24 are the most"),
    ],
)
def test_wrong_words_are_one_line_without_a_model(embedlab, words, line, monkeypatch):
    monkeypatch.setattr(command, "aside", lambda text: pytest.fail("it went on"))
    code, out, errors = embedlab("anatomy", *words, plain=True)
    assert (code, out) == (2, "")
    assert re.search(line, errors)
    assert len(errors.splitlines()) == 1


# ── ONNX ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def exported_emoji(tmp_path_factory):
    """The files of all parts of the shipped model, and how far each is from torch, as the manual's command says."""
    (words,) = (words for words in COMMANDS if "onnx=" in words)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.chdir(tmp_path_factory.mktemp("onnx"))
        with clean_streams():
            command.main(shlex.split(words))
        said = re.findall(r"^(\S+)  \(ONNX Runtime and torch differ by (\S+) of", out.getvalue(), re.MULTILINE)
        return {Path(path).absolute(): float(difference) for path, difference in said}


def check_files(files, width):
    first = next(iter(files))
    assert set(first.parent.iterdir()) == set(files)
    for path, difference in files.items():
        onnx.checker.check_model(onnx.load(path), full_check=True)
        assert difference < 1e-4
    text = onnx.load(first).graph.input
    assert [dim.dim_value for dim in text[0].type.tensor_type.shape.dim] == [2, 77, width], "summed rows"


@pytest.mark.turns("the files of the shipped model")
def test_parts_as_onnx_do_what_they_do_in_torch(exported_emoji, inside):
    assert [path.stem.replace("vae_", "vae.") for path in exported_emoji] == [
        part.name for part in inside["emoji"].parts
    ]
    check_files(exported_emoji, 96)


@pytest.mark.turns
def test_two_text_encoders_and_their_unet_as_onnx_do_what_they_do_in_torch(folders, tmp_path):
    source = lab.Source(str(folders["sdxl"]))
    files = list(islice(export(source, lab.anatomy(source), tmp_path), 3))  # its VAE is as any other
    assert [file.name for file in files] == ["text_encoder", "text_encoder_2", "unet"]
    check_files({file.path: file.difference for file in files}, source.widths[0])


@pytest.mark.turns("the files of the shipped model")
def test_edited_rows_go_into_the_exported_text_encoder(exported_emoji, emoji):
    edited = lab.Replace("puppy", "cat")
    (tower,) = emoji.towers
    prompt = edited(lab.embed("a picture of a puppy", tower), lab.lookup_of(tower))
    (ours,) = lab.encode([(prompt,)], [tower])
    rows = prompt.summed.detach().expand(2, -1, -1).numpy()
    hidden, _ = onnxruntime.InferenceSession(next(iter(exported_emoji))).run(None, {"rows": rows})
    assert torch.allclose(ours.hidden, torch.from_numpy(hidden[0]), atol=1e-4)


def test_weights_too_large_for_one_file_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST", 0)
    for _ in range(2):  # the second time over the first
        path, far = onnx_export.exported("a.part", nn.Linear(64, 64), (torch.ones(1, 64),), tmp_path)
        assert far < 1e-5
        assert {file.name for file in tmp_path.iterdir()} == {"a_part.onnx", "a_part.onnx.data"}
        assert onnx_export.distance(path, Zero(), (torch.ones(1, 64),)) == float("inf"), "it is read where it lies"


class Zero(nn.Module):
    """Another answer."""

    def forward(self, x):
        return 0 * x


def test_exports_that_cannot_be_are_one_line(tmp_path, monkeypatch, embedlab, folders):
    code, _, errors = embedlab("anatomy", "model=sd1", f"onnx={tmp_path / 'a'}", plain=True)
    assert code == 2
    assert "of 'sd1' there are none on this machine; name a folder or a file" in errors.splitlines()[-1]
    with monkeypatch.context() as patch:
        patch.setattr(onnx_export, "find_spec", lambda name: None)
        code, _, errors = embedlab("anatomy", f"onnx={tmp_path / 'a'}", plain=True)
        assert (code, errors.splitlines()[-1]) == (
            2,
            "embedlab: an export as ONNX needs the package onnx: pip install 'embedlab[onnx]'.",
        )
    wrong = nn.Linear(2, 2)
    monkeypatch.setattr(onnx_export, "distance", lambda *_: float("nan"))
    with pytest.raises(ConfigError, match="gives something else in ONNX Runtime than in torch"):
        onnx_export.exported("part", wrong, (torch.zeros(1, 2),), tmp_path)
    with pytest.raises(ConfigError, match="the part 'part' cannot be exported as ONNX: "):
        onnx_export.exported("part", Unable(), (torch.zeros(1, 2),), tmp_path)
    assert not list(tmp_path.iterdir()), "nothing half made is left"


class Unable(nn.Module):
    """Goes where the numbers lead it, which no graph does."""

    def forward(self, x):
        return x if x.sum() > 0 else x[:, :1]
