"""Make a picture again from its own metadata, and compare the two."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from embedlab import images
from embedlab.cell import Cell, picture_size
from embedlab.condition import condition_calls
from embedlab.engines import as_recorded
from embedlab.errors import ConfigError, EmbedlabError, ModelError, PictureError
from embedlab.guidance import Shared
from embedlab.limits import check_concepts, check_seeds, found, found_file
from embedlab.models import Source
from embedlab.models.concept_files import file_of
from embedlab.models.concepts import content_of_entry, entries_of, parted
from embedlab.rendering import copies, sample_batch
from embedlab.sampler.handed_in import handed_in
from embedlab.sampler.start import HANDED_IN
from embedlab.samples import Request, RowsByCall
from embedlab.sweep.identity import files_of, versions
from embedlab.sweep.recorded_config import instantiate_checked
from embedlab.validate import validate
from embedlab.view.metadata import Metadata, read_metadata, short_texts


@dataclass(frozen=True)
class Replay:
    """A picture made again, and how it compares with the first.

    `largest_difference` is of one colour of a pixel, from 0 to 255. `runtime_changes` are what differs of what the bits
    depend on beside versions, as (then, now); None where the picture does not say. `other_model` says whether the files
    of the model are others than those that made it.

    >>> print(Replay(None, 100, 2, 1, {}, {}, {"threads": ("2", "1")}))
    the same but for rounding (at most 1 of 255), made with 2 threads, this is 1; 2 of 100 pixels differ
    """

    picture: Image.Image
    pixels: int
    different_pixels: int
    largest_difference: int
    versions_then: dict[str, str]
    versions_now: dict[str, str]
    runtime_changes: Mapping[str, tuple[str, str]] | None = field(default_factory=dict)
    other_model: bool = False

    @property
    def identical(self) -> bool:
        """Whether the two are equal, bit for bit."""
        return not self.different_pixels

    @property
    def only_rounded(self) -> bool:
        """Whether they differ by rounding alone: by 1 at the most, and made where sums may come in another order."""
        elsewhere = bool(self.runtime_changes) and not self._changed_versions and not self.other_model
        return not self.identical and self.largest_difference == 1 and elsewhere

    @property
    def _changed_versions(self) -> list[str]:
        now = self.versions_now
        return [name for name in now if self.versions_then.get(name, now[name]) != now[name]]

    def __str__(self) -> str:
        if self.identical:
            return "the same, bit for bit"
        changes = self.runtime_changes or {}
        if self.only_rounded:
            then = ", ".join(format_entry(name, value) for name, (value, _) in changes.items())
            now = ", ".join(value for _, value in changes.values())
            return (
                f"the same but for rounding (at most 1 of 255), made with {then}, this is {now}; "
                f"{self.different_pixels} of {self.pixels} pixels differ"
            )
        if self.other_model:
            why = "the model's files are others than those that made it"
        elif changed := self._changed_versions:
            then = ", ".join(f"{name} {self.versions_then[name]}" for name in changed)
            why = f"made with {then}, this is {', '.join(f'{name} {self.versions_now[name]}' for name in changed)}"
        else:
            why = "made with the same versions"
            if changes:
                why += " but " + ", ".join(f"{format_entry(name, a)} (now {b})" for name, (a, b) in changes.items())
            if self.runtime_changes is None and self.largest_difference == 1:
                why += ", it does not say on what: another device or number of threads rounds otherwise"
        return (
            f"differs: {self.different_pixels} of {self.pixels} pixels, at most {self.largest_difference} of 255; {why}"
        )


def format_entry(name: str, value: str) -> str:
    """Something that bits depend on, in words.

    >>> format_entry("threads", "2"), format_entry("device", "cpu")
    ('2 threads', 'device cpu')
    """
    return f"{value} thread{'' if value == '1' else 's'}" if name == "threads" else f"{name} {value}"


def replay(path: Path, trust: Sequence[str] = ()) -> Replay:
    """Make a picture again from its metadata and compare the two.

    Rounding depends on how many rows a call of the UNet has and on the position among them, and not on the neighbours:
    the picture is rendered at the same positions of as large calls, which it fills alone. `trust` names packages whose
    operators may run. Raises PictureError, or another EmbedlabError, where it cannot be made again.
    """
    metadata = read_metadata(path)
    source, cell = recorded_cell(metadata, path, trust)
    validate(cell, source)
    (seed,) = check_seeds([metadata.seed])
    height, width = picture_size(cell, source)
    first = metadata.picture
    if first.size != (width, height):
        raise PictureError(
            f"'{path}' has {first.width}x{first.height} pixels, and what it says gives {width}x{height}: "
            "it was resized since."
        )
    model = as_recorded(source.load(), metadata.runtime.get("engine", "eager"))
    (calls,) = condition_calls(model, [cell if metadata.edited else cell.baseline()])
    position, size, *own = metadata.batch
    wanted = [Request(calls, seed)] * size
    if metadata.rows:
        placed: Shared = InPlace(size, metadata.rows, path, copies(wanted[0]))
        company = [0] * size
    else:
        placed = Apart(range(size))
        company = sources_in(position, size, *own) if own else list(range(size))
    again = sample_batch(model, wanted, shared=placed, sources=company)[position]
    (picture,) = images.to_pil(again.picture[None])
    then, now = metadata.runtime, short_texts(dict(again.runtime))
    changes = {name: (then[name], now[name]) for name in then if now.get(name, then[name]) != then[name]}
    gap = np.abs(np.asarray(picture, dtype=np.int16) - np.asarray(first, dtype=np.int16)).max(axis=2)
    return Replay(
        picture=picture,
        pixels=gap.size,
        different_pixels=int((gap > 0).sum()),
        largest_difference=int(gap.max()),
        versions_then=metadata.versions,
        versions_now=versions(),
        runtime_changes=changes if then else None,
        other_model=metadata.model_files not in (None, files_of(source)),
    )


def sources_in(position: int, size: int, own: int, many: int) -> list[int]:
    """A source for each picture of a batch, `many` in all, in which the one at a position has its own.

    >>> sources_in(1, 4, 0, 2)
    [1, 0, 0, 0]
    """
    others = [number for number in range(many) if number != own]
    filled = [*others, *[own] * (size - 1 - len(others))]
    return [*filled[:position], own, *filled[position:]]


class Apart(Shared):
    """Calls of the UNet that have every row that is asked for, as all had once."""

    def rows(self, x: Tensor, images: Sequence[int], keys: Sequence[Hashable]) -> tuple[list[int], list[int]]:
        """As of `Shared`."""
        every = list(range(len(images)))
        return every, every


class InPlace(Shared):
    """Calls of the UNet with as many rows as those that made a picture; its own stand in the same places, and copies of
    them everywhere else. All images of the batch are the picture, and where it `copies` attention there is one more
    behind them, its source.
    """

    def __init__(self, size: int, rows: RowsByCall, path: Path, copies: bool = False):
        super().__init__([0] * (size + copies))
        self.path, self.source = path, size if copies else None
        self.calls = iter([(many, places) for calls, many, places in rows for _ in range(calls)])

    def rows(self, x: Tensor, images: Sequence[int], keys: Sequence[Hashable]) -> tuple[list[int], list[int]]:
        """As of `Shared`; PictureError where the picture does not have its rows in such places."""
        own, back = super().rows(x, images, keys)
        many, places = next(self.calls, (0, ()))
        if len(own) != len(places):
            raise PictureError(f"'{self.path}' says that it has {len(places)} rows in a call, and it has {len(own)}.")
        mine = self.layouts[-1].of(0, self.source)  # in the order of `places`
        run = [own[mine[places.index(n)]] if n in places else own[0] for n in range(many)]
        return run, [places[mine.index(n)] for n in back]

    def _part(self, x: Tensor, images: Sequence[int]) -> None:
        """Pictures are the same throughout; they begin as their source does, and part from it."""
        if self.source is None or self.source not in images or 0 not in images:
            return
        here, there = (x[images.index(n)].cpu().contiguous().view(torch.uint8) for n in (0, self.source))
        if not torch.equal(here, there):
            self.first[self.source] = self.source


def recorded_cell(metadata: Metadata, path: Path, trust: Sequence[str] = ()) -> tuple[Source, Cell]:
    """The model and the cell of a picture; nothing that it names is made before it was checked (`recorded_config`)."""
    config = metadata.config
    if isinstance(config, dict) and isinstance(config.get("model"), dict):  # a scorer draws nothing
        config = {**config, "model": {key: value for key, value in config["model"].items() if key != "scorer"}}
    config = locate_concepts(locate_start(config, metadata.start, path), metadata.concepts, path)
    try:
        return instantiate_checked(config, trust)
    except ConfigError as error:
        raise ConfigError(f"'{path}' cannot be made again: {error}") from None


def locate_concepts(config: Any, recorded: Any, path: Path) -> Any:
    """A picture's config with its files of textual inversion where those are found, as `locate_start` does.

    `recorded` are their paths and hashes. PictureError where one is not there, or another one.
    """
    model = config.get("model") if isinstance(config, dict) else None
    given = model.get("concepts") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not given or not isinstance(recorded, list):
        return config
    check_concepts(given)
    entries = entries_of(given)
    if len(entries) != len(recorded) or not all(isinstance(one, dict) for one in recorded):
        raise PictureError(f"the concepts of '{path}' are not those of its settings; it was changed since.")
    there = [located(entry, one, path) for entry, one in zip(entries, recorded, strict=True)]
    return {**config, "model": {**model, "concepts": there}}


def located(entry: str, recorded: Mapping[str, Any], path: Path) -> str:
    """The entry of a concept whose file was found."""
    name, first = parted(entry)
    candidates = [first]
    if isinstance(recorded.get("path"), str):
        candidates.append(str(path.absolute().parent / recorded["path"]))
    other = None
    for candidate in candidates:
        entry = candidate if name is None else f"{name}={candidate}"
        try:
            file_of(candidate)
        except ModelError:
            continue
        with suppress(ModelError):  # something that is no concept is another one, too
            if content_of_entry(entry) == recorded.get("content"):
                return entry
        other = other or candidate
    if other:
        raise PictureError(f"the concept of '{path}' is another one: '{other}' is not what it was made with.")
    raise PictureError(f"the concept of '{path}' is not there any more: {' and '.join(map(repr, candidates))}.")


def locate_start(config: Any, recorded: Any, path: Path) -> Any:
    """A picture's config with what it starts from where that is found: where it says, or as seen from the PNG's folder.

    `recorded` are the paths and the hashes of the start picture, and of a mask and latents by their names.
    PictureError where there is none, or another one.
    """
    start = config.get("start") if isinstance(config, dict) else None
    if not isinstance(recorded, dict) or not isinstance(start, dict):
        return config  # from noise, or by 0.1, which stored no hash
    there = dict(start)
    for name in HANDED_IN:
        known = recorded if name == "picture" else recorded.get(name)
        if isinstance(start.get(name), str) and isinstance(known, dict) and "content" in known:
            there[name] = str(_located(name, start[name], known, path))
    return config if there == start else {**config, "start": there}


def _located(name: str, given: str, recorded: Mapping[str, Any], path: Path) -> Path:
    what = "the latents" if name == "latents" else f"the start {name}"
    candidates = [given]
    if isinstance(recorded.get("path"), str):
        candidates.append(str(path.absolute().parent / recorded["path"]))
    others, missing = [], []
    for candidate in candidates:
        try:
            file = found_file(candidate, f"start.{name}") if name == "latents" else found(candidate)
        except EmbedlabError:
            missing.append(candidate)
            continue
        if handed_in(name, candidate, file).content == recorded["content"]:
            return file
        others.append(str(file))
    are, other = ("are", "others") if name == "latents" else ("is", "another one")
    if others:
        raise PictureError(f"{what} of '{path}' {are} {other}: '{others[0]}' is not what it was made from.")
    raise PictureError(f"{what} of '{path}' {are} not there any more: {' and '.join(map(repr, missing))}.")
