"""What a PNG says of how its picture was made, read as if a stranger had written it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from embedlab import readers
from embedlab.errors import PictureError
from embedlab.images import KEY
from embedlab.samples import RowsByCall
from embedlab.sweep.versioned import FORMAT

MOST = 256  # pictures in a batch; a file may ask for more
MOST_CALLS, MOST_ROWS = 2000, 1024  # of the UNet, and in one of them


@dataclass(frozen=True)
class Metadata:
    """The settings stored in a PNG, and its picture. What is `Any` is as it was found: unchecked."""

    picture: Image.Image
    config: Any
    seed: Any
    start: Any  # path and hash of the start picture
    concepts: Any  # path and hash of each file of textual inversion
    edited: bool
    batch: tuple[int, ...]  # position in a batch, and its size; of sources of attention its own, and how many
    versions: dict[str, str]
    runtime: dict[str, str]  # what the bits depend on beside versions; 0.1 did not store it
    model_files: str | None = None  # a hash of the model's; older pictures have none
    rows: RowsByCall = ()  # where its rows stood in the calls of the UNet, where some were shared


def read_metadata(path: Path) -> Metadata:
    """The metadata of a PNG that embedlab wrote; PictureError for any other file, and for a contact sheet."""
    if not path.is_file():
        raise PictureError(f"there is no picture '{path}'.")
    try:
        file = readers.open_picture(path, formats=["PNG"])
    except readers.NoPictureError:
        raise PictureError(f"'{path}' is no PNG; only the PNGs that embedlab writes can be made again.") from None
    text = getattr(file, "text", {}).get(KEY)
    if text is None:
        raise PictureError(f"'{path}' holds no embedlab settings; it is of another tool, or they were taken out.")
    damaged = f"the embedlab settings in '{path}' are damaged"
    try:
        settings = readers.parsed(text)
    except readers.JSONError as error:
        raise PictureError(f"{damaged}: {error}.") from None
    if not isinstance(settings, dict):
        raise PictureError(f"{damaged}: they are no JSON object.")
    form = settings.get("format", 1)
    if not isinstance(form, int) or form > FORMAT:
        raise PictureError(
            f"'{path}' was written by a newer embedlab (format {form!r}; this one reads {FORMAT}); install that."
        )
    if "seed" not in settings:
        raise PictureError(f"'{path}' is a sheet of several pictures; make one of the pictures beside it again.")
    batch = settings.get("batch", [0, 1])
    numbers = isinstance(batch, list) and len(batch) in (2, 4) and all(type(n) is int for n in batch)
    if not numbers or any(not 0 <= batch[k] < batch[k + 1] <= min(MOST, batch[1]) for k in range(0, len(batch), 2)):
        raise PictureError(f"{damaged}: {batch!r} is no place in a batch.")
    rows = settings.get("rows", [])
    if not isinstance(rows, list) or not all(map(is_layout, rows)):
        raise PictureError(f"{damaged}: {str(rows)[:80]} are no places in calls of the UNet.")
    return Metadata(
        picture=file.convert("RGB"),
        config=settings.get("config"),
        seed=settings["seed"],
        start=settings.get("start"),
        concepts=settings.get("concepts"),
        edited=bool(settings.get("edited", True)),
        batch=tuple(batch),
        versions=short_texts(settings.get("versions")),
        runtime=short_texts(settings.get("runtime")),
        model_files=short_texts(settings).get("model_files"),
        rows=tuple((calls, many, tuple(places)) for calls, many, places in rows),
    )


def is_layout(entry: Any) -> bool:
    """Whether an entry says of how many calls, how many rows each has, and where in them some stand.

    >>> is_layout([12, 2, [0, 1]]), is_layout([12, 2, [2]])
    (True, False)
    """
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[2], list):
        return False
    calls, rows, places = entry
    if not all(type(n) is int for n in (calls, rows, *places)):
        return False
    once = len(set(places)) == len(places) > 0
    return once and 0 < calls <= MOST_CALLS and 0 < rows <= MOST_ROWS and all(0 <= n < rows for n in places)


def short_texts(value: Any) -> dict[str, str]:
    r"""The entries of a mapping that are short and printable, as texts; a verdict is printed beside them.

    >>> short_texts({"torch": "2.13.0", "threads": 2, "fake": "1\nthe same, bit for bit"})
    {'torch': '2.13.0', 'threads': '2'}
    """
    pairs = value.items() if isinstance(value, dict) else ()
    texts = {str(k): str(v) for k, v in pairs if isinstance(v, str | int | bool)}
    return {k: v for k, v in texts.items() if len(k) < 40 and len(v) < 200 and (k + v).isprintable()}
