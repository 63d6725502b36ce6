"""What `Sampler.keep` and `Sampler.watch` leave in a job's folder: strips of steps, tensors and curves."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from safetensors.torch import save

from embedlab import images, readers
from embedlab.errors import EmbedlabError
from embedlab.files import write
from embedlab.sampler import STEP, step_name
from embedlab.samples import Rendered
from embedlab.sweep.tables import as_csv

CURVES, TENSORS = "curves.csv", "steps.safetensors"
KINDS = ("latents", "x0")
TITLES = {"latents": "latents", "x0": "predicted x0"}


def strip_of(rendered: Rendered, image: int) -> Image.Image:
    """The kept steps of one image: what the latents hold, and what the model makes of them."""
    rows = [
        [
            None if (shown := getattr(step, kind)) is None else images.to_pil(shown[image : image + 1])[0]
            for step in rendered.steps
        ]
        for kind in KINDS
    ]
    heads = [step_name(step.step).replace("-", " ") for step in rendered.steps]
    return images.sheet(rows, heads, list(TITLES.values()), str(rendered.cell.prompt))


def write_strips(folder: Path, rendered: Rendered) -> list[str]:
    """The kept steps of each image as pictures, and as a strip; answers with the files of the strips."""
    strips = []
    for n, seed in enumerate(rendered.seeds if rendered.steps else ()):
        strips.append(f"steps/seed-{seed}.png")
        images.save(strip_of(rendered, n), folder / strips[-1])
        for step in rendered.steps:
            for kind in KINDS:
                if (shown := getattr(step, kind)) is not None:
                    images.save(images.to_pil(shown[n : n + 1])[0], folder / file_of(step.step, seed, kind))
    return strips


def file_of(step: int, seed: int, kind: str) -> str:
    """The file of a kept step in a job's folder.

    >>> file_of(5, 0, "x0"), file_of(-1, 0, "latents")
    ('steps/step-5-seed-0-x0.png', 'steps/start-seed-0-latents.png')
    """
    return f"steps/{step_name(step)}-seed-{seed}-{kind}.png"


def write_watched(folder: Path, pictures: Mapping[str, Rendered]) -> None:
    """Tensors and curves of some pictures, by whether they are edited; nothing where none were asked for."""
    tensors = {
        f"{which} seed-{seed} {name}": tensor.contiguous()
        for which, rendered in pictures.items()
        for seed, mine in zip(rendered.seeds, rendered.tensors, strict=True)
        for name, tensor in mine.items()
    }
    if tensors:
        write(folder / TENSORS, save(tensors))
    rows = [
        {"picture": which, "seed": seed, **{name: plain(line[k], name) for name, line in curves.items()}}
        for which, rendered in pictures.items()
        for seed, curves in zip(rendered.seeds, rendered.curves, strict=True)
        for k in range(len(curves.get(STEP, ())))
    ]
    if rows:
        write(folder / CURVES, as_csv(rows, list(dict.fromkeys(key for row in rows for key in row))))


def plain(value: float, name: str) -> float | int | None:
    """A figure as it is written: steps are whole, and what is none is empty."""
    if math.isnan(value):
        return None
    return int(value) if name == STEP else round(value, 6)


def read_curves(folder: Path) -> dict[str, tuple[list[float], dict[str, list[float | None]]]]:
    """The curves of a job's edited pictures, as `write_watched` left them: by name the steps, and a line a seed."""
    try:
        rows = list(csv.DictReader(io.StringIO(readers.read_bytes(folder / CURVES).decode())))
        mine = [row for row in rows if row["picture"] == "edited"]
        steps = sorted({int(row[STEP]) for row in mine})
        found = {}
        for name in mine[0] if mine else ():
            if name not in ("picture", "seed", STEP):
                known = {(row["seed"], int(row[STEP])): float(row[name]) for row in mine if row[name]}
                seeds = dict.fromkeys(row["seed"] for row in mine)
                lines = {f"seed {seed}": [known.get((seed, step)) for step in steps] for seed in seeds}
                found[name] = [float(step) for step in steps], lines
    except (OSError, EmbedlabError, ValueError, KeyError, TypeError, csv.Error):
        return {}
    return found
