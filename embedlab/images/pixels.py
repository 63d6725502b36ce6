"""Files, images and tensors → pictures of 8 bits, as a viewer shows them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from embedlab import readers
from embedlab.errors import PictureError, brief


def to_pil(pictures: Float[Tensor, "image 3 height width"]) -> list[Image.Image]:
    """Pictures in [0, 1] as 8-bit images: a tensor, or what `render` gives.

    >>> to_pil(torch.ones(1, 3, 8, 16))[0].size
    (16, 8)
    """
    pictures = pictures_in(pictures)
    if not isinstance(pictures, Tensor) or pictures.ndim != 4 or pictures.shape[1] != 3:
        raise PictureError(f"pictures is {shape_of(pictures)}; it has to be a tensor (image, 3, height, width).")
    arrays = pictures.detach().float().cpu().mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array) for array in arrays]


def pictures_in(given: Any) -> Any:
    """The pictures of what `render` gives; anything else as it is."""
    return getattr(given, "pictures", given) if not isinstance(given, Tensor) else given


def shape_of(given: Any) -> str:
    """What came in the place of a tensor, for a message.

    >>> shape_of(torch.zeros(2, 3)), shape_of("a")
    ('a tensor of shape (2, 3)', "'a'")
    """
    return f"a tensor of shape {tuple(given.shape)}" if isinstance(given, Tensor) else brief(given)


def to_tensor(
    picture: Image.Image | Tensor | np.ndarray[Any, Any] | str | Path,
    size: tuple[int, int] | None = None,
    cut: bool = True,
) -> Float[Tensor, "3 height width"]:
    """A picture in [0, 1], of a PIL image, an array or a path.

    With `size` (height, width) it is cut to that shape about its middle and resized.
    Where nothing is `cut`, the whole of it is resized, and a circle may become an ellipse.

    >>> to_tensor(Image.new("RGB", (16, 8), "white"), size=(4, 4)).unique().tolist()
    [1.0]
    """
    if not isinstance(picture, Image.Image):
        picture = open_picture(Path(picture)) if isinstance(picture, str | Path) else pixels_of(picture).picture
    picture = as_seen(picture)
    if size and picture.size != size[::-1] and not cut:
        picture = picture.resize(size[::-1], Image.Resampling.LANCZOS)
    elif size and picture.size != size[::-1]:
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


def pixels_of(given: Image.Image | Tensor | np.ndarray[Any, Any], what: str = "a picture") -> Pixels:
    """An image, or numbers in [0, 1] or bytes, as 8-bit pixels: a tensor (3, height, width), or an array as numpy and
    matplotlib have them, (height, width, 3) or (height, width).

    Raises PictureError for anything else; `what` is what it is called there.

    >>> pixels_of(torch.ones(3, 4, 5)).picture.size
    (5, 4)
    """
    if isinstance(given, np.ndarray):
        given = tensor_of(given)
    if isinstance(given, Tensor):
        if given.ndim != 3 or given.shape[0] != 3 or not given.numel():
            raise PictureError(f"a picture as a tensor has the shape (3, height, width), not {tuple(given.shape)}.")
        if given.dtype != torch.uint8:
            if not given.is_floating_point() or not bool(((given >= 0) & (given <= 1)).all()):
                raise PictureError("a picture as a tensor holds numbers from 0 to 1, or bytes (torch.uint8).")
            given = given.detach().float().mul(255).round().byte()
        return Pixels(given.detach().cpu().permute(1, 2, 0).contiguous())
    if not isinstance(given, Image.Image):
        raise PictureError(f"{what} is {brief(given)}; it has to be a path, a PIL image or a tensor.")
    return Pixels(torch.from_numpy(np.array(as_seen(given))))


def tensor_of(array: np.ndarray[Any, Any]) -> Tensor:
    """An array of a picture as a tensor (3, height, width); PictureError for another shape.

    >>> tensor_of(np.zeros((4, 5, 3))).shape, tensor_of(np.zeros((4, 5))).shape
    (torch.Size([3, 4, 5]), torch.Size([3, 4, 5]))
    """
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (3, 4) or array.dtype.kind not in "uf":
        raise PictureError(
            f"a picture as an array has the shape (height, width, 3) of bytes, or of numbers from 0 to 1; this one is "
            f"{tuple(array.shape)} of {array.dtype}."
        )
    return torch.from_numpy(np.ascontiguousarray(array[..., :3])).permute(2, 0, 1)


def content_of(picture: Image.Image) -> str:
    """A hash of the size and the colours of a picture, whatever kind of file it was in."""
    rgb = picture.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height} ".encode() + rgb.tobytes()).hexdigest()[:16]
