"""Bring the offline wandb runs of a sweep, or of a job, to the server: from any machine that has its folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedlab import readers
from embedlab.cli.parser import Parser
from embedlab.errors import ConfigError, counted

ABOUT = """\
--report also makes a report of wandb: the images by what varies, each score over each axis, all of it in parallel
coordinates. Its spec is written to SWEEP/report.json; sent a second time it is the same report. With --offline it is
written and nothing is sent. It needs pip install 'embedlab[report]'."""


def runs_of(folder: Path) -> list[Path]:
    """The offline runs below a folder, oldest first."""
    if not folder.is_dir():
        raise ConfigError(f"there is no folder '{folder}'.")
    return sorted(path.parent for path in folder.rglob("wandb/offline-run-*/run-*.wandb"))


def main(argv: list[str]) -> None:
    """`embedlab sync`: all runs with one command of wandb's own; what is there already is not sent twice."""
    parser = Parser("embedlab sync", description="Bring a sweep's offline wandb runs to the server.", epilog=ABOUT)
    parser.add_argument("folder", metavar="FOLDER", type=readers.word, help="a sweep's or a job's folder")
    parser.add_argument("--report", action="store_true", help="also make a report of the sweep")
    parser.add_argument("--offline", action="store_true", help="write the report's spec, and send nothing")
    words = parser.parse_args(argv)
    if words.offline and not words.report:
        raise ConfigError("--offline is for --report: it writes the report's spec, and sends nothing.")
    report = reported(words.folder) if words.report else None
    if words.offline:
        return
    runs = runs_of(words.folder)
    if not runs and report is None:
        raise ConfigError(
            f"'{words.folder}' holds no offline wandb runs; tracker=wandb writes them into each job's folder."
        )
    from embedlab.tracker import Wandb

    Wandb(mode="online").ready()
    if runs:  # those of tracker.mode=online are there
        sync(runs, words.folder)
    if report is not None:
        send(words.folder, report)


def sync(runs: Sequence[Path], folder: Path) -> None:
    """Send offline runs with one command of wandb's own, from wherever they are now; its own logs go to the folder."""
    from embedlab.tracker.wandb_files import bring_home

    for run in runs:
        bring_home(run)
    command = [sys.executable, "-m", "wandb", "sync", *(str(run.absolute()) for run in runs)]
    done = subprocess.run(command, check=False, env={**os.environ, "WANDB_DIR": str(folder.absolute())})
    left = [run for run in runs if not any(run.glob("*.synced"))]  # wandb says 0 also where the server took nothing
    if done.returncode or left:
        raise ConfigError(
            f"wandb sync ended with code {done.returncode} and {counted(len(left), 'run')} of {len(runs)} not sent; "
            "they stay where they are, and the same command sends them again."
        )
    print(f"On the server: {counted(len(runs), 'run')}.")


def reported(folder: Path) -> Any:
    """The report of a sweep, whose spec is written beside it."""
    from embedlab.tracker.protocol import need
    from embedlab.view.wandb_report import known, read_sweep, report_of, write_report

    if not folder.is_dir():
        raise ConfigError(f"there is no folder '{folder}'.")
    need("wandb_workspaces", "--report", "report")
    report = report_of(read_sweep(folder))
    report.id = known(folder).get("id", "")  # sent a second time it is the same one
    print(f"The report's spec is in {write_report(folder, report)}.")
    return report


def send(folder: Path, report: Any) -> None:
    """Save a report on the server, in the place of the one that this sweep had there."""
    import wandb

    from embedlab.view.wandb_report import write_report

    try:
        report.entity = report.entity or wandb.Api().default_entity
        report.save()
    except (wandb.errors.Error, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ConfigError(f"wandb took no report: {type(error).__name__}: {reason}. The runs are there.") from error
    write_report(folder, report, report.url)
    print(f"The report: {report.url}")
