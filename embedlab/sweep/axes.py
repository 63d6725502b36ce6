"""What varies in a sweep: its axes, the values on them, and how both are called."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from embedlab.errors import ConfigError, listed
from embedlab.sweep.result import Result

VAGUE = ("rows", "by", "to", "at")  # names of settings that say nothing alone


def axes(results: Sequence[Result]) -> dict[str, list[Any]]:
    """What varies in a sweep and the values it takes: settings by the key they were set with, then the seed.

    >>> axes([Result("done", overrides={"guidance.scale": scale, "sampler.steps": 9}) for scale in (1, 4)])
    {'guidance.scale': [1, 4]}
    """
    keys = list(dict.fromkeys(key for result in results for key in result.overrides if key != "seeds"))
    found: dict[str, list[Any]] = {}
    for key in keys:
        values: list[Any] = []
        for result in results:
            value = result.overrides.get(key)
            if value not in values:
                values.append(value)
        if len(values) > 1:
            found[key] = values
    seeds = list(dict.fromkeys(row.seed for result in results for row in result.pictures))
    if len(seeds) > 1:
        found["seed"] = seeds
    return found


def values_of(results: Sequence[Result]) -> dict[str, list[Any]]:
    """What varies in a sweep, and the seed also where there is only one."""
    seeds = dict.fromkeys(row.seed for result in results for row in result.pictures)
    return {**{k: v for k, v in axes(results).items() if k != "seed"}, "seed": list(seeds)}


def apart(results: Sequence[Result]) -> dict[str, list[Any]]:
    """The axes that tell pictures apart: what follows from the name or the prompt that a list gives is none.

    >>> rows = [{"prompt": "a cat", "size": 64}, {"prompt": "a dog", "size": 96}]
    >>> list(apart([Result("done", overrides={**row, "guidance.scale": n}) for row in rows for n in (1, 2)]))
    ['prompt', 'guidance.scale']
    """
    found = axes(results)
    first = next((key for key in ("name", "prompt") if key in found), "seed")
    for key in [key for key in found if first != "seed" and key not in (first, "seed")]:
        pairs = {json.dumps([one.overrides.get(first), one.overrides.get(key)], default=str) for one in results}
        if len(pairs) == len(found[first]):
            del found[key]
    return found


def seed_groups(results: Sequence[Result]) -> list[int]:
    """A number for each job, the same one where jobs differ in nothing but their seeds."""
    varied = [key for key in axes(results) if key != "seed"]
    known: dict[str, list[tuple[int, set[int]]]] = {}
    numbers: list[int] = []
    for result in results:
        settings = json.dumps([result.overrides.get(key) for key in varied], default=str)
        seeds = {row.seed for row in result.pictures}
        same = known.setdefault(settings, [])
        fits = next((one for one in same if not one[1] & seeds), None)
        if fits is None:
            same.append(fits := (len({*numbers}), set()))
        fits[1].update(seeds)
        numbers.append(fits[0])
    return numbers


def find_axis(name: str, keys: Mapping[str, Any]) -> str:
    """The key that a name stands for: itself, or the only one that ends with it.

    >>> find_axis("weight", {"operators.interpolate.weight": [0, 1], "seed": [3]})
    'operators.interpolate.weight'
    """
    if name in keys:
        return name
    found = [key for key in keys if key.endswith(f".{name}")]
    if len(found) > 1:
        raise ConfigError(f"'{name}' may be {' or '.join(found)}; name one of them.")
    if not found:
        raise ConfigError(f"there is no axis '{name}'; there are {listed(keys)}.")
    return found[0]


def short_names(keys: Mapping[str, Any]) -> dict[str, str]:
    """Each key by as few of its last parts as tell it apart, and say what it is: `swap.rows` is no row of a grid.

    >>> short_names({"operators.add.weight": 0, "operators.shift.weight": 0, "operators.shift.by": 0})
    {'operators.add.weight': 'add.weight', 'operators.shift.weight': 'shift.weight', 'operators.shift.by': 'shift.by'}
    """
    answer = {}
    for key in keys:
        parts = key.split(".")
        fewest = 2 if parts[-1] in VAGUE else 1
        tails = (".".join(parts[-n:]) for n in range(fewest, len(parts) + 1))
        answer[key] = next(
            (tail for tail in tails if sum(other == tail or other.endswith(f".{tail}") for other in keys) == 1), key
        )
    return answer


def format_value(value: Any, typed: bool = False) -> str:
    """A value as a label says it, or as it is `typed`: then 1 is 1.0, and "true" what Hydra reads as that.

    >>> format_value(["replace", "shift"]), format_value(["replace", "shift"], typed=True), format_value(None)
    ('replace, shift', '[replace, shift]', '–')
    >>> format_value(1.0), format_value(1.0, typed=True), format_value(True, typed=True)
    ('1.0', '1', 'true')
    >>> format_value({"_target_": "embedlab.schedule.Ramp", "values": [0, 1]})
    '{Ramp, values: [0, 1]}'
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str | int | float) for one in value):
        items = ", ".join(format_value(one, typed) for one in value)
        return f"[{items}]" if typed else items or "none"
    if isinstance(value, list | Mapping):
        return short(json.dumps(value, ensure_ascii=False, default=str).replace('"', ""))
    if typed and isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, default=str) if typed else str(value)


def short(value: str) -> str:
    """A value without the path of its class.

    >>> short("{_target_: embedlab.schedule.Ramp, values: [8, 1]}")
    '{Ramp, values: [8, 1]}'
    """
    return re.sub(r"_target_:\s*(?:\w+\.)*(\w+)", r"\1", value)
