"""Many jobs as one plan: shared calls, nothing twice, one failure is one failure."""

import errno
import importlib
import io
import json
import sys
import threading
import time
import weakref
from dataclasses import dataclass, replace
from typing import ClassVar
from weakref import WeakSet

import pytest
import torch
from rich.console import Console
from safetensors.torch import load, save

from embedlab import Cell, During, Guidance, Interpolate, Job, Sampler, Source, Store, noise, render, run_jobs
from embedlab.cli.progress import Display
from embedlab.errors import ConfigError, ModelError
from embedlab.sampler import generators
from embedlab.samples import Sample
from embedlab.sweep.background import Background
from embedlab.sweep.batch_size import BatchSizeSearch
from embedlab.sweep.job import load_result
from embedlab.sweep.observer import Observer
from embedlab.sweep.plan import plan
from embedlab.sweep.tracking import TrackerQueue
from embedlab.tracker import Disk

PROMPT = "A picture of a puppy"
FAST = Sampler("ddim", 2)


class Recorder(Observer):
    """Keeps what it is called with; `at_first` sees the size of each batch after its first step."""

    def __init__(self, at_first=lambda pictures: None):
        self.at_first = at_first
        self.batches, self.reasons, self.notes, self.finished_at, self.copied = [], [], [], {}, 0

    def on_step(self, pictures, step, steps):
        if step == 1:
            self.at_first(pictures)

    def on_batch(self, pictures, rows, seconds):
        if rows:
            self.batches.append((pictures, rows))
        else:
            self.copied += pictures

    def on_job(self, job, result):
        self.finished_at[job.number] = len(self.batches)

    def on_failure(self, job, reason):
        self.reasons.append((job.number, reason))

    def on_notice(self, text):
        self.notes.append(text)


@pytest.fixture
def source(folders):
    return Source(str(folders["sd1"]), device="cpu")


@pytest.fixture
def jobs(source, tmp_path):
    """Cells → jobs of seeds 0 and 1."""

    def make(*cells, seeds=(0, 1), **settings):
        return [Job(source, c, seeds, tmp_path / "sweep" / str(n), number=n, **settings) for n, c in enumerate(cells)]

    return make


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cells")


def cell(weight, **settings):
    return Cell(PROMPT, (Interpolate("puppy", "skunk", weight),), sampler=FAST, **settings)


def test_jobs_get_the_pictures_that_they_would_get_alone(jobs, store, sd1):
    cells = [cell(0.5), cell(1), cell(0.5, guidance=Guidance(7)), Cell(PROMPT + " and a cat", sampler=FAST)]
    mine = jobs(*cells, at_once=3)
    outcome = run_jobs(mine, store)
    assert not outcome.failures
    for job in mine:
        for seed, keys in job.pictures.items():
            (alone,) = render(sd1, [job.cell], [seed])
            torch.testing.assert_close(store.get(keys[1]).latents, alone.latents[0], atol=1e-4, rtol=0)
            assert (store.get(keys[1]).picture - alone.pictures[0]).abs().max() <= 1 / 255


def test_each_picture_is_made_once_and_equal_ones_share(jobs, store):
    seen = Recorder()
    mine = jobs(cell(0), cell(0.5), cell(1), cell(0.5), at_once=16)
    assert len(plan(mine)) == 2 * 4
    run_jobs(mine, store, seen)
    # seeds × (as written, half, whole), whose first unconditional half is one; weight 0 is as written, to the bit
    assert seen.batches == [(6, 2 * (1 + 3) + 2 * 6)]
    assert seen.copied == 2
    zero, plain = (store.get(mine[0].pictures[0][k]).latents for k in (1, 0))
    assert torch.equal(zero, plain)


def test_the_bar_counts_pictures_that_came_out_as_others(jobs, store):
    display = Display(Console(file=io.StringIO()))
    run_jobs(jobs(cell(0), cell(0.5)), store, display)
    (task,) = display.bar.tasks
    assert (task.completed, task.total) == (6, 6)


def test_each_text_is_encoded_once(jobs, store):
    mine = jobs(cell(0.5), cell(1), cell(0.5), cell(1, guidance=Guidance(7)), at_once=2)
    core, windows = mine[0].source.load().towers[0].core, []
    hook = core.register_forward_pre_hook(
        lambda _, words, given: windows.append(len(given["input_ids"])), with_kwargs=True
    )
    try:
        run_jobs(mine, store)
    finally:
        hook.remove()
    # as written, half, whole and the negative prompt: nothing once more for other seeds, scales, jobs or their tables
    assert windows == [1] * 4


def test_a_job_is_finished_as_soon_as_its_pictures_are_while_the_next_are_sampled(jobs, store):
    mine, sizes = jobs(cell(0.25), cell(0.5), cell(0.75), at_once=2), []

    def wait(pictures):
        """The files of the jobs that have all of their pictures come without the end of this batch."""
        sizes.append(pictures)
        until = time.monotonic() + 60
        while not all((job.folder / "result.json").is_file() for job in mine[: max(0, len(sizes) - 2)]):
            assert time.monotonic() < until
            time.sleep(0.01)

    seen = Recorder(wait)
    assert not run_jobs(mine, store, seen).failures
    assert sizes == [2, 2, 2, 2]
    assert list(seen.finished_at) == [0, 1, 2]


def test_an_interrupted_plan_leaves_no_thread_behind(jobs, store):
    sizes = []

    def interrupt(pictures):
        sizes.append(pictures)
        if len(sizes) == 3:
            raise KeyboardInterrupt

    mine = jobs(cell(0.25), cell(0.5), cell(0.75), at_once=2)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(mine, store, Recorder(interrupt))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("embedlab")]
    seen = Recorder()
    assert not run_jobs(mine, store, seen).failures
    assert sum(pictures for pictures, _ in seen.batches) == 4, "what was sampled is kept"


def test_what_a_task_in_the_background_raises_is_raised_and_nothing_after_it_is_done():
    done, background = [], Background("embedlab-test", most=1)
    background.put(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        for n in range(1000):
            background.put(lambda n=n: done.append(n))
            time.sleep(0.01)
    with pytest.raises(ZeroDivisionError):
        background.close()
    assert done == []


def test_what_is_there_is_not_made_again(jobs, store, tmp_path):
    run_jobs(jobs(cell(0.5), cell(1)), store)
    seen = Recorder()
    run_jobs(jobs(cell(0.5), cell(1), cell(0.75)), Store(store.folder), seen)
    assert sum(pictures for pictures, _ in seen.batches) == 2
    first = jobs(cell(0.5))[0].pictures[0][1]
    store.path(first).write_bytes(store.path(first).read_bytes()[:-9])
    seen = Recorder()
    run_jobs(jobs(cell(0.5)), Store(store.folder), seen)
    assert sum(pictures for pictures, _ in seen.batches) == 1, "a file cut short is made again"


def test_what_has_to_be_done_always_is_done_also_where_the_rest_is_dropped():
    done, background, go = [], Background("embedlab-test", most=8), threading.Event()
    background.put(go.wait)
    background.put(lambda: done.append("left out"))
    background.put(lambda: done.append("written"), always=True)
    threading.Timer(0.05, go.set).start()
    background.close(drop=True)
    assert done == ["written"]


def test_pictures_are_written_beside_the_sampling_and_before_their_job(jobs, store):
    threads, seen = set(), []

    class Watched(Store):
        def put(self, key, sample):
            threads.add(threading.current_thread().name)
            assert self.get(key) is not None, "it is held until it is written"
            seen.append(key)
            return super().put(key, sample)

    class AtJob(Recorder):
        def on_job(self, job, result):
            assert {key for pair in job.pictures.values() for key in pair} <= set(seen)

    watch = AtJob()
    assert not run_jobs(jobs(cell(0.5), cell(1), at_once=2), Watched(store.folder), watch).failures
    assert threads == {"embedlab-files"}
    assert not store._held


def test_a_picture_is_held_until_it_is_written_or_given_up(store):
    sample = Sample(torch.zeros(3, 8, 8), torch.zeros(4, 2, 2))
    assert store.hold("ab", sample) is store.get("ab")
    assert not store.path("ab").exists()
    store.release("ab")
    assert store.get("ab") is None
    held = store.hold("ab", sample)
    assert store.put("ab", held) is held
    assert store.path("ab").exists()
    assert store.get("ab") is held


def test_a_picture_is_given_back_as_it_will_be_read(store):
    torch.manual_seed(0)
    picture, latents, x0 = torch.rand(3, 3, 16, 16)
    sample = Sample(picture, torch.randn(4, 8, 8).permute(0, 2, 1), ((1, latents, x0),), (1, 3), {"threads": 1})
    given, read = store.put("ab", sample), Store(store.folder).get("ab")
    assert torch.equal(given.picture, read.picture)
    assert torch.equal(given.latents, read.latents)
    assert (given.batch, given.runtime, given.steps[0][0]) == (read.batch, read.runtime, read.steps[0][0])
    for mine, its in zip(given.steps[0][1:], read.steps[0][1:], strict=True):
        assert torch.equal(mine, its)
    assert not torch.equal(given.picture, picture), "a PNG has 256 shades"


def test_the_picture_of_another_key_is_not_taken(jobs, store):
    (job,) = jobs(cell(0.5))
    run_jobs([job], store)
    one, other = (store.path(job.pictures[seed][1]) for seed in (0, 1))
    other.write_bytes(one.read_bytes())
    assert job.pictures[0][1] in Store(store.folder)
    assert job.pictures[1][1] not in Store(store.folder)


@pytest.mark.parametrize("change", ["zeros", "another shape", "another picture", "no checksum", "other facts"])
def test_a_picture_that_is_not_as_it_was_kept_is_made_again(jobs, store, change):
    """Whoever shares a store may have written anything under the name of a picture."""
    (job,) = jobs(cell(0.5))
    run_jobs([job], store)
    path = store.path(job.pictures[0][1])
    kept = path.read_bytes()
    tensors, about = load(kept), about_of(kept)
    match change:
        case "zeros":
            tensors["latents"].zero_()
        case "another shape":
            tensors["latents"] = tensors["latents"][:, ::2].contiguous()
        case "another picture":
            tensors["picture"] = load(store.path(job.pictures[1][1]).read_bytes())["picture"]
        case "no checksum":
            del about["checksum"]
        case "other facts":
            about["batch"] = [0, 1] if about["batch"] != [0, 1] else [0, 2]
    path.write_bytes(save(tensors, {"about": json.dumps(about)}))
    assert job.pictures[0][1] not in Store(store.folder)
    seen = Recorder()
    (again,) = jobs(cell(0.5))
    assert not run_jobs([again], Store(store.folder), seen).failures
    assert sum(pictures for pictures, _ in seen.batches) == 1
    assert torch.allclose(load(path.read_bytes())["latents"], load(kept)["latents"], atol=1e-4)


def about_of(data):
    """What a file of the store says of itself."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["about"])


def test_a_batch_that_does_not_fit_is_halved_and_that_is_remembered(jobs, store):
    tried = []

    def small(pictures):
        tried.append(pictures)
        if pictures > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    seen = Recorder(small)
    outcome = run_jobs(jobs(*(cell(w / 8) for w in range(1, 8)), at_once=8), store, seen)
    assert not outcome.failures
    assert tried == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2], "what did not fit is not tried again"
    assert "8 pictures at once do not fit" in seen.notes[0]


def test_the_fastest_size_of_a_batch_is_found_and_kept(tmp_path):
    file = tmp_path / "cache" / "batches.json"
    search = BatchSizeSearch(None, "cpu", "a model", file)
    seconds = {8: 8.0, 16: 24.0, 4: 6.0, 32: 64.0}
    sizes = []
    for _ in range(6):
        sizes.append(search.size)
        search.took(search.size, 50 * search.size, seconds[search.size])
    assert sizes == [16, 32, 8, 4, 8, 8], "larger and smaller were slower a picture"
    assert BatchSizeSearch(None, "cpu", "a model", file).size == 8
    search = BatchSizeSearch(None, "cpu", "a model", file)
    search.too_many(8)
    assert search.size == 4
    assert BatchSizeSearch(None, "cpu", "a model", file).size == 4, "what did not fit is not tried again"
    untried = BatchSizeSearch(None, "cpu", "another model", file)
    untried.too_many(16)
    assert BatchSizeSearch(None, "cpu", "another model", file).size == 8, "also where nothing was measured yet"
    assert BatchSizeSearch(5, "cpu", "a model", file).size == 5, "a number that was asked for"


def test_a_size_that_was_measured_at_a_bad_moment_is_measured_again(tmp_path):
    file = tmp_path / "batches.json"
    seconds = {4: 2.4, 8: 3.6, 16: 6.4, 32: 13.6}  # of a call: 16 at once is the fastest

    def sizes(search, many, slowed=()):
        for n in range(many):
            yield (size := search.size)
            search.took(size, 50 * size, seconds[size] * (1.2 if n in slowed else 1))

    assert list(sizes(BatchSizeSearch(None, "cpu", "it", file), 4, slowed=[0, 1])) == [16, 32, 8, 4]
    assert list(sizes(BatchSizeSearch(None, "cpu", "it", file), 5)) == [16, 8, 16, 16, 16], "8 looked the fastest"
    later = list(sizes(BatchSizeSearch(None, "cpu", "it", file), 64))
    assert later.count(16) >= 56
    assert set(later) == {8, 16}


@dataclass(frozen=True)
class Fails:
    """An operator of the user's that fails."""

    def __call__(self, prompt, lookup):
        raise RuntimeError("on purpose")


def test_one_that_fails_leaves_the_others_be(jobs, store):
    bad = Cell(PROMPT, (Fails(),), sampler=FAST)
    mine = jobs(cell(0.5), bad, cell(1))
    outcome = run_jobs(mine, store)
    assert [(job.number, reason) for job, reason in outcome.failures] == [(1, "RuntimeError: on purpose")]
    states = [json.loads((job.folder / "result.json").read_text())["status"] for job in mine]
    assert states == ["done", "failed", "done"]
    assert load_result(mine[1]).pictures[0].error == "RuntimeError: on purpose"


def test_nan_is_marked_by_picture(jobs, store, sd1):
    (job,) = jobs(cell(0.5))
    unet = job.source.load().unet
    first = noise((4, 8, 8), generators([1]))[0]

    def spoil(module, given, out):
        for row, latents in enumerate(given[0]):
            if torch.equal(latents, first):
                out[0][row] = float("nan")

    hook = unet.register_forward_hook(spoil)
    try:
        outcome = run_jobs([job], store)
    finally:
        hook.remove()
    (_, reason) = outcome.failures[0]
    assert reason.startswith(
        "the latents of seed 1 hold NaN or infinite numbers from step 0 on (puppy → 0.5 skunk); try"
    )
    rows = load_result(job).pictures
    assert (job.folder / rows[0].file).is_file()
    assert rows[1].file is None
    assert rows[1].error == reason
    seen = Recorder()
    assert not run_jobs([job], store, seen).failures
    assert sum(pictures for pictures, _ in seen.batches) == 2, "seed 1 alone, as written and edited"


def test_a_full_disk_fails_what_it_hits_and_no_more(jobs, store):
    mine = jobs(cell(0.5), cell(1), at_once=1)

    class Full(Store):
        """Has no room for one of the pictures."""

        def put(self, key, sample):
            if key == mine[0].pictures[1][1]:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().put(key, sample)

    outcome = run_jobs(mine, Full(store.folder))
    ((job, reason),) = outcome.failures
    assert job.number == 0
    assert "No space left on device" in reason
    assert [row.error and "No space left" in row.error for row in load_result(mine[0]).pictures] == [None, True]
    assert load_result(mine[1]).status == "done"


class Dies(Disk):
    """A tracker that takes runs and loses them."""

    def run(self, name, folder, config, group=None):
        raise ConnectionError("the server is gone")


def test_a_tracker_that_dies_loses_no_picture(jobs, store):
    first, second = jobs(cell(0.5), cell(1))
    mine = [replace(first, tracker=Dies()), replace(second, tracker=Disk())]
    outcome = run_jobs(mine, store)
    ((job, reason),) = outcome.failures
    assert job.number == 0
    assert reason == "its pictures are made, but were not logged: ConnectionError: the server is gone"
    result = load_result(mine[0])
    assert (result.status, result.logged, result.log_error) == ("done", False, reason)
    assert (mine[1].folder / "log" / "scores.jsonl").is_file()
    assert load_result(mine[1]).logged
    log = TrackerQueue(Observer())
    log.put(replace(mine[0], tracker=Disk()), result)
    log.close()
    assert not log.outcome.failures
    assert load_result(mine[0]).logged
    assert load_result(mine[0]).log_error is None, "what was mended counts no more"


def test_weights_that_cannot_be_read_end_it_before_anything(jobs, store, unreadable):
    (job,) = jobs(cell(0.5))
    with pytest.raises(ModelError, match="the part 'unet'"):
        run_jobs([replace(job, source=Source(str(unreadable), device="cpu"))], store)


@dataclass(frozen=True)
class Weighed:
    """Scales the rows after the encoder, and knows which of those it made are still held."""

    by: float
    stage: ClassVar[str] = "hidden"
    held: ClassVar[WeakSet] = WeakSet()

    def __call__(self, prompt, texts):
        hidden = prompt.hidden * self.by
        self.held.add(hidden)
        return replace(prompt, hidden=hidden)


def test_what_is_held_does_not_grow_with_the_plan(source, tmp_path):
    samples, most = [], {"conditionings": 0, "pictures": 0}

    class Weighing(Store):
        def put(self, key, sample):
            kept = super().put(key, sample)
            samples.append(weakref.ref(kept))
            most["pictures"] = max(most["pictures"], sum(one() is not None for one in samples))
            most["conditionings"] = max(most["conditionings"], len(Weighed.held))
            return kept

    cells = [Cell(PROMPT, [Weighed(n / 150)], sampler=Sampler("ddim", 1)) for n in range(1, 151)]
    jobs = [Job(source, one, (0,), tmp_path / str(n), at_once=8, number=n) for n, one in enumerate(cells)]
    assert not run_jobs(jobs, Weighing(tmp_path / "cells")).failures
    assert len(samples) == 151
    assert 60 <= most["conditionings"] <= 66 + 34
    assert 60 <= most["pictures"] <= 64 + 34


def test_a_result_of_other_settings_is_never_overwritten(jobs, store):
    (job,) = jobs(cell(0.5))
    run_jobs([job], store)
    (other,) = jobs(cell(0.75))
    with pytest.raises(ConfigError, match=r"holds another result \(other settings: .*nothing is overwritten"):
        load_result(other)
    file = job.folder / "result.json"
    result = json.loads(file.read_text())
    file.write_text(json.dumps({**result, "key": "x", "versions": {**result["versions"], "torch": "1.0"}}))
    with pytest.raises(ConfigError, match=r"made with torch 1.0 \(now "):
        load_result(job)
    file.write_text(json.dumps(result)[:-20])
    assert load_result(job) is None, "cut short: the job is made again"
    file.write_text(json.dumps({**result, "format": 99}))
    with pytest.raises(ConfigError, match=r"is of a newer embedlab \(format 99, this one reads 1\)"):
        load_result(job)


def test_keys_tell_apart_what_makes_other_pictures(source, tmp_path):
    base = Job(source, cell(0.5), (0,), tmp_path).pictures[0][1]
    others = [cell(0.51), cell(0.5, guidance=Guidance(5)), cell(0.5, size=32)]
    keys = {Job(source, other, (0,), tmp_path).pictures[0][1] for other in others}
    keys |= {Job(source, cell(0.5), (1,), tmp_path).pictures[1][1]}
    half = Source(source.name, device="cpu", dtype="bfloat16")
    keys |= {Job(half, cell(0.5), (0,), tmp_path).pictures[0][1]}
    assert len({base, *keys}) == 6
    assert Job(Source(source.name, device="cpu"), cell(0.5), (0,), tmp_path / "x").pictures[0][1] == base


class Plain:
    """An own operator without a repr."""

    def __init__(self, by):
        self.by = by

    def __call__(self, prompt, lookup):
        return prompt


THEIRS = """
class Theirs:
    def __call__(self, prompt, lookup):
        return prompt
"""


def test_own_operators_are_known_by_settings_and_code(source, tmp_path, monkeypatch):
    def key(*operators):
        return Job(source, Cell(PROMPT, operators, sampler=FAST), (0,), tmp_path).pictures[0][1]

    assert key(Plain(1)) == key(Plain(1)), "where it is in memory makes no difference"
    assert key(Plain(1)) != key(Plain(2))
    file = tmp_path / "theirs_by_code.py"
    file.write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(file.stem)
    monkeypatch.setitem(sys.modules, file.stem, module)  # and away at the end
    alone, within = key(module.Theirs()), key(During(module.Theirs(), 0.5))
    importlib.reload(module)
    assert alone == key(module.Theirs())
    file.write_text(THEIRS + "# rewritten\n")
    importlib.reload(module)
    assert alone != key(module.Theirs())
    assert within != key(During(module.Theirs(), 0.5))
