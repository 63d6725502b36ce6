"""Engines: the same latents as eager's, compiled once, never other numbers in silence."""

import contextlib
import errno
import importlib.util
import json
import os
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from turns import one_of

from embedlab import (
    Auto,
    Cell,
    Compile,
    CUDAGraph,
    Eager,
    Guidance,
    Job,
    ONNXRuntime,
    OpenVINO,
    Sampler,
    Scale,
    Source,
    Store,
    TensorRT,
    clip,
    embed,
    lookup_of,
    models,
    render,
    run_jobs,
    with_engine,
)
from embedlab.engines import RECORDED, graphs
from embedlab.engines import cache as engine_cache
from embedlab.engines.auto import FILE, Work
from embedlab.engines.cache import Entry, folder
from embedlab.engines.compiled import label, ready
from embedlab.engines.graphs import ROWS, Graph, in_parts, noise_for, unet_inputs
from embedlab.errors import ConfigError, EngineError
from embedlab.models.parts import Predict

FAST = Sampler("ddim", 3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache that the tests of this file share, so that each graph is compiled once."""
    home = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("EMBEDLAB_CACHE", str(home))
        yield home


def far(ours, theirs):
    return max(float((a.latents - b.latents).abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture(scope="module")
def sdxl(folders):
    return models.load(str(folders["sdxl"]), device="cpu")


PAIRS = ["sd1-openvino", "sdxl-onnxruntime", "sdxl-openvino"]  # a graph takes half a minute to make: one a day


@pytest.fixture(scope="module", params=one_of(PAIRS))
def pair(request, cache):
    """A model, the same run by an engine, what it said."""
    name, engine = request.param.split("-")
    model, lines = request.getfixturevalue(name), []
    engine = OpenVINO(text_encoder=True) if engine == "openvino" else ONNXRuntime(text_encoder=True)
    return model, with_engine(model, engine, lines.append, decoder=False), lines


def cell_of(model, sampler, **more):
    """Short prompts for XL, which has no masks; elsewhere one that is longer than its negative prompt, with a mask."""
    if not model.size_conditioned:
        more = {"guidance": Guidance(3.0, negative="a dog"), **more}
        return Cell("a red cat, " * 40, sampler=sampler, **more)
    return Cell("a puppy", sampler=sampler, **more)


def test_final_latents_are_eagers_over_25_steps(pair):
    model, fast, _ = pair
    cells = [cell_of(model, Sampler("ddim", 25)), cell_of(model, Sampler("dpmpp_2m", 25))]
    ours, eager = render(fast, cells, [0]), render(model, cells, [0])
    spread = min(float(one.latents.std()) for one in eager)  # those of random weights are ten times as wide as others
    assert 0 < far(ours, eager) <= 1e-4 * spread
    assert {runtime["engine"] for one in ours for runtime in one.runtimes} == {fast.engine}
    assert fast.engine in ("openvino", "onnxruntime")
    assert eager[0].runtimes[0]["engine"] == "eager"


def test_one_graph_serves_other_batches_sizes_and_lengths(pair):
    model, fast, lines = pair
    cells = [cell_of(model, FAST), cell_of(model, FAST, size=(model.size, 2 * model.size))]
    if model.size_conditioned:
        cells += [
            Cell("a puppy", guidance=Guidance(1.0), sampler=FAST),  # one row a picture
            Cell("a red cat, " * 40, guidance=Guidance(3.0, negative="a big dog, " * 40), sampler=FAST),
        ]
    else:
        cells.append(cell_of(model, FAST, guidance=Guidance(3.0, negative="a dog, " * 80)))
    assert far(render(fast, cells, [0]), render(model, cells, [0])) <= 1e-4
    assert far(render(fast, cells[:1], range(5)), render(model, cells[:1], range(5))) <= 1e-4
    assert sum("compiling the unet" in line for line in lines) == 1
    texts = ["text_encoder", "text_encoder_2"][: len(model.towers)]
    assert [sum(f"compiling the {text} " in line for line in lines) for text in texts] == [1] * len(texts)
    assert sum("kept in" in line for line in lines) == 1 + len(texts)


@torch.inference_mode()
@pytest.mark.parametrize("stretch", [None, 4])
def test_a_text_encoder_gives_eagers_hidden_states_for_any_windows_of_any_length(pair, stretch):
    model, fast, _ = pair
    for ours, theirs in zip(fast.towers, model.towers, strict=True):
        prompt = embed("a red cat, " * 60, ours, stretch=stretch)
        prompt = Scale("cat", by=1.5)(prompt, lookup_of(ours))
        ids = prompt.tokens.ids
        assert ids.shape == ((4, 77) if stretch is None else (1, 248))
        for many in (1, len(ids)):
            states, eager = (clip.forward(tower, ids[:many], prompt.summed[:many]) for tower in (ours, theirs))
            assert len(states.hidden) == len(eager.hidden)
            for a, b in zip((*states.hidden, states.last), (*eager.hidden, eager.last), strict=True):
                assert float((a - b).norm() / b.norm()) <= 1e-5
            assert float((states.pooled - eager.pooled).norm() / eager.pooled.norm()) <= 1e-5
        assert not torch.equal(states.last, eager.last), "it is the engine that ran"


def test_hooks_and_gradients_run_eager_and_that_is_said_once(pair):
    model, fast, lines = pair
    seen = []
    with contextlib.ExitStack() as hooks:
        for part in (model.unet.mid_block, *(tower.core.final_layer_norm for tower in model.towers)):
            hooks.enter_context(part.register_forward_hook(lambda module, *_: seen.append(type(module).__name__)))
        (hooked,) = render(fast, [Cell("a puppy", sampler=FAST)], [0])
    (eager,) = render(model, [Cell("a puppy", sampler=FAST)], [0])
    assert seen.count("UNetMidBlock2DCrossAttn") == 3
    assert seen.count("LayerNorm") >= len(model.towers)
    assert torch.equal(hooked.latents, eager.latents)
    why = "the module has hooks, which a compiled graph does not call"
    for part in ("unet", "text_encoder"):
        assert lines.count(f"the {part} runs eager, not with {fast.engine}: {why}") == 1
    rows = embed("a puppy", model.towers[0]).summed
    assert fast.towers[0].states(rows) is None
    assert f"the text_encoder runs eager, not with {fast.engine}: gradients are on" in lines


def test_a_decoder_serves_other_batches_and_sizes(sd1, cache):
    lines = []
    fast = with_engine(sd1, OpenVINO(), lines.append)
    for shape in ((1, 4, 8, 8), (3, 4, 8, 12), (1, 4, 7, 8)):
        latents = torch.randn(shape)
        with torch.inference_mode():
            (ours,), (eager,) = (model.vae.decode(latents, return_dict=False) for model in (fast, sd1))
        torch.testing.assert_close(ours, eager, atol=1e-5, rtol=0)
    assert sum("compiling the vae.decoder" in line for line in lines) == 1


class Same:
    """An engine that runs the module itself, and writes down which graphs it was given."""

    name, exact = "same", True

    def __init__(self, wait=0.0):
        self.graphs, self.wait = [], wait

    def __repr__(self):
        return "Same()"

    def check(self, device, dtype):
        pass

    def depends_on(self, graph):
        return []

    def compile(self, graph, folder):
        (folder / "graph").write_text("here")

    def load(self, graph, folder):
        assert (folder / "graph").read_text() == "here"
        self.graphs.append(graph)

        def run(inputs):
            time.sleep(self.wait)
            return graph.module(*inputs.values())

        return run


def test_graphs_are_made_for_masks_and_sides_that_cannot_be_halved_and_for_no_more(sd1, cache):
    engine = Same()
    fast = with_engine(sd1, engine, [].append, decoder=False)
    odd = (sd1.size + sd1.factor, sd1.size)
    cells = [
        Cell("a cat", sampler=FAST),
        Cell("a dog", guidance=Guidance(1.0), sampler=FAST),
        Cell("a cat, " * 40, guidance=Guidance(3.0, negative="a dog"), sampler=FAST),
        *(Cell("a cat", sampler=FAST, size=size) for size in (odd, odd)),
    ]
    for cell in cells:
        assert far(render(fast, [cell], [0]), render(sd1, [cell], [0])) == 0
    assert [(graph.fixed, "encoder_attention_mask" in graph.inputs) for graph in engine.graphs] == [
        (False, False),
        (False, True),
        (True, False),
    ]


@pytest.fixture
def halves():
    """A small graph, and a cache of its own."""
    return Graph("halves", Halves().eval(), {"latents": torch.randn(2, 4, 8, 8)})


def test_a_damaged_cache_is_made_again_and_one_that_cannot_be_written_is_done_without(halves, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path))

    def run():
        lines = []
        return ready(Same(), halves, lines.append)(dict(halves.inputs)), lines

    first, lines = run()
    (blob,) = folder().glob("*/graph")
    assert len(lines) == 2
    assert f"kept in {blob.parent}" in lines[1]
    again, lines = run()
    assert torch.equal(first, again)
    assert not lines, "the second time it is read"
    blob.write_bytes(blob.read_bytes()[:-1])
    again, lines = run()
    assert torch.equal(first, again)
    assert any("is not whole; it is made again" in line for line in lines)
    monkeypatch.setattr(engine_cache, "versions", lambda: {"openvino": "another"})
    again, lines = run()
    assert torch.equal(first, again)
    assert len(list(folder().glob("*/graph"))) == 2, "of another version"
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("no folder")
    again, lines = run()
    assert torch.equal(first, again)
    assert any("cannot be kept in" in line and "it is made again next time" in line for line in lines)


@pytest.mark.parametrize("room", ["in the temporary folder", "nowhere"])
def test_a_full_disk_leaves_nothing_half_made(room, halves, tmp_path, monkeypatch):
    class Large(Same):
        def compile(self, graph, folder):
            (folder / "graph").write_text("he")
            if room == "nowhere" or tmp_path in folder.parents:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super().compile(graph, folder)

    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path))
    lines = []
    if room == "nowhere":
        with pytest.raises(EngineError, match=r"^a compiled graph has no place in [^\n]*No space left[^\n]*$"):
            ready(Large(), halves, lines.append)
    else:
        ready(Large(), halves, lines.append)
    assert any("cannot be kept in" in line and "No space left" in line for line in lines)
    assert not list(folder().glob("*/graph")) + list(folder().glob(".*/graph"))


def test_a_graph_is_kept_by_its_weights_inputs_and_engine(sd1, cache):
    unet = sd1.unet
    inputs = unet_inputs(torch.zeros(2, 4, 8, 8), torch.tensor(3), torch.zeros(2, 77, unet.config.cross_attention_dim))
    graph = Graph("unet", Predict(unet, tuple(inputs)), inputs)
    same = Graph("unet", Predict(unet, tuple(inputs)), {**inputs, "sample": torch.zeros(6, 4, 16, 16)})
    keys = [Entry(OpenVINO(), graph), Entry(ONNXRuntime(), graph), Entry(OpenVINO(), replace(graph, fixed=True))]
    for engine, other in ((OpenVINO(), same), (OpenVINO(text_encoder=True), graph)):
        assert Entry(OpenVINO(), graph).folder == Entry(engine, other).folder
    with torch.no_grad():
        weight = next(unet.parameters())
        kept = weight.clone()
        weight.add_(1)
        keys.append(Entry(OpenVINO(), replace(graph)))
        weight.copy_(kept)
    own = dict(unet.config)
    try:
        unet.register_to_config(_use_default_values=["b", "a"])  # a list made of a set: it differs by the process
        assert Entry(OpenVINO(), replace(graph)).folder == keys[0].folder
        unet.register_to_config(norm_eps=1e-3)
        keys.append(Entry(OpenVINO(), replace(graph)))
    finally:
        unet.register_to_config(**own)
    assert len({key.folder for key in keys}) == 5
    assert Entry(OpenVINO(), replace(graph)).folder == keys[0].folder


def test_weights_are_hashed_once_for_all_engines_and_not_where_nothing_is_kept(halves, monkeypatch):
    hashed = []
    monkeypatch.setattr(graphs, "content_of", lambda module: hashed.append(module) or "one")
    for engine in (Eager(), CUDAGraph()):
        ready(engine, halves, pytest.fail)
    assert not hashed
    assert len({Entry(engine, halves).folder for engine in (OpenVINO(), ONNXRuntime(), Compile())}) == 3
    assert len(hashed) == 1


@pytest.mark.parametrize("rows", [1, 2, ROWS, ROWS + 1, 3 * ROWS])
def test_any_number_of_rows_goes_through_a_graph_of_2_to_63(rows):
    calls = []

    def run(inputs):
        calls.append(len(inputs["sample"]))
        return inputs["sample"] * inputs["timestep"]

    x = torch.randn(rows, 4, 2, 2)
    out = in_parts(run)({"sample": x, "timestep": torch.tensor(2.0)})
    assert torch.equal(out, 2 * x)
    assert all(2 <= count <= ROWS for count in calls)


class Halves(nn.Module):
    """A small part."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, latents):
        return torch.tanh(self.conv(latents))


@pytest.mark.turns
def test_torchs_compiler_makes_a_library_of_a_unet_that_serves_any_batch_size_and_length(tmp_path):
    unet = UNet2DConditionModel(  # small enough for a C++ compiler to be done soon
        block_out_channels=(4,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        mid_block_type=None,
        up_block_types=("UpBlock2D",),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=2,
    )
    inputs = noise_for(unet, 2, (8, 8))
    graph = Graph("unet", Predict(unet, tuple(inputs)).eval(), inputs)
    Compile().check(CPU, torch.float32)
    Compile().compile(graph, tmp_path)
    run = Compile().load(graph, tmp_path)
    for rows, sides, tokens in ((1, (8, 8), 77), (3, (8, 12), 154), (70, (8, 8), 77)):
        given = noise_for(unet, rows, sides, tokens)
        with torch.no_grad():
            torch.testing.assert_close(run(given), graph.module(*given.values()), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("engine", "dtype", "line"),
    [
        (CUDAGraph(), torch.float32, "engine=cuda_graph needs a CUDA device, and the model is on cpu"),
        (TensorRT(), torch.float16, "engine=tensorrt needs a CUDA device, and the model is on cpu"),
        (OpenVINO(), torch.bfloat16, "engine=openvino takes a float32 model, and this one is bfloat16"),
        (ONNXRuntime(), torch.float16, "engine=onnxruntime runs float32 on cpu"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_before_weights_are_read(engine, dtype, line):
    with pytest.raises(EngineError, match=line):
        engine.check(CPU, dtype)


@pytest.mark.parametrize(
    ("engine", "package", "extra"),
    [(OpenVINO(), "openvino", "openvino"), *((ONNXRuntime(), name, "onnx") for name in ("onnx", "onnxscript"))],
)
def test_a_missing_package_is_named_with_its_extra(engine, package, extra, monkeypatch):
    def version(name):
        if name == package:
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(engine_cache, "version", version)
    line = rf"^engine={engine.name} needs the package {package}, .*: pip install 'embedlab\[{extra}\]'\.$"
    with pytest.raises(EngineError, match=line):
        engine.check(CPU, torch.float32)


def test_settings_that_are_none_are_refused():
    with pytest.raises(EngineError, match=r"engine\.precision"):
        OpenVINO("int3")
    with pytest.raises(EngineError, match=r"engine\.weights"):
        ONNXRuntime("int3")
    with pytest.raises(EngineError, match=r"^engine\.text_encoder is 'all'; it has to be true or false\.$"):
        CUDAGraph(text_encoder="all")
    for make in (partial(OpenVINO, "bf16"), partial(ONNXRuntime, "int8"), partial(TensorRT, fp16=True)):
        with pytest.raises(
            EngineError, match=r"^engine\.text_encoder=true goes with exact settings, and [^\n]+ is lossy\.$"
        ):
            make(text_encoder=True)


@pytest.mark.parametrize("engine", ["cuda_graph", "tensorrt", "openvino model.dtype=bfloat16", "fastest"])
def test_an_engine_that_cannot_be_is_one_line_before_weights_are_read(engine, embedlab, unread):
    code, _, errors = embedlab(*f"engine={engine}".split())
    assert code != 0
    assert f"engine={engine.split()[0]}" in errors or "'engine/fastest'" in errors
    assert len(errors.strip().splitlines()) <= 2


@pytest.mark.parametrize("engine", [OpenVINO(), ONNXRuntime()], ids=lambda engine: engine.name)
def test_an_operator_that_a_converter_lacks_is_named(engine, tmp_path):
    class Bessel(nn.Module):
        def forward(self, latents):
            return torch.special.bessel_j0(latents)

    graph = Graph("unet", Bessel(), {"latents": torch.randn(2, 4, 8, 8)})
    with pytest.raises(EngineError, match=r"^\w+ has no operator [\w.]+bessel_j0[^\n]*, which the unet needs"):
        engine.compile(graph, tmp_path)


@pytest.mark.turns
def test_8_bit_weights_are_smaller_lossy_and_say_so(tmp_path, monkeypatch):
    graph = Graph("halves", nn.Sequential(Halves(), nn.Conv2d(3, 64, 9)).eval(), {"latents": torch.randn(2, 4, 9, 9)})
    sizes, outs = [], []
    for engine in (ONNXRuntime(), ONNXRuntime("int8")):
        (place := tmp_path / engine.weights).mkdir()
        engine.compile(graph, place)
        sizes.append(sum(file.stat().st_size for file in place.iterdir()))
        outs.append(engine.load(graph, place)(dict(graph.inputs)))
    assert sizes[1] < 0.5 * sizes[0]
    assert 0 < (outs[1] - outs[0]).std() < 0.05 * outs[0].std()
    assert (label(ONNXRuntime()), label(engine)) == ("onnxruntime", "onnxruntime (ONNXRuntime(weights='int8'))")
    assert set(RECORDED) >= {label(engine), label(OpenVINO("bf16"))}
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(EngineError, match=r"engine\.weights=int8 runs on the CPU"):
        engine.check(torch.device("cuda"), torch.float32)


def test_what_cannot_be_exported_is_one_line():
    class Branches(nn.Module):
        def forward(self, latents):
            return latents if latents.sum() > 0 else -latents

    graph = Graph("vae.decoder", Branches(), {"latents": torch.randn(2, 4, 8, 8)})
    with pytest.raises(EngineError, match=r"^the vae\.decoder cannot be exported by torch\.export: [^\n]+$"):
        graph.export()


def test_a_sweep_runs_with_an_engine_and_its_pictures_name_it(folders, tmp_path, cache):
    source = Source(str(folders["sd1"]), device="cpu")
    engine = Same()
    job = Job(source, Cell("a puppy", sampler=FAST), (0, 1), tmp_path / "job", engine=engine)
    (result,) = run_jobs([job], Store(tmp_path / "store")).results.values()
    assert {picture.runtime["engine"] for picture in result.pictures} == {"same"}
    assert [graph.part for graph in engine.graphs] == ["unet", "vae.decoder"]
    with pytest.raises(ConfigError, match=r"engine is 'openvino'; it has to be an Engine, or an Auto"):
        replace(job, engine="openvino")


def test_exact_engines_share_pictures_and_lossy_ones_have_their_own(folders, tmp_path):
    job = Job(Source(str(folders["sd1"]), device="cpu"), Cell("a puppy"), (0,), tmp_path)
    exact = [replace(job, engine=engine) for engine in (OpenVINO(), ONNXRuntime(), Auto(), Same())]
    lossy = [replace(job, engine=engine) for engine in (OpenVINO("bf16"), ONNXRuntime("int8"))]
    assert {one.key for one in exact} == {job.key}
    assert len({one.pictures[0] for one in (job, *lossy)}) == 3


class Instant(Same):
    """An engine that is done at once."""

    name = "instant"

    def load(self, graph, folder):
        return lambda inputs: inputs["sample"]


class Unable(Same):
    """An engine whose converter takes nothing."""

    name = "unable"

    def compile(self, graph, folder):
        raise EngineError("it cannot.")


def test_auto_takes_the_fastest_where_it_pays_and_says_so(sd1, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path))
    lines, auto = [], Auto((Same(wait=0.2), Instant()))
    few = Work(1, 2, 1, (sd1.size, sd1.size))
    assert auto.choose(sd1, few, lines.append) == Eager()
    assert not lines
    assert not list(tmp_path.iterdir()), "nothing is measured for so little"
    many = replace(few, pictures=10_000, calls=50)
    assert auto.choose(sd1, many, lines.append).name == "instant"
    assert lines[-1].startswith("engine: instant, ")
    lines.clear()
    assert auto.choose(sd1, many, lines.append).name == "instant"
    assert not [line for line in lines if "compiling" in line], "what was measured is remembered"
    (seconds,) = (value for key, value in json.loads((tmp_path / FILE).read_text()).items() if " " in key)
    assert set(seconds) == {"eager", "same", "instant"}
    assert seconds["instant"] < seconds["eager"] < seconds["same"]
    assert auto.choose(sd1, replace(many, at_once=2), [].append).name == "instant"
    lines.clear()
    assert Auto((Unable(), Same(wait=0.2))).choose(sd1, replace(many, at_once=3), lines.append) == Eager()
    assert "engine=auto does without unable: it cannot." in lines
    lines.clear()
    assert Auto((Same(wait=0.2),)).choose(sd1, many, lines.append) == Eager()
    assert not lines


def file_of(folder, name):
    """A script of ours as a module."""
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", Path(__file__).parents[1] / folder / f"{name}.py")
    spec.loader.exec_module(found := importlib.util.module_from_spec(spec))
    return found


def test_the_study_of_lossy_engines_compares_pictures(cache, tmp_path, capsys):
    file_of("experiments", "lossy").main(tmp_path, {"same": Same(), "none": CUDAGraph()}, of=2, steps=2)
    head, eager, same = capsys.readouterr().out.splitlines()[-3:]
    assert eager.split()[1:] == same.split()[1:]
    assert same.split()[:4] == ["same", "0.00e+00", "0.000", "1.0000"]
    assert "to prompt" in head
    assert (tmp_path / "lossy.png").is_file()


@pytest.mark.turns
def test_the_benchmark_measures_engines_beside_each_other(folders, tmp_path, cache, capsys, monkeypatch):
    benchmark = file_of("benchmarks", "engines")
    monkeypatch.setattr(benchmark, "KNOWN", {"eager": Eager(), "same": Same(wait=0.3), "cuda_graph": CUDAGraph()})
    monkeypatch.setattr(benchmark, "STEPS", 2)
    words = (
        f"--engines same,cuda_graph --pictures 1,2 --rounds 5 --model {folders['sd1']} --out {tmp_path / 'out.json'}"
    )
    figures = benchmark.main(words.split())
    assert json.loads((tmp_path / "out.json").read_text()) == figures
    of = {(row["what"], row["engine"]): row for row in figures}
    assert {what for what, _ in of} >= {"1 guided a call", "a picture, 2 steps", "final latents"}
    assert of["1 guided a call", "eager"]["interval"] == [1, 1]
    low, high = of["1 guided a call", "same"]["interval"]
    assert low <= of["1 guided a call", "same"]["ratio"] <= high < 1, "it waits"
    assert of["final latents", "same"]["far"] == 0
    out = capsys.readouterr().out
    assert out.count("load average") == 2
    assert "without cuda_graph: engine=cuda_graph needs a CUDA device" in out
    with pytest.raises(SystemExit):
        benchmark.main(["--engines", "fastest"])
