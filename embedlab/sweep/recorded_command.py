"""A command line that was read back, such as that of a sweep to be resumed: what of it may be run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from embedlab.errors import ConfigError
from embedlab.sweep.config import conf_dir
from embedlab.sweep.trust import TARGET, true_name, within

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
    way = "read it, and give the command yourself, with hydra.sweep.dir=SWEEP, where that is what you want"
    parser = OverridesParser.create()
    for word in words:
        if word in ("-m", "--multirun"):
            continue
        quoted = f"'{word:.200}' in the command of '{origin}'"
        if word.startswith("-"):
            raise ConfigError(f"{quoted} is a flag; {way}.")
        try:
            override = parser.parse_override(word)
            value = override.value()
        except (HydraException, OmegaConfBaseException):
            raise ConfigError(f"{quoted} is not in Hydra's syntax; {way}.") from None
        key = override.key_or_group
        if override.package is not None:
            raise ConfigError(f"{quoted} puts a group somewhere else; {way}.")
        chosen = CHOICES.get(key)
        if "/" in key or within(key, "hydra"):
            if chosen is not None and all(one in chosen for one in _texts(value)):
                continue
            if not any(within(key, one) for one in HYDRA):
                raise ConfigError(f"{quoted} changes how Hydra works; {way}.")
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
            raise ConfigError(f"{quoted} is refused: {reason}; {way}.") from None


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
