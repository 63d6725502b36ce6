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


def image_features(scorer: Scorer, pictures: Float[Tensor, "n 3 h w"], at_once: int = 64) -> Float[Tensor, "n joint"]:
    """Unit vectors of pictures in [0, 1], resized to what the image encoder was trained on."""
    weight = scorer.image.vision_model.embeddings.patch_embedding.weight
    side = scorer.image.config.image_size
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (scorer.mean, scorer.std))
    if pictures.shape[-2:] != (side, side):
        pictures = interpolate(pictures, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    pixels = ((pictures - mean) / std).to(weight)
    features = torch.cat([scorer.image(pixel_values=part).image_embeds for part in pixels.split(at_once)])
    return normalize(features.float(), dim=-1).cpu()


def text_features(scorer: Scorer, texts: Sequence[str]) -> Float[Tensor, "n joint"]:
    """Unit vectors of texts; what is longer than one window is truncated, as CLIP was trained."""
    prompts = [embed(text, scorer.text, truncate=True) for text in texts]
    ids = torch.cat([prompt.tokens.ids for prompt in prompts])
    pooled = forward(scorer.text, ids, torch.cat([prompt.summed for prompt in prompts])).pooled
    return normalize(pooled.float(), dim=-1).cpu()


def clip_scores(scorer: Scorer, pictures: Float[Tensor, "n 3 h w"], texts: Sequence[str]) -> Float[Tensor, "n text"]:
    """`100 * max(cosine, 0)` of every picture with every text (Hessel et al. 2021, by torchmetrics' factor 100)."""
    return 100 * (image_features(scorer, pictures) @ text_features(scorer, texts).T).clamp_min(0)
