"""What is seen of a sweep while it runs, on a terminal and off it."""

import io
import re
import subprocess
import sys
import time
from types import SimpleNamespace

from rich.console import Console

from embedlab import Cell, Job, Sampler, Source, Store, run_jobs
from embedlab.cli import progress
from embedlab.cli.progress import Display
from embedlab.sweep.observer import Observer
from embedlab.timing import Spent, Times


def a_job(number):
    return SimpleNamespace(number=number, folder=f"out/{number}", title=f"weight={number}")


def test_what_stands_between_colons_is_no_emoji(capsys):
    Display().on_notice("notice: the prompt is a [cat:owl:0.5].")
    assert capsys.readouterr().out == "notice: the prompt is a [cat:owl:0.5].\n"


def go_on(display):
    display.on_plan(3, 8, 6)
    display.on_step(4, 25, 25)
    display.on_batch(4, 200, 2.0)
    display.on_job(a_job(0), {})
    display.on_notice("notice: the prompt is long.")
    display.on_notice("notice: the prompt is long.")
    display.on_failure(a_job(1), "RuntimeError: [on] purpose")


def test_off_a_terminal_it_is_quiet_and_line_wise():
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=False, soft_wrap=True))
    with display.shown():
        go_on(display)
    display.times += Times({"UNet": Spent(2.0, 50, 200), "decode": Spent(0.5, 1, 4)}, {"scores": Spent(0.25, 1, 4)})
    display.close()
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["generating 6 of 8 pictures for 3 jobs …", "2 of 8 pictures are there already."]
    assert lines[2:4] == ["notice: the prompt is long.", "job 1 (weight=1) failed: RuntimeError: [on] purpose"]
    assert lines[4] == (
        "200 UNet evaluations in 2.0 s (100 a second), after 0.0 s of checks. "
        "Of 2.5 s: UNet 80 %, decode 20 %; beside it scores 10 %."
    )
    assert len(lines) == 5, "less than a minute went by"
    assert "\x1b" not in out.getvalue()


def test_off_a_terminal_a_line_comes_now_and_then_also_while_nothing_ends():
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=False, soft_wrap=True), every=0.01)
    with display.shown():
        display.on_plan(1, 4, 4)
        display.on_step(4, 3, 25)
        while out.getvalue().count("step 3 of 25") < 2:
            time.sleep(0.01)
    said = out.getvalue()
    assert re.fullmatch(r"[\d:]+ 0 of 4 pictures, 0 of 1 jobs, step 3 of 25, [\d.]+ GiB.*", said.splitlines()[-1])
    time.sleep(0.05)
    assert out.getvalue() == said, "and ends with the block"


def test_on_a_terminal_it_is_one_display_with_all_of_it():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    display = Display(console)
    with display.shown():
        go_on(display)
    shown = io.StringIO()
    Console(file=shown, width=100).print(display._view())
    first, second = shown.getvalue().splitlines()
    assert "4/6" in first
    for expected in ("4 of 6 pictures", "1 of 3 jobs", "100 UNet evaluations/s", "GiB", "1 failed", "out/0"):
        assert expected in second, expected


def test_the_bar_moves_by_denoising_steps_and_back_where_a_batch_did_not_fit():
    display = Display(Console(file=io.StringIO()))
    display.on_plan(1, 8, 8)
    seen = []
    for pictures, step in ((8, 1), (8, 2), (4, 1), (4, 4)):
        display.on_step(pictures, step, 4)
        seen.append(display.bar.tasks[0].completed)
    display.on_batch(4, 16, 1.0)
    display.on_step(4, 2, 4)
    seen.append(display.bar.tasks[0].completed)
    assert seen == [2, 4, 1, 4, 6]
    assert (display.drawn, display.left) == (4, 8)


def test_every_denoising_step_of_a_plan_is_told(emoji, tmp_path):
    class Recorder(Observer):
        def __init__(self):
            self.told = []

        def on_step(self, pictures, step, of):
            self.told.append((pictures, step, of))

    watch = Recorder()
    job = Job(Source("emoji"), Cell("a cat", sampler=Sampler("heun", steps=2)), (0, 1), tmp_path)
    run_jobs([job], Store(tmp_path / ".cells"), watch)
    assert watch.told == [(2, 1, 3), (2, 2, 3), (2, 3, 3)], "Heun asks twice a step, but for the last"


def test_what_begins_is_said_before_torch_is_imported(tmp_path):
    code = (
        "import os, sys\n"
        "sys.addaudithook(lambda event, about: event == 'import' and about[0] == 'torch' and os._exit(0))\n"
        "import embedlab.cli.main\n"
        "sys.argv = ['embedlab', *sys.argv[1:]]\n"
        "embedlab.cli.main.main()\n"
        "os._exit(1)"
    )
    for words in (["seeds=[0]"], ["-m", "seeds=[0],[1]"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, "checking the settings …\n"), done.stderr


def test_what_a_command_begins_is_said_beside_its_answer_and_only_to_somebody(monkeypatch, capsys):
    progress.aside("loading emoji")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress.aside("loading emoji")
    assert capsys.readouterr() == ("", "loading emoji …\n")
