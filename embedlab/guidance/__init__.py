"""(unet, conditionings, scales) → Denoiser, and closures that wrap Denoisers."""

from embedlab.guidance.denoiser import Denoiser, guided, in_turn, scale_embedding, stack
from embedlab.guidance.settings import Guidance

__all__ = ["Denoiser", "Guidance", "guided", "in_turn", "scale_embedding", "stack"]
