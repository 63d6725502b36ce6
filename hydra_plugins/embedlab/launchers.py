"""Hydra's launchers of embedlab; defined here because Hydra takes them from nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Batch(Launcher):
    """All jobs of a batch as one plan, in this process."""

    engine: Any = None  # of other machines: none
    gpus: float = 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from embedlab.cli.compose import check_shared, prepare
        from embedlab.cli.session import Session

        check_shared(config)
        self.config, self.session = config, Session.of(task_function)
        self.composer = prepare(hydra_context, config, self.session)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from embedlab.cli.progress import CHECKING, importing, stage
        from embedlab.cli.prompt_list import with_rows
        from embedlab.cli.values import check_batch

        job_overrides = [with_rows(overrides, self.session.rows) for overrides in job_overrides]
        check_batch(self.composer, self.config, job_overrides, initial_job_idx)  # at once; what follows imports torch
        if initial_job_idx == 0:
            stage(CHECKING)
        with importing():
            from embedlab.cli.launch import launch

        return launch(self.composer, self.config, job_overrides, initial_job_idx, self.session, self.engine, self.gpus)


class Ray(Batch):
    """The same plan, cut into chunks for the workers of a Ray cluster."""

    def __init__(self, **settings: Any):
        self.settings, self.gpus = settings, settings.get("gpus", 0)

    def engine(self, folder: Path) -> Any:
        from embedlab.workers.ray import Ray

        return Ray(**self.settings)


class Slurm(Batch):
    """The same plan, cut into chunks for the jobs of an array of Slurm."""

    def __init__(self, **settings: Any):
        self.settings, self.gpus = settings, settings.get("gpus", 0)

    def engine(self, folder: Path) -> Any:
        from embedlab.workers.slurm import Slurm

        return Slurm(folder / ".slurm", **self.settings)
