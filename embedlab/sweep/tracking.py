"""What a tracker is told of a job: afterwards and from its files, so that nothing it does can lose a picture."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from PIL import Image

from embedlab import readers
from embedlab.cell import Cell
from embedlab.sampler import step_name
from embedlab.sweep.axes import axes, short_names
from embedlab.sweep.job import Job, reason_of
from embedlab.sweep.observer import Observer
from embedlab.sweep.plan import Outcome
from embedlab.sweep.result import PictureResult, Result, write_result
from embedlab.sweep.study import Study
from embedlab.sweep.tables import curves, read_costs, records
from embedlab.sweep.tracking_tables import picture_table, run_config, shared_config, token_table
from embedlab.sweep.watched import KINDS, TENSORS, file_of, read_curves
from embedlab.tracker import About, Run, Silent, Tracker, discard_log, opened


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
    pictures = [_open(job.folder / row.file) for row in rows if row.file]
    for step in job.cell.sampler.kept:
        for kind in KINDS:
            files = [(row.seed, job.folder / file_of(step, row.seed, kind)) for row in rows]
            shots = [(_open(path), f"seed {seed}, {step_name(step)}") for seed, path in files if path.is_file()]
            if shots:
                run.pictures(f"steps/{kind}", shots, step)
    for name, (at, lines) in read_curves(job.folder).items():
        run.curves(f"curves/{name}", "step", at, lines)
    if (file := job.folder / TENSORS).is_file():
        run.file("steps", file)
    if rows:
        run.pictures("pictures", [(p, caption(row, job.cell)) for p, row in zip(pictures, rows, strict=True)])
        run.pictures("sheet", [(_open(job.folder / "sheet.png"), job.cell.label)])
        for word, heats in heat_maps(rows).items():
            run.pictures(f"maps/{word}", [(_open(job.folder / file), f"seed {seed}") for seed, file in heats])
        mine = [replace(row, axes=axes_of(job)) for row in records([result], alone=True)]
        run.table("pictures_table", *picture_table(job.folder, mine, [result]))
    if (tokens := token_table(result)) is not None:
        run.table("tokens", *tokens)
    if schedule := result.schedule:
        run.table("schedule", list(schedule[0]), [list(map(str, row.values())) for row in schedule])
    for name in ("conditioning", "rows") if job.export else ():
        if (file := job.folder / f"{name}.safetensors").is_file():
            run.file(name, file)
    edited = job.cell.edits
    run.scores({k: v for k, v in result.scores.items() if v is not None and (edited or not k.startswith("change/"))})


def heat_maps(rows: Sequence[Any]) -> dict[str, list[tuple[int, str]]]:
    """Seeds and files of the heat maps of pictures, by word; those of unedited pictures have a name of their own."""
    found: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        for file in row.maps or ():
            before, _, word = Path(file).stem.partition(f"seed-{row.seed}-")
            found.setdefault(f"unedited/{word}" if before else word, []).append((row.seed, file))
    return found


def _open(path: Path) -> Image.Image:
    return readers.open_picture(path).convert("RGB")


def log_to_tracker(job: Job, result: Result) -> Result:
    """Open a run, tell it everything, close it; the job's result, as it is written, says that the tracker knows."""
    discard_log(job.folder)
    config = run_config(job.config, axes_of(job), result.versions, result.parameters)
    about = about_run("job", job.study, job.source.name, job.home)
    with opened(job.tracker, job.run_name or job.title, job.folder, config, job.group, about) as run:
        log(job, result, run)
    known = replace(result, logged=True, log_error=None)
    write_result(job.folder, known)
    return known


def axes_of(job: Job) -> dict[str, Any]:
    """What was set for a job of what varies in its sweep."""
    return {key: job.overrides[key] for key in job.varied if key in job.overrides}


def about_run(kind: str, study: Study, model: str, home: Path | None) -> About:
    """What a run says of itself beside its name: the study and the model as tags, the study's question as notes."""
    tags = [text for text in (study.name, Path(model).name) if text]
    return About(kind, tuple(dict.fromkeys(tags)), study.question, home)


def log_sweep(
    folder: Path,
    results: Sequence[Result],
    tracker: Tracker,
    group: str,
    study: Study,
) -> None:
    """One run for a sweep: its sheet, its table with pictures, curves of scores over numeric axes, what it took."""
    rows, varied = records(results), axes(results)
    configs = [result.config for result in results if result.config]
    names = short_names(varied)
    known = next((result for result in results if result.parameters), results[0])
    config = run_config(shared_config(configs), varied, known.versions, known.parameters)
    model = (config.get("model") or {}).get("name")
    about = about_run("sweep", study, model if isinstance(model, str) else "", folder)
    discard_log(folder)
    with opened(tracker, f"sweep {group}", folder, config, group, about) as run:
        run.pictures("sheet", [(_open(folder / "sheet.png"), group)])
        run.table("results", *picture_table(folder, rows, results))
        for axis, score, at, means in curves(rows, varied):
            run.curves(f"{score} over {names[axis]}", names[axis], at, means)
        run.scores(
            {
                "sweep/jobs": len(results),
                "sweep/pictures": sum(1 for row in rows if row.status == "done"),
                "sweep/failed": sum(1 for row in rows if row.status != "done"),
                **read_costs(folder),
            }
        )


def caption(row: PictureResult, cell: Cell) -> str:
    """What stands under a picture in the tracker."""
    scores = ", ".join(
        f"{k.removeprefix('clip_score/')} {v:.0f}" for k, v in row.measured.items() if k.startswith("clip_score/")
    )
    return f"seed {row.seed}, {cell.label}" + (f" (CLIPScore: {scores})" if scores else "")
