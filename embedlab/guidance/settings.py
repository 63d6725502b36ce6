"""Settings of how strongly the prompt is followed."""

from __future__ import annotations

from dataclasses import dataclass

from embedlab.checks import finite_number
from embedlab.errors import SamplerError
from embedlab.limits import check_part
from embedlab.schedule import Setting, varies


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (Ho & Salimans 2022): `uncond + scale * (cond - uncond)`.

    `scale` 1 means the prompt alone: the negative prompt then costs nothing and does nothing, as in diffusers.
    `negative` is a prompt of any length; left out it is the model's own nothing (the empty prompt, zeros for SDXL).
    `negative_2` is another one for the second text encoder of SDXL.

    >>> Guidance(7.5, negative="a cat").scale
    7.5
    """

    scale: Setting[float] = 4.0
    negative: Setting[str | None] = None
    negative_2: Setting[str | None] = None

    def __post_init__(self) -> None:
        if varies(self):
            return
        object.__setattr__(self, "scale", finite_number(self.scale, "guidance.scale", SamplerError))
        check_part(self)
