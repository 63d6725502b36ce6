"""`embedlab sheet`, `film`, `gallery`, `play`, `replay`, `anatomy`, `profile`, `learn`, `sync`: their words alone.

Each reads its words before it imports what does the work, so that a mistake in them is answered at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

from embedlab.clean import one_line


def report_unread(folder: Path) -> None:
    """Say on standard error which results of a sweep cannot be read."""
    from embedlab.sweep.results import unread

    for line in unread(folder):
        print(f"notice: {one_line(line)}; it is left out.", file=sys.stderr)
