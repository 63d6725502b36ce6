"""Values that cannot be, refused before torch is loaded, by the checks that the parts make of themselves (`limits`)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embedlab.limits import check_settings
from embedlab.schedule import Alternate, Ramp, Switch, varies
from embedlab.selector import Rows

LIGHT = {f"embedlab.{kind.__name__}": kind for kind in (Alternate, Ramp, Switch, Rows)}  # made without torch


def check_values(config: DictConfig) -> None:
    """Raise what is wrong with the values of a config; what takes a model, or code of others, its parts raise."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    for part in ("model", "prompt", "operators", "encoder", "guidance", "sampler", "start", "metrics"):
        checked(values.get(part))
    check_settings("embedlab.Job", {str(key): value for key, value in values.items()})


def checked(value: Any) -> Any:
    """A value of a config: schedules and selectors as what they are, other parts as their settings, checked.

    >>> checked({"_target_": "embedlab.operators.Scale", "rows": "cat", "by": "twice"})
    Traceback (most recent call last):
    ...
    embedlab.errors.OperatorError: by is 'twice'; it has to be a finite number.
    """
    if isinstance(value, list):
        return [checked(one) for one in value]
    if not isinstance(value, dict):
        return value
    settings = {key: checked(one) for key, one in value.items()}
    target = settings.pop("_target_", None)
    if not isinstance(target, str) or not target.startswith("embedlab."):
        return value
    name = f"embedlab.{target.rpartition('.')[2]}".replace("embedlab.find", "embedlab.Source")  # find gives one
    if name in LIGHT:
        with suppress(TypeError):  # a setting that it has not: told with its place where it is made
            return LIGHT[name](**settings)
    elif not any("_target_" in one for one in settings.values() if isinstance(one, dict)) and not varies(settings):
        check_settings(name, settings)
    return value
