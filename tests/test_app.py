"""The command line as a user meets it: a process, its lines, its exit code, its files."""

import json
import re
import shlex
import subprocess
import sys
import textwrap

import pytest
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from embedlab import images
from embedlab.cli import main as app
from embedlab.cli import usage

FAST = ["sampler.steps=2", "tracker=silent", "seeds=[0,1]"]


QUICK = [  # and the exit code of each
    *(([*command.split(), "--help"], 0) for command in ("", "explain", "film", "gallery", "replay", "sheet", "sync")),
    (["anatomy", "--help"], 0),
    *(([command, "--help"], 0) for command in ("profile", "learn")),
    *((["learn", *words], 2) for words in ([], ["word=<x>"], ["word=<x>", "text=a", "steps=0"])),
    *((["learn", "word=<x>", word], 2) for word in ("like=[nowhere.png]", "like=3", "text=", "tables=token", "-m")),
    *((["profile", word], 2) for word in ("nowhere", "out=a.pdf", "trace=", "-m", "sampler.steps=0", "resume=out")),
    *((["anatomy", word], 2) for word in ("nowhere", "size=big", "dtype=int8", "model=sd3", "out=a.pdf", "tokens=1.5")),
    *(([command], 2) for command in ("film", "gallery", "replay", "sheet", "sync")),
    *(([command, "nowhere"], 2) for command in ("film", "gallery", "replay", "sheet", "sync")),
    (["film", "nowhere", "--frames", "1"], 2),
    (["gallery", "nowhere", "--every", "0"], 2),
    (["sheet", "nowhere", "--nope"], 2),
    (["help"], 0),
    (["--version"], 0),
    (["--nope"], 2),
    (["explian"], 2),
    (["sampler.stepz=3"], 2),
    (["guidance=5"], 2),
    (["explain", "steps=5"], 2),
    (["explain", "foo="], 2),
    (["prompt=1e999"], 2),
    *(
        ([word, "hydra.run.dir=out"], 2)
        for word in ("sampler.steps=abc", "seeds=[-1]", "model.dtype=nope", "at_once=0")
    ),
    *(([word, "hydra.run.dir=out"], 2) for word in ("guidance.scale=nan", "encoder.skip={0:nan}", "metrics.words=1")),
    (["operators=[interpolate]", "operators.interpolate.weight=x", "hydra.run.dir=out"], 2),
    (["explain", "operators=[scale]", "operators.scale.rows={role:nope}"], 2),
    (["explain", "guidance.scale={_target_:embedlab.schedule.Ramp,values:[a,b],at:[0,1]}"], 2),
    (["prompt=a", "dog"], 2),
    (["seeds=[0],[1]"], 2),
    (["sampler=eulr"], 2),
    (["-m", "seeds=[0],[1]", "seeds=[2],[3]"], 2),
    (["-m", "resume=nowhere"], 2),
    (["-m", "explain", "seeds=[0],[1]"], 2),
    (["-m", "sampler.steps=abc", "seeds=[0],[1]", "hydra.sweep.dir=out"], 2),
    (["-m", "guidance.scale=nan", "sampler.steps=1,2", "hydra.sweep.dir=out"], 2),
    *(([command, "--help"], 0) for command in ("explain", "film", "gallery", "replay", "sheet", "sync")),
    *(([command], 2) for command in ("film", "gallery", "replay", "sheet", "sync")),
]


def test_help_and_complaints_about_words_come_before_anything_heavy_is_imported(tmp_path):
    code = (
        "import sys\n"
        "from embedlab.cli.main import main\n"
        f"for words, code in {QUICK!r}:\n"
        "    sys.argv = ['embedlab', *words]\n"
        "    got = 0\n"
        "    try: main()\n"
        "    except SystemExit as error: got = error.code or 0\n"
        "    assert got == code, (words, got)\n"
        "    assert 'torch' not in sys.modules, words"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == sum(code == 2 for _, code in QUICK), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_picture_imports_no_library_that_it_does_not_need(tmp_path):
    """Each would cost tenths of a second and more: trackers, clusters, films, diffusers' pipelines."""
    code = (
        "import sys\n"
        "from embedlab.cli.main import run\n"
        "idle = 'wandb trackio ray submitit av optuna IPython torchvision diffusers.pipelines'.split()\n"
        "for words in (['explain'], ['seeds=[0]', 'sampler.steps=1', 'tracker=silent', 'hydra.run.dir=out']):\n"
        "    run(words)\n"
        "    assert 'torch' in sys.modules\n"
        "    found = [name for name in idle if name in sys.modules]\n"
        "    assert not found, (words, found)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "results.parquet").is_file()


def test_a_prompt_that_is_a_number_is_quoted_as_it_was_typed(capsys):
    with pytest.raises(SystemExit):
        app.run(["prompt=1e999"])
    assert capsys.readouterr().err == """embedlab: a prompt is a text; 1e999 is none, but 'prompt="1e999"' is.\n"""


def test_rows_that_are_not_set_are_told_at_once(tmp_path):
    own, folders = ["prompt=a red fox", "operators=[interpolate]"], ["hydra.run.dir=out", "hydra.sweep.dir=sweep"]
    tried = [
        own,
        ["explain", *own],
        ["-m", *own, "operators.interpolate.weight=0,1"],
        ["experiment=puppy_to_cat", "prompt=a red fox"],
        ["-m", "prompt=a red fox", "operators=[swap]", "operators.swap.rows=red,fox"],
    ]
    code = (
        "import sys\n"
        "from embedlab.cli.main import main\n"
        f"for words in {tried!r}:\n"
        f"    sys.argv = ['embedlab', *words, *{folders!r}]\n"
        "    try: main()\n"
        "    except SystemExit as error: assert error.code == 2, words\n"
        "    else: raise AssertionError(words)\n"
        "    assert 'torch' not in sys.modules, words"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    start = "embedlab: operators.{} is not set; it has to be a word of the prompt (a, red, fox): embedlab "
    lacked = ["interpolate.rows"] * 3 + ["replace.rows", "swap.by"]
    for line, words, name in zip(lines, tried, lacked, strict=True):
        assert line.startswith(start.format(name)), line
        command = shlex.split(line.removeprefix(start.format(name)))
        assert command == [
            *(w for w in [*words, *folders] if words[0] != "explain" or not w.startswith("hydra.run")),
            f"operators.{name}=fox",
        ]
    assert not list(tmp_path.iterdir())


def test_a_sweep_over_prompts_is_told_of_each_job_and_all_at_once(embedlab, tmp_path):
    words = ["-m", "prompt=A picture of a puppy,a red fox", "operators=[interpolate],[swap]", "hydra.sweep.dir=sweep"]
    code, _, told = embedlab(*words, "guidance.scale=2,nan")
    lines = told.splitlines()
    assert code == 2
    assert lines[0].startswith("embedlab: 2 jobs, first job 1 (prompt=A\\ picture\\ of\\ a\\ puppy,operators=[inter")
    assert lines[0].endswith("guidance.scale is nan; it has to be a finite number.")
    assert lines[1].startswith("embedlab: 2 jobs, first job 4 (prompt=a\\ red\\ fox,operators=[interpolate],")
    assert lines[1].endswith("word of the prompt (a, red, fox): operators.interpolate.rows=fox")
    assert lines[2].startswith("embedlab: 2 jobs, first job 6 (prompt=a\\ red\\ fox,operators=[swap],")
    assert lines[2].endswith("(a, red, fox): operators.swap.rows=red operators.swap.by=fox")
    assert lines[3:] == ["embedlab: nothing was generated; 6 of 8 jobs are wrong."]
    assert not (tmp_path / "sweep").exists()


def test_help_lists_commands_choices_and_settings_with_their_comments(monkeypatch, capsys):
    def printed(*words):
        monkeypatch.setattr(sys, "argv", ["embedlab", *words])
        app.main()
        return capsys.readouterr().out

    told = printed("--help")
    for command in ("explain", "gallery", "sheet", "film", "replay", "anatomy", "profile", "learn", "sync"):
        assert f"  {command.ljust(7)}  {usage.COMMANDS[command][1]}\n" in told
    assert "embedlab experiment=puppy_to_cat" in told
    assert "ddim (default), ddpm" in told
    assert re.search(r"\n  sampler.steps=25 +denoising steps\n", told)
    assert re.search(r"\n  seeds=\[0, 1, 2, 3\] +one picture each\n", told)
    assert "operators.interpolate" not in told.partition("Settings")[2].partition("Where things go")[0]
    chosen = printed("operators=[interpolate]", "start=picture", "--help")
    assert re.search(r"\n  operators.interpolate.path=lerp +lerp, slerp", chosen)
    assert "start.picture=???" in chosen
    assert all(len(line) <= 120 for line in told.splitlines())
    assert printed("--version") == "embedlab 0.2.0\n"
    with pytest.raises(SystemExit):
        printed("help", "film")
    assert capsys.readouterr().out.startswith("usage: embedlab film ")
    assert printed("explain", "--help").startswith("usage: embedlab explain [SETTINGS]\n")
    assert printed("profile", "--help").startswith("usage: embedlab profile [SETTINGS] [out=FILE] [trace=FILE]\n")


def test_one_job_writes_pictures_result_and_sheet(tmp_path):
    words = ["operators=[replace]", *FAST, f"hydra.run.dir={tmp_path}/out"]
    done = subprocess.run([sys.executable, "-m", "embedlab", *words], capture_output=True, text=True, cwd=tmp_path)
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


def test_a_sweep_loads_its_model_once_and_ends_in_one_sheet(forks, tmp_path):
    code = (
        "import sys\n"
        "sys.argv = ['embedlab', '-m', 'operators=[interpolate]', 'operators.interpolate.weight=0,0.5,1', "
        f"'hydra.sweep.dir={tmp_path}/sweep', *{FAST!r}]\n"
        "from embedlab.models.loading import models_read\n"
        "from embedlab.cli.main import main\n"
        "before = models_read()\n"
        "main()\n"
        "assert models_read() == before + 1"
    )
    done = forks.python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "sweep"
    results = [json.loads((sweep / str(n) / "result.json").read_text()) for n in range(3)]
    assert [r["scores"]["change/ssim"] == 1 for r in results] == [True, False, False]
    assert (sweep / "sheet.png").exists()
    assert len((sweep / "results.csv").read_text().splitlines()) == 1 + 3 * 2
    assert "puppy → 0.5 skunk" in done.stdout


BAD = {
    "operators=[replace] operators.replace.rows=kitten": "'kitten' is not in the prompt; its words are A, picture, of,",
    "operators=[replace] operators.replace.by=pomeranian": "'puppy' has 1 token and 'pomeranian' has 2",
    "operators=[interpolate] operators.interpolate.weight=nan": "weight is nan; it has to be a finite number",
    "operators=[interpolate] operators.interpolate.weight=half": "weight is 'half'; it has to be a finite number",
    "operators=[replac]": "'operators=[replace]'; operators: choose one of add, average, blend",
    "model.name=emogi": "there is no model 'emogi'",
    "model.device=cuda:7": "device 'cuda:7' was asked for",
    "model=custom model.name=/nowhere": "there is no model '/nowhere'",
    "sampler=dimm": "sampler=ddim; sampler: choose one of ddim, ddpm",
    "sampler.scheduler=dimm": "sampler.scheduler is 'dimm'; choose one of ddim",
    "sampler.steps=0": "sampler.steps is 0",
    "sampler.steps=-1": "sampler.steps is -1",
    "sampler.stepz=3": "sampler.steps=3",
    "promt=cat": "prompt=cat",
    "+foo=1": "there is no setting 'foo'",
    "~model": "'model' cannot be left out",
    "operators.replace.by=cat": "there is no operator 'replace' in this run; try: embedlab",
    "operators=[noise] operators.noise.amout=1": "the operator 'noise' has no setting 'amout'",
    "+operators.x=5": "5 is no operator",
    "operators=[replace] +operators.replace._partial_=true": "is no operator",
    "operators=[replace] operators.replace.rows=99": "there is no row 99; this prompt has rows 0 to 76",
    "operators=[replace] operators.replace.rows=null": "rows is None; it has to be a word, a row number, a selector",
    "prompt=cat,dog": """For one text quote it twice: 'prompt="cat,dog"'; for a sweep over its parts add -m.""",
    "prompt=(cat:1.2)": """is not in Hydra's syntax; a text with signs in it is quoted twice: 'prompt="(cat:1.2)"'""",
    "size=abc": "size is 'abc'; it has to be one side or [height, width] in pixels",
    "size=[128]": "size is [128]",
    "size=8000000": "is not between 1 and 8192 pixels",
    "encoder.skip=99": "encoder.skip is 99, but the part 'text_encoder' has 4 layers; skip 4 at the most",
    "start=picture start.picture=puppy.png start.strength=0.01": "of 25 steps none would be run; take 0.04 or more",
    "seeds=[0,0]": "seed 0 is there twice",
    "metrics.words=cat": "metrics.words is 'cat'; it has to be a list",
    "metrics.words=[null]": "metrics.words holds None",
    "metrics.eye=1": "metrics.eye is 1; it has to be true or false",
    "metrics.template=a": "it needs one {}, where the word goes",
    "model.device=gpu": "'gpu' is no device that embedlab runs on",
    "tracker.tags=abc": "tracker.tags is 'abc'; it has to be a list",
    "group=5": "group is 5; it has to be a text",
    "+sampler.stepz=3": "Sampler has no setting 'stepz'",
    "size=100": "a size of 100 is no multiple of the VAE factor 8; try 96",
    "start=inversion": "start.picture is still to be given: the path of a picture, or one that ships",
    "start=latents": "start.latents is still to be given",
    "start=picture start.picture=/nowhere.png start.step=3": "there is no picture '/nowhere.png'",
    "start=picture start.picture=puppy.png start.step=25": "start.step is 25, past the end",
    "encoder.join=glue": "encoder.join is 'glue'; choose one of windows, run, copied, merged, truncate",
    "guidance.scale=x": "guidance.scale is 'x'",
    "seeds=[]": "seeds is []",
    "seeds=[-1]": "seed -1 is no whole number",
    "tracker=null": "mlflow, several, silent, tensorboard, trackio, wandb; tracker=silent logs nothing",
    "tracker.mode=offlin": "tracker.mode is 'offlin'",
    "at_once=0": "at_once is 0",
    "export=2": "export is 2; it has to be true or false",
    "explain=please": "explain is 'please'; it has to be true or false",
    "operators=[replace] operators.replace.rows={rol:eos}": "a selector has no 'rol'; it has word, nth, tokens, role",
    "operators=[replace] operators.replace.stage=hidden": "Say which rows of it: {prompt: cat, rows: …}",
    "operators=[scale] operators.scale.by={_target_:embedlab.schedule.Ramp,values:[1,2],at:[0.5,0.2]}": "out of order",
    "operators=[scale] operators.scale.by={_target_:embedlab.schedule.Switch,values:[1,2],at:30,clock:step}": "past",
    "prompt={_target_:embedlab.schedule.Switch,values:[cat,dog],at:0.5} operators=[replace]": "to be a word of all its "
    "prompts, which have none in common: ",
    "prompt=fox operators=[add,swap]": "operators.add.rows, operators.swap.rows, operators.swap.by are not set; each "
    "has to be a word of the prompt (fox): embedlab ",
    "encoder.skip={0:0.5,1:0.1}": "the weights of encoder.skip, 0.5, 0.1, do not sum to 1",
    "explain operators=[replace] operators.replace.rows=kitten": "'kitten' is not in the prompt",
    "-m explain": "explain takes one cell",
    "+operators.x._target_=embedlab.operators.Repalce": "there is no 'embedlab.operators.Repalce' to be imported",
    "operators=[average] operators.average.rows={word:kitten}": "'kitten' is not in the prompt",
    "operators=[stretch] operators.stretch.factor=1e12": "it has to be 1 or more, and 64 at most",
    "operators=[truncate] operators.truncate.to=100": "to is 100; 77 rows reach the UNet",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_and_exit_code_2_before_weights(words, tmp_path, monkeypatch, capsys, unread):
    """In this process, so that it is quick; weights must not be touched."""
    monkeypatch.chdir(tmp_path)
    offline = [] if "tracker.mode" in words else ["tracker.mode=offline"]
    monkeypatch.setattr(sys, "argv", ["embedlab", *offline, f"hydra.run.dir={tmp_path}/out", *words.split()])
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert BAD[words] in lines[0]
    assert not list(tmp_path.rglob("*.png"))
    assert not list(tmp_path.rglob("result.json"))
    assert not (tmp_path / "out").exists(), "nothing stays of a job that was refused"


def test_explain_prints_the_table_and_writes_nothing(forks, tmp_path):
    done = forks.embedlab("explain", "experiment=puppy_and_skunk", "operators.interpolate.weight=0.5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "puppy → 0.5 skunk" in done.stdout
    assert "6829" in done.stdout
    assert not list(tmp_path.iterdir())


def test_what_a_tracker_refuses_is_known_before_anything_is_drawn(forks, tmp_path):
    words = ["tracker=wandb", *(word for word in FAST if not word.startswith("tracker"))]
    done = forks.embedlab(*words, f"hydra.run.dir={tmp_path}/out", cwd=tmp_path, env={"WANDB_MODE": "bananas"})
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "bananas" in done.stderr
    assert not list(tmp_path.rglob("*.png"))


def test_a_refused_job_of_a_sweep_is_named_and_another_result_is_not_overwritten(forks, tmp_path):
    done = forks.embedlab(*FAST, "-m", "guidance.scale=nan,2", f"hydra.sweep.dir={tmp_path}/sweep", cwd=tmp_path)
    assert done.returncode == 2
    assert "embedlab: job 0 (guidance.scale=nan" in done.stderr
    first = forks.embedlab(*FAST, f"hydra.run.dir={tmp_path}/out", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    kept = (tmp_path / "out" / "result.json").read_text()
    other = forks.embedlab(*FAST, "guidance.scale=2", f"hydra.run.dir={tmp_path}/out", cwd=tmp_path)
    assert other.returncode == 2
    assert "holds another result (other settings: " in other.stderr
    assert (tmp_path / "out" / "result.json").read_text() == kept


def test_a_folder_that_cannot_be_written_is_one_line(forks, tmp_path):
    (tmp_path / "file").write_text("")
    done = forks.embedlab(*FAST, f"hydra.run.dir={tmp_path}/file/out", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cannot be written" in done.stderr


def test_an_empty_prompt_and_one_of_ten_thousand_words_are_fine(forks, tmp_path):
    done = forks.embedlab("prompt=''", *FAST, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    long = "prompt=" + "cat " * 10_000
    done = forks.embedlab(long, "sampler.steps=1", "tracker=silent", "seeds=[0]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "notice: the prompt has 10000 tokens and runs in 134 windows of 75." in done.stdout


def test_secrets_of_the_environment_are_not_logged(forks, tmp_path):
    environment = {"MY_API_KEY": "s3cret-value-0"}
    words = ["group=${oc.env:MY_API_KEY}", "prompt=a s3cret-value-0", *FAST, f"hydra.run.dir={tmp_path}/out"]
    done = forks.embedlab(*words, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    made = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"result.json", "seed-0.png", "config.yaml", "overrides.yaml", "hydra.yaml"} <= made.keys()
    assert [name for name, data in made.items() if b"s3cret" in data] == []


ODD = """
=5
~operators
~model
+sampler=euler
+experiment=demo
++foo.bar=3
/sampler=euler
sampler@foo=euler
sampler.steps
sampler.steps:3
sampler..steps=3
sampler.steps=range(3)
sampler.steps=
sampler={steps:3}
tracker=[wandb,disk]
tracker=wandb,disk
encoder=null
operators=[null]
operators=[1]
operators=[[replace]]
operators={replace:1}
operators=null
operators=[interpolate] operators[0].weight=1
operators=[interpolate] operators.interpolate=5
+operators.x={}
+operators.x={_target_:5}
+operators.x={_target_:embedlab.operators.Scale}
+operators.x._target_=
model._target_=os.system
seeds=1,2,3
seeds=[0,1
size=64,64
prompt=5
prompt=[a]
prompt=null
prompt=${prompt}
prompt=${nope}
prompt=${nope:1}
prompt=${oc.env:NOT_THERE}
prompt=${oc.decode:[}
prompt=${
a puppy
explian
operators=[replace] gallery
resume
resume=nowhere
-m resume=
-m operators=[null],[replace]
-m sampler.steps=range(0,5,0)
-m sampler.steps=range(5,0)
-m sampler.steps=range(a,b)
-m sampler.steps=choice()
-m sampler.steps=glob(*)
-m sampler.steps=interval(0,1)
-m sampler.steps=1,
-m sampler=glob(zzz*)
-m sampler=glob()
-m hydra/launcher=nope
-m hydra/sweeper=nope
-m hydra.sweep.dir=
-m hydra.sweeper.max_batch_size=0
-m hydra.launcher.nope=3
-m -r
-s
-sc query=bash
-x
-n 3
--nope
--steps 5
--prompt=cat
--resolve
--run --multirun
--cfg
--cfg nope
--info nope
--config-name
--config-name nope
--config-name pretrain
--config-path nope
--config-dir nope
--experimental-rerun nope
hydra=null
hydra.nope=1
hydra.mode=FOO
hydra.run.dir=null
hydra.run.dir=[1]
hydra.run.dir=${nope}
hydra.callbacks=null
hydra.callbacks.x._target_=nope.Nope
hydra.searchpath=5
hydra.job.chdir=perhaps
hydra.job_logging.root.level=LOUD
hydra.hydra_logging.root.level=LOUD
hydra/job_logging=nope
~hydra
~hydra.callbacks
""".strip().splitlines()


@pytest.mark.turns
@pytest.mark.parametrize("words", ODD)
def test_odd_words_are_one_line_too(words, tmp_path, monkeypatch, capsys, unread):
    monkeypatch.delenv("COMP_LINE", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["embedlab", *words.split()])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out in ("", "checking the settings …\n")
    assert len(said.err.splitlines()) == 1, said.err
    assert said.err.startswith("embedlab: ")
    assert not {"Traceback", "object_type", "full_key", "HYDRA_FULL_ERROR"} & set(re.findall(r"\w+", said.err))


SAID = {
    "prompt=A red fox": "'red' is no setting; a text of several words is quoted: 'prompt=A red fox'",
    "size=64 a red fox": "there is no command 'a'; there are explain, gallery, play, sheet, film, replay, anatomy, "
    "profile, learn, sync, and settings: KEY=VALUE (a text of several words is quoted: 'prompt=a puppy').",
    "operators=scale,shift": "operators takes a list: 'operators=[scale,shift]' applies them in this order; for a "
    "sweep over its parts add -m.",
    "-m steps=5,10": "there is no setting 'steps'; try: embedlab -m sampler.steps=5,10",
    "--steps 5 --seed=3": "there is no flag --steps; settings are written without dashes: embedlab sampler.steps=5 "
    "'seeds=[3]'",
    "explian": "there is no command 'explian'; try: embedlab explain",
}


@pytest.mark.parametrize("words", SAID)
def test_a_line_says_what_to_type(words, embedlab):
    assert embedlab(*words.split(), plain=True)[::2] == (2, f"embedlab: {SAID[words]}\n")


def test_an_empty_folder_is_refused_and_the_one_that_one_is_in_stays(embedlab, tmp_path):
    (tmp_path / "mine.txt").write_text("")
    code, _, err = embedlab("hydra.run.dir=")
    assert (code, err) == (2, "embedlab: hydra.run.dir is empty; it has to be a folder, or be left out.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("command", ["gallery", "sheet", "film", "replay", "sync"])
def test_words_that_a_command_does_not_take_are_one_line(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["embedlab", command, "here", "--nope"])
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"embedlab: {command}: unrecognized arguments: --nope; embedlab {command} --help says what it takes.\n"
    )


FULL = """
    import re, resource, sys
    from embedlab.cli import main as app
    sys.argv = {words!r}
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    def full(event, given):
        if event in ("open", "os.remove") and re.search({file!r}, str(given[0])):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100 if event == "open" else hard, hard))
    sys.addaudithook(full)
    app.main()
"""


@pytest.mark.parametrize(
    ("words", "file", "named"),
    [
        ([], r"/\.cells/.*\.safetensors", "out/.cells"),
        ([], r"/\.?seed-0\.png", "out/seed-0.png"),
        (["tracker=disk"], r"/\.?pictures_table\.json", "out/log/pictures_table.json"),
        (["export=true"], r"/\.?conditioning\.safetensors", "conditioning.safetensors"),
        (["-m", "guidance.scale=2,3"], r"/\.?multirun\.yaml", "a file of this run"),
    ],
)
def test_a_full_disk_names_the_file_that_it_hit(forks, tmp_path, words, file, named):
    """The disk is full from when the file is opened until it is removed: a limit on sizes gives a reason, no name."""
    where = "hydra.sweep.dir=out" if "-m" in words else "hydra.run.dir=out"
    given = ["embedlab", *words, where, *(word for word in FAST if word.split("=")[0] not in str(words))]
    code = FULL.format(words=given, file=file)
    done = forks.python(textwrap.dedent(code), cwd=tmp_path)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert "standard output" not in done.stderr
    assert named in done.stderr
    assert "File too large" in done.stderr


def test_standard_output_that_is_full_is_named(tmp_path):
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "embedlab", *FAST, "hydra.run.dir=out"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "embedlab: 'standard output' cannot be written: No space left on device." in done.stderr
