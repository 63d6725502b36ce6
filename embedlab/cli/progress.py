"""What is seen of a sweep while it runs: one display on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from embedlab.clean import drawn_on, one_line, redact
from embedlab.errors import counted
from embedlab.sweep.observer import Observer
from embedlab.timing import Times

if TYPE_CHECKING:
    from embedlab.sweep.job import Job
    from embedlab.sweep.result import Result

CHECKING = "checking the settings"  # what a command says first: torch is imported, and what is wrong is refused


def stage(text: str) -> None:
    """Say what begins now; said before anything heavy is imported, so that nobody waits without a word."""
    print(f"{one_line(text)} …", flush=True)


def aside(text: str) -> None:
    """The same of a command whose answer may be piped elsewhere: on standard error, where somebody watches."""
    if sys.stderr.isatty():
        print(f"{text} …", file=sys.stderr, flush=True)


@contextmanager
def importing() -> Iterator[None]:
    """Import what is heavy in this block: the search for garbage among all that comes is a fifth of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


class Display(Observer):
    """Watches a plan: denoising steps, UNet evaluations a second, time left, memory, failures, the newest job.

    Where there is no terminal a line is printed `every` so many seconds.
    """

    def __init__(self, console: Console | None = None, every: float = 60.0):
        self.every = every
        self.console = console or Console(file=drawn_on(sys.stdout), soft_wrap=True, highlight=False, emoji=False)
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
        self.jobs = self.done = self.failures = self.pictures = self.left = self.drawn = 0
        self.step = ""
        self.rows, self.inside, self.times = 0, 0.0, Times()
        self.planning = 0.0
        self.newest = ""
        self._notes: set[str] = set()
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[Display]:
        """On a terminal, redrawn in place until the block ends; elsewhere a line a minute."""
        if not self.console.is_terminal:
            ended = Event()
            clock = Thread(target=self._tell, args=(ended,), name="embedlab-progress", daemon=True)
            clock.start()
            try:
                yield self
            finally:
                ended.set()
                clock.join()
            return
        with Live(get_renderable=self._view, console=self.console, refresh_per_second=4, transient=True) as self._live:
            yield self
        self._live = None

    def _tell(self, ended: Event) -> None:
        while not ended.wait(self.every):
            self.console.print(f"{time.strftime('%H:%M:%S')} {self.line()}", markup=False)

    def _view(self) -> Group:
        return Group(self.bar, Text(self.line(), overflow="ellipsis", no_wrap=True))

    def line(self) -> str:
        """Where things stand, in a line."""
        parts = [f"{self.drawn} of {self.left} pictures", f"{self.done} of {self.jobs} jobs"]
        if self.step:
            parts.append(self.step)
        if self.inside:
            parts.append(f"{self.rows / self.inside:.0f} UNet evaluations/s")
        parts.append(memory())
        if self.failures:
            parts.append(f"{self.failures} failed")
        if self.newest:
            parts.append(self.newest)
        return ", ".join(parts)

    def close(self) -> None:
        """Say where the time went."""
        if self.jobs and not self.inside and not self.failures:
            self.console.print("Nothing had to be generated: all images exist already.")
        if self.inside:
            shares = f" Of {self.times.seconds:.1f} s: {self.times}." if self.times.seconds else ""
            asked = self.times.spent("UNet").asked
            of = f" of {asked} asked for" if asked > self.rows else ""
            self.console.print(
                f"{self.rows} UNet evaluations{of} in {self.inside:.1f} s ({self.rows / self.inside:.0f} a second), "
                f"after {self.planning:.1f} s of checks.{shares}",
                markup=False,
            )

    def on_plan(self, jobs: int, pictures: int, left: int) -> None:
        """What is to be done."""
        self.jobs += jobs
        self.pictures += pictures
        self.left += left
        self.bar.update(self.task, total=self.left)
        if left:
            what = f"{left} of {pictures} pictures" if left < pictures else counted(left, "picture")
            self.console.print(f"generating {what} for {counted(jobs, 'job')} …", markup=False)
        if pictures - left:
            self.console.print(f"{pictures - left} of {pictures} pictures are there already.", markup=False)

    def on_step(self, pictures: int, step: int, of: int) -> None:
        """Part of a batch: the bar moves with every step, not with whole batches."""
        self.step = f"step {step} of {of}"
        self.bar.update(self.task, completed=self.drawn + pictures * step / of)

    def on_batch(self, pictures: int, rows: int, seconds: float) -> None:
        """A batch."""
        self.rows += rows
        self.inside += seconds
        self.drawn += pictures
        self.step = ""
        self.bar.update(self.task, completed=self.drawn)

    def on_job(self, job: Job, result: Result) -> None:
        """A job."""
        self.done += 1
        self.newest = one_line(redact(str(job.folder)))

    def on_failure(self, job: Job, reason: str) -> None:
        """Said at once, and again at the end."""
        self.failures += 1
        self.console.print(one_line(redact(f"job {job.number} ({job.title}) failed: {reason}")), markup=False)

    def on_notice(self, text: str) -> None:
        """Said once, however many jobs it is true of."""
        if text not in self._notes:
            self._notes.add(text)
            self.console.print(one_line(redact(text)), markup=False)


def peak_memory() -> int:
    """The most bytes that this process has held: on the GPU where it works on one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)


def memory() -> str:
    """How much this process holds: on the GPU where it works on one."""
    torch = sys.modules.get("torch")
    gpu = torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated()
    return f"{peak_memory() / 2**30:.1f} GiB" + (" of GPU memory" if gpu else "")
