"""latents ↔ images; the contact sheet; PNG with its settings inside."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from embedlab import infotext
from embedlab.errors import ConfigError

KEY = "embedlab"  # the PNG text chunk that holds the settings


def decode(latents: Float[Tensor, "row c h w"], vae: Any, at_once: int = 16) -> Float[Tensor, "row 3 height width"]:
    """Scaled latents → pictures in [0, 1], float32 on the CPU."""
    latents = (latents / vae.config.scaling_factor).to(vae.device, vae.dtype)
    pictures = [vae.decode(part, return_dict=False)[0] for part in latents.split(at_once)]
    return torch.cat(pictures).float().add(1).div(2).clamp(0, 1).cpu()


def to_pil(pictures: Float[Tensor, "row 3 height width"]) -> list[Image.Image]:
    """Pictures in [0, 1] as 8-bit images."""
    arrays = pictures.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array) for array in arrays]


def to_tensor(picture: Image.Image, size: tuple[int, int] | None = None) -> Float[Tensor, "3 height width"]:
    """A picture in [0, 1]; with `size` (height, width) it is cut to that shape about its middle and resized."""
    picture = picture.convert("RGB")
    if size and picture.size != size[::-1]:
        from PIL import ImageOps

        picture = ImageOps.fit(picture, size[::-1], Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(255)


def save(picture: Image.Image, path: Path, settings: dict[str, Any] | None = None, parameters: str = "") -> Path:
    """Write a PNG, whole or not at all, with `settings` as JSON inside, and `parameters` as other tools read them."""
    chunks = PngImagePlugin.PngInfo()
    if settings is not None:
        chunks.add_itxt(KEY, json.dumps(settings, ensure_ascii=False, default=str))
    if parameters:
        chunks.add_text(infotext.KEY, parameters)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            picture.save(file, format="PNG", pnginfo=chunks)
        os.replace(temporary, path)
    except OSError as error:
        if temporary.is_file():
            temporary.unlink()
        raise ConfigError(f"'{path}' cannot be written: {error.strerror or error}.") from None
    return path


def settings_of(path: Path) -> dict[str, Any]:
    """The settings inside a PNG that embedlab wrote."""
    with Image.open(path) as picture:
        text = getattr(picture, "text", {}).get(KEY)
    if text is None:
        raise ConfigError(f"'{path}' holds no embedlab settings.")
    return json.loads(text)


def sheet(
    cells: Sequence[Sequence[Image.Image | None]],
    columns: Sequence[str],
    rows: Sequence[str],
    title: str = "",
    side: int | None = None,
) -> Image.Image:
    """A contact sheet: pictures by row and column with readable labels; a missing picture leaves its place grey.

    Long labels are broken at spaces; what does not fit in three lines ends in an ellipsis.
    """
    first = next(p for row in cells for p in row if p is not None)
    side = side or min(256, max(112, first.width))
    height = round(side * first.height / first.width)
    font, small = ImageFont.load_default(13), ImageFont.load_default(15)
    gap, edge = 4, 10
    wrapped = [wrap(label, font, side - 4) for label in columns]
    left = edge + max((int(font.getlength(label)) for label in rows), default=0) + (8 if any(rows) else 0)
    head = edge + (26 if title else 0) + 16 * max((len(lines) for lines in wrapped), default=0) + 4
    width = left + len(columns) * (side + gap) + edge - gap
    canvas = Image.new("RGB", (width, head + len(rows) * (height + gap) + edge - gap), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((edge, edge - 2), shorten(plain(title), small, width - 2 * edge), "black", small)
    for c, lines in enumerate(wrapped):
        for k, line in enumerate(lines):
            x = left + c * (side + gap) + (side - font.getlength(line)) / 2
            pen.text((x, head - 4 - 16 * (len(lines) - k)), line, "#333333", font)
    for r, row in enumerate(cells):
        y = head + r * (height + gap)
        pen.text((left - 8 - font.getlength(rows[r]), y + height / 2 - 8), rows[r], "#333333", font)
        for c, picture in enumerate(row):
            x = left + c * (side + gap)
            if picture is None:
                pen.rectangle((x, y, x + side - 1, y + height - 1), "#dddddd")
            else:
                canvas.paste(picture.resize((side, height), Image.Resampling.LANCZOS), (x, y))
    return canvas


def plain(label: str) -> str:
    """A label in letters that Pillow's own font has."""
    for sign, letters in {"→": "->", "↔": "<->", "−": "-", "×": "x"}.items():
        label = label.replace(sign, letters)
    return label


def wrap(label: str, font: Any, width: float, most: int = 3) -> list[str]:
    """Break a label at spaces into lines that fit."""
    lines: list[str] = []
    for word in plain(label).split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1] + "…"]
    return [shorten(line, font, width) for line in lines]


def shorten(line: str, font: Any, width: float) -> str:
    """Cut a line that is too wide and end it with an ellipsis."""
    if len(line) <= width and font.getlength(line) <= width:
        return line
    line = line[: int(width)]  # no letter is narrower than a pixel; a prompt may have 40,000 of them
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"
