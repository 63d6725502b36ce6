"""A config that was read back → its model and cell; nothing of it is instantiated before all of it was checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from embedlab.cell import Cell
from embedlab.errors import ConfigError, EmbedlabError
from embedlab.models import Source
from embedlab.sweep.cells import cell_of
from embedlab.sweep.config import part_of
from embedlab.sweep.roles import OF_EDITED, ROLES, SETTINGS
from embedlab.sweep.trust import TARGET, true_name

# what a config of 0.1 does not say
EARLIER = {
    "size": None,
    "prompt_2": None,
    "language": "plain",
    "weighting": "comfy++",
    "windows": "hard",
    "pooled": "first",
    "attention": {TARGET: "embedlab.attention.Attention"},
}
EARLIER_ENCODER = {"windows": "hard", "pooled": "first"}


def instantiate_checked(config: Any, trust: Sequence[str] = ()) -> tuple[Source, Cell]:
    """The model and the cell of a config that was read back."""
    clean = check_config(config, trust)
    try:
        return part_of(clean, "model"), cell_of(clean)
    except (HydraException, OmegaConfBaseException, TypeError, AttributeError) as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, EmbedlabError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise ConfigError(f"its config cannot be made: {' '.join(str(error).split())}") from None


def check_config(config: Any, trust: Sequence[str] = ()) -> DictConfig:
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
    clean = {**EARLIER, **clean}
    if isinstance(clean.get("encoder"), Mapping):
        clean["encoder"] = {**EARLIER_ENCODER, **clean["encoder"]}
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
