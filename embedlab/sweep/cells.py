"""A composed config → the cell that it describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embedlab.attention import Attention
from embedlab.cell import Cell
from embedlab.sweep.config import complete, part_of


def cell_of(config: DictConfig, make: Callable[[DictConfig, str], Any] = part_of) -> Cell:
    """The cell that a config describes."""
    config = complete(config)
    second = config.get("prompt_2")
    return Cell(
        prompt=make(config, "prompt") if OmegaConf.is_dict(config.prompt) else config.prompt,
        operators=tuple((make(config, "operators") or {}).values()),
        encoder=make(config, "encoder"),
        guidance=make(config, "guidance"),
        sampler=make(config, "sampler"),
        start=make(config, "start"),
        prompt_2=make(config, "prompt_2") if OmegaConf.is_dict(second) else second,
        attention=make(config, "attention") or Attention(),
        size=tuple(config.size) if OmegaConf.is_list(config.size) else config.size,
    )
