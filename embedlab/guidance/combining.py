"""Several prompts in one picture: (what each changes, weights, ways, masks) → what all of them change.

What a prompt changes is its prediction less the one without a prompt. A weight may be negative: away from the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.errors import PictureError, SamplerError, counted
from embedlab.limits import TOP

Change = Float[Tensor, "c h w"]
Mask = Float[Tensor, "h w"]


def combine(
    changes: Float[Tensor, "prompt c h w"],
    weights: Sequence[float],
    ways: Sequence[str],
    masks: Sequence[Mask | None] = (),
) -> Change:
    """What several prompts change in one picture, each by its weight, in its way, where its mask is.

    sum: all that it changes (A1111's AND; Composable Diffusion, Liu et al. 2022, eq. 11). mean: its share of the
    weights at each place, as ComfyUI combines conditionings; where no mask is, nothing changes. perp: the part at right
    angles to what those of sum and mean change together (AND_PERP of sd-webui-neutral-prompt; with a negative weight
    Perp-Neg, Armandpour et al. 2023, eq. 8). salient: where it says more than they do, it stands in for them
    (AND_SALT). top_k: its largest entries, a twentieth of all (AND_TOPK).

    >>> changes = torch.tensor([[1.0, 0.0], [1.0, 2.0]]).view(2, 1, 1, 2)
    >>> for way in ("sum", "mean", "perp", "salient"):
    ...     print(way, combine(changes, [1, 1], ["mean" if way == "mean" else "sum", way]).flatten().tolist())
    sum [2.0, 2.0]
    mean [1.0, 1.0]
    perp [1.0, 2.0]
    salient [1.0, 2.0]
    """
    here = [torch.ones_like(changes[0, :1]) if m is None else m[None] for m in masks or [None] * len(changes)]
    shares = [weight * mask for weight, mask in zip(weights, here, strict=True)]
    regular = [n for n, way in enumerate(ways) if way in ("sum", "mean")]
    base = sum((shares[n] * changes[n] for n in regular), torch.zeros_like(changes[0]))
    if any(ways[n] == "mean" for n in regular):
        total = sum((shares[n] for n in regular), torch.zeros_like(shares[0]))
        base = torch.where(total == 0, 0.0, base / torch.where(total == 0, 1.0, total))
    answer = base
    for n, way in enumerate(ways):
        if way == "perp":
            answer = answer + shares[n] * across(changes[n], base)
        elif way == "top_k":
            answer = answer + shares[n] * largest(changes[n], TOP)
    salient = [n for n, way in enumerate(ways) if way == "salient"]
    if salient:
        speaks = torch.stack([salience(base), *(salience(changes[n]) for n in salient)]).argmax(0)
        for place, n in enumerate(salient, 1):
            answer = answer + shares[n] * (speaks == place) * (changes[n] - base)
    return answer


def across(change: Change, base: Change) -> Change:
    """The part of a change at right angles to another; all of it where the other is nothing.

    >>> across(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 0.0]]])).tolist()
    [[[0.0, 2.0]]]
    """
    length = (base * base).sum()
    answer: Tensor = change - base * ((base * change).sum() / torch.where(length == 0, 1.0, length))
    return answer


def largest(change: Change, share: float) -> Change:
    """Its entries of the largest absolute values, from the one with `1 - share` of all below it."""
    flat = change.abs().flatten()
    least = flat.float().kthvalue(max(int(flat.numel() * (1 - share)), 1)).values
    return change * (change.abs() >= least)


def salience(change: Change) -> Change:
    """How much each entry says among those of its change."""
    return change.abs().flatten().softmax(0).view(change.shape)


def ways_of(combine: Any, count: int) -> list[str]:
    """The way of each of so many prompts; the first is a sum, or shares a mean. SamplerError for a list too long.

    >>> ways_of("perp", 3), ways_of(["perp", "sum"], 3), ways_of("mean", 2)
    (['sum', 'perp', 'perp'], ['sum', 'perp', 'sum'], ['mean', 'mean'])
    """
    others = [combine] * (count - 1) if isinstance(combine, str) else list(combine)
    if len(others) != count - 1:
        raise SamplerError(
            f"guidance.combine has {counted(len(others), 'way')}, and {counted(count - 1, 'prompt')} "
            f"follow{'s' if count == 2 else ''} an AND: it takes one for each, or one for all; AND is read with "
            "language=a1111."
        )
    return ["mean" if "mean" in others else "sum", *others]


def masks_of(regions: Any, count: int, size: tuple[int, int]) -> tuple[Mask | None, ...]:
    """Where each of so many prompts counts, at the height and width of the latents; SamplerError for another count.

    >>> left, all_of_it = masks_of([[0, 0, 0.5, 1], None], 2, (1, 4))
    >>> left.tolist(), all_of_it
    ([[1.0, 1.0, 0.0, 0.0]], None)
    """
    if regions is None:
        return (None,) * count
    if len(regions) != count:
        raise SamplerError(
            f"guidance.regions has {counted(len(regions), 'region')} and the prompt "
            f"{counted(count, 'part')}; give one for each (null is "
            "all of the picture), and set language=a1111 for prompts with AND."
        )
    return tuple(None if one is None else _mask(one, size) for one in regions)


def _mask(region: Any, size: tuple[int, int]) -> Mask:
    if isinstance(region, str):
        return _drawn(region, Path(region).stat().st_mtime_ns, size)
    height, width = size
    left, top, right, bottom = region
    across, down = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
    inside = ((across >= left) & (across < right))[None] & ((down >= top) & (down < bottom))[:, None]
    if not inside.any():
        raise SamplerError(
            f"the box {list(region)} of guidance.regions holds no place of {width} × {height} latents; make it larger."
        )
    mask: Mask = inside.float()
    return mask


@lru_cache(maxsize=64)
def _drawn(file: str, changed: int, size: tuple[int, int]) -> Mask:
    """A mask from a file: white counts. Of another shape than the picture it is refused, not stretched."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    path, (height, width) = Path(file), size
    try:
        with Image.open(path) as opened:
            picture = opened.convert("L")
    except (OSError, UnidentifiedImageError) as error:
        raise PictureError(f"the mask {str(path)[:200]!r} of guidance.regions cannot be read as a picture.") from error
    if picture.width * height != picture.height * width:
        raise SamplerError(
            f"the mask {path.name} is {picture.width} × {picture.height}, of another shape than the picture's "
            f"{width} × {height} latents; crop it."
        )
    small = picture.resize((width, height), Image.Resampling.BOX)
    values = torch.tensor(list(small.tobytes()), dtype=torch.float32).view(height, width) / 255
    if not values.any():
        raise SamplerError(f"the mask {path.name} is black: its prompt would count nowhere.")
    return values
