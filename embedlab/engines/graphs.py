"""What an engine is given: parts of a model as functions of named tensors, exported once for all engines.

`torch.export` gives one graph (ATen operators, dynamic in pictures, latents and rows of text), and each engine takes it
from there. Edited rows of text are an input of it, so that operators act outside of the graph, in one place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from embedlab.engines.onnx_file import exporter_silent
from embedlab.errors import EngineError, first_line
from embedlab.limits import WINDOW

# axes by input that may have another length in another call
AXES = {
    "sample": (0, 2, 3),
    "timestep": (),
    "encoder_hidden_states": (0, 1),
    "encoder_attention_mask": (0, 1),
    "timestep_cond": (0,),
    "text_embeds": (0,),
    "time_ids": (0,),
    "latents": (0, 2, 3),
    "rows": (0, 1),
}
ROWS = 63  # the most rows of one call: at 64 diffusers' upsampling takes another way, which a graph cannot


@dataclass(frozen=True)
class Graph:
    """A module with tensors that it may be called with, by name in the order of its arguments.

    `part` is what it is of a model: `unet`, `vae.decoder`, `text_encoder` or `text_encoder_2`. `fixed`: it holds for
    latents of this size alone.
    """

    part: str
    module: Any
    inputs: Mapping[str, Tensor]
    fixed: bool = False

    @property
    def axes(self) -> dict[str, tuple[int, ...]]:
        """By input the axes that may have another length in another call."""
        return {name: tuple(axis for axis in AXES[name] if axis < 2 or not self.fixed) for name in self.inputs}

    @cached_property
    def content(self) -> str:
        """A hash of the module, made once for all engines that are considered."""
        return content_of(self.module)

    @property
    def names(self) -> tuple[str, ...]:
        """What its inputs are called, in their order."""
        return tuple(self.inputs)

    def output_shape(self, inputs: Mapping[str, Tensor]) -> tuple[int, ...]:
        """The shape that comes out of these inputs."""
        first = next(iter(inputs.values()))
        if self.part.startswith("text_encoder"):
            return (len(first), len(self.module.core.encoder.layers) + 2, *first.shape[1:])
        rows, _, height, width = first.shape
        if self.part == "unet":
            return (rows, self.module.unet.config.out_channels, height, width)
        return (rows, 3, height * self.module.factor, width * self.module.factor)

    def export(self) -> torch.export.ExportedProgram:
        """The graph of it, which holds for other pictures, sizes and lengths, too.

        Raises EngineError with the operator that cannot be exported.
        """
        # a length of 1 would be taken for a constant, so the graph is made of two of each
        inputs = tuple(
            value.repeat_interleave(2, 0) if 0 in AXES[name] and len(value) == 1 else value
            for name, value in self.inputs.items()
        )
        shapes = (tuple(dict.fromkeys(axes, Dim.AUTO) for axes in self.axes.values()),)
        try:
            with torch.no_grad(), exporter_silent():
                return torch.export.export(InARow(self.module), inputs, dynamic_shapes=shapes)
        except Exception as error:
            raise EngineError(f"the {self.part} cannot be exported by torch.export: {first_line(error)}") from error


class InARow(nn.Module):
    """A module whose inputs have no names, so that all are exported alike."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *tensors: Tensor) -> Tensor:
        """What the module makes of them."""
        out: Tensor = self.module(*tensors)
        return out


def content_of(module: nn.Module) -> str:
    """A hash of a module's weights, their names and types, and of its configuration.

    >>> content_of(nn.Linear(2, 2)) == content_of(nn.Linear(2, 2))
    False
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    for name, one in module.named_modules():
        config = getattr(one, "config", None) or {}
        settings = config.to_dict() if hasattr(config, "to_dict") else dict(config)  # transformers' are no mappings
        public = {key: settings[key] for key in sorted(settings) if not key.startswith("_")}  # others hold sets
        digest.update(f"{name} {type(one).__qualname__} {public}".encode())
    return digest.hexdigest()


def in_parts(run: Callable[[dict[str, Tensor]], Tensor]) -> Callable[[dict[str, Tensor]], Tensor]:
    """The same for any number of rows, of a function that holds for 2 to `ROWS` of them."""

    def cut(inputs: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
        return {name: value[rows] if 0 in AXES[name] else value for name, value in inputs.items()}

    def whole(inputs: dict[str, Tensor]) -> Tensor:
        rows = len(next(iter(inputs.values())))
        if rows == 1:
            two = {name: v.repeat_interleave(2, 0) if 0 in AXES[name] else v for name, v in inputs.items()}
            return run(two)[:1]
        many = -(-rows // ROWS)
        if many == 1:
            return run(inputs)
        step = -(-rows // many)
        return torch.cat([whole(cut(inputs, slice(k, k + step))) for k in range(0, rows, step)])

    return whole


def unet_inputs(
    sample: Tensor,
    timestep: Tensor,
    encoder_hidden_states: Tensor,
    encoder_attention_mask: Tensor | None = None,
    timestep_cond: Tensor | None = None,
    added_cond_kwargs: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The tensors of a call of diffusers' UNet by name, without those that are None; the timestep as float32, (), .

    >>> list(unet_inputs(torch.zeros(1, 4, 8, 8), torch.tensor(3), torch.zeros(1, 77, 8)))
    ['sample', 'timestep', 'encoder_hidden_states']
    """
    named = {
        "sample": sample.contiguous(),
        "timestep": torch.as_tensor(timestep).to(sample.device, torch.float32).reshape(()),
        "encoder_hidden_states": encoder_hidden_states,
        "encoder_attention_mask": encoder_attention_mask,
        "timestep_cond": timestep_cond,
        **(added_cond_kwargs or {}),
    }
    return {name: value for name, value in named.items() if value is not None}


def noise_for(unet: Any, rows: int, sides: tuple[int, int], tokens: int = WINDOW) -> dict[str, Tensor]:
    """What a UNet takes, by name, filled with noise of a fixed seed: latents of (height, width), rows of text, and what
    it was taught besides.
    """
    random, config = torch.Generator().manual_seed(0), unet.config

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(unet.device, unet.dtype)

    more: dict[str, Any] = {}
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        more["added_cond_kwargs"] = {"text_embeds": noise(rows, pooled), "time_ids": noise(rows, 6)}
    if config.time_cond_proj_dim:
        more["timestep_cond"] = noise(rows, config.time_cond_proj_dim)
    text = noise(rows, tokens, config.cross_attention_dim)
    return unet_inputs(noise(rows, config.in_channels, *sides), torch.tensor(500), text, **more)
