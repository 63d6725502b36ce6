"""trackio as a tracker."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from embedlab.errors import ConfigError
from embedlab.tracker.chart import chart
from embedlab.tracker.protocol import JOB, About, Run, flat, need, own_id, safe

OWNER = "embedlab.id"  # what a run's config is found again by


@dataclass(frozen=True)
class Trackio:
    """trackio: a dashboard on this machine, without an account (`trackio show --project embedlab`)."""

    project: str = "embedlab"

    def __post_init__(self) -> None:
        if not isinstance(self.project, str) or not re.fullmatch(r"[\w.-]{1,128}", self.project):
            raise ConfigError(f"tracker.project is {self.project!r}; trackio takes 1 to 128 letters, digits, _ . -")

    def ready(self) -> None:
        """The package has to be there."""
        need("trackio", "tracker=trackio", "trackio")

    @contextmanager
    def run(
        self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None, about: About = JOB
    ) -> Iterator[Run]:
        self.ready()
        with quiet():
            import trackio

            owner = own_id(folder)
            for known in _runs_of(self.project):
                if (known.config or {}).get(OWNER) == owner:  # an earlier try to tell of the same folder
                    known.delete()
            told = {"kind": about.kind, "tags": list(about.tags), "notes": about.notes, OWNER: owner}
            run = trackio.init(
                project=self.project,
                name=name[:128],
                group=group,
                config={**flat(config), **told},
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        try:
            yield _TrackioRun(run)
        finally:
            with quiet():
                run.finish()
                trackio.context_vars.current_run.set(None)  # else it ends once more, aloud, when the process does

    def look(self, folder: Path) -> str:
        """How to open its page."""
        return f"Its dashboard: trackio show --project {self.project}"


def _runs_of(project: str) -> list[Any]:
    import trackio

    try:
        return list(trackio.Api().runs(project))
    except ValueError:  # there is no such project yet
        return []


@contextmanager
def quiet() -> Iterator[None]:
    """It greets, and says goodbye."""
    with redirect_stdout(io.StringIO()):
        yield


class _TrackioRun:
    def __init__(self, run: Any):
        self.run = run

    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.run.log(dict(values), step=step)

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        import trackio

        for n, (picture, caption) in enumerate(pictures):
            name = key if len(pictures) == 1 else f"{key}/{n}"
            self.run.log({name: trackio.Image(picture, caption=caption)}, step=step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import trackio

        def shown(cell: Any) -> Any:
            if isinstance(cell, Image.Image):
                return trackio.Image(cell)
            return float(f"{cell:.6g}") if isinstance(cell, float) else cell

        cells = [[shown(cell) for cell in row] for row in rows]
        self.run.log({key: trackio.Table(columns=list(columns), data=cells)})

    def curves(self, key: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> None:
        self.pictures(key, [(chart(key, axis, at, lines), key)])  # its own charts are over the steps of a run

    def file(self, name: str, path: Path) -> None:
        self.run.log({f"{safe(name)}_file": str(path)})
