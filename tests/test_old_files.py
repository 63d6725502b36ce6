"""Files that embedlab 0.1.0 made (tests/fixtures/v0.1) are still read, and its pictures made again."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from embedlab.cli.commands.film import main as film
from embedlab.cli.commands.gallery import main as gallery
from embedlab.cli.commands.sheet import main as sheet
from embedlab.sweep.axes import axes
from embedlab.sweep.results import collect, records
from embedlab.view.replay import replay

OLD = Path(__file__).parent / "fixtures" / "v0.1"
PICTURES = sorted(OLD.rglob("*seed-*.png"))


@pytest.fixture
def old(tmp_path):
    return shutil.copytree(OLD / "sweep", tmp_path / "sweep")


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: str(path.relative_to(OLD)))
def test_its_pictures_are_made_again(picture):
    done = replay(picture)
    assert done.largest_difference <= 1, "0.1 did not say on how many threads: the last bit may differ"
    assert done.versions_then["embedlab"] == "0.1.0"


def test_its_sweeps_are_read():
    results = collect(OLD / "sweep")
    assert [result["label"] for result in results] == ["puppy → 0.4 skunk", "puppy → 1 skunk"]
    assert axes(results) == {"operators.interpolate.weight": [0.4, 1], "seed": [0, 1]}
    assert [row["closest"] for row in records(results)] == ["puppy", "puppy", "skunk", "skunk"]


def test_its_sweeps_have_a_sheet_a_page_and_a_film(old):
    sheet([str(old)])
    gallery([str(old)])
    film([str(old)])
    assert Image.open(old / "sheet.png").width > 300
    assert "operators.interpolate.weight" in (old / "gallery" / "data.js").read_text()
    assert (old / "film-weight.mp4").is_file()
