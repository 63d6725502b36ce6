"""An axis of a sweep as a film: by constant steps of the setting, or by equal steps of what is seen."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from embedlab import readers
from embedlab.errors import ConfigError, EmbedlabError, listed
from embedlab.view.contact_sheet import axes_of, named, said, short_names, values_of

HALVINGS = 12  # of a way in which too much happens
MOST = 24  # pictures in a frame
MANY = 5000  # pictures of an MP4 from which on it has fewer a second
RATE = 25  # pictures a second of an MP4, in which a frame is shown as often as its time needs
PARTS = ("model", "prompt", "operators", "encoder", "guidance", "sampler", "start", "size")


@dataclass(frozen=True)
class Take:
    """One seed, and one combination of the other settings, along the axis: its pictures by the setting's value."""

    label: str
    seed: int
    config: dict[str, Any]
    files: dict[float, Path]
    begun: tuple[Any, Path] = (None, Path())  # what is kept of its start picture, and the file of which

    def here(self) -> dict[str, Any]:
        """Its config, with the start picture where that is found from here."""
        from embedlab.view.replay import with_start

        return with_start(self.config, *self.begun)


@dataclass(frozen=True)
class Reel:
    """A film before it is written: values of the setting, a picture a take for each, and the steps between."""

    weights: tuple[float, ...]
    frames: tuple[tuple[Image.Image, ...], ...]
    steps: tuple[float, ...] = ()  # 1 - cosine of the image features of neighbours, mean of the takes

    @property
    def evenness(self) -> float:
        """The largest step over the mean step: 1 where all are equal."""
        return max(self.steps) / (sum(self.steps) / len(self.steps)) if any(self.steps) else 1.0

    @property
    def length(self) -> float:
        """The length of the path, in chords of unit vectors."""
        return float(arcs(self.steps).sum())

    def as_dict(self) -> dict[str, Any]:
        """What is told of a film beside it."""
        k = int(np.argmax(self.steps))
        return {
            "weights": list(self.weights),
            "steps": [round(step, 6) for step in self.steps],
            "max_over_mean": round(self.evenness, 3),
            "path_length": round(self.length, 4),
            "largest_step": {"from": self.weights[k], "to": self.weights[k + 1], "size": round(self.steps[k], 6)},
        }

    def __str__(self) -> str:
        told = self.as_dict()
        largest = told["largest_step"]
        return (
            f"{len(self.weights)} frames, path {self.length:.2f}; the largest step is {self.evenness:.1f} × the mean, "
            f"{largest['size']:.3f} from {largest['from']:.4g} to {largest['to']:.4g}"
        )


# ── pace ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def perceptual_weights(distances: Sequence[float] | np.ndarray, weights: Sequence[float], frames: int) -> np.ndarray:
    """Values of a setting between which the same distance lies, by the distances between known ones.

    >>> perceptual_weights([3.0, 1.0], [0.0, 0.5, 1.0], frames=5).round(3).tolist()
    [0.0, 0.167, 0.333, 0.5, 1.0]
    """
    gaps, known = np.asarray(distances, dtype=float), np.asarray(weights, dtype=float)
    if frames < 2 or len(known) < 2 or len(gaps) != len(known) - 1:
        raise ConfigError(f"{len(gaps)} distances between {len(known)} weights make no film of {frames} frames.")
    if not (np.isfinite(gaps).all() and (gaps >= 0).all() and (np.diff(known) > 0).all()):
        raise ConfigError("distances have to be finite and 0 or more, and weights have to rise.")
    if not gaps.any():  # nothing is seen of the setting, so that any steps are equal
        gaps = np.diff(known)
    along = np.concatenate([[0.0], np.cumsum(gaps)])
    found = np.interp(np.linspace(0, along[-1], frames), along, known)
    found[0], found[-1] = known[0], known[-1]
    return np.maximum.accumulate(found)


def arcs(steps: Sequence[float]) -> np.ndarray:
    """Distances that add up along a path: chords of unit vectors whose 1 - cosine is known.

    Equal chords are equal cosines, and unlike 1 - cosine half of a way is half as long.
    """
    return np.sqrt(2 * np.clip(np.asarray(steps, dtype=float), 0, None))


def durations(weights: Sequence[float], seconds: float) -> list[float]:
    """How long each of some pictures is shown, so that the setting moves at a constant speed.

    >>> durations([0.0, 0.5, 1.0], 3.0), durations([0.0, 0.25, 1.0], 3.0)
    ([1.0, 1.0, 1.0], [0.5, 1.0, 1.5])
    """
    gaps = [b - a for a, b in pairwise(weights)]
    shares = [(left + right) / 2 for left, right in zip([gaps[0], *gaps], [*gaps, gaps[-1]], strict=True)]
    return [seconds * share / sum(shares) for share in shares]


# ── takes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def numeric(values: Sequence[Any]) -> bool:
    """Whether these are numbers."""
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def axis_along(results: Sequence[dict[str, Any]], name: str | None = None) -> str:
    """The key of the axis that a film runs along: the one named, or the only one of numbers."""
    values = {key: v for key, v in values_of(results).items() if key != "seed"}
    if name is not None:
        key = named(name, values)
        if not numeric(values[key]):
            raise ConfigError(f"a film runs along numbers; {key} is {listed(map(said, values[key]))}.")
        return key
    found = [key for key in values if numeric(values[key])]
    if not found:
        raise ConfigError(f"no setting of this sweep takes several numbers; its axes are {listed(axes_of(results))}.")
    if len(found) > 1:
        raise ConfigError(f"{listed(found)} take several numbers; choose: --along {short_names(values)[found[0]]}.")
    return found[0]


def takes_of(results: Sequence[dict[str, Any]], key: str, seed: int | str | None = None) -> list[Take]:
    """The pictures of a sweep along an axis, for one seed (its first) or `all`, and each combination of the others."""
    values = values_of(results)
    seeds: list[Any] = values["seed"] if seed == "all" else [values["seed"][0] if seed is None else seed]
    if unknown := [one for one in seeds if one not in values["seed"]]:
        raise ConfigError(f"this sweep has no seed {unknown[0]}; it has {listed(values['seed'])}.")
    others = [other for other in values if other not in (key, "seed")]
    names = short_names(values)
    takes: dict[str, Take] = {}
    for result in results:
        overrides = result.get("overrides", {})
        rows = {row["seed"]: row for row in result["pictures"] if row.get("file") and not row.get("error")}
        for one in seeds:
            if one in rows:
                combination = [f"{names[other]} {said(overrides.get(other))}" for other in others]
                label = ", ".join([*combination, f"seed {one}"])
                file = Path(result["folder"]) / rows[one]["file"]
                begun = (result.get("start"), file)
                take = takes.setdefault(label, Take(label, one, result.get("config") or {}, {}, begun))
                take.files[float(overrides[key])] = file
    if not takes:
        raise ConfigError(f"no picture of seed {listed(seeds)} is there.")
    if len(takes) > MOST:
        raise ConfigError(f"a frame would hold {len(takes)} pictures, and {MOST} is the most; film one seed: --seed N.")
    return list(takes.values())


def shared(takes: Sequence[Take]) -> list[float]:
    """The values of the setting at which every take has a picture, rising."""
    common = set.intersection(*(set(take.files) for take in takes))
    if len(common) < 2:
        raise ConfigError(f"a film needs pictures at two values of the setting or more; there are {len(common)}.")
    return sorted(common)


def put(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A config with another value in one place."""
    changed = copy.deepcopy(config)
    place: Any = changed
    *outer, last = key.lstrip("+").split(".")
    for part in outer:
        place = place.get(part) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        raise ConfigError(f"the sweep's configs have no {key}, so that nothing between its pictures can be rendered.")
    place[last] = value
    return changed


def check_alone(results: Sequence[dict[str, Any]], key: str, takes: Sequence[Take]) -> None:
    """Refuse an axis that moves more than its own setting: pictures in between would not belong to it."""
    others = {str(Path(result["folder"])): result for result in results}
    for take in takes:
        for value, file in take.files.items():
            job = others[str(file.parent)]
            mine, its = put(take.config, key, job["overrides"][key]), job.get("config") or {}
            if moved := [part for part in PARTS if mine.get(part) != its.get(part)]:
                raise ConfigError(
                    f"{key}={value:g} changes {listed(moved)} elsewhere, too; no picture between is known."
                )


# ── rendering ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Stage:
    """What draws and measures pictures along an axis; each is drawn once."""

    def __init__(
        self,
        takes: Sequence[Take],
        key: str,
        trust: Sequence[str] = (),
        on_step: Callable[[int], None] | None = None,
    ):
        self.takes, self.key, self.trust, self.on_step = takes, key, trust, on_step
        self.shot: dict[float, tuple[Image.Image, ...]] = {}
        self._features: dict[float, Any] = {}
        for weight in shared(takes):
            self.shot[weight] = tuple(open_whole(take.files[weight]) for take in takes)

    def shoot(self, weights: Sequence[float]) -> None:
        """Draw what is not there yet."""
        from embedlab import images
        from embedlab.experiment import check, render
        from embedlab.sweep.trust import made

        new = [weight for weight in dict.fromkeys(weights) if weight not in self.shot]
        if not new:
            return
        drawn: dict[tuple[float, int], Image.Image] = {}
        alike: dict[str, list[int]] = {}
        for n, take in enumerate(self.takes):
            alike.setdefault(json.dumps(put(take.config, self.key, None), sort_keys=True, default=str), []).append(n)
        for mine in alike.values():
            seeds = [self.takes[n].seed for n in mine]
            rows: dict[Any, list[tuple[float, Any]]] = {}
            config = self.takes[mine[0]].here()
            for weight in new:
                source, cell = made(put(config, self.key, whole(weight)), self.trust)
                rows.setdefault(source, []).append((weight, cell))
            for source, cells in rows.items():
                check(cells[0][1], source)
                done = render(source.load(), [cell for _, cell in cells], seeds, on_step=self.on_step)
                for (weight, _), one in zip(cells, done, strict=True):
                    drawn |= {(weight, n): p for n, p in zip(mine, images.to_pil(one.pictures), strict=True)}
        for weight in new:
            self.shot[weight] = tuple(drawn[weight, n] for n in range(len(self.takes)))

    def measure(self, weights: Sequence[float]) -> tuple[float, ...]:
        """1 - cosine of the image features between neighbours, mean of the takes."""
        import torch

        from embedlab import images
        from embedlab.metrics.clip_score import image_features
        from embedlab.sweep.trust import made

        source, _ = made(self.takes[0].here(), self.trust)
        scorer = source.load().scorer
        if scorer is None:
            raise ConfigError(f"'{source.name}' has no image encoder to see with; set model.scorer in the sweep.")
        with torch.inference_mode():
            for weight in weights:
                if weight not in self._features:
                    pictures = torch.stack([images.to_tensor(picture) for picture in self.shot[weight]])
                    self._features[weight] = image_features(scorer, pictures)
        cosines = [(self._features[a] * self._features[b]).sum(-1).mean() for a, b in pairwise(weights)]
        return tuple(max(0.0, 1 - float(cosine)) for cosine in cosines)

    def reel(self, weights: Sequence[float], measured: bool = True) -> Reel:
        """The film of some values of the setting."""
        self.shoot(weights)
        steps = self.measure(weights) if measured else ()
        return Reel(tuple(weights), tuple(self.shot[weight] for weight in weights), steps)


def paced(stage: Stage, frames: int) -> tuple[Reel, Reel]:
    """The film by constant steps of the setting, and by equal steps of what is seen.

    Ways that are longer than a step are halved until none is, or HALVINGS times: a picture may turn into another within
    a ten-thousandth of the setting. Only then are equal steps looked for, twice, because what was drawn for the first
    is known in the second.
    """
    constant = stage.reel(evenly(stage, frames))
    for _ in range(HALVINGS):
        known = sorted(stage.shot)
        ways = arcs(stage.measure(known))
        long = [pair for pair, way in zip(pairwise(known), ways, strict=True) if way > 0.75 * ways.sum() / (frames - 1)]
        if not long:
            break
        stage.shoot([(a + b) / 2 for a, b in long])
    best = constant
    for _ in range(2):
        known = sorted(stage.shot)
        found = stage.reel(perceptual_weights(arcs(stage.measure(known)), known, frames).tolist())
        if found.evenness < best.evenness:
            best = found
    return constant, best


def evenly(stage: Stage, frames: int) -> list[float]:
    """Values of the setting in constant steps, from its first to its last."""
    low, high = min(stage.shot), max(stage.shot)
    return [*np.linspace(low, high, frames)[:-1].tolist(), high]


def whole(value: float) -> int | float:
    """A number as it is written: whole ones without a point."""
    return int(value) if float(value).is_integer() else float(value)


def open_whole(path: Path) -> Image.Image:
    """A picture, read to its end."""
    try:
        return readers.open_picture(path).convert("RGB")
    except EmbedlabError as error:
        raise ConfigError(f"{error} embedlab -m resume=SWEEP makes lost ones again.") from None


# ── frames and files ──────────────────────────────────────────────────────────────────────────────────────────────


def composed(reel: Reel, name: str, labels: Sequence[str]) -> list[Image.Image]:
    """The frames: pictures side by side, under them the setting's value and where it stands."""
    from embedlab.images import font, shorten

    count = len(labels)
    columns = min(count, 6)
    rows = -(-count // columns)
    wide, high = reel.frames[0][0].size
    side = max(min(wide, 512), 256) if count == 1 else max(96, min(wide * 2, 256, 1280 // columns))
    tall = max(1, round(side * high / wide))
    text, small, gap = font(15), font(12), 6
    head = 18 if count > 1 else 0
    width, height = gap + columns * (side + gap), gap + rows * (tall + head + gap) + 40
    low, top = reel.weights[0], reel.weights[-1]
    least = min(b - a for a, b in pairwise(reel.weights) if b > a)
    digits = 0 if all(float(w).is_integer() for w in reel.weights) else min(5, max(2, math.ceil(-math.log10(least))))
    canvases = []
    for weight, pictures in zip(reel.weights, reel.frames, strict=True):
        canvas = Image.new("RGB", (width + width % 2, height + height % 2), "white")
        pen = ImageDraw.Draw(canvas)
        for n, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            x, y = gap + n % columns * (side + gap), gap + n // columns * (tall + head + gap)
            if head:
                short = shorten(label, small, side)
                pen.text((x + (side - small.getlength(short)) / 2, y), short, "#333333", small)
            canvas.paste(picture.resize((side, tall), Image.Resampling.LANCZOS), (x, y + head))
        line = height - 31
        at = gap + 4 + (width - 2 * gap - 8) * (weight - low) / (top - low)
        pen.line((gap, line, width - gap, line), "#cccccc", 2)
        pen.ellipse((at - 4, line - 4, at + 4, line + 4), "#333333")
        told = f"{name} {weight:.{digits}f}"
        pen.text(((width - text.getlength(told)) / 2, line + 6), told, "black", text)
        canvases.append(canvas)
    return canvases


def ticks(times: Sequence[float], rate: int) -> list[int]:
    """How many of `rate` ticks a second each of some times takes, so that their sum is right; one or more each.

    >>> ticks([0.05, 0.05, 0.1], 30)
    [2, 1, 3]
    """
    counts: list[int] = []
    for end in np.cumsum(times) * rate:
        counts.append(max(1, round(float(end)) - sum(counts)))
    return counts


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name that becomes `path` when all was written to it."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be written: {error.strerror or error}.") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_gif(pictures: Sequence[Image.Image], path: Path, times: Sequence[float]) -> Path:
    """An endless GIF, each picture shown for its time; all have one palette, so that none flickers."""
    if min(times) < 0.02:
        raise ConfigError(f"a GIF shows at most 50 pictures a second; {len(times)} need {0.02 * len(times):g} seconds.")
    sample = Image.new("RGB", (pictures[0].width, pictures[0].height * len(pictures[:: -(-len(pictures) // 32)])))
    for n, picture in enumerate(pictures[:: -(-len(pictures) // 32)]):
        sample.paste(picture, (0, n * picture.height))
    palette = sample.quantize(256, Image.Quantize.MEDIANCUT)
    first, *rest = (picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for picture in pictures)
    with whole_file(path) as file:
        first.save(file, "GIF", save_all=True, append_images=rest, duration=[10 * t for t in ticks(times, 100)], loop=0)
    return path


def write_mp4(pictures: Sequence[Image.Image], path: Path, times: Sequence[float], rate: int = RATE) -> Path:
    """An MP4 that plays everywhere (yuv420p, even sides): each picture repeated for its time."""
    try:
        import av
    except ImportError:
        raise ConfigError("an MP4 is written by PyAV, which is not installed: pip install 'embedlab[film]'") from None
    rate = max(min(rate, MANY // math.ceil(sum(times))), math.ceil(1 / min(times)))
    width, height = pictures[0].size
    size = (width + width % 2, height + height % 2)
    with whole_file(path) as file, av.open(str(file), "w", format="mp4", options={"movflags": "faststart"}) as video:
        stream = video.add_stream(encoder(av), rate=Fraction(rate))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if stream.codec_context.codec.name == "libx264":
            stream.options = {"crf": "16"}
        else:
            stream.bit_rate = 8_000_000
        for picture, count in zip(pictures, ticks(times, rate), strict=True):
            canvas = Image.new("RGB", size, "white")
            canvas.paste(picture, (0, 0))
            for _ in range(count):
                video.mux(stream.encode(av.VideoFrame.from_image(canvas)))
        video.mux(stream.encode(None))
    return path


def encoder(av: Any) -> str:
    """The best encoder that this PyAV has."""
    for name in ("libx264", "mpeg4"):
        try:
            av.Codec(name, "w")
        except ValueError:
            continue
        return name
    raise ConfigError("this PyAV has no encoder for MP4; pip install 'embedlab[film]' brings one that has.")


def write(folder: Path, reels: dict[str, Reel], key: str, takes: Sequence[Take], seconds: float) -> Iterator[Path]:
    """Write each film as GIF and MP4, and what was measured as `film.json`."""
    from embedlab.sweep.store import write_json

    name = key.rsplit(".", maxsplit=1)[-1]
    films = []
    for pace, reel in reels.items():
        times = (
            durations(reel.weights, seconds) if pace == "weight" else [seconds / len(reel.weights)] * len(reel.weights)
        )
        films.append((pace, composed(reel, name, [take.label for take in takes]), times))
    # all GIFs come first: without PyAV there are these
    for pace, pictures, times in films:
        yield write_gif(pictures, folder / f"film-{pace}.gif", times)
    if told := {pace: reel.as_dict() for pace, reel in reels.items() if reel.steps}:
        write_json(folder / "film.json", {"along": key, "takes": [take.label for take in takes], **told})
        yield folder / "film.json"
    for pace, pictures, times in films:
        yield write_mp4(pictures, folder / f"film-{pace}.mp4", times)
