"""What belongs to a whole sweep: its contact sheet, its table, its results."""

from __future__ import annotations

import csv
import json
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Collect(Callback):
    """Hydra callback: when all jobs of a multirun are done, put their pictures and scores together."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write `sheet.png` and `results.csv` into the sweep's folder, and print the table."""
        folder = Path(config.hydra.sweep.dir)
        results = collect(folder)
        if not results:
            from embedlab.app import fail

            fail("this sweep has no jobs.")
        write(folder, results)
        print(table(results))
        print(f"\nThe contact sheet is {folder.resolve() / 'sheet.png'}")


def collect(folder: Path) -> list[dict[str, Any]]:
    """The results of the jobs below a folder, finished or failed, in the order of their numbers.

    `folder` of each is where its files are. A file cut short is a job that is not there yet.
    """
    found = [path.parent for path in folder.glob("*/result.json")]
    found.sort(key=lambda path: (not path.name.isdigit(), int(path.name) if path.name.isdigit() else 0, path.name))
    results = []
    for path in found:
        try:
            results.append({**json.loads((path / "result.json").read_text()), "folder": str(path)})
        except (ValueError, TypeError):
            continue
    return results


def axes(results: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """What varies in a sweep and the values it takes: settings by the key they were set with, then the seed.

    >>> axes([{"overrides": {"guidance.scale": s, "sampler.steps": 9}, "pictures": [{"seed": 0}]} for s in (1, 4)])
    {'guidance.scale': [1, 4]}
    """
    keys = list(dict.fromkeys(key for result in results for key in result.get("overrides", {})))
    found: dict[str, list[Any]] = {}
    for key in keys:
        values: list[Any] = []
        for result in results:
            value = result.get("overrides", {}).get(key)
            if value not in values:
                values.append(value)
        if len(values) > 1:
            found[key] = values
    seeds = list(dict.fromkeys(row["seed"] for result in results for row in result["pictures"]))
    if len(seeds) > 1:
        found["seed"] = seeds
    return found


def records(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a picture: job, label, prompt, each axis, scores, status, key, files (relative to the sweep's folder)."""
    varied = [key for key in axes(results) if key != "seed"]
    rows = []
    for result in results:
        overrides, folder = result.get("overrides", {}), Path(result["folder"]).name
        for picture in result["pictures"]:
            row = {"job": result.get("job"), "label": label(result), "prompt": result["prompt"]}
            row |= {key: overrides.get(key) for key in varied}
            row |= picture
            row["status"] = "failed" if picture.get("error") else "done"
            for name in ("file", "baseline"):
                if picture.get(name):
                    row[name] = f"{folder}/{picture[name]}"
            rows.append(row)
    return rows


def label(result: dict[str, Any]) -> str:
    """What tells a job apart from the others of its sweep: its edit, where that was chosen, and what else was set.

    >>> label({"label": "as written", "name": "encoder.skip={0:0.5,2:0.5},sampler.steps=9"})
    'skip {0:0.5,2:0.5}, steps 9'
    >>> label({"label": "puppy → cat", "name": "operators.replace.by=cat,guidance.scale=2"})
    'puppy → cat, scale 2'
    """
    name = str(result.get("name") or "")
    parts = split(name) if name != result["label"] else []
    others = [part.partition("=") for part in parts if not part.lstrip("+").startswith("operators")]
    said = [f"{key.split('.')[-1]} {short(value)}" for key, _, value in others]
    return ", ".join([result["label"], *said] if len(said) < len(parts) or not parts else said)


def split(name: str) -> list[str]:
    """Overrides of a job's name; commas within brackets and quotes belong to a value.

    >>> split("a=1,b=[2,3],c='4,5'")
    ['a=1', 'b=[2,3]', "c='4,5'"]
    """
    parts, depth, quote = [""], 0, ""
    for sign in name:
        if sign in "'\"":
            quote = "" if sign == quote else quote or sign
        depth += 0 if quote else (sign in "[{(") - (sign in "]})")
        if sign == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return [part for part in parts if part]


def short(value: str) -> str:
    """A value without the path of its class.

    >>> short("{_target_: embedlab.schedule.Ramp, values: [8, 1]}")
    '{Ramp, values: [8, 1]}'
    """
    return re.sub(r"_target_:\s*(?:\w+\.)*(\w+)", r"\1", value)


def write(folder: Path, results: Sequence[dict[str, Any]]) -> None:
    """The contact sheet (a column a job, a row a seed, the unedited pictures first) and one row a picture as CSV."""
    from PIL import Image

    from embedlab import images

    seeds = list(dict.fromkeys(row["seed"] for result in results for row in result["pictures"]))
    columns: list[tuple[str, dict[int, str]]] = []
    first = results[0]
    same_text = len({result["prompt"] for result in results}) == 1
    if same_text and all("baseline" in row for row in first["pictures"]):
        columns.append(
            ("as written", {row["seed"]: f"{first['folder']}/{row['baseline']}" for row in first["pictures"]})
        )
    for result in results:
        columns.append(
            (label(result), {row["seed"]: f"{result['folder']}/{row['file']}" for row in result["pictures"]})
        )
    cells = [[Image.open(files[seed]) if seed in files else None for _, files in columns] for seed in seeds]
    title = first["prompt"] if same_text else ""
    picture = images.sheet(cells, [name for name, _ in columns], [f"seed {seed}" for seed in seeds], title)
    images.save(picture, folder / "sheet.png")

    rows = [
        {"job": label(r), "prompt": r["prompt"], **row, "folder": r["folder"]} for r in results for row in r["pictures"]
    ]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    temporary = folder / f".results.csv.{os.getpid()}"
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, folder / "results.csv")


def table(results: Sequence[dict[str, Any]]) -> str:
    """The mean scores of each job as text, a line a job."""
    drop = ("rows/", "conditioning/")
    keys = list(dict.fromkeys(key for r in results for key in r["scores"] if not key.startswith(drop)))
    names = [textwrap.shorten(label(result), 60, placeholder="…") for result in results]
    wide = max([4, *(len(name) for name in names)])
    heads = [key.replace("clip_score/", "CLIP ").replace("closest/", "is ").replace("change/", "Δ ") for key in keys]
    lines = ["  ".join([" " * wide, *heads])]
    for name, result in zip(names, results, strict=True):
        cells = [
            format_score(key, result["scores"].get(key)).rjust(len(head)) for key, head in zip(keys, heads, strict=True)
        ]
        lines.append("  ".join([name.ljust(wide), *cells]))
    return "\n".join(lines)


def format_score(key: str, value: float | None) -> str:
    """A score as people read it: CLIPScores with one digit, shares in percent."""
    if value is None:
        return "–"
    if key.startswith("clip_score/"):
        return f"{value:.1f}"
    return f"{100 * value:.0f}%" if key.startswith("closest/") else f"{value:.3f}"
