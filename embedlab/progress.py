"""What is seen of a sweep while it runs: one display on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from embedlab.job import Job

EVERY = 30.0  # seconds between lines where there is no terminal


class Display:
    """Watches a plan: pictures done, UNet rows a second, time left, memory, failures, the newest picture's place."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=False, soft_wrap=True, highlight=False)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("<"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.bar.add_task("pictures", total=None)
        self.jobs = self.done = self.failures = self.pictures = self.left = 0
        self.rows, self.inside, self.outside = 0, 0.0, 0.0
        self.planning = 0.0
        self.newest = ""
        self.begun = self.said = time.monotonic()
        self._notes: set[str] = set()
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[Display]:
        """On a terminal, redrawn in place until the block ends."""
        if not self.console.is_terminal:
            yield self
            return
        with Live(get_renderable=self._view, console=self.console, refresh_per_second=4, transient=True) as self._live:
            yield self
        self._live = None

    def _view(self) -> Group:
        return Group(self.bar, Text(self.line(), overflow="ellipsis", no_wrap=True))

    def line(self) -> str:
        """Where things stand, in a line."""
        parts = [f"{self.done} of {self.jobs} jobs"]
        if self.inside:
            parts.append(f"{self.rows / self.inside:.0f} UNet rows/s")
        parts.append(memory())
        if self.failures:
            parts.append(f"{self.failures} failed")
        if self.newest:
            parts.append(self.newest)
        return ", ".join(parts)

    def close(self) -> None:
        """Say where the time went."""
        if self.jobs and not self.inside and not self.failures:
            self.console.print("Nothing had to be drawn: all pictures were there.")
        if self.inside:
            spent = self.inside + self.outside
            self.console.print(
                f"{self.rows} UNet rows in {self.inside:.1f} s ({self.rows / self.inside:.0f} a second); planning "
                f"{self.planning:.1f} s, other work between the calls {self.outside / spent:.0%}.",
                markup=False,
            )

    def planned(self, jobs: int, pictures: int, left: int) -> None:
        """What is to be done."""
        self.jobs += jobs
        self.pictures += pictures
        self.left += left
        self.bar.update(self.task, total=self.left)
        if pictures - left:
            self.console.print(f"{pictures - left} of {pictures} pictures are there already.", markup=False)

    def drew(self, pictures: int, rows: int, seconds: float, outside: float) -> None:
        """A batch."""
        self.rows += rows
        self.inside += seconds
        self.outside += outside
        self.bar.advance(self.task, pictures)

    def finished(self, job: Job, result: dict[str, Any]) -> None:
        """A job."""
        self.done += 1
        self.newest = str(job.folder)
        if self._live is None and time.monotonic() - self.said > EVERY:
            self.said = time.monotonic()
            self.console.print(f"{time.strftime('%H:%M:%S')} {self.line()}", markup=False)

    def failed(self, job: Job, reason: str) -> None:
        """Said at once, and again at the end."""
        self.failures += 1
        self.console.print(f"job {job.number} ({job.title}) failed: {reason}", markup=False)

    def note(self, text: str) -> None:
        """Said once, however many jobs it is true of."""
        if text not in self._notes:
            self._notes.add(text)
            self.console.print(text, markup=False)


def memory() -> str:
    """How much this process holds: on the GPU where it works on one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of GPU memory"
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{held / (2**30 if sys.platform == 'darwin' else 2**20):.1f} GiB"
