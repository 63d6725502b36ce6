"""Attention probabilities → maps of words: sums as DAAM's, a word's mass in a box, intersection over union.

`Probabilities` are of one layer: for each row of the UNet's batch and each head, how much each place of the picture
looks at each token; they sum to 1 over the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from embedlab.checks import in_choices
from embedlab.display import Picture, Shown, block, grid, short
from embedlab.errors import ConfigError

Probabilities: TypeAlias = Float[Tensor, "*heads query token"]


@dataclass(frozen=True)
class Maps(Shown):
    """Where in a picture each word was looked at.

    words: what the maps are of. heat: one map a word, at the size of the latents, the mean over layers and heads and
    the sum over steps: `Σ_steps` of the probabilities of the conditional half, upsampled (bicubic), without what is
    below 0 then, as DAAM has it (Tang et al. 2022, arXiv 2210.04885, eq. 5). parts: the same by step, layer or head,
    whichever are in `by`, in this order; `layers` names those of the axis.

    >>> maps = Maps(("cat",), torch.ones(1, 2, 2))
    >>> maps.of("cat").shape
    torch.Size([2, 2])
    """

    words: tuple[str, ...]
    heat: Float[Tensor, "*axes y x"]
    by: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    parts: Float[Tensor, "*axes y x"] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        by = f", by {', '.join(self.by)}" if self.by else ""
        return f"Maps({short(self.words)}, {' × '.join(map(str, self.heat.shape))}{by})"

    def _repr_html_(self) -> str:
        heat = self.heat if self.heat.ndim == 4 else self.heat[None]
        cells = [[Picture(heat_image(one[w]), title=word) for one in heat[:8]] for w, word in enumerate(self.words)]
        return block("where each word was looked at", grid(cells, (), self.words, 96), note=short(self)[:200])

    def of(self, word: str) -> Float[Tensor, "*axes y x"]:
        """The map of a word; ConfigError for one that there is none of."""
        in_choices(word, "word", self.words, ConfigError)
        return self.heat[..., self.words.index(word), :, :]


def heat_image(heat: Float[Tensor, "y x"]) -> Image.Image:
    """A map as a picture: the hotter the brighter.

    >>> heat_image(torch.ones(2, 3)).size
    (3, 2)
    """
    from matplotlib import colormaps

    level = (heat / heat.max().clamp(min=1e-12)).float().cpu().numpy()
    return Image.fromarray((colormaps["inferno"](level)[..., :3] * 255).astype("uint8"))


def stacked(maps: Sequence[Maps]) -> Maps | None:
    """The maps of several pictures of one cell as one, an image each; None of no maps.

    >>> stacked([Maps(("cat",), torch.ones(1, 2, 2))] * 3).heat.shape
    torch.Size([3, 1, 2, 2])
    """
    if not maps:
        return None
    parts = [one.parts for one in maps if one.parts is not None]
    return replace(maps[0], heat=torch.stack([one.heat for one in maps]), parts=torch.stack(parts) if parts else None)


def upsampled(
    maps: Float[Tensor, "*any query"], side: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "*any y x"]:
    """Maps of `side` drawn out to `size` (bicubic), without what falls below 0, as DAAM does it.

    >>> upsampled(torch.ones(3, 4), (2, 2), (4, 4)).shape
    torch.Size([3, 4, 4])
    """
    flat = maps.reshape(-1, 1, *side).float()
    whole = functional.interpolate(flat, size=size, mode="bicubic").clamp(min=0)
    return whole.reshape(*maps.shape[:-1], *size)


def summed(
    sums: Mapping[str, Float[Tensor, "head query row"]],
    sides: Mapping[str, tuple[int, int]],
    size: tuple[int, int],
) -> Float[Tensor, "row y x"]:
    """Sums over steps, by layer → DAAM's maps: the mean over all heads of all layers, each upsampled by itself.

    >>> summed({"mid.0.0": torch.ones(2, 4, 1)}, {"mid.0.0": (2, 2)}, (4, 4)).mean().item()
    1.0
    """
    heads = sum(len(one) for one in sums.values())
    whole = [upsampled(one.movedim(-1, 1), sides[name], size).sum(0) for name, one in sums.items()]
    return torch.stack(whole).sum(0) / heads


def word_mass(
    probabilities: Float[Tensor, "row head query token"],
    tokens: Sequence[int],
    places: Bool[Tensor, " query"] | None = None,
) -> Float[Tensor, " row"]:
    """The share of a word's attention that falls on some places, for each row of the batch; it keeps gradients.

    A word is the mean over its tokens and all heads. Without `places` it is how much of all attention the word has:
    the mean over the places of what each of them gives to it.

    >>> even = torch.full((1, 2, 4, 5), 0.2)
    >>> word_mass(even, [1, 2], torch.tensor([True, False, False, False])).item()
    0.25
    """
    seen = probabilities[..., list(tokens)].mean(dim=(1, 3))
    if places is None:
        return seen.mean(1) * len(tokens)
    inside = seen * places.to(seen)
    return inside.sum(1) / seen.sum(1).clamp(min=torch.finfo(seen.dtype).tiny)


def places_in(box: Sequence[float], side: tuple[int, int]) -> Bool[Tensor, " query"]:
    """Which places of a layer lie in a box (left, top, right, bottom), in shares of the picture; by their middles.

    >>> places_in((0, 0, 0.5, 1), (2, 2)).tolist()
    [True, False, True, False]
    """
    left, top, right, bottom = box
    height, width = side
    y, x = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    return (((y >= top) & (y <= bottom))[:, None] & ((x >= left) & (x <= right))[None]).flatten()


def object_mask(picture: Float[Tensor, "3 height width"], threshold: float = 0.12) -> Bool[Tensor, "y x"]:
    """What of a picture in [0, 1] is not its ground, where that is plain, as on the default model's pictures.

    The ground is the median colour of the border; a pixel that is further from it than `threshold` in any channel is
    of an object.

    >>> picture = torch.zeros(3, 8, 8)
    >>> picture[:, 2:4, 2:6] = 1
    >>> int(object_mask(picture).sum())
    8
    """
    border = torch.cat([picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]], dim=1)
    ground = border.median(dim=1).values
    return (picture - ground[:, None, None]).abs().amax(0) > threshold


def overlap(heat: Float[Tensor, "y x"], mask: Bool[Tensor, "y x"], threshold: float = 0.4) -> tuple[float, float]:
    """Intersection over union of a map with a mask, and the share of the map that lies inside of the mask.

    The map is drawn out to the mask's size (bicubic); of its places those count that have `threshold` of its maximum
    or more (DAAM, eq. 7, with its τ = 0.4).

    >>> mask = torch.zeros(4, 4, dtype=torch.bool)
    >>> mask[:2] = True
    >>> overlap(mask.float(), mask)
    (1.0, 1.0)
    """
    height, width = mask.shape
    whole = upsampled(heat.flatten(), (heat.shape[0], heat.shape[1]), (height, width))
    hot = whole >= threshold * whole.max()
    mask = mask.to(hot.device)
    union = float((hot | mask).sum())
    inside = float((whole * mask).sum() / whole.sum().clamp(min=1e-12))
    return (float((hot & mask).sum()) / union if union else 0.0), inside
