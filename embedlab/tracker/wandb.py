"""Weights & Biases as a tracker."""

from __future__ import annotations

import netrc
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from embedlab.clean import redact
from embedlab.errors import ConfigError
from embedlab.tracker.protocol import JOB, STEP, About, Run, Summary, own_id, safe


@dataclass(frozen=True)
class Wandb:
    """Weights & Biases; offline unless `mode` says `online`, and never asking a question."""

    project: str = "embedlab"
    mode: str = "offline"
    entity: str | None = None
    tags: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.mode not in ("offline", "online", "disabled"):
            raise ConfigError(f"tracker.mode is '{self.mode}'; choose one of offline, online, disabled.")
        for name, value in (("project", self.project), ("entity", self.entity)):
            if not isinstance(value, str | None):
                raise ConfigError(f"tracker.{name} is {value!r}; it has to be a text.")
        if not self.project or len(self.project) > 128 or set(self.project) & set("/\\#?%:"):
            raise ConfigError(
                f"tracker.project is '{self.project}'; wandb takes 1 to 128 letters and none of / \\ # ? % :"
            )
        if isinstance(self.tags, str) or not isinstance(self.tags, Sequence):
            raise ConfigError(f"tracker.tags is {self.tags!r}; it has to be a list: tracker.tags=[first,second].")
        if wrong := [tag for tag in self.tags if not isinstance(tag, str) or not 1 <= len(tag) <= 64]:
            raise ConfigError(f"tracker.tags holds {wrong[0]!r}; wandb takes texts of 1 to 64 letters.")

    def ready(self) -> None:
        """Wandb's own variables have to be right; online, there has to be a key, because wandb would ask for one.

        And the server has to answer, because wandb would try for a quarter of an hour and longer.
        """
        import wandb

        try:
            with clean_words():
                own = wandb.setup(settings=wandb.Settings(silent=True, mode=self.mode))
        except (wandb.errors.Error, ValueError) as error:
            raise self._refused(error) from None
        if self.mode != "online":
            return
        import requests  # noqa: PLC0415  wandb's own, for what is online alone

        server = own.settings.base_url
        host = urlsplit(server).hostname or ""
        named = any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"))
        if not named and not key_in_netrc(host):
            raise ConfigError(
                f"wandb: there is no key for {host}: run `wandb login`, set WANDB_API_KEY, or use tracker.mode=offline "
                "(`embedlab sync` uploads its runs later)."
            )
        try:  # any answer will do
            requests.head(server, timeout=15)
        except requests.RequestException as error:
            raise ConfigError(
                f"wandb: {server} does not answer ({type(error).__name__}); with tracker.mode=offline runs are written "
                "as files, which `embedlab sync` sends when it does."
            ) from None

    @contextmanager
    def run(
        self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None, about: About = JOB
    ) -> Iterator[Run]:
        import wandb

        # an online run without a key would be an error at once, which is right; a question would wait for ever
        folder.mkdir(parents=True, exist_ok=True)
        try:
            settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
            with clean_words():
                run = wandb.init(
                    project=redact(self.project),
                    entity=self.entity,
                    id=own_id(folder),
                    resume="allow" if self.mode == "online" else None,  # offline a run is made anew, under its old id
                    name=name[:128],
                    group=group and group[:128],
                    job_type=about.kind[:64],
                    tags=[tag[:64] for tag in dict.fromkeys([*about.tags, *redact(list(self.tags))])] or None,
                    notes=about.notes,
                    config=dict(config),
                    dir=folder,
                    mode=self.mode,  # type: ignore[arg-type]
                    settings=settings,
                    reinit="create_new",
                )
        except (wandb.errors.Error, ValueError, TypeError, OSError) as error:  # pydantic's are ValueErrors
            raise self._refused(error) from None
        with run, finished_on_sigterm(run.finish), staged_beside(run):
            run.define_metric(STEP, summary="none")
            opened = _WandbRun(run)
            yield opened
            run.summary.update(opened.summary.numbers)

    def look(self, folder: Path) -> str | None:
        """How to bring offline runs to the server."""
        return (
            f"Its runs go to wandb with: embedlab sync {shlex.quote(str(folder))}" if self.mode == "offline" else None
        )

    def _refused(self, error: Exception) -> ConfigError:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:3])[:240].rstrip(". ")
        way = "tracker.mode=offline or tracker=disk" if self.mode == "online" else "tracker=disk"
        return ConfigError(f"wandb: {reason}. Correct that (or a WANDB_ variable), or use {way}.")


class _WandbRun:
    def __init__(self, run: Any):
        self.run = run
        self.summary = Summary()
        self.stepped: set[str] = set()  # keys that are drawn over the steps

    def _log(self, values: dict[str, Any], step: int | None) -> None:
        for key in values.keys() - self.stepped if step is not None else ():
            self.run.define_metric(key, step_metric=STEP)
            self.stepped.add(key)
        self.run.log(values if step is None else {**values, STEP: step})

    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.summary.add(values, step)
        self._log(dict(values), step)

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        import wandb

        images = [wandb.Image(picture, caption=caption) for picture, caption in pictures]
        self._log({key: images}, step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        cells = [[wandb.Image(cell) if isinstance(cell, Image.Image) else cell for cell in row] for row in rows]
        self.run.log({key: wandb.Table(columns=list(columns), data=of_one_kind(cells))})

    def curves(self, key: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> None:
        import wandb

        there = [[(x, y) for x, y in zip(at, line, strict=True) if y is not None] for line in lines.values()]
        xs, ys = ([[point[k] for point in line] for line in there] for k in (0, 1))
        self.run.log({key: wandb.plot.line_series(xs, ys, keys=list(lines), title=key, xname=axis)})

    def file(self, name: str, path: Path) -> None:
        import wandb

        artifact = wandb.Artifact(f"{safe(name)}-{self.run.id}", type=safe(name))
        artifact.add_file(str(path))
        self.run.log_artifact(artifact)


def of_one_kind(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Rows in which every column has one kind of value, as wandb wants it: numbers among texts become texts.

    >>> of_one_kind([[1, "a", None], [2.5, 3, 4]])
    [[1, 'a', None], [2.5, '3', 4]]
    """
    columns = []
    for column in zip(*rows, strict=True):
        kinds = {float if type(cell) is int else type(cell) for cell in column if cell is not None}
        mixed = len(kinds) > 1
        columns.append([str(cell) if mixed and cell is not None else cell for cell in column])
    return [list(row) for row in zip(*columns, strict=True)]


@contextmanager
def staged_beside(run: Any) -> Iterator[None]:
    """Keep copies of what tables and artifacts hold in an offline run's own folder, and not in the user's home.

    wandb uploads them from where they are when the run is synced, so they have to be wherever it is taken.
    """
    name = "WANDB_DATA_DIR"
    before = os.environ.get(name)
    if run.offline:
        os.environ[name] = str(Path(run.dir).parent)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before
        else:
            os.environ.pop(name, None)


@contextmanager
def clean_words() -> Iterator[None]:
    """The words of the command line without secrets: wandb writes them down."""
    before = sys.argv
    sys.argv = redact(before)
    try:
        yield
    finally:
        sys.argv = before


def key_in_netrc(host: str) -> bool:
    """Whether `wandb login` left a key on this machine."""
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


@contextmanager
def finished_on_sigterm(finish: Callable[..., object]) -> Iterator[None]:
    """Close a run when SIGTERM ends the process: wandb keeps the last 15 seconds in memory.

    Where a handler is set already, as the command line sets one, that one closes it, by an exception.
    """
    listens = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    if listens or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        finish(exit_code=128 + number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
