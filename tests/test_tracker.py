"""The trackers, by reading back what they wrote."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from embedlab.cli.commands import sync
from embedlab.errors import ConfigError
from embedlab.tracker import About, Disk, Several, Silent, Wandb
from embedlab.tracker.protocol import run_of


def records(folder) -> list[dict]:
    """All records of the one offline run below a folder, by wandb's own reader."""
    (file,) = folder.rglob("*.wandb")
    out = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [json.loads(line) for line in out.splitlines()]


def fill(tracker, folder):
    with tracker.run(
        "a name", folder, {"prompt": "a puppy", "operators": {"replace": {"by": "cat"}}}, group="sweep 1"
    ) as run:
        run.pictures("steps/x0", [(Image.new("RGB", (8, 8), "red"), "seed 0, step 2")], step=2)
        run.pictures("pictures", [(Image.new("RGB", (8, 8), c), f"seed {n}") for n, c in enumerate(("blue", "green"))])
        run.table("pictures_table", ["picture", "seed", "score"], [[Image.new("RGB", (8, 8), "white"), 0, 31.5]])
        run.curves("lengths over weight", "weight", [0, 1], {"mean": [0.5, 0.25], "lowest": [0.5, 0.125]})
        file = folder.parent / "rows.bin"
        file.write_bytes(b"rows")
        run.file("conditioning", file)
        run.scores({"clip_score/cat": 31.5, "change/ssim": 0.25})


def test_an_offline_wandb_run_holds_what_was_logged(tmp_path):
    fill(Wandb(), tmp_path)
    text = json.dumps(records(tmp_path))
    for expected in (
        "clip_score/cat",
        "31.5",
        "change/ssim",
        "sweep 1",
        "a name",
        "pictures_table",
        "seed 0, step 2",
        "puppy",
    ):
        assert expected in text, expected
    media = [path.name for path in tmp_path.rglob("media/**/*.png")]
    assert len(media) == 3, "those of the table are kept with the table"
    assert "lengths over weight" in text
    assert "conditioning" in text, "the artifact"
    (table,) = tmp_path.rglob("media/table/pictures*.json")
    assert json.loads(table.read_text())["data"][0][1:] == [0, 31.5]
    assert not (tmp_path / "wandb" / "latest-run" / "files" / "config.yaml").exists(), (
        "offline runs are read from the .wandb file"
    )


def test_disk_holds_the_same_in_plain_files(tmp_path):
    fill(Disk(), tmp_path)
    log = tmp_path / "log"
    assert json.loads((log / "run.json").read_text())["group"] == "sweep 1"
    assert json.loads((log / "scores.jsonl").read_text()) == {"step": None, "clip_score/cat": 31.5, "change/ssim": 0.25}
    captions = [json.loads(line)["caption"] for line in (log / "pictures.jsonl").read_text().splitlines()]
    assert captions == ["seed 0, step 2", "seed 0", "seed 1"]
    assert json.loads((log / "pictures_table.json").read_text())["rows"] == [[None, 0, 31.5]]


def test_what_disk_has_written_is_whole_when_it_is_killed(tmp_path):
    """A picture that takes long to write stands for a kill in the middle of it."""
    code = f"""
        import os
        from pathlib import Path
        from PIL import Image
        from embedlab.tracker import Disk

        class Slow(Image.Image):
            def save(self, file, **how):
                file.write(b"half a pict")
                file.flush()
                os.kill(os.getpid(), 9)

        with Disk().run("one", Path({str(tmp_path)!r}), {{}}) as run:
            run.pictures("sheet", [(Image.new("RGB", (8, 8)), "whole")])
            run.scores({{"change/ssim": 0.5}})
            run.pictures("sheet", [(Slow(), "half")])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert done.returncode == -signal.SIGKILL
    log = tmp_path / "log"
    assert Image.open(log / "sheet-0.png").size == (8, 8), "the picture of before is still there"
    assert json.loads((log / "scores.jsonl").read_text()) == {"step": None, "change/ssim": 0.5}
    assert [json.loads(line)["caption"] for line in (log / "pictures.jsonl").read_text().splitlines()] == ["whole"]


def test_silent_writes_nothing_and_several_write_everywhere(tmp_path):
    fill(Silent(), tmp_path / "silent")
    assert not (tmp_path / "silent").exists()
    fill(Several([Disk(), Wandb()]), tmp_path / "both")
    assert (tmp_path / "both" / "log" / "scores.jsonl").exists()
    assert list((tmp_path / "both").rglob("*.wandb"))


def test_a_run_is_closed_when_its_job_fails_and_the_next_is_a_new_one(tmp_path):
    with pytest.raises(RuntimeError, match="on purpose"), Wandb().run("one", tmp_path / "one", {}):
        raise RuntimeError("on purpose")
    fill(Wandb(), tmp_path / "two")
    exits = [r for r in records(tmp_path / "one") if "exit" in json.dumps(r)]
    assert exits
    assert "a name" in json.dumps(records(tmp_path / "two"))


def test_a_terminated_process_leaves_a_complete_offline_run(tmp_path):
    code = f"""
        import time
        from pathlib import Path
        from embedlab.tracker import Wandb
        with Wandb().run("one", Path({str(tmp_path)!r}), {{}}) as run:
            run.scores({{"clip_score/cat": 12.5}})
            print("ready", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "ready" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == -signal.SIGTERM
    text = json.dumps(records(tmp_path))
    assert "12.5" in text
    assert "143" in text


def test_online_without_a_key_is_an_error_at_once_and_never_a_question(tmp_path, monkeypatch):
    for name in [n for n in os.environ if n.startswith("WANDB_API")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="wandb: "), Wandb(mode="online").run("a", tmp_path, {}):
        pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"mode": "on"}, "tracker.mode is 'on'; choose one of offline"), ({"project": "a/b"}, "tracker.project is 'a/b'")],
)
def test_wrong_settings_are_one_clear_line(settings, message):
    with pytest.raises(ConfigError, match=message):
        Wandb(**settings)


def test_trackio_holds_the_same_and_is_read_back(tmp_path):
    code = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_tracker import fill
        from embedlab.tracker import Trackio
        tracker = Trackio(project="embedlab-test")
        tracker.ready()
        fill(tracker, Path({str(tmp_path)!r}))
        import trackio
        (run,) = trackio.Api().runs("embedlab-test")
        print(run.name, run.config["prompt"] if "prompt" in run.config else run.config)
    """
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "a name" in done.stdout
    assert "puppy" in done.stdout
    (file,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(file) as base:
        rows = [row[0] for row in base.execute("select metrics from metrics")]
    text = " ".join(row if isinstance(row, str) else row.decode() for row in rows)
    for expected in (
        "clip_score/cat",
        "31.5",
        "change/ssim",
        "pictures_table",
        "seed 0, step 2",
        "lengths over weight",
    ):
        assert expected in text, expected


def test_sync_says_what_holds_no_runs(tmp_path):
    with pytest.raises(ConfigError, match="holds no offline wandb runs"):
        sync.main([str(tmp_path)])
    with pytest.raises(ConfigError, match="there is no folder"):
        sync.main([str(tmp_path / "nowhere")])


class Older:
    """A tracker of somebody's own, from before runs said what they are about."""

    def ready(self):
        pass

    @contextmanager
    def run(self, name, folder, config, group=None):
        yield name, folder, config, group


def test_a_tracker_of_before_is_not_told_what_a_run_is_about(tmp_path):
    about = About("sweep", ("study",), "Does it?")
    with run_of(Older(), "one", tmp_path, {"size": 64}, "group", about) as told:
        assert told == ("one", tmp_path, {"size": 64}, "group")
    with Disk().run("one", tmp_path, {}, "group", about):
        pass
    known = json.loads((tmp_path / "log" / "run.json").read_text())
    assert (known["kind"], known["tags"], known["notes"]) == ("sweep", ["study"], "Does it?")
