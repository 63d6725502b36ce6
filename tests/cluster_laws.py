"""Laws of sweeps on other machines, whatever engine runs the workers: tests for a module that has a `workers` fixture.

`workers` is the words that choose a launcher with two workers, of which each can see one CPU. An operator of the user's
own stands in the workers' way: it waits until both have come, trips, and keeps a ledger of every picture that is made.
"""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from embedlab.samples import Sample
from embedlab.sweep.store import Store

OPERATOR = '''
    import os
    import sys
    import time
    from dataclasses import dataclass
    from pathlib import Path

    from embedlab.sweep.store import Store


    def noting(own, ledger):
        def put(store, key, drawn):
            kept = own(store, key, drawn)
            with ledger.open("a") as file:
                file.write(f"{key} {os.getpid()}\\n")
            return kept

        return put


    @dataclass(frozen=True)
    class Gate:
        """Changes nothing; a worker waits at it for another, and trips over the number 1."""

        folder: str
        trip: int = 0

        def __call__(self, prompt, lookup):
            if "embedlab.cli.launch" in sys.modules:
                return prompt  # no worker
            folder = Path(self.folder)
            if Store.put.__name__ != "put" or Store.put.__module__ != __name__:
                Store.put = noting(Store.put, folder / "ledger")
            (folder / f"worker-{os.getpid()}").touch()
            while len(list(folder.glob("worker-*"))) < 2:
                time.sleep(0.02)
            if self.trip == 1:
                raise RuntimeError("on purpose")
            return prompt
'''


class Gate:
    """What is known at the gate."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.words = [
            *("operators=[interpolate]", "operators.interpolate.toward=skunk", "operators.interpolate.weight=0.5"),
            *("+operators.gate._target_=obstacles.Gate", f"+operators.gate.folder={folder}"),
        ]

    def workers(self) -> list[int]:
        """The processes that came."""
        return sorted(int(path.name.split("-")[1]) for path in self.folder.glob("worker-*"))

    def made(self) -> list[tuple[str, int]]:
        """Every picture that was made, and by which process."""
        ledger = self.folder / "ledger"
        lines = ledger.read_text().splitlines() if ledger.is_file() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]


@pytest.fixture
def gate(tmp_path, monkeypatch) -> Gate:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "obstacles.py").write_text(textwrap.dedent(OPERATOR))
    (tmp_path / "gate").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "theirs")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "theirs"), prepend=os.pathsep)
    yield Gate(tmp_path / "gate")
    sys.modules.pop("obstacles", None)


def results(folder: Path) -> dict[int, dict]:
    return {int(p.parent.name): json.loads(p.read_text()) for p in Path(folder).glob("*/result.json")}


def until(true: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Wait for it, as long as the test may take."""
    while not true():
        assert process is None or process.poll() is None, "it ended before"
        time.sleep(0.02)


def whole(folder: Path) -> dict[Path, tuple[int, int]]:
    """What tells a file from another of the same name."""
    return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.glob("??/*.safetensors")}


def test_the_same_pictures_as_in_this_process_and_failures_told(embedlab, gate, workers):
    words = ["-m", *gate.words[:2], "operators.interpolate.weight=0.2,0.4,0.6,0.8", *gate.words[3:]]
    words += ["+operators.gate.trip=0,1"]
    code, out, err = embedlab(*words, *workers, "hydra.launcher.pictures=4", "hydra.sweep.dir=theirs")
    assert code == 1, err
    assert "4 failed:\n  job 1 (" in out, out
    assert "RuntimeError: on purpose" in out
    assert re.search(r"^8 chunks by \d workers on 2 nodes, weights read \d times\.$", out, re.MULTILINE)
    assert len({worker for _, worker in gate.made()}) > 1, "more than one did some"
    assert embedlab(*words, "hydra.sweep.dir=ours")[0] == 0, "it is in the way of workers only"
    ours, theirs = results("ours"), results("theirs")
    assert {n: result["status"] for n, result in theirs.items()} == dict(enumerate(["done", "failed"] * 4))
    for n in range(0, 8, 2):
        assert ours[n]["key"] == theirs[n]["key"]
        assert ours[n]["scores"].keys() == theirs[n]["scores"].keys()
        for row in ours[n]["pictures"]:
            a, b = (Store(Path(folder, ".cells")).get(row["key"]) for folder in ("ours", "theirs"))
            assert isinstance(a, Sample)
            assert isinstance(b, Sample)
            assert (a.latents - b.latents).abs().max() <= 1e-4
    assert Path("ours/results.csv").read_text().count("\n") == Path("theirs/results.csv").read_text().count("\n")
    assert not list(Path("theirs").glob(".slurm/*.pkl"))


PAIR = ["seeds=[0],[1]", "hydra.launcher.pictures=2", "hydra.sweep.dir=out"]
SLOW = ["seeds=[0],[1],[2],[3],[4],[5],[6],[7]", "sampler.steps=8", "at_once=1", "hydra.launcher.pictures=4"]


@pytest.mark.turns
def test_a_killed_worker_costs_its_unfinished_cells(embedlab, gate, workers):
    kept: dict[Path, tuple[int, int]] = {}

    def kill() -> None:
        until(lambda: len(gate.made()) >= 3)
        os.kill(gate.made()[-1][1], signal.SIGKILL)
        kept.update(whole(Path("out/.cells").absolute()))

    killer = threading.Thread(target=kill)
    killer.start()
    code, out, err = embedlab("-m", *gate.words, *SLOW, *workers, "hydra.sweep.dir=out")
    killer.join()
    assert code == 0, out + err
    assert "a worker is gone (" in out
    assert "unfinished job" in out
    assert {n: r["status"] for n, r in results("out").items()} == dict.fromkeys(range(8), "done")
    made = [key for key, _ in gate.made()]
    assert len(made) == len(set(made)) == 16, "none that was finished was made again"
    assert len(kept) >= 3
    assert kept.items() <= whole(Path("out/.cells").absolute()).items()


@pytest.mark.turns
def test_what_is_seen_moves_while_a_chunk_is_at_work(embedlab, workers, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal: the display is drawn anew all the time
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    words = [*SLOW[:1], "sampler.steps=20", "at_once=1", "hydra.launcher.workers=1", "hydra.launcher.pictures=8"]
    code, out, err = embedlab("-m", *words, *workers, "hydra.sweep.dir=out")
    assert code == 0, out + err
    assert "1 chunk by 1 worker on 1 node" in out
    seen = {tuple(map(int, found)) for found in re.findall(r"\b(\d) of 8 pictures, (\d) of 8 jobs", out)}
    assert any(0 < pictures < 8 for pictures, _ in seen)
    assert any(0 < jobs < 8 for _, jobs in seen)


@pytest.mark.turns
def test_a_killed_launcher_is_taken_up_in_this_process(embedlab, gate, workers, folders):
    model = [f"model.name={folders['sd1']}", "model=custom", "model.device=cpu", "tracker=silent"]
    command = [sys.executable, "-m", "embedlab", "-m", *model, *gate.words, *SLOW, *workers, "hydra.sweep.dir=out"]
    with Path("said").open("w") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        until(lambda: len(gate.made()) >= 3, process)
        process.kill()
    kept = whole(Path("out/.cells").absolute())
    code, out, err = embedlab("-m", "resume=out", "trust=obstacles", "hydra/launcher=batch", plain=True)
    assert code == 0, out + err
    assert {n: r["status"] for n, r in results("out").items()} == dict.fromkeys(range(8), "done")
    made = [key for key, _ in gate.made()]
    assert len(made) == len(set(made))
    assert kept.items() <= whole(Path("out/.cells").absolute()).items(), "none that was finished was made again"
    assert len(whole(Path("out/.cells").absolute())) == 16
    assert not list(Path("out").glob(".slurm/*.pkl"))


@pytest.mark.parametrize(
    ("broken", "why"),
    [("raise OSError('no such accelerator')", "OSError: no such accelerator"), ("import os; os._exit(3)", "")],
    ids=["raises", "exits"],
)
def test_workers_that_end_at_once_are_one_line(embedlab, gate, workers, broken, why):
    Path(os.environ["PYTHONPATH"].split(os.pathsep)[0], "torch.py").write_text(broken)
    code, out, err = embedlab("-m", *gate.words, *PAIR, *workers)
    assert (code, err.count("\n")) == (2, 1), out + err
    assert f"the workers end before they start a job: {why}" in err
    assert not results("out")
    assert not list(Path("out").glob(".slurm/*.pkl"))
