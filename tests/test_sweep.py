"""Sweeps as a user meets them: the command in this process, its folder, its lines, its exit code."""

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import pandas
import pytest
from diffusers import UNet2DConditionModel
from diffusers.models.autoencoders.vae import Decoder
from torch.nn.modules.module import register_module_forward_pre_hook

from embedlab import images
from embedlab.cli import objective, resume
from embedlab.samples import Sample
from embedlab.sweep import tables
from embedlab.sweep.result import PictureResult, Result
from embedlab.sweep.results import collect
from embedlab.sweep.score_table import table
from embedlab.sweep.store import Store

MIX = ["operators=[interpolate]", "operators.interpolate.toward=skunk"]


@pytest.fixture
def drawn():
    """How many pictures were decoded since the last look."""
    counts = [0]

    def decoded(module, given):
        if isinstance(module, Decoder):
            counts[0] += len(given[0])

    def look():
        counts[0], seen = 0, counts[0]
        return seen

    hook = register_module_forward_pre_hook(decoded)
    yield look
    hook.remove()


@contextmanager
def at_each_call_of_a_unet(call):
    """Do this before every UNet evaluation, until the block ends."""

    def evaluated(module, given):
        if isinstance(module, UNet2DConditionModel):
            call()

    hook = register_module_forward_pre_hook(evaluated)
    try:
        yield
    finally:
        hook.remove()


def results(folder):
    return {int(p.parent.name): json.loads(p.read_text()) for p in Path(folder).glob("*/result.json")}


def test_a_sweep_is_one_plan_with_a_table(embedlab, drawn, tmp_path):
    code, out, _ = embedlab("-m", *MIX, "operators.interpolate.weight=0,0.5,1", "hydra.sweep.dir=out")
    assert code == 0
    assert out.startswith("checking the settings …\nloading "), "what is refused is refused before weights are read"
    assert drawn() == 2 * 3, "weight 0 is what is written"
    assert out.count("notice: ") == len(set(re.findall("notice: .*", out))), "said once, not once a job"
    idle = re.findall(r"notice: job (\d) \((.*)\): the edit changes nothing that reaches the UNet", out)
    assert [number for number, name in idle] == ["0"]
    assert "→ 0 skunk" in idle[0][1]
    found = results("out")
    assert [found[n]["overrides"]["operators.interpolate.weight"] for n in range(3)] == [0, 0.5, 1]
    assert found[1]["command"].startswith("embedlab ")
    assert "operators.interpolate.weight=0.5" in found[1]["command"]
    plan = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [job["key"] for job in plan["jobs"]] == [found[n]["key"] for n in range(3)]
    table = pandas.read_parquet("out/results.parquet")
    assert list(table["operators.interpolate.weight"]) == [0, 0, 0.5, 0.5, 1, 1]
    assert list(table.seed) == [0, 1] * 3
    pandas.testing.assert_frame_equal(table, pandas.read_csv("out/results.csv"), check_dtype=False)
    assert all((tmp_path / "out" / file).is_file() for file in [*table.file, *table.baseline])
    assert not list(Path("out").rglob(".*.[0-9]*")), "no temporary file is left"


def test_the_command_of_a_job_makes_its_picture_again(embedlab):
    embedlab("-m", *MIX, "operators.interpolate.weight=0.5,1", "hydra.sweep.dir=out")
    words = shlex.split(results("out")[1]["command"])[1:]
    code, *_ = embedlab(*words, "hydra.run.dir=again", plain=True)
    assert code == 0
    assert json.loads(Path("again/result.json").read_text())["key"] == results("out")[1]["key"]


def test_hydras_own_launcher_makes_the_same_pictures(embedlab):
    words = ["-m", *MIX, "operators.interpolate.weight=0.5,1", "guidance.scale=3,4"]
    assert embedlab(*words, "hydra.sweep.dir=ours")[0] == 0
    assert embedlab(*words, "hydra.sweep.dir=theirs", "hydra/launcher=basic")[0] == 0
    ours, theirs = results("ours"), results("theirs")
    assert ours.keys() == theirs.keys() == set(range(4))
    for n in ours:
        assert ours[n]["key"] == theirs[n]["key"]
        for row in ours[n]["pictures"]:
            a, b = (Store(Path(folder, ".cells")).get(row["key"]) for folder in ("ours", "theirs"))
            assert isinstance(a, Sample)
            assert (a.latents - b.latents).abs().max() <= 1e-4


def test_the_same_command_makes_what_is_missing(embedlab, drawn):
    words = ["-m", *MIX, "operators.interpolate.weight=0.25,0.5", "hydra.sweep.dir=out"]
    embedlab(*words)
    before = Path("out/0/result.json").read_bytes()
    drawn()
    assert embedlab(*words)[0] == 0
    assert drawn() == 0
    Path("out/1/result.json").unlink()
    for file in list(Path("out/.cells").rglob("*.safetensors"))[:1]:
        file.unlink()
    assert embedlab(*words)[0] == 0
    assert drawn() <= 1
    assert Path("out/0/result.json").read_bytes() == before, "a finished job is left as it is"


def test_a_sweep_with_the_same_store_makes_what_is_new(embedlab, drawn):
    embedlab("-m", *MIX, "operators.interpolate.weight=0.25,0.5", "hydra.sweep.dir=one", "store=cells")
    drawn()
    embedlab("-m", *MIX, "operators.interpolate.weight=0.25,0.5,0.75", "hydra.sweep.dir=two", "store=cells")
    assert drawn() == 2
    assert len(results("two")) == 3


def test_resume_takes_up_a_sweep_with_its_own_plan(embedlab, drawn, tmp_path, monkeypatch):
    embedlab("-m", *MIX, "operators.interpolate.weight=0.25,0.5", "hydra.sweep.dir=out")
    Path("out/1/result.json").unlink()
    plan = Path("out/sweep.json").read_bytes()
    drawn()
    monkeypatch.chdir("/")
    code, out, _ = embedlab("-m", f"resume={tmp_path}/out", plain=True)
    assert code == 0, out
    assert drawn() == 0, "its pictures were there, its job was not"
    assert results(tmp_path / "out")[1]["status"] == "done"
    assert (tmp_path / "out" / "sweep.json").read_bytes() == plan
    code, _, err = embedlab(f"resume={tmp_path}/out", "guidance.scale=9", plain=True)
    assert (code, "goes on with the plan it had; leave out guidance.scale=9" in err) == (2, True)
    code, _, err = embedlab("resume=/nowhere", plain=True)
    assert (code, "there is no sweep in '/nowhere' to resume" in err) == (2, True)


def test_a_damaged_sweep_is_refused_in_one_line_or_mended(embedlab, drawn):
    words = ["-m", *MIX, "operators.interpolate.weight=0.25,0.5", "hydra.sweep.dir=out", "at_once=1"]
    embedlab(*words)
    plan = json.loads(Path("out/sweep.json").read_text())
    for change in ({"command": [1]}, {"command": None}):
        Path("out/sweep.json").write_text(json.dumps(plan | change))
        code, _, err = embedlab("resume=out", plain=True)
        assert (code, "does not say how the sweep was started" in err) == (2, True)
    Path("out/sweep.json").write_text(json.dumps(plan | {"cwd": 5, "jobs": [1, "x"]}))
    assert embedlab("resume=out", "at_once=2", "tracker=disk", plain=True)[0] == 0, "said now, in the place of then"
    code, _, err = embedlab("resume=out", "hydra.sweep.dir=other", plain=True)
    assert (code, "leave out hydra.sweep.dir=other" in err) == (2, True)
    assert not Path("other").exists()
    drawn()
    whole = json.loads(Path("out/0/result.json").read_text())
    for change in ({"format": "x"}, {"pictures": [1]}, {"pictures": []}, {"scores": []}, {"overrides": 5}):
        Path("out/0/result.json").write_text(json.dumps(whole | change))
        assert embedlab(*words)[0] == 0
        assert json.loads(Path("out/0/result.json").read_text())["pictures"] == whole["pictures"]
    data = Path("out/0/seed-1.png").read_bytes()
    for cut in (0, 5, len(data) - 1):
        Path("out/0/seed-1.png").write_bytes(data[:cut])
        assert embedlab(*words)[0] == 0
        assert images.is_whole(Path("out/0/seed-1.png"))
    assert drawn() == 0
    Path("out/sweep.json").unlink()
    Path("out/sweep.json").mkdir()
    code, _, err = embedlab("resume=out", plain=True)
    assert (code, "sweep.json' cannot be read: it is a folder" in err) == (2, True)


def test_what_was_logged_by_half_is_logged_anew(embedlab):
    words = ["-m", *MIX, "operators.interpolate.weight=0.25,0.5", "hydra.sweep.dir=out", "tracker=disk"]
    embedlab(*words)
    logs = [Path("out/0/log/scores.jsonl"), Path("out/log/scores.jsonl")]
    kept = [log.read_text() for log in logs]
    result = json.loads(Path("out/0/result.json").read_text())
    Path("out/0/result.json").write_text(json.dumps(result | {"logged": False}))
    half, sent = (Path("out/0/wandb") / f"offline-run-{n}" for n in (1, 2))
    for run in (half, sent):
        run.mkdir(parents=True)
        (run / "run-x.wandb").touch()
    (sent / "run-x.wandb.synced").touch()
    assert embedlab(*words)[0] == 0
    assert [log.read_text() for log in logs] == kept
    assert sent.is_dir()
    assert not half.exists()


def test_files_that_are_taken_away_while_it_runs_are_told(embedlab, drawn):
    made = [0]

    def take():
        made[0] += drawn()
        if made[0] >= 4:  # the first job has all of its pictures
            until = time.monotonic() + 60
            while not Path("out/0/result.json").is_file() and Path("out/0").is_dir() and time.monotonic() < until:
                time.sleep(0.01)
            shutil.rmtree("out/0", ignore_errors=True)

    words = ["-m", *MIX, "operators.interpolate.weight=0.25,0.5", "hydra.sweep.dir=out", "at_once=1"]
    with at_each_call_of_a_unet(take):
        code, out, _ = embedlab(*words)
    assert made[0] >= 4
    assert code == 1
    assert " failed:\n" in out
    assert embedlab(*words)[0] == 0


STOPPED = """
import os, signal, sys, time
from diffusers import UNet2DConditionModel
from torch.nn.modules import module
from embedlab.cli.main import main

where, how, *sys.argv[1:] = sys.argv[1:]


def stop():
    os.kill(os.getpid(), int(how))
    time.sleep(60)  # the signal ends it


def in_a_unet(called, given):
    if isinstance(called, UNet2DConditionModel):
        stop()


def in_a_library(*_):
    try:
        stop()
    except BaseException:
        print("a library heard it")
        raise OSError("the weights cannot be read") from None


if where == "unet":
    module.register_module_forward_pre_hook(in_a_unet)
else:
    module.register_module_parameter_registration_hook(in_a_library)
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
try:
    main()
finally:
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
"""


@pytest.fixture
def stopped(forks, tmp_path):
    """A sweep in a process of its own, which sends itself a signal: pytest's worker would go with it."""

    def run(where, how, model):
        words = [f"model.name={model}", "model=custom", "model.device=cpu", "sampler.steps=2", "tracker=silent"]
        words += ["-m", "guidance.scale=2,3", "hydra.sweep.dir=out"]
        return forks.python(STOPPED, where, str(int(how)), *words, cwd=tmp_path)

    return run


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_says_how_it_goes_on(stopped, folders, tmp_path, how):
    done = stopped("unet", how, folders["sd1"])
    assert done.returncode == 128 + how, done.stderr
    assert done.stderr == (
        "embedlab: stopped; jobs that have a result.json are whole. "
        f"embedlab -m resume={tmp_path / 'out'} makes the rest.\n"
    )


def test_what_a_library_makes_of_a_signal_is_still_the_signal(stopped, folders, tmp_path):
    model = shutil.copytree(folders["sd1"], tmp_path / "model")  # one that nothing has read
    done = stopped("library", signal.SIGTERM, model)
    assert done.stdout.count("a library heard it") == 1
    assert done.returncode == 143, done.stderr
    assert done.stderr.startswith("embedlab: stopped; ")
    assert done.stderr.count("\n") == 1


def test_other_settings_do_not_get_into_a_sweeps_folder(embedlab, drawn):
    embedlab("-m", *MIX, "operators.interpolate.weight=0.25,0.5", "hydra.sweep.dir=out")
    kept = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    drawn()
    code, _, err = embedlab("-m", *MIX, "operators.interpolate.weight=0.25,0.75", "hydra.sweep.dir=out")
    assert code == 2
    assert "job 1 (operators.interpolate.weight=0.75)" in err
    assert "holds another result (other settings: " in err
    assert drawn() == 0
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == kept


def test_all_mistakes_are_told_at_once_before_weights(embedlab, unread):
    axes = ["operators.interpolate.weight=0.5,half,nan", "operators.interpolate.rows=puppy,kitten", "sampler=ddim,dimm"]
    code, out, err = embedlab("-m", *MIX, *axes, "hydra.sweep.dir=out")
    assert code == 2
    lines = err.strip().splitlines()
    assert any("weight is 'half'" in line for line in lines)
    assert any("weight is nan" in line for line in lines)
    assert any("'kitten' is not in the prompt" in line for line in lines)
    assert any("there is no sampler=dimm" in line for line in lines)
    assert lines[-1] == "embedlab: nothing was generated; 11 of 12 jobs are wrong."
    assert all(line.startswith("embedlab: ") for line in lines)
    assert not Path("out").exists()
    assert out == "checking the settings …\n"


def test_axes_that_collide_are_refused(embedlab):
    code, _, err = embedlab("-m", "sampler=ddim,lms", "sampler.scheduler=euler,heun", "hydra.sweep.dir=out")
    assert code == 2
    assert "changes nothing beside sampler=ddim: another axis sets the same thing. Leave one out." in err
    code, _, err = embedlab("-m", "guidance.scale=1,2", "guidance.scale=3,4", "hydra.sweep.dir=out")
    assert code == 2
    assert "guidance.scale is given twice: guidance.scale=1,2 and guidance.scale=3,4" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["guidance.scale=2,2"], "job 1: its settings are those of another job: a list names a value twice."),
        (["at_once=1,2"], "job 1: at_once=2 makes no other picture than at_once=1; take one of them."),
        (["tracker=silent,disk"], "job 1: tracker=disk makes no other picture than tracker=silent"),
        (["guidance.scale=range(1,1)"], "'guidance.scale=range(1,1)' has no values."),
        (["guidance.scale=2,3", "explain=true"], "explain takes one cell; leave it out of a sweep."),
        (
            ["guidance.scale=2,3", "hydra.sweep.subdir=same"],
            "hydra.sweep.subdir puts job 0 in 'same', too; each job has",
        ),
        (["guidance.scale=2,3", "hydra.sweep.subdir=a/b${hydra.job.num}"], "hydra.sweep.subdir puts a job in 'a/b0'"),
        (["guidance.scale=2,3", "hydra.sweep.subdir=.."], "hydra.sweep.subdir puts a job in '..'"),
        (
            ["guidance.scale=2,3", "hydra.sweeper.max_batch_size=0"],
            "hydra.sweeper.max_batch_size is 0; it has to be 1 or",
        ),
        (["guidance.scale=2,3", "hydra.launcher.x=2"], "Hydra has no setting 'hydra.launcher.x'; embedlab --cfg hydra"),
        (
            ["guidance.scale=2,3", "hydra/launcher=no"],
            "there is no hydra/launcher=no; hydra/launcher: choose one of batch, ray",
        ),
        (["guidance.scale=2,3", "store=file"], "file' cannot be written: it is a file."),
        (["guidance.scale=2,3", "store=5"], "store is 5; it has to be a folder"),
        (["guidance.scale=2,3", "objective={a: 1}"], "objective is {'a': 1}; it has to be the name of a score"),
        (["guidance.scale=2,3", "objective={_target_: nowhere.X}"], "there is no 'nowhere.X' to be imported"),
    ],
)
def test_what_cannot_be_a_sweep_is_refused_and_leaves_nothing(embedlab, drawn, words, message):
    Path("file").touch()
    code, _, err = embedlab("-m", *words, "hydra.sweep.dir=out")
    assert (code, drawn()) == (2, 0)
    assert message in err
    assert all(line.startswith("embedlab: ") for line in err.strip().splitlines())
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "objective",
    ["closest/skunk", "{_target_: embedlab.sweep.results.ScoreGap, first: change/ssim, second: closest/skunk}"],
)
def test_a_search_for_a_score_that_is_not_there_is_refused_before_anything_is_drawn(embedlab, drawn, objective):
    words = ["-m", "guidance.scale=2,3", "hydra.sweep.dir=out"]
    code, _, err = embedlab(*words, f"objective={objective}")
    assert (code, drawn()) == (2, 0)
    assert (
        "embedlab: objective asks for 'closest/skunk'; this job has the scores "
        "change/ssim, change/pixels, change/latents, rows/edited, rows/distance, conditioning/distance, "
        "conditioning/pooled_distance (model.scorer=PATH of a CLIP model adds those of CLIP)."
    ) in err
    assert embedlab(*words, "objective=change/ssim")[0] == 0


def test_an_objective_that_fails_is_one_line():
    with pytest.raises(ValueError, match="objective cannot be computed from a result: KeyError: 'x'"):
        objective.objective_value(lambda result: result["scores"]["x"], Result("done"))


@dataclass(frozen=True)
class Fragile:
    """Scales the token rows; one half is too much for it while there is a file `broken`."""

    by: float

    def __call__(self, prompt, lookup):
        if self.by == 0.5 and Path("broken").exists():
            raise RuntimeError("on purpose")
        return replace(prompt, token=prompt.token * self.by)


def test_failures_are_told_in_a_table_and_by_the_exit_code(embedlab, drawn):
    Path("broken").touch()
    words = ["-m", "+operators.own._target_=test_sweep.Fragile", "+operators.own.by=0.25,0.5,0.75"]
    words.append("hydra.sweep.dir=out")
    code, out, _ = embedlab(*words)
    assert code == 1
    assert "1 failed:\n  job 1 (" in out
    assert "RuntimeError: on purpose" in out
    assert {n: r["status"] for n, r in results("out").items()} == {0: "done", 1: "failed", 2: "done"}
    table = pandas.read_csv("out/results.csv")
    assert list(table.status) == ["done"] * 2 + ["failed"] * 2 + ["done"] * 2
    Path("broken").unlink()
    drawn()
    assert embedlab(*words)[0] == 0
    assert drawn() == 2, "what failed, and nothing else"


@dataclass(frozen=True)
class Brittle:
    """An operator of somebody's own, with a mistake in it."""

    by: float

    def __call__(self, prompt, lookup):
        return prompt if self.by else 1 / self.by


def test_an_operator_that_raises_fails_its_own_jobs_alone(embedlab):
    words = ["+operators.own._target_=test_sweep.Brittle", "+operators.own.by=0,1"]
    code, out, err = embedlab("-m", *words, "hydra.sweep.dir=out")
    assert (code, err) == (1, "")
    assert {n: r["status"] for n, r in results("out").items()} == {0: "failed", 1: "done"}
    assert results("out")[0]["error"] == "ZeroDivisionError: division by zero"
    assert "failed: ZeroDivisionError: division by zero\n" in out
    code, _, err = embedlab(words[0], "+operators.own.by=0", "hydra.run.dir=alone")
    assert (code, err) == (1, "embedlab: ZeroDivisionError: division by zero\n")


def test_a_sweep_is_taken_up_from_a_folder_of_any_name(embedlab, drawn):
    name = "it's (ü, #1) [a=b]"
    assert embedlab("-m", "guidance.scale=2,3", f"hydra.sweep.dir={resume.quoted(name)}")[0] == 0
    Path(name, "0", "seed-0.png").unlink()
    Path(name, "0", "result.json").unlink()
    drawn()
    for given in (name, f'"{name}"'):
        code, out, err = embedlab(f"resume={given}", plain=True)
        assert (code, err) == (0, "")
        assert "Nothing had to be generated: all images exist already." in out
        assert Path(name, "0", "seed-0.png").is_file()
    assert drawn() == 0


def test_two_processes_in_one_folder(embedlab, tmp_path):
    code = (
        "from pathlib import Path\n"
        "from embedlab.cli.session import SweepLock\n"
        "lock = SweepLock(Path('out').absolute())\n"
        "lock.acquire(); print(); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin
        assert other.stdout
        other.stdout.readline()
        words = ["-m", "guidance.scale=3,4", "hydra.sweep.dir=out"]
        code, _, err = embedlab(*words)
        assert code == 2
        assert f"out' is being worked in by process {other.pid} on {socket.gethostname()} since 2" in err
        assert not list(tmp_path.rglob("result.json"))
        other.kill()
    assert embedlab(*words)[0] == 0, "what a killed process held is free"


def test_a_launcher_whose_package_is_missing_says_which_extra(embedlab, monkeypatch):
    for name, package in (("ray", "ray"), ("slurm", "submitit")):
        monkeypatch.setitem(sys.modules, package, None)
        code, _, err = embedlab("-m", "guidance.scale=3,4", f"hydra/launcher={name}", "hydra.sweep.dir=out")
        assert code == 2
        assert f"hydra/launcher={name} needs a package of its own: pip install 'embedlab[{name}]'" in err


def test_slurm_without_sbatch_and_a_cluster_out_of_reach(embedlab, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, err = embedlab("-m", "guidance.scale=3,4", "hydra/launcher=slurm", "hydra.sweep.dir=out")
    assert (code, "needs Slurm's sbatch, which is not on this machine" in err) == (2, True)
    words = ["hydra/launcher=ray", "hydra.launcher.address=127.0.0.1:9"]
    code, _, err = embedlab("-m", "guidance.scale=3,4", *words, "hydra.sweep.dir=out")
    assert (code, "the Ray cluster at '127.0.0.1:9' cannot be reached" in err) == (2, True)
    assert not list(Path().rglob("result.json"))


def test_pictures_hold_their_settings_and_what_a_score_is(embedlab):
    embedlab("-m", *MIX, "operators.interpolate.weight=0.25,0.5", "hydra.sweep.dir=out")
    settings = images.settings_of(Path("out/1/seed-1.png"))
    assert settings["format"] == 1
    assert settings["config"]["operators"]["interpolate"]["weight"] == 0.5
    row = results("out")[1]["pictures"][1]
    assert settings["scores"]["change/ssim"] == row["change/ssim"]


def test_a_tracker_that_is_named_later_is_told_of_what_was_made_before(embedlab, drawn):
    words = ["-m", *MIX, "operators.interpolate.weight=0.25,0.5", "hydra.sweep.dir=out"]
    assert embedlab(*words)[0] == 0
    drawn()
    assert embedlab("resume=out", "tracker=disk", plain=True)[0] == 0
    assert drawn() == 0
    assert len(list(Path("out").glob("*/log/scores.jsonl"))) == 2
    assert all(result["logged"] for result in results("out").values())


def test_a_curve_is_a_mean_over_seeds_and_over_nothing_else():
    def row(w, t, off, s):
        measured = {"change/ssim": 1 - w + s / 10 + off, "eye/outcome": "both"}  # a word is no point of a curve
        return tables.Row(0, "", "", {"weight": w, "toward": t}, PictureResult(s, measured), {})

    rows = [row(w, t, off, s) for w in (1, 0, 0.5) for t, off in (("cat", 0), ("skunk", 5)) for s in (0, 1)]
    alone = [row for row in rows if row.axes["toward"] == "cat"]
    ((axis, score, at, lines),) = tables.curves(alone, {"weight": [1, 0, 0.5], "seed": [0, 1]})
    assert (axis, score, at) == ("weight", "change/ssim", [0, 0.5, 1])
    assert lines["mean"] == pytest.approx([1.05, 0.55, 0.05])
    assert lines["lowest"] == pytest.approx([1, 0.5, 0])
    varied = {"weight": [1, 0, 0.5], "toward": ["cat", "skunk"], "seed": [0, 1]}
    ((_, _, at, lines),) = tables.curves(rows[:-2], varied)
    assert list(lines) == ["toward cat", "toward skunk"]
    assert lines["toward cat"] == pytest.approx([1.05, 0.55, 0.05])
    assert lines["toward skunk"][0] == pytest.approx(6.05)
    assert lines["toward skunk"][1] is None, "what was not measured is not drawn"


EMOJI = ["-m", "operators=[interpolate]", "sampler.steps=1", "seeds=[0,1]"]
AXES = ["operators.interpolate.toward=skunk,cat", "operators.interpolate.weight=1,0.5"]


def test_what_a_sweep_tells_of_its_jobs(embedlab):
    """Scored alike, named by what varies, in their order, each figure once and with one meaning."""
    subdir = "hydra.sweep.subdir=${hydra.job.override_dirname}"
    code, out, _ = embedlab(*EMOJI, *AXES, subdir, "hydra.sweep.dir=out", "tracker=silent", plain=True)
    assert code == 0, out
    jobs = collect(Path("out"))
    assert [job.job for job in jobs] == [0, 1, 2, 3]
    names = ["puppy → 1 skunk", "puppy → 0.5 skunk", "puppy → 1 cat", "puppy → 0.5 cat"]
    assert [name for line in out.splitlines() for name in names if line.strip().startswith(name)] == names
    assert len({tuple(job.scores) for job in jobs}) == 1
    assert {"clip_score/cat", "clip_score/skunk", "clip_score/puppy", "closest/cat"} <= jobs[0].scores.keys()
    assert "metrics.words=[puppy,skunk,cat]" in jobs[0].command

    table = pandas.read_csv("out/results.csv")
    assert list(table.job) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert list(table.label.unique()) == names
    assert set(jobs[0].scores) <= set(table.columns)
    assert not {"runtime", "batch"} & set(table.columns)
    for job in jobs:
        mine = table[table.job == job.job]
        for score, value in job.scores.items():
            assert mine[score].mean() == pytest.approx(value, abs=1e-5), score
        assert all(row.runtime["threads"] >= 1 and row.batch[0] < row.batch[1] for row in job.pictures)


def test_a_sweep_that_got_more_words_is_scored_anew_and_not_drawn(embedlab, drawn):
    words = [*EMOJI, "operators.interpolate.weight=1", "hydra.sweep.dir=out", "tracker=disk"]
    assert embedlab(*words, "operators.interpolate.toward=cat", plain=True)[0] == 0
    drawn()
    assert embedlab(*words, "operators.interpolate.toward=cat,skunk", plain=True)[0] == 0
    assert drawn() == 2
    first, second = results("out").values()
    assert first["scores"].keys() == second["scores"].keys() >= {"clip_score/skunk", "clip_score/cat"}
    told = json.loads(Path("out/0/log/summary.json").read_text())
    assert told["clip_score/skunk"] == pytest.approx(first["scores"]["clip_score/skunk"])


SEARCH = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=4", "hydra.sweep.dir=out"]
SEARCH += ["hydra.sweeper.max_failure_rate=1.0", "hydra.sweeper.study_name=test", "hydra.sweeper.sampler.seed=0"]


optuna.logging.disable_default_handler()  # it would write where the first test of a process did


def test_a_search_needs_something_to_look_for_before_it_draws(embedlab, drawn):
    words = [*SEARCH, *MIX, "operators.interpolate.weight=choice(0.5,1)"]
    code, _, err = embedlab(*words)
    assert (code, drawn()) == (2, 0)
    assert err.startswith("embedlab: a search needs to know what it looks for: objective=SCORE, such as objective=")
    assert err.count("\n") == 1
    code, _, err = embedlab(*words, "objective=change/ssim", "hydra.sweeper.direction=[minimize,maximize]")
    assert (code, drawn()) == (2, 0)
    assert "names 2 directions, and an objective is one number" in err


def test_a_search_may_ask_for_the_same_twice(embedlab, drawn):
    code, out, err = embedlab(*SEARCH, *MIX, "operators.interpolate.weight=choice(0.5,1)", "objective=change/ssim")
    assert (code, err) == (0, ""), out
    assert len(results("out")) == 4
    assert drawn() <= 2 * 3, "four jobs of two kinds"
    assert Path("out/optimization_results.yaml").is_file()
    again = ["-m", *MIX, "operators.interpolate.weight=0.5,0.5", "objective=change/ssim", "hydra.sweep.dir=list"]
    code, _, err = embedlab(*again)
    assert (code, "a list names a value twice" in err) == (2, True), "a list is no search"


def test_a_search_whose_jobs_all_fail_ends_in_one_line(embedlab):
    own = ["+operators.own._target_=test_sweep.Brittle", "+operators.own.by=choice(0)"]
    code, out, err = embedlab(*SEARCH, *own, "objective=change/ssim")
    assert code == 2
    assert "failed: ZeroDivisionError" in out
    said = [line for line in err.splitlines() if not line.startswith("Error executing job with overrides")]  # Hydra's
    assert said == ["embedlab: the search ends without a best: every one of its jobs failed, for the reasons above."]


# ── one job by itself ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_by_itself_leaves_what_a_sweep_of_one_leaves(embedlab):
    code, out, _ = embedlab(*MIX, "hydra.run.dir=out", "tracker=disk", "guidance.scale=3")
    assert code == 0, out
    table = pandas.read_parquet("out/results.parquet")
    pandas.testing.assert_frame_equal(table, pandas.read_csv("out/results.csv"), check_dtype=False)
    assert list(table.seed) == [0, 1]
    assert all(Path("out", file).is_file() for file in [*table.file, *table.baseline])
    name = json.loads(Path("out/log/run.json").read_text())["name"]
    assert name.startswith("puppy → 0.5 skunk, scale 3, ")
    assert name.endswith(", steps 2")
    assert not list(Path("out").glob("*.log")), "no log where nothing was told"
    assert sorted(path.name for path in Path("out/.hydra").iterdir()) == ["config.yaml", "hydra.yaml", "overrides.yaml"]


def test_what_a_job_by_itself_did_not_log_it_logs_later(embedlab, drawn):
    words = [*MIX, "hydra.run.dir=out"]
    assert embedlab(*words)[0] == 0
    drawn()
    assert embedlab(*words, "tracker=disk")[0] == 0
    assert drawn() == 0
    assert Path("out/log/scores.jsonl").is_file()


def test_two_jobs_in_one_folder(embedlab, tmp_path):
    """The second is refused while the first works, and changes no file of its."""
    code = (
        "import sys; sys.argv = ['embedlab', *sys.argv[1:]]\n"
        "from embedlab.cli import main as app\n"
        "from torch.nn.modules.module import register_module_forward_pre_hook\n"
        "def decoded(module, given):\n"
        "    if type(module).__name__ == 'Decoder':\n"
        "        print('drawing', flush=True); input()\n"
        "register_module_forward_pre_hook(decoded)\n"
        "app.main()"
    )
    words = ["sampler.steps=1", "seeds=[0]", "tracker=silent", "at_once=1", "hydra.run.dir=out"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin
        assert other.stdout
        while "drawing" not in other.stdout.readline():
            assert other.poll() is None
        kept = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
        code, _, err = embedlab("guidance.scale=3", "hydra.run.dir=out")
        assert code == 2
        assert f"out' is being worked in by process {other.pid} on {socket.gethostname()} since 2" in err
        assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == kept
        other.stdin.write("\n\n")
        other.stdin.close()
        assert other.wait(timeout=120) == 0
    kept = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    code, _, err = embedlab("guidance.scale=3", "hydra.run.dir=out")
    assert (code, "holds another result (other settings: " in err) == (2, True)
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == kept
    assert not list(Path("out").glob(".lock*"))


def test_a_search_is_told_scores_and_what_failed():
    done = Result("done", scores={"clip_score/skunk": 31.0})
    assert objective.objective_value("clip_score/skunk", done) == 31
    assert objective.objective_value(lambda result: 2.0, done) == 2
    failed = objective.job_return("clip_score/skunk", Result("failed", error="no disk"), [])
    with pytest.raises(ValueError, match="no disk"):
        failed.return_value  # noqa: B018
    assert objective.job_return(None, Result("failed", error="no disk"), []).return_value is None


def test_a_long_table_shows_its_ends():
    made = [Result("done", label=f"job {n}", scores={"change/ssim": n / 300}) for n in range(300)]
    lines = table(made).splitlines()
    assert lines[2 + 29].startswith("job 29 ")
    assert lines[2 + 30] == "… 240 more in results.csv …"
    assert lines[2 + 31].startswith("job 270 ")
    assert lines[2 + 60].endswith("100%*"), "the best of all is marked"
    assert not [line for line in table(made[:60]).splitlines() if "more in" in line]


def test_similarities_are_called_so_and_only_where_something_was_edited():
    scores = {"clip_score/prompt": 75.0, "change/cosine": 1.0, "change/ssim": 0.5, "change/pixels": 0.25}
    one = Result("done", label="puppy → cat", scores=scores)
    over, heads, line, _, note = table([one]).splitlines()
    assert over.split() == ["CLIPScore", "like", "unedited", "distance"]
    assert heads.split() == ["prompt", "CLIP", "SSIM", "pixels"]
    assert [heads.index(name) < over.index("distance") for name in ("SSIM", "pixels")] == [True, False]
    assert line.split() == ["puppy", "→", "cat", "75.0", "100%", "50%", "0.250"], "nothing is the best of one"
    assert note == "Like unedited: 100% is the same image."
    plain = table([Result("done", label="as written", scores=scores)]).splitlines()
    assert [row.split() for row in plain] == [["CLIPScore"], ["prompt"], ["as", "written", "75.0"]]


def test_the_best_of_each_score_is_marked_and_of_equals_none():
    scores = [{"clip_score/cat": c, "change/pixels": p, "closest/cat": 1.0} for c, p in ((30, 0.5), (31, 0.25))]
    made = [Result("done", label=f"job {n}", job=n, scores=mine) for n, mine in enumerate(scores)]
    _, _, first, second, _, note = table(made).splitlines()
    assert first.split()[2:] == ["30.0", "0.500", "100%"]
    assert second.split()[2:] == ["31.0*", "0.250*", "100%"], "of a distance the lowest"
    assert note == "* the highest of its column, of a distance the lowest."


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_table_fits_the_terminal_and_says_what_is_left_out(width):
    keys = [*(f"clip_score/{word}" for word in ("prompt", "puppy", "skunk", "cat", "owl")), "change/cosine"]
    keys += ["change/ssim", "change/pixels", "change/latents", *(f"eye/{word}" for word in ("puppy", "skunk", "cat"))]
    long = "a picture of a very long prompt that many jobs of this sweep begin with, and then"
    made = [
        Result("done", label=f"{long} {n}", job=n, scores={key: (n + k) % 7 / 7 for k, key in enumerate(keys)})
        for n in range(4)
    ]
    text = table(made, width=width)
    assert all(len(line) <= width for line in text.splitlines())
    shown = {line.split("  ")[0] for line in text.splitlines() if line.startswith(("…", "a picture"))}
    assert len(shown) == 4, "names that are cut stay different"
    for line in text.splitlines():
        assert line == line.rstrip()
    left = text.partition("for want of room here: ")[2]
    assert ("latents" in left) == (width < 160)
    assert all(word in text.partition("In results")[0] for word in ("owl", "SSIM", "skunk"))


def test_secrets_of_the_environment_are_not_written_down(embedlab, monkeypatch):
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2hunter2")
    words = ["-m", "prompt='a puppy','a hunter2hunter2'", "group=hunter2hunter2", "tracker=disk", "hydra.sweep.dir=out"]
    assert embedlab(*words)[0] == 0
    told = [path for path in Path("out").rglob("*") if path.is_file() and b"hunter2hunter2" in path.read_bytes()]
    assert told == []
    code, _, err = embedlab("resume=out", plain=True)
    assert (code, "a secret was blanked ('***') in the command of 'out'; give the same command with" in err) == (
        2,
        True,
    )
    assert embedlab(*words)[0] == 0
