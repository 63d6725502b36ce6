"""trackio as a tracker."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from embedlab.errors import ConfigError
from embedlab.tracker.protocol import JOB, About, Run, safe


@dataclass(frozen=True)
class Trackio:
    """trackio: a dashboard on this machine, without an account (`trackio show --project embedlab`)."""

    project: str = "embedlab"

    def __post_init__(self) -> None:
        if not isinstance(self.project, str) or not re.fullmatch(r"[\w.-]{1,128}", self.project):
            raise ConfigError(f"tracker.project is {self.project!r}; trackio takes 1 to 128 letters, digits, _ . -")

    def ready(self) -> None:
        """The package has to be there."""
        if find_spec("trackio") is None:
            raise ConfigError("tracker=trackio needs a package of its own: pip install 'embedlab[trackio]'.")

    @contextmanager
    def run(
        self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None, about: About = JOB
    ) -> Iterator[Run]:
        self.ready()
        with redirect_stdout(io.StringIO()):  # it greets
            import trackio

            data = json.loads(json.dumps(config, default=str))
            run = trackio.init(
                project=self.project, name=name[:128], group=group, config=data, auto_log_gpu=False, auto_log_cpu=False
            )
        try:
            yield _TrackioRun(run)
        finally:
            with redirect_stdout(io.StringIO()):
                run.finish()


class _TrackioRun:
    def __init__(self, run: Any):
        self.run = run

    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.run.log(dict(values), step=step)

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        import trackio

        for n, (picture, caption) in enumerate(pictures):
            self.run.log({f"{key}/{n}": trackio.Image(picture, caption=caption)}, step=step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import trackio

        cells = [[trackio.Image(cell) if isinstance(cell, Image.Image) else cell for cell in row] for row in rows]
        self.run.log({key: trackio.Table(columns=list(columns), data=cells)})

    def curves(self, key: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> None:
        self.table(key, [axis, *lines], [[x, *values] for x, *values in zip(at, *lines.values(), strict=True)])

    def file(self, name: str, path: Path) -> None:
        self.run.log({f"{safe(name)}_file": str(path)})
