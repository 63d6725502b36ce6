"""The queue and whoever watches it, with workers that are forked from this process."""

import multiprocessing
import os
import pickle
import signal
import threading
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from embedlab import Cell, EmbedlabError, Interpolate, Job, Sampler, Store, carry_out, find
from embedlab.sweep import store
from embedlab.sweep.run import Log, Outcome, Quiet, plan
from embedlab.tracker import Disk
from embedlab.workers import crew

STEPS = Sampler("ddim", 2)


class Watch(Quiet):
    """Writes down what it is told."""

    def __init__(self):
        self.notes, self.failures, self.done = [], {}, []

    def note(self, text):
        self.notes.append(text)

    def failed(self, job, reason):
        self.failures[job.number] = reason

    def finished(self, job, result):
        self.done.append(job.number)


class Forks:
    """A cluster of this machine's processes."""

    workers, pictures = 2, 4

    def __init__(self):
        self.processes = {}

    def start(self, queue, count):
        names = [f"fork-{len(self.processes) + n}" for n in range(count)]
        for name in names:
            process = multiprocessing.get_context("fork").Process(target=crew.work, args=(str(queue), name, 1))
            process.start()
            self.processes[name] = process
        return names

    def alive(self):
        return {name for name, process in self.processes.items() if process.is_alive()}

    def last_words(self, worker):
        return f"exit code {self.processes[worker].exitcode}"

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.join()


def in_worker():
    return any(thread.name == "embedlab-queue" for thread in threading.enumerate())


@dataclass(frozen=True)
class Deadly:
    """Kills the worker that comes near."""

    def __call__(self, prompt, lookup):
        if in_worker():
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


@pytest.fixture
def jobs(folders, tmp_path):
    """Jobs of an operator each, as chunks of their own."""
    source = find(str(folders["sd1"]), device="cpu")

    def make(*operators):
        cells = [Cell("a picture of a puppy", [operator], sampler=STEPS) for operator in operators]
        return [
            Job(source, cell, (2 * n, 2 * n + 1), tmp_path / "out" / str(n), number=n) for n, cell in enumerate(cells)
        ]

    return make


@pytest.fixture
def carried(tmp_path):
    """Carry jobs out by a crew."""

    def run(jobs, cluster=None):
        watch = Watch()
        log = Log(watch, Outcome())
        (tmp_path / "out").mkdir(exist_ok=True)
        try:
            crew.Crew(cluster or Forks(), tmp_path / "out")(jobs, Store(tmp_path / "cells"), watch, log)
        finally:
            log.close()
            assert not list((tmp_path / "out").glob(".queue*"))
        return log.outcome, watch

    return run


MIX = [Interpolate("puppy", "skunk", weight) for weight in (0.25, 0.5, 0.75)]


def test_a_crew_makes_what_carry_out_makes(jobs, carried, tmp_path):
    mine = [replace(job, tracker=Disk()) for job in jobs(*MIX)]
    outcome, watch = carried(mine)
    ours = carry_out([replace(job, folder=tmp_path / f"ours-{job.number}") for job in mine], Store(tmp_path / "ours"))
    assert sorted(watch.done) == sorted(outcome.results) == sorted(ours.results) == [0, 1, 2]
    for n in range(3):
        assert outcome.results[n]["key"] == ours.results[n]["key"]
        assert outcome.results[n]["logged"], "by this process"
    for key in plan(mine):
        theirs = Store(tmp_path / "cells").get(key)
        assert (theirs.latents - Store(tmp_path / "ours").get(key).latents).abs().max() <= 1e-4


def test_a_job_that_kills_its_workers_is_given_up(jobs, carried):
    outcome, watch = carried(jobs(MIX[0], Deadly(), MIX[1]))
    assert watch.failures == {1: "3 workers died over it: exit code -9"}
    assert {n: result["status"] for n, result in outcome.results.items()} == {0: "done", 1: "failed", 2: "done"}
    assert "a worker is gone (exit code -9); 1 unfinished jobs of its go to another" in watch.notes


def test_an_operator_that_workers_have_not_is_told(jobs, carried):
    outcome, watch = carried(jobs(MIX[0], Foreign()))
    assert "No module named 'theirs'" in watch.failures[1]
    assert {n: result["status"] for n, result in outcome.results.items()} == {0: "done", 1: "failed"}


def test_weights_that_cannot_be_read_end_it_as_they_do_here(jobs, carried, monkeypatch):
    from embedlab import models

    def broken(source):
        raise models.ModelError("its unet is cut short")

    monkeypatch.setattr(models.Source, "load", broken)
    with pytest.raises(EmbedlabError, match="its unet is cut short"):
        carried(jobs(*MIX))


def test_workers_that_end_at_once_are_told(jobs, carried, monkeypatch):
    monkeypatch.setattr(crew, "work", lambda *_: os._exit(3))
    with pytest.raises(EmbedlabError, match="workers end before they take anything up: exit code 3"):
        carried(jobs(*MIX))


def test_a_chunk_whose_file_is_taken_away_is_put_again(jobs, carried):
    class Thief(Forks):
        def start(self, queue, count):
            for path in () if self.processes else sorted(queue.glob("*.todo"))[1:]:
                path.unlink()
            return super().start(queue, count)

    outcome, _ = carried(jobs(*MIX), Thief())
    assert {n: result["status"] for n, result in outcome.results.items()} == dict.fromkeys(range(3), "done")


def test_what_two_workers_tell_counts_once(jobs, tmp_path):
    watch = Watch()
    mine = jobs(MIX[0])
    queue = crew.Queue.within(tmp_path)
    foreman = crew._Foreman(Forks(), queue, mine, Store(tmp_path / "cells"), watch, Log(watch, Outcome()))
    queue.put(0, foreman.left[0])
    assert crew.work(str(queue.folder), "a") == 1
    ((number, report),) = queue.reports()
    foreman.take(number, report)
    foreman.take(number, {**report, "worker": "b"})
    foreman.give_back(number, "it told of it and died")
    foreman.log.close()
    assert watch.done == [0]
    assert not queue.waiting()
    queue.close()


def test_a_chunk_goes_to_one_worker_and_back(tmp_path, jobs):
    queue = crew.Queue.within(tmp_path)
    queue.put(7, crew.chunks_of(jobs(MIX[0]), tmp_path, 4)[0])
    assert queue.claim("a")[0] == 7
    assert queue.claim("b") is None
    assert [(number, worker) for number, worker, _ in queue.held()] == [(7, "a")]
    pytest.importorskip("submitit")
    shift = crew.Shift()
    shift.worker = "a"
    again = shift.checkpoint(str(queue.folder), 1)
    assert (again.function, again.args) == (shift, (str(queue.folder), 1))
    assert queue.claim("b")[0] == 7
    queue.close()
    with pytest.raises(EmbedlabError, match="is not there on .*; all machines have to see it"):
        crew.work(str(queue.folder), "c")


def test_what_a_killed_process_left_ends(tmp_path, jobs):
    old = crew.Queue.within(tmp_path)
    worker = multiprocessing.get_context("fork").Process(target=_wait, args=(old,))
    worker.start()
    crew.dismiss(tmp_path)
    worker.join(timeout=60)
    assert worker.exitcode == 0, "it ended by itself"
    assert not list(tmp_path.glob(".queue-*"))


def _wait(queue):
    with crew._while_open(queue):
        threading.Event().wait()


def test_keys_travel_with_a_job(jobs, monkeypatch):
    mine = [replace(job, tracker=Disk()) for job in jobs(*MIX)]
    keys = [job.pictures for job in mine]
    sent = pickle.dumps([chunk.jobs for chunk in crew.chunks_of(mine, mine[0].folder, 4)])

    def never(*_):
        raise AssertionError("a worker's own device does not matter")

    monkeypatch.setattr(store, "pick_device", never)
    there = [job for part in pickle.loads(sent) for job in part]
    assert [job.pictures for job in there] == keys
    assert [job.key for job in there] == [job.key for job in mine]
    assert not any(isinstance(job.tracker, Disk) for job in there)


def test_a_worker_decides_by_its_gpus_and_not_by_this_machines(folders, monkeypatch):
    source = find(str(folders["sd1"]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    there = source.elsewhere(gpus=1)
    assert (there.device, there.dtype) == ("cuda", "bfloat16")
    cell = Cell("a puppy")
    assert store.key_of(there, cell)(0) != store.key_of(source, cell)(0), "no worker's picture passes for ours"
    assert store.key_of(source.elsewhere(gpus=0), cell)(0) == store.key_of(source, cell)(0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert source.elsewhere(gpus=0).device == "cpu"
    assert find(str(folders["sd1"]), device="cpu", dtype="float16").elsewhere(gpus=1).dtype == "float16"


def test_what_another_chunk_begins_with_is_drawn_last(jobs, tmp_path):
    class Ledger(Store):
        made: list[str] = []  # noqa: RUF012

        def put(self, key, drawn):
            self.made.append(key)
            return super().put(key, drawn)

    mine = [replace(job, seeds=(0, 1), at_once=1) for job in jobs(*MIX)]
    first, second, _ = crew.chunks_of(mine, tmp_path, 4)
    plain = {key for key, _ in mine[0].pictures.values()}
    assert (first.later, second.later) == (frozenset(), plain)
    carry_out(second.jobs, Ledger(tmp_path / "cells"), later=second.later)
    assert set(Ledger.made[2:]) == plain


def test_workers_that_fit_are_counted_by_node():
    fit = crew.Ray._fit
    assert fit(SimpleNamespace(cpus=2, gpus=0), {"CPU": 1.0}) == 0, "two such nodes have no room for one"
    assert fit(SimpleNamespace(cpus=2, gpus=0.5), {"CPU": 9.0, "GPU": 1.0}) == 2


def test_workers_end_when_their_foreman_is_stopped(jobs, carried):
    class Stopped(Forks):
        def alive(self):
            if self.processes:
                raise KeyboardInterrupt
            return super().alive()

    cluster = Stopped()
    with pytest.raises(KeyboardInterrupt):
        carried(jobs(*MIX), cluster)
    assert cluster.processes
    assert not any(process.is_alive() for process in cluster.processes.values())
