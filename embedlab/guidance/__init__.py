"""(unet, conditionings, scales) → Denoiser, and closures that wrap Denoisers."""

from embedlab.guidance.beside import Beside
from embedlab.guidance.combining import combine, masks_of, ways_of
from embedlab.guidance.denoiser import Denoiser, guided, in_turn, predictor, rows_of_call, scale_embedding, stack
from embedlab.guidance.guiders import Steering, Told, left_out
from embedlab.guidance.halves import Halves
from embedlab.guidance.loss import Loss, Losses, check_loss
from embedlab.guidance.remembered import Carried, Predictions
from embedlab.guidance.scores import Attended, Colour, Distance, Likeness, Mass
from embedlab.guidance.settings import Guidance
from embedlab.guidance.shared import Layout, Shared

__all__ = [
    "Attended",
    "Beside",
    "Carried",
    "Colour",
    "Denoiser",
    "Distance",
    "Guidance",
    "Halves",
    "Layout",
    "Likeness",
    "Loss",
    "Losses",
    "Mass",
    "Predictions",
    "Shared",
    "Steering",
    "Told",
    "check_loss",
    "combine",
    "guided",
    "in_turn",
    "left_out",
    "masks_of",
    "predictor",
    "rows_of_call",
    "scale_embedding",
    "stack",
    "ways_of",
]
