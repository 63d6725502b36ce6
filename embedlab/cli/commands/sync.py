"""Bring the offline wandb runs of a sweep, or of a job, to the server: from any machine that has its folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from embedlab import readers
from embedlab.cli.parser import Parser
from embedlab.errors import ConfigError, counted


def runs_of(folder: Path) -> list[Path]:
    """The offline runs below a folder, oldest first."""
    if not folder.is_dir():
        raise ConfigError(f"there is no folder '{folder}'.")
    found = sorted(path.parent for path in folder.rglob("wandb/offline-run-*/run-*.wandb"))
    if not found:
        raise ConfigError(f"'{folder}' holds no offline wandb runs; tracker=wandb writes them into each job's folder.")
    return found


def main(argv: list[str]) -> None:
    """`embedlab sync`: all runs with one command of wandb's own; what is there already is not sent twice."""
    parser = Parser("embedlab sync", description="Bring a sweep's offline wandb runs to the server.")
    parser.add_argument("folder", metavar="FOLDER", type=readers.word, help="a sweep's or a job's folder")
    words = parser.parse_args(argv)
    runs = runs_of(words.folder)
    from embedlab.tracker import Wandb
    from embedlab.tracker.wandb_files import bring_home

    Wandb(mode="online").ready()
    for run in runs:
        bring_home(run)
    done = subprocess.run([sys.executable, "-m", "wandb", "sync", *map(str, runs)], check=False)
    left = [run for run in runs if not any(run.glob("*.synced"))]  # wandb says 0 also where the server took nothing
    if done.returncode or left:
        raise ConfigError(
            f"wandb sync ended with code {done.returncode} and {counted(len(left), 'run')} of {len(runs)} not sent; "
            "they stay where they are, and the same command sends them again."
        )
    print(f"On the server: {counted(len(runs), 'run')}.")
