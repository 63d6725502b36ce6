"""MLflow as a tracker."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from PIL import Image

from embedlab.clean import redact
from embedlab.errors import ConfigError, listed
from embedlab.tracker.chart import chart
from embedlab.tracker.protocol import JOB, About, Run, Summary, flat, need, own_id, safe

FOLDER, BASE = "mlflow", "mlflow.db"
OWNER = "embedlab.id"  # the tag by which a run is found again
LONGEST = 6000  # letters of a parameter


@dataclass(frozen=True)
class MLflow:
    """MLflow; left to itself a base of SQLite in the folder `mlflow` of the sweep, else the server that `uri` names.

    `mlflow ui --backend-store-uri sqlite:///SWEEP/mlflow/mlflow.db` shows the former; the page is of the whole MLflow,
    which the extra does not bring. It opens with what is for language models; the runs are at "Model training".
    """

    project: str = "embedlab"
    uri: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.project, str) or not self.project.strip():
            raise ConfigError(f"tracker.project is {self.project!r}; it has to be the name of an experiment of MLflow.")
        if not isinstance(self.uri, str | None):
            raise ConfigError(f"tracker.uri is {self.uri!r}; it has to be the address of a server, or null for none.")

    def ready(self) -> None:
        """Its packages have to be there."""
        for package in ("mlflow", "sqlalchemy", "alembic", "pandas"):
            need(package, "tracker=mlflow", "mlflow")

    @contextmanager
    def run(
        self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None, about: About = JOB
    ) -> Iterator[Run]:
        self.ready()
        with quiet():
            home = (about.home or folder).absolute() / FOLDER
            client, experiment = self._opened(home)
            parent = None
            if about.kind == "job" and about.home is not None:  # the run of the sweep, which is told of itself last
                parent = _run_of(client, experiment, own_id(about.home), f"sweep {group}").info.run_id
            params = {param(key): text(value) for key, value in flat(config).items()}
            found = _run_of(client, experiment, own_id(folder), name, params)
            run = _MLflowRun(client, found)
            for key, value in tags(name, group, about, parent).items():
                client.set_tag(run.id, key, value)
            known = found.data.params
            run.parameters({key: value for key, value in params.items() if key not in known})
            try:
                yield run
            except BaseException:
                client.set_terminated(run.id, "FAILED")
                raise
            run.conclude()
            client.set_terminated(run.id)

    def look(self, folder: Path) -> str:
        """How to open its page."""
        store = self.uri or f"sqlite:///{folder.absolute() / FOLDER / BASE}"
        return f"Its MLflow, at Model training: mlflow ui --backend-store-uri {shlex.quote(store)}"

    def _opened(self, home: Path) -> tuple[Any, str]:
        """A client, and the id of the experiment of our project, made where it is not there."""
        from mlflow.tracking import MlflowClient

        if self.uri is None:
            if wrong := sorted({*str(home)} & {*"?#%"}):
                raise ConfigError(
                    f"tracker=mlflow keeps its base at an address, which '{home}' cannot be part of: name the sweep's "
                    f"folder without {listed(wrong)}."
                )
            home.mkdir(parents=True, exist_ok=True)
        client = MlflowClient(tracking_uri=self.uri or f"sqlite:///{home / BASE}")
        project = redact(self.project)
        known = client.get_experiment_by_name(project)
        if known is not None:
            return client, known.experiment_id
        place = None if self.uri else (home / "artifacts").as_uri()
        return client, client.create_experiment(project, artifact_location=place)


def _run_of(client: Any, experiment: str, owner: str, name: str, params: Mapping[str, str] | None = None) -> Any:
    """An owner's run, made where it is not there; anew where its settings are others, which MLflow never changes."""
    for run in client.search_runs([experiment], f"tags.`{OWNER}` = '{owner}'"):
        known = run.data.params
        if params is None or all(known.get(key, value) == value for key, value in params.items()):
            return run
        client.delete_run(run.info.run_id)
    return client.create_run(experiment, run_name=name, tags={OWNER: owner})


def tags(name: str, group: str | None, about: About, parent: str | None) -> dict[str, str]:
    """What MLflow shows beside a run's parameters."""
    own = {"mlflow.runName": name, "mlflow.note.content": about.notes, "mlflow.parentRunId": parent}
    own |= {"kind": about.kind, "group": group, "tags": ", ".join(about.tags)}
    return {key: value for key, value in own.items() if value}


class _MLflowRun:
    def __init__(self, client: Any, run: Any):
        self.client = client
        self.id = run.info.run_id
        self.summary = Summary()
        place = urlsplit(run.info.artifact_uri)
        if place.scheme == "file":  # what an earlier try left
            shutil.rmtree(url2pathname(place.path), ignore_errors=True)

    def parameters(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        items = [Param(key, value) for key, value in values.items()]
        for n in range(0, len(items), 100):  # as many as it takes at once
            self.client.log_batch(self.id, params=items[n : n + 100])

    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.summary.add(values, step)
        if step is not None:
            self._metrics(values, step)

    def _metrics(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        items = [Metric(param(key), float(value), now, step) for key, value in values.items()]
        for n in range(0, len(items), 1000):
            self.client.log_batch(self.id, metrics=items[n : n + 1000])

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        for n, (picture, caption) in enumerate(pictures):
            at = "" if step is None else f"{step}-"
            self.client.log_image(self.id, picture, artifact_file=f"{param(key)}/{at}{n}-{safe(caption)}.png")

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        blank = Image.new("RGB", (8, 8), "white")
        data: dict[str, list[Any]] = {}
        for n, column in enumerate(columns):
            cells = [row[n] for row in rows]
            if any(isinstance(cell, Image.Image) for cell in cells):  # all of a column, or none
                cells = [cell if isinstance(cell, Image.Image) else blank for cell in cells]
            data[column] = cells
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas, which MLflow calls as before its third version
            self.client.log_table(self.id, data, artifact_file=f"{param(key)}.json")

    def curves(self, key: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> None:
        if all(float(x).is_integer() for x in at):  # its charts are over whole steps
            for n, x in enumerate(at):
                there = {f"{key}/{name}": values[n] for name, values in lines.items()}
                self._metrics({name: y for name, y in there.items() if y is not None}, int(x))
        else:
            self.client.log_image(self.id, chart(key, axis, at, lines), artifact_file=f"curves/{safe(key)}.png")

    def file(self, name: str, path: Path) -> None:
        self.client.log_artifact(self.id, str(path), safe(name))

    def conclude(self) -> None:
        """The scores, one number each."""
        self._metrics(self.summary.numbers, 0)


def param(key: str) -> str:
    """A name as MLflow takes it.

    >>> param("closest/a cat, red (1)")
    'closest/a cat_ red _1_'
    """
    return re.sub(r"[^/\w.\- :]", "_", key)[:250]


def text(value: Any) -> str:
    """A value as MLflow keeps it: a text, and not too long a one."""
    said = str(value)
    return said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}…"


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is told of bases that are made, nor to anybody who counts users."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    before = [one.level for one in loggers]
    import mlflow  # noqa: F401  (which sets its levels when it is imported)

    for one in loggers:
        one.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)
