"""CLIPScore: how well pictures fit texts, by a pair of CLIP towers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from embedlab.clip import forward
from embedlab.embeddings import embed
from embedlab.models import Scorer


def image_features(scorer: Scorer, pictures: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image joint"]:
    """Unit vectors of pictures in [0, 1], resized to what the image encoder was trained on.

    Each is looked at alone: in one call the last digits of a row depend on how many rows there are. Measured on a CPU,
    that takes 3.0 ms a picture with the shipped scorer, where 32 in a call take 1.9 ms each.
    """
    weight = scorer.image.vision_model.embeddings.patch_embedding.weight
    side = scorer.image.config.image_size
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (scorer.mean, scorer.std))

    def one(picture: Float[Tensor, "1 3 height width"]) -> Float[Tensor, "1 joint"]:
        if picture.shape[-2:] != (side, side):
            picture = interpolate(picture, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        features = scorer.image(pixel_values=((picture - mean) / std).to(weight)).image_embeds
        return normalize(features.float(), dim=-1).cpu()

    return torch.cat([one(picture) for picture in pictures.split(1)])


def text_features(scorer: Scorer, texts: Sequence[str]) -> Float[Tensor, "text joint"]:
    """Unit vectors of texts, each read alone; what is longer than one window is truncated, as CLIP was trained."""

    def one(text: str) -> Float[Tensor, "1 joint"]:
        prompt = embed(text, scorer.text, truncate=True)
        return normalize(forward(scorer.text, prompt.tokens.ids, prompt.summed).pooled.float(), dim=-1).cpu()

    return torch.cat([one(text) for text in texts])


def clip_scores(
    scorer: Scorer, pictures: Float[Tensor, "image 3 height width"], texts: Sequence[str]
) -> Float[Tensor, "image text"]:
    """`100 * max(cosine, 0)` of every picture with every text (Hessel et al. 2021, by torchmetrics' factor 100)."""
    return scores_of(image_features(scorer, pictures), text_features(scorer, texts))


def scores_of(
    pictures: Float[Tensor, "image joint"], texts: Float[Tensor, "text joint"]
) -> Float[Tensor, "image text"]:
    """CLIPScore of unit vectors: each with each, summed by itself and not as a product of matrices."""
    return 100 * (pictures.double()[:, None] * texts.double()).sum(-1).clamp_min(0).float()
