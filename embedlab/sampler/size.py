"""The size of pictures that a model can make."""

from __future__ import annotations

from collections.abc import Sequence

from embedlab.checks import is_whole
from embedlab.errors import SamplerError, brief
from embedlab.limits import LARGEST


def check_size(size: int | Sequence[int] | None, trained: int, factor: int, levels: int) -> tuple[int, int]:
    """Height and width in pixels: a multiple of the VAE factor, and large enough for the UNet to halve."""
    sides = (trained, trained) if size is None else (size, size) if is_whole(size) else size
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(is_whole(side) for side in sides):
        given = list(size) if isinstance(size, tuple) else size
        raise SamplerError(
            f"size is {brief(given)}; it has to be one side or [height, width] in pixels, such as {trained}, or the "
            "word picture."
        )
    height, width = sides
    for side in (height, width):
        if not 0 < side <= LARGEST:
            raise SamplerError(f"a size of {repr(side)[:80]} is not between 1 and {LARGEST} pixels; try {trained}.")
        if side % factor:
            near = max(factor, round(side / factor) * factor)
            raise SamplerError(f"a size of {side!r} is no multiple of the VAE factor {factor}; try {near}.")
        if side // factor < 2 ** (levels - 1):
            raise SamplerError(
                f"a size of {side} leaves the UNet nothing to halve; it has to be {factor * 2 ** (levels - 1)} or more."
            )
    return height, width
