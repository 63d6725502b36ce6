"""The Hydra application behind `experiments/pretrain.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import hydra.utils
import torch
from omegaconf import DictConfig, OmegaConf
from PIL.Image import Image
from torch import nn

from embedlab.checks import whole_number
from embedlab.cli.messages import as_user_error
from embedlab.errors import ConfigError, listed
from embedlab.models import find, pick_device
from embedlab.pretrain import (
    autoencoder,
    drawings,
    export,
    eye,
    image_encoder,
    quality,
    text_encoder,
    unet,
    vocabulary,
)
from embedlab.sweep.config import conf_dir
from embedlab.tracker import About, Run
from embedlab.tracker.protocol import run_of

STAGES = ("drawings", "vae", "text", "judge", "latents", "decoder", "unet", "eye", "vision", "export", "quality")
TRAINED: Mapping[str, Callable[..., nn.Module]] = {
    "vae": autoencoder.vae,
    "decoder": autoencoder.decoder,
    "text": text_encoder.text,
    "judge": partial(eye.detector, stage="judge"),
    "unet": unet.unet,
    "eye": partial(eye.detector, stage="eye"),
    "vision": image_encoder.vision,
}


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
    if not OmegaConf.is_list(config.stages) or not config.stages:
        raise ConfigError(f"stages is {config.stages!r}; it has to be a list, such as {STAGES[1:3]}: {listed(STAGES)}.")
    if unknown := [str(stage) for stage in config.stages if stage not in STAGES]:
        raise ConfigError(f"there is no stage {listed(unknown)}; choose from {listed(STAGES)}.")
    for name, least in (("scenes", 1), ("workers", 0)):
        whole_number(config[name], name, ConfigError, least=least)
    if config.threads is not None:
        torch.set_num_threads(whole_number(config.threads, "threads", ConfigError, least=1))
    start = None if config.warm_start is None else begun_at(config.warm_start)
    folder, target, device = Path(config.folder), Path(config.export_to), pick_device(config.device)
    trainings = {
        stage: hydra.utils.instantiate(config[stage], _convert_="all") for stage in TRAINED if stage in config.stages
    }
    folder.mkdir(parents=True, exist_ok=True)
    if start is not None and not (folder / "start").exists():
        export.adopt(start, folder)
    tracker = hydra.utils.instantiate(config.tracker, _convert_="all")
    settings: Any = OmegaConf.to_container(config, resolve=True)
    for stage in (s for s in STAGES if s in config.stages):
        if stage == "drawings":
            drawings.fetch(folder / "sprites")
            vocabulary.tokenizer(folder)
        elif stage == "latents":
            autoencoder.latents(folder, config.scenes, device, config.workers)
        elif stage == "export":
            export.export(folder, target, read=min(20_000, config.scenes), calibrate=min(1000, config.scenes))
        elif stage == "quality":
            columns = [quality.column(str(target), folder, out=folder / "quality.json")]
            print(f"{quality.table(columns)}\n\n{quality.agreement_table(columns)}")
        else:
            about = About("train", tags=(stage,))
            with run_of(tracker, f"pretrain {stage}", folder / stage, settings[stage], "pretrain", about) as run:
                TRAINED[stage](
                    folder, trainings[stage], partial(_log, run), partial(_show, run), device, config.workers
                )


def begun_at(name: Any) -> Path:
    """The folder of a model that stages may begin at."""
    place = find(name).location if isinstance(name, str) else None
    if not isinstance(place, Path) or not place.is_dir():
        raise ConfigError(f"warm_start is {name!r}; it has to be a model's folder or name, such as emoji.")
    return place


def _log(run: Run, figures: dict[str, float], step: int) -> None:
    run.scores(figures, step)
    if worth := {key: value for key, value in figures.items() if key not in ("loss", "error", "samples_per_second")}:
        print(f"  step {step}: " + ", ".join(f"{key} {value:.3f}" for key, value in worth.items()))


def _show(run: Run, name: str, sheet: Image, step: int) -> None:
    run.pictures(name, [(sheet, f"step {step}")], step)
