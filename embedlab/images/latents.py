"""Latents ↔ pictures, by a VAE."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.checks import whole_number
from embedlab.errors import ModelError, SamplerError, brief


def to_unet(latents: Float[Tensor, "image c h w"], vae: Any) -> Float[Tensor, "image c h w"]:
    """Latents as a VAE makes them → scaled, as its UNet works on them."""
    factor: float = vae.config.scaling_factor
    moments = _moments(vae, latents)
    return latents * factor if moments is None else (latents - moments[0]) * factor / moments[1]


def to_vae(latents: Float[Tensor, "image c h w"], vae: Any) -> Float[Tensor, "image c h w"]:
    """Scaled latents → as their VAE decodes them."""
    factor: float = vae.config.scaling_factor
    moments = _moments(vae, latents)
    return latents / factor if moments is None else latents * moments[1] / factor + moments[0]


def _moments(vae: Any, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of the latents a channel, where a VAE's config says them."""
    configured = [vae.config.get(f"latents_{name}") for name in ("mean", "std")]
    if None in configured:
        return None
    mean, std = (torch.tensor(list(values)).view(-1, 1, 1).to(like) for values in configured)
    return mean, std


def vae_of(given: Any) -> Any:
    """An autoencoder: itself, or that of a model or a diffusers pipeline; ModelError for what has none."""
    found = getattr(given, "vae", given)
    if not all(hasattr(found, name) for name in ("encode", "decode", "config", "dtype")) or isinstance(found, type):
        raise ModelError(f"vae is {brief(given)}; a model (lab.load), model.vae or a diffusers pipeline will do.")
    return found


def decode(latents: Float[Tensor, "image c h w"], vae: Any, at_once: int = 4) -> Float[Tensor, "image 3 height width"]:
    """Scaled latents → pictures in [0, 1], float32 on the CPU. A model or a diffusers pipeline stands for its VAE.

    Raises SamplerError for latents of another number of channels, ModelError for what has no VAE.

    >>> from embedlab import load
    >>> with torch.inference_mode():
    ...     decode(torch.zeros(1, 8, 8, 8), load("emoji")).shape
    torch.Size([1, 3, 64, 64])
    """
    vae = vae_of(vae)
    channels = vae.config.latent_channels
    if not isinstance(latents, Tensor) or latents.ndim != 4 or latents.shape[1] != channels:
        came = f"a tensor of shape {tuple(latents.shape)}" if isinstance(latents, Tensor) else brief(latents)
        raise SamplerError(f"latents is {came}; this model's are (image, {channels}, height, width).")
    at_once = whole_number(at_once, "at_once", SamplerError, least=1, of=" of pictures")
    latents = to_vae(latents, vae).to(vae.device, vae.dtype)
    pictures = [vae.decode(part, return_dict=False)[0] for part in latents.split(min(at_once, max(len(latents), 1)))]
    return torch.cat(pictures).float().add(1).div(2).clamp(0, 1).cpu()
