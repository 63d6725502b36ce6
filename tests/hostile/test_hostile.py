"""Every trial of the table, a third of them by turn; `make test-hostile` runs all."""

import os
import re

import pytest
from table import TABLE
from trials import broken

TURN = os.environ["EMBEDLAB_TURN"]
MINE = [n for n in range(len(TABLE)) if TURN == "all" or n % 3 == int(TURN)]


def test_the_table_is_large_and_no_trial_stands_in_it_twice():
    assert len(TABLE) >= 300
    assert len({trial.name for trial in TABLE}) == len(TABLE)


@pytest.mark.parametrize("number", MINE, ids=lambda n: re.sub(r"[^\w.=,:+-]+", "_", f"{n}-{TABLE[n].name}"))
def test_a_trial_gives_what_it_must(forks, tmp_path, number):
    folder = tmp_path / "run"
    outcome = forks(folder, number=number)
    wrong = broken(TABLE[number], outcome, folder)
    assert not wrong, "\n".join([TABLE[number].name, *wrong])
