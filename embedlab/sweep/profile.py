"""Where the time and the memory of a job go: parts, operators, and how near that is to what the machine can do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from embedlab.cell import picture_size
from embedlab.clean import redact
from embedlab.condition import condition_calls
from embedlab.display import Html, Shown, block
from embedlab.engines import Eager
from embedlab.errors import ConfigError, check_kind, counted, listed
from embedlab.files import make_folder, write
from embedlab.models import Model
from embedlab.models.silence import silence_libraries
from embedlab.readers import path_of
from embedlab.structure import building
from embedlab.structure.anatomy import counted as layers_and_peak
from embedlab.structure.pages import page
from embedlab.structure.rate import matrix_rate, peak_bytes, waiting
from embedlab.structure.tables import as_csv, short, size_of
from embedlab.sweep.job import Job, check_engine, validate_job
from embedlab.sweep.observer import Observer
from embedlab.sweep.plan import Outcome, plan
from embedlab.sweep.run import run_jobs
from embedlab.sweep.store import Store
from embedlab.sweep.tracking import TrackerQueue
from embedlab.tables import Table, fragment, in_terminal
from embedlab.timing import Spent, Timer, Times
from embedlab.tracker import Silent, make_ready

ENDINGS = (".csv", ".json", ".html")
TRACES = (".json", ".json.gz")
MOST = 10  # operators


@dataclass(frozen=True)
class Operation:
    """An operator of torch: its own seconds, their share of those of all operators, and how often it was called."""

    name: str
    seconds: float
    share: float
    calls: int


@dataclass(frozen=True)
class Profile(Shown):
    """Where the time of a job went.

    title: the job. model, engine, device, dtype, threads: what it ran on. images: those that were rendered, unedited
    ones too. size: their height and width in pixels. rows: of text that the UNet reads. load: how busy the machine
    was before, as it counts that itself (1 is one core), where it does. loading: seconds until the model was there.
    times: seconds, calls, rows and the most bytes of each part, on the thread that samples and beside it. flops: of
    one row of a part. rate: FLOPs a second of matrix products on this device, measured beside. operations: the
    dearest operators of torch on the thread that samples, with what a GPU did for them.
    """

    title: str
    model: str
    engine: str
    device: str
    dtype: str
    threads: int
    images: int
    size: tuple[int, int]
    rows: int
    load: float | None
    loading: float
    times: Times
    flops: Mapping[str, int]
    rate: float
    operations: tuple[Operation, ...] = field(repr=False)

    def reached(self, name: str) -> float | None:
        """The share of the machine's matrix-product rate that a part reached; None where nobody knows its FLOPs."""
        spent = self.times.spent(name)
        if name not in self.flops or not spent.seconds:
            return None
        return self.flops[name] * spent.rows / spent.seconds / self.rate

    @property
    def limit(self) -> float | None:
        """Rows a second that the UNet would have at that rate."""
        return self.rate / self.flops["UNet"] if self.flops.get("UNet") else None

    @property
    def peak(self) -> int | None:
        """The most bytes that were held in any part."""
        every = [*self.times.parts.values(), *self.times.beside.values()]
        return max((part.peak for part in every if part.peak is not None), default=None)

    def records(self) -> list[dict[str, Any]]:
        """A row for each part, numbers as numbers."""
        return [
            {**row, "flops": self.flops.get(row["part"], 0) * row["rows"] or None, "rate_reached": self.reached(name)}
            if row["thread"] == "sampling"
            else {**row, "flops": None, "rate_reached": None}
            for row in self.times.records()
            for name in [row["part"]]
        ]

    def save(self, path: str | Path) -> Path:
        """Write it down, as the ending of the name says: parts as .csv, all there is as .json or .html.

        Raises ConfigError for another ending.
        """
        path = path_of(path)
        ending = check_ending(path)
        make_folder(path.parent)
        if ending == ".csv":
            text = as_csv(self.records())
        elif ending == ".json":
            names = (
                "title",
                "model",
                "engine",
                "device",
                "dtype",
                "threads",
                "images",
                "size",
                "rows",
                "load",
                "loading",
            )
            value = {name: getattr(self, name) for name in names} | {
                "matrix_rate": self.rate,
                "limit_rows_a_second": self.limit,
                "peak_bytes": self.peak,
                "parts": self.records(),
                "operations": [vars(one) for one in self.operations],
            }
            text = json.dumps(redact(value), indent=1) + "\n"
        else:
            text = page(f"profile of {self.title}", fragment(self.tables()))
        write(path, text.encode())
        return path

    def tables(self) -> list[Table]:
        """The parts, the operators, and what the machine can do."""
        return [self._parts(), self._operations(), self._machine()]

    def _parts(self) -> Table:
        rows = [_row("sampling", name, spent, self) for name, spent in self.times.parts.items()]
        rows += [_row("beside", name, spent, self) for name, spent in self.times.beside.items()]
        total = ("in all", "sampling", f"{self.times.seconds:.3f}", "100.0%", "", "", "", "", "", _size(self.peak))
        high, wide = self.size
        title = (
            f"{self.title}: {counted(self.images, 'image')} of {wide} × {high} pixels, {self.model} by {self.engine}, "
            f"{self.dtype} on {self.device}, {counted(self.threads, 'thread')}"
        )
        columns = ("part", "thread", "seconds", "share", "calls", "rows", "rows/s", "FLOPs", "of rate", "peak memory")
        return Table(title, columns, (*rows, total), frozenset(columns) - {"part", "thread"}, total=True)

    def _operations(self) -> Table:
        rows = tuple((one.name, f"{one.seconds:.3f}", f"{one.share:.1%}", f"{one.calls:,}") for one in self.operations)
        columns = ("operator", "seconds", "share", "calls")
        return Table(f"the {len(rows)} dearest operators", columns, rows, frozenset(columns[1:]))

    def _machine(self) -> Table:
        rows = [
            ("matrix products", f"{short(self.rate)}FLOP/s", "measured beside, on the same device and dtype"),
            ("loading the model", f"{self.loading:.2f} s", "before all else, and in none of the parts"),
        ]
        if self.limit is not None:
            spent = self.times.spent("UNet")
            text = f"{short(self.flops['UNet'])}FLOP a row; {self.times.rate('UNet'):.1f} rows/s were reached"
            rows.insert(1, ("limit of the UNet", f"{self.limit:.1f} rows/s", text if spent.rows else ""))
        if self.load is not None:
            rows.append(("load average", f"{self.load:.2f}", "before; what others do here makes every figure worse"))
        return Table("the machine", ("", "figure", "what it is"), tuple(rows), frozenset({"figure"}))

    def __str__(self) -> str:
        return in_terminal(self.tables())

    def __repr__(self) -> str:
        took = f"{counted(self.images, 'image')} in {self.times.seconds:.2f} s"
        return f"Profile('{self.title[:80]}', {took} on {self.device})"

    def _repr_html_(self) -> str:
        return block(f"where the time of '{self.title}' went", Html(fragment(self.tables())))


def _row(thread: str, name: str, spent: Spent, profile: Profile) -> tuple[str, ...]:
    times = profile.times
    reached = profile.reached(name) if thread == "sampling" else None
    flops = profile.flops.get(name, 0) * spent.rows if thread == "sampling" else 0
    return (
        name,
        thread,
        f"{spent.seconds:.3f}",
        f"{spent.seconds / times.seconds:.1%}" if times.seconds else "",
        f"{spent.calls:,}" if spent.calls else "",
        f"{spent.rows:,}" if spent.rows else "",
        f"{spent.rows / spent.seconds:.1f}" if spent.rows and spent.seconds else "",
        short(flops) if flops else "",
        "" if reached is None else f"{reached:.0%}",
        _size(spent.peak),
    )


def _size(number: int | None) -> str:
    return "" if number is None else size_of(number)


def check_ending(path: Path, what: str = "out", fit: Sequence[str] = ENDINGS) -> str:
    """How a file is to be written, by its name; ConfigError for a name that does not say it."""
    ending = next((one for one in fit if path.name.lower().endswith(one)), None)
    if ending is None:
        raise ConfigError(f"{what} is '{path}'; it has to end in {listed(fit)}.")
    return ending


def profile(job: Job, trace: str | Path | None = None, say: Callable[[str], object] = lambda _: None) -> Profile:
    """Run a job twice in a folder that is thrown away, and say where its time and its memory went.

    The first run is watched by torch.profiler, which tells the dearest operators, and warms up; what else is said
    comes from the second; an engine other than eager has a run before. Its tracker hears of the second: `Silent`
    leaves that out. trace: a file that gets the first run as a Chrome trace (`.json` or `.json.gz`; chrome://tracing
    and ui.perfetto.dev open it), with the parts as spans. `say` hears what is done next.

    Raises what keeps the job from being run, before weights are read where that can be known, and ConfigError with the
    reason where it fails.

    >>> from embedlab import Cell, Sampler, Source
    >>> job = Job(Source("emoji"), Cell("a cat", sampler=Sampler(steps=2)), seeds=(0,), folder=Path())
    >>> found = profile(job)
    >>> found.times.spent("UNet").rows, found.times.share("UNet") > 0, len(found.operations)
    (4, True, 10)
    """
    check_kind(job, Job, "job", "lab.Job(SOURCE, CELL, SEEDS, FOLDER)")
    target = None if trace is None else path_of(trace)
    if target is not None:
        check_ending(target, "trace", TRACES)
    validate_job(job)
    check_engine(job)
    make_ready(job.tracker)
    if target is not None:
        make_folder(target.parent)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with silence_libraries(), TemporaryDirectory(prefix="embedlab-") as folder:
        loading = Timer()
        with loading, loading.part("load"):
            model = job.source.load()
        device = torch.device(model.device)
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        silent = replace(job, tracker=Silent())
        if not isinstance(job.engine, Eager):  # what compiling does is none of the job's operators
            say("running it once for the engine's sake")
            _run(silent, Path(folder, "before"), Timer())
        say("running it once under torch.profiler")
        with _quiet(), torch.profiler.profile(activities=kinds) as watched:
            mark = torch.profiler.record_function
            _run(silent, Path(folder, "first"), Timer(mark=mark))
        if target is not None:
            spans = Path(folder, f"trace{TRACES[target.name.lower().endswith('.gz')]}")
            watched.export_chrome_trace(str(spans))
            write(target, spans.read_bytes())
        say("running it once more, timed by part")
        timer = Timer(settle=waiting(device), peak=peak_bytes(device))
        outcome = _run(job, Path(folder, "second"), timer)
        (result,) = outcome.results.values()
        say("measuring matrix products")
        rows, flops = _flops(job, model)
        return Profile(
            title=redact(job.title),
            model=model.name,
            engine=str((result.pictures[0].runtime or {}).get("engine", model.engine)),
            device=str(device),
            dtype=str(model.unet.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            images=len(plan([job])),
            size=picture_size(job.cell, model),
            rows=rows,
            load=load,
            loading=loading.spent("load").seconds,
            times=outcome.times,
            flops=flops,
            rate=matrix_rate(device, model.unet.dtype),
            operations=_dearest(watched, device),
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's profiler from saying when it begins and ends."""
    name = "KINETO_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ[name] = before or "99"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _run(job: Job, folder: Path, timer: Timer) -> Outcome:
    """Run a job in a folder, all of it anew; ConfigError where it fails."""
    outcome = Outcome(timer=timer)
    log = TrackerQueue(Observer(), outcome)
    try:
        run_jobs([replace(job, folder=folder / "0")], Store(folder / "store"), log=log)
    finally:
        with timer, timer.part("waiting"):
            log.close()
    if outcome.failures:
        raise ConfigError(f"the job fails, so that there is nothing to profile: {outcome.failures[0][1]}")
    return outcome


def _flops(job: Job, model: Model) -> tuple[int, dict[str, int]]:
    """Rows of text, and FLOPs of a row of each part, counted as `anatomy` does, without arithmetic."""
    high, wide = picture_size(job.cell, model)
    rows = max(len(call.cond.hidden) for call in condition_calls(model, [job.cell])[0])
    sizes = building.Sizes(high, wide, 1, False, rows, 1, model.unet.dtype)
    found = {
        part.name: layers_and_peak(part)[0][0].flops
        for part in building.parts_of(job.source, sizes)
        if part.name != "vae.encoder"
    }
    texts = sum(found.pop(name) for name in job.source.encoders)
    return rows, {"encode": texts, "UNet": found["unet"], "decode": found["vae.decoder"]}


def _dearest(watched: Any, device: torch.device) -> tuple[Operation, ...]:
    """The operators with the most seconds of their own: of the GPU where there is one, else of the processor."""
    kind = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    found = [(event.key, getattr(event, kind) / 1e6, event.count) for event in watched.key_averages()]
    found = [one for one in found if "::" in one[0]]  # spans and the profiler's own have no namespace
    whole = sum(seconds for _, seconds, _ in found) or 1.0
    dearest = sorted(found, key=lambda one: -one[1])[:MOST]
    return tuple(Operation(name, seconds, seconds / whole, calls) for name, seconds, calls in dearest)
