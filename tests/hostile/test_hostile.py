"""Every trial of the table, a seventh of them by turn; `make test-hostile` runs all."""

import re

import pytest
from table import TABLE
from trials import broken

from embedlab.errors import ConfigError
from embedlab.sweep.recorded_command import check_command


def test_the_table_is_large_and_no_trial_stands_in_it_twice():
    assert len(TABLE) >= 300
    assert len({trial.name for trial in TABLE}) == len(TABLE)


def test_a_command_that_is_read_back_may_name_what_is_ours_or_trusted():
    ours = ["-m", "operators=[interpolate]", "guidance.negative='${prompt}'", "hydra/launcher=batch", "seeds=[0],[1]"]
    check_command([*ours, "+operators.x={_target_:embedlab.Scale,rows:puppy,by:2}"], "sweep.json")
    own = ["+operators.x._target_=trials.Trial"]
    with pytest.raises(ConfigError, match="trust=trials"):
        check_command(own, "sweep.json")
    check_command(own, "sweep.json", ["trials"])


@pytest.mark.turns
@pytest.mark.parametrize(
    "number", range(len(TABLE)), ids=lambda n: re.sub(r"[^\w.=,:+-]+", "_", f"{n}-{TABLE[n].name}")
)
def test_a_trial_gives_what_it_must(forks, tmp_path, number):
    folder = tmp_path / "run"
    outcome = forks(folder, number=number)
    wrong = broken(TABLE[number], outcome, folder)
    assert not wrong, "\n".join([TABLE[number].name, *wrong])
