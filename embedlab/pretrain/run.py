"""The Hydra application behind `experiments/pretrain.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import hydra
import hydra.utils
import torch
from omegaconf import DictConfig, OmegaConf
from PIL.Image import Image

from embedlab.checks import true_or_false, whole_number
from embedlab.cli.messages import as_user_error
from embedlab.errors import ConfigError, listed
from embedlab.models import SHIPPED, pick_device
from embedlab.pretrain import drawings, quality, recipe, stages
from embedlab.sweep.config import conf_dir
from embedlab.tracker import Run

STAGES = ("data", "vae", "whole", "decoder", "clip", "vision", "unet", "export", "quality")


SECOND = ("drawings", "vae", "text", "judge", "latents", "decoder", "unet", "eye", "vision", "export", "quality")


def main() -> None:
    """The command; what the user can mend is one line and exit code 2."""
    with as_user_error():
        app()


@hydra.main(config_path=conf_dir(), config_name="pretrain", version_base="1.3")  # type: ignore[untyped-decorator]
def app(config: DictConfig) -> None:
    """Run the stages that were asked for, in the order of the recipe."""
    with as_user_error():
        work(config)


def work(config: DictConfig) -> None:
    """Check everything, then run stage by stage."""
    if config.edition not in (1, 2):
        raise ConfigError(f"edition is {config.edition!r}; it has to be 1 or 2.")
    known = STAGES if config.edition == 1 else SECOND
    if not OmegaConf.is_list(config.stages) or not config.stages:
        raise ConfigError(f"stages is {config.stages!r}; it has to be a list, such as {known[1:3]}: {listed(known)}.")
    if unknown := [str(stage) for stage in config.stages if stage not in known]:
        raise ConfigError(f"there is no stage {listed(unknown)}; choose from {listed(known)}.")
    true_or_false(config.warm_start, "warm_start", ConfigError)
    if config.threads is not None:
        torch.set_num_threads(whole_number(config.threads, "threads", ConfigError, least=1))
    if config.edition == 2:
        second(config)
        return
    folder, target = Path(config.folder), Path(config.export_to)
    device = pick_device(config.device)
    trained = [stage for stage in STAGES if stage in config.stages and stage not in ("data", "export", "quality")]
    trainings = {stage: hydra.utils.instantiate(config[stage], _convert_="all") for stage in trained}
    if "data" not in config.stages and (trained or "export" in config.stages) and not stages.has_data(folder):
        raise ConfigError(f"there is no data in '{folder}'; run the stage data first.")
    folder.mkdir(parents=True, exist_ok=True)
    if config.warm_start and not (folder / "start").exists():
        stages.adopt(SHIPPED["emoji"], folder)
    tracker = hydra.utils.instantiate(config.tracker, _convert_="all")
    settings: Any = OmegaConf.to_container(config, resolve=True)
    for stage in (s for s in STAGES if s in config.stages):
        if stage == "data":
            stages.data(folder, **config.data)
            stages.tokenizer(folder)
        elif stage == "export":
            stages.export(folder, target)
        elif stage == "quality":
            print(quality.report(quality.measure(str(target), folder)))
        else:
            with tracker.run(f"pretrain {stage}", folder / stage, settings[stage], "pretrain") as run:
                train: Any = {"clip": stages.clip, "vision": stages.clip, "unet": stages.unet}.get(stage, stages.vae)
                more = {} if stage == "unet" else {"stage": stage}
                train(folder, trainings[stage], partial(_log, run), partial(_show, run), device, **more)


def second(config: DictConfig) -> None:
    """The stages of the second edition."""
    if not isinstance(config.workers, int) or config.workers < 0:
        raise ConfigError(f"workers is {config.workers!r}; it has to be a whole number, 0 or more.")
    folder, target, device = Path(config.folder), Path(config.export_to), pick_device(config.device)
    trainings = {
        stage: hydra.utils.instantiate(config[stage], _convert_="all")
        for stage in recipe.TRAINED
        if stage in config.stages
    }
    folder.mkdir(parents=True, exist_ok=True)
    tracker = hydra.utils.instantiate(config.tracker, _convert_="all")
    settings: Any = OmegaConf.to_container(config, resolve=True)
    for stage in (s for s in SECOND if s in config.stages):
        if stage == "drawings":
            drawings.fetch(folder / "sprites")
            stages.tokenizer(folder)
        elif stage == "latents":
            recipe.latents(folder, config.scenes, device, config.workers)
        elif stage == "export":
            recipe.export(folder, target, read=min(20_000, config.scenes), calibrate=min(1000, config.scenes))
        elif stage == "quality":
            print(quality.table([quality.column(name, folder) for name in (str(target), "emoji")]))
        else:
            with tracker.run(f"pretrain {stage}", folder / stage, settings[stage], "pretrain") as run:
                recipe.TRAINED[stage](
                    folder, trainings[stage], partial(_log, run), partial(_show, run), device, config.workers
                )


def _log(run: Run, figures: dict[str, float], step: int) -> None:
    run.scores(figures, step)
    if worth := {key: value for key, value in figures.items() if key not in ("loss", "error", "samples_per_second")}:
        print(f"  step {step}: " + ", ".join(f"{key} {value:.3f}" for key, value in worth.items()))


def _show(run: Run, name: str, sheet: Image, step: int) -> None:
    run.pictures(name, [(sheet, f"step {step}")], step)
