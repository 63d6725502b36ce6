"""What dashboards are told of a sweep, read back from what they wrote: one sweep of two axes and two seeds, for all."""

import io
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from wandb_backend import serving

from embedlab.cli import main as app
from embedlab.cli.commands import sync
from embedlab.cli.resume import resume_command
from embedlab.errors import ConfigError
from embedlab.sweep.result import Result
from embedlab.sweep.results import collect
from embedlab.tracker import MLflow, Several, TensorBoard, Trackio, wandb_files
from embedlab.tracker.protocol import safe
from embedlab.tracker.tensorboard import markdown
from embedlab.tracker.wandb_files import bring_home

STUDY = ["experiment=puppy_and_skunk", "sampler.steps=1", "seeds=[0,1]", "model.device=cpu"]
AXES = ["operators.interpolate.toward=skunk,cat", "operators.interpolate.weight=1,0.5"]
NAMES = ["puppy → 1 skunk", "puppy → 1 cat", "puppy → 0.5 skunk", "puppy → 0.5 cat"]


@dataclass(frozen=True)
class Told:
    """A sweep that was logged: where it is, what the command printed, and its results."""

    folder: Path
    printed: str
    results: list[Result]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The sweep, logged by every tracker that writes files."""
    folder = tmp_path_factory.mktemp("told") / "out"
    several = ["tracker=several", "tracker.trackers=[wandb,tensorboard,mlflow,trackio]"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(folder.parent / "trackio"))
        printed = run(folder.parent, *STUDY, *AXES, *several, f"hydra.sweep.dir={folder}")
    return Told(folder, printed, collect(folder))


def run(folder, *words):
    """The command in this process; what it printed."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["embedlab", *words])
        try:
            app.main()
        except SystemExit as error:
            raise AssertionError(f"it ended with {error.code}: {out.getvalue()}") from error
    return out.getvalue()


# ── wandb ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def server(told, tmp_path_factory):
    """A server that got the sweep from another machine: a copy of its folder, another home, and nothing else."""
    away, home, here = tmp_path_factory.mktemp("away") / "copy", *map(tmp_path_factory.mktemp, ("home", "here"))
    shutil.copytree(told.folder, away, symlinks=True)
    gone = told.folder.rename(told.folder.with_name("gone"))
    try:
        with serving() as (backend, url):
            words = [sys.executable, "-m", "embedlab", "sync", str(away), "--report"]
            how = {"cwd": here, "capture_output": True, "text": True, "env": environment(home, url)}
            done = subprocess.run(words, **how)
            known = json.loads((away / "report.json").read_text())
            again = subprocess.run(words, **how)
    finally:
        gone.rename(told.folder)
    assert done.returncode == again.returncode == 0, done.stderr + again.stderr
    spec, runs, report = done.stdout.splitlines()
    assert spec == f"The report's spec is in {away / 'report.json'}."
    assert runs == "On the server: 5 runs."
    assert report == f"The report: {known['url']}"
    assert not list(home.rglob("*staging*")), "nothing came from a home, and nothing is left in one"
    assert not list(here.iterdir()), "nor where the command was typed"
    return backend


def environment(home, url):
    """Of somebody with an account at a server, and with a home where nothing is."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return {**own, "HOME": str(home), "WANDB_BASE_URL": url, "WANDB_API_KEY": "x" * 40}


def run_called(server, name):
    (found,) = (run for run, about in server.runs.items() if about["displayName"] == name)
    return found


def test_wandb_runs_are_named_grouped_and_say_what_is_asked(told, server):
    assert {about["displayName"] for about in server.runs.values()} == {*NAMES, "sweep out"}
    for about in server.runs.values():
        assert about["groupName"] == "out"
        assert about["jobType"] == ("sweep" if about["displayName"] == "sweep out" else "job")
        assert about["tags"] == ["puppy_and_skunk", "emoji"]
        assert about["notes"].startswith("Between two words: at which weight does a puppy become a skunk")


def test_the_config_of_wandb_runs_has_one_shape(told, server):
    configs = {about["displayName"]: server.config(run) for run, about in server.runs.items()}
    for config in configs.values():
        assert config["sampler"]["steps"] == 1
        assert config["versions"].keys() >= {"embedlab", "torch", "diffusers", "transformers"}
        sizes = config["parameters"]
        assert sizes["all"] == sizes["unet"] + sizes["vae"] + sizes["text_encoder"] > 10_000_000
        assert not {"tracker", "store", "explain", "kind"} & config.keys(), "nothing that no result depends on"
    assert configs["puppy → 0.5 cat"]["axes"] == {"toward": "cat", "weight": 0.5}, "what varies, and nothing else"
    assert configs["puppy → 0.5 cat"]["operators"]["interpolate"]["weight"] == 0.5
    whole = configs["sweep out"]
    assert whole["axes"] == {"toward": ["skunk", "cat"], "weight": [1, 0.5], "seed": [0, 1]}
    assert "weight" not in whole["operators"]["interpolate"], "of the settings, those that all jobs share"
    assert whole["operators"]["interpolate"]["rows"] == "puppy"


def test_every_summary_of_wandb_is_a_number_of_one_meaning(told, server):
    for result, name in zip(told.results, NAMES, strict=True):
        summary = server.summary(run_called(server, name))
        figures = {
            key: value for key, value in summary.items() if not key.startswith("_") and "_type" not in str(value)
        }
        assert figures.keys() == result.scores.keys(), "the means of the job, and no figure of one seed"
        for score, value in result.scores.items():
            assert figures[score] == pytest.approx(value, abs=1e-5), score
    whole = server.summary(run_called(server, "sweep out"))
    assert [whole[f"sweep/{key}"] for key in ("jobs", "pictures", "failed")] == [4, 8, 0]
    assert whole["seconds/all"] > whole["seconds/UNet"] > 0
    assert whole["sweep/pictures_per_second"] == pytest.approx(10 / whole["seconds/all"], rel=1e-3), "two are unedited"
    assert whole["memory/peak_bytes"] > 100_000_000
    assert whole["unet/rows_asked"] >= whole["unet/rows"] > 0


def test_nothing_of_wandb_is_drawn_over_seeds(server):
    for lines in server.lines.values():
        points = [json.loads(line) for line in lines["wandb-history.jsonl"].values()]
        keys = [key for point in points for key in point if not key.startswith("_")]
        assert len(keys) == len(set(keys)), "no figure comes twice"
        assert not [key for key in keys if "seed" in key]


def table_of(server, run, key):
    """A table that was sent: its rows by the names of its columns, and the pictures in it."""
    files = server.pictures_of(f"run-{run}-{key}")
    table = json.loads(files[f"{key}.table.json"])
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]], files


def test_wandbs_table_has_axes_as_columns_and_the_unedited_picture_beside(told, server):
    rows, files = table_of(server, run_called(server, "sweep out"), "results")
    assert list(rows[0])[:6] == ["picture", "unedited", "weight", "toward", "seed", "edited tokens"]
    assert [(row["toward"], row["weight"], row["seed"]) for row in rows] == [
        (toward, weight, seed) for weight in (1, 0.5) for toward in ("skunk", "cat") for seed in (0, 1)
    ]
    assert {row["edited tokens"] for row in rows} == {"puppy"}
    first = told.results[0]
    assert rows[0]["change/ssim"] == pytest.approx(first.pictures[0].measured["change/ssim"], abs=1e-5)
    for row in rows:
        pictures = [row["picture"]["path"], row["unedited"]["path"]]
        assert len({files[path][:8] for path in pictures}) == 1, "both were sent"
        assert files[pictures[0]].startswith(b"\x89PNG")
        assert pictures[0] != pictures[1]
    assert len({row["unedited"]["path"] for row in rows}) == 2, "one a seed"
    mine, _ = table_of(server, run_called(server, "puppy → 0.5 skunk"), "pictures_table")
    assert [(row["toward"], row["weight"], row["seed"]) for row in mine] == [("skunk", 0.5, 0), ("skunk", 0.5, 1)]


def test_wandbs_curves_have_a_line_for_each_value_of_the_other_axes(server):
    run = run_called(server, "sweep out")
    ((_, curve),) = (
        item for item in server.files.items() if f"{run}/media/table/change/ssim%20over%20weight" in item[0]
    )
    lines = json.loads(curve)["data"]
    assert {(row[0], row[1]) for row in lines} == {(w, f"toward {t}") for w in (0.5, 1) for t in ("cat", "skunk")}


def panels_of(spec):
    """The panels of a report by their kinds, each with the filters of its runs."""
    found = {}
    for block in spec["blocks"]:
        if block["type"] == "panel-grid":
            (runs,) = block["metadata"]["runSets"]
            kept = {one["key"]["name"]: one["value"] for one in runs["filters"]["filters"]}
            for panel in block["metadata"]["panelBankSectionConfig"]["panels"]:
                found.setdefault(panel["viewType"], []).append((panel["config"], kept, panel["layout"]))
    return found


def test_a_report_shows_images_by_axes_scores_over_axes_and_all_in_parallel(told, server, capsys):
    sync.main([str(told.folder), "--report", "--offline"])
    assert capsys.readouterr().out == f"The report's spec is in {told.folder / 'report.json'}.\n"
    report = json.loads((told.folder / "report.json").read_text())
    assert (report["title"], report["project"], report.get("id")) == ("out", "embedlab", None)
    panels = panels_of(report["spec"])
    ((pictures, runs, _),) = panels["Media Browser"]
    assert pictures["mediaKeys"] == ["pictures"]
    assert pictures["gridSettings"] == {"xAxis": "run", "yAxis": "index"}
    assert runs == {"jobType": "job", "group": "out"}
    ((table, runs, _),) = panels["Weave"]
    assert "results" in json.dumps(table)
    assert runs == {"jobType": "sweep", "group": "out"}
    scores = [key for key in told.results[0].scores if not key.startswith(("rows/", "conditioning/"))]
    ((parallel, runs, _),) = panels["Parallel Coordinates Plot"]
    columns = [one["accessor"] for one in parallel["columns"]]
    axes = ["config:axes.value.weight", "config:axes.value.toward"]
    assert columns == [*axes, *(f"summary:{score}" for score in scores)]
    bands = [config for config, _, _ in panels["Scatter Plot"]]
    assert [(one["xAxis"], one["yAxis"]) for one in bands] == [(axes[0], f"summary:{score}") for score in scores]
    assert all(one["showMinYAxisLine"] and one["showMaxYAxisLine"] and one["showAvgYAxisLine"] for one in bands)
    places = [tuple(layout.values()) for _, _, layout in panels["Scatter Plot"]]
    assert len(set(places)) == len(places), "none lies on another"

    # what it asks for is there: keys of the config, scores, and tables of the sweep's run
    config = server.config(run_called(server, NAMES[0]))
    assert all(accessor.rpartition(".")[2] in config["axes"] for accessor in axes)
    summary = server.summary(run_called(server, "sweep out"))
    asked = [
        query["args"][0]["value"]
        for config, _, _ in panels["Vega2"]
        for query in config["userQuery"]["queryFields"][0]["fields"]
        if query["name"] == "summaryTable"
    ]
    assert len(asked) == len(scores)
    assert all(summary[key]["_type"] == "table-file" for key in asked)


def test_a_report_that_is_sent_again_is_the_same_one(server):
    first, second = server.reports
    assert (first["id"], second["id"]) == (None, "report1")
    assert first["entityName"] == "somebody"
    assert json.loads(first["spec"])["blocks"]


def test_a_report_needs_a_sweep_and_offline_needs_a_report(told, monkeypatch):
    with pytest.raises(ConfigError, match="has no run of a sweep in wandb, which a report is made of"):
        sync.main([str(told.folder / "0"), "--report", "--offline"])
    with pytest.raises(ConfigError, match="--offline is for --report"):
        sync.main([str(told.folder), "--offline"])
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(
        ConfigError, match=r"--report needs the package wandb_workspaces: pip install 'embedlab\[report"
    ):
        sync.main([str(told.folder), "--report", "--offline"])


def test_a_file_that_is_not_with_its_run_is_said_before_anything_is_sent(told, tmp_path):
    (run,) = (told.folder / "0" / "wandb").glob("offline-run-*")
    copy = shutil.copytree(run, tmp_path / "sweep" / "wandb" / run.name)
    shutil.rmtree(copy / "artifacts" / "staging")
    (told.folder / "0").rename(told.folder / "moved")
    try:
        with pytest.raises(ConfigError, match=r"lacks \d+ files? of its own, first '.*; sync it on the machine"):
            bring_home(copy)
    finally:
        (told.folder / "moved").rename(told.folder / "0")


def test_a_server_that_does_not_answer_is_said_at_once(told, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        words = [sys.executable, "-m", "embedlab", "sync", str(told.folder)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment(tmp_path, url))
    assert done.returncode == 2
    said = (
        f"embedlab: wandb: {url} does not answer (ConnectionError); with tracker.mode=offline runs are written as files"
    )
    assert said in done.stderr


def test_what_a_server_refuses_is_said_and_stays(told, tmp_path):
    copy = shutil.copytree(told.folder / "0", tmp_path / "0", symlinks=True)
    with serving() as (backend, url):
        backend.refuses = True
        words = [sys.executable, "-m", "embedlab", "sync", str(copy)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment(tmp_path, url))
    assert done.returncode == 2
    assert "1 run of 1 not sent" in done.stderr.splitlines()[-1]


def test_a_log_of_wandb_is_written_as_wandb_writes_it(told):
    for file in told.folder.rglob("*.wandb"):
        log = file.read_bytes()
        records = list(wandb_files.records_in(log))
        assert len(records) > 20
        assert wandb_files.log_of(records) == log


# ── TensorBoard ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def boards(told):
    """What TensorBoard reads of each run, by the names of their folders."""
    found = {}
    for folder in (told.folder / "tensorboard").iterdir():
        found[folder.name] = EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0, "scalars": 0})
        found[folder.name].Reload()
    return found


def text_of(board, tag):
    return board.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()


def test_tensorboard_has_a_run_a_job_with_what_varies_beside_its_scores(told, boards):
    assert set(boards) == {"puppy-1-skunk", "puppy-1-cat", "puppy-0.5-skunk", "puppy-0.5-cat", "sweep-out"}
    for result, name in zip(told.results, NAMES, strict=True):
        board = boards[safe(name)]
        for score, value in result.scores.items():
            assert [event.value for event in board.Scalars(score)] == [pytest.approx(value, rel=1e-5)], score
        begun = HParamsPluginData.FromString(board.summary_metadata["_hparams_/session_start_info"].plugin_data.content)
        settings = begun.session_start_info.hparams
        weight, toward = name.split()[2:]
        assert (settings["weight"].number_value, settings["toward"].string_value) == (float(weight), toward)
        assert set(settings) == {"weight", "toward"}
        assert len(board.Images("pictures/0")) == 1
        assert "seed 0, " in board.summary_metadata["pictures/0"].summary_description
        assert "Between two words" in text_of(board, "about")
        assert "&#124;" not in text_of(board, "pictures_table").splitlines()[0]
        assert "| weight | toward | seed | edited tokens |" in text_of(board, "pictures_table")
    assert "_hparams_/session_start_info" not in boards["sweep-out"].summary_metadata
    assert boards["sweep-out"].Scalars("sweep/jobs")[0].value == 4
    (curve,) = boards["sweep-out"].Images("change/ssim over weight")
    assert (curve.width, curve.height) == (640, 400)


# ── MLflow ────────────────────────────────────────────────────────────────────────────────────────────────────────


def runs_of_mlflow(folder):
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("embedlab")
    return client, {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_mlflow_has_the_runs_of_a_sweep_below_that_of_the_sweep(told):
    client, runs = runs_of_mlflow(told.folder)
    assert set(runs) == {*NAMES, "sweep out"}
    whole = runs["sweep out"]
    assert whole.data.metrics["sweep/jobs"] == 4
    assert whole.data.tags["kind"] == "sweep"
    for result, name in zip(told.results, NAMES, strict=True):
        run = runs[name]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == whole.info.run_id
        assert run.data.tags["mlflow.note.content"].startswith("Between two words")
        assert run.data.tags["tags"] == "puppy_and_skunk, emoji"
        assert run.data.metrics == {key: pytest.approx(value) for key, value in result.scores.items()}
        assert run.data.params["axes.weight"] == name.split()[2]
        assert run.data.params["sampler.steps"] == "1"
    files = {file.path for file in client.list_artifacts(whole.info.run_id)}
    assert {"results.json", "sheet", "curves", "table_images"} <= files
    place = Path(client.download_artifacts(whole.info.run_id, "results.json", dst_path=str(told.folder.parent)))
    table = json.loads(place.read_text())
    row = dict(zip(table["columns"], table["data"][0], strict=True))
    assert row["picture"]["type"] == row["unedited"]["type"] == "image"
    assert (row["weight"], row["toward"], row["seed"], row["edited tokens"]) == (1, "skunk", 0, "puppy")


# ── trackio ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_trackio_has_the_same_names_and_tables_and_is_opened_as_the_last_line_says(told):
    with sqlite3.connect(told.folder.parent / "trackio" / "embedlab.db") as base:
        rows = base.execute("select run_name, metrics from metrics").fetchall()
    logged = {name: {} for name in (*NAMES, "sweep out")}
    for name, metrics in rows:
        logged[name] |= json.loads(metrics)
    for result, name in zip(told.results, NAMES, strict=True):
        for score, value in result.scores.items():
            assert logged[name][score] == pytest.approx(value), score
    table = logged["sweep out"]["results"]["_value"]
    assert list(table[0])[:6] == ["picture", "unedited", "weight", "toward", "seed", "edited tokens"]
    assert logged["sweep out"]["change/ssim over weight"]["caption"] == "change/ssim over weight"
    assert told.printed.splitlines()[-1] == "Its dashboard: trackio show --project embedlab"


def test_nothing_is_printed_after_the_end(tmp_path):
    """In a process of its own: trackio would say goodbye when it ends."""
    code = (
        "import sys; from pathlib import Path; from embedlab.tracker import Trackio\n"
        "with Trackio().run('one', Path(sys.argv[1]), {}) as run: run.scores({'a': 1})\n"
        "print('the end')"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "TRACKIO_DIR": str(tmp_path / "base")}
    )
    assert (done.stdout, done.stderr) == ("the end\n", "")


# ── several, and what is not there ────────────────────────────────────────────────────────────────────────────────


def test_a_sweep_that_is_resumed_goes_on_with_its_runs(told, tmp_path):
    """One job is made again: told to all of them anew, each under the id that it had."""
    copy = shutil.copytree(told.folder, tmp_path / "out", symlinks=True)
    (copy / "1" / "result.json").unlink()
    run(tmp_path, "-m", f"resume={copy}", "tracker=several", "tracker.trackers=[wandb,tensorboard,mlflow]")

    def ids(folder):
        boards = {path.parent.name: len(list(path.parent.glob("events*"))) for path in folder.rglob("run-id")}
        runs = {name: run.info.run_id for name, run in runs_of_mlflow(folder)[1].items()}
        return sorted(path.name for path in folder.rglob("*.wandb")), boards, runs

    assert ids(copy) == ids(told.folder)


def test_another_tracker_takes_no_settings_of_the_one_before(told):
    words, _ = resume_command(str(told.folder), ["tracker=mlflow"])
    assert [word for word in words if "tracker" in word] == ["tracker=mlflow"]
    words, _ = resume_command(str(told.folder), ["tracker.trackers=[disk]"])
    assert [word for word in words if "tracker" in word] == ["tracker=several", "tracker.trackers=[disk]"]


def test_each_tracker_of_several_says_how_to_open_it(told):
    assert [line.split(":")[0] for line in told.printed.splitlines()[-4:]] == [
        "Its runs go to wandb with",
        "Its TensorBoard",
        "Its MLflow, at Model training",
        "Its dashboard",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("wandb", r"tracker.trackers is 'wandb'; it has to be a list: \[wandb,tensorboard\]"),
        ([], "it has to be a list"),
        (["wandb", "neptune"], "names 'neptune'; there are disk, mlflow, tensorboard, trackio, wandb"),
        ([5], "tracker is int 5, which is no tracker"),
    ],
)
def test_several_are_named_in_a_list(given, message):
    with pytest.raises(ConfigError, match=message):
        Several(given)


@pytest.mark.parametrize(
    ("tracker", "package", "extra"),
    [
        (Trackio(), "trackio", "trackio"),
        (TensorBoard(), "tensorboard", "tensorboard"),
        (MLflow(), "mlflow", "mlflow"),
        (MLflow(), "alembic", "mlflow"),
        (Several(["disk", "mlflow"]), "sqlalchemy", "mlflow"),
    ],
)
def test_a_package_that_is_missing_is_a_line_that_names_its_extra(monkeypatch, tracker, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs the package {package}: pip install 'embedlab\[{extra}\]'"):
        tracker.ready()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"project": ""}, "tracker.project is ''"), ({"uri": 5}, "tracker.uri is 5; it has to be the address")],
)
def test_wrong_settings_of_mlflow_are_one_clear_line(settings, message):
    with pytest.raises(ConfigError, match=message):
        MLflow(**settings)


def test_mlflow_refuses_a_folder_that_is_no_part_of_an_address(tmp_path):
    with (
        pytest.raises(ConfigError, match=r"name the sweep's folder without #, \?"),
        MLflow().run("a", tmp_path / "a?#", {}),
    ):
        pass
    assert not (tmp_path / "a").exists()


def test_a_table_in_tensorboard_is_text_whatever_users_wrote():
    text = markdown(["a"], [["| <img src=x onerror=alert(1)> **bold** [x](javascript:y)"]])
    assert not {"<", "*", "["} & set(text.splitlines()[-1])
    assert text.splitlines()[-1].count("|") == 2
