"""Images, latents, embeddings → {name: float}."""

from embedlab.metrics.clip_score import clip_scores
from embedlab.metrics.distance import (
    DISTANCES,
    conditioning_distance,
    image_cosine,
    latent_distance,
    pixel_distance,
    row_distance,
)
from embedlab.metrics.ssim import ssim

__all__ = [
    "DISTANCES",
    "clip_scores",
    "conditioning_distance",
    "image_cosine",
    "latent_distance",
    "pixel_distance",
    "row_distance",
    "ssim",
]
