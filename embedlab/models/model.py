"""What a text-to-image model is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPVisionModelWithProjection

from embedlab.arguments import check_fields
from embedlab.clip import Tower
from embedlab.display import Shown, block, facts, short, table
from embedlab.errors import ModelError, brief, counted, listed
from embedlab.models.fits import beside_latents


@dataclass(frozen=True)
class Scorer(Shown):
    """A pair of CLIP towers for scores: any image encoder with the text encoder it was trained with."""

    text: Tower
    image: CLIPVisionModelWithProjection
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's; each model's preprocessor says its own
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Model(Shown):
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
    source: Any = field(default=None, repr=False, compare=False)  # the Source that it was read from

    def __post_init__(self) -> None:
        check_fields(self, but=("unet", "vae"))
        for name in ("unet", "vae"):  # another may stand in for each: one that an engine runs, or somebody's own
            if not hasattr(part := getattr(self, name), "config") or isinstance(part, type):
                raise ModelError(f"{name} is {brief(part)}; it has to be that of diffusers, or what does the same.")

    def __repr__(self) -> str:
        encoders = counted(len(self.towers), "text encoder")
        by = "" if self.engine == "eager" else f", by {self.engine}"
        return f"Model({short(self.name)}, {encoders}, {self.size} pixels, {self.unet.dtype} on {self.device}{by})"

    def _repr_html_(self) -> str:
        parts = [(f"text encoder {n}", tower.encoder) for n, tower in enumerate(self.towers, 1)]
        parts = [("text encoder", self.towers[0].encoder)] if len(parts) == 1 else parts
        parts += [("UNet", self.unet), ("VAE", self.vae)]
        parts += [("image encoder, for scores", self.scorer.image)] if self.scorer is not None else []
        rows = [(name, type(part).__name__, *sizes_of(part)) for name, part in parts]
        heads = ("part", "class", "parameters", "bytes", "dtype")
        about = {
            "pictures": f"{self.size} × {self.size} pixels; a latent spans {self.factor} × {self.factor} of them",
            "predicts": self.scheduler.get("prediction_type"),
            "beside latents": self.beside,
            "concepts": listed(self.concepts, 12),
        }
        return block(self.name, table(heads, rows, heads[2:4]), facts(about), note=f"{self.engine} on {self.device}")

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


def sizes_of(part: Any) -> tuple[str, str, str]:
    """Parameters, bytes and number type of a module, as texts; dashes where an engine runs it and shows none."""
    if not isinstance(part, torch.nn.Module):
        return "–", "–", str(getattr(part, "dtype", "–")).removeprefix("torch.")
    many = list(part.parameters())
    held = sum(one.numel() * one.element_size() for one in many)
    kinds = sorted({str(one.dtype).removeprefix("torch.") for one in many})
    return f"{sum(one.numel() for one in many):,}", f"{held / 1e6:,.1f} MB", ", ".join(kinds)
