"""A bar in a notebook while something takes its time; it leaves nothing behind. Elsewhere nothing is shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from embedlab.display.html import tag

EVERY = 0.2  # seconds between two drawings


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook.

    >>> in_notebook()
    False
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class Bar:
    """A bar that goes to `total`, drawn in the output of the cell that runs."""

    def __init__(self, total: float, what: str):
        self.total, self.what, self.reached = total, what, 0.0
        self._began, self._drawn = time.monotonic(), 0.0
        from IPython.display import display  # noqa: PLC0415 - it is there where a notebook is

        self._handle: Any = display(self._shown(), raw=True, display_id=True)

    def _shown(self) -> dict[str, str]:
        spent = time.monotonic() - self._began
        left = f", about {spent * (self.total / self.reached - 1):.0f} s left" if self.reached and spent > 1 else ""
        told = tag(
            '<div style="font:12px system-ui,sans-serif"><progress value="{:.2f}" max="{}"></progress> {}{}</div>',
            self.reached,
            self.total,
            self.what,
            left,
        )
        return {"text/html": str(told), "text/plain": f"{self.what}{left}"}

    def __call__(self, reached: float) -> None:
        """Move it to so many of the total; it is drawn now and then."""
        self.reached = max(self.reached, min(reached, self.total))
        if time.monotonic() - self._drawn > EVERY:
            self._drawn = time.monotonic()
            self._handle.update(self._shown(), raw=True)

    def close(self) -> None:
        """Take it away."""
        self._handle.update({"text/html": "", "text/plain": ""}, raw=True)


@contextmanager
def bar(total: float, what: str) -> Iterator[Callable[[float], None]]:
    """A bar in a notebook; the block is given what moves it to so many of the total. Elsewhere nothing is shown.

    >>> with bar(10, "pictures") as reach:
    ...     reach(5)
    """
    if not in_notebook():
        yield lambda reached: None
        return
    shown = Bar(total, what)
    try:
        yield shown
    finally:
        shown.close()
