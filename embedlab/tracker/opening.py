"""Any tracker, checked before work begins, and its runs, opened so that they see no secret."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from embedlab.clean import redact
from embedlab.errors import ConfigError
from embedlab.tracker.protocol import JOB, About, Run, Tracker, run_of


def check_tracker(tracker: Any) -> None:
    """Refuse what is no tracker."""
    if isinstance(tracker, type) or not all(callable(getattr(tracker, name, None)) for name in ("ready", "run")):
        raise ConfigError(
            f"tracker is {type(tracker).__name__} {tracker!r:.80}, which is no tracker: one has `ready()` and "
            "`run(name, folder, config, group)`; tracker=silent logs nothing."
        )


def make_ready(tracker: Tracker) -> None:
    """Have a tracker refuse what would keep its runs from being opened; whatever it raises is a ConfigError."""
    try:
        tracker.ready()
    except ConfigError:
        raise
    except Exception as error:
        text = " ".join(str(error).split()) or "no reason was given"
        raise ConfigError(f"the tracker is not ready: {type(error).__name__}: {text}") from error


@contextmanager
def opened(
    tracker: Tracker,
    name: str,
    folder: Path,
    config: Mapping[str, Any],
    group: str | None = None,
    about: About = JOB,
) -> Iterator[Run]:
    """A run of any tracker, which is told no secret: neither by its name nor by what is logged."""
    clean = replace(about, tags=tuple(redact(list(about.tags))), notes=redact(about.notes))
    with run_of(tracker, redact(name), folder, redact(config), redact(group), clean) as run:
        yield _CleanRun(run)


class _CleanRun:
    def __init__(self, run: Run):
        self.run = run

    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.run.scores(redact(values), step)

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        self.run.pictures(redact(key), [(picture, redact(caption)) for picture, caption in pictures], step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.run.table(redact(key), redact(columns), redact(rows))

    def curves(self, key: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> None:
        self.run.curves(redact(key), redact(axis), at, redact(lines))

    def file(self, name: str, path: Path) -> None:
        self.run.file(redact(name), path)


def discard_log(folder: Path) -> None:
    """Take away what an earlier try to log a job or a sweep left on disk: half a run, or one of files that are gone.

    Runs of wandb that were sent already stay.
    """
    shutil.rmtree(folder / "log", ignore_errors=True)
    for run in folder.glob("wandb/offline-run-*"):
        if not any(run.glob("*.synced")):
            shutil.rmtree(run, ignore_errors=True)
