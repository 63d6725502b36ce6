"""Several trackers as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from embedlab.tracker.protocol import JOB, About, Run, Tracker, run_of


@dataclass(frozen=True)
class Several:
    """Logs to several trackers at once."""

    trackers: Sequence[Tracker]

    def ready(self) -> None:
        """All of them have to be."""
        for tracker in self.trackers:
            tracker.ready()

    @contextmanager
    def run(
        self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None, about: About = JOB
    ) -> Iterator[Run]:
        with ExitStack() as stack:
            runs = [run_of(tracker, name, folder, config, group, about) for tracker in self.trackers]
            yield _SeveralRun([stack.enter_context(run) for run in runs])


class _SeveralRun:
    def __init__(self, runs: Sequence[Run]):
        self.runs = runs

    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        for run in self.runs:
            run.scores(values, step)

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        for run in self.runs:
            run.pictures(key, pictures, step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        for run in self.runs:
            run.table(key, columns, rows)

    def curves(self, key: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> None:
        for run in self.runs:
            run.curves(key, axis, at, lines)

    def file(self, name: str, path: Path) -> None:
        for run in self.runs:
            run.file(name, path)
