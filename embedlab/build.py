"""A composed config → the values that it names. Every part is a callable's keyword list."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import hydra.utils
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from embedlab.experiment import Cell

PARTS = ("model", "operators", "encoder", "guidance", "sampler", "start", "metrics", "tracker")
SETTINGS = (*PARTS, "prompt", "seeds", "size", "at_once", "store", "objective", "export", "explain", "group")


def part_of(config: DictConfig, name: str) -> Any:
    """One part of a config, made; None where it is left out."""
    return None if config.get(name) is None else hydra.utils.instantiate(config[name], _convert_="all")


def cell_of(config: DictConfig) -> Cell:
    """The cell that a config describes."""
    from embedlab.experiment import Cell

    return Cell(
        prompt=part_of(config, "prompt") if OmegaConf.is_dict(config.prompt) else config.prompt,
        operators=tuple((part_of(config, "operators") or {}).values()),
        encoder=part_of(config, "encoder"),
        guidance=part_of(config, "guidance"),
        sampler=part_of(config, "sampler"),
        start=part_of(config, "start"),
        size=tuple(config.size) if OmegaConf.is_list(config.size) else config.size,
    )


def redact(value: Any) -> Any:
    """A config fit to be logged: values taken from secrets of the environment are blanked.

    >>> os.environ["A_KEY"] = "s3cret-value"
    >>> redact({"a": "s3cret-value", "b": [1]})
    {'a': '***', 'b': [1]}
    """
    secrets = [
        text
        for name, text in os.environ.items()
        if len(text) > 7 and any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET", "PASSWORD"))
    ]

    def blank(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: blank(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [blank(inner) for inner in value]
        if isinstance(value, str):
            for secret in secrets:
                value = value.replace(secret, "***")
        return value

    return blank(value)
