"""Several sweeps on one page, compared by what they share."""

import json

import pytest
import synthetic
from playwright.sync_api import expect

from embedlab.cli.commands.gallery import main
from embedlab.errors import ConfigError
from embedlab.view.gallery import page_of, together, write
from embedlab.view.gallery.content import content
from gallery.page import WEIGHT, job_of, texts

STEPS = "sampler.steps"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """One sweep of weights; another, with other steps, of fewer of them and of one seed more."""
    home = tmp_path_factory.mktemp("several")
    first = synthetic.sweep(home / "day" / "first", {WEIGHT: [0, 0.5, 1]}, [0, 1])
    second = home / "day two" / "second"
    for n, weight in enumerate((0, 1)):
        job = synthetic.result(n, {"operators": ["interpolate"], WEIGHT: weight, STEPS: 4}, [0, 1, 2])
        job["config"]["sampler"]["steps"] = 4
        synthetic.put(second / str(n), job)
    return first, second


def test_what_follows_from_the_sweep_is_no_axis_and_is_told(pair):
    data = content(together(pair))
    assert [axis["key"] for axis in data["axes"]] == [WEIGHT, "sweep", "seed"]
    assert data["axes"][1]["values"] == ["day/first", "day two/second"]
    assert [STEPS, "day/first: 25; day two/second: 4"] in data["notes"]
    assert data["jobs"]["folder"][3] == "day two/second/0"


def test_what_one_sweep_varies_the_other_has_from_its_config(tmp_path):
    first = synthetic.sweep(tmp_path / "a", {STEPS: [4, 25]}, [0])
    second = synthetic.sweep(tmp_path / "b", {WEIGHT: [0, 1]}, [0])  # whose config says 25 steps
    for path in first.glob("*/result.json"):
        job = json.loads(path.read_text())
        job["config"]["operators"]["interpolate"]["weight"] = 1
        path.write_text(json.dumps(job))
    data = content(together([first, second]))
    axes = {axis["key"]: axis["values"] for axis in data["axes"]}
    assert axes == {STEPS: ["4", "25"], WEIGHT: ["0", "1"], "sweep": ["a", "b"]}
    weights = [axes[WEIGHT][at[1]] for at in data["cells"]["at"]]
    assert weights == ["1", "1", "0", "1"]


def test_two_sweeps_are_one_page_that_compares_what_they_share(opened, pair):
    written = write(together(pair))
    assert written.index.parent.name == "gallery-day-first+day-two-second"
    page = opened(written.index, at="#unedited=none")
    assert page.title() == "day/first and day two/second · embedlab gallery"
    assert texts(page, ".group-head") == ["seed 0", "seed 1", "seed 2"]
    assert texts(page, ".down") == ["day/first", "day two/second"] * 2 + ["day two/second"]
    assert job_of(page, 1, 2) == "day%20two/second/1/seed-0.png"
    expect(page.locator("#counts")).to_have_text("12 pictures · 12 shown")
    page.locator("#shared").check()
    expect(page.locator("#counts")).to_have_text("12 pictures · 8 shown")
    assert "shared=1" in page.url
    page.locator('[data-place="1,1"]').click()
    expect(page.locator("#details h2")).to_have_text("puppy → 1 skunk, steps 4, day two/second")
    expect(page.locator("#details .command")).to_contain_text("steps=4")
    page.get_by_role("button", name="weight 1, sweep day/first").click()
    expect(page.locator("#details .command")).not_to_contain_text("steps")
    page.locator("#help-button").click()
    expect(page.locator("#help")).to_contain_text("day/first: 25; day two/second: 4")


def test_several_are_copied_into_one_folder_and_carried_in_one_text(opened, pair, tmp_path, capsys):
    main([*map(str, pair), "--to", str(tmp_path / "away")])
    assert "5 jobs, 12 pictures" in capsys.readouterr().out
    assert len(list((tmp_path / "away" / "pictures").rglob("seed-*.png"))) == 12
    page = opened(tmp_path / "away" / "index.html", root=tmp_path / "away")
    page.locator(".cell").first.click()
    page.locator("#details .command").wait_for()
    assert page_of(*pair).count("data:image/png") == 16  # those that both have are carried once


def test_sweeps_that_make_no_page_are_one_line_each(pair, tmp_path):
    failed = synthetic.put(
        tmp_path / "failed" / "0", {"status": "failed", "error": "no memory", "overrides": {WEIGHT: 1}, "pictures": []}
    ).parent
    inner = synthetic.sweep(pair[0] / "inner", {WEIGHT: [0]}, [0])
    for words, said in (
        ((pair[0], pair[1], pair[0]), "'.*first' is given twice"),
        ((pair[0], pair[0] / ".." / "first"), "is given twice; name each sweep once"),
        ((pair[0], inner), "'.*first' holds another of the sweeps that are given"),
        ((pair[0], tmp_path / "nowhere"), "'.*nowhere' is not there; give the folder"),
        ((pair[0], pair[1] / "0"), "is one job, no sweep; the folder above"),
        ((failed,), "'.*failed' has no picture: 1 job and none of them drew one: no memory"),
        ((failed, pair[0]), "'.*failed' has no picture"),
    ):
        with pytest.raises(ConfigError, match=said):
            main([str(word) for word in words])
