"""What a text-to-image model is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPVisionModelWithProjection

from embedlab.clip import Tower
from embedlab.models.fits import beside_latents


@dataclass(frozen=True)
class Scorer:
    """A pair of CLIP towers for scores: any image encoder with the text encoder it was trained with."""

    text: Tower
    image: CLIPVisionModelWithProjection
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's; each model's preprocessor says its own
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Model:
    """All parts of a text-to-image model that embedlab works with; `load` gives one.

    `scheduler` is the config of the scheduler that the model was trained with, `scorer` the CLIP model that looks at
    pictures. `zero_negative`: without a negative prompt, the unconditional half is zeros and not the empty prompt.

    >>> from embedlab import load
    >>> model = load("emoji")
    >>> model.name, model.scheduler["prediction_type"], model.zero_negative
    ('emoji', 'v_prediction', False)
    """

    name: str
    towers: tuple[Tower, ...]
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: dict[str, Any] = field(repr=False)
    zero_negative: bool = False
    scorer: Scorer | None = None
    concepts: tuple[str, ...] = ()  # the things that a small model draws
    words: tuple[str, ...] = ()  # all the words that it was trained on
    engine: str = "eager"  # what runs its UNet: `embedlab.engines`
    eye_folder: Path | None = None  # its detector of objects, which is read when it is asked for

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.unet.device
        return device

    @property
    def factor(self) -> int:
        """How many pixels a latent spans, a side."""
        return 1 << (len(self.vae.config.block_out_channels) - 1)

    @property
    def beside(self) -> str | None:
        """What the UNet takes beside latents: `mask` with the masked picture, a map of `depth`, or nothing."""
        return beside_latents(self.unet.config, self.vae.config)

    @property
    def size(self) -> int:
        """The side of the pictures that it was trained on, in pixels."""
        latents: int = self.unet.config.sample_size
        return latents * self.factor

    @property
    def levels(self) -> int:
        """How often the UNet halves a picture, and once more."""
        return len(self.unet.config.block_out_channels)

    @property
    def size_conditioned(self) -> bool:
        """Whether the UNet is told picture sizes and a pooled text, as SDXL's is."""
        return bool(self.unet.config.addition_embed_type == "text_time")
