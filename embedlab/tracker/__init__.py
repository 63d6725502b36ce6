"""Where figures and pictures are logged. A tracker opens runs; a run takes scores, pictures and a table.

Files of the experiment itself (PNG, result.json) are written before and without any tracker.
"""

from __future__ import annotations

import hashlib
import io
import json
import netrc
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, Protocol
from urllib.parse import urlsplit

from PIL import Image

from embedlab.clean import redact
from embedlab.errors import ConfigError
from embedlab.files import append, write, written

PLACES = ("picture/seed", "steps/step")  # what figures are drawn over, and no figures themselves


class Run(Protocol):
    """One run: what one job logs."""

    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Figures, of the whole run, of a picture or of a step.

        A run is summed up by one number for each: the mean of what came without a step, the last of what came with one.
        """

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        """Pictures with their captions."""

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; cells may be pictures."""

    def curves(self, key: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> None:
        """Lines over an axis, each by its name; None where a line has no point."""

    def file(self, name: str, path: Path) -> None:
        """A file to be kept with the run, such as the conditioning."""


class Tracker(Protocol):
    """`with tracker.run(...) as run:` closes the run, also after an exception."""

    def ready(self) -> None:
        """Refuse what would keep runs from being opened, before anything is drawn."""

    def run(self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None) -> Any:
        """Open a run that keeps its files below `folder`."""


class Summary:
    """What a run comes to: one number for each figure."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Figures as `Run.scores` takes them.

        >>> summary = Summary()
        >>> for values, step in (({"picture/cosine": 0.5}, None), ({"picture/cosine": 1}, None), ({"loss": 3}, 1)):
        ...     summary.add(values, step)
        >>> summary.numbers
        {'picture/cosine': 0.75, 'loss': 3.0}
        """
        for key, value in values.items():
            if key not in PLACES:
                total, count = self._sums.get(key, (0.0, 0)) if step is None else (0.0, 0)
                self._sums[key] = total + value, count + 1

    @property
    def numbers(self) -> dict[str, float]:
        """Each figure's number."""
        return {key: total / count for key, (total, count) in self._sums.items()}


@dataclass(frozen=True)
class Silent:
    """Logs nothing."""

    def ready(self) -> None:
        """It always is."""

    @contextmanager
    def run(self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None) -> Iterator[Run]:
        yield _SilentRun()


class _SilentRun:
    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Nothing."""

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        """Nothing."""

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Nothing."""

    def curves(self, key: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> None:
        """Nothing."""

    def file(self, name: str, path: Path) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Disk:
    """Plain files in the job's folder: `log/scores.jsonl` (appended and flushed line by line), PNG, tables as JSON.

    `log/summary.json`, which comes last, has one number for each score.
    """

    def ready(self) -> None:
        """It always is."""

    @contextmanager
    def run(self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None) -> Iterator[Run]:
        run = _DiskRun(folder / "log")
        told = {"name": name, "group": group, "config": config}
        write(run.folder / "run.json", json.dumps(told, ensure_ascii=False, default=str).encode())
        yield run
        write(run.folder / "summary.json", json.dumps(run.summary.numbers).encode())


class _DiskRun:
    def __init__(self, folder: Path):
        self.folder = folder
        self.summary = Summary()
        folder.mkdir(parents=True, exist_ok=True)

    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.summary.add(values, step)
        append(self.folder / "scores.jsonl", json.dumps({"step": step, **values}) + "\n")

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        names = []
        for i, (picture, caption) in enumerate(pictures):
            name = f"{safe(key)}-{'' if step is None else f'{step}-'}{i}.png"
            written(self.folder / name, partial(picture.save, format="PNG"))
            names.append({"file": name, "caption": caption, "key": key, "step": step})
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in names]
        append(self.folder / "pictures.jsonl", "".join(lines))

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        plain = [[None if isinstance(cell, Image.Image) else cell for cell in row] for row in rows]
        text = json.dumps({"columns": list(columns), "rows": plain}, ensure_ascii=False)
        write(self.folder / f"{safe(key)}.json", text.encode())

    def curves(self, key: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> None:
        rows = [[x, *values] for x, *values in zip(at, *lines.values(), strict=True)]
        self.table(key, [axis, *lines], rows)

    def file(self, name: str, path: Path) -> None:
        append(self.folder / "files.jsonl", json.dumps({"name": name, "path": str(path)}) + "\n")


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
        """Wandb's own variables have to be right; online, there has to be a key, because wandb would ask for one."""
        import wandb

        try:
            with clean_words():
                wandb.setup(settings=wandb.Settings(silent=True, mode=self.mode))
        except (wandb.errors.Error, ValueError) as error:
            raise self._refused(error) from None
        if self.mode != "online":
            return
        host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
        named = any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"))
        if not named and not key_in_netrc(host):
            raise ConfigError(
                f"wandb: there is no key for {host}: run `wandb login`, set WANDB_API_KEY, or use tracker.mode=offline "
                "(`embedlab sync` brings its runs up later)."
            )

    @contextmanager
    def run(self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None) -> Iterator[Run]:
        import wandb

        # an online run without a key would be an error at once, which is right; a question would wait for ever
        folder.mkdir(parents=True, exist_ok=True)
        try:
            settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
            with clean_words():
                run = wandb.init(
                    project=redact(self.project),
                    entity=self.entity,
                    name=name[:128],
                    group=group,
                    tags=redact(list(self.tags)) or None,
                    config=dict(config),
                    dir=folder,
                    mode=self.mode,  # type: ignore[arg-type]
                    settings=settings,
                    reinit="create_new",
                )
        except (wandb.errors.Error, ValueError, TypeError, OSError) as error:  # pydantic's are ValueErrors
            raise self._refused(error) from None
        with run, finished_on_sigterm(run.finish):
            for place in PLACES:
                run.define_metric(place, summary="none")
                run.define_metric(f"{place.partition('/')[0]}/*", step_metric=place)
            opened = _WandbRun(run)
            yield opened
            run.summary.update(opened.summary.numbers)

    def _refused(self, error: Exception) -> ConfigError:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:3])[:240].rstrip(". ")
        way = "tracker.mode=offline or tracker=disk" if self.mode == "online" else "tracker=disk"
        return ConfigError(f"wandb: {reason}. Mend that (or a WANDB_ variable), or use {way}.")


class _WandbRun:
    def __init__(self, run: Any):
        self.run = run
        self.summary = Summary()

    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.summary.add(values, step)
        self.run.log(dict(values) if step is None else {**values, "steps/step": step})

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        import wandb

        shown = [wandb.Image(picture, caption=caption) for picture, caption in pictures]
        self.run.log({key: shown} if step is None else {key: shown, "steps/step": step})

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        cells = [[wandb.Image(cell) if isinstance(cell, Image.Image) else cell for cell in row] for row in rows]
        self.run.log({key: wandb.Table(columns=list(columns), data=cells)})

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
    def run(self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None) -> Iterator[Run]:
        self.ready()
        with redirect_stdout(io.StringIO()):  # it greets
            import trackio

            plain = json.loads(json.dumps(config, default=str))
            run = trackio.init(
                project=self.project, name=name[:128], group=group, config=plain, auto_log_gpu=False, auto_log_cpu=False
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


@dataclass(frozen=True)
class Several:
    """Logs to several trackers at once."""

    trackers: Sequence[Tracker]

    def ready(self) -> None:
        """All of them have to be."""
        for tracker in self.trackers:
            tracker.ready()

    @contextmanager
    def run(self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None) -> Iterator[Run]:
        with ExitStack() as stack:
            yield _SeveralRun([stack.enter_context(t.run(name, folder, config, group)) for t in self.trackers])


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
    tracker: Tracker, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None
) -> Iterator[Run]:
    """A run of any tracker, which is told no secret: neither by its name nor by what is logged."""
    with tracker.run(redact(name), folder, redact(config), redact(group)) as run:
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


@contextmanager
def clean_words() -> Iterator[None]:
    """The words of the command line without secrets: wandb writes them down."""
    before = sys.argv
    sys.argv = redact(before)
    try:
        yield
    finally:
        sys.argv = before


def discard_log(folder: Path) -> None:
    """Take away what an earlier try to log a job or a sweep left on disk: half a run, or one of files that are gone.

    Runs of wandb that were sent already stay.
    """
    shutil.rmtree(folder / "log", ignore_errors=True)
    for run in folder.glob("wandb/offline-run-*"):
        if not any(run.glob("*.synced")):
            shutil.rmtree(run, ignore_errors=True)


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


def safe(name: str) -> str:
    """A name as a file name; one that is cut ends in a hash, so that two stay two.

    >>> safe("clip/a cat?"), safe("long " * 20)[60:]
    ('clip-a-cat', 'long-long-ca75507b')
    """
    made = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"
    return made if len(made) <= 80 else f"{made[:69]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
