"""Chunks, and what is known of them, with workers that are forked from this process."""

import multiprocessing
import os
import pickle
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from embedlab import Cell, EmbedlabError, Interpolate, Job, Sampler, Source, Store, run_jobs
from embedlab.sweep import identity
from embedlab.sweep.observer import Observer
from embedlab.sweep.plan import Outcome, plan
from embedlab.sweep.tracking import TrackerQueue
from embedlab.tracker import Disk
from embedlab.workers import ray, slurm
from embedlab.workers.chunks import chunk_jobs
from embedlab.workers.engine import Engine, Progress
from embedlab.workers.worker import Events, run_chunk

STEPS = Sampler("ddim", 2)


class Recorder(Observer):
    """Writes down what it is told."""

    def __init__(self):
        self.notes, self.failures, self.done = [], {}, []

    def on_notice(self, text):
        self.notes.append(text)

    def on_failure(self, job, reason):
        self.failures[job.number] = reason

    def on_job(self, job, result):
        self.done.append(job.number)


def there(pipe, data):
    """A worker: it sends events until it ends."""
    torch.set_num_threads(1)
    run_chunk(data, "here", pipe.send)


class Forks(Engine):
    """An engine of this machine's processes, one a chunk."""

    workers, pictures, target = 2, 4, staticmethod(there)

    def __init__(self):
        self.processes = []

    def run(self, progress):
        while progress.left:
            number = progress.waiting.pop(0)
            ours, theirs = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.get_context("fork").Process(
                target=self.target, args=(theirs, progress.data(number))
            )
            process.start()
            self.processes.append(process)
            theirs.close()
            with suppress(EOFError):
                while True:
                    progress.on_event(number, ours.recv())
            process.join()
            progress.on_death(number, f"exit code {process.exitcode}")

    def close(self):
        for process in self.processes:
            process.kill()
            process.join()


HERE = os.getpid()


@dataclass(frozen=True)
class Deadly:
    """Kills the worker that comes near."""

    def __call__(self, prompt, lookup):
        if os.getpid() != HERE:
            os.kill(os.getpid(), signal.SIGKILL)
        return prompt


def missing():
    raise ModuleNotFoundError("No module named 'theirs'")


@dataclass(frozen=True)
class Foreign:
    """Cannot be had in a worker."""

    def __call__(self, prompt, lookup):
        return prompt

    def __reduce__(self):
        return missing, ()


def jobs_of(model, folder, *operators):
    """Jobs of an operator each, as chunks of their own."""
    source = Source(str(model), device="cpu")
    cells = [Cell("a picture of a puppy", [operator], sampler=STEPS) for operator in operators]
    return [Job(source, cell, (2 * n, 2 * n + 1), folder / "out" / str(n), number=n) for n, cell in enumerate(cells)]


def carry_out(folder, jobs, engine=None):
    """Jobs carried out by an engine."""
    observer = Recorder()
    log = TrackerQueue(observer, Outcome())
    (folder / "out").mkdir(exist_ok=True)
    try:
        (engine or Forks())(jobs, Store(folder / "cells"), observer, log)
    finally:
        log.close()
    return log.outcome, observer


@pytest.fixture
def jobs(folders, tmp_path):
    return partial(jobs_of, folders["sd1"], tmp_path)


@pytest.fixture
def carried(tmp_path):
    return partial(carry_out, tmp_path)


MIX = [Interpolate("puppy", "skunk", weight) for weight in (0.25, 0.5, 0.75)]


def test_workers_make_what_carry_out_makes(jobs, carried, tmp_path):
    mine = [replace(job, tracker=Disk()) for job in jobs(*MIX)]
    outcome, observer = carried(mine)
    ours = run_jobs([replace(job, folder=tmp_path / f"ours-{job.number}") for job in mine], Store(tmp_path / "ours"))
    assert sorted(observer.done) == sorted(outcome.results) == sorted(ours.results) == [0, 1, 2]
    for n in range(3):
        assert outcome.results[n].key == ours.results[n].key
        assert outcome.results[n].logged, "by this process"
    for key in plan(mine):
        theirs = Store(tmp_path / "cells").get(key)
        assert (theirs.latents - Store(tmp_path / "ours").get(key).latents).abs().max() <= 1e-4


def test_a_job_that_kills_its_workers_is_given_up(jobs, carried):
    outcome, observer = carried(jobs(MIX[0], Deadly(), MIX[1]))
    assert observer.failures == {1: "3 workers died over it: exit code -9"}
    assert {n: result.status for n, result in outcome.results.items()} == {0: "done", 1: "failed", 2: "done"}
    assert "a worker is gone (exit code -9); 1 unfinished job of its goes to another" in observer.notes


def test_an_operator_that_workers_have_not_is_told(jobs, carried):
    outcome, observer = carried(jobs(MIX[0], Foreign()))
    assert "No module named 'theirs'" in observer.failures[1]
    assert {n: result.status for n, result in outcome.results.items()} == {0: "done", 1: "failed"}


def test_weights_that_cannot_be_read_end_it_as_they_do_here(jobs, carried, unreadable):
    mine = [replace(job, source=Source(str(unreadable), device="cpu")) for job in jobs(*MIX)]
    with pytest.raises(EmbedlabError, match="the part 'unet'"):
        carried(mine)


def test_workers_that_end_at_once_are_told(jobs, carried):
    class Broken(Forks):
        target = staticmethod(lambda *_: os._exit(3))

    with pytest.raises(EmbedlabError, match="the workers end before they start a job: exit code 3"):
        carried(jobs(*MIX), Broken())


def test_what_a_chunk_that_begins_again_says_counts_once(jobs, tmp_path):
    observer = Recorder()
    mine = jobs(MIX[0], Broken())
    parts = chunk_jobs(mine, tmp_path / "cells", pictures=64)
    progress = Progress(mine, parts, observer, TrackerQueue(observer, Outcome()))
    (number,) = progress.waiting
    events = []
    run_chunk(progress.data(number), "here", events.append)
    for event in events[:-1]:
        progress.on_event(number, event)
    assert list(progress.left) == [number], "it has not ended"
    run_chunk(progress.data(number), "there", events.append)  # Slurm has queued it again
    for event in events:
        progress.on_event(number, event)
    progress.on_death(number, "it ended and died")
    assert (observer.done, list(observer.failures)) == ([0], [1])
    assert len(progress.log.outcome.failures) == 1
    assert sorted(progress.log.outcome.results) == [0, 1]
    assert not progress.left


@dataclass(frozen=True)
class Broken:
    """Cannot be applied."""

    def __call__(self, prompt, lookup):
        raise RuntimeError("on purpose")


def test_a_dead_workers_files_count_though_its_last_words_are_lost(jobs, tmp_path):
    observer = Recorder()
    mine = jobs(*MIX)
    progress = Progress(
        mine, chunk_jobs(mine, tmp_path / "cells", pictures=64), observer, TrackerQueue(observer, Outcome())
    )
    (number,) = progress.waiting
    progress.on_event(number, ("begun", "here", 1))
    run_jobs(mine[:2], Store(tmp_path / "cells"))
    progress.on_death(number, "killed")
    assert observer.done == [0, 1]
    assert observer.notes == ["a worker is gone (killed); 1 unfinished job of its goes to another"]
    assert [job.number for job in pickle.loads(progress.data(number)).jobs] == [2]


def test_chunks_are_of_about_one_size_and_leave_no_worker_idle(jobs, tmp_path):
    mine = jobs(*MIX, *(Interpolate("puppy", "cat", weight) for weight in (0.3, 0.6, 0.9)))  # 4 pictures each
    sizes = [[len(chunk.jobs) for chunk in chunk_jobs(mine, tmp_path, pictures)] for pictures in (4, 16, 20, 24, 100)]
    assert sizes == [[1] * 6, [3, 3], [3, 3], [6], [6]]
    assert [len(chunk.jobs) for chunk in chunk_jobs(mine, tmp_path, 100, workers=3)] == [2, 2, 2]


def test_a_log_of_slurm_holds_events_between_whatever_else_is_printed(tmp_path, capsys):
    log = tmp_path / "log"
    element = slurm._Element(0, SimpleNamespace(paths=SimpleNamespace(stdout=log)))
    assert not list(element.events()), "it has not begun"
    slurm._print_event(("notice", "one"))
    said = capsys.readouterr().out
    log.write_text("a bar: 50%" + said + said[:-9])
    assert list(element.events()) == [("notice", "one")]
    log.write_text("a bar: 50%" + said + said[:-9] + said + said)
    assert list(element.events()) == [("notice", "one")] * 2, "what was cut short is none"
    assert not list(element.events())


def test_a_slurm_task_that_is_queued_again_is_the_same():
    pytest.importorskip("submitit")
    task = slurm.SlurmTask()
    again = task.checkpoint(b"a chunk", 1)
    assert (again.function, again.args) == (task, (b"a chunk", 1))


def test_what_a_killed_process_left_to_slurm_is_named_where_it_cannot_be_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    slurm.cancel_left(tmp_path)
    (tmp_path / ".slurm").mkdir()
    for name in ("17_0", "17_1", "9"):
        (tmp_path / ".slurm" / f"{name}_submitted.pkl").touch()
    with pytest.raises(EmbedlabError, match=r"jobs of Slurm may still work in .*: where Slurm is, scancel 17 9, and"):
        slurm.cancel_left(tmp_path)


def test_keys_travel_with_a_job(jobs, monkeypatch):
    mine = [
        replace(job, source=replace(job.source, device=None, dtype="float32"), tracker=Disk()) for job in jobs(*MIX)
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    keys = [job.pictures for job in mine]
    sent = pickle.dumps([chunk.jobs for chunk in chunk_jobs(mine, mine[0].folder, 4)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    there = [job for part in pickle.loads(sent) for job in part]
    assert [job.pictures for job in there] == keys, "a worker's own device does not matter"
    assert replace(there[0], seeds=there[0].seeds).pictures != keys[0], "it would"
    assert [job.key for job in there] == [job.key for job in mine]
    assert not any(isinstance(job.tracker, Disk) for job in there)


def test_a_worker_decides_by_its_gpus_and_not_by_this_machines(folders, monkeypatch):
    source = Source(str(folders["sd1"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    there = source.for_worker(gpus=1)
    assert (there.device, there.dtype) == ("cuda", "bfloat16")
    cell = Cell("a puppy")
    assert identity.key_of(there, cell)(0) != identity.key_of(source, cell)(0), "no worker's picture passes for ours"
    assert identity.key_of(source.for_worker(gpus=0), cell)(0) == identity.key_of(source, cell)(0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert source.for_worker(gpus=0).device == "cpu"
    assert Source(str(folders["sd1"]), device="cpu", dtype="float16").for_worker(gpus=1).dtype == "float16"


def test_what_another_chunk_begins_with_is_drawn_last(jobs, tmp_path):
    class Ledger(Store):
        made: list[str] = []  # noqa: RUF012

        def put(self, key, drawn):
            self.made.append(key)
            return super().put(key, drawn)

    mine = [replace(job, seeds=(0, 1), at_once=1) for job in jobs(*MIX)]
    first, second, _ = chunk_jobs(mine, tmp_path, 4)
    plain = {key for key, _ in mine[0].pictures.values()}
    assert (first.later, second.later) == (frozenset(), plain)
    run_jobs(second.jobs, Ledger(tmp_path / "cells"), later=second.later)
    assert set(Ledger.made[2:]) == plain


@pytest.mark.parametrize(
    ("gpus", "memory", "node", "count"),
    [
        (0, 0, {"CPU": 1.0}, 0),  # two such nodes have no room for one
        (0.5, 0, {"CPU": 9.0, "GPU": 1.0}, 2),
        (0, 2**30, {"CPU": 9.0, "memory": 3.5 * 2**30}, 3),
    ],
)
def test_workers_that_fit_are_counted_by_node(gpus, memory, node, count):
    assert ray.Ray._fit(SimpleNamespace(cpus=2, gpus=gpus, _bytes=memory), node) == count


def stop(*_):
    time.sleep(1)  # what is raised while a process is being forked is lost
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)


class Stopped(Forks):
    target = staticmethod(stop)


STOPPED = """
import sys
from pathlib import Path
from test_workers import MIX, Stopped, carry_out, jobs_of

engine, here = Stopped(), Path.cwd()
try:
    carry_out(here, jobs_of(sys.argv[1], here, *MIX), engine)
except KeyboardInterrupt:
    print([process.is_alive() for process in engine.processes])
"""


def test_workers_end_when_the_process_that_was_started_is_stopped(forks, folders, tmp_path):
    where = {"PYTHONPATH": str(Path(__file__).parent)}
    done = forks.python(STOPPED, str(folders["sd1"]), cwd=tmp_path, env=where)  # pytest's worker would go with it
    assert (done.returncode, done.stdout) == (0, "[False]\n"), done.stderr


def test_events_of_two_threads_are_sent_one_at_a_time():
    at_once, most = [], []

    def send(event):
        at_once.append(event)
        most.append(len(at_once))
        time.sleep(0.01)
        at_once.remove(event)

    sender = Events(send)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(sender.on_notice, "abcdefgh"))
    assert most == [1] * 8
