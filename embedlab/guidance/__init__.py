"""(unet, conditionings, scales) → Denoiser, and closures that wrap Denoisers."""

from embedlab.guidance.denoiser import Denoiser, guided, in_turn, predictor, scale_embedding, stack
from embedlab.guidance.guiders import Steering, Told, block_names, blocks_of
from embedlab.guidance.settings import Guidance

__all__ = [
    "Denoiser",
    "Guidance",
    "Steering",
    "Told",
    "block_names",
    "blocks_of",
    "guided",
    "in_turn",
    "predictor",
    "scale_embedding",
    "stack",
]
