"""TensorBoard as a tracker."""

from __future__ import annotations

import io
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from embedlab.tracker.chart import chart
from embedlab.tracker.protocol import JOB, About, Run, Summary, flat, need, own_id, safe

FOLDER = "tensorboard"
OWNER = "run-id"  # a file beside the events: whose they are


@dataclass(frozen=True)
class TensorBoard:
    """Event files in the folder `tensorboard` of the sweep, a run each: `tensorboard --logdir SWEEP/tensorboard`.

    What varies stands with the scores in its table of hyperparameters (HPARAMS).
    """

    def ready(self) -> None:
        """The package has to be there."""
        need("tensorboard", "tracker=tensorboard", "tensorboard")

    @contextmanager
    def run(
        self, name: str, folder: Path, config: Mapping[str, Any], group: str | None = None, about: About = JOB
    ) -> Iterator[Run]:
        self.ready()
        from torch.utils.tensorboard import summary  # noqa: PLC0415  (it is there where tensorboard is)
        from torch.utils.tensorboard.writer import FileWriter  # noqa: PLC0415

        place = place_of((about.home or folder) / FOLDER, name, own_id(folder))
        run = _TensorBoardRun(FileWriter(str(place)), summary, config, about)
        try:
            yield run
            run.conclude()
        finally:
            run.writer.close()

    def look(self, folder: Path) -> str:
        """How to open its page."""
        return f"Its TensorBoard: tensorboard --logdir {shlex.quote(str(folder / FOLDER))}"


def place_of(home: Path, name: str, owner: str) -> Path:
    """An empty folder for a run below `home`, by its name; what this owner had there is taken away."""
    for file in home.glob(f"*/{OWNER}"):
        if file.read_text(encoding="ascii", errors="replace") == owner:
            shutil.rmtree(file.parent)
    place = home / safe(name)
    number = 1
    while place.exists():
        number += 1
        place = home / f"{safe(name)}-{number}"
    place.mkdir(parents=True)
    (place / OWNER).write_text(owner, encoding="ascii")
    return place


class _TensorBoardRun:
    def __init__(self, writer: Any, made: Any, config: Mapping[str, Any], about: About):
        self.writer = writer
        self.made = made  # torch's functions that make what it writes
        self.config = config
        self.about = about
        self.summary = Summary()
        said = [about.notes, f"{about.kind}, tags: {', '.join(about.tags)}" if about.tags else about.kind]
        self._text("about", "\n\n".join(line for line in said if line))
        settings = {key: value for key, value in flat(config).items() if not key.startswith("axes.")}
        self._text("config", markdown(["setting", "value"], list(settings.items())))

    def _text(self, tag: str, text: str) -> None:
        self.writer.add_summary(self.made.text(tag, text), 0)

    def _image(self, tag: str, picture: Image.Image, caption: str, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary as Proto
        from tensorboard.compat.proto.summary_pb2 import SummaryMetadata

        file = io.BytesIO()
        picture.save(file, format="PNG")
        image = Proto.Image(
            height=picture.height, width=picture.width, colorspace=3, encoded_image_string=file.getvalue()
        )
        about = SummaryMetadata(display_name=tag, summary_description=caption)
        self.writer.add_summary(Proto(value=[Proto.Value(tag=tag, image=image, metadata=about)]), step)

    def scores(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.summary.add(values, step)
        if step is not None:
            for key, value in values.items():
                self.writer.add_summary(self.made.scalar(key, value), step)

    def pictures(self, key: str, pictures: Sequence[tuple[Image.Image, str]], step: int | None = None) -> None:
        for n, (picture, caption) in enumerate(pictures):
            tag = key if len(pictures) == 1 else f"{key}/{n}"
            self._image(tag, picture.convert("RGB"), caption, step or 0)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._text(key, markdown(columns, rows))

    def curves(self, key: str, axis: str, at: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> None:
        if all(float(x).is_integer() and x >= 0 for x in at):  # its charts are over whole steps
            for name, values in lines.items():
                for x, value in zip(at, values, strict=True):
                    if value is not None:
                        self.writer.add_summary(self.made.scalar(f"{key}/{name}", value), int(x))
        else:
            self._image(key, chart(key, axis, at, lines), key, 0)

    def file(self, name: str, path: Path) -> None:
        self._text(f"files/{name}", f"`{path.name}`")

    def conclude(self) -> None:
        """The scores as points, and beside what was set: a row of the table of hyperparameters."""
        numbers = self.summary.numbers
        for key, value in numbers.items():
            self.writer.add_summary(self.made.scalar(key, value), 0)
        if self.about.kind != "sweep" and numbers:
            for summary in self.made.hparams(flat(self.config.get("axes") or {}), numbers):
                self.writer.add_summary(summary)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as Markdown, without its columns of pictures; what users wrote is neither Markdown nor HTML in it.

    >>> print(markdown(["picture", "seed", "a|b"], [[Image.new("RGB", (8, 8)), 0, "<b>*x*</b>"], [None, 1, 0.123456]]))
    | seed | a&#124;b |
    |---|---|
    | 0 | &lt;b&gt;&#42;x&#42;&lt;/b&gt; |
    | 1 | 0.1235 |
    """
    kept = [n for n in range(len(columns)) if not any(isinstance(row[n], Image.Image) for row in rows)]
    lines = [[_cell(columns[n]) for n in kept], *([_cell(row[n]) for n in kept] for row in rows)]
    texts = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([texts[0], "|" + "---|" * len(kept), *texts[1:]])


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"&#{ord(sign)};" if sign in "|*_`[]\\" else sign for sign in text)
