"""latents ↔ images; files and tensors → pictures; the contact sheet; PNG with its settings inside."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin
from torch import Tensor

from embedlab import readers
from embedlab.clean import printable, redact
from embedlab.errors import ConfigError, PictureError
from embedlab.files import written
from embedlab.images import infotext

KEY = "embedlab"  # the PNG text chunk that holds the settings
END = bytes.fromhex("0000000049454e44ae426082")  # the last chunk of every PNG, which is always the same


def to_unet(latents: Float[Tensor, "row c h w"], vae: Any) -> Float[Tensor, "row c h w"]:
    """Latents as a VAE makes them → scaled, as its UNet works on them."""
    mean, std = _moments(vae, latents)
    return latents * vae.config.scaling_factor if mean is None else (latents - mean) * vae.config.scaling_factor / std


def to_vae(latents: Float[Tensor, "row c h w"], vae: Any) -> Float[Tensor, "row c h w"]:
    """Scaled latents → as their VAE decodes them."""
    mean, std = _moments(vae, latents)
    return latents / vae.config.scaling_factor if mean is None else latents * std / vae.config.scaling_factor + mean


def _moments(vae: Any, like: Tensor) -> tuple[Any, Any]:
    """Mean and spread of the latents a channel, where a VAE's config says them."""
    told = [vae.config.get(f"latents_{name}") for name in ("mean", "std")]
    if None in told:
        return None, None
    mean, std = (torch.tensor(list(values)).view(-1, 1, 1).to(like) for values in told)
    return mean, std


def decode(latents: Float[Tensor, "row c h w"], vae: Any, at_once: int = 4) -> Float[Tensor, "row 3 height width"]:
    """Scaled latents → pictures in [0, 1], float32 on the CPU.

    >>> from embedlab import models
    >>> with torch.inference_mode():
    ...     decode(torch.zeros(1, 4, 8, 8), models.load("emoji").vae).shape
    torch.Size([1, 3, 64, 64])
    """
    latents = to_vae(latents, vae).to(vae.device, vae.dtype)
    pictures = [vae.decode(part, return_dict=False)[0] for part in latents.split(at_once)]
    return torch.cat(pictures).float().add(1).div(2).clamp(0, 1).cpu()


def to_pil(pictures: Float[Tensor, "row 3 height width"]) -> list[Image.Image]:
    """Pictures in [0, 1] as 8-bit images.

    >>> to_pil(torch.ones(1, 3, 8, 16))[0].size
    (16, 8)
    """
    arrays = pictures.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array) for array in arrays]


def to_tensor(picture: Image.Image, size: tuple[int, int] | None = None) -> Float[Tensor, "3 height width"]:
    """A picture in [0, 1]; with `size` (height, width) it is cut to that shape about its middle and resized.

    >>> to_tensor(Image.new("RGB", (16, 8), "white"), size=(4, 4)).unique().tolist()
    [1.0]
    """
    picture = as_seen(picture)
    if size and picture.size != size[::-1]:
        picture = ImageOps.fit(picture, size[::-1], Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(255)


def as_seen(picture: Image.Image) -> Image.Image:
    """A picture as a viewer shows it, 8-bit RGB: turned as its EXIF says, 16-bit grey scaled, white behind.

    Raises PictureError for numbers that name no brightness: floating-point ones, and those beyond 16 bits.

    >>> as_seen(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0)), as_seen(Image.new("LA", (1, 1))).getpixel((0, 0))
    ((255, 255, 255), (255, 255, 255))
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        grey = np.asarray(picture)
        if grey.min() < 0 or grey.max() > 65535:
            raise PictureError("its pixels are 32-bit numbers; save it with 8 or 16 bits a channel.")
        picture = Image.fromarray((grey / 257).round().astype(np.uint8))
    if picture.mode == "F":
        raise PictureError("its pixels are floating-point numbers; save it with 8 or 16 bits a channel.")
    if picture.has_transparency_data:
        picture = picture.convert("LA" if picture.mode == "La" else "RGBA").convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def open_picture(path: Path) -> Image.Image:
    """The picture in a file, as seen; PictureError for what is none."""
    picture = readers.open_picture(path)
    try:
        return as_seen(picture)
    except PictureError as error:
        raise PictureError(f"'{path}' cannot be started from: {error}") from None


@dataclass(frozen=True)
class Pixels:
    """A picture in memory, equal to another of the same size and colours."""

    rows: UInt8[Tensor, "height width 3"] = field(compare=False, repr=False)
    content: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", content_of(self.picture))

    @property
    def picture(self) -> Image.Image:
        """It as an image."""
        return Image.fromarray(self.rows.numpy())


def pixels_of(given: Image.Image | Tensor) -> Pixels:
    """An image, or a tensor (3, height, width) of numbers in [0, 1] or of bytes, as 8-bit pixels.

    >>> pixels_of(torch.ones(3, 4, 5)).picture.size
    (5, 4)
    """
    if isinstance(given, Tensor):
        if given.ndim != 3 or given.shape[0] != 3 or not given.numel():
            raise PictureError(f"a picture as a tensor has the shape (3, height, width), not {tuple(given.shape)}.")
        if given.dtype != torch.uint8:
            if not given.is_floating_point() or not bool(((given >= 0) & (given <= 1)).all()):
                raise PictureError("a picture as a tensor holds numbers from 0 to 1, or bytes (torch.uint8).")
            given = given.detach().float().mul(255).round().byte()
        return Pixels(given.detach().cpu().permute(1, 2, 0).contiguous())
    return Pixels(torch.from_numpy(np.array(as_seen(given))))


def content_of(picture: Image.Image) -> str:
    """A hash of the size and the colours of a picture, whatever kind of file it was in."""
    rgb = picture.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height} ".encode() + rgb.tobytes()).hexdigest()[:16]


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
    return readers.parsed(text)


Shown = Image.Image | Path | str | None  # a picture, the file of one, why there is none, or nothing yet


def sheet(
    cells: Sequence[Sequence[Shown]],
    columns: Sequence[str],
    rows: Sequence[str],
    title: str = "",
    side: int | None = None,
    marked_columns: Collection[int] = (),
    marked_rows: Collection[int] = (),
) -> Image.Image:
    """A contact sheet: pictures by row and column with readable labels; a missing picture leaves its place grey.

    Files are opened one after another. Long labels are broken at spaces; what does not fit in three lines ends in an
    ellipsis. What is marked has a frame and a bold label.
    """
    width, height = next((size for row in cells for shown in row if (size := size_of(shown))), (128, 128))
    side = side or min(256, max(112, width))
    height = max(1, round(side * height / width))
    text, bold, large = font(13), font(13, bold=True), font(15, bold=True)
    gap, edge, line = 6, 12, 17
    heads = [wrap(label, bold if n in marked_columns else text, side - 4) for n, label in enumerate(columns)]
    sides = [wrap(label, bold if n in marked_rows else text, 150) for n, label in enumerate(rows)]
    wide = max((bold.getlength(part) for parts in sides for part in parts), default=0)
    left = edge + round(wide) + (10 if wide else 0)
    across = max(left + len(columns) * (side + gap) - gap + edge, 260)
    titles = [line for part in title.splitlines()[:3] for line in wrap(part, large, across - 2 * edge, most=2)]
    head = edge + 21 * len(titles) + (4 if titles else 0) + line * max(map(len, heads), default=0) + 4
    canvas = Image.new("RGB", (across, head + len(rows) * (height + gap) + edge - gap), "white")
    pen = ImageDraw.Draw(canvas)
    for k, part in enumerate(titles):
        pen.text((edge, edge - 3 + 21 * k), part, "black", large)
    for c, parts in enumerate(heads):
        mine, ink = (bold, "black") if c in marked_columns else (text, "#333333")
        for k, part in enumerate(parts):
            x = left + c * (side + gap) + (side - mine.getlength(part)) / 2
            pen.text((x, head - 5 - line * (len(parts) - k)), part, ink, mine)
    for r, row in enumerate(cells):
        y = head + r * (height + gap)
        mine, ink = (bold, "black") if r in marked_rows else (text, "#333333")
        for k, part in enumerate(sides[r]):
            at = y + height / 2 + line * (k - len(sides[r]) / 2)
            pen.text((left - 10 - mine.getlength(part), at), part, ink, mine)
        for c, shown in enumerate(row):
            x = left + c * (side + gap)
            canvas.paste(place(shown, (side, height)), (x, y))
            if c in marked_columns or r in marked_rows:
                pen.rectangle((x - 2, y - 2, x + side + 1, y + height + 1), outline="black", width=2)
    return canvas


def size_of(shown: Shown) -> tuple[int, int] | None:
    """The size of what is shown, where that is a picture."""
    if isinstance(shown, Image.Image):
        return shown.size
    try:
        return readers.open_picture(shown).size if isinstance(shown, Path) else None
    except PictureError:
        return None


def place(shown: Shown, size: tuple[int, int]) -> Image.Image:
    """What stands in a place of a sheet: the picture, grey, or grey with a cross and the reason."""
    if isinstance(shown, Path):
        try:
            return readers.open_picture(shown).convert("RGB").resize(size, Image.Resampling.LANCZOS)
        except PictureError:
            shown = f"{shown.name} cannot be read"
    if isinstance(shown, Image.Image):
        return shown.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", size, "#dddddd")
    if shown is not None:
        pen, small, (width, height) = ImageDraw.Draw(canvas), font(11), size
        pen.line((0, 0, width, height), "#bbbbbb", 2)
        pen.line((0, height, width, 0), "#bbbbbb", 2)
        parts = wrap(shown, small, width - 8, most=max(1, min(5, height // 15)))
        for k, part in enumerate(parts):
            x = (width - small.getlength(part)) / 2
            pen.text((x, height / 2 + 14 * (k - len(parts) / 2)), part, "#802020", small)
    return canvas


@lru_cache(maxsize=8)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Pillow's own font lacks arrows and most alphabets."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def wrap(label: str, font: Any, width: float, most: int = 3) -> list[str]:
    """Break a label at spaces into lines that fit."""
    lines: list[str] = []
    for word in printable(redact(label)).split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        elif len(lines) > most:
            break
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1] + "…"]
    return [shorten(line, font, width) for line in lines]


def shorten(line: str, font: Any, width: float) -> str:
    """Cut a line that is too wide and end it with an ellipsis; secrets are blanked before."""
    line = redact(line)
    if len(line) <= width and font.getlength(line) <= width:
        return line
    line = line[: int(width)]  # no letter is narrower than a pixel; a prompt may have 40,000 of them
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"
