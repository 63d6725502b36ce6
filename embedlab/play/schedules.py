"""Settings that change over time, as a page and YAML say them → schedules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from embedlab.errors import OperatorError, brief, listed
from embedlab.schedule import Alternate, During, Ramp, Switch

KINDS = {kind.__name__: kind for kind in (Ramp, Switch, Alternate)}
HOMES = ("embedlab.schedule.", "embedlab.")
DURING = "during"  # what a page calls the part of the steps in which an edit works


def made(value: Any) -> Any:
    """A setting in which each mapping with a `_target_` has become the schedule that it names.

    Nothing else is made by its name: OperatorError for what is no schedule, ConfigError for one that is wrong.

    >>> made({"_target_": "embedlab.schedule.Ramp", "values": [0, 1]}), made([{"word": "a", "nth": 2}])
    (Ramp(values=(0, 1)), [{'word': 'a', 'nth': 2}])
    """
    if isinstance(value, list):
        return [made(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    settings = {key: made(one) for key, one in value.items() if key != "_target_"}
    if "_target_" not in value:
        return settings
    target = str(value["_target_"])
    kind = next((kind for name, kind in KINDS.items() if target in [f"{home}{name}" for home in HOMES]), None)
    if kind is None:
        known = listed(HOMES[0] + name for name in KINDS)
        raise OperatorError(f"{brief(target)} is no setting that changes over time; these are {known}.")
    fields = dataclasses.fields(kind)
    names = [field.name for field in fields]
    if strange := [key for key in settings if key not in names]:
        raise OperatorError(f"a {kind.__name__} has no {brief(strange[0])}; it has {listed(names)}.")
    if gone := [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in settings]:
        raise OperatorError(f"a {kind.__name__} needs {listed(gone)}.")
    return kind(**settings)


def lasting(operator: Any, during: Any) -> Any:
    """An operator that works in a part of the steps, which `{begin: …, end: …, clock: …}` says; None is all of them.

    Raises OperatorError or ConfigError for what is no part.

    >>> from embedlab import Scale
    >>> str(lasting(Scale("cat", 2), {"begin": 0.5})), str(lasting(Scale("cat", 2), None))
    ('cat × 2 from 0.5', 'cat × 2')
    """
    if during is None:
        return operator
    if not isinstance(during, Mapping) or (strange := [key for key in during if key not in ("begin", "end", "clock")]):
        came = brief(during if not isinstance(during, Mapping) else strange[0])
        raise OperatorError(f"{DURING} is {came}; it says from when to when an edit works: begin, end and clock.")
    return During(operator, **during)
