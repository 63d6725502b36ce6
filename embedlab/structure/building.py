"""A source → its parts as modules without weights, each with the inputs that it would get for these pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from embedlab.errors import ModelError, first_line
from embedlab.limits import WINDOW
from embedlab.models import Source

Make = Callable[[], tuple[nn.Module, Mapping[str, Any]]]


class Encode(nn.Module):
    """The half of a VAE that makes latents: mean and log variance of each, where it has both."""

    def __init__(self, vae: Any):
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, getattr(vae, "quant_conv", None)

    def forward(self, pictures: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(pictures)
        return encoded if self.quant_conv is None else self.quant_conv(encoded)


class Decode(nn.Module):
    """The half of a VAE that makes pictures."""

    def __init__(self, vae: Any):
        super().__init__()
        self.post_quant_conv, self.decoder = getattr(vae, "post_quant_conv", None), vae.decoder

    def forward(self, latents: Tensor) -> Tensor:
        pictures: Tensor = self.decoder(latents if self.post_quant_conv is None else self.post_quant_conv(latents))
        return pictures


@dataclass(frozen=True)
class Sizes:
    """What the parts are asked for: pictures of height × width pixels, the rows of a prompt, and which numbers.

    windows: how many windows the text encoders read for `tokens` rows.
    """

    height: int
    width: int
    pictures: int
    guided: bool
    tokens: int
    windows: int
    dtype: torch.dtype

    @property
    def texts(self) -> int:
        """The prompt, and the empty one of guidance."""
        return 2 if self.guided else 1


@contextmanager
def floats(dtype: torch.dtype) -> Iterator[None]:
    """Let new tensors be of this dtype for a while."""
    own = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(own)


def text_encoder(source: Source, name: str) -> Any:
    """A text encoder without weights."""
    kind = CLIPTextModelWithProjection if source.encoder_kind(name) == "CLIPTextModelWithProjection" else CLIPTextModel
    try:
        return kind(CLIPTextConfig.from_dict(source.part(name)))
    except Exception as error:
        raise ModelError(f"the config of the part '{name}' makes no {kind.__name__}: {first_line(error)}") from None


def from_config(source: Source, name: str, kind: Any) -> Any:
    """The UNet or the VAE without weights."""
    try:
        return kind.from_config(source.part(name))
    except Exception as error:
        raise ModelError(f"the config of the part '{name}' makes no {kind.__name__}: {first_line(error)}") from None


def unet(source: Source) -> Any:
    """The UNet without weights."""
    return from_config(source, "unet", UNet2DConditionModel)


def vae(source: Source) -> Any:
    """The VAE without weights."""
    tiny = source.part("vae").get("_class_name") == "AutoencoderTiny"
    return from_config(source, "vae", AutoencoderTiny if tiny else AutoencoderKL)


def unet_rows(source: Source, sizes: Sizes) -> int:
    """Pictures that the UNet sees in a call: guidance doubles them, unless it was taught the scale as a number."""
    return sizes.pictures if source.part("unet").get("time_cond_proj_dim") else sizes.pictures * sizes.texts


def unet_inputs(source: Source, sizes: Sizes) -> dict[str, Any]:
    """Latents, timestep and hidden states as the guided loop hands them over; SDXL's pooled text and sizes, too."""
    rows, config = unet_rows(source, sizes), source.part("unet")
    high, wide = sizes.height // source.factor, sizes.width // source.factor
    inputs: dict[str, Any] = {
        "sample": torch.empty(rows, config["in_channels"], high, wide),
        "timestep": torch.empty(()),
        "encoder_hidden_states": torch.empty(rows, sizes.tokens, sum(source.widths)),
        "return_dict": False,
    }
    if taught := config.get("time_cond_proj_dim"):
        inputs["timestep_cond"] = torch.empty(rows, taught)
    if config.get("addition_embed_type") == "text_time":
        pooled = source.part(source.encoders[-1]).get("projection_dim", 512)
        inputs["added_cond_kwargs"] = {"text_embeds": torch.empty(rows, pooled), "time_ids": torch.empty(rows, 6)}
    return inputs


def parts_of(source: Source, sizes: Sizes) -> Iterator[tuple[str, str, int, torch.dtype, Make]]:
    """Every part: its name and class, the rows of one call, its dtype, and how it is made with its inputs.

    The VAE is float32 whatever the others are, as `Source.load` reads it.
    """
    for name in source.encoders:
        rows = sizes.windows * sizes.texts
        yield name, source.encoder_kind(name), rows, sizes.dtype, partial(text_and_ids, source, name, rows)
    rows = unet_rows(source, sizes)
    yield "unet", "UNet2DConditionModel", rows, sizes.dtype, lambda: (unet(source), unet_inputs(source, sizes))
    kind = source.part("vae").get("_class_name", "AutoencoderKL")
    for half, make in (("encoder", pictures_in), ("decoder", latents_in)):
        yield f"vae.{half}", kind, sizes.pictures, torch.float32, partial(make, source, sizes)


def text_and_ids(source: Source, name: str, rows: int) -> tuple[nn.Module, Mapping[str, Any]]:
    """A text encoder, and windows of ids."""
    return text_encoder(source, name), {"input_ids": torch.zeros(rows, WINDOW, dtype=torch.long)}


def pictures_in(source: Source, sizes: Sizes) -> tuple[nn.Module, Mapping[str, Any]]:
    """Pictures → latents, and such pictures."""
    channels = source.part("vae").get("in_channels", 3)
    return Encode(vae(source)), {"pictures": torch.empty(sizes.pictures, channels, sizes.height, sizes.width)}


def latents_in(source: Source, sizes: Sizes) -> tuple[nn.Module, Mapping[str, Any]]:
    """Latents → pictures, and such latents."""
    high, wide = sizes.height // source.factor, sizes.width // source.factor
    channels = source.config_value("vae", "latent_channels")
    return Decode(vae(source)), {"latents": torch.empty(sizes.pictures, channels, high, wide)}
