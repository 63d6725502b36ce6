"""Run the studies of conf/experiment and write docs/studies.md: question, command, picture, what was seen.

    python docs/studies.py            # all of them (about a minute each on two cores)
    python docs/studies.py layers     # some
    python docs/studies.py --page     # the page only, from the configs' own comments

What was seen is written by hand, under the question in the study's config, after looking at its picture.
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
STUDIES = sorted((ROOT / "conf" / "experiment").glob("*.yaml"))
PICTURES = ROOT / "docs" / "studies"
WIDEST = 1200  # pixels, for the page
FIRST = ("turned_over", "counting", "colour_leaks", "window_not_read", "arithmetic", "when_placed", "layers")


def page() -> str:
    """The whole page, from the comments at the head of every study."""
    made = (
        f"{len(STUDIES)} studies on the default model, made by `python docs/studies.py`: rows are seeds, columns jobs. "
        "The eye is the detector that ships ([what it says](trackers.md)); rates over more seeds than a sheet has are "
        "printed by `python docs/rates.py`. To begin with: " + ", ".join(f"[{name}](#{name})" for name in FIRST) + "."
    )
    parts = ["# What was asked, and what was seen", "", made]
    for study in STUDIES:
        comment = [line[2:] for line in study.read_text().splitlines()[1:] if line.startswith("# ")]
        seen = next(n for n, line in enumerate(comment) if line.startswith("Seen: "))
        question = " ".join(line for line in comment[:seen] if not line.startswith("  "))
        told = " ".join(comment[seen:]).removeprefix("Seen: ")
        told = told[0].upper() + told[1:]
        typed = [f"    {line.strip()}" for line in comment if line.startswith("  embedlab ")]
        parts += ["", f"## {study.stem}", "", question, "", *typed, "", told, ""]
        parts += [f"![{study.stem}](studies/{study.stem}.jpg)"]
    inside = "SD 1 beside 2 and XL, what 227 rows cost against 77, what twice the side costs: [inside.md](inside.md)."
    parts += ["", "## What a model is made of", "", inside]
    return "\n".join(parts) + "\n"


def commands(name: str) -> list[list[str]]:
    """The words of the commands at the head of a study; the last one draws it."""
    lines = (ROOT / f"conf/experiment/{name}.yaml").read_text().splitlines()
    return [shlex.split(line[2:])[1:] for line in lines if line.startswith("#   embedlab ")]


def run(name: str) -> None:
    """One study into outputs/studies, and its sheet onto the page."""
    folder = ROOT / "outputs" / "studies" / name
    *before, words = commands(name)
    sweeps = "MULTIRUN" in (ROOT / f"conf/experiment/{name}.yaml").read_text() or "prompts=" in " ".join(words)
    words = [*words, f"hydra.{'sweep' if sweeps else 'run'}.dir={folder}"]
    shutil.rmtree(folder, ignore_errors=True)
    for each in (*before, words):
        subprocess.run([sys.executable, "-m", "embedlab", *each, "tracker=silent"], check=True, cwd=ROOT)
    sheet = folder / ("steps.png" if (folder / "steps.png").is_file() else "sheet.png")
    picture = Image.open(sheet).convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.LANCZOS)
    PICTURES.mkdir(exist_ok=True)
    picture.save(PICTURES / f"{name}.jpg", quality=85, subsampling=0)


if __name__ == "__main__":
    if sys.argv[1:] != ["--page"]:
        for name in sys.argv[1:] or [study.stem for study in STUDIES]:
            run(name)
    (ROOT / "docs" / "studies.md").write_text(page())
