"""Files that embedlab 0.1.0 made (tests/fixtures/v0.1) are still read."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import embedlab
from embedlab.cli.commands.film import main as film
from embedlab.cli.commands.gallery import main as gallery
from embedlab.cli.commands.sheet import main as sheet
from embedlab.errors import ConfigError
from embedlab.sweep.axes import axes
from embedlab.sweep.result import Result, read_result, write_result
from embedlab.sweep.results import collect, unread
from embedlab.sweep.sweep_plan import PlannedJob, SweepPlan, read_plan, write_plan
from embedlab.sweep.tables import records
from embedlab.view.gallery.content import read
from embedlab.view.metadata import read_metadata
from embedlab.view.replay import recorded_cell, replay

OLD = Path(__file__).parent / "fixtures" / "v0.1"
PICTURES = sorted(OLD.rglob("*seed-*.png"))


@pytest.fixture
def old(tmp_path):
    return shutil.copytree(OLD / "sweep", tmp_path / "sweep")


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: str(path.relative_to(OLD)))
def test_its_pictures_say_what_they_were_made_of(picture):
    metadata = read_metadata(picture)
    source, cell = recorded_cell(metadata, picture)
    assert (source.name, metadata.versions["embedlab"]) == ("emoji", "0.1.0")
    assert str(cell.prompt).endswith("puppy")


def test_a_picture_of_the_old_default_model_comes_out_otherwise_and_that_is_said():
    done = replay(PICTURES[0])
    assert done.different_pixels
    assert f"made with embedlab 0.1.0, this is embedlab {embedlab.__version__}" in str(done)


def test_its_sweeps_are_read():
    results = collect(OLD / "sweep")
    assert [result.label for result in results] == ["puppy → 0.4 skunk", "puppy → 1 skunk"]
    assert axes(results) == {"operators.interpolate.weight": [0.4, 1], "seed": [0, 1]}
    assert [row.scores["closest"] for row in records(results)] == ["puppy", "puppy", "skunk", "skunk"]


def test_its_results_are_written_as_they_were(tmp_path):
    for folder in sorted(path.parent for path in OLD.glob("sweep/*/result.json")):
        result = read_result(folder)
        write_result(tmp_path / folder.name, result)
        assert json.loads((tmp_path / folder.name / "result.json").read_text()) == json.loads(
            (folder / "result.json").read_text()
        )
        assert Result.from_dict(result.as_dict(), folder) == result


def test_its_plan_is_read_and_written_as_it_was(tmp_path):
    plan = read_plan(OLD / "sweep")
    assert [job.folder for job in plan.jobs] == ["0", "1"]
    assert plan.command[0] == "-m"
    assert not plan.damaged
    write_plan(tmp_path, plan)
    assert (tmp_path / "sweep.json").read_text() == (OLD / "sweep" / "sweep.json").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, r"is of a newer embedlab \(format 2, this one reads 1\)"),
        ({"format": 0}, "its format is 0, and this embedlab reads 1"),
        ({"format": "x"}, "its format is 'x', and this embedlab reads 1"),
    ],
)
def test_a_plan_of_another_version_is_named_in_one_line(change, said, old):
    path = old / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=rf"sweep.json' .*{said}"):
        read_plan(old)
    (notice,) = read(old).notices
    assert said.split(" \\")[0] in notice
    assert "\n" not in notice


@pytest.mark.parametrize(
    "odd",
    [
        1,
        {"folder": "0"},
        {"job": True, "folder": "0"},
        *({"job": 0, "folder": f} for f in (None, "", "..", "a/b", "/a")),
    ],
)
def test_what_of_a_plan_is_no_job_is_left_out(odd, old):
    path = old / "sweep.json"
    path.write_text(json.dumps({"command": ["-m", 1], "cwd": 5, "jobs": [odd, {"job": 7, "folder": "7"}]}))
    assert read_plan(old) == SweepPlan(jobs=(PlannedJob(7, "7"),), damaged=("command", "cwd", "jobs"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, r"is of a newer embedlab \(format 2, this one reads 1\)"),
        ({"format": 0}, "its format is 0, and this embedlab reads 1"),
        ({"format": "x"}, "its format is 'x', and this embedlab reads 1"),
        ({"status": "broken"}, "its status is 'broken', neither done nor failed"),
        ({"status": None}, "its status is None, neither done nor failed"),
        ({"status": ["done"]}, r"its status is \['done'\], neither done nor failed"),
        ({"pictures": None}, "it has no list of pictures"),
    ],
)
def test_a_result_of_another_version_is_named_in_one_line_and_left_out(change, said, old):
    path = old / "0" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=rf"0/result.json' .*{said}"):
        read_result(old / "0")
    assert [result.job for result in collect(old)] == [1]
    (line,) = unread(old)
    assert "\n" not in line


def test_its_sweeps_have_a_sheet_a_page_and_a_film(old):
    sheet([str(old)])
    gallery([str(old)])
    film([str(old)])
    assert Image.open(old / "sheet.png").width > 300
    assert "operators.interpolate.weight" in (old / "gallery" / "data.js").read_text()
    assert (old / "film-weight.mp4").is_file()
