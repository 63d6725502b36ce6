"""Configs that were read back: what of them may be instantiated.

The `_target_` of a config names code, and a picture or a result can come from anyone. Nothing of such a config is
instantiated before each `_target_` in it was looked up and found to be one of embedlab's own values, or to come from a
package that the user trusts by name.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import embedlab
from embedlab.errors import ConfigError, EmbedlabError, public_name
from embedlab.sweep.config import cell_of, conf_dir, part_of
from embedlab.sweep.roles import OF_EDITED, ROLES, SETTINGS

if TYPE_CHECKING:
    from embedlab.cell import Cell
    from embedlab.models import Source

TARGET = "_target_"
OLD = {"embedlab.sweep.Apart": "embedlab.sweep.results.ScoreGap"}  # 0.1's name of what is no public name


def ours(found: Any) -> bool:
    """Whether something is what a config of embedlab may name: a value (a frozen dataclass: making it does nothing but
    check its settings), or `find`, which says where a model is.
    """
    from embedlab.models import find  # noqa: PLC0415  the command line answers before torch is loaded

    if found is find:
        return True
    if not isinstance(found, type) or not dataclasses.is_dataclass(found):
        return False
    public = not found.__name__.startswith("_") and found.__qualname__ == found.__name__
    return public and within(found.__module__, "embedlab") and found.__dataclass_params__.frozen  # type: ignore[attr-defined]


def checked(config: Any, trust: Sequence[str] = ()) -> DictConfig:
    """A resolved config that was read back, fit to be made; ConfigError for anything in it that could do harm.

    Each `_target_` is replaced by the true name of what it was found to be. Only the settings of embedlab are kept.
    """
    if not isinstance(config, Mapping):
        raise ConfigError("its config is no mapping.")
    try:
        clean = _clean({key: value for key, value in config.items() if key in SETTINGS}, trust, "")
        for key in config.keys() - set(SETTINGS):
            _clean(config[key], trust, str(key))
    except RecursionError:
        raise ConfigError("its config is nested too deeply.") from None
    clean = {"size": None, **clean}
    for key in OF_EDITED:
        if key not in clean:
            raise ConfigError(f"its config has no {key}.")
        if ROLES[key].part == "one" and not (isinstance(clean[key], Mapping) and TARGET in clean[key]):
            raise ConfigError(f"{key} of its config does not say what it is: it has no {TARGET}.")
    if clean["model"].get("allow_pickle") not in (None, False):
        raise ConfigError("its model.allow_pickle is set; a pickle is read only where you ask for it yourself.")
    if not isinstance(clean["operators"], Mapping) and clean["operators"]:
        raise ConfigError("operators of its config is no mapping.")
    return OmegaConf.create(clean)


def _clean(value: Any, trust: Sequence[str], where: str) -> Any:
    if isinstance(value, Mapping):
        answer: dict[Any, Any] = {}
        for key, inner in value.items():
            place = f"{where}.{key}".lstrip(".")
            if "${" in str(key):
                raise ConfigError(f"{place} of its config is an interpolation; a config that is read back has none.")
            if key == TARGET:
                answer[key] = true_name(inner, trust, place)
            elif str(key).startswith("_"):
                raise ConfigError(f"{place} of its config is refused: beside {TARGET}, no key begins with '_'.")
            else:
                # JSON has no whole numbers as keys, and encoder.skip needs them
                answer[int(key) if re.fullmatch("[0-9]{1,4}", str(key)) else key] = _clean(inner, trust, place)
        return answer
    if isinstance(value, list | tuple):
        return [_clean(inner, trust, f"{where}[{n}]") for n, inner in enumerate(value)]
    if isinstance(value, str):
        if "${" in value:
            raise ConfigError(f"{where} of its config is an interpolation; a config that is read back has none.")
        if "***" in value:
            raise ConfigError(f"{where} of its config is blanked ('***'): a secret was there, and is not known here.")
        if value == "???":
            raise ConfigError(f"{where} of its config is '???', which is no value.")
    return value


# what of Hydra's own a command that is read back may set: nothing that names code, a file to be read, or a machine
HYDRA = (
    *("hydra.mode", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.launcher.workers", "hydra.launcher.cpus"),
    *("hydra.launcher.gpus", "hydra.launcher.pictures", "hydra.launcher.memory", "hydra.launcher.minutes"),
    *(
        "hydra.launcher.partition",
        "hydra.launcher.interval",
        "hydra.sweeper.max_batch_size",
        "hydra.sweeper.params",
        "hydra.sweeper.n_trials",
    ),
    *("hydra.sweeper.n_jobs", "hydra.sweeper.direction", "hydra.sweeper.study_name", "hydra.sweeper.max_failure_rate"),
    *("hydra.sweeper.search_space", "hydra.sweeper.sampler.seed", "hydra.sweeper.sampler.n_startup_trials"),
)
CHOICES = {
    "hydra/launcher": ("batch", "ray", "slurm", "basic"),
    "hydra/sweeper": ("basic", "optuna"),
    "hydra/sweeper/sampler": ("tpe", "random", "cmaes", "grid", "motpe", "nsgaii"),
}


def check_command(words: Sequence[str], origin: str, trust: Sequence[str] = ()) -> None:
    """Refuse a command that was read back and holds what embedlab would not have to write down: it may be anyone's.

    It may set embedlab's own settings, with values of embedlab's or of a trusted package in them, and those few of
    Hydra's that choose how a sweep is carried out.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: PLC0415  a grammar that is slow to load

    way = "read it, and give the command yourself, with hydra.sweep.dir=SWEEP, where that is what you want"
    parser = OverridesParser.create()
    for word in words:
        if word in ("-m", "--multirun"):
            continue
        shown = f"'{word:.200}' in the command of '{origin}'"
        if word.startswith("-"):
            raise ConfigError(f"{shown} is a flag; {way}.")
        try:
            override = parser.parse_override(word)
            value = override.value()
        except (HydraException, OmegaConfBaseException):
            raise ConfigError(f"{shown} is not in Hydra's syntax; {way}.") from None
        key = override.key_or_group
        if override.package is not None:
            raise ConfigError(f"{shown} puts a group somewhere else; {way}.")
        chosen = CHOICES.get(key)
        if "/" in key or within(key, "hydra"):
            if chosen is not None and all(one in chosen for one in _texts(value)):
                continue
            if not any(within(key, one) for one in HYDRA):
                raise ConfigError(f"{shown} changes how Hydra works; {way}.")
        try:
            if not override.is_delete():
                _check_value({key.rpartition(".")[2]: value}, trust, key)
            for part in key.split(".")[:-1]:
                if part.startswith("_"):
                    raise ConfigError(f"{key} is refused: no key begins with '_'.")
            if "." not in key and any("/" in one or "\\" in one for one in _texts(value)) and _is_group(key):
                raise ConfigError(f"{key} chooses a file from elsewhere")
        except ConfigError as error:
            reason = str(error).replace("--trust ", "trust=").replace(" of its config", "").rstrip(".")
            raise ConfigError(f"{shown} is refused: {reason}; {way}.") from None


def _is_group(key: str) -> bool:
    return Path(conf_dir(), key.lstrip("+~")).is_dir()


def _texts(value: Any) -> list[str]:
    """All texts in a value of an override; a sweep holds several values."""
    if isinstance(value, Mapping):
        return [text for pair in value.items() for one in pair for text in _texts(one)]
    if isinstance(value, list | tuple):
        return [text for one in value for text in _texts(one)]
    return _texts(value.list) if isinstance(value, ChoiceSweep) else [str(getattr(value, "text", value))]


def _check_value(value: Any, trust: Sequence[str], where: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == TARGET:
                for target in _texts(inner):
                    true_name(target, trust, where)
            elif str(key).startswith("_"):
                raise ConfigError(f"{where} is refused: beside {TARGET}, no key begins with '_'.")
            elif key == "allow_pickle" and {text.lower() for text in _texts(inner)} - {"false", "none", "null"}:
                raise ConfigError("a pickle is read only where you ask for it yourself.")
            else:
                _check_value(inner, trust, where)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_value(inner, trust, where)
    elif isinstance(value, ChoiceSweep):
        _check_value(value.list, trust, where)
    elif any(re.search(r"\$\{[^}]*:", text) for text in _texts(value)):
        raise ConfigError(f"{where} is refused: an interpolation that is read back names a setting, and calls nothing.")


def true_name(target: Any, trust: Sequence[str] = (), where: str = TARGET) -> str:
    """The true name of what a `_target_` is found to be, if that is ours or from a trusted package.

    >>> true_name("embedlab.operators.Replace")
    'embedlab.Replace'
    >>> true_name("embedlab.models.os.system")
    Traceback (most recent call last):
    ...
    embedlab.errors.ConfigError: _target_ of its config names 'embedlab.models.os.system', which is none of embedlab's.
    """
    mine = isinstance(target, str) and within(target, "embedlab")
    if not mine and not (isinstance(target, str) and any(within(target, package) for package in trust)):
        package = str(target).partition(".")[0]
        may = package.isidentifier() and package not in sys.stdlib_module_names and not mine
        hint = f"; if you trust '{package}', say so: --trust {package}" if may else ""
        raise ConfigError(f"{where} of its config names {target!r}, which is none of embedlab's{hint}.")
    found = resolve_name(target)
    if ours(found):
        name = public_name(found)
        return name if found.__name__ in embedlab.__all__ else f"{found.__module__}.{found.__qualname__}"
    home = found.__module__ if isinstance(found, type | FunctionType) else ""
    if any(within(str(home), package) for package in trust):
        name = f"{home}.{found.__qualname__}"
        if resolve_name(name) is found:
            return name
    package = str(target).partition(".")[0]
    if package not in sys.modules and find_spec(package) is None:
        raise ConfigError(f"{where} of its config names {target!r}, and there is no package '{package}' here.")
    raise ConfigError(f"{where} of its config names {target!r}, which is none of embedlab's.")


def within(name: str, package: str) -> bool:
    """Whether a dotted name is a package or lies in it."""
    return name == package or name.startswith(f"{package}.")


def resolve_name(target: str) -> Any:
    """What a dotted name of embedlab or of a trusted package stands for, imported; None where nothing does.

    A public name of embedlab is found wherever it stood in the version that wrote it down.

    >>> resolve_name("embedlab.experiment.Metrics") is resolve_name("embedlab.Metrics")
    True
    """
    parts = OLD.get(target, target).split(".")
    if not all(part.isidentifier() and not part.startswith("__") for part in parts):
        return None
    if parts[0] == "embedlab" and parts[-1] in embedlab.__all__:
        return getattr(embedlab, parts[-1])
    found, taken = None, 0
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
        found, taken = sys.modules[name], n
    for part in parts[taken:]:
        # the modules that ours import are theirs
        if isinstance(found, ModuleType) and not within(found.__name__, parts[0]):
            return None
        found = getattr(found, part, None)
    return found


def instantiate_checked(config: Any, trust: Sequence[str] = ()) -> tuple[Source, Cell]:
    """The model and the cell of a config that was read back."""
    clean = checked(config, trust)
    try:
        return part_of(clean, "model"), cell_of(clean)
    except (HydraException, OmegaConfBaseException, TypeError, AttributeError) as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, EmbedlabError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise ConfigError(f"its config cannot be made: {' '.join(str(error).split())}") from None
