"""PNG with its settings inside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from embedlab import readers
from embedlab.clean import redact
from embedlab.errors import ConfigError
from embedlab.files import written
from embedlab.images import infotext

KEY = "embedlab"  # the PNG text chunk that holds the settings
END = bytes.fromhex("0000000049454e44ae426082")  # the last chunk of every PNG, which is always the same


def save(picture: Image.Image, path: Path, settings: dict[str, Any] | None = None, parameters: str = "") -> Path:
    """Write a PNG, whole or not at all, with `settings` as JSON inside, and `parameters` as other tools read them."""
    chunks = PngImagePlugin.PngInfo()
    if settings is not None:
        chunks.add_itxt(KEY, json.dumps(redact(settings), ensure_ascii=False, default=str))
    if parameters:
        chunks.add_text(infotext.KEY, redact(parameters))
    try:
        written(path, lambda file: picture.save(file, format="PNG", pnginfo=chunks, compress_level=4))
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be written: {error.strerror or error}.") from None
    return path


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
