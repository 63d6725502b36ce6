"""A detector from the folder `eye` of a model: `config.json` and `model.safetensors`."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from embedlab.checks import is_number, is_whole
from embedlab.detector.network import Detector, Scale, Vocabulary
from embedlab.errors import ModelError, first_line, listed
from embedlab.models import single_file

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SCALE = tuple(one.name for one in fields(Scale))


@lru_cache(maxsize=4)
def vocabulary_of(folder: Path) -> Vocabulary:
    """What a detector can tell, by its small file alone; ModelError where that does not fit."""
    return _vocabulary(folder / CONFIG, single_file.read_json(folder / CONFIG))


def _vocabulary(path: Path, config: dict[str, Any]) -> Vocabulary:
    def texts(value: Any, what: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
            raise ModelError(f"'{path}' says {what} {repr(value)[:60]}; it has to be a list of words.")
        return tuple(value)

    kinds = config.get("kinds", {})
    if not isinstance(kinds, dict):
        raise ModelError(f"'{path}' says kinds {repr(kinds)[:60]}; it has to be lists of words by name.")
    words, colours, grounds = (texts(config.get(what), what) for what in ("words", "colours", "grounds"))
    return Vocabulary(words, colours, grounds, {kind: texts(value, f"kinds.{kind}") for kind, value in kinds.items()})


@lru_cache(maxsize=2)
def read_detector(folder: Path, device: torch.device) -> Detector:
    """The detector of a folder, in float32; the last two that were read are kept.

    Raises ModelError for what is missing or does not fit.
    """
    path, config = folder / CONFIG, single_file.read_json(folder / CONFIG)
    side, widths, scale = config.get("side"), config.get("widths"), config.get("scale", {})
    if not is_whole(side) or not 16 <= side <= 1024:
        raise ModelError(f"'{path}' says side {repr(side)[:60]}; it has to be a whole number from 16 to 1024.")
    if not isinstance(widths, list) or len(widths) < 3 or not all(is_whole(w) and 8 <= w <= 1024 for w in widths):
        raise ModelError(f"'{path}' says widths {repr(widths)[:60]}; it has to be three numbers or more, of 8 to 1024.")
    if not isinstance(scale, dict) or not all(key in SCALE and is_number(one) for key, one in scale.items()):
        raise ModelError(f"'{path}' says scale {repr(scale)[:60]}; it has to be numbers for {listed(SCALE)}.")
    single_file.check_regular(folder)
    try:
        detector = Detector(
            side, widths, _vocabulary(path, config), Scale(**{key: float(one) for key, one in scale.items()})
        )
        state = load_file(folder / WEIGHTS)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"the detector in '{folder}' cannot be read: {first_line(error)}") from None
    own = detector.state_dict()
    if lacking := sorted(own.keys() - state.keys()):
        raise ModelError(f"the detector in '{folder}' lacks {len(lacking)} weights: {listed(lacking, 3)}.")
    if other := [key for key in own if own[key].shape != state[key].shape]:
        here, there = tuple(state[other[0]].shape), tuple(own[other[0]].shape)
        raise ModelError(f"the detector in '{folder}' has {other[0]} of {here} where its config asks for {there}.")
    detector.load_state_dict({key: state[key].float() for key in own})
    return detector.to(device).eval().requires_grad_(False)
