"""What is seen of a sweep while it runs, on a terminal and off it."""

import io
from types import SimpleNamespace

from rich.console import Console

from embedlab import progress
from embedlab.progress import Display


def a_job(number):
    return SimpleNamespace(number=number, folder=f"out/{number}", title=f"weight={number}")


def go_on(display):
    display.planned(3, 8, 6)
    display.drew(4, 200, 2.0, 0.5)
    display.finished(a_job(0), {})
    display.note("notice: the prompt is long.")
    display.note("notice: the prompt is long.")
    display.failed(a_job(1), "RuntimeError: [on] purpose")


def test_off_a_terminal_it_is_quiet_and_line_wise(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=False, soft_wrap=True))
    with display.shown():
        go_on(display)
    display.close()
    lines = out.getvalue().splitlines()
    assert lines[0] == "2 of 8 pictures are there already."
    assert "1 of 3 jobs, 100 UNet rows/s, " in lines[1]
    assert lines[1].endswith("GiB, out/0")
    assert lines[2:4] == ["notice: the prompt is long.", "job 1 (weight=1) failed: RuntimeError: [on] purpose"]
    assert lines[4].startswith(
        "200 UNet rows in 2.0 s (100 a second); planning 0.0 s, other work between the calls 20%"
    )
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_it_is_one_display_with_all_of_it():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    display = Display(console)
    with display.shown():
        go_on(display)
    shown = io.StringIO()
    Console(file=shown, width=80).print(display._view())
    first, second = shown.getvalue().splitlines()
    assert "4/6" in first
    for expected in ("1 of 3 jobs", "100 UNet rows/s", "GiB", "1 failed", "out/0"):
        assert expected in second, expected
