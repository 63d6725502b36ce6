"""The command line as a user meets it: a process, its lines, its exit code, its files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from embedlab import images

FAST = ["sampler.steps=2", "tracker=silent", "seeds=[0,1]"]


def embedlab(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run the command in a folder that is not the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "embedlab", *words], capture_output=True, text=True, cwd=cwd, timeout=240
    )


def test_help_answers_before_anything_heavy_is_imported(tmp_path):
    done = embedlab("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "operators: interpolate, replace" in done.stdout
    assert "embedlab experiment=puppy_to_cat" in done.stdout
    code = (
        "import sys; sys.argv = ['embedlab', 'sampler.stepz=3']\n"
        "from embedlab.app import main\n"
        "try: main()\n"
        "except SystemExit as error: assert error.code == 2 and 'torch' not in sys.modules\n"
        "else: raise AssertionError('a wrong override should not pass')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_one_job_writes_pictures_result_and_sheet(tmp_path):
    done = embedlab("operators=[replace]", *FAST, f"hydra.run.dir={tmp_path}/out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "puppy → cat" in done.stdout
    out = tmp_path / "out"
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "done"
    assert [row["seed"] for row in result["pictures"]] == [0, 1]
    for row in result["pictures"]:
        settings = images.settings_of(out / row["file"])
        assert settings["seed"] == row["seed"]
        assert settings["config"]["operators"]["replace"]["by"] == "cat"
        assert settings["versions"].keys() == {"embedlab", "torch", "diffusers", "transformers"}
        assert images.settings_of(out / row["baseline"])["edited"] is False
    assert Image.open(out / "sheet.png").width > 2 * 112
    assert [path.name for path in out.glob(".*")] == [".hydra"], "no temporary file is left"


def test_a_sweep_loads_its_model_once_and_ends_in_one_sheet(tmp_path):
    code = (
        "import sys\n"
        "sys.argv = ['embedlab', '-m', 'operators=[interpolate]', 'operators.interpolate.weight=0,0.5,1', "
        f"'hydra.sweep.dir={tmp_path}/sweep', *{FAST!r}]\n"
        "from embedlab import models\n"
        "loads, own = [], models.Source._parts\n"
        "models.Source._parts = lambda *a: loads.append(1) or own(*a)\n"
        "from embedlab.app import main\n"
        "main()\n"
        "assert len(loads) == 1, loads"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "sweep"
    results = [json.loads((sweep / str(n) / "result.json").read_text()) for n in range(3)]
    assert [r["scores"]["change/ssim"] == 1 for r in results] == [True, False, False]
    assert (sweep / "sheet.png").exists()
    assert len((sweep / "results.csv").read_text().splitlines()) == 1 + 3 * 2
    assert "puppy → 0.5 skunk" in done.stdout


BAD = {
    "operators=[replace] operators.replace.word=kitten": "'kitten' is not in the prompt; its words are A, picture, of,",
    "operators=[replace] operators.replace.by=pomeranian": "'puppy' has 1 token and 'pomeranian' has 2",
    "operators=[interpolate] operators.interpolate.weight=nan": "weight is nan; it has to be a finite number",
    "operators=[interpolate] operators.interpolate.weight=half": "weight is 'half'; it has to be a finite number",
    "operators=[replac]": "Could not load 'operators/replac'; operators are interpolate, replace.",
    "model.name=emogi": "there is no model 'emogi'",
    "model.device=cuda:7": "device 'cuda:7' was asked for",
    "model=custom model.name=/nowhere": "there is no model '/nowhere'",
    "sampler=dimm": "Could not find 'sampler/dimm'; sampler are ddim, ddpm",
    "sampler.scheduler=dimm": "there is no scheduler 'dimm'; choose one of ddim",
    "sampler.steps=0": "sampler.steps is 0",
    "sampler.steps=-1": "sampler.steps is -1",
    "sampler.stepz=3": "Could not override 'sampler.stepz'",
    "+sampler.stepz=3": "unexpected keyword argument 'stepz'",
    "size=100": "a size of 100 is no multiple of the VAE factor 8; try 96",
    "start=picture start.picture=/nowhere.png start.step=3": "there is no picture '/nowhere.png'",
    "start=picture start.picture=puppy.png start.step=25": "start.step is 25, past the end",
    "encoder.join=glue": "windows cannot be joined by 'glue'; choose one of windows, run, truncate",
    "guidance.scale=x": "guidance.scale is 'x'",
    "seeds=[]": "seeds is []",
    "seeds=[-1]": "seed -1 is no whole number",
    "tracker=null": "cannot be null; tracker=silent logs nothing",
    "tracker.mode=offlin": "tracker.mode is 'offlin'",
    "at_once=0": "at_once is 0",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_and_exit_code_2_before_weights(words, tmp_path, monkeypatch, capsys):
    """In this process, so that it is quick; weights must not be touched."""
    from embedlab import app, models

    def never(*_):
        raise AssertionError("weights were read")

    monkeypatch.setattr(models.Source, "_parts", never)
    monkeypatch.setattr(models, "_load", never)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["embedlab", "tracker.mode=offline", f"hydra.run.dir={tmp_path}/out", *words.split()]
    )
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert BAD[words] in lines[0]
    assert not list(tmp_path.rglob("*.png"))
    assert not list(tmp_path.rglob("result.json"))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = embedlab(*FAST, f"hydra.run.dir={tmp_path}/file/out", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cannot be written" in done.stderr


def test_an_empty_prompt_and_one_of_ten_thousand_words_are_fine(tmp_path):
    done = embedlab("prompt=''", *FAST, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    long = "prompt=" + "cat " * 10_000
    done = embedlab(long, "sampler.steps=1", "tracker=silent", "seeds=[0]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "notice: the prompt has 10000 tokens and runs in 134 windows of 75." in done.stdout


def test_secrets_of_the_environment_are_not_logged(tmp_path):
    environment = {**os.environ, "MY_API_KEY": "s3cret-value-0"}
    words = ["+experiment_note=${oc.env:MY_API_KEY}", *FAST, f"hydra.run.dir={tmp_path}/out"]
    done = subprocess.run(
        [sys.executable, "-m", "embedlab", *words], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "s3cret" not in (tmp_path / "out" / "result.json").read_text()
    assert b"s3cret" not in (tmp_path / "out" / "seed-0.png").read_bytes()
