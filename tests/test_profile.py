"""`embedlab profile`: parts, operators and limits of a job, as tables and files; what fails is one line."""

import csv
import gzip
import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from embedlab import Cell, CUDAGraph, Guidance, Job, ONNXRuntime, Replace, Sampler, Source, anatomy, profile
from embedlab.errors import ConfigError, EngineError, PromptError, SamplerError
from embedlab.structure.rate import peak_bytes
from embedlab.tables import fragment
from embedlab.tracker import Disk

FAST = Sampler("ddim", 3)


@dataclass(frozen=True)
class Broken:
    """An operator that fails at its turn."""

    def __call__(self, prompt, lookup):
        raise RuntimeError("on purpose")


@pytest.fixture(scope="module")
def job(folders):
    source = Source(str(folders["sd1"]), device="cpu")
    return Job(source, Cell("a puppy", (Replace("puppy", "cat"),), sampler=FAST), (0, 1), folder=Path("nowhere"))


@pytest.fixture(scope="module")
def found(job, tmp_path_factory):
    """A profile, and its trace."""
    trace = tmp_path_factory.mktemp("trace") / "new" / "trace.json"
    return profile(job, trace), trace


def test_a_profile_adds_up_and_knows_rows_and_flops(found, job):
    one, _ = found
    times = one.times
    assert sum(times.share(name) for name in times.parts) == pytest.approx(1)
    assert times.spent("UNet").asked == 4 * 3 * 2, "two seeds, edited and not, three steps, guided"
    assert times.spent("UNet").rows == 22, "in the first step each seed has one unconditional row"
    assert (times.spent("encode").rows, times.spent("decode").rows) == (3, 4)
    inside = anatomy(job.source, guided=False)
    counted = {"encode": "text_encoder", "UNet": "unet", "decode": "vae.decoder"}
    assert one.flops == {name: inside.part(part).whole.flops for name, part in counted.items()}
    spent = times.spent("UNet")
    assert one.reached("UNet") == pytest.approx(22 * one.flops["UNet"] / spent.seconds / one.rate)
    assert one.limit == pytest.approx(one.rate / one.flops["UNet"])
    assert one.reached("files") is None
    assert (one.images, one.size, one.rows) == (4, job.source.size and (job.source.size,) * 2, 77)
    assert 0 < one.loading < 60


def test_the_dearest_operators_are_torchs_own_the_dearest_first(found):
    one, _ = found
    assert len(one.operations) == 10
    assert all(re.fullmatch(r"[a-z_]+::\w+", operation.name) for operation in one.operations)
    seconds = [operation.seconds for operation in one.operations]
    assert seconds == sorted(seconds, reverse=True)
    assert 0.3 < sum(operation.share for operation in one.operations) <= 1
    assert any("conv" in operation.name for operation in one.operations)


def test_a_trace_holds_operators_within_the_spans_of_their_parts(found):
    _, trace = found
    events = json.loads(trace.read_text())["traceEvents"]
    spans = [event for event in events if event.get("cat") == "user_annotation" and event["name"] == "UNet"]
    assert len(spans) == 3, "both cells share their calls, and the timed run is not watched"
    first = spans[0]
    inside = {
        event["name"]
        for event in events
        if event.get("cat") == "cpu_op" and first["ts"] <= event["ts"] <= first["ts"] + first["dur"]
    }
    assert "aten::conv2d" in inside


def test_nothing_is_left_behind(found):
    assert not Path("nowhere").exists()
    assert "KINETO_LOG_LEVEL" not in os.environ


def test_it_is_written_as_the_name_says(found, tmp_path):
    one, _ = found
    with one.save(tmp_path / "new" / "parts.csv").open() as file:
        rows = {(row["part"], row["thread"]): row for row in csv.DictReader(file)}
    assert float(rows["UNet", "sampling"]["rate_reached"]) == pytest.approx(one.reached("UNet"))
    assert rows["waiting", "sampling"]["flops"] == rows["files", "beside"]["flops"] == ""
    assert float(rows["scores", "beside"]["seconds"]) > 0
    value = json.loads(one.save(tmp_path / "profile.json").read_text())
    assert value["parts"][0].keys() == next(iter(rows.values())).keys()
    assert len(value["operations"]) == 10
    assert value["matrix_rate"] == one.rate
    page = one.save(tmp_path / "profile.html").read_text()
    assert fragment(one.tables()) in page
    assert fragment(one.tables()) in one._repr_html_()
    assert "puppy → cat" in page
    with pytest.raises(ConfigError, match=r"out is '.*x.txt'; it has to end in .csv, .json, .html"):
        one.save(tmp_path / "x.txt")


def test_what_it_prints_names_every_part_and_what_the_machine_can_do(found):
    text = str(found[0])
    for name in ("tokenise", "edit", "encode", "UNet", "scheduler", "decode", "files", "waiting", "scores", "in all"):
        assert re.search(rf"^{name} +(sampling|beside) ", text, re.M), name
    assert "the 10 dearest operators" in text
    assert re.search(r"^limit of the UNet +[\d.]+ rows/s", text, re.M)


def test_a_tracker_hears_of_it_once_and_its_time_is_beside(job, tmp_path):
    opened = []

    class Counting(Disk):
        def run(self, *given, **more):
            opened.append(given)
            return super().run(*given, **more)

    one = profile(replace(job, seeds=(0,), tracker=Counting()))
    assert len(opened) == 1
    assert one.times.beside["tracker"].calls == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"cell": Cell("a puppy", (Replace("kitten", "cat"),))}, PromptError, "'kitten' is not in the prompt"),
        ({"cell": Cell("a puppy", size=13)}, SamplerError, "a size of 13 "),
    ],
    ids=["operator", "size"],
)
def test_what_is_wrong_with_a_job_is_said_before_weights_are_read(job, unread, change, error, message):
    with pytest.raises(error, match=message):
        profile(replace(job, **change))


def test_other_bad_input_is_a_line_before_weights_are_read(job, unread, tmp_path):
    for trace in ("trace.txt", "trace"):
        with pytest.raises(ConfigError, match=r"trace is '.*'; it has to end in .json, .json.gz"):
            profile(job, trace)
    with pytest.raises(ConfigError, match="job is 'emoji'"):
        profile("emoji")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="it is a file"):
        profile(job, tmp_path / "file" / "trace.json")


def test_a_job_that_fails_is_not_profiled_and_its_reason_is_told(job):
    with pytest.raises(ConfigError, match="the job fails, so that there is nothing to profile: .*on purpose"):
        profile(replace(job, cell=Cell("a puppy", (Broken(),), sampler=FAST)))


def test_a_model_that_cannot_be_read_is_a_line(job, unreadable):
    with pytest.raises(ValueError, match="unet") as caught:
        profile(replace(job, source=Source(str(unreadable), device="cpu")))
    assert "\n" not in str(caught.value)


@pytest.mark.turns
def test_an_engine_runs_it_and_is_named(job, folders):
    tiny = Source(str(folders["sd1"]), device="cpu")
    one = profile(replace(job, source=tiny, engine=ONNXRuntime(), seeds=(0,)))
    assert one.engine == "onnxruntime"
    assert " by onnxruntime, float32 on cpu" in str(one)
    assert one.times.spent("UNet").rows == 2 * 2 * 3 - 1, "in the first step the unconditional row is one"
    assert not any("conv" in operation.name for operation in one.operations), "none of torch's is left in the UNet"


def test_an_engine_that_does_not_run_here_is_refused_before_weights_are_read(job, unread):
    with pytest.raises(EngineError):
        profile(replace(job, engine=CUDAGraph()))


def test_a_cell_that_changes_and_one_without_guidance_are_profiled(job):
    one = profile(replace(job, cell=Cell("a puppy", guidance=Guidance(1), sampler=Sampler("heun", 2)), seeds=(0,)))
    assert one.times.spent("UNet").rows == 3


def test_a_peak_is_the_most_that_was_held_since_it_was_asked_for():
    peak = peak_bytes(torch.device("cpu"))
    assert peak is not None, "Linux tells"
    before = peak()
    held = torch.ones(2 << 26)
    del held
    assert peak() - before > 400 * 2**20
    assert peak() - before < 200 * 2**20


# ── on the command line ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_prints_tables_or_writes_files_and_nothing_else(embedlab, tmp_path):
    code, out, err = embedlab("profile", "operators=[replace]", "seeds=[0]")
    assert (code, err) == (0, "")
    assert re.search(r"^UNet +sampling ", out, re.M)
    assert not list(tmp_path.iterdir())
    code, out, _ = embedlab("profile", "seeds=[0]", "out=to/parts.json", "trace=to/trace.json.gz")
    assert code == 0
    assert out.splitlines()[-2:] == ["to/parts.json", "to/trace.json.gz"]
    assert "dearest operators" not in out
    assert json.loads(Path("to/parts.json").read_text())["images"] == 1
    assert json.loads(gzip.decompress(Path("to/trace.json.gz").read_bytes()))["traceEvents"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["to"]


BAD = {
    "-m profile seeds=[0],[1]": "profile takes one job; leave out -m and the lists of values.",
    "profile operators=[scale] operators.scale.by=1,2": "for a sweep over its parts add -m",
    "profile out=x.txt": "it has to end in .csv, .json, .html",
    "profile out=x.csv out=y.csv": "out is given twice",
    "profile trace=": "trace is empty",
    "profile trace=here": "it has to end in .json, .json.gz",
    "profile resume=out": "profile runs a job from its beginning; leave out resume=out",
    "profile explain=true": "profile runs a job from its beginning; leave out explain=true",
    "profile stepz=3": "there is no setting 'stepz'",
    "profile operators=[replace] operators.replace.rows=kitten": "'kitten' is not in the prompt",
    "profile sampler.steps=0": "sampler.steps is 0",
    "profile profile": "a command comes first: embedlab profile",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_before_weights(embedlab, words, unread, tmp_path):
    code, out, err = embedlab(*words.split(), plain=True)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert BAD[words] in err
    assert not list(tmp_path.iterdir())


def test_a_job_that_fails_is_one_line(embedlab, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("on purpose")

    monkeypatch.setattr("embedlab.sweep.run.sample_batch", broken)
    code, _, err = embedlab("profile", "seeds=[0]")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "embedlab: the job fails, so that there is nothing to profile: RuntimeError: on purpose" in err
