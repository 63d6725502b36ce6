"""Several trackers as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from embedlab.errors import ConfigError, listed
from embedlab.tracker.disk import Disk
from embedlab.tracker.mlflow import MLflow
from embedlab.tracker.opening import check_tracker
from embedlab.tracker.protocol import JOB, About, Run, Tracker, look_at, run_of
from embedlab.tracker.tensorboard import TensorBoard
from embedlab.tracker.trackio import Trackio
from embedlab.tracker.wandb import Wandb

BY_NAME: dict[str, Callable[[], Tracker]] = {
    "disk": Disk,
    "mlflow": MLflow,
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
}


@dataclass(frozen=True)
class Several:
    """Logs to several trackers at once: `trackers` are their names, or trackers themselves.

    >>> Several(["disk", MLflow(project="mine")]).trackers
    (Disk(), MLflow(project='mine', uri=None))
    """

    trackers: Sequence[Tracker | str] = ("wandb", "disk")

    def __post_init__(self) -> None:
        given = self.trackers
        if isinstance(given, str | Mapping) or not isinstance(given, Iterable) or not given:
            raise ConfigError(f"tracker.trackers is {given!r}; it has to be a list: [wandb,tensorboard].")
        if unknown := [one for one in given if isinstance(one, str) and one not in BY_NAME]:
            raise ConfigError(f"tracker.trackers names '{unknown[0]}'; there are {listed(BY_NAME)}.")
        found = tuple(BY_NAME[one]() if isinstance(one, str) else one for one in given)
        for one in found:
            check_tracker(one)
        object.__setattr__(self, "trackers", found)

    @property
    def _all(self) -> Sequence[Tracker]:
        return self.trackers  # type: ignore[return-value]  # names are none any more

    def ready(self) -> None:
        """All of them have to be."""
        for tracker in self._all:
            tracker.ready()

    def look(self, folder: Path) -> str:
        """How to open each."""
        return "\n".join(line for tracker in self._all if (line := look_at(tracker, folder)))

    @contextmanager
    def run(
        self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None, about: About = JOB
    ) -> Iterator[Run]:
        with ExitStack() as stack:
            runs = [run_of(tracker, name, folder, config, group, about) for tracker in self._all]
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
