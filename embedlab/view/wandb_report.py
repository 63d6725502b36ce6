"""A sweep as a report of wandb: its pictures by what varies, each score over each axis, all of it in parallel."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedlab import readers
from embedlab.checks import is_number
from embedlab.errors import ConfigError, counted
from embedlab.files import write_json
from embedlab.metrics.titles import name_of
from embedlab.sweep.axes import axes, format_value, short_names
from embedlab.sweep.result import Result
from embedlab.sweep.results import collect
from embedlab.sweep.tables import curves, records, shown_scores
from embedlab.tracker.wandb_files import RunFacts, facts_of

FILE = "report.json"
WIDE, TALL = 24, 16  # a panel over the whole page, in units of wandb's grid; a page is 24 wide
MOST = 12  # scores that get panels of their own
LESS = ("rows/", "conditioning/")  # scores of an edit as a whole: columns of the table, and no panels


@dataclass(frozen=True)
class Sweep:
    """What a report is about: the run of the sweep in wandb, and the results."""

    run: RunFacts
    results: Sequence[Result]

    @property
    def axes(self) -> dict[str, list[Any]]:
        """What varies between its jobs, by short names."""
        found = {key: values for key, values in axes(self.results).items() if key != "seed"}
        names = short_names(found)
        return {names[key]: values for key, values in found.items()}

    @property
    def scores(self) -> list[str]:
        """The scores that a panel is made of."""
        keys = shown_scores(self.results, (key for result in self.results for key in result.scores))
        return [key for key in keys if not key.startswith(LESS)][:MOST]

    @property
    def curves(self) -> list[tuple[str, str]]:
        """Axis and score of each curve that its run has."""
        varied = axes(self.results)
        names = short_names(varied)
        known = {*self.scores}
        return [(names[axis], score) for axis, score, *_ in curves(records(self.results), varied) if score in known]


def read_sweep(folder: Path) -> Sweep:
    """A sweep with its run of wandb; ConfigError where it has none, or no pictures."""
    found = [facts_of(path.parent) for path in sorted(folder.glob("wandb/*run-*/run-*.wandb"))]
    runs = [run for run in found if run is not None and run.kind == "sweep"]
    results = [result for result in collect(folder) if result.has_pictures]
    if not runs or not results:
        raise ConfigError(
            f"'{folder}' has no run of a sweep in wandb, which a report is made of: tracker=wandb writes it "
            "when a sweep ends."
        )
    return Sweep(runs[-1], results)


def report_of(sweep: Sweep, entity: str | None = None) -> Any:
    """The report, as wandb-workspaces has it; nothing of it is sent.

    `entity` is whose project it is: without one, that which the sweep's run names.
    """
    import wandb_workspaces.reports.v2 as wr

    run, found = sweep.run, sweep.axes
    jobs, whole = _runset(sweep, "job"), _runset(sweep, "sweep")
    said = [f"{name}: {', '.join(format_value(value) for value in values)}" for name, values in found.items()]
    varied = f" What varies: {'; '.join(said)}." if said else ""
    numeric = [name for name, values in found.items() if all(map(is_number, values))]
    pictures = sum(len(result.pictures) for result in sweep.results)
    blocks = [
        *([wr.P(text=run.notes)] if run.notes else []),
        wr.P(text=f"{counted(len(sweep.results), 'job')}, {counted(pictures, 'image')}.{varied}"),
        wr.H2(text="Images by what varies"),
        wr.PanelGrid(
            runsets=[jobs],
            panels=[
                wr.MediaBrowser(
                    title="a column a job, a row a seed",
                    media_keys=["pictures"],
                    mode="grid",
                    grid_x_axis="run",
                    grid_y_axis="index",
                    layout=wr.Layout(w=WIDE, h=TALL),
                )
            ],
        ),
        wr.P(text="Each image beside the unedited one of its seed, with the tokens that were edited and its scores:"),
        wr.PanelGrid(
            runsets=[whole],
            panels=[wr.WeavePanelSummaryTable(table_name="results", layout=wr.Layout(w=WIDE, h=TALL))],
        ),
    ]
    if numeric:
        charts = [_curve(wr, score, axis, n) for n, (axis, score) in enumerate(sweep.curves)]
        bands = [
            wr.ScatterPlot(
                title=f"{name_of(score)} over {axis}",
                x=wr.Config(f"axes.{axis}"),
                y=wr.SummaryMetric(score),
                running_ymin=True,
                running_ymax=True,
                running_ymean=True,
                layout=_place(wr, n),
            )
            for n, (score, axis) in enumerate((score, axis) for axis in numeric for score in sweep.scores)
        ]
        blocks += [
            wr.H2(text="Scores over what varies"),
            wr.P(text="Means over the seeds; of a single axis with the lowest and the highest of them."),
            wr.PanelGrid(runsets=[whole], panels=charts),
            wr.P(text="Every job as a point, with the mean, the lowest and the highest at each value:"),
            wr.PanelGrid(runsets=[jobs], panels=bands),
        ]
    parallel = [
        *(wr.ParallelCoordinatesPlotColumn(metric=wr.Config(f"axes.{name}"), display_name=name) for name in found),
        *(
            wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(score), display_name=name_of(score))
            for score in sweep.scores
        ),
    ]
    blocks += [
        wr.H2(text="All of it"),
        wr.PanelGrid(
            runsets=[jobs],
            panels=[wr.ParallelCoordinatesPlot(columns=parallel, layout=wr.Layout(w=WIDE, h=TALL))],
        ),
    ]
    title = re.sub(r"[^\w.,()-]+", " ", run.group or run.name).strip()[:128]  # it becomes part of an address
    entity = entity or run.entity or ""
    return wr.Report(project=run.project, entity=entity, title=title or "sweep", blocks=blocks, width="fluid")


def _runset(sweep: Sweep, kind: str) -> Any:
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    filters = [expr.Metric("JobType") == kind]
    if sweep.run.group:
        filters.append(expr.Metric("Group") == sweep.run.group)
    order = [wr.OrderBy(wr.Config(f"axes.value.{name}"), ascending=True) for name in sweep.axes]
    return wr.Runset(
        project=sweep.run.project,
        name="jobs" if kind == "job" else "the sweep",
        filters=expr.And(*filters) if len(filters) > 1 else filters[0],
        order=order or [wr.OrderBy("CreatedTimestamp", ascending=True)],
    )


def _place(wr: Any, n: int) -> Any:
    """Three in a row."""
    return wr.Layout(x=8 * (n % 3), y=8 * (n // 3), w=8, h=8)


def _curve(wr: Any, score: str, axis: str, n: int) -> Any:
    """A curve as wandb's own chart of lines, over the table that was logged of it."""
    key = f"{score} over {axis}"
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": f"{key}_table"}},
        chart_name="wandb/lineseries/v0",
        chart_fields={"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"},
        chart_strings={"title": f"{name_of(score)} over {axis}", "xname": axis},
        layout=_place(wr, n),
    )


def write_report(folder: Path, report: Any, url: str | None = None) -> Path:
    """Write a report's spec beside its sweep; with the id and the address that it got where it was sent."""
    spec = json.loads(report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    about = {"title": report.title, "project": report.project, "entity": report.entity or None}
    sent = {"id": report.id, "url": url or known(folder).get("url")} if report.id else {}
    write_json(folder / FILE, {**about, **sent, "spec": spec})
    return folder / FILE


def known(folder: Path) -> dict[str, str]:
    """The `id` and the `url` under which the report of a sweep was sent before; empty where it was not."""
    try:
        found = json.loads(readers.read_bytes(folder / FILE))
    except (OSError, ValueError):
        return {}
    mine = found.items() if isinstance(found, Mapping) else ()
    return {key: value for key, value in mine if key in ("id", "url") and isinstance(value, str)}
