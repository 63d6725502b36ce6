"""What a tracker is told of a job: afterwards and from its files, so that nothing it does can lose a picture."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from PIL import Image

from embedlab import readers
from embedlab.cell import Cell
from embedlab.sampler import step_name
from embedlab.sweep.axes import short_names
from embedlab.sweep.job import Job, reason_of
from embedlab.sweep.observer import Observer
from embedlab.sweep.plan import Outcome
from embedlab.sweep.result import PictureResult, Result, write_result
from embedlab.sweep.watched import KINDS, TENSORS, file_of, read_curves
from embedlab.tracker import Run, Silent, discard_log, opened


class TrackerQueue:
    """Tells trackers of finished jobs, one after the other, beside the drawing: a slow one keeps nobody waiting."""

    def __init__(self, observer: Observer, outcome: Outcome | None = None):
        self.observer = observer
        self.outcome = outcome or Outcome()
        self._queue: SimpleQueue[tuple[Job, Result] | None] = SimpleQueue()
        self._thread: Thread | None = None

    def put(self, job: Job, result: Result) -> None:
        """A job that is to be logged; what logs nothing leaves that to a tracker that is named later."""
        if isinstance(job.tracker, Silent):
            return
        if self._thread is None:
            self._thread = Thread(target=self._work, name="embedlab-log", daemon=True)
            self._thread.start()
        self._queue.put((job, result))

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            job, result = item
            try:
                with self.outcome.timer.part("tracker"):
                    self.outcome.results[job.number] = log_to_tracker(job, result)
            except BaseException as error:  # whatever a tracker raises, SystemExit too: the pictures are on disk
                reason = f"its pictures are made, but were not logged: {reason_of(error)}"
                self.outcome.failures.append((job, reason))
                self.observer.on_failure(job, reason)
                with suppress(OSError):  # a full disk: it is in the table of failures
                    write_result(job.folder, replace(result, log_error=reason))

    def close(self, drop: bool = False) -> None:
        """Wait until everything is logged; with `drop`, until the run that is open is closed."""
        if self._thread is None:
            return
        if drop:
            try:
                while True:
                    self._queue.get_nowait()
            except Empty:
                pass
        self._queue.put(None)
        self._thread.join()
        self._thread = None


def log(job: Job, result: Result, run: Run) -> None:
    """Tell a tracker's run of a job, from its files."""
    rows = [row for row in result.pictures if row.file]
    lines = [{"seed": row.seed, **row.measured} for row in rows]
    columns = list(dict.fromkeys(key for line in lines for key in line))
    pictures = [_open(job.folder / row.file) for row in rows if row.file]
    for step in job.cell.sampler.kept:
        for kind in KINDS:
            files = [(row.seed, job.folder / file_of(step, row.seed, kind)) for row in rows]
            shots = [(_open(path), f"seed {seed}, {step_name(step)}") for seed, path in files if path.is_file()]
            if shots:
                run.pictures(f"steps/{kind}", shots, step)
    for name, (at, curves) in read_curves(job.folder).items():
        run.curves(f"curves/{name}", "step", at, curves)
    if (file := job.folder / TENSORS).is_file():
        run.file("steps", file)
    if rows:
        run.pictures("pictures", [(p, caption(row, job.cell)) for p, row in zip(pictures, rows, strict=True)])
        run.pictures("sheet", [(_open(job.folder / "sheet.png"), job.cell.label)])
        table = [[p, *(line.get(key) for key in columns)] for p, line in zip(pictures, lines, strict=True)]
        run.table("pictures_table", ["picture", *columns], table)
    if result.explain:
        tokens = result.explain["tokens"]
        cells = [[", ".join(v) if isinstance(v, list | tuple) else v for v in token.values()] for token in tokens]
        run.table("tokens", list(tokens[0]), cells)
    if schedule := result.schedule:
        run.table("schedule", list(schedule[0]), [list(map(str, row.values())) for row in schedule])
    for name in ("conditioning", "rows") if job.export else ():
        if (file := job.folder / f"{name}.safetensors").is_file():
            run.file(name, file)
    logged = {key for key in [*columns, *result.scores] if job.cell.edits or not key.startswith("change/")}
    for line in lines:
        run.scores({f"picture/{k}": v for k, v in line.items() if k in logged and isinstance(v, int | float)})
    run.scores({k: v for k, v in result.scores.items() if k in logged and v is not None})


def _open(path: Path) -> Image.Image:
    return readers.open_picture(path).convert("RGB")


def log_to_tracker(job: Job, result: Result) -> Result:
    """Open a run, tell it everything, close it; the job's result, as it is written, says that the tracker knows."""
    discard_log(job.folder)
    axes = {name: job.overrides[key] for key, name in short_names(job.overrides).items()}  # what panels are drawn over
    with opened(job.tracker, job.run_name or job.title, job.folder, {**job.config, "axes": axes}, job.group) as run:
        log(job, result, run)
    known = replace(result, logged=True, log_error=None)
    write_result(job.folder, known)
    return known


def caption(row: PictureResult, cell: Cell) -> str:
    """What stands under a picture in the tracker."""
    scores = ", ".join(
        f"{k.removeprefix('clip_score/')} {v:.0f}" for k, v in row.measured.items() if k.startswith("clip_score/")
    )
    return f"seed {row.seed}, {cell.label}" + (f" (CLIPScore: {scores})" if scores else "")
