"""Run the studies of conf/experiment and write docs/studies.md: question, command, picture, what was seen.

    python docs/studies.py            # all of them (about a minute each on two cores)
    python docs/studies.py layers     # some
    python docs/studies.py --page     # the page only, from the configs' own comments and the tables of results

What was seen is written by hand, under the question in the study's config, after looking at its picture. Its numbers
come from the study's table (docs/studies/NAME.csv) where docs/claims.py has a sentence for them.
"""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import claims

ROOT = Path(__file__).parent.parent
STUDIES = sorted((ROOT / "conf" / "experiment").glob("*.yaml"))
PICTURES = ROOT / "docs" / "studies"
WIDEST = 1200  # pixels, for the page
FIRST = ("turned_over", "counting", "colour_leaks", "window_not_read", "arithmetic", "when_placed", "layers")
KEPT = ("change/ssim", "change/cosine", "round_trip/", "attention/")  # scores that a table keeps, by their beginnings
SEEN = 0.3  # the least probability of a thing that a table keeps


# ── the page ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def page(tables: Path = PICTURES) -> str:
    """The whole page, from the comments at the head of every study, with the numbers of these tables of results.

    Raises ValueError for a sentence that does not hold any more.
    """
    made = (
        f"{len(STUDIES)} studies on the default model, made by `python docs/studies.py`: rows are seeds, columns jobs. "
        "The eye is the detector that ships ([what it says](trackers.md)); rates over more seeds than a sheet has are "
        "printed by `python docs/rates.py`. To begin with: " + ", ".join(f"[{name}](#{name})" for name in FIRST) + "."
    )
    parts = ["# Studies: what was asked, and what was seen", "", made]
    for study in STUDIES:
        comment = comment_of(study)
        seen = next(n for n, line in enumerate(comment) if line.startswith("Seen: "))
        question = " ".join(line for line in comment[:seen] if not line.startswith("  "))
        told = said(study.stem)
        if study.stem in claims.CLAIMS:
            told = claims.filled(study.stem, told, claims.read(tables / f"{study.stem}.csv"))
        told = told[0].upper() + told[1:]
        typed = [f"    {line.strip()}" for line in comment if line.startswith("  embedlab ")]
        parts += ["", f"## {study.stem}", "", question, "", *typed, "", told, *checked(study.stem, tables), ""]
        parts += [f"![{study.stem}](studies/{study.stem}.jpg)"]
    inside = "SD 1 beside 2 and XL, what 227 rows cost against 77, what twice the side costs: [inside.md](inside.md)."
    parts += ["", "## What a model is made of", "", inside]
    return "\n".join(parts) + "\n"


def comment_of(study: Path) -> list[str]:
    """The lines of the comment at the head of a study."""
    return [line[2:] for line in study.read_text(encoding="utf-8").splitlines()[1:] if line.startswith("# ")]


def said(name: str) -> str:
    """What was seen in a study, as its config has it."""
    comment = comment_of(ROOT / f"conf/experiment/{name}.yaml")
    seen = next(n for n, line in enumerate(comment) if line.startswith("Seen: "))
    return " ".join(comment[seen:]).removeprefix("Seen: ")


def checked(name: str, tables: Path) -> list[str]:
    """What is said of the sentences of a study that its results bear out."""
    count = len(claims.CLAIMS.get(name, ()))
    if not count:
        return []
    table = claims.read(tables / f"{name}.csv")
    what = "One sentence is" if count == 1 else f"{claims.WORDS[count].capitalize()} sentences are"
    return ["", f"*{what} checked against [what the eye saw on {len(table)} pictures](studies/{name}.csv).*"]


def fill(name: str, table: Path) -> None:
    """Put the numbers of a table into the config's comment; ValueError where a sentence no longer holds."""
    path = ROOT / f"conf/experiment/{name}.yaml"
    text = said(name)
    told = claims.filled(name, text, claims.read(table))
    if told == text:
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("# Seen: "))
    end = next(n for n in range(start, len(lines)) if not lines[n].startswith("# "))
    wrapped = textwrap.wrap(f"Seen: {told}", 118, break_on_hyphens=False, break_long_words=False)
    path.write_text(
        "\n".join([*lines[:start], *(f"# {line}" for line in wrapped), *lines[end:]]) + "\n", encoding="utf-8"
    )


# ── a study ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def commands(name: str) -> list[list[str]]:
    """The words of the commands at the head of a study; the last one draws it."""
    lines = (ROOT / f"conf/experiment/{name}.yaml").read_text().splitlines()
    return [shlex.split(line[2:])[1:] for line in lines if line.startswith("#   embedlab ")]


def run(name: str, folder: Path, store: Path | None = None) -> None:
    """One study into a folder; with a store, on one thread, pictures that are there already are taken from it."""
    *before, words = commands(name)
    sweeps = "MULTIRUN" in (ROOT / f"conf/experiment/{name}.yaml").read_text() or "prompts=" in " ".join(words)
    words = [*words, f"hydra.{'sweep' if sweeps else 'run'}.dir={folder}", *([f"store={store}"] if store else [])]
    shutil.rmtree(folder, ignore_errors=True)
    quiet = {"capture_output": True, "env": {**os.environ, "OMP_NUM_THREADS": "1"}} if store else {}
    for each in (*before, words):
        done = subprocess.run(
            [sys.executable, "-m", "embedlab", *each, "tracker=silent"], check=False, cwd=ROOT, **quiet
        )
        if done.returncode:
            raise RuntimeError(f"embedlab {shlex.join(each)}: {(done.stderr or b'').decode()[-1000:]}")


def draw(folder: Path, picture: Path) -> None:
    """The sheet of a finished study, as the page shows it."""
    sheet = Image.open(folder / ("steps.png" if (folder / "steps.png").is_file() else "sheet.png")).convert("RGB")
    if sheet.width > WIDEST:
        sheet = sheet.resize((WIDEST, round(sheet.height * WIDEST / sheet.width)), Image.Resampling.LANCZOS)
    picture.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(picture, quality=85, subsampling=0)


def tabulate(folder: Path, table: Path) -> None:
    """What the eye sees on every picture of a finished study, with the settings that vary; unedited pictures once."""
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        results = list(csv.DictReader(file))
    keys = list(results[0])
    axes = {key: key.rsplit(".", 1)[-1] for key in keys[2 : keys.index("seed")]}
    if len(set(axes.values())) < len(axes):
        axes = {key: key for key in axes}
    scores = [key for key in keys if key.startswith(KEPT)]
    axes = {key: short for key, short in axes.items() if len({result[key] for result in results}) > 1}
    rows, known = [], set[bytes]()
    for result in results:
        settings = {short: result[key] for key, short in axes.items()}
        files = [("yes", result["file"])] + ([("no", result["baseline"])] if result.get("baseline") else [])
        for edited, name in files:
            path = folder / name
            if edited == "no":
                mark = Image.open(path).convert("RGB").tobytes()
                if mark in known:
                    continue
                known.add(mark)
            figures = {key: result[key] if edited == "yes" else "" for key in scores}
            rows.append(({**settings, "seed": result["seed"], "edited": edited}, path, figures))
    seen = list(sights([path for _, path, _ in rows]))
    with table.open("w", encoding="utf-8", newline="") as file:
        fields = [*axes.values(), "seed", "edited", "seen", "ground", *scores]
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        for (settings, _, figures), what in zip(rows, seen, strict=True):
            writer.writerow({**settings, **what, **figures})


def sights(files: list[Path]) -> Iterator[dict[str, str]]:
    """What the eye sees on pictures: things with probability, middle, size and colour; the ground."""
    import torch

    import embedlab as lab

    pictures = torch.stack([lab.to_tensor(Image.open(file).convert("RGB")) for file in files])
    for found in lab.detect(pictures, lab.load("emoji")):
        things = [
            f"{thing.word} {thing.probability:.2f} {thing.x:.0f} {thing.y:.0f} {thing.size:.0f} {thing.colour}"
            for thing in found.things
            if thing.probability >= SEEN
        ]
        yield {"seen": "; ".join(things), "ground": found.ground}


if __name__ == "__main__":
    if sys.argv[1:] != ["--page"]:
        for one in sys.argv[1:] or [study.stem for study in STUDIES]:
            made = ROOT / "outputs" / "studies" / one
            run(one, made)
            draw(made, PICTURES / f"{one}.jpg")
            tabulate(made, PICTURES / f"{one}.csv")
    for one in claims.CLAIMS:
        fill(one, PICTURES / f"{one}.csv")
    (ROOT / "docs" / "studies.md").write_text(page(), encoding="utf-8")
