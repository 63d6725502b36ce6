"""A sweep as a folder to look at: opens from disk, needs no network, follows a sweep that still runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedlab.sweep.sweep_plan import FILE
from embedlab.view.gallery.content import Sweep, read, together
from embedlab.view.gallery.folder import Written, write
from embedlab.view.gallery.single import page_of
from embedlab.view.gallery.widget import widget

__all__ = ["Sweep", "Written", "page_of", "read", "together", "watch", "widget", "write"]


def watch(folders: Sequence[Path], to: Path | None = None, every: float = 2.0, say: Any = print) -> None:
    """Write the gallery whenever a result comes, until every planned job has one; Ctrl-C leaves it whole."""
    seen = None
    try:
        while True:
            began, now = time.monotonic(), [trace for folder in folders for trace in traces(folder)]
            if now != seen:
                sweep = together(folders, wait=True)
                say(write(sweep, to, watched=not sweep.finished))
                if sweep.finished:
                    return
                seen = now
            time.sleep(max(every, 9 * (time.monotonic() - began)))  # the sweep itself needs the machine
    except KeyboardInterrupt:
        say(write(together(folders, wait=True), to))


def traces(folder: Path) -> list[tuple[str, int, int]]:
    """What changes when a job of a sweep ends: names, times and sizes of its results."""
    found = []
    for path in [*folder.glob("*/result.json"), folder / FILE, folder / "results.csv"]:
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((str(path), stat.st_mtime_ns, stat.st_size))
    return sorted(found)
