"""Sweeps on a real Slurm cluster of two nodes, which `make test-slurm` starts."""

import os
import signal
import subprocess
import threading

import pytest
from cluster_laws import *  # noqa: F403
from cluster_laws import PAIR, SLOW, results, until


@pytest.fixture
def workers() -> list[str]:
    return ["hydra/launcher=slurm", "hydra.launcher.interval=0.5"]  # this controller has nothing else to do


def jobs() -> list[str]:
    told = subprocess.run(["squeue", "--noheader", "--array", "--format", "%i"], capture_output=True, text=True)
    return told.stdout.split()


def test_a_worker_whose_time_is_over_hands_on_what_it_was_at(embedlab, gate, workers):
    def end() -> None:
        until(lambda: len(gate.made()) >= 3)
        # what Slurm sends when time is over; scancel would send it again to the process that comes after
        os.kill(gate.made()[-1][1], signal.SIGUSR2)

    slow = [word.replace("steps=8", "steps=60") for word in SLOW]  # it is over in the midst of a chunk
    ends = threading.Thread(target=end)
    ends.start()
    code, out, err = embedlab("-m", *gate.words, *slow, *workers, "hydra.sweep.dir=out")
    ends.join()
    assert code == 0, out + err
    assert "a worker is gone" not in out, "nobody died"
    assert {r["status"] for r in results("out").values()} == {"done"}
    made = [key for key, _ in gate.made()]
    assert len(made) == len(set(made)) == 16


def test_a_lost_node_costs_its_unfinished_cells(embedlab, gate, workers):
    def lose() -> None:
        until(lambda: len(gate.made()) >= 3)
        down = ["scontrol", "update", "nodename=one", "state=down", "reason=test"]  # until it registers again
        subprocess.run(down, check=True)

    loses = threading.Thread(target=lose)
    loses.start()
    slow = [word.replace("steps=8", "steps=60") for word in SLOW]
    code, out, err = embedlab("-m", *gate.words, *slow, *workers, "hydra.sweep.dir=out")
    loses.join()
    assert code == 0, out + err
    assert {r["status"] for r in results("out").values()} == {"done"}
    made = [key for key, _ in gate.made()]
    assert len(made) == len(set(made)) == 16


def test_no_job_is_left_in_the_queue(embedlab, gate, workers):
    assert embedlab("-m", *gate.words, *PAIR, *workers)[0] == 0
    until(lambda: not jobs())


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("partition=nowhere", "Slurm does not take the workers: "),
        ("memory=900G", "Requested node configuration is not available"),
        ("cpus=64", "Slurm does not start the workers: PartitionConfig; hydra.launcher.cpus, gpus, memory, minutes "),
    ],
)
def test_what_slurm_does_not_take_is_one_line(embedlab, workers, word, why):
    code, _, err = embedlab("-m", "seeds=[0],[1]", *workers, f"hydra.launcher.{word}", "hydra.sweep.dir=out")
    assert (code, err.count("\n")) == (2, 1)
    assert why in err
    assert not results("out")
    until(lambda: not jobs())
