"""A sweep's folder, read back: its table with pictures, its sheet, its gallery."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from embedlab import images, readers
from embedlab.checks import is_number, whole_number
from embedlab.display import Html, Picture, Shown, at_most, block, curves, data_uri, join, picture, table, tag
from embedlab.errors import ConfigError, PictureError, brief, counted, listed
from embedlab.metrics.titles import name_of
from embedlab.sweep.axes import axes, format_value
from embedlab.sweep.labels import labels
from embedlab.sweep.result import FILE, Result, read_result
from embedlab.sweep.score_table import table as score_table
from embedlab.sweep.tables import curves as lines_of
from embedlab.sweep.tables import records
from embedlab.view.contact_sheet import write_sheets
from embedlab.view.gallery.content import read
from embedlab.view.gallery.single import page_of
from embedlab.view.gallery.widget import widget

SHEET = 900, 3600  # pixels of a sheet in a notebook, across and down
SHOWN = 24  # rows of a table with pictures
PICTURES = ("picture", "baseline")  # columns of files


@dataclass(frozen=True, init=False)
class Sweep(Shown):
    """A sweep that was run, by its folder (`multirun/DATE/TIME`); or one job, by its own (`outputs/DATE/TIME`).

    results: a table of pandas, a row a picture. sheet: the contact sheet. gallery(): everything on a page, to look
    through. It is read when it is asked for, so that one that still runs shows what is there: `refresh()` reads again.

    Raises ConfigError for a folder that is no sweep's.

    >>> Sweep("nowhere")
    Traceback (most recent call last):
    embedlab.errors.ConfigError: 'nowhere' is not there; give the folder that a sweep wrote, such as multirun/DATE/TIME.
    """

    folder: Path
    _kept: dict[str, Any] = field(repr=False, compare=False)

    def __init__(self, folder: Path | str) -> None:
        if not isinstance(folder, str | Path):
            raise ConfigError(f"folder is {brief(folder)}; it has to be the path of a sweep, multirun/DATE/TIME.")
        folder = readers.path_of(folder, "folder")
        if not folder.is_dir():
            read(folder)  # says why not, in the words that it was called
        object.__setattr__(self, "folder", folder.absolute())
        object.__setattr__(self, "_kept", {})
        self.jobs  # noqa: B018  (what is no sweep is refused here)

    def __repr__(self) -> str:
        jobs = self.jobs
        pictures = sum(len(job.pictures) for job in jobs)
        failed = sum(job.status == "failed" for job in jobs)
        more = f", {failed} failed" if failed else ""
        return f"Sweep('{self.folder}', {counted(len(jobs), 'job')}, {counted(pictures, 'picture')}{more})"

    @property
    def jobs(self) -> tuple[Result, ...]:
        """The result of each job: its scores, its pictures, its settings."""
        if "jobs" not in self._kept:
            alone = (self.folder / FILE).is_file()
            self._kept["jobs"] = (read_result(self.folder),) if alone else tuple(read(self.folder).jobs)
        found: tuple[Result, ...] = self._kept["jobs"]
        return found

    def refresh(self) -> Sweep:
        """Read it again, and answer with it."""
        self._kept.clear()
        self.jobs  # noqa: B018
        return self

    @property
    def alone(self) -> bool:
        """Whether it is one job, and no sweep."""
        return self.jobs[0].folder.resolve() == self.folder.resolve()

    @property
    def done(self) -> list[Result]:
        """The jobs that have a result."""
        return [job for job in self.jobs if job.status == "done"]

    @property
    def results(self) -> Any:
        """A row a picture, as a DataFrame: its job, what was set for it, its seed, every score, and its files as paths.

        A notebook shows the pictures in it, also of a part of it: `sweep.results.sort_values("clip_score/cat")`.
        """
        rows = []
        for row in records(self.done, alone=self.alone):
            line = row.as_dict()
            paths = {name: line.pop(old, None) for name, old in (("picture", "file"), ("baseline", "baseline"))}
            paths = {name: self.folder / path for name, path in paths.items() if path}
            hidden = ("key", "status", "file", "baseline")
            rows.append({**paths, **{key: value for key, value in line.items() if key not in hidden}})
        return frame_kind()(rows)

    @property
    def sheet(self) -> Image.Image:
        """The contact sheet: pictures by seed and job, unedited ones beside."""
        if (made := self.folder / "sheet.png").is_file():
            return readers.open_picture(made).convert("RGB")
        with TemporaryDirectory() as folder:
            (first, *_) = write_sheets(self.folder, self.done, to=Path(folder) / "sheet.png")
            return readers.open_picture(first).convert("RGB").copy()

    def gallery(self, height: int = 640, live: bool = True) -> Any:
        """Everything to look through: axes across and down, scores as colours, tokens of each picture.

        An anywidget, for notebooks that show those, whose `picked` and `marked` say what is looked at; where
        anywidget is not installed, or it shall not be `live`, the same page in a frame.
        """
        height = whole_number(height, "height", ConfigError, least=120, of=" of pixels")
        folder = self.folder.parent if self.alone else self.folder
        if not live:
            return Framed(page_of(folder), height)
        try:
            return widget(folder, height=height)
        except ConfigError as error:
            if "anywidget" not in str(error):
                raise
            return Framed(page_of(folder), height)

    def curves(self, *scores: str) -> Curves:
        """Scores over each numeric axis, drawn; left out, all of them. ConfigError for a score that is not there."""
        found: dict[str, Html] = {}
        there = set()
        for axis, score, at, lines in lines_of(records(self.done), axes(self.done)):
            there.add(score)
            if scores and score not in scores:
                continue
            pairs = {name: zip(at, line, strict=True) for name, line in lines.items()}
            points = {name: [(x, y) for x, y in pair if y is not None] for name, pair in pairs.items()}
            short = axis.rsplit(".", 1)[-1]
            found[f"{name_of(score)} over {short}"] = curves(points, short)
        if missing := [one for one in scores if one not in there]:
            raise ConfigError(f"there is no curve of {brief(missing[0])}; there are {listed(sorted(there), 12)}.")
        return Curves(found)

    def __str__(self) -> str:
        done = [job for job in self.done if job.scores]
        return score_table(done, labels(done)) if done else repr(self)

    def _repr_html_(self) -> str:
        done = self.done
        failed = [(job.job, job.name, job.error or "failed") for job in self.jobs if job.status == "failed"]
        note = f"{counted(len(self.jobs), 'job')}, {counted(sum(len(job.pictures) for job in done), 'picture')}"
        parts: list[Any] = []
        if any(job.has_pictures for job in done):
            sheet = at_most(self.sheet, *SHEET)
            style = f"width:{sheet.width}px;max-width:100%;height:auto"
            parts.append(tag('<img src="{}" alt="contact sheet" style="{}">', data_uri(sheet, max(SHEET)), style))
        parts.append(means_table(done))
        notes: dict[str, list[str]] = {}
        for job, name in zip(done, labels(done), strict=True):
            for said in job.notes or ():
                notes.setdefault(str(said).rstrip("."), []).append(name)
        of = {said: "" if len(names) == len(done) else f"{listed(names, 4)}: " for said, names in notes.items()}
        parts.append(join(tag('<div class="n">{}{}.</div>', of[said], said) for said in list(notes)[:6]))
        parts.append(table(("job", "name", "why it failed"), failed) if failed else "")
        parts.append(tag('<span class="n">{}</span>', self.folder))
        return block(self.folder.name, *parts, note=note)

    def _repr_png_(self) -> bytes | None:
        return images.encoded(at_most(self.sheet, *SHEET)) if any(job.has_pictures for job in self.done) else None


@dataclass(frozen=True)
class Curves:
    """Drawings of scores over axes, by their names."""

    drawn: dict[str, Html]

    def __repr__(self) -> str:
        return f"Curves({listed(self.drawn, 6)})"

    def _repr_html_(self) -> str:
        drawn = (tag("<div>{}<br>{}</div>", name, one) for name, one in self.drawn.items())
        return block("", tag('<div class="k">{}</div>', join(drawn)))


@dataclass(frozen=True)
class Framed:
    """A page in a frame of its own, where no widgets are."""

    page: str = field(repr=False)
    height: int = 640

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.page)}" sandbox="allow-scripts" title="gallery" '
            f'style="width:100%;height:{int(self.height)}px;border:0"></iframe>'
        )


def means_table(jobs: Sequence[Result], most: int = 8) -> Html:
    """The mean scores of each job, a line a job; of many scores the first."""
    jobs = [job for job in jobs if job.scores]
    drop = ("rows/", "conditioning/")
    keys = list(dict.fromkeys(key for job in jobs for key in job.scores if not key.startswith(drop)))[:most]
    if not jobs or not keys:
        return Html()
    rows = [
        (name, *("" if (v := job.scores.get(key)) is None else f"{v:.3g}" for key in keys))
        for name, job in zip(labels(jobs), jobs, strict=True)
    ]
    heads = ["", *map(name_of, keys)]
    return table(heads, rows, heads[1:])


@cache
def frame_kind() -> type:
    """A DataFrame of pandas whose columns of files are shown as pictures; so are all that are made of it."""
    try:
        import pandas
    except ImportError:
        raise ConfigError("results needs the package pandas, which is not installed: pip install pandas.") from None

    class Results(pandas.DataFrame):  # type: ignore[misc, unused-ignore]
        """A table of pictures and scores."""

        @property
        def _constructor(self) -> type:
            return Results

        def _repr_html_(self) -> str:
            return framed(self)

    return Results


def framed(frame: Any) -> str:
    """A table of pandas as HTML: the first rows, with pictures."""
    few = frame.head(SHOWN)
    columns = list(map(str, few.columns))
    rows = [
        [str(index), *(cell(name, value) for name, value in zip(columns, line, strict=True))]
        for index, line in zip(few.index, few.itertuples(index=False), strict=True)
    ]
    numbers = [name for name in columns if str(frame[name].dtype if name in frame else "").startswith(("int", "float"))]
    note = f"{counted(len(frame), 'row')}" + (f", the first {len(few)} are shown" if len(few) < len(frame) else "")
    return block("", table(["", *columns], rows, numbers), note=note)


def cell(column: str, value: Any) -> Any:
    """A value of a table as it is shown."""
    if column in PICTURES and isinstance(value, str | Path):
        try:
            shown = Picture(readers.open_picture(Path(value)).convert("RGB"), title=Path(value).name)
            return picture(shown, 72, "webp")
        except PictureError:
            return f"{Path(value).name} is gone"
    if is_number(value) and not isinstance(value, int):
        return f"{value:.4g}"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = format_value(value, typed=True) if not isinstance(value, str) else value
    return text if len(text) <= 80 else f"{text[:79]}…"
