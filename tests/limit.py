"""A limit for a whole run of tests, for what no test's own limit ends: a run that waits for a worker which is gone."""

import os
import threading

import pytest


def pytest_sessionstart(session: pytest.Session) -> None:
    """End the run with a line after EMBEDLAB_LIMIT seconds; `make test` sets it. Workers end with their pipes."""
    limit = float(os.environ.get("EMBEDLAB_LIMIT") or 0)
    if not limit or hasattr(session.config, "workerinput"):
        return
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")

    def end() -> None:
        terminal.write_line(f"\nthe tests are not done after {limit:g} s: given up. EMBEDLAB_LIMIT=0 lets them run.")
        terminal.flush()
        os._exit(1)

    timer = threading.Timer(limit, end)
    timer.daemon = True
    timer.start()
