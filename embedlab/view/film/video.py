"""Films → files: frames with the setting's value under them, as GIF and MP4."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageDraw

from embedlab.errors import ConfigError
from embedlab.files import write_json, written
from embedlab.images import font, shorten
from embedlab.view.film.pace import durations, ticks
from embedlab.view.film.render import Film
from embedlab.view.film.tracks import Tracks

MANY = 5000  # frames of an MP4 from which on it has fewer a second
RATE = 25  # frames a second of an MP4, in which a picture is repeated as often as its time needs
PALETTE_FROM = 32  # pictures of a GIF, from which its palette is made


def kind_of(to: Path | None) -> str:
    """The kind of file that a name asks for, ".gif" or ".mp4"; none for a folder, which holds both.

    Raises ConfigError for an MP4 that cannot be written here, so that it can be asked before anything is rendered.

    >>> kind_of(Path("film.gif")), kind_of(Path("films")), kind_of(None)
    ('.gif', '', '')
    """
    kind = "" if to is None or to.is_dir() else to.suffix.lower()
    if kind == ".mp4":
        video_encoder()
    return kind if kind in (".gif", ".mp4") else ""


def write_films(films: Mapping[str, Film], tracks: Tracks, to: Path, seconds: float) -> Iterator[Path]:
    """Write films by their pace, each `seconds` long, and yield the files.

    Into a folder go all of them as `film-PACE.gif` and `film-PACE.mp4`, and what was measured as `film.json`; a name
    that ends in .gif or .mp4 is the file of the last one. GIFs come first: without PyAV there are these.
    """
    times = {pace: frame_times(film, pace, seconds) for pace, film in films.items()}
    labels = [track.label for track in tracks.tracks]
    writers: dict[str, Callable[..., Path]] = {".gif": write_gif, ".mp4": write_mp4}
    if kind := kind_of(to):
        pace, film = list(films.items())[-1]
        yield writers[kind](draw_frames(film, tracks.name, labels), to, times[pace])
        return
    pictures = {pace: draw_frames(film, tracks.name, labels) for pace, film in films.items()}
    for pace in films:
        yield write_gif(pictures[pace], to / f"film-{pace}.gif", times[pace])
    if measured := {pace: film.as_dict() for pace, film in films.items() if film.steps}:
        write_json(to / "film.json", {"along": tracks.key, "takes": labels, **measured})
        yield to / "film.json"
    for pace in films:
        yield write_mp4(pictures[pace], to / f"film-{pace}.mp4", times[pace])


def frame_times(film: Film, pace: str, seconds: float) -> list[float]:
    """How many seconds each frame is shown."""
    count = len(film.weights)
    return durations(film.weights, seconds) if pace == "weight" else [seconds / count] * count


def draw_frames(film: Film, name: str, labels: Sequence[str]) -> list[Image.Image]:
    """The frames as pictures: those of the tracks side by side, under them the setting's value and where it stands."""
    count = len(labels)
    columns = min(count, 6)
    rows = -(-count // columns)
    wide, high = film.frames[0][0].size
    side = max(min(wide, 512), 256) if count == 1 else max(96, min(wide * 2, 256, 1280 // columns))
    tall = max(1, round(side * high / wide))
    text, small, gap = font(15), font(12), 6
    head = 18 if count > 1 else 0
    width, height = gap + columns * (side + gap), gap + rows * (tall + head + gap) + 40
    low, top = film.weights[0], film.weights[-1]
    digits = decimals(film.weights)
    canvases = []
    for weight, pictures in zip(film.weights, film.frames, strict=True):
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
        caption = "start" if name == "step" and weight < 0 else f"{name} {weight:.{digits}f}"
        pen.text(((width - text.getlength(caption)) / 2, line + 6), caption, "black", text)
        canvases.append(canvas)
    return canvases


def decimals(values: Sequence[float]) -> int:
    """How many decimals tell rising values apart: none for whole ones, else 2 to 5.

    >>> decimals([1, 2]), decimals([0, 0.5]), decimals([0, 0.0004, 1])
    (0, 2, 4)
    """
    if all(float(value).is_integer() for value in values):
        return 0
    least = min(b - a for a, b in pairwise(values) if b > a)
    return min(5, max(2, math.ceil(-math.log10(least))))


def write_file(path: Path, fill: Callable[[BinaryIO], object]) -> Path:
    """Write a film, whole or not at all; ConfigError where that cannot be."""
    try:
        written(path, fill)
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be written: {error.strerror or error}.") from None
    return path


def write_gif(pictures: Sequence[Image.Image], path: Path, times: Sequence[float]) -> Path:
    """An endless GIF, each picture shown for its time; all have one palette, so that none flickers."""
    if min(times) < 0.02:
        raise ConfigError(f"a GIF shows at most 50 pictures a second; {len(times)} need {0.02 * len(times):g} seconds.")
    some = pictures[:: -(-len(pictures) // PALETTE_FROM)]
    sample = Image.new("RGB", (some[0].width, some[0].height * len(some)))
    for n, picture in enumerate(some):
        sample.paste(picture, (0, n * picture.height))
    palette = sample.quantize(256, Image.Quantize.MEDIANCUT)
    first, *rest = (picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for picture in pictures)
    milliseconds = [10 * count for count in ticks(times, 100)]
    return write_file(
        path, lambda file: first.save(file, "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)
    )


def write_mp4(pictures: Sequence[Image.Image], path: Path, times: Sequence[float], rate: int = RATE) -> Path:
    """An MP4 that plays everywhere (yuv420p, even sides): each picture repeated for its time."""
    encoder = video_encoder()
    rate = max(min(rate, MANY // math.ceil(sum(times))), math.ceil(1 / min(times)))
    counts = ticks(times, rate)
    return write_file(path, lambda file: encode(pictures, file.name, counts, rate, encoder))


def encode(pictures: Sequence[Image.Image], name: str, counts: Sequence[int], rate: int, encoder: str) -> None:
    """Write each picture as often as is said, into a file that is there."""
    import av

    width, height = pictures[0].size
    size = (width + width % 2, height + height % 2)
    with av.open(name, "w", format="mp4", options={"movflags": "faststart"}) as video:
        stream = video.add_stream(encoder, rate=Fraction(rate))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if stream.codec_context.codec.name == "libx264":
            stream.options = {"crf": "16"}
        else:
            stream.bit_rate = 8_000_000
        for picture, count in zip(pictures, counts, strict=True):
            canvas = Image.new("RGB", size, "white")
            canvas.paste(picture, (0, 0))
            for _ in range(count):
                video.mux(stream.encode(av.VideoFrame.from_image(canvas)))
        video.mux(stream.encode(None))


def video_encoder() -> str:
    """The best encoder that PyAV has; ConfigError where there is none."""
    try:
        import av
    except ImportError:
        raise ConfigError("an MP4 is written by PyAV, which is not installed: pip install 'embedlab[film]'") from None
    for name in ("libx264", "mpeg4"):
        try:
            av.Codec(name, "w")
        except ValueError:
            continue
        return name
    raise ConfigError("this PyAV has no encoder for MP4; pip install 'embedlab[film]' brings one that has.")
