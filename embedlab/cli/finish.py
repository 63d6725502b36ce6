"""What is done once for a whole sweep, when all of its jobs were tried."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from embedlab.clean import one_line, redact
from embedlab.cli.messages import fail
from embedlab.cli.progress import peak_memory, stage
from embedlab.cli.session import Session
from embedlab.sweep.config import part_of
from embedlab.sweep.job import reason_of
from embedlab.sweep.labels import labels
from embedlab.sweep.result import Result
from embedlab.sweep.results import collect
from embedlab.sweep.score_table import table
from embedlab.sweep.study import group_of
from embedlab.sweep.tables import records, write_tables, write_times
from embedlab.sweep.tracking import log_sweep
from embedlab.tracker import Silent, Tracker, look_at
from embedlab.view.contact_sheet import write_sheets
from embedlab.view.gallery.content import read
from embedlab.view.gallery.folder import write as write_page

Failure = tuple[int, str, str]  # number and title of a job, and the reason


def finish_sweep(session: Session) -> None:
    """Write the sweep's table, sheet and page, log them, print them and all failures; exit code 1 where there are."""
    assert session.sweep is not None
    folder, config = session.sweep
    session.display.close()
    stage("writing table, sheet and page")
    tracker = part_of(config, "tracker")
    results = collect(folder)
    if not results:
        fail("this sweep has no jobs.")
    failures = failures_of(results, session.failed, tracker)
    done = any(result.has_pictures for result in results)
    page: Path | None = None
    try:
        if done:
            write(folder, results)
            write_times(folder, session.display.times, peak_memory())
            page = write_page(read(folder)).index
            group = redact(config.group or group_of(folder, session.study))
            log_sweep(folder, results, tracker, group, session.study)
    except Exception as error:  # a full disk, a tracker that dies: every job has its own files
        failures.append((-1, "the sweep's own table, sheet and run", reason_of(error)))
    if done:
        names = [name for result, name in zip(results, labels(results), strict=True) if result.scores]
        print(table([result for result in results if result.scores], names))
        print(f"\nThe contact sheet is {folder / 'sheet.png'}; all figures are in results.csv and results.parquet.")
        if page:
            print(f"Everything on a page: {page}")
        if (line := look_at(tracker, folder)) is not None:
            print(line)
    if failures:
        report(sorted(failures), folder)
        sys.exit(1)


def failures_of(results: Sequence[Result], failed: Sequence[Failure], tracker: Tracker) -> list[Failure]:
    """What failed in this process, and what the results say of failures before."""
    found = {(number, reason): (number, name, reason) for number, name, reason in failed}
    for result in results:
        unlogged = None if isinstance(tracker, Silent) else result.log_error
        for reason in (result.error, unlogged):
            if reason:
                number, name = result.job or 0, one_line(redact(result.name))
                found.setdefault((number, reason), (number, name, reason))
    return list(found.values())


def report(failures: Sequence[Failure], folder: Path) -> None:
    """Print what failed, a line each, and how to go on."""
    print(f"\n{len(failures)} failed:")
    for number, name, reason in failures:
        which = f"job {number} " if number >= 0 else ""
        print(f"  {which}({name if len(name) < 80 else name[:79] + '…'}): {one_line(reason)}")
    again = f"embedlab -m resume={shlex.quote(str(folder))}"
    print(f"The same command again, or {again}, makes what is missing and nothing else.")


def write(folder: Path, results: Sequence[Result]) -> None:
    """The contact sheets, and one row a picture as CSV."""
    write_sheets(folder, results)
    write_tables(folder, records(results))
