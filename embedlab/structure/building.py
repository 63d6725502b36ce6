"""A source → its parts as modules without weights, each with the inputs that it would get for these pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from embedlab.errors import ModelError, first_line
from embedlab.limits import WINDOW
from embedlab.models import Source
from embedlab.models.fits import vae_kind
from embedlab.models.parts import Decode, Encode


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


@dataclass(frozen=True)
class Design:
    """A part that is not built yet: its name and class, the rows of one call, its dtype, how it is built, with which
    inputs it is called, and the config from which it is built.
    """

    name: str
    kind: str
    rows: int
    dtype: torch.dtype
    build: Callable[[], nn.Module]
    inputs: Callable[[], Mapping[str, Any]]
    config: Mapping[str, Any]

    def built(self) -> tuple[nn.Module, Mapping[str, Any]]:
        """The part and its inputs."""
        return self.build(), self.inputs()

    @property
    def key(self) -> tuple[Any, ...]:
        """What its layers are a function of: two designs with the same key have the same."""
        with torch.device("meta"):
            shapes = [tuple(leaf.shape) for leaf in tree_leaves(self.inputs()) if isinstance(leaf, Tensor)]
        return self.name, self.kind, self.dtype, tuple(shapes), json.dumps(self.config, sort_keys=True, default=str)


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
    return from_config(source, "vae", vae_kind(source.part("vae")))


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


def parts_of(source: Source, sizes: Sizes) -> Iterator[Design]:
    """Every part of a model, text encoders first; the VAE is float32 in every model, as `Source.load` reads it."""
    for name in source.encoders:
        rows = sizes.windows * sizes.texts
        build = partial(text_encoder, source, name)
        ids = partial(windows_of_ids, rows)
        yield Design(name, source.encoder_kind(name), rows, sizes.dtype, build, ids, source.part(name))
    yield Design(
        "unet",
        "UNet2DConditionModel",
        unet_rows(source, sizes),
        sizes.dtype,
        partial(unet, source),
        partial(unet_inputs, source, sizes),
        source.part("unet"),
    )
    config = source.part("vae")
    kind = config.get("_class_name", "AutoencoderKL")
    high, wide = sizes.height // source.factor, sizes.width // source.factor
    pictures = sizes.pictures, config.get("in_channels", 3), sizes.height, sizes.width
    latents = sizes.pictures, source.config_value("vae", "latent_channels"), high, wide
    for half, part, name, shape in (
        ("encoder", Encode, "pictures", pictures),
        ("decoder", Decode, "latents", latents),
    ):
        build = partial(half_of, part, source)
        given = partial(one_input, name, shape)
        yield Design(f"vae.{half}", kind, sizes.pictures, torch.float32, build, given, config)


def windows_of_ids(rows: int) -> dict[str, Tensor]:
    """What a text encoder reads."""
    return {"input_ids": torch.zeros(rows, WINDOW, dtype=torch.long)}


def half_of(half: Callable[[Any], nn.Module], source: Source) -> nn.Module:
    """One half of the VAE."""
    return half(vae(source))


def one_input(name: str, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """What a half of the VAE reads."""
    return {name: torch.empty(shape)}
