"""`embedlab film`: a finished sweep as GIF and MP4, along one setting."""

from __future__ import annotations

import sys
from pathlib import Path

from embedlab import readers
from embedlab.clean import drawn_on, one_line
from embedlab.cli.commands import report_unread
from embedlab.cli.messages import say
from embedlab.cli.parser import Parser
from embedlab.cli.progress import aside
from embedlab.errors import ConfigError, listed

LONGEST = 600  # seconds; a GIF shows a picture 655 of them at the most


def main(argv: list[str]) -> None:
    """Write the films, and print where they are."""
    parser = Parser("embedlab film", description="A finished sweep as GIF and MP4, along one setting or its steps.")
    parser.add_argument("sweep", metavar="SWEEP", type=readers.word, help="the folder of a sweep")
    parser.add_argument(
        "--steps",
        choices=("x0", "latents"),
        help="film the steps that sampler.keep kept, of a job or a whole sweep: the x0 seen in them, or the latents",
    )
    parser.add_argument("--along", metavar="KEY", help="the setting; left out, the only one that takes several numbers")
    parser.add_argument("--seed", default=None, metavar="N|all", help="the seed (the first), or all side by side")
    parser.add_argument("--frames", type=int, metavar="N", help="how many; those in between are rendered")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="how long the film is (4)")
    parser.add_argument(
        "--pace",
        choices=("weight", "perceptual"),
        default="weight",
        help="constant steps of the setting; perceptual: beside that a film of equal CLIP-image distances (25 frames)",
    )
    parser.add_argument(
        "--to", type=readers.word, metavar="PATH", help="a folder (the sweep's), or one file: .gif or .mp4"
    )
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="a package whose operators may run"
    )
    words = parser.parse_args(argv)
    frames = 25 if words.frames is None and words.pace == "perceptual" else words.frames
    if frames is not None and not 2 <= frames <= 1000:
        raise ConfigError(f"--frames is {words.frames}; it goes from 2 to 1000.")
    if not 0 < words.seconds <= LONGEST:
        raise ConfigError(f"--seconds is {words.seconds:g}; it has to be above 0, and {LONGEST} at the most.")
    if words.seed not in (None, "all") and not words.seed.isdecimal():
        raise ConfigError(f"--seed is {words.seed!r}; it is a number or all.")
    if frames is not None and words.seconds / frames < 0.02:
        raise ConfigError(f"{frames} frames in {words.seconds:g} seconds are more than the 50 a second of a GIF.")

    seed = int(words.seed) if words.seed and words.seed != "all" else words.seed
    if words.steps:
        if given := [name for name in ("along", "frames") if getattr(words, name) is not None]:
            raise ConfigError(f"--steps films the steps that were kept; leave --{given[0]} out.")
        write_steps(words.sweep, words.steps, seed, words.to or words.sweep, words.seconds)
        return

    from embedlab.view.film.tracks import read_tracks

    report_unread(words.sweep)
    tracks = read_tracks(words.sweep, words.along, seed)
    aside(f"filming {one_line(tracks.key)}")

    from tqdm import tqdm

    from embedlab.models.silence import silence_libraries
    from embedlab.view.film.render import render_films
    from embedlab.view.film.video import kind_of, write_films

    kind_of(words.to)
    if tracks.left_out:
        values = listed(f"{value:g}" for value in tracks.left_out)
        print(f"notice: left out {tracks.name} {values}: a picture is missing there.")
    # on a terminal, UNet calls as they are made; elsewhere nothing
    with (
        silence_libraries(),
        tqdm(
            desc=f"film along {one_line(tracks.key)}",
            unit=" UNet calls",
            disable=None,
            leave=False,
            file=drawn_on(sys.stderr),
        ) as bar,
    ):
        films = render_films(tracks, frames, words.pace, words.trust, lambda step: bar.update())
    for pace, film in films.items():
        if film.steps:
            print(f"{pace}: {film}")
    to = words.to or words.sweep
    there = {*to.iterdir()} if to.is_dir() else {to} if to.is_file() else set()
    paths = []
    for path in write_films(films, tracks, to, words.seconds):
        print(path, flush=True)
        paths.append(path)
    if over := [path.name for path in paths if path in there]:
        were = "was" if len(over) == 1 else "were"
        say(f"notice: {listed(over)} of an earlier film {were} written over; --to PATH keeps both.")


def write_steps(folder: Path, kind: str, seed: int | str | None, to: Path, seconds: float) -> None:
    """Write the film of the kept steps of a job or a sweep, and print where it is."""
    from embedlab.view.film.render import film_of_steps
    from embedlab.view.film.tracks import read_step_tracks
    from embedlab.view.film.video import kind_of, write_films

    kind_of(to)
    tracks = read_step_tracks(folder, kind, seed)
    if seconds / len(tracks.values) < 0.02:
        raise ConfigError(f"{len(tracks.values)} frames in {seconds:g} seconds are more than the 50 a second of a GIF.")
    for path in write_films({"steps": film_of_steps(tracks)}, tracks, to, seconds):
        print(path, flush=True)
