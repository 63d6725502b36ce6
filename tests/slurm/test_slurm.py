"""Sweeps on a real Slurm cluster of two nodes, which `make test-slurm` starts."""

import subprocess
import threading

import pytest
from crews import *  # noqa: F403
from crews import PAIR, SLOW, results, until


@pytest.fixture
def crew(monkeypatch) -> list[str]:
    from embedlab.workers import crew

    monkeypatch.setattr(crew, "EVERY", 0.5)  # this controller has nothing else to do
    return ["hydra/launcher=slurm"]


def jobs() -> list[str]:
    told = subprocess.run(["squeue", "--noheader", "--array", "--format", "%i"], capture_output=True, text=True)
    return told.stdout.split()


def test_a_worker_whose_time_is_over_hands_on_what_it_was_at(embedlab, gate, crew):
    def end() -> None:
        until(lambda: len(gate.made()) >= 3)
        subprocess.run(["scancel", "--signal=USR2", jobs()[0]], check=True)  # what Slurm sends when time is over

    ends = threading.Thread(target=end)
    ends.start()
    code, out, err = embedlab("-m", *gate.words, *SLOW, *crew, "hydra.sweep.dir=out")
    ends.join()
    assert code == 0, out + err
    assert "a worker is gone" not in out, "nobody died"
    assert {r["status"] for r in results("out").values()} == {"done"}
    made = [key for key, _ in gate.made()]
    assert len(made) == len(set(made)) == 16


def test_no_job_is_left_in_the_queue(embedlab, gate, crew):
    assert embedlab("-m", *gate.words, *PAIR, *crew)[0] == 0
    until(lambda: not jobs())


def test_what_slurm_does_not_take_is_one_line(embedlab, crew):
    code, _, err = embedlab("-m", "seeds=[0],[1]", *crew, "hydra.launcher.partition=nowhere", "hydra.sweep.dir=out")
    assert (code, err.count("\n")) == (2, 1)
    assert "Slurm does not take the workers: " in err
    assert "invalid partition" in err
    assert not results("out")
