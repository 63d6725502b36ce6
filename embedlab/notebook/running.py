"""Studies and grids from Python, by the plan, the store and the files of the command line."""

from __future__ import annotations

import io
import itertools
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from embedlab import readers
from embedlab.arguments import plain
from embedlab.cell import Cell
from embedlab.cli.finish import write
from embedlab.cli.launch import Plan, joined, store_of
from embedlab.cli.main import run as run_command
from embedlab.cli.progress import Display, peak_memory
from embedlab.cli.session import Session
from embedlab.display.progress import Bar, in_notebook
from embedlab.engines import Auto, Eager, Engine
from embedlab.errors import ConfigError, brief, check_kind, counted, listed
from embedlab.export import recipe
from embedlab.files import make_folder
from embedlab.limits import seeds_asked
from embedlab.metrics.score import Metrics
from embedlab.models import Model, Source
from embedlab.models.silence import silence_libraries
from embedlab.notebook.sweeps import Sweep
from embedlab.sweep.identity import versions
from embedlab.sweep.job import Job, check_engine, load_result, prepare_folder, validate_job
from embedlab.sweep.overrides import quoted, said
from embedlab.sweep.sweep_plan import PlannedJob, SweepPlan, write_plan
from embedlab.sweep.tables import write_times
from embedlab.tracker import Silent, Tracker, make_ready
from embedlab.view.gallery.content import read
from embedlab.view.gallery.folder import write as write_page

if TYPE_CHECKING:
    from embedlab.sweep.result import Result

PARTS = ("encoder", "guidance", "sampler", "start", "attention")  # of a cell, whose settings can be axes


# ── a study ───────────────────────────────────────────────────────────────────────────────────────────────────────


def run(
    experiment: str | None = None,
    /,
    *,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    folder: Path | str | None = None,
    **overrides: Any,
) -> Sweep:
    """Run a study of conf/experiment, or a command of one's own, as `embedlab experiment=NAME …` does; read it back.

    overrides: settings by their names on the command line. A point is written as two underscores,
    `sampler__steps=6`, or the name as a key, `**{"sampler.steps": 6}`; a value is a Python value. sweep: what varies,
    a list of values for each setting, as `-m` has them: `sweep={"guidance.scale": [2, 4, 8]}`. folder: where it is
    written; the same folder again makes what is missing and nothing else.

    In a notebook a bar shows how it goes on. Files, store, tables, gallery and tracker are those of the command line.

    Raises ConfigError with the line that the command would end with.

    >>> run("puppy_and_dragons")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    embedlab.errors.ConfigError: ...puppy_and_dragons...
    """
    words = words_of(experiment, sweep or {}, folder, overrides)
    session = Watched()
    with as_command(words, session) as told:
        run_command(list(words), session)
    if session.place is None:
        raise ConfigError(f"this command makes no pictures: {' '.join(told) or 'nothing was said'}.")
    found = Sweep(session.place)
    if not any(job.has_pictures for job in found.jobs):
        reasons = list(dict.fromkeys(reason for *_, reason in session.failed)) or told
        raise ConfigError(f"nothing was generated: {'; '.join(reasons[-2:])}.")
    return found


def words_of(
    experiment: str | None, sweep: Mapping[str, Sequence[Any]], folder: Path | str | None, overrides: Mapping[str, Any]
) -> list[str]:
    """A command line of a study and its settings.

    >>> words_of("puppy_to_cat", {"guidance.scale": [2, 4]}, None, {"sampler__steps": 6, "prompt": "a, b"})
    ['-m', 'experiment=puppy_to_cat', "prompt='a, b'", 'sampler.steps=6', 'guidance.scale=2,4']
    """
    if experiment is not None and (not isinstance(experiment, str) or not experiment.strip()):
        raise ConfigError(
            f"experiment is {brief(experiment)}; it has to be the name of a study, as in conf/experiment."
        )
    if not isinstance(sweep, Mapping):
        raise ConfigError(f"sweep is {brief(sweep)}; it has to be a list of values for each setting that varies.")
    words = ["-m"] if sweep else []
    words += [f"experiment={experiment}"] if experiment is not None else []
    settings = {key.replace("__", "."): value for key, value in overrides.items()}
    first = sorted(settings, key=lambda key: "." in key)  # groups are chosen before settings in them
    words += [f"{key}={as_word(key, settings[key])}" for key in first]
    for key, values in sweep.items():
        if not isinstance(values, list | tuple | range) or not values:
            raise ConfigError(f"sweep[{key!r}] is {brief(values)}; it has to be a list of values.")
        words.append(f"{str(key).replace('__', '.')}={','.join(as_word(str(key), value) for value in values)}")
    if folder is not None:
        where = quoted(str(readers.path_of(folder, "folder").absolute()))
        words += [f"hydra.sweep.dir={where}", f"hydra.run.dir={where}"]
    return words


def as_word(key: str, value: Any) -> str:
    """A Python value as the command line takes it: plain words as they are, so that groups can be chosen."""
    if isinstance(value, range):
        value = list(value)
    if isinstance(value, Path):
        value = str(value)
    if key == "operators" and isinstance(value, list | tuple):
        if wrong := [one for one in value if not isinstance(one, str)]:
            raise ConfigError(
                f"operators holds {brief(wrong[0])}; run takes their names, grid a cell with such as these."
            )
        return f"[{','.join(map(str, value))}]"
    plain = isinstance(value, str) and value.replace("_", "").replace("-", "").isalnum() and value[0].isalpha()
    return str(value) if plain and value.lower() not in ("null", "true", "false", "nan", "inf") else said(value, key)


class Watched(Session):
    """The session of a command that runs here: it knows its folder, and shows a bar."""

    def __init__(self) -> None:
        super().__init__()
        self.place: Path | None = None
        self.__dict__["display"] = Quiet()

    def lock(self, folder: Path) -> None:
        """The first folder that is worked in is the command's."""
        self.place = self.place or folder
        super().lock(folder)


@contextmanager
def as_command(words: Sequence[str], session: Session) -> Iterator[list[str]]:
    """Run a command here as on a terminal of its own: its words, nothing printed, an end of its own as an error.

    Jobs that failed are none: the others are there to look at. The block is given the lines that were said.
    """
    before, told = sys.argv[:], list[str]()
    out, err = io.StringIO(), io.StringIO()
    sys.argv[:] = ["embedlab", *words]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            yield told
    except SystemExit as ended:
        lines = [line.removeprefix("embedlab: ").strip() for line in err.getvalue().splitlines() if line.strip()]
        told += lines
        if ended.code in (130, 143):
            raise KeyboardInterrupt from None
        if ended.code == 2 or (ended.code and not session.failed):
            raise ConfigError(" ".join(lines[-3:]) or f"the command ended with {ended.code}.") from None
        told += [line.strip() for line in out.getvalue().splitlines() if line.strip()]
    finally:
        sys.argv[:] = before


class Quiet(Display):
    """What is seen of a sweep in a notebook: a bar of its pictures; elsewhere nothing."""

    def __init__(self) -> None:
        console = Console(file=io.StringIO(), force_jupyter=False, force_terminal=False, width=200)
        super().__init__(console, every=1e9)
        self._bar: Bar | None = None

    @contextmanager
    def shown(self) -> Iterator[Display]:
        """Until the block ends."""
        try:
            yield self
        finally:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def on_plan(self, jobs: int, pictures: int, left: int) -> None:
        """What is to be done."""
        super().on_plan(jobs, pictures, left)
        if left and in_notebook():
            self._bar = Bar(self.left, f"{counted(left, 'picture')} for {counted(jobs, 'job')}")

    def on_step(self, pictures: int, step: int, of: int) -> None:
        """Part of a batch."""
        super().on_step(pictures, step, of)
        if self._bar is not None:
            self._bar(self.drawn + pictures * step / of)

    def on_batch(self, pictures: int, rows: int, seconds: float) -> None:
        """A batch."""
        super().on_batch(pictures, rows, seconds)
        if self._bar is not None:
            self._bar(self.drawn)


# ── a grid ────────────────────────────────────────────────────────────────────────────────────────────────────────


def grid(
    cell: Cell,
    /,
    *,
    model: str | Source | Model = "emoji",
    folder: Path | str | None = None,
    store: Path | str | None = None,
    metrics: Metrics | None = None,
    tracker: Tracker | None = None,
    engine: Engine | Auto | None = None,
    at_once: int | None = None,
    **axes: Any,
) -> Sweep:
    """The pictures of a cell with every combination of some settings and seeds, as a sweep of its own; read it back.

    axes: settings of the cell by their names, each with a list of values (or an array of numbers): `weight=[0, 0.5, 1]`
    of an operator that has a weight, `prompt=[…]`, `scale=[2, 4]` of the guidance. A name that an operator and another
    part have is the operator's; where several have it otherwise, the part is named first: `interpolate__weight`,
    `guidance__scale`. `seed` is one, or a list. What is no list is set for all.

    It is planned, stored, scored and written as a sweep of the command line is, into `folder`, by default
    `multirun/DATE/TIME`; the same folder again makes what is missing and nothing else. `store`: a folder of finished
    pictures that sweeps share. Nothing is logged unless a tracker is given.

    Raises ConfigError for axes that the cell does not have, and what a job raises, before weights are read.

    >>> grid(Cell("a puppy"), colour=["red"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    embedlab.errors.ConfigError: nothing of this cell is called 'colour'; axes may be prompt, ...
    """
    check_kind(cell, Cell, "cell", "lab.Cell(PROMPT)")
    source = source_of(model)
    seeds = axes.pop("seed", axes.pop("seeds", 0))
    seeds = seeds_asked(list(seeds) if isinstance(seeds, range) else seeds)
    axes = {name: plain(one) for name, one in axes.items()}
    values = {name: list(one) if isinstance(one, list | tuple | range) else [one] for name, one in axes.items()}
    if empty := [name for name, one in values.items() if not one]:
        raise ConfigError(f"{empty[0]} has no values; an axis is a list of them.")
    places = {name: place_of(cell, name) for name in values}
    where = readers.path_of(folder, "folder").absolute() if folder is not None else fresh_folder()
    named = {name: ".".join(str(part) for part in places[name]) for name in values}
    jobs = []
    for number, chosen in enumerate(itertools.product(*values.values())):
        one = cell
        for name, value in zip(values, chosen, strict=True):
            one = with_setting(one, places[name], value)
        overrides = {named[name]: recipe(value) for name, value in zip(values, chosen, strict=True)}
        varied = [f"{named[n]}={v}" for n, v in zip(values, chosen, strict=True) if len(values[n]) > 1]
        jobs.append(
            Job(
                source,
                one,
                seeds,
                where / str(number),
                config_of(one, source, seeds, metrics or Metrics()),
                metrics or Metrics(),
                tracker or Silent(),
                engine or Eager(),
                ",".join(varied),
                where.name,
                at_once,
                number=number,
                overrides=overrides,
            )
        )
    return carried_out(where, jobs, store)


def carried_out(folder: Path, jobs: Sequence[Job], store: Path | str | None) -> Sweep:
    """Jobs checked, planned, run and written as a sweep of the command line."""
    for job in jobs:
        validate_job(job)
        check_engine(job)
        load_result(job)  # another result in its folder is not written over
    jobs, session = joined(jobs, {}, {}), Watched()
    with silence_libraries(), session, session.locked(folder):
        plan = Plan.of(jobs, [], store_of(None if store is None else str(store), folder))
        make_ready(jobs[0].tracker)
        make_folder(plan.store)
        planned = [PlannedJob(job.number, job.folder.name, job.key, job.title, job.overrides) for job in jobs]
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        write_plan(folder, SweepPlan((), os.getcwd(), started, versions(), tuple(planned)))
        for job in plan.left:
            prepare_folder(job)
        results: dict[int, Result] = plan.run(session)
        if not any(result.has_pictures for result in results.values()):
            raise ConfigError(f"nothing was generated: {session.failed[0][2] if session.failed else 'no job was done'}")
        write(folder, [results[number] for number in sorted(results)])
        write_times(folder, session.display.times, peak_memory())
        write_page(read(folder))
    return Sweep(folder)


def source_of(model: Any) -> Source:
    """Where a model is: a source, a name, or that which a loaded model was read from."""
    if isinstance(model, Model):
        if model.source is None:
            raise ConfigError(
                f"the model '{model.name}' was not read by lab.load; a sweep needs its name, or lab.Source."
            )
        return model.source  # type: ignore[no-any-return]
    check_kind(model, (str, Source), "model", "a name, lab.Source(NAME) or lab.load(NAME)")
    return Source(model) if isinstance(model, str) else model


def fresh_folder() -> Path:
    """A folder for a sweep, named by the time, as the command line does."""
    return (Path("multirun") / datetime.now().strftime("%Y-%m-%d/%H-%M-%S-%f")).absolute()


def config_of(cell: Cell, source: Source, seeds: Sequence[int], metrics: Metrics) -> dict[str, Any]:
    """What is written down of a job's settings, under the names of the command line."""
    slots = {slot: recipe(operator) for slot, operator in zip(slots_of(cell), cell.operators, strict=True)}
    parts = {name: recipe(getattr(cell, name)) for name in ("prompt", "prompt_2", "size", *PARTS)}
    return {**parts, "operators": slots, "model": recipe(source), "seeds": list(seeds), "metrics": recipe(metrics)}


# ── axes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def slots_of(cell: Cell) -> list[str]:
    """What each operator is called among the settings of a cell: its class in small letters, numbered where it is not
    the only one of its class.

    >>> from embedlab import Scale, Swap
    >>> slots_of(Cell("a puppy", [Scale("puppy", 2), Swap("puppy", "a"), Scale("a", 2)]))
    ['scale_1', 'swap', 'scale_2']
    """
    inner = [getattr(operator, "operator", operator) for operator in cell.operators]  # of a During
    names = [str(getattr(type(one), "__name__", "operator")).lower() for one in inner]
    return [name if names.count(name) == 1 else f"{name}_{names[: n + 1].count(name)}" for n, name in enumerate(names)]


def settings_in(cell: Cell) -> list[tuple[str | int, ...]]:
    """Where every setting of a cell is: its name, or the part and the name, or `operators`, the slot and the name."""
    found: list[tuple[str | int, ...]] = [("prompt",), ("prompt_2",), ("size",)]
    found += [(part, one.name) for part in PARTS for one in fields(getattr(cell, part))]
    for slot, operator in zip(slots_of(cell), cell.operators, strict=True):
        if is_dataclass(operator):
            found += [("operators", slot, one.name) for one in fields(operator)]
    return found


def place_of(cell: Cell, name: str) -> tuple[str | int, ...]:
    """Where the setting is that a name means; ConfigError where there is none, or several."""
    every = settings_in(cell)
    asked = tuple(name.replace(".", "__").split("__"))
    if (exact := next((one for one in every if one == asked), None)) is not None:
        return exact
    found = [one for one in every if one[-len(asked) :] == asked]
    edits = [one for one in found if one[0] == "operators"]  # what is edited comes first: it is what is swept mostly
    if len(edits) == 1:
        return edits[0]
    if len(found) == 1:
        return found[0]
    if found:
        ways = ["__".join(map(str, one[-2:])) for one in found]
        raise ConfigError(f"'{name}' may be {' or '.join(ways)}; name one of them.")
    known = list(dict.fromkeys(["prompt", "size", "seed", *(str(one[-1]) for one in every)]))
    raise ConfigError(f"nothing of this cell is called '{name}'; axes may be {listed(known, 12)}.")


def with_setting(cell: Cell, place: Sequence[str | int], value: Any) -> Cell:
    """A cell with another value at a place.

    >>> with_setting(Cell("a cat"), ("guidance", "scale"), 2.0).guidance.scale
    2.0
    """
    if len(place) == 1:
        return replace(cell, **{str(place[0]): value})
    if place[0] != "operators":
        part = replace(getattr(cell, str(place[0])), **{str(place[1]): value})
        return replace(cell, **{str(place[0]): part})
    number = slots_of(cell).index(str(place[1]))
    operators: list[Any] = list(cell.operators)
    operators[number] = replace(operators[number], **{str(place[2]): value})
    return replace(cell, operators=tuple(operators))
