"""From Python as from the command line: sweeps read back, studies and grids run, pictures in grids."""

import csv
import html
import io
import json
import subprocess
import sys
from dataclasses import dataclass

import pandas
import pytest
import torch
from PIL import Image
from test_display import read

import embedlab as lab
from embedlab.errors import ConfigError, EmbedlabError
from embedlab.notebook.running import as_word, words_of

HALF = lab.Interpolate("puppy", "skunk", 0.5)
CELL = lab.Cell("a picture of a puppy", [HALF], sampler=lab.Sampler("ddim", steps=2))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder to work in, with the store that its sweeps share."""
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def grid(here, folders):
    """A sweep of a cell's settings, on a tiny model."""
    model = lab.Source(str(folders["sd1"]), device="cpu")
    return lab.grid(CELL, model=model, folder=here / "grid", store=here / "store", weight=[0, 1], seed=range(2))


def test_a_grid_is_a_sweep_of_the_command_line(grid, folders, here):
    assert repr(grid) == f"Sweep('{grid.folder}', 2 jobs, 4 pictures)"
    files = {"results.csv", "results.parquet", "sheet.png", "gallery", "sweep.json", "times.csv", "0", "1"}
    assert files <= {path.name for path in grid.folder.iterdir()}
    assert [job.label for job in grid.jobs] == ["puppy → 0 skunk", "puppy → 1 skunk"]
    with (grid.folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["operators.interpolate.weight"] for row in rows] == ["0", "0", "1", "1"]
    pictures = lab.render(lab.load(str(folders["sd1"]), device="cpu"), [CELL.baseline()], [0, 1])[0].pictures
    kept = lab.to_tensor(grid.results.baseline[1])
    assert torch.equal(kept, pictures[1].mul(255).round().div(255))


def test_the_command_line_shares_a_grids_pictures(grid, here, embedlab):
    words = ["prompt='a picture of a puppy'", "operators=[interpolate]", "operators.interpolate.rows=puppy"]
    words += ["operators.interpolate.toward=skunk", "operators.interpolate.weight=1", "sampler.steps=2"]
    code, out, err = embedlab(*words, f"store={here / 'store'}", "seeds=[0,1]")
    assert code == 0, err
    assert "4 of 4 pictures are there already" in out


def test_the_same_folder_again_makes_what_is_missing(grid, here, folders):
    before = (grid.folder / "0" / "result.json").stat().st_mtime_ns
    again = {"model": lab.Source(str(folders["sd1"]), device="cpu"), "folder": grid.folder, "store": here / "store"}
    more = lab.grid(CELL, **again, weight=[0, 1, 0.5], seed=range(2))
    assert len(more.jobs) == 3
    assert (grid.folder / "0" / "result.json").stat().st_mtime_ns == before
    with pytest.raises(EmbedlabError, match="holds another result"):
        lab.grid(CELL, **again, weight=[0.25], seed=range(2))
    grid.refresh()


def test_results_are_a_table_with_pictures_that_stays_one(grid):
    table = grid.results
    assert isinstance(table, pandas.DataFrame)
    assert table["seed"].tolist()[:4] == [0, 1, 0, 1]
    assert all(path.is_file() for path in [*table["picture"], *table["baseline"]])
    part = table[table["operators.interpolate.weight"] == 1].sort_values("seed", ascending=False)
    assert part._repr_html_().count("<img") == 4
    read(part._repr_html_())
    assert table.groupby("operators.interpolate.weight")["change/pixels"].mean()[0] == 0


def test_a_sweep_shows_its_sheet_and_its_means(grid):
    text = read(grid._repr_html_())
    assert "puppy → 1 skunk" in text
    assert grid.sheet.size == Image.open(io.BytesIO(grid._repr_png_())).size
    assert "change/pixels" not in str(grid.curves("change/pixels"))
    assert "<polyline" in grid.curves("change/pixels")._repr_html_()
    with pytest.raises(EmbedlabError, match="there is no curve of 'beauty'; there are change/"):
        grid.curves("beauty")


def test_the_gallery_is_a_widget_and_without_anywidget_a_frame(grid, monkeypatch):
    assert type(grid.gallery()).__name__ == "Gallery"
    monkeypatch.setattr("embedlab.notebook.sweeps.widget", missing)
    framed = grid.gallery(height=300)._repr_html_()
    assert framed.count("<iframe") == 1
    assert "height:300px" in framed
    page = html.unescape(framed.partition('srcdoc="')[2].partition('"')[0])
    assert page.startswith("<!doctype html>") or page.lower().startswith("<!doctype html>")
    assert "<" not in framed.partition('srcdoc="')[2].partition('"')[0]


def missing(*folders, height):
    raise ConfigError("a widget needs the package anywidget, which is not installed.")


def test_a_study_runs_as_from_the_command_line(here, folders, monkeypatch, capsys):
    monkeypatch.chdir(here)
    tiny = {"model": "custom", "model__name": str(folders["sd1"]), "model__device": "cpu", "metrics__eye": False}
    settings = {"sampler__steps": 2, "seeds": [0], "tracker": "silent", "metrics__words": ["cat"], **tiny}
    sweep = lab.run("puppy_to_cat", sweep={"operators.replace.by": ["cat", "owl"]}, **settings)
    assert [job.overrides["operators.replace.by"] for job in sweep.jobs] == ["cat", "owl"]
    assert sweep.folder.parent.parent == here / "multirun"
    assert json.loads((sweep.folder / "sweep.json").read_text())["command"][:2] == ["-m", "experiment=puppy_to_cat"]
    one = lab.run(prompt="a puppy, at night", folder=here / "one", **settings)
    assert one.jobs[0].prompt == "a puppy, at night"
    assert len(one.results) == 1
    assert sys.argv[0] != "embedlab"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: lab.run("puppy_to_dat"), "there is no experiment=puppy_to_dat; try"),
        (lambda: lab.run(sampler__stepz=3), "there is no setting 'sampler.stepz'; try"),
        (lambda: lab.run(3), "experiment is 3; it has to be the name of a study"),
        (lambda: lab.run(sweep=[1]), r"sweep is \[1\]; it has to be a list of values for each"),
        (lambda: lab.run(sweep={"size": 3}), "'size'. is 3; it has to be a list of values"),
        (lambda: lab.grid("a cat"), "cell is 'a cat'; it has to be a Cell"),
        (lambda: lab.grid(CELL, colour=["red"]), "nothing of this cell is called 'colour'; axes may be prompt"),
        (lambda: lab.grid(CELL, weight=[]), "weight has no values"),
        (lambda: lab.grid(CELL, weight=["heavy"]), "weight is 'heavy'; it has to be a finite number"),
        (lambda: lab.grid(CELL, toward=["xxqq zzyy"], rows=["cat"]), "'cat' is not in the prompt"),
        (lambda: lab.grid(CELL, model=3), "model is 3; it has to be a str or a Source"),
        (lambda: lab.grid(CELL, seed=["a"]), "seed 'a' is no whole number"),
        (lambda: lab.Sweep("nowhere"), "'nowhere' is not there"),
        (lambda: lab.Sweep(3), "folder is 3; it has to be the path"),
        (lab.show, "show was given nothing"),
        (lambda: lab.show("no.png"), "no.png"),
        (lambda: lab.show(torch.zeros(2, 2)), "a picture as a tensor has the shape"),
        (lambda: lab.show(torch.zeros(2, 3, 8, 8), columns=["a"]), "columns names 1 of 2 columns"),
    ],
)
def test_what_does_not_fit_is_a_line(call, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EmbedlabError, match=said) as refused:
        call()
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.rglob("result.json"))


@dataclass(frozen=True)
class Breaks:
    """An operator of somebody's own that works now and then."""

    at: int = 0

    def __call__(self, prompt, lookup):
        if self.at:
            raise RuntimeError("made and failed")  # words that a report has, too
        return prompt


def test_jobs_that_fail_leave_those_that_work(folders, tmp_path):
    own = {"+operators.own": {"_target_": f"{Breaks.__module__}.Breaks", "at": 0}}
    small = {"model": "custom", "model__name": str(folders["sd1"]), "sampler__steps": 1, "tracker": "silent"}
    found = lab.run(sweep={"operators.own.at": [0, 1]}, seeds=[0], folder=tmp_path / "both", **small, **own)
    assert [(job.status, job.error) for job in found.jobs] == [
        ("done", None),
        ("failed", "RuntimeError: made and failed"),
    ]
    own["+operators.own"]["at"] = 1
    with pytest.raises(ConfigError, match=r"^nothing was generated: RuntimeError: made and failed\.$"):
        lab.run(seeds=[0], folder=tmp_path / "none", **small, **own)
    with pytest.raises(
        ConfigError, match=r"operators holds .*Breaks.*; run takes their names, grid a cell with such as"
    ):
        lab.run(operators=[Breaks()])


def test_words_of_python_are_words_of_the_command_line():
    values = {"a": "cat", "b": "a, b's ${x}", "c": None, "d": True, "e": [1, 2.5], "f": range(3), "g": {"x": 1}}
    said = [as_word(name, value) for name, value in values.items()]
    assert said == ["cat", "'a, b\\'s \\${x}'", "null", "true", "[1,2.5]", "[0,1,2]", "{x:1}"]
    assert as_word("prompt", "null") == "'null'"
    assert words_of(None, {}, None, {"operators": ["replace", "scale"]}) == ["operators=[replace,scale]"]


def test_a_part_is_named_where_several_have_a_setting():
    both = lab.Cell("a puppy", [HALF, lab.Add("puppy", "fox", 0.3)])
    with pytest.raises(EmbedlabError, match="'weight' may be interpolate__weight or add__weight; name one of them"):
        lab.grid(both, weight=[0, 1])
    with pytest.raises(EmbedlabError, match="interpolate_2__weight"):
        lab.grid(lab.Cell("a puppy", [HALF, HALF]), weight=[0, 1])


def test_pictures_of_all_kinds_stand_in_a_grid(grid, tmp_path):
    path = grid.results.picture[0]
    image = Image.open(path)
    kinds = [path, str(path), image, lab.to_tensor(image), None]
    shown = lab.show({"one": kinds, "two": kinds[:2]}, columns=["a", "b", "c", "<d>", "e"], title="<all>")
    assert repr(shown) == "Grid('<all>', 2 rows of 5)"
    assert shown._repr_html_().count("<img") == 6
    assert "<d>" in read(shown._repr_html_())
    assert Image.open(io.BytesIO(shown._repr_png_())).size == shown.image.size
    assert Image.open(shown.save(tmp_path / "grid.png")).size == shown.image.size
    assert lab.show({"x": image, "y": image}).columns == ("x", "y")


def test_what_a_notebook_keeps_of_a_large_sheet_is_small(grid, monkeypatch):
    monkeypatch.setattr(lab.Sweep, "sheet", Image.new("RGB", (3000, 600)))
    assert Image.open(io.BytesIO(grid._repr_png_())).size == (900, 180)


def test_rendered_pictures_stand_in_a_grid_with_their_seeds_and_edits(sd1):
    before, after = lab.render(sd1, [CELL.baseline(), CELL], [3, 4])
    assert lab.show(after).rows[0][0] == "as written"
    both = lab.show([before, after])
    assert both.columns == ("seed 3", "seed 4")
    assert [name for name, _ in both.rows] == ["as written", "puppy → 0.5 skunk"]
    assert lab.show(after.pictures).rows[0][1][1].image.size == (16, 16)


def test_importing_what_a_notebook_needs_brings_no_hydra():
    code = "import sys, embedlab as lab\nlab.show, lab.Sweep, lab.denoise\nassert 'hydra' not in sys.modules\n"
    code += "assert 'pandas' not in sys.modules and 'anywidget' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code], check=True)
