"""A tracker that writes plain files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from embedlab.files import append, write, written
from embedlab.tracker.protocol import JOB, About, Run, Summary, safe


@dataclass(frozen=True)
class Disk:
    """Plain files in the job's folder: `log/scores.jsonl` (appended and flushed line by line), PNG, tables as JSON.

    `log/summary.json`, which comes last, has one number for each score.
    """

    def ready(self) -> None:
        """It always is."""

    @contextmanager
    def run(
        self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None, about: About = JOB
    ) -> Iterator[Run]:
        run = _DiskRun(folder / "log")
        facts = {
            "name": name,
            "group": group,
            "kind": about.kind,
            "tags": about.tags,
            "notes": about.notes,
            "config": config,
        }
        write(run.folder / "run.json", json.dumps(facts, ensure_ascii=False, default=str).encode())
        yield run
        write(run.folder / "summary.json", json.dumps(run.summary.numbers).encode())


class _DiskRun:
    def __init__(self, folder: Path):
        self.folder = folder
        self.summary = Summary()
        folder.mkdir(parents=True, exist_ok=True)

    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.summary.add(values, step)
        append(self.folder / "scores.jsonl", json.dumps({"step": step, **values}) + "\n")

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        names = []
        for i, (picture, caption) in enumerate(pictures):
            name = f"{safe(key)}-{'' if step is None else f'{step}-'}{i}.png"
            written(self.folder / name, partial(picture.save, format="PNG"))
            names.append({"file": name, "caption": caption, "key": key, "step": step})
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in names]
        append(self.folder / "pictures.jsonl", "".join(lines))

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        values = [[None if isinstance(cell, Image.Image) else cell for cell in row] for row in rows]
        text = json.dumps({"columns": list(columns), "rows": values}, ensure_ascii=False)
        write(self.folder / f"{safe(key)}.json", text.encode())

    def curves(self, key: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> None:
        rows = [[x, *values] for x, *values in zip(at, *lines.values(), strict=True)]
        self.table(key, [axis, *lines], rows)

    def file(self, name: str, path: Path) -> None:
        append(self.folder / "files.jsonl", json.dumps({"name": name, "path": str(path)}) + "\n")
