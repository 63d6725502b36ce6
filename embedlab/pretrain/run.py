"""The Hydra application behind `experiments/pretrain.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import hydra
import hydra.utils
from omegaconf import DictConfig, OmegaConf
from PIL.Image import Image

from embedlab.app import conf_dir
from embedlab.errors import ConfigError, listed
from embedlab.tracker import Run

STAGES = ("data", "vae", "whole", "decoder", "clip", "vision", "unet", "export", "quality")


@hydra.main(config_path=conf_dir(), config_name="pretrain", version_base="1.3")
def main(config: DictConfig) -> None:
    """Run the stages that were asked for, in the order of the recipe."""
    if unknown := set(config.stages) - set(STAGES):
        raise ConfigError(f"there is no stage {listed(sorted(unknown))}; choose from {listed(STAGES)}.")
    import torch

    from embedlab.models import SHIPPED, pick_device
    from embedlab.pretrain import quality, stages

    if config.threads:
        torch.set_num_threads(config.threads)
    folder, target = Path(config.folder), Path(config.export_to)
    folder.mkdir(parents=True, exist_ok=True)
    device = pick_device(config.device)
    if config.warm_start and not (folder / "start").exists():
        stages.adopt(SHIPPED["emoji"], folder)
    tracker = hydra.utils.instantiate(config.tracker, _convert_="all")
    plain: Any = OmegaConf.to_container(config, resolve=True)
    for stage in (s for s in STAGES if s in config.stages):
        if stage == "data":
            stages.data(folder, **config.data)
            stages.tokenizer(folder)
        elif stage == "export":
            stages.export(folder, target)
        elif stage == "quality":
            print(quality.report(quality.measure(str(target), folder)))
        else:
            with tracker.run(f"pretrain {stage}", folder / stage, plain[stage], "pretrain") as run:
                schedule = hydra.utils.instantiate(config[stage], _convert_="all")
                train, more = {
                    **{name: (stages.vae, {"stage": name}) for name in stages.VAE_STAGES},
                    **{name: (stages.clip, {"stage": name}) for name in ("clip", "vision")},
                    "unet": (stages.unet, {}),
                }[stage]
                train(folder, schedule, partial(_log, run), partial(_show, run), device, **more)


def _log(run: Run, figures: dict[str, float], step: int) -> None:
    run.scores(figures, step)
    if worth := {key: value for key, value in figures.items() if key not in ("loss", "error", "samples_per_second")}:
        print(f"  step {step}: " + ", ".join(f"{key} {value:.3f}" for key, value in worth.items()))


def _show(run: Run, name: str, sheet: Image, step: int) -> None:
    run.pictures(name, [(sheet, f"step {step}")], step)
