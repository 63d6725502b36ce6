"""What a gallery shows → its folder: the page, the data of the first view, details by the packet, thumbnails."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from embedlab import readers
from embedlab.clean import one_line
from embedlab.errors import ConfigError, counted
from embedlab.files import written
from embedlab.view.gallery.content import Sweep, content, details

PAGE = Path(__file__).parent / "page"
LARGE = 192  # pixels a side above which a picture gets a thumbnail
SIDE = 256  # the longer side of a thumbnail: sharp at the usual 128 on a dense screen
PACKET = 32  # jobs whose details are read at once
DRAWN = 64  # pictures that a canvas reads at once
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data:; "
    "base-uri 'none'; form-action 'none'"
)
SCRIPTS = (
    *("dom.js", "words.js", "model.js", "state.js", "layout.js", "grid.js", "about.js", "axes.js", "drawing.js"),
    *("curves.js", "details.js", "compare.js", "main.js"),
)


@dataclass(frozen=True)
class Written:
    """A gallery on the disk, and what is in it."""

    index: Path
    jobs: int
    pictures: int
    failed: int
    pending: int
    notices: tuple[str, ...]

    def __str__(self) -> str:
        counts = [counted(self.jobs, "job"), counted(self.pictures, "picture")]
        counts += [f"{self.failed} failed"] if self.failed else []
        counts += [f"{counted(self.pending, 'job')} to come"] if self.pending else []
        lines = [f"notice: {one_line(notice)}." for notice in self.notices]
        return "\n".join([*lines, f"The gallery is {self.index}: {', '.join(counts)}."])


def write(sweep: Sweep, to: Path | None = None, watched: bool = False) -> Written:
    """Write a sweep's gallery into `gallery` beside its jobs, or with copies of its pictures elsewhere.

    That of several sweeps is `gallery-A+B`, in the closest folder that holds them.
    The data comes last and names the rest, so that a page that is open meanwhile finds all it asks for.
    """
    folder = home_of(sweep) if to is None else to
    free(folder)
    try:
        (folder / "details").mkdir(parents=True, exist_ok=True)
        if not (folder / "data.js").is_file():
            put(folder / "data.js", "gallery.receive(null);\n")  # from here on the folder is known as ours
        data = content(sweep)
        data["watched"] = watched
        data["pictures"] = "../" if to is None else "pictures/"
        if to is not None:
            copy(sweep, data, folder / "pictures")
        data["thumbnails"], data["aspect"] = thumbnails(sweep, data, folder)
        packets = packed(sweep)
        for name, text in packets.items():
            if not (folder / "details" / name).is_file():
                put(folder / "details" / name, text)
        data["packets"], data["packet"] = [name.removesuffix(".js") for name in packets], PACKET
        data["drawn"] = drawn(sweep, data, folder / "drawn")
        for name in ("style.css", *SCRIPTS):
            put(folder / name, (PAGE / name).read_text(encoding="utf-8"))
        put(folder / "index.html", page(data["title"]))
        data["version"] = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]
        before = named_in(folder / "data.js")
        kept = {*before, *data["packets"], *data["drawn"]["packets"]}  # an open page may still ask for those of before
        put(folder / "data.js", f"gallery.receive({script(data)});\n")
    except OSError as error:
        raise ConfigError(f"'{error.filename or folder}' cannot be written: {error.strerror or error}.") from None
    for path in [*(folder / "details").glob("*.js"), *(folder / "drawn").glob("*.js")]:
        if path.stem not in kept:
            path.unlink()
    states = data["cells"]["state"]
    return Written(
        index=(folder / "index.html").resolve(),
        jobs=len(sweep.jobs),
        pictures=states.count(0),
        failed=states.count(1),
        pending=sweep.pending,
        notices=sweep.notices,
    )


def home_of(sweep: Sweep) -> Path:
    """Where a gallery lies when no folder is given."""
    if not sweep.parts:
        return sweep.folder / "gallery"
    if sweep.folder == Path(sweep.folder.anchor):
        raise ConfigError(f"{sweep.title} have no folder in common; give one for their page: --to FOLDER.")
    names = "+".join(re.sub(r"[^\w.-]+", "-", part) for part in sweep.parts)
    return sweep.folder / f"gallery-{names[:120]}"


def free(folder: Path) -> None:
    """Refuse a folder that holds something else."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"'{folder}' is a file; a gallery needs a folder, new or its own.")
    if folder.is_dir() and any(folder.iterdir()):
        try:
            mine = (folder / "data.js").read_text(encoding="utf-8").startswith("gallery.receive(")
        except (OSError, ValueError):
            mine = False
        if not mine:
            raise ConfigError(f"'{folder}' holds something else already; a gallery needs a folder, new or its own.")


def put(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    written(path, lambda file: file.write(text.encode()))


def script(value: Any) -> str:
    r"""A value as JavaScript that no HTML parser can leave: ASCII, with no angle brackets.

    >>> script("</script> ✓")
    '"\\u003c/script\\u003e \\u2713"'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page(title: str, **inline: Any) -> str:
    """The page; what varies in it is text, and escaped. Left out, its scripts, style and data lie beside it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    house = Environment(loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined)
    beside = {"policy": POLICY, "scripts": SCRIPTS, "style": "", "data": ""}
    return house.get_template("index.html").render(title=title, **beside | inline)


def named_in(path: Path) -> list[str]:
    """The packets that the data of before named."""
    try:
        found = re.findall(r'"packets":\[([^\]]*)\]', path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return re.findall(r"[0-9a-f]+", " ".join(found))


def packed(sweep: Sweep) -> dict[str, str]:
    """Details of all jobs as scripts, `PACKET` jobs in each, named by what they hold.

    Settings that all jobs of a packet share are written once; gzip finds the rest.
    """
    scripts = {}
    for begin in range(0, len(sweep.jobs), PACKET):
        jobs = [details(job) for job in sweep.jobs[begin : begin + PACKET]]
        common = shared([job.get("settings") for job in jobs])
        for job in jobs:
            if "settings" in job:
                job["settings"] = {k: v for k, v in job["settings"].items() if k not in common}
        text = json.dumps({"first": begin, "common": common, "jobs": jobs}, separators=(",", ":"), default=str)
        held = gzip.compress(text.encode(), 9, mtime=0)
        name = hashlib.sha256(held).hexdigest()[:16]
        scripts[f"{name}.js"] = f'gallery.unpack("{name}","{base64.b64encode(held).decode()}");\n'
    return scripts


def shared(settings: Sequence[dict[str, str] | None]) -> dict[str, str]:
    """What all settings that are there have in common."""
    there = [s for s in settings if s]
    return {k: v for k, v in there[0].items() if all(s.get(k) == v for s in there[1:])} if there else {}


# ── pictures ──────────────────────────────────────────────────────────────────────────────────────────────────────


def pictures_of(data: dict[str, Any]) -> list[tuple[int, str, str]]:
    """Every picture of a gallery: its cell, whether it is its `file` or its `baseline`, and where it lies."""
    cells, jobs, texts = data["cells"], data["jobs"], data["texts"]
    return [
        (n, kind, f"{jobs['folder'][job]}/{texts[cells[kind][n]]}")
        for n, job in enumerate(cells["job"])
        for kind in ("file", "baseline")
        if cells[kind][n] >= 0
    ]


def drawn(sweep: Sweep, data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Small pictures as scripts, `DRAWN` in each, and which of them each cell has.

    A page that is opened from the disk shows the files beside it and may not read them: a canvas that has drawn one
    gives nothing out. What is handed over by a script may be read, and so saved as one picture with its labels.
    """
    numbers: dict[str, int] = {}
    first: list[Path] = []
    cells: dict[str, list[int]] = {kind: [-1] * len(data["cells"]["job"]) for kind in ("file", "baseline")}
    found = [(n, kind, sweep.folder / name) for n, kind, name in pictures_of(data)]
    for n, kind, path in sorted(found, key=lambda one: when_made(one[2])):  # what comes later changes no earlier script
        own = numbers.setdefault(same_picture(path), len(numbers))
        if own == len(first):
            first.append(path)
        cells[kind][n] = own
    names = []
    for begin in range(0, len(first), DRAWN):
        paths = first[begin : begin + DRAWN]
        name = hashlib.sha256("".join(map(same_picture, paths)).encode()).hexdigest()[:16]
        names.append(name)
        if not (folder / f"{name}.js").is_file():
            folder.mkdir(exist_ok=True)
            pictures = json.dumps([as_address(path) for path in paths])
            put(folder / f"{name}.js", f'gallery.unfold("{name}",{pictures});\n')
    return {"packets": names, "packet": DRAWN, **cells}


def when_made(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def same_picture(path: Path) -> str:
    """What is equal for two files of the same picture: length and end, where PNG keeps its checksums."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 4096))
            return f"{size} {hashlib.sha256(file.read()).hexdigest()}"
    except OSError:
        return f"none {path}"


def as_address(path: Path) -> str:
    """A picture, `SIDE` pixels large at most, as a data address; empty where it cannot be read."""
    try:
        with readers.open_picture(path) as picture:
            picture.draft("RGB", (SIDE, SIDE))
            small, into = picture.convert("RGB"), BytesIO()
    except (OSError, ValueError, SyntaxError):
        return ""
    small.thumbnail((SIDE, SIDE))
    small.save(into, format="WEBP", quality=90, method=2)
    return f"data:image/webp;base64,{base64.b64encode(into.getvalue()).decode()}"


def maps_of(data: dict[str, Any]) -> list[str]:
    """Every heat map and every strip of steps of a gallery: where it is in the sweep."""
    cells, jobs, texts = data["cells"], data["jobs"], data["texts"]
    pairs = [(job, k) for job, maps in zip(cells["job"], cells["maps"], strict=True) for k in maps]
    pairs += [(job, k) for job, k in zip(cells["job"], cells["strip"], strict=True) if k >= 0]
    return [f"{jobs['folder'][job]}/{texts[k]}" for job, k in pairs]


def copy(sweep: Sweep, data: dict[str, Any], folder: Path) -> None:
    """Copy all pictures of a gallery; those that are there already stay."""
    for name in [*(name for *_, name in pictures_of(data)), *maps_of(data)]:
        source, target = sweep.folder / name, folder / name
        if not (target.is_file() and newer(target, source) and target.stat().st_size == source.stat().st_size):
            with source.open("rb") as there:
                written(target, partial(shutil.copyfileobj, there))


def newer(file: Path, source: Path) -> bool:
    """Whether a file was made after another."""
    return file.is_file() and when_made(file) >= when_made(source)


def thumbnails(sweep: Sweep, data: dict[str, Any], folder: Path) -> tuple[list[int], float]:
    """Make the thumbnails of large pictures; answers with 1 for each cell that has them, and width by height."""
    has_one, aspects = [0] * len(data["cells"]["job"]), list[float]()
    for n, _, name in pictures_of(data):
        try:
            with readers.open_picture(sweep.folder / name) as picture:
                aspects.append(picture.width / picture.height)
                if max(picture.size) <= LARGE:
                    continue
                target = folder / "thumbnails" / f"{name}.webp"
                if not newer(target, sweep.folder / name):
                    picture.draft("RGB", (SIDE, SIDE))
                    small = picture.convert("RGB")
                    small.thumbnail((SIDE, SIDE))
                    written(target, partial(small.save, format="WEBP", quality=72, method=2))
                has_one[n] = 1
        except (OSError, ValueError, SyntaxError):  # a picture that cannot be read says so on the page
            continue
    return has_one, round(Counter(aspects).most_common(1)[0][0], 4) if aspects else 1.0
