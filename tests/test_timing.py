"""Where time goes: parts that add up to the whole, on every thread, for every kind of sampling."""

import csv
import threading
import time
from typing import ClassVar

import pytest
import torch

from embedlab import Cell, Guidance, Interpolate, Job, Sampler, Source, Start, Store, run_jobs
from embedlab.condition import condition_calls
from embedlab.guidance import guided
from embedlab.rendering import sample_batch
from embedlab.samples import Request
from embedlab.sweep.observer import Observer
from embedlab.sweep.tables import read_costs, write_times
from embedlab.timing import Spent, Timer, Times


class Clock:
    """Time goes by when it is told so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_parts_are_measured_without_those_inside_them_and_add_up_to_the_whole():
    clock = Clock()
    timer = Timer(clock=clock)
    clock.sleep(100)
    with timer:
        with timer.part("outer"):
            clock.sleep(2)
            for rows in (3, 4):
                with timer.part("inner", rows):
                    clock.sleep(5)
        clock.sleep(3)
    clock.sleep(100)
    assert timer.times() == Times({"outer": Spent(2, 1), "inner": Spent(10, 2, 7), "other": Spent(3)})
    assert list(timer.times().parts)[-1] == "other"
    with timer:
        clock.sleep(1)
    assert timer.times().seconds == 16, "it goes on where it was entered again"


def test_what_another_thread_does_is_beside_and_no_part_of_the_whole():
    clock = Clock()
    timer = Timer(clock=clock)

    def work():
        with timer.part("files"):
            clock.sleep(5)

    with timer, timer.part("UNet"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert timer.times() == Times({"UNet": Spent(5, 1), "other": Spent()}, {"files": Spent(5, 1)})


def test_a_part_ends_where_it_raises():
    clock = Clock()
    timer = Timer(clock=clock)
    with timer:
        with pytest.raises(RuntimeError), timer.part("UNet"):
            raise RuntimeError
        clock.sleep(2)
    assert timer.times().parts == {"UNet": Spent(0, 1), "other": Spent(2)}


def test_a_device_is_waited_for_and_a_peak_is_of_the_part_in_which_it_was():
    waited, peaks = [], iter([7, 50, 900, 60, 5, 3])
    timer = Timer(settle=lambda: waited.append(1), peak=lambda: next(peaks))
    with timer, timer.part("outer"), timer.part("inner"):
        pass
    assert len(waited) == 6
    parts = timer.times().parts
    assert (parts["outer"].peak, parts["inner"].peak, parts["other"].peak) == (900, 60, 50)


def test_a_peak_is_of_whatever_each_thread_was_doing():
    held = iter([1, 10, 20, 300, 2, 2])
    timer = Timer(peak=lambda: next(held))

    def work():
        with timer.part("files"):
            pass

    with timer, timer.part("UNet"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert (timer.times().parts["UNet"].peak, timer.times().beside["files"].peak) == (300, 300)


def test_times_of_workers_are_added_up():
    timer = Timer()
    timer.add(Times({"UNet": Spent(1.0, 2, 4, 10)}, {"files": Spent(0.5)}))
    timer.add(Times({"UNet": Spent(2.0, 2, 4, 30), "decode": Spent(1.0)}))
    times = timer.times()
    assert times.parts == {"UNet": Spent(3.0, 4, 8, 30), "decode": Spent(1.0)}
    assert str(times) == "UNet 75 %, decode 25 %; beside it files 12 %"
    assert str(Times()) == ""


class Rows(Observer):
    def __init__(self):
        self.rows = self.seconds = 0

    def on_batch(self, pictures, rows, seconds):
        self.rows += rows
        self.seconds += seconds


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({}, 2 * 2 * 3),
        ({"guidance": Guidance(1)}, 2 * 3),
        ({"sampler": Sampler("heun", 3)}, 2 * 2 * 5),
        ({"start": Start("puppy.png", step=1)}, 2 * 2 * 2),
    ],
    ids=["guided", "not guided", "two calls a step", "from a picture"],
)
def test_a_plan_says_where_its_time_went(emoji, tmp_path, settings, rows):
    cell = Cell("a cat", **{"sampler": Sampler("ddim", 3), **settings})
    seen = Rows()
    start = time.perf_counter()
    outcome = run_jobs([Job(Source("emoji"), cell, (0, 1), tmp_path / "0")], Store(tmp_path / "store"), seen)
    took = time.perf_counter() - start
    times = outcome.times
    assert took / 2 < times.seconds <= took
    named = {"plan", "load", "tokenise", "edit", "encode", "scheduler", "UNet", "decode", "waiting", "other"}
    assert set(times.parts) == named
    assert times.parts["UNet"].rows == seen.rows == rows, "as many as went through the UNet"
    assert times.parts["UNet"].seconds == pytest.approx(seen.seconds), "and without decoding"
    assert times.parts["decode"].rows == 2
    assert set(times.beside) == {"scores", "files"}
    assert times.share("UNet") + times.share("decode") < 1


def test_a_unet_that_was_taught_the_scale_has_one_row_a_picture(sd1):
    cond = condition_calls(sd1, [Cell("a cat")])[0][0].cond
    timer = Timer()

    def taught(x, t, **settings):
        return (x,)

    taught.config, taught.dtype = {"time_cond_proj_dim": 8}, torch.float32
    denoise = guided(taught, [cond] * 3, [cond] * 3, [4.0] * 3, timer=timer)
    with timer:
        denoise(torch.zeros(3, 4, 8, 8), torch.tensor(1))
    assert timer.spent("UNet").rows == 3


def test_timing_changes_no_picture(emoji):
    cell = Cell("a cat", (Interpolate("cat", "dog", 0.5),), sampler=Sampler("ddim", 2))
    requests = [Request(condition_calls(emoji, [cell])[0], 0)]
    with torch.inference_mode():
        plain, timed = sample_batch(emoji, requests), sample_batch(emoji, requests, timer=Timer(settle=lambda: None))
    assert torch.equal(plain[0].picture, timed[0].picture)


def test_the_table_of_times_has_a_row_a_part_and_stays_where_nothing_was_rendered(tmp_path):
    write_times(
        tmp_path, Times({"UNet": Spent(3.0, 25, 50, asked=60), "decode": Spent(1.0, 1, 1)}, {"files": Spent(1.0, 1, 2)})
    )
    write_times(tmp_path, Times({"plan": Spent(1.0)}), 5)
    with (tmp_path / "times.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["part"], row["thread"], row["share"]) for row in rows] == [
        ("UNet", "sampling", "0.75"),
        ("decode", "sampling", "0.25"),
        ("files", "beside", "0.25"),
    ]
    costs = {"seconds/UNet": 3, "seconds/decode": 1, "seconds/all": 4, "sweep/pictures_per_second": 0.25}
    assert read_costs(tmp_path) == {**costs, "unet/rows_asked": 60, "unet/rows": 50}
    for other in ("", "part,thread\na,sampling\n", "part,thread,share\na,sampling,x\n", "\0"):
        (tmp_path / "times.csv").write_text(other)
        assert read_costs(tmp_path) == {}
    assert read_costs(tmp_path / "nowhere") == {}


def test_a_step_asks_nothing_of_the_unet_but_its_prediction(sd1):
    """diffusers finds a dtype by walking through all modules: 2 ms a step, where the whole step takes 100."""
    cond = condition_calls(sd1, [Cell("a cat")])[0][0].cond
    asked = []

    class Asked:
        config: ClassVar = {}

        @property
        def dtype(self):
            asked.append("dtype")
            return torch.float32

        def __call__(self, x, t, **settings):
            return (x,)

    denoise = guided(Asked(), [cond], [cond], [4.0])
    asked.clear()
    denoise(torch.zeros(1, 4, 8, 8), torch.tensor(1))
    assert not asked
