"""Of what takes long (the mark `turns`) a seventh is run, by the weekday; `EMBEDLAB_TURN=all` runs all of it."""

import datetime
import os

TURNS = 7
# set in the environment, too: a run hands its choice to its workers, also past midnight
TURN = os.environ.setdefault("EMBEDLAB_TURN", str(datetime.date.today().toordinal() % TURNS))


def mine(n: int) -> bool:
    """Whether the nth of many has its turn."""
    return TURN == "all" or n % TURNS == int(TURN)


def one_of(many: list[str]) -> list[str]:
    """The one of a few that has its turn."""
    return many if TURN == "all" else [many[int(TURN) % len(many)]]
