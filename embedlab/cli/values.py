"""Values that cannot be, refused before torch is loaded, by the checks that the parts make of themselves (`limits`)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from embedlab.cli.compose import Composer, job_names, refuse, set_hydra_node, unused
from embedlab.cli.messages import unknown_key, user_message
from embedlab.cli.session import rollback
from embedlab.errors import (
    ConfigError,
    LanguageError,
    ModelError,
    OperatorError,
    PictureError,
    PromptError,
    SamplerError,
)
from embedlab.limits import FIXED, check_settings
from embedlab.schedule import Alternate, Ramp, Switch, varies
from embedlab.selector import Rows
from embedlab.sweep.config import complete

LIGHT = {f"embedlab.{kind.__name__}": kind for kind in (Alternate, Ramp, Switch, Rows)}  # made without torch


def check_values(config: DictConfig) -> None:
    """Raise what is wrong with the values of a config; what takes a model, or code of others, its parts raise."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    if own := unused(config):
        raise ConfigError(unknown_key(own[0]))
    for part in ("model", "prompt", "operators", "encoder", "guidance", "sampler", "start", "attention", "metrics"):
        checked(values.get(part), part)
    for whole in ("embedlab.Cell", "embedlab.Job"):
        check_settings(whole, {str(key): value for key, value in values.items()})


def check_batch(composer: Composer, master: DictConfig, job_overrides: Sequence[Sequence[str]], first: int) -> None:
    """Refuse a batch of a sweep of which every job has a value that cannot be, a line for each, with exit code 2.

    The first job that is right ends the search: what is wrong with others is told later, with all else that is wrong.
    """
    names, hydra_config = job_names(job_overrides, first), HydraConfig.instance()
    before, wrong = hydra_config.cfg, dict[str, list[str]]()
    with rollback(Path(master.hydra.sweep.dir).absolute(), composer.multirun):
        try:
            for number, overrides in enumerate(job_overrides, first):
                try:
                    config, whole = composer(master, overrides)
                    hydra_config.cfg = whole
                    set_hydra_node(whole, composer, overrides, number)
                    check_values(complete(config))
                except Exception as error:
                    if (line := user_message(error)) is None:
                        raise
                    wrong.setdefault(line, []).append(names[number])
                else:
                    return
        finally:
            hydra_config.cfg = before
        if wrong:
            refuse(wrong, len(job_overrides))


def checked(value: Any, place: str = "") -> Any:
    """A value of a config at its key: schedules and selectors as what they are, other parts as their settings, checked.

    >>> checked({"_target_": "embedlab.operators.Scale", "rows": "cat", "by": "twice"}, "operators.louder")
    Traceback (most recent call last):
    ...
    embedlab.errors.OperatorError: operators.louder.by is 'twice'; it has to be a finite number.
    """
    if isinstance(value, list):
        return [checked(one, place) for one in value]
    if not isinstance(value, dict):
        return value
    settings = {key: checked(one, f"{place}.{key}") for key, one in value.items()}
    try:
        return made(value, settings)
    except (PromptError, OperatorError, ModelError, SamplerError, PictureError, ConfigError) as error:
        text, (top, _, inner) = str(error), place.partition(".")
        if isinstance(error, LanguageError) or not inner or f"{top}." in text:
            raise
        name = text.partition(" ")[0]
        raise type(error)(f"{place}.{text}" if name in settings else f"{place}: {text}") from error


def made(value: dict[str, Any], settings: dict[str, Any]) -> Any:
    """A mapping whose values are checked, as what it names, where that takes no torch; as it is otherwise."""
    target = settings.pop("_target_", None)
    if not isinstance(target, str) or not target.startswith("embedlab."):
        return value
    name = f"embedlab.{target.rpartition('.')[2]}".replace("embedlab.find", "embedlab.Source")  # find gives one
    if name in LIGHT:
        with suppress(TypeError):  # a setting that it has not: told with its place where it is made
            return LIGHT[name](**settings)
    elif not any("_target_" in one for one in settings.values() if isinstance(one, dict)) and (
        name in FIXED or not varies(settings)
    ):
        check_settings(name, settings)
    return value
