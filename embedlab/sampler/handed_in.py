"""Pictures, masks and latents that a start is given: a file or a value in memory, known again by its content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from embedlab import images, readers
from embedlab.errors import ConfigError, ModelError, PictureError, SamplerError, brief, listed
from embedlab.models.single_file import unpickled


@dataclass(frozen=True)
class Latents:
    """Latents in memory, equal to others of the same shape and numbers."""

    rows: Float[Tensor, "image c h w"] = field(compare=False, repr=False)
    content: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", content_of_latents(self.rows))


def latents_of(given: Any, what: str = "start.latents") -> Latents:
    """A tensor or an array (c, h, w) or (n, c, h, w) of finite numbers, as float32 on the CPU.

    Raises SamplerError for another shape, and for what is no number.

    >>> latents_of(torch.zeros(4, 8, 8)).rows.shape
    torch.Size([1, 4, 8, 8])
    """
    if not isinstance(given, Tensor | np.ndarray):
        raise SamplerError(f"{what} is {brief(given)}; it has to be a path, a tensor or an array.")
    rows = torch.as_tensor(given)
    if rows.ndim not in (3, 4) or not rows.numel():
        raise SamplerError(
            f"{what} has the shape {tuple(rows.shape)}; latents are (channels, height, width), or several of these."
        )
    if not rows.is_floating_point():
        raise SamplerError(f"{what} holds numbers of the kind {rows.dtype}; latents are floating-point numbers.")
    rows = rows.detach().float().cpu().reshape(-1, *rows.shape[-3:]).clone()
    if not bool(torch.isfinite(rows).all()):
        raise SamplerError(f"{what} holds NaN or infinite numbers.")
    return Latents(rows)


def content_of_latents(rows: Float[Tensor, "image c h w"]) -> str:
    """A hash of the shape and the numbers of latents."""
    data = rows.contiguous().numpy().tobytes()
    return hashlib.sha256(f"{tuple(rows.shape)} ".encode() + data).hexdigest()[:16]


def open_latents(path: Path) -> Latents:
    """Latents in a `.safetensors`, `.npy` or `.pt` file: its one tensor, or the one called `latents`.

    Nothing in a file is run: arrays of Python objects and pickles of anything but tensors are refused. Raises
    SamplerError, which says what is there.
    """
    what = f"'{path}'"
    try:
        if path.suffix.lower() == ".npy":
            readers.check_file(path, SamplerError)
            with path.open("rb") as file:
                found: Any = np.load(file, allow_pickle=False)
        elif path.suffix.lower() == ".safetensors":
            found = load(readers.read_bytes(path))
        else:
            readers.check_file(path, SamplerError)
            found = unpickled(path, [])
    except (SamplerError, ConfigError, ModelError) as error:
        raise SamplerError(str(error)) from None
    except (OSError, ValueError, EOFError, SafetensorError, KeyError) as error:
        if "pickle" in str(error):  # numpy's advice is to run what it holds
            raise SamplerError(f"{what} is no .npy of numbers; numpy.save writes one.") from None
        raise SamplerError(f"{what} cannot be read as latents: {' '.join(str(error).split())[:200]}.") from None
    if isinstance(found, dict):
        tensors = {str(name): one for name, one in found.items() if isinstance(one, Tensor)}
        if "latents" not in tensors and len(tensors) != 1:
            held = listed([f"{name} {tuple(one.shape)}" for name, one in sorted(tensors.items())], 6) or "no tensor"
            raise SamplerError(f"{what} holds {held}; latents are one tensor, or the one called 'latents'.")
        found = tensors.get("latents", next(iter(tensors.values())))
    if not isinstance(found, Tensor | np.ndarray):
        raise SamplerError(f"{what} holds a {type(found).__name__}, and no tensor.")
    if isinstance(found, np.ndarray) and found.dtype.kind not in "fiub":
        raise SamplerError(f"{what} holds numbers of the kind {found.dtype}; latents are floating-point numbers.")
    return latents_of(found, what)


@dataclass(frozen=True)
class HandedIn:
    """What a start was given as its picture, mask or latents: where that is (None in memory), its hash and its shape.

    `shape` of a picture is (height, width), that of latents (rows, channels, height, width).
    """

    name: str
    value: Any
    path: Path | None
    content: str
    shape: tuple[int, ...]

    def open(self) -> Any:
        """The picture as RGB, or the latents; refused where the file is another one than it was."""
        if self.path is None:
            return self.value.picture if isinstance(self.value, images.Pixels) else self.value.rows
        if self.name == "latents":
            opened = open_latents(self.path)
            if opened.content != self.content:
                raise SamplerError(f"'{self.path}' holds other latents than when this was set up; start over.")
            return opened.rows
        picture = images.open_picture(self.path)
        if images.content_of(picture) != self.content:
            raise PictureError(f"'{self.path}' is another picture than it was when this was set up; start over.")
        return picture


def handed_in(name: str, value: Any, path: Path | None) -> HandedIn:
    """A value in memory, or what is in the file at `path`, opened once to be known again."""
    if path is None:
        rows = value.rows
        return HandedIn(name, value, None, value.content, tuple(rows.shape if name == "latents" else rows.shape[:2]))
    if name == "latents":
        opened = open_latents(path)
        return HandedIn(name, value, path, opened.content, tuple(opened.rows.shape))
    picture = images.open_picture(path)
    return HandedIn(name, value, path, images.content_of(picture), picture.size[::-1])


def as_mask(picture: Image.Image, size: tuple[int, int], factor: int, cut: bool = True) -> Tensor:
    """A mask in the shape of latents (1, h, w), 1 where it is white: what is drawn anew.

    As in diffusers: it is resized as its picture, grey from the middle up is white, and of each square of `factor`
    pixels the first counts.

    >>> as_mask(Image.new("L", (16, 16), 128), (16, 16), 8).flatten().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    grey = images.to_tensor(picture.convert("L").convert("RGB"), size, cut)[:1]
    white = (grey >= 0.5).float()
    sides = (size[0] // factor, size[1] // factor)
    return torch.nn.functional.interpolate(white[None], size=sides)[0]
