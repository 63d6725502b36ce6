"""(Denoiser, noise, scheduler, steps) → latents; seeds → noise; picture → start latents."""

from embedlab.sampler.inversion import Inversion
from embedlab.sampler.loop import START, Kept, Sampled, Seen, begun, calls, predicted_x0, sample
from embedlab.sampler.rehearsal import rehearsed
from embedlab.sampler.schedulers import as_trained, calls_of, is_pndm, moments, noise_of, per_call, reason, set_steps
from embedlab.sampler.seeds import Variation, generators, noise, varied
from embedlab.sampler.settings import Sampler
from embedlab.sampler.size import check_size
from embedlab.sampler.start import Start, encode_picture, picture_latents
from embedlab.sampler.trace import STEP, Trace, step_name

__all__ = [
    "START",
    "STEP",
    "Inversion",
    "Kept",
    "Sampled",
    "Sampler",
    "Seen",
    "Start",
    "Trace",
    "Variation",
    "as_trained",
    "begun",
    "calls",
    "calls_of",
    "check_size",
    "encode_picture",
    "generators",
    "is_pndm",
    "moments",
    "noise",
    "noise_of",
    "per_call",
    "picture_latents",
    "predicted_x0",
    "reason",
    "rehearsed",
    "sample",
    "set_steps",
    "step_name",
    "varied",
]
