"""Pull the plug at any moment: nothing that was finished is made again, nothing is half, and the end is the same."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image
from turns import TURN

KILLS = 20 if TURN == "all" else 4
WEIGHTS = ",".join(str(n / 10) for n in range(1, 11))
SWEEP = [
    "-m",
    "operators=[interpolate]",
    "operators.interpolate.toward=skunk",
    f"operators.interpolate.weight={WEIGHTS}",
]
SWEEP += ["seeds=[0],[1],[2]", "sampler.steps=5", "tracker=disk", "at_once=1", "model=custom", "model.device=cpu"]


class ForkServer:
    """A process that forks itself for each sweep, and what is known of them."""

    def __init__(self, ledger: Path):
        self.ledger = ledger
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, words: list[str], kill: signal.Signals | None = None, pictures: int = 0, after: float = 0) -> int:
        """Run a sweep to its end, or kill it so many seconds after so many pictures of it; the answer is the exit code.

        Pictures are counted, since a clock would kill each sweep of a busy machine before its first one.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"words": words, "ledger": str(self.ledger)}) + "\n")
        self.process.stdin.flush()
        pid, before = int(self.process.stdout.readline()), len(self.made())
        if kill is not None:
            with suppress(ProcessLookupError):  # it has ended already
                while len(self.made()) < before + pictures:
                    os.kill(pid, 0)
                    time.sleep(0.005)
                time.sleep(after)
                os.kill(pid, kill)
        return os.waitstatus_to_exitcode(int(self.process.stdout.readline()))

    def said(self) -> str:
        """What the last sweep printed."""
        return Path(f"{self.ledger}.said").read_text(errors="replace")

    def made(self) -> list[str]:
        return self.ledger.read_text().split() if self.ledger.is_file() else []


@pytest.fixture
def server(tmp_path):
    one = ForkServer(tmp_path / "ledger")
    yield one
    one.process.stdin.close()
    one.process.wait(timeout=60)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_many_kills_of_a_sweep_of_thirty_cells(tmp_path, server, folders):
    chance = random.Random(TURN)  # other moments each day
    words = [*SWEEP, f"model.name={folders['sd1']}"]
    assert server.run([*words, f"hydra.sweep.dir={tmp_path}/calm"]) == 0, server.said()
    assert len(server.made()) == 33, "30 edited, and 3 as written"
    server.ledger.unlink()

    storm, kills, finished = tmp_path / "storm", 0, {}
    words = [*words, f"hydra.sweep.dir={storm}"]
    while kills < KILLS:
        how = chance.choice([signal.SIGKILL, signal.SIGTERM])
        code = server.run(words, how, pictures=kills % 4, after=chance.uniform(0, 0.5 if kills % 4 else 2))
        assert code in (-how, 128 + how, 0)  # SIGTERM kills while Python starts, and is heard later
        kills += 1
        for path in storm.glob("*/result.json"):
            result = json.loads(path.read_text())  # half a file would not parse
            assert result["status"] == "done"
            assert finished.setdefault(path, path.stat().st_mtime_ns) <= path.stat().st_mtime_ns
            for row in result["pictures"]:
                for name in ("file", "baseline"):
                    with Image.open(path.parent / row[name]) as picture:
                        picture.load()
        if len(finished) == 30:  # it is through before the kills are: the rest hit it from its beginning again
            for path in chance.sample(sorted(finished), 20):
                for file in path.parent.glob("*.*"):
                    file.unlink() if file.is_file() else None
                del finished[path]
    assert server.made(), "the kills hit pictures, too"
    next(storm.glob(".cells/??")).joinpath(".half.safetensors.1").touch()  # should no kill have left one
    assert server.run([f"resume={storm}"]) == 0, server.said()
    made = server.made()
    assert len(made) == len(set(made)) == 33, "no finished picture was made again"
    assert not [path for path in storm.rglob(".*.[0-9]*") if path.is_file()], "no half file is left"
    assert table(storm) == table(tmp_path / "calm"), "one picture a batch, so that all digits are the same"
