"""A bar while something takes its time, in a notebook or where somebody watches; elsewhere nothing."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook.

    >>> in_notebook()
    False
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def bar(total: float, what: str) -> Iterator[Callable[[float], None]]:
    """A bar in a notebook; the block is given what moves it to so many of the total. Elsewhere nothing is shown.

    >>> with bar(10, "pictures") as reach:
    ...     reach(5)
    """
    if not in_notebook():
        yield lambda reached: None
        return
    with made(total, what) as shown:

        def reach(reached: float) -> None:
            shown.update(max(0.0, min(round(reached, 2), total) - shown.n))

        yield reach


def made(total: float, what: str, file: Any = None) -> Any:
    """A bar of tqdm, which goes away when it is done: a widget where there are widgets, else a line of text."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        from tqdm.auto import tqdm

        form = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} [{elapsed}<{remaining}]"
        return tqdm(total=total, desc=what, leave=False, bar_format=form, file=file)
