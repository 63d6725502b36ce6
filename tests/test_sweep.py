"""Sweeps as a user meets them: the command in this process, its folder, its lines, its exit code."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from filelock import FileLock

from embedlab import batch, images, launch, sweep

MIX = ["operators=[interpolate]", "operators.interpolate.toward=skunk"]


@pytest.fixture
def drawn(monkeypatch):
    """How many pictures were made since the last look."""
    counts, own = [0], batch.draw

    def draw(model, wanted, on_step=None):
        counts[0] += len(wanted)
        return own(model, wanted, on_step)

    monkeypatch.setattr(batch, "draw", draw)

    def look():
        counts[0], seen = 0, counts[0]
        return seen

    return look


def results(folder):
    return {int(p.parent.name): json.loads(p.read_text()) for p in Path(folder).glob("*/result.json")}


def test_a_sweep_is_one_plan_with_a_table(embedlab, drawn, tmp_path):
    code, out, _ = embedlab("-m", *MIX, "operators.interpolate.weight=0,0.5,1", "hydra.sweep.dir=out")
    assert code == 0
    assert drawn() == 2 * 3, "weight 0 is what is written"
    assert out.count("notice: ") == len(set(re.findall("notice: .*", out))), "said once, not once a job"
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
    from embedlab.experiment import Drawn
    from embedlab.store import Store

    words = ["-m", *MIX, "operators.interpolate.weight=0.5,1", "guidance.scale=3,4"]
    assert embedlab(*words, "hydra.sweep.dir=ours")[0] == 0
    assert embedlab(*words, "hydra.sweep.dir=theirs", "hydra/launcher=basic")[0] == 0
    ours, theirs = results("ours"), results("theirs")
    assert ours.keys() == theirs.keys() == set(range(4))
    for n in ours:
        assert ours[n]["key"] == theirs[n]["key"]
        for row in ours[n]["pictures"]:
            a, b = (Store(Path(folder, ".cells")).get(row["key"]) for folder in ("ours", "theirs"))
            assert isinstance(a, Drawn)
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
    assert (code, "there is no sweep in '/nowhere' to be taken up" in err) == (2, True)


def test_other_settings_do_not_get_into_a_sweeps_folder(embedlab, drawn):
    embedlab("-m", *MIX, "operators.interpolate.weight=0.25,0.5", "hydra.sweep.dir=out")
    kept = {path: path.read_bytes() for path in Path("out").rglob("result.json")}
    drawn()
    code, _, err = embedlab("-m", *MIX, "operators.interpolate.weight=0.25,0.75", "hydra.sweep.dir=out")
    assert code == 2
    assert "job 1 (operators.interpolate.weight=0.75)" in err
    assert "holds another result (other settings: " in err
    assert drawn() == 0
    assert {path: path.read_bytes() for path in Path("out").rglob("result.json")} == kept


def test_all_mistakes_are_told_at_once_before_weights(embedlab, monkeypatch):
    from embedlab import models

    def never(*_):
        raise AssertionError("weights were read")

    monkeypatch.setattr(models.Source, "load", never)
    axes = ["operators.interpolate.weight=0.5,half,nan", "operators.interpolate.rows=puppy,kitten", "sampler=ddim,dimm"]
    code, out, err = embedlab("-m", *MIX, *axes, "hydra.sweep.dir=out")
    assert code == 2
    lines = err.strip().splitlines()
    assert any("weight is 'half'" in line for line in lines)
    assert any("weight is nan" in line for line in lines)
    assert any("'kitten' is not in the prompt" in line for line in lines)
    assert any("Could not find 'sampler/dimm'" in line for line in lines)
    assert lines[-1] == "embedlab: nothing was drawn; 11 of 12 jobs are wrong."
    assert all(line.startswith("embedlab: ") for line in lines)
    assert not Path("out").exists()
    assert out == ""


def test_axes_that_collide_are_refused(embedlab):
    code, _, err = embedlab("-m", "sampler=ddim,lms", "sampler.scheduler=euler,heun", "hydra.sweep.dir=out")
    assert code == 2
    assert "changes nothing beside sampler=ddim: another axis sets the same thing. Leave one out." in err
    code, _, err = embedlab("-m", "guidance.scale=1,2", "guidance.scale=3,4", "hydra.sweep.dir=out")
    assert code == 2
    assert "guidance.scale is given twice: guidance.scale=1,2 and guidance.scale=3,4" in err


def test_failures_are_told_in_a_table_and_by_the_exit_code(embedlab, drawn, monkeypatch):
    own = batch.tell

    def tell(model, schedules):
        if any("0.5" in str(cell.operators) for calls in schedules for cell in calls):
            raise RuntimeError("on purpose")
        return own(model, schedules)

    monkeypatch.setattr(batch, "tell", tell)
    words = ["-m", *MIX, "operators.interpolate.weight=0.25,0.5,0.75", "hydra.sweep.dir=out"]
    code, out, _ = embedlab(*words)
    assert code == 1
    assert "1 failed:\n  job 1 (" in out
    assert "RuntimeError: on purpose" in out
    assert {n: r["status"] for n, r in results("out").items()} == {0: "done", 1: "failed", 2: "done"}
    table = pandas.read_csv("out/results.csv")
    assert list(table.status) == ["done"] * 2 + ["failed"] * 2 + ["done"] * 2
    monkeypatch.setattr(batch, "tell", own)
    drawn()
    assert embedlab(*words)[0] == 0
    assert drawn() == 2, "what failed, and nothing else"


def test_two_processes_in_one_folder(embedlab, tmp_path):
    Path("out").mkdir()
    with FileLock("out/.lock"):
        Path("out/.holder").write_text(json.dumps({"process": 7, "host": "here", "since": "2026-11-22 10:00:00"}))
        code, _, err = embedlab("-m", "guidance.scale=3,4", "hydra.sweep.dir=out")
    assert code == 2
    assert "out' is being worked in by process 7 on here since 2026-11-22 10:00:00; wait for it" in err
    assert not list(tmp_path.rglob("result.json"))


def test_a_launcher_whose_package_is_missing_says_which_extra(embedlab, monkeypatch):
    from embedlab import crew

    monkeypatch.setattr(crew, "find_spec", lambda name: None)
    for name in ("ray", "slurm"):
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


def test_wandb_gets_a_run_a_job_and_one_of_the_sweep(embedlab):
    code, out, _ = embedlab(
        "-m", *MIX, "operators.interpolate.weight=0.25,0.5", "tracker=wandb", "hydra.sweep.dir=out", "export=true"
    )
    assert code == 0, out
    runs = [read_back(path) for path in sorted(Path("out").rglob("*.wandb"))]
    assert len(runs) == 3
    texts = [json.dumps(run) for run in runs]
    (whole,) = [text for text in texts if "sweep/pictures" in text]
    for expected in ("sweep/failed", "change/ssim over operators.interpolate.weight", "results._type", "sheet._type"):
        assert expected in whole, expected
    jobs = [text for text in texts if text != whole]
    for text in jobs:
        for expected in (
            "picture/change/ssim",
            "pictures_table",
            "tokens",
            "axes",
            '"weight"',
            "conditioning",
            "define",
        ):
            assert expected in text, expected
        assert '"out"' in text, "the group is the sweep's"
    assert all(result["logged"] for result in results("out").values())


def read_back(path):
    done = subprocess.run(
        [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "WANDB_SILENT": "false"},
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_curves_are_means_over_everything_else():
    rows = [
        {"weight": w, "seed": s, "change/ssim": 1 - w + s / 10, "status": "done"} for w in (0, 0.5, 1) for s in (0, 1)
    ]
    ((axis, score, at, lines),) = sweep.curves(rows, {"weight": [0, 0.5, 1], "seed": [0, 1]})
    assert (axis, score, at) == ("weight", "change/ssim", [0, 0.5, 1])
    assert lines["mean"] == pytest.approx([1.05, 0.55, 0.05])
    assert lines["lowest"] == pytest.approx([1, 0.5, 0])


def test_a_search_is_told_scores_and_what_failed():
    done = {"status": "done", "scores": {"clip_score/skunk": 31.0}}
    assert launch.value("clip_score/skunk", done) == 31
    assert launch.value(lambda result: 2.0, done) == 2
    failed = launch.answer("clip_score/skunk", {"status": "failed", "error": "no disk"}, [])
    with pytest.raises(ValueError, match="no disk"):
        failed.return_value  # noqa: B018
    assert launch.answer(None, {"status": "failed", "error": "no disk"}, []).return_value is None
    with pytest.raises(ValueError, match="objective is 'clip_score/owl'; this sweep has the scores clip_score/skunk"):
        launch.value("clip_score/owl", done)
