"""How far an edit moved things: rows, conditionings, picture features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.embeddings import Embeddings
from embedlab.encoder import Conditioning

DISTANCES = ("rows/edited", "rows/distance", "conditioning/distance", "conditioning/pooled_distance")


def image_cosine(a: Float[Tensor, "image joint"], b: Float[Tensor, "image joint"]) -> Float[Tensor, " image"]:
    """Cosine between the features of pictures, pair by pair."""
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1).float()


def pixel_distance(
    a: Float[Tensor, "image 3 height width"], b: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, " image"]:
    """Root mean square of the differences between pictures, pair by pair.

    >>> pixel_distance(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5)).item()
    0.5
    """
    return torch.stack([(x.double() - y.double()).square().mean().sqrt() for x, y in zip(a, b, strict=True)]).float()


def latent_distance(
    before: Float[Tensor, "image c h w"], after: Float[Tensor, "image c h w"]
) -> Float[Tensor, " image"]:
    """Euclidean distance between latents, relative to the length of those before, pair by pair.

    >>> latent_distance(torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)).item()
    1.0
    """
    pairs = [(x.double(), y.double()) for x, y in zip(before, after, strict=True)]
    return torch.stack([(x - y).norm() / x.norm() for x, y in pairs]).float()


def row_distance(before: Sequence[Embeddings], after: Sequence[Embeddings]) -> dict[str, float]:
    """What an edit did to the rows before the encoder.

    `rows/edited`: how many rows differ. `rows/distance`: mean Euclidean distance of those, relative to the length of
    the row before. Both over token and position rows of all encoders; an encoder counts its own.
    """
    moved, lengths = [], []
    for old, new in zip(before, after, strict=True):
        for table in ("token", "position"):
            a, b = (getattr(side, table).flatten(0, 1).float() for side in (old, new))
            gap = (a - b).norm(dim=-1)
            moved.append(gap[gap > 0])
            lengths.append(a.norm(dim=-1)[gap > 0])
    gaps, norms = torch.cat(moved), torch.cat(lengths)
    mean = float((gaps / norms.clamp_min(1e-12)).mean()) if len(gaps) else 0.0
    return {"rows/edited": float(len(gaps)), "rows/distance": mean}


def conditioning_distance(before: Conditioning, after: Conditioning) -> dict[str, float]:
    """What reached the UNet: mean distance of hidden rows relative to their length, 1 - cosine of the pooled output.

    Conditionings of different lengths are compared over the rows that both have.
    """
    n = min(len(before.hidden), len(after.hidden))
    a, b = before.hidden[:n].float(), after.hidden[:n].float()
    hidden = float(((a - b).norm(dim=-1) / a.norm(dim=-1).clamp_min(1e-12)).mean())
    pooled = torch.nn.functional.cosine_similarity(before.pooled.double(), after.pooled.double(), dim=-1)
    return {"conditioning/distance": hidden, "conditioning/pooled_distance": round(float(1 - pooled), 9)}
