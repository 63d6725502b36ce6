"""PNG with its settings inside."""

from __future__ import annotations

import io
import json
import os
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from embedlab import readers
from embedlab.clean import redact
from embedlab.errors import ConfigError
from embedlab.files import written
from embedlab.images import infotext

HEAD = 33  # bytes of a PNG before which nothing else may come: its signature and the chunk that says its size
KEY = "embedlab"  # the PNG text chunk that holds the settings
END = bytes.fromhex("0000000049454e44ae426082")  # the last chunk of every PNG, which is always the same


def save(picture: Image.Image, path: Path, settings: dict[str, Any] | None = None, parameters: str = "") -> Path:
    """Write a PNG, whole or not at all, with `settings` as JSON inside, and `parameters` as other tools read them."""
    chunks = PngImagePlugin.PngInfo()
    if settings is not None:
        chunks.add_itxt(KEY, json.dumps(redact(settings), ensure_ascii=False, default=str))
    if parameters:
        chunks.add_text(infotext.KEY, redact(parameters))
    texts = b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data, *_ in chunks.chunks
    )
    data = encoded(picture)
    try:
        written(path, lambda file: file.write(data[:HEAD] + texts + data[HEAD:]))
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be written: {error.strerror or error}.") from None
    return path


def encoded(picture: Image.Image) -> bytes:
    """A picture as a PNG without texts; those encoded last are known, because jobs share their unedited pictures.

    >>> picture = Image.new("RGB", (8, 8), "red")
    >>> encoded(picture) is encoded(picture.copy())
    True
    """
    return _encoded(picture.mode, picture.size, picture.tobytes())


@lru_cache(maxsize=32)
def _encoded(mode: str, size: tuple[int, int], pixels: bytes) -> bytes:
    file = io.BytesIO()
    Image.frombytes(mode, size, pixels).save(file, format="PNG", compress_level=2)
    return file.getvalue()


def is_whole(path: Path) -> bool:
    """Whether a PNG is there to its end."""
    try:
        readers.check_file(path)
        with path.open("rb") as file:
            file.seek(-len(END), os.SEEK_END)
            return file.read() == END
    except (OSError, ConfigError):
        return False


def settings_of(path: Path) -> dict[str, Any]:
    """The settings inside a PNG that embedlab wrote."""
    text = getattr(readers.open_picture(path), "text", {}).get(KEY)
    if text is None:
        raise ConfigError(f"'{path}' holds no embedlab settings.")
    settings: dict[str, Any] = readers.parsed(text)
    return settings
