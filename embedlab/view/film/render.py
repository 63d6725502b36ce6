"""Tracks → films: the pictures of a sweep and those rendered in between, and how far apart they look."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from embedlab import images, readers
from embedlab.cell import Cell
from embedlab.engines import as_recorded
from embedlab.errors import ConfigError, EmbedlabError, PictureError
from embedlab.metrics.clip_score import image_features
from embedlab.models import Model, Source
from embedlab.rendering import render
from embedlab.sweep.recorded_config import instantiate_checked
from embedlab.validate import validate
from embedlab.view.film.pace import chord_lengths, even_values, evenness, paced
from embedlab.view.film.tracks import Track, Tracks, check_alone, with_setting
from embedlab.view.metadata import read_metadata
from embedlab.view.replay import locate_start

Frame = tuple[Image.Image, ...]  # a picture of each track


@dataclass(frozen=True)
class Film:
    """A film before it is written: values of the setting, a frame for each, and the distances between neighbours."""

    weights: tuple[float, ...]
    frames: tuple[Frame, ...]
    steps: tuple[float, ...] = ()  # 1 - cosine of the image features of neighbours, mean of the tracks

    @property
    def evenness(self) -> float:
        """The largest step over the mean step: 1 where all are equal."""
        return evenness(self.steps)

    @property
    def length(self) -> float:
        """The length of the path, in chords of unit vectors."""
        return float(chord_lengths(self.steps).sum())

    def as_dict(self) -> dict[str, Any]:
        """What `film.json` says of it."""
        k = int(np.argmax(self.steps))
        return {
            "weights": list(self.weights),
            "steps": [round(step, 6) for step in self.steps],
            "max_over_mean": round(self.evenness, 3),
            "path_length": round(self.length, 4),
            "largest_step": {"from": self.weights[k], "to": self.weights[k + 1], "size": round(self.steps[k], 6)},
        }

    def __str__(self) -> str:
        largest = self.as_dict()["largest_step"]
        return (
            f"{len(self.weights)} frames, path {self.length:.2f}; the largest step is {self.evenness:.1f} × the mean, "
            f"{largest['size']:.3f} from {largest['from']:.4g} to {largest['to']:.4g}"
        )


def render_films(
    tracks: Tracks,
    frames: int | None = None,
    pace: str = "weight",
    trust: Sequence[str] = (),
    on_step: Callable[[int], None] | None = None,
) -> dict[str, Film]:
    """The films of some tracks, by their pace.

    Without `frames`, one of the sweep's own pictures; with, so many in constant steps of the setting, those in between
    rendered. `pace="perceptual"` adds a film whose steps look equally large, and measures both. `trust` names packages
    whose operators may run, and `on_step` is called at each UNet call. Raises ConfigError where pictures in between
    would not belong to the axis.
    """
    if pace not in ("weight", "perceptual"):
        raise ConfigError(f"the pace is {pace!r}; it has to be weight or perceptual.")
    if frames is None and pace == "perceptual":
        raise ConfigError("a film of equal perceptual steps needs a number of frames, such as 25.")
    renderer = Renderer(tracks, trust, on_step)
    if frames is None:
        return {"weight": renderer.film(tracks.values, measured=False)}
    check_alone(tracks)
    if pace == "perceptual":
        constant, perceptual = paced(renderer, frames)
        return {"weight": renderer.film(constant), "perceptual": renderer.film(perceptual)}
    return {"weight": renderer.film(even_values(tracks.values[0], tracks.values[-1], frames), measured=False)}


def film_of_steps(tracks: Tracks) -> Film:
    """The film of tracks that are whole as they are: of the kept steps."""
    pictures = (tuple(open_picture(track.files[value]) for track in tracks.tracks) for value in tracks.values)
    return Film(tuple(tracks.values), tuple(pictures))


class Renderer:
    """Renders and measures frames along an axis, each once; those of the sweep's pictures are there from the start."""

    def __init__(self, tracks: Tracks, trust: Sequence[str] = (), on_step: Callable[[int], None] | None = None):
        self.tracks, self.trust, self.on_step = tracks, trust, on_step
        self.frames: dict[float, Frame] = {
            value: tuple(open_picture(track.files[value]) for track in tracks.tracks) for value in tracks.values
        }
        self._features: dict[float, Tensor] = {}
        self._models: dict[Source, Model] = {}

    @property
    def values(self) -> list[float]:
        """The values of the setting that have a frame, rising."""
        return sorted(self.frames)

    def render(self, values: Sequence[float]) -> None:
        """Render the frames of values that have none yet."""
        new = [value for value in dict.fromkeys(values) if value not in self.frames]
        rendered: dict[tuple[float, int], Image.Image] = {}
        for numbers in self._same_but_for_seeds() if new else ():
            seeds = [self.tracks.tracks[n].seed for n in numbers]
            config = located_config(self.tracks.tracks[numbers[0]])
            cells: dict[Source, list[tuple[float, Cell]]] = {}
            for value in new:
                source, cell = instantiate_checked(
                    with_setting(config, self.tracks.key, plain_number(value)), self.trust
                )
                cells.setdefault(source, []).append((value, cell))
            for source, pairs in cells.items():
                validate(pairs[0][1], source)
                done = render(self._model(source), [cell for _, cell in pairs], seeds, on_step=self.on_step)
                for (value, _), one in zip(pairs, done, strict=True):
                    rendered |= {(value, n): p for n, p in zip(numbers, images.to_pil(one.pictures), strict=True)}
        for value in new:
            self.frames[value] = tuple(rendered[value, n] for n in range(len(self.tracks.tracks)))

    def _model(self, source: Source) -> Model:
        """The model, run by the engine that the sweep's first picture names."""
        if source not in self._models:
            try:
                runtime = read_metadata(self.tracks.tracks[0].files[self.tracks.values[0]]).runtime
            except PictureError:
                runtime = {}
            self._models[source] = as_recorded(source.load(), runtime.get("engine", "eager"))
        return self._models[source]

    def _same_but_for_seeds(self) -> list[list[int]]:
        """The numbers of tracks by what they have in common beside the axis: their seeds share a call."""
        groups: dict[str, list[int]] = {}
        for n, track in enumerate(self.tracks.tracks):
            config = with_setting(track.config, self.tracks.key, None)
            groups.setdefault(json.dumps(config, sort_keys=True, default=str), []).append(n)
        return list(groups.values())

    def measure(self, values: Sequence[float]) -> tuple[float, ...]:
        """1 - cosine of the image features between neighbours, mean of the tracks."""
        source, _ = instantiate_checked(located_config(self.tracks.tracks[0]), self.trust)
        scorer = source.load().scorer
        if scorer is None:
            raise ConfigError(f"'{source.name}' has no image encoder to see with; set model.scorer in the sweep.")
        with torch.inference_mode():
            for value in values:
                if value not in self._features:
                    pictures = torch.stack([images.to_tensor(picture) for picture in self.frames[value]])
                    self._features[value] = image_features(scorer, pictures)
        cosines = [(self._features[a] * self._features[b]).sum(-1).mean() for a, b in pairwise(values)]
        return tuple(max(0.0, 1 - float(cosine)) for cosine in cosines)

    def film(self, values: Sequence[float], measured: bool = True) -> Film:
        """The film whose frames stand at some values of the setting."""
        self.render(values)
        steps = self.measure(values) if measured else ()
        return Film(tuple(values), tuple(self.frames[value] for value in values), steps)


def located_config(track: Track) -> dict[str, Any]:
    """The config of a track, with the start picture where that is found from here."""
    config: dict[str, Any] = locate_start(track.config, track.start, next(iter(track.files.values())))
    return config


def plain_number(value: float) -> int | float:
    """A number as a config says it: whole ones without a point."""
    return int(value) if float(value).is_integer() else float(value)


def open_picture(path: Path) -> Image.Image:
    """A picture of the sweep."""
    try:
        return readers.open_picture(path).convert("RGB")
    except EmbedlabError as error:
        raise ConfigError(f"{error} embedlab -m resume=SWEEP makes lost ones again.") from None
