"""Make a picture again from what it says of itself, and tell whether it is the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from embedlab import readers
from embedlab.errors import ConfigError, PictureError

if TYPE_CHECKING:
    from embedlab.experiment import Cell
    from embedlab.models import Source

MOST = 256  # pictures in a batch; a file may ask for more


@dataclass(frozen=True)
class Recipe:
    """What a picture says of how it was made, checked: model, cell, seed, and its place in a batch of what size."""

    source: Source
    cell: Cell
    edited: bool
    seed: int
    batch: tuple[int, int]
    versions: dict[str, str]
    picture: Image.Image
    runtime: dict[str, str] = field(default_factory=dict)  # what its bits depend on beside; 0.1 did not say


@dataclass(frozen=True)
class Replay:
    """A picture made again: how many pixels differ from the first, and by how much at the most (of 255).

    `made_with` is what differs of what the bits depend on beside versions, then and now; None where the picture
    does not tell.

    >>> print(Replay(None, 100, 2, 1, {}, {}, {"threads": ("2", "1")}))
    the same but for rounding (at most 1 of 255), made with 2 threads, this is 1; 2 of 100 pixels differ
    """

    picture: Image.Image
    pixels: int
    differing: int
    most: int
    then: dict[str, str]
    now: dict[str, str]
    made_with: Mapping[str, tuple[str, str]] | None = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether the two are equal, bit for bit."""
        return not self.differing

    @property
    def rounded(self) -> bool:
        """Whether they differ by rounding alone: by 1 at the most, and made where sums may come in another order."""
        return not self.same and self.most == 1 and bool(self.made_with) and not self._changed

    @property
    def _changed(self) -> list[str]:
        return [name for name in self.now if self.then.get(name, self.now[name]) != self.now[name]]

    def __str__(self) -> str:
        if self.same:
            return "the same, bit for bit"
        changed = self._changed
        if self.rounded and self.made_with is not None:
            then = ", ".join(_fact(name, value) for name, (value, _) in self.made_with.items())
            here = ", ".join(value for _, value in self.made_with.values())
            return (
                f"the same but for rounding (at most 1 of 255), made with {then}, this is {here}; "
                f"{self.differing} of {self.pixels} pixels differ"
            )
        told = ", ".join(f"{name} {self.then[name]}" for name in changed)
        here = ", ".join(f"{name} {self.now[name]}" for name in changed)
        why = f"made with {told}, this is {here}" if changed else "made with the same versions"
        if not changed and self.most == 1 and self.made_with is None:
            why += ", it does not say on what: another device or number of threads rounds otherwise"
        if not changed and self.made_with:
            why += " but " + ", ".join(f"{_fact(name, a)} (now {b})" for name, (a, b) in self.made_with.items())
        return f"differs: {self.differing} of {self.pixels} pixels, at most {self.most} of 255; {why}"


def _fact(name: str, value: str) -> str:
    """Something that bits depend on, as it is said."""
    return f"{value} thread{'' if value == '1' else 's'}" if name == "threads" else f"{name} {value}"


def read(path: Path) -> tuple[dict[str, Any], Image.Image]:
    """The settings and the picture of a PNG that embedlab wrote; PictureError for any other file."""
    check_there(path)
    from embedlab.images import KEY

    try:
        file = readers.open_picture(path, formats=["PNG"])
    except readers.NoPictureError:
        raise PictureError(f"'{path}' is no PNG; only the PNGs that embedlab writes can be made again.") from None
    text, picture = getattr(file, "text", {}).get(KEY), file.convert("RGB")
    if text is None:
        raise PictureError(f"'{path}' holds no embedlab settings; it is of another tool, or they were taken out.")
    try:
        settings = readers.parsed(text)
    except readers.JSONError as error:
        raise PictureError(f"the embedlab settings in '{path}' are damaged: {error}.") from None
    if not isinstance(settings, dict):
        raise PictureError(f"the embedlab settings in '{path}' are damaged: they are no JSON object.")
    return settings, picture


def check_there(path: Path) -> None:
    """Refuse a path that is no file."""
    if not path.is_file():
        raise PictureError(f"there is no picture '{path}'.")


def recipe(path: Path, trust: Sequence[str] = ()) -> Recipe:
    """What a picture was made of; nothing that it names is made before it was checked (`embedlab.sweep.trust`)."""
    from embedlab.sweep.store import FORMAT

    settings, picture = read(path)
    form = settings.get("format", 1)
    if not isinstance(form, int) or form > FORMAT:
        raise PictureError(
            f"'{path}' was written by a newer embedlab (format {form!r}; this one reads {FORMAT}); install that."
        )
    if "seed" not in settings:
        raise PictureError(f"'{path}' is a sheet of several pictures; make one of the pictures beside it again.")

    from embedlab.sampler import check_seeds
    from embedlab.sweep.trust import made

    config = settings.get("config")
    if isinstance(config, dict) and isinstance(config.get("model"), dict):  # a scorer draws nothing
        config = {**config, "model": {key: value for key, value in config["model"].items() if key != "scorer"}}
    config = with_start(config, settings.get("start"), path)
    try:
        source, cell = made(config, trust)
    except ConfigError as error:
        raise ConfigError(f"'{path}' cannot be made again: {error}") from None
    assert isinstance(config, dict)
    versions = settings.get("versions")
    (seed,) = check_seeds([settings["seed"]])
    batch = settings.get("batch", [0, 1])
    fits = isinstance(batch, list) and len(batch) == 2 and all(type(n) is int for n in batch)
    if not fits or not 0 <= batch[0] < batch[1] <= MOST:
        raise PictureError(f"the embedlab settings in '{path}' are damaged: {batch!r} is no place in a batch.")
    return Recipe(
        source=source,
        cell=cell,
        edited=bool(settings.get("edited", True)),
        seed=seed,
        batch=(batch[0], batch[1]),
        versions=facts(versions),
        picture=picture,
        runtime=facts(settings.get("runtime")),
    )


def facts(told: Any) -> dict[str, str]:
    """What a picture says of where and by what it was made: short printable texts, whoever wrote them."""
    pairs = told.items() if isinstance(told, dict) else ()
    plain = {str(k): str(v) for k, v in pairs if isinstance(v, str | int | bool)}
    return {k: v for k, v in plain.items() if len(k) < 40 and len(v) < 200 and (k + v).isprintable()}


def with_start(config: Any, about: Any, path: Path) -> Any:
    """The config of a picture with its start picture where that is found: where it says, or seen from the PNG's folder.

    PictureError where there is none, or only another one than the picture was made from.
    """
    from embedlab.images import content_of, open_picture
    from embedlab.sampler import found

    start = config.get("start") if isinstance(config, dict) else None
    if not isinstance(about, dict) or not isinstance(start, dict) or not isinstance(start.get("picture"), str):
        return config  # from noise, or by 0.1, which kept no hash
    places = [start["picture"]]
    if isinstance(about.get("path"), str):
        places.append(str(path.absolute().parent / about["path"]))
    seen, missing = [], []
    for place in places:
        try:
            file = found(place)
        except PictureError:
            missing.append(place)
            continue
        if content_of(open_picture(file)) == about.get("content"):
            return {**config, "start": {**start, "picture": str(file)}}
        seen.append(str(file))
    if seen:
        raise PictureError(f"the start picture of '{path}' is another one: '{seen[0]}' is not what it was made from.")
    raise PictureError(f"the start picture of '{path}' is not there any more: {' and '.join(map(repr, missing))}.")


def replay(path: Path, trust: Sequence[str] = ()) -> Replay:
    """Make a picture again and compare the two.

    Rounding depends on the size of the batch and the place in it, and not on the neighbours: it is drawn at the same
    place of as large a batch, which it fills alone.
    """
    from embedlab import images
    from embedlab.experiment import calls_of, check, draw, tell
    from embedlab.sampler import check_size
    from embedlab.sweep.store import versions

    mine = recipe(path, trust)
    check(mine.cell, mine.source)
    told, source = mine.picture, mine.source
    levels = len(source.told("unet", "block_out_channels"))
    height, width = check_size(mine.cell.size, source.size, source.factor, levels)
    if told.size != (width, height):
        raise PictureError(
            f"'{path}' has {told.width}x{told.height} pixels, and what it says gives {width}x{height}: "
            "it was resized since."
        )
    model = source.load()
    cell = mine.cell if mine.edited else mine.cell.baseline()
    (calls,) = tell(model, [calls_of(cell, model.scheduler)])
    place, size = mine.batch
    drawn = draw(model, [(calls, mine.seed)] * size)[place]
    (again,) = images.to_pil(drawn.picture[None])
    now = facts(dict(drawn.runtime))
    apart = {k: (v, now[k]) for k, v in mine.runtime.items() if k in now and now[k] != v} if mine.runtime else None
    gap = np.abs(np.asarray(again, dtype=np.int16) - np.asarray(mine.picture, dtype=np.int16)).max(axis=2)
    return Replay(again, gap.size, int((gap > 0).sum()), int(gap.max()), mine.versions, versions(), apart)
