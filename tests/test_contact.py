"""Every picture of a sweep stands where its settings say, whichever two axes are chosen."""

import itertools
import json
from dataclasses import replace

import pytest
from PIL import Image

from embedlab import images
from embedlab.cli import finish
from embedlab.cli.commands.sheet import main
from embedlab.errors import ConfigError
from embedlab.images.drawing import place
from embedlab.sweep.axes import find_axis, short_names
from embedlab.view.contact_sheet import write_sheets
from embedlab.view.layout import axes_of, layout, results_of

SIDE = 112  # the smallest that a sheet shows
WEIGHT, TOWARD, SCALE = "operators.interpolate.weight", "operators.interpolate.toward", "guidance.scale"


def colour(*numbers: int) -> tuple[int, int, int]:
    """A colour of its own for each combination of numbers below 6; red is above 120, which no ink has."""
    first, second, third = (*numbers, 0, 0)[:3]
    return 130 + 20 * first, 40 * second, 10 + 40 * third


def synthetic(folder, axes: dict[str, list], seeds=(0, 1), baseline=True, prompt="A picture of a puppy"):
    """A sweep's folder whose pictures have the colour of their numbers on the axes, and baselines that of the seed."""
    for job, numbers in enumerate(itertools.product(*(range(len(values)) for values in axes.values()))):
        overrides = {key: values[n] for (key, values), n in zip(axes.items(), numbers, strict=True)}
        rows = []
        for n, seed in enumerate(seeds):
            row = {"seed": seed, "file": f"seed-{seed}.png"}
            images.save(Image.new("RGB", (SIDE, SIDE), colour(*numbers, n)), folder / str(job) / row["file"])
            if baseline:
                row["baseline"] = f"baseline-seed-{seed}.png"
                images.save(Image.new("RGB", (SIDE, SIDE), (0, 0, 200 + 20 * n)), folder / str(job) / row["baseline"])
            rows.append(row)
        config = {"prompt": prompt, "guidance": {"scale": overrides.get(SCALE, 4)}}
        result = {
            "format": 1,
            "status": "done",
            "job": job,
            "name": ",".join(f"{key}={value}" for key, value in overrides.items()),
            "label": "puppy → cat",
            "overrides": overrides,
            "prompt": prompt,
            "scores": {},
            "pictures": rows,
            "config": config,
        }
        (folder / str(job) / "result.json").write_text(json.dumps(result))
    return folder


def change(folder, job: int, **changed: object) -> None:
    path = folder / str(job) / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def grid(path) -> list[list[tuple[int, int, int]]]:
    """The colours of a sheet's places, row by row."""
    picture = Image.open(path).convert("RGB")
    places: dict[int, dict[int, tuple]] = {}
    seen: dict[tuple[int, int], tuple] = {}
    for y, x in itertools.product(range(0, picture.height - SIDE + 1), range(0, picture.width - SIDE + 1, 1)):
        if any(y < b + SIDE and y + SIDE > b and x < a + SIDE and x + SIDE > a for b, a in seen):
            continue
        corner = picture.getpixel((x, y))
        if corner in ((255, 255, 255), (0, 0, 0)):
            continue
        ends = [picture.getpixel((x + SIDE - 1, y)), picture.getpixel((x, y + SIDE - 1))]
        middle = picture.getpixel((x + SIDE // 4, y + SIDE // 2 - 30))
        if ends == [corner, corner] and middle == corner:
            seen[y, x] = corner
            places.setdefault(y, {})[x] = corner
    return [list(row.values()) for row in places.values()]


@pytest.fixture
def two_by_three(tmp_path):
    return synthetic(tmp_path, {TOWARD: ["cat", "skunk"], WEIGHT: [0, 0.5, 1]})


BASE = [(0, 0, 200), (0, 0, 220)]


def test_by_default_a_row_is_a_seed_and_a_column_a_job_behind_the_baseline(two_by_three):
    (path,) = write_sheets(two_by_three, results_of(two_by_three))
    assert path == two_by_three / "sheet.png"
    jobs = list(itertools.product(range(2), range(3)))
    assert grid(path) == [[BASE[s], *(colour(*job, s) for job in jobs)] for s in range(2)]


def test_any_two_axes_are_rows_and_columns_and_the_third_the_pages(two_by_three):
    results = results_of(two_by_three)
    first, second = write_sheets(two_by_three, results, rows="toward", columns="weight")
    assert (first.name, second.name) == ("sheet.png", "sheet-2.png")
    for s, path in enumerate((first, second)):
        assert grid(path) == [[BASE[s], *(colour(t, w, s) for w in range(3))] for t in range(2)]
    pages = write_sheets(two_by_three, results, rows="weight", columns="seed")
    assert len(pages) == 2
    for t, path in enumerate(pages):
        assert grid(path) == [BASE, *([colour(t, w, s) for s in range(2)] for w in range(3))], "baselines on top"


def test_of_one_axis_that_is_named_the_other_is_found(two_by_three):
    results = results_of(two_by_three)
    for asked, told in [
        ((None, "weight"), ("seed", WEIGHT)),
        (("weight", None), (WEIGHT, "seed")),
        (("seed", None), ("seed", WEIGHT)),
        ((None, "seed"), (WEIGHT, "seed")),
        (("job", None), ("job", "seed")),
    ]:
        down, across, _ = layout(results, *asked)
        assert (down.key, across.key) == told, asked


def test_columns_that_have_unedited_pictures_of_their_own_show_them_above(tmp_path):
    synthetic(tmp_path, {SCALE: [2, 6]})
    (path,) = write_sheets(tmp_path, results_of(tmp_path))
    assert grid(path) == [row for s in range(2) for row in ([BASE[s]] * 2, [colour(0, s), colour(1, s)])]


def test_a_column_that_is_unedited_itself_is_marked_and_no_other_added(tmp_path):
    synthetic(tmp_path, {WEIGHT: [None, 1]}, seeds=[0])
    change(tmp_path, 0, pictures=[{"seed": 0, "file": "seed-0.png"}], label="as written")
    (path,) = write_sheets(tmp_path, results_of(tmp_path))
    assert grid(path) == [[colour(0, 0), colour(1, 0)]]
    assert frames(path) == 1


def frames(path) -> int:
    """How many places have a black frame: runs of black as long as a place, on their upper edges."""
    picture = Image.open(path).convert("L")
    long = b"\x00" * (SIDE + 4)
    rows = [picture.crop((0, y, picture.width, y + 1)).tobytes().count(long) for y in range(picture.height)]
    return sum(rows) // 4  # two rows of pixels above and two below


def test_only_the_baseline_is_framed(two_by_three):
    (path,) = write_sheets(two_by_three, results_of(two_by_three))
    assert frames(path) == 2
    (path,) = write_sheets(
        synthetic(two_by_three / "plain", {SCALE: [2, 6]}, baseline=False), results_of(path.parent / "plain")
    )
    assert frames(path) == 0


def test_a_failed_job_is_crossed_out_with_its_reason_and_one_that_is_missing_is_grey(two_by_three):
    change(two_by_three, 1, status="failed", error="NaN in latents", pictures=[{"seed": 0, "error": "NaN in latents"}])
    change(two_by_three, 2, pictures=[{"seed": 0, "file": "seed-0.png", "baseline": "baseline-seed-0.png"}])
    (two_by_three / "3" / "seed-1.png").write_bytes(b"cut short")
    results = results_of(two_by_three)
    (path,) = write_sheets(two_by_three, results)
    shown = Image.open(path).convert("RGB")
    grey = sum(count for count, value in shown.getcolors(10**6) if value == (221, 221, 221))
    assert 3 * SIDE**2 < grey < 4 * SIDE**2, "three crossed out and one whole"
    reds = {value for _, value in shown.getcolors(10**6) if value[0] > 2 * value[1] and value[1] == value[2] == 32}
    assert (128, 32, 32) in reds, "a reason is written"
    crossed = place("NaN in latents", (SIDE, SIDE))
    assert len(crossed.getcolors(10**6)) > 3
    assert len(place(None, (SIDE, SIDE)).getcolors()) == 1


def test_a_sweep_that_is_wide_goes_on_pages(tmp_path):
    synthetic(tmp_path, {WEIGHT: list(range(18))[:18]}, seeds=[0])
    pages = write_sheets(tmp_path, results_of(tmp_path))
    assert [path.name for path in pages] == ["sheet.png", "sheet-2.png"]
    assert [images.settings_of(path)["sheet"]["page"] for path in pages] == [1, 2]
    assert Image.open(pages[0]).width == Image.open(pages[1]).width, "18 columns are 9 and 9"


def test_of_many_jobs_with_several_settings_the_last_is_the_columns(tmp_path):
    synthetic(tmp_path, {TOWARD: ["a", "b", "c", "d"], WEIGHT: [0, 0.25, 0.5, 0.75, 1]}, seeds=[0, 1])
    down, across, others = layout(results_of(tmp_path))
    assert (down.key, across.key, [axis.key for axis in others]) == ("seed", WEIGHT, [TOWARD])
    one_seed = [replace(result, pictures=result.pictures[:1]) for result in results_of(tmp_path)]
    down, across, others = layout(one_seed)
    assert (down.key, across.key) == (TOWARD, WEIGHT)


def test_combinations_that_were_not_run_make_no_page(two_by_three):
    results = [result for result in results_of(two_by_three) if result.overrides != {TOWARD: "cat", WEIGHT: 1}]
    assert len(write_sheets(two_by_three, results, rows="seed", columns="weight")) == 2
    only = [result for result in results if result.overrides[TOWARD] == "cat" or result.overrides[WEIGHT] == 1]
    pages = write_sheets(two_by_three, only, rows="seed", columns="weight")
    assert len(pages) == 2
    assert grid(pages[1])[0] == [BASE[0], (221,) * 3, (221,) * 3, colour(1, 2, 0)]


def test_pages_of_an_earlier_call_do_not_stay_and_files_of_others_do(two_by_three):
    results = results_of(two_by_three)
    assert len(write_sheets(two_by_three, results, rows="seed", columns="weight")) == 2
    mine = images.save(Image.new("RGB", (8, 8)), two_by_three / "sheet-3.png")
    write_sheets(two_by_three, results)
    assert not (two_by_three / "sheet-2.png").exists()
    assert mine.exists()


def test_names_are_short_where_they_are_the_only_ones(two_by_three):
    keys = {"operators.add.weight": 0, "operators.shift.weight": 0, "sampler.steps": 0}
    assert find_axis("steps", keys) == find_axis("sampler.steps", keys) == "sampler.steps"
    assert find_axis("add.weight", keys) == "operators.add.weight"
    assert set(short_names(keys).values()) == {"add.weight", "shift.weight", "steps"}
    with pytest.raises(ConfigError, match=r"'weight' may be operators\.add\.weight or operators\.shift\.weight"):
        find_axis("weight", keys)
    with pytest.raises(ConfigError, match=r"no axis 'eight'; there are operators\.add\.weight,"):
        find_axis("eight", keys)
    results = results_of(two_by_three)
    with pytest.raises(ConfigError, match="both operators.interpolate.weight"):
        write_sheets(two_by_three, results, "weight", "interpolate.weight")
    with pytest.raises(ConfigError, match="a job stands for all of its settings"):
        write_sheets(two_by_three, results, "weight", "job")
    with pytest.raises(ConfigError, match="holds no sweep"):
        results_of(two_by_three / "0")


def test_results_that_say_less_are_shown_all_the_same(two_by_three):
    for job in range(6):
        path = two_by_three / str(job) / "result.json"
        whole = json.loads(path.read_text())
        path.write_text(json.dumps({k: whole[k] for k in ("status", "label", "name", "prompt", "pictures", "scores")}))
    (path,) = write_sheets(two_by_three, results_of(two_by_three))
    assert len(grid(path)[0]) == 7
    assert list(axes_of(results_of(two_by_three))) == ["seed", "job"]


def test_a_job_that_failed_before_it_had_a_label_has_its_place(two_by_three):
    path = two_by_three / "1" / "result.json"
    failed = {**json.loads(path.read_text()), "status": "failed", "error": "NaN", "pictures": []}
    path.write_text(json.dumps({key: value for key, value in failed.items() if key not in ("label", "name")}))
    (page,) = write_sheets(two_by_three, results_of(two_by_three))
    shown = Image.open(page).convert("RGB")
    grey = sum(count for count, value in shown.getcolors(10**6) if value == (221, 221, 221))
    assert SIDE**2 < grey < 2 * SIDE**2, "both of its seeds are crossed out, and no other picture"


def test_labels_have_the_letters_of_their_language():
    font = images.font(13)
    nothing = font.getmask("\U000e0001").getbbox(), bytes(font.getmask("\U000e0001"))
    for sign in "→×é−ßЖλ…·":
        assert (font.getmask(sign).getbbox(), bytes(font.getmask(sign))) != nothing, sign
    assert bytes(images.font(13, bold=True).getmask("a")) != bytes(font.getmask("a"))
    hostile = "</script> \x00 \u202e" + "x" * 10_000 + "\n" * 500
    picture = images.sheet([[None, hostile]], [hostile, "b"], [hostile], hostile)
    assert picture.width < 1000
    assert picture.height < 1000


def test_the_command_and_the_end_of_a_sweep_write_them(two_by_three, capsys):
    main([str(two_by_three), "--columns", "weight", "--rows", "toward", "--to", str(two_by_three / "mine.png")])
    assert capsys.readouterr().out.split() == [str(two_by_three / name) for name in ("mine.png", "mine-2.png")]
    finish.write(two_by_three, results_of(two_by_three))
    assert (two_by_three / "sheet.png").is_file()
    assert len((two_by_three / "results.csv").read_text().splitlines()) == 1 + 12
