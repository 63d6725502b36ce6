import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import synthetic
from playwright.sync_api import expect

import embedlab
from embedlab.cli.commands.gallery import main
from embedlab.errors import ConfigError
from embedlab.view.gallery import read, write
from embedlab.view.gallery.content import content
from gallery.page import SEEDS, WEIGHT, job_of, texts, until


def test_with_copies_the_folder_needs_nothing_else(opened, tmp_path):
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0, 1]}, SEEDS)
    written = write(read(folder), tmp_path / "away")
    shutil.rmtree(folder)
    page = opened(written.index, root=tmp_path / "away")
    until(page, "[...document.querySelectorAll('.cell img')].every((i) => i.naturalWidth === 128)")
    page.locator(".cell").first.click()
    page.locator("#details .command").wait_for()


def test_large_pictures_get_thumbnails_and_keep_their_own(opened, tmp_path):
    folder = tmp_path / "sweep"
    for n in (0, 1):
        synthetic.put(folder / str(n), synthetic.result(n, {WEIGHT: n}, [0]), side=512)
    index = write(read(folder)).index
    page = opened(index)
    until(page, "document.querySelector('.cell img').naturalWidth === 256")
    page.locator(".cell").first.click()
    until(page, "document.querySelector('#details figure img').naturalWidth === 512")
    made = sorted((index.parent / "thumbnails").rglob("*.webp"))
    times = [path.stat().st_mtime_ns for path in made]
    write(read(folder))
    assert [path.stat().st_mtime_ns for path in made] == times, "thumbnails were made again"


def test_two_thousand_cells_are_small_and_load_few(opened, tmp_path):
    weights, steps = [round(n / 49, 4) for n in range(50)], list(range(5, 45))
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: weights, "sampler.steps": steps}, [0], shared=8)
    index = write(read(folder)).index
    size = sum(path.stat().st_size for path in index.parent.rglob("*") if path.is_file())
    assert size <= 2_000_000
    page = opened(index, at="#unedited=none")
    until(page, "[...document.querySelectorAll('.cell img')].every((i) => i.complete)")
    assert page.locator(".cell").count() == 2000
    assert 20 < page.locator(".cell img").count() < 150
    page.locator(".cell").first.focus()
    page.keyboard.press("End")
    until(page, "document.activeElement.querySelector('img')?.naturalWidth === 128")
    assert page.evaluate("document.activeElement.dataset.key") == "1960/0"


def test_duplicates_and_scattered_settings_are_all_reachable(opened, tmp_path):
    folder = tmp_path / "sweep"
    spots = [(0.1, 2), (0.1, 2), (0.35, 9), (0.7, 4), (0.9, 7), (0.2, 8)]
    for n, (weight, scale) in enumerate(spots):
        synthetic.put(folder / str(n), synthetic.result(n, {WEIGHT: weight, "guidance.scale": scale}, [0]))
    page = opened(write(read(folder)).index, at="#unedited=none")
    assert page.locator("#layout").input_value() == "list"
    assert page.locator(".cell").count() == 6
    page.locator("#layout").select_option("grid")
    page.locator("#role-1").select_option("slider")
    page.get_by_role("slider", name="scale").fill("4")  # nothing lies there at the weight of before
    expect(page.locator(".cell img")).to_have_count(1)
    assert job_of(page) == "2/seed-0.png"


def test_results_that_say_less_have_places_of_their_own(tmp_path):
    folder = tmp_path / "sweep"
    for n, weight in enumerate((0.5, 1)):
        job = synthetic.result(n, {WEIGHT: weight}, [0])
        for key in ("overrides", "job", "format", "command"):
            del job[key]
        synthetic.put(folder / str(n), job)
    shown = content(read(folder))
    assert [axis["key"] for axis in shown["axes"]] == ["repeat"]
    assert shown["cells"]["at"] == [[0], [1]]
    assert shown["jobs"]["number"] == [0, 1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: None, "is not there; give the folder that a sweep wrote"),
        (lambda f: f.write_text(""), "is a file; give the folder"),
        (lambda f: f.mkdir(), "holds no finished job .*embedlab -m wrote"),
        (lambda f: synthetic.sweep(f / "DATE" / "TIME", {WEIGHT: [0]}, [0]), "there is a sweep in '.*TIME'"),
        (lambda f: synthetic.put(f, synthetic.result(0, {}, [0])), "is one job, no sweep; the folder above"),
        (lambda f: (f.mkdir(), synthetic.plan(f, [{WEIGHT: 0}])), "1 job planned and none done; .*--watch"),
        (
            lambda f: (f.joinpath("0").mkdir(parents=True), (f / "0" / "result.json").write_text('{"a":')),
            "no finished job",
        ),
        (
            lambda f: (f.joinpath("0").mkdir(parents=True), (f / "0" / "result.json").write_text("[1]")),
            "no finished job",
        ),
    ],
)
def test_a_folder_that_is_no_sweep_is_one_clear_line(make, said, tmp_path):
    make(tmp_path / "it")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=said):
        main([str(tmp_path / "it")])
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_of_others_is_overwritten(sweep, tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else already"):
        main([str(sweep), "--to", str(tmp_path)])
    with pytest.raises(ConfigError, match="is a file"):
        main([str(sweep), "--to", str(tmp_path / "index.html")])
    with pytest.raises(ConfigError, match="something else"):
        main([str(sweep), "--to", str(sweep)])
    assert (tmp_path / "index.html").read_text() == "mine"


def test_files_elsewhere_are_neither_shown_nor_copied(tmp_path):
    secret = synthetic.picture(tmp_path / "secret.png", 1, 16)
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0]}, [0, 1])
    path = folder / "0" / "result.json"
    held = json.loads(path.read_text())
    held["pictures"][0]["file"], held["pictures"][1]["file"] = "../../secret.png", str(secret)
    path.write_text(json.dumps(held))
    written = write(read(folder), tmp_path / "away")
    assert (written.pictures, written.failed) == (0, 2)
    assert not list((tmp_path / "away").rglob("secret.png"))


def test_a_torn_result_is_a_notice_and_the_rest_is_shown(tmp_path, capsys):
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0, 1]}, [0])
    (folder / "1" / "result.json").write_text('{"status": "do')
    main([str(folder)])
    said = capsys.readouterr().out
    assert "result.json' cannot be read: it is no JSON, or cut short" in said
    assert "1 job, 1 picture" in said


def test_a_page_of_a_finished_sweep_needs_no_hydra(tmp_path):
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0, 1]}, [0])
    code = (
        "import sys; from pathlib import Path; from embedlab.view.gallery import read, write; "
        "write(read(Path(sys.argv[1]))); assert not {'hydra', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    assert (folder / "gallery" / "index.html").is_file()


def test_the_command_line_answers_in_one_line(tmp_path):
    def call(*words):
        code = "from embedlab.cli.main import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, "gallery", *words], capture_output=True, text=True, cwd=tmp_path
        )

    for words in (["nowhere"], [], ["a", "--bogus"], ["a", "--every", "0"]):
        refused = call(*words)
        assert refused.returncode == 2
        assert refused.stderr.startswith("embedlab: ")
        assert refused.stderr.count("\n") == 1


# ── a sweep that still runs ──


def test_a_page_follows_a_running_sweep_and_keeps_its_view(opened, tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    jobs = [{"operators": ["interpolate"], WEIGHT: weight} for weight in (0, 0.5, 1)]
    synthetic.plan(folder, jobs)
    environment = {**os.environ, "PYTHONPATH": str(Path(embedlab.__file__).parent.parent)}
    code = "import sys; from embedlab.cli.commands.gallery import main; main(sys.argv[1:])"
    words = [sys.executable, "-c", code, str(folder), "--watch", "--every", "0.2"]
    watcher = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        synthetic.put(folder / "0", synthetic.result(0, jobs[0], [0, 1]))
        index = folder / "gallery" / "index.html"
        said = watcher.stdout.readline()
        while "2 jobs to come" not in said:
            assert said
            said = watcher.stdout.readline()
        page = opened(index, at="#unedited=none")
        expect(page.locator('[data-state="done"]')).to_have_count(2)
        page.locator("#score").select_option("change/ssim")
        page.locator('[data-place="1,0"]').click()
        page.locator("#details .command").wait_for()
        synthetic.put(folder / "1", synthetic.result(1, jobs[1], [0, 1]))
        expect(page.locator('[data-state="done"]')).to_have_count(4, timeout=60_000)
        assert page.locator("#score").input_value() == "change/ssim"
        expect(page.locator(".cell.opened")).to_have_attribute("data-key", "0/1")
        synthetic.put(folder / "2", {**synthetic.result(2, jobs[2], []), "status": "failed", "error": "too late"})
        expect(page.locator('[data-state="failed"]')).to_have_count(2)
        assert watcher.wait(20) == 0, "the sweep is finished and nobody looks on"
    finally:
        watcher.kill()
        watcher.wait()


def test_a_page_that_was_opened_before_the_first_job_fills_itself(opened, tmp_path):
    (tmp_path / "sweep").mkdir()
    index = write(read(tmp_path / "sweep", wait=True), watched=True).index
    page = opened(index, at="#unedited=none", ready="#nothing")
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0, 1]}, [0, 1])
    write(read(folder))
    expect(page.locator(".cell img")).to_have_count(4, timeout=60_000)
    assert texts(page, ".across") == ["0", "1"]


def test_ctrl_c_ends_watching_with_a_whole_gallery(tmp_path):
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0]}, [0])
    synthetic.plan(folder, [{WEIGHT: 0}, {WEIGHT: 1}])
    listens = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # also where CI's shell does not
    )
    code = listens + "import sys; from embedlab.cli.commands.gallery import main; main(sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": str(Path(embedlab.__file__).parent.parent)}
    words = [sys.executable, "-c", code, str(folder), "--watch"]
    watcher = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
    assert "1 job to come" in watcher.stdout.readline()
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(20) == 0
    assert '"watched":false' in (folder / "gallery" / "data.js").read_text()


def test_an_unchanged_sweep_is_written_alike(tmp_path):
    folder = synthetic.sweep(tmp_path / "sweep", {WEIGHT: [0, 1]}, [0])
    index = write(read(folder)).index
    held = {path: path.read_bytes() for path in index.parent.rglob("*.js")}
    time.sleep(0.01)  # another time of writing
    write(read(folder))
    assert {path: path.read_bytes() for path in index.parent.rglob("*.js")} == held
