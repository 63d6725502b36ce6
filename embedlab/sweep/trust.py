"""The `_target_` of a config that was read back names code, and a picture or a result can come from anyone.

It has to be one of embedlab's own values, or to come from a package that the user trusts by name.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from types import FunctionType, ModuleType
from typing import Any

import embedlab
from embedlab.errors import ConfigError, public_name

TARGET = "_target_"
OTHER_NAMES = {  # other names of values
    "embedlab.sweep.Apart": "embedlab.sweep.results.ScoreGap",
    "embedlab.models.find": "embedlab.Source",
    "embedlab.models.source.find": "embedlab.Source",
}


def is_own_value(found: Any) -> bool:
    """Whether something is a value of embedlab: a frozen dataclass, of which making one does nothing but check it."""
    if not isinstance(found, type) or not dataclasses.is_dataclass(found):
        return False
    public = not found.__name__.startswith("_") and found.__qualname__ == found.__name__
    return public and within(found.__module__, "embedlab") and found.__dataclass_params__.frozen  # type: ignore[attr-defined]


def true_name(target: Any, trust: Sequence[str] = (), where: str = TARGET) -> str:
    """The true name of what a `_target_` is found to be, if that is ours or from a trusted package.

    >>> true_name("embedlab.operators.Replace")
    'embedlab.Replace'
    >>> true_name("embedlab.models.os.system")
    Traceback (most recent call last):
    ...
    embedlab.errors.ConfigError: _target_ of its config names 'embedlab.models.os.system', which is none of embedlab's.
    """
    package = str(target).partition(".")[0]
    none_of_ours = f"{where} of its config names {target!r}, which is none of embedlab's"
    elsewhere = not isinstance(target, str) or package != "embedlab"
    if elsewhere and package.isidentifier() and package not in sys.modules and find_spec(package) is None:
        raise ConfigError(f"{none_of_ours}, and there is no package '{package}' here.")
    if elsewhere and not (isinstance(target, str) and any(within(target, trusted) for trusted in trust)):
        may = package.isidentifier() and package not in sys.stdlib_module_names
        hint = f"; if you trust '{package}', say so: --trust {package}" if may else ""
        raise ConfigError(f"{none_of_ours}{hint}.")
    found = resolve_name(target)
    if is_own_value(found):
        name = public_name(found)
        return name if found.__name__ in embedlab.__all__ else f"{found.__module__}.{found.__qualname__}"
    home = found.__module__ if isinstance(found, type | FunctionType) else ""
    if any(within(str(home), package) for package in trust):
        name = f"{home}.{found.__qualname__}"
        if resolve_name(name) is found:
            return name
    raise ConfigError(f"{none_of_ours}.")


def within(name: str, package: str) -> bool:
    """Whether a dotted name is a package or lies in it."""
    return name == package or name.startswith(f"{package}.")


def resolve_name(target: str) -> Any:
    """What a dotted name of embedlab or of a trusted package stands for, imported; None where nothing does.

    A public name of embedlab is found wherever it stood in the version that wrote it down.

    >>> resolve_name("embedlab.experiment.Metrics") is resolve_name("embedlab.Metrics")
    True
    """
    parts = OTHER_NAMES.get(target, target).split(".")
    if not all(part.isidentifier() and not part.startswith("__") for part in parts):
        return None
    if parts[0] == "embedlab" and parts[-1] in embedlab.__all__:
        return getattr(embedlab, parts[-1])
    found, depth = None, 0
    for n in range(1, len(parts) + 1):
        name = ".".join(parts[:n])
        if name not in sys.modules:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                if error.name is not None and within(name, error.name):
                    break
                raise ConfigError(f"'{name}' cannot be imported: {error}.") from None
        if name not in sys.modules:
            break
        found, depth = sys.modules[name], n
    for part in parts[depth:]:
        # the modules that ours import are theirs
        if isinstance(found, ModuleType) and not within(found.__name__, parts[0]):
            return None
        found = getattr(found, part, None)
    return found
