"""A composed config → the values that it names. Every part is a callable's keyword list."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra.utils
from omegaconf import DictConfig, OmegaConf

from embedlab.files import write

if TYPE_CHECKING:
    from embedlab.experiment import Cell

PARTS = ("model", "operators", "encoder", "guidance", "sampler", "start", "metrics", "tracker")
SETTINGS = (*PARTS, "prompt", "seeds", "size", "at_once", "store", "objective", "export", "explain", "group")


def part_of(config: DictConfig, name: str) -> Any:
    """One part of a config, made; None where it is left out."""
    return None if config.get(name) is None else hydra.utils.instantiate(config[name], _convert_="all")


class Maker:
    """Makes parts, each distinct one once: the jobs of a sweep share their model, and most of the rest."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}

    def __call__(self, config: DictConfig, name: str) -> Any:
        """As `part_of`."""
        if config.get(name) is None:
            return None
        key = json.dumps([name, OmegaConf.to_container(config[name], resolve=True)], default=repr)
        if key not in self.made:
            self.made[key] = part_of(config, name)
        return self.made[key]


def cell_of(config: DictConfig, make: Callable[[DictConfig, str], Any] = part_of) -> Cell:
    """The cell that a config describes."""
    from embedlab.experiment import Cell

    return Cell(
        prompt=make(config, "prompt") if OmegaConf.is_dict(config.prompt) else config.prompt,
        operators=tuple((make(config, "operators") or {}).values()),
        encoder=make(config, "encoder"),
        guidance=make(config, "guidance"),
        sampler=make(config, "sampler"),
        start=make(config, "start"),
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


def redact_files(files: Iterable[Path]) -> None:
    """The same in text files that others wrote, such as Hydra."""
    for file in files:
        if (blanked := redact(text := file.read_text(encoding="utf-8"))) != text:
            write(file, blanked.encode())
