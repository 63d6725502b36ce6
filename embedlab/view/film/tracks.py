"""A sweep → the tracks of a film: the pictures of one seed and one combination of the other settings, along an axis."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedlab.checks import is_number
from embedlab.errors import ConfigError, listed
from embedlab.sweep.axes import find_axis, format_value, short_names, values_of
from embedlab.sweep.labels import labels
from embedlab.sweep.result import FILE, Result, read_result
from embedlab.sweep.roles import OF_EDITED
from embedlab.view.layout import axes_of, results_of

MOST = 24  # pictures in a frame


@dataclass(frozen=True)
class Track:
    """One seed, and one combination of the other settings: files and configs by the axis' value."""

    label: str
    seed: int
    files: dict[float, Path]
    configs: dict[float, Mapping[str, Any]]
    start: Any = None  # what the first result records of its start picture

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of its first picture."""
        return next(iter(self.configs.values()))


@dataclass(frozen=True)
class Tracks:
    """What a film shows side by side, and the axis that it runs along."""

    key: str
    tracks: tuple[Track, ...]
    left_out: tuple[float, ...] = ()  # values at which a track has no picture

    @property
    def name(self) -> str:
        """The last part of the axis' key."""
        return self.key.rsplit(".", maxsplit=1)[-1]

    @property
    def values(self) -> list[float]:
        """The values of the axis at which every track has a picture, rising."""
        return sorted(set.intersection(*(set(track.files) for track in self.tracks)))


def read_tracks(folder: Path, along: str | None = None, seed: int | str | None = None) -> Tracks:
    """The tracks of a finished sweep.

    `along` is the key of the axis, or its last part; left out, the only axis of numbers. `seed` is one seed (left out,
    the sweep's first), or "all", a track each. Raises ConfigError where the sweep makes no film.
    """
    results = results_of(folder)
    return tracks_along(results, axis_along(results, along), seed)


def read_step_tracks(folder: Path, kind: str = "x0", seed: int | str | None = None) -> Tracks:
    """The kept steps of a job, or of all jobs of a sweep, as tracks: the axis is the step, -1 what comes before it.

    `kind` is x0 or latents, `seed` as of `read_tracks`. Raises ConfigError where no steps were kept.
    """
    results = [read_result(folder)] if (folder / FILE).is_file() else results_of(folder)
    seeds = list(dict.fromkeys(row.seed for result in results for row in result.pictures))
    if isinstance(seed, int) and seed not in seeds:
        raise ConfigError(f"this sweep has no seed {seed}; it has {listed(seeds)}.")
    tracks = []
    for result, label in zip(results, labels(results), strict=True):
        for one in seeds if seed == "all" else [seeds[0] if seed is None else seed]:
            steps = {-1: "start", **{int(n): f"step-{n}" for n in kept_numbers(result.folder)}}
            files = {float(n): result.folder / f"steps/{name}-seed-{one}-{kind}.png" for n, name in steps.items()}
            there = {n: file for n, file in files.items() if file.is_file()}
            if there:
                tracks.append(Track(f"{label}, seed {one}", int(one), there, {}))
    found = Tracks("step", tuple(tracks))
    if not tracks or len(found.values) < 2:
        raise ConfigError(f"fewer than two steps of {kind} were kept in '{folder}'; keep some: sampler.keep='every 1'.")
    if len(tracks) > MOST:
        raise ConfigError(
            f"a frame would hold {len(tracks)} pictures, and {MOST} is the most; film one seed: --seed N."
        )
    return found


def kept_numbers(folder: Path) -> list[str]:
    """The numbers of the steps that a job kept."""
    names = (re.fullmatch(r"step-(\d{1,4})-seed-\d+-\w+\.png", path.name) for path in folder.glob("steps/*.png"))
    return sorted({match[1] for match in names if match}, key=int)


def axis_along(results: Sequence[Result], name: str | None = None) -> str:
    """The key of the axis that a film runs along: the one named, or the only one of numbers."""
    values = {key: v for key, v in values_of(results).items() if key != "seed"}
    if name is not None:
        key = find_axis(name, values)
        if not all(map(is_number, values[key])):
            raise ConfigError(f"a film runs along numbers; {key} is {listed(map(format_value, values[key]))}.")
        return key
    found = [key for key in values if all(map(is_number, values[key]))]
    if not found:
        raise ConfigError(f"no setting of this sweep takes several numbers; its axes are {listed(axes_of(results))}.")
    if len(found) > 1:
        raise ConfigError(f"{listed(found)} take several numbers; choose: --along {short_names(values)[found[0]]}.")
    return found[0]


def tracks_along(results: Sequence[Result], key: str, seed: int | str | None = None) -> Tracks:
    """The pictures of a sweep along an axis, for one seed (its first) or "all", and each combination of the others."""
    values = values_of(results)
    seeds: list[Any] = values["seed"] if seed == "all" else [values["seed"][0] if seed is None else seed]
    if unknown := [one for one in seeds if one not in values["seed"]]:
        raise ConfigError(f"this sweep has no seed {unknown[0]}; it has {listed(values['seed'])}.")
    others = [other for other in values if other not in (key, "seed")]
    names = short_names(values)
    found: dict[str, Track] = {}
    for result in results:
        combination = [f"{names[other]} {format_value(result.overrides.get(other))}" for other in others]
        files = {row.seed: result.folder / row.shown for row in result.pictures if row.shown}
        for one in (one for one in seeds if one in files):
            label = ", ".join([*combination, f"seed {one}"])
            track = found.setdefault(label, Track(label, one, {}, {}, result.start))
            track.files[float(result.overrides[key])] = files[one]
            track.configs[float(result.overrides[key])] = result.config or {}
    if not found:
        raise ConfigError(f"no picture of seed {listed(seeds)} is there.")
    if len(found) > MOST:
        raise ConfigError(f"a frame would hold {len(found)} pictures, and {MOST} is the most; film one seed: --seed N.")
    tracks = Tracks(key, tuple(found.values()))
    if len(tracks.values) < 2:
        raise ConfigError(
            f"a film needs pictures at two values of the setting or more; there are {len(tracks.values)}."
        )
    return replace(tracks, left_out=tuple(sorted({float(value) for value in values[key]} - set(tracks.values))))


def with_setting(config: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A config with another value of one setting."""
    changed = copy.deepcopy(dict(config))
    part: Any = changed
    *outer, last = key.lstrip("+").split(".")
    for name in outer:
        part = part.get(name) if isinstance(part, dict) else None
    if not isinstance(part, dict) or last not in part:
        raise ConfigError(f"the sweep's configs have no {key}, so that nothing between its pictures can be rendered.")
    part[last] = value
    return changed


def check_alone(tracks: Tracks) -> None:
    """Refuse an axis that changes more than its own setting: pictures in between would not belong to it."""
    for track in tracks.tracks:
        for value, config in track.configs.items():
            expected = with_setting(track.config, tracks.key, value)
            if changed := [part for part in OF_EDITED if expected.get(part) != config.get(part)]:
                raise ConfigError(
                    f"{tracks.key}={value:g} changes {listed(changed)} elsewhere, too; no picture between is known."
                )
