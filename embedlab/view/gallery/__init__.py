"""A sweep as a folder to look at: opens from disk, needs no network, follows a sweep that still runs."""

from __future__ import annotations

import time
import webbrowser
from pathlib import Path
from typing import Any

from embedlab import readers
from embedlab.errors import ConfigError
from embedlab.view.gallery.content import Sweep, read
from embedlab.view.gallery.folder import Written, write

__all__ = ["Sweep", "Written", "main", "read", "watch", "write"]


def main(argv: list[str]) -> None:
    """`embedlab gallery SWEEP`: write the gallery, or keep it up with a running sweep."""
    from embedlab.cli.main import Parser

    parser = Parser(prog="embedlab gallery", description=__doc__)
    parser.add_argument(
        "sweep", metavar="SWEEP", type=readers.word, help="the folder of a multirun, such as multirun/DATE/TIME"
    )
    parser.add_argument("--to", metavar="FOLDER", type=readers.word, help="write there, with copies of all pictures")
    parser.add_argument("--watch", action="store_true", help="follow a running sweep until it is finished, or Ctrl-C")
    parser.add_argument("--every", metavar="SECONDS", type=float, default=2.0, help="how often --watch looks (2)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    chosen = parser.parse_args(argv)
    if not 0 < chosen.every < 86400:
        raise ConfigError(f"--every is {chosen.every:g}; it has to be a number of seconds above 0, such as 2.")
    shown = False

    def say(written: Written) -> None:
        nonlocal shown
        print(written, flush=True)
        if chosen.open and not shown:
            webbrowser.open(written.index.as_uri())
        shown = True

    if chosen.watch:
        watch(chosen.sweep, chosen.to, chosen.every, say)
    else:
        say(write(read(chosen.sweep), chosen.to))


def watch(folder: Path, to: Path | None = None, every: float = 2.0, say: Any = print) -> None:
    """Write the gallery whenever a result comes, until every planned job has one; Ctrl-C leaves it whole."""
    seen = None
    try:
        while True:
            began, now = time.monotonic(), traces(folder)
            if now != seen:
                sweep = read(folder, wait=True)
                say(write(sweep, to, watched=not sweep.finished))
                if sweep.finished:
                    return
                seen = now
            time.sleep(max(every, 9 * (time.monotonic() - began)))  # the sweep itself needs the machine
    except KeyboardInterrupt:
        say(write(read(folder, wait=True), to))


def traces(folder: Path) -> list[tuple[str, int, int]]:
    """What changes when a job of a sweep ends: names, times and sizes of its results."""
    found = []
    for path in [*folder.glob("*/result.json"), folder / "sweep.json", folder / "results.csv"]:
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((str(path), stat.st_mtime_ns, stat.st_size))
    return sorted(found)
