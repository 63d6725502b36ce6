"""Every trial of the table, a third of them by turn; `make test-hostile` runs all."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from table import TABLE
from trials import Outcome, broken

HERE = Path(__file__).parent
TURN = os.environ["EMBEDLAB_TURN"]
MINE = [n for n in range(len(TABLE)) if TURN == "all" or n % 3 == int(TURN)]


class Forks:
    """The process that runs trials."""

    def __init__(self, model: Path):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "forks.py"), str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, folder: Path, **order: object) -> Outcome:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"folder": str(folder), **order}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        printed = (base64.b64decode(answer[name]) for name in ("out", "err"))
        return Outcome(answer["code"], *printed, frozenset(answer["given"]))


@pytest.fixture(scope="session")
def forks(folders):
    made = Forks(folders["sd1"])
    yield made
    made.process.stdin.close()
    made.process.wait(30)


def test_the_table_is_large_and_no_trial_stands_in_it_twice():
    assert len(TABLE) >= 300
    assert len({trial.name for trial in TABLE}) == len(TABLE)


@pytest.mark.parametrize("number", MINE, ids=lambda n: re.sub(r"[^\w.=,:+-]+", "_", f"{n}-{TABLE[n].name}"))
def test_a_trial_gives_what_it_must(forks, tmp_path, number):
    folder = tmp_path / "run"
    outcome = forks(folder, number=number)
    wrong = broken(TABLE[number], outcome, folder)
    assert not wrong, "\n".join([TABLE[number].name, *wrong])
