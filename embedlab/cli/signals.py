"""Ctrl-C and SIGTERM while a command runs: both raise KeyboardInterrupt in the main thread, once.

Runs of trackers are closed and workers on other machines stopped by the `with` blocks and `finally` clauses that the
exception passes. Nothing else in embedlab handles signals while a command listens.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType


class Stopped(SystemExit):
    """The process ends because of a signal, and has said so."""


@dataclass
class Signals:
    """The signals that came, and when."""

    heard: dict[int, float] = field(default_factory=dict)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """The handler; raises KeyboardInterrupt."""
        now, last = time.monotonic(), self.heard.get(number)
        # timeout and Slurm send SIGTERM more than once, and a shell may send Ctrl-C to a process and its group
        if last is not None and now - last < (5 if number == signal.SIGTERM else 1):
            return
        self.heard[number] = now
        raise KeyboardInterrupt


@contextmanager
def listening() -> Iterator[Signals]:
    """Handle SIGTERM, and Ctrl-C where it is not ignored, until the block ends; within another such block, that one."""
    outer = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    mine = outer if isinstance(outer, Signals) else Signals()
    if mine is outer or threading.current_thread() is not threading.main_thread():
        yield mine
        return
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, mine.stop) for number in numbers}
    try:
        yield mine
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
