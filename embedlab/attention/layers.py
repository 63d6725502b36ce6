"""The names of a UNet's attention layers, by its config alone: `down.1.0.0` is the first layer of the second block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from embedlab.errors import ConfigError, listed

Kind = Literal["cross", "self"]
TAILS: dict[Kind, str] = {"cross": "attn2", "self": "attn1"}
LONG = {"down": "down_blocks", "up": "up_blocks", "mid": "mid_block"}


@dataclass(frozen=True)
class Layer:
    """One transformer layer of a UNet, which has a self- and a cross-attention.

    name: short, `down.BLOCK.MODULE.LAYER`, `mid.MODULE.LAYER` or `up.BLOCK.MODULE.LAYER`, as diffusers counts them.
    path: where diffusers has it, without the last part, `attn1` (self) or `attn2` (cross).

    >>> Layer("mid.0.0").path
    'mid_block.attentions.0.transformer_blocks.0'
    """

    name: str

    @property
    def path(self) -> str:
        """Its place among the modules of the UNet."""
        *place, module, layer = self.name.split(".")
        return ".".join([LONG[place[0]], *place[1:], "attentions", module, "transformer_blocks", layer])

    def is_in(self, block: str) -> bool:
        """Whether it is this layer, or one of this block or module, by a short name."""
        return f"{self.name}.".startswith(f"{block}.")


def layers_of(config: Mapping[str, Any]) -> list[Layer]:
    """The attention layers of a `UNet2DConditionModel`, in the order in which they run, by its config.

    >>> from embedlab import Source
    >>> [layer.name for layer in layers_of(Source("emoji").part("unet"))]
    ['down.1.0.0', 'down.2.0.0', 'mid.0.0', 'up.0.0.0', 'up.0.1.0']
    """
    down, up = list(config["down_block_types"]), list(config["up_block_types"])
    resnets = _each(config.get("layers_per_block", 2), len(down))
    depths = _each(config.get("transformer_layers_per_block", 1), len(down))
    back = config.get("reverse_transformer_layers_per_block")
    rising = list(reversed(depths)) if back is None else list(back)

    def of(block: str, modules: int, depth: Any) -> list[Layer]:
        each = _each(depth, modules)
        return [Layer(f"{block}.{m}.{n}") for m in range(modules) for n in range(each[m])]

    found = []
    for n, kind in enumerate(down):
        found += of(f"down.{n}", resnets[n], depths[n]) if "CrossAttn" in kind else []
    if "CrossAttn" in str(config.get("mid_block_type", "UNetMidBlock2DCrossAttn")):
        last = depths[-1]
        found += of("mid", 1, last if isinstance(last, int) else last[0])
    for n, kind in enumerate(up):
        found += of(f"up.{n}", resnets[-1 - n] + 1, rising[n]) if "CrossAttn" in kind else []
    return found


def _each(setting: Any, count: int) -> list[Any]:
    return [setting] * count if isinstance(setting, int) else list(setting)


def short_name(name: str) -> str:
    """A block, module or layer by its short name; diffusers' names are understood.

    >>> short_name("up_blocks.0.attentions.1.transformer_blocks.0.attn2"), short_name("mid_block"), short_name("down.1")
    ('up.0.1.0', 'mid', 'down.1')
    """
    parts = [part for part in name.split(".") if part not in ("attentions", "transformer_blocks", "attn1", "attn2")]
    short = {long: brief for brief, long in LONG.items()}
    return ".".join([short.get(parts[0], parts[0]), *parts[1:]]) if parts else name


def chosen(names: Sequence[str] | str | None, layers: Sequence[Layer], setting: str = "layers") -> list[Layer]:
    """Of some layers those that a setting names, by block (`down.1`), module (`down.1.0`) or layer; None is all.

    Raises ConfigError for what none of them is in.

    >>> four = [Layer(name) for name in ("down.1.0.0", "mid.0.0", "up.0.0.0", "up.0.1.0")]
    >>> [layer.name for layer in chosen(["mid", "up.0.1"], four)]
    ['mid.0.0', 'up.0.1.0']
    """
    if names is None:
        return list(layers)
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if not any(layer.is_in(short_name(name)) for layer in layers):
            there = list(dict.fromkeys(block_of(layer) for layer in layers))
            raise ConfigError(
                f"{setting} names '{name}', where this UNet has no cross-attention; its blocks with some are "
                f"{listed(there)}, its layers {listed((layer.name for layer in layers), 12)}."
                if layers
                else f"{setting} names '{name}', and this UNet has no cross-attention layers."
            )
    return [layer for layer in layers if any(layer.is_in(short_name(name)) for name in wanted)]


def block_of(layer: Layer) -> str:
    """The block that a layer is in.

    >>> block_of(Layer("down.1.0.0")), block_of(Layer("mid.0.0"))
    ('down.1', 'mid')
    """
    return layer.name.rsplit(".", 2)[0]


def side_of(places: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a layer that looks from so many places, in a UNet of latents of a size.

    A UNet halves them, rounding up. ConfigError where no level has so many.

    >>> side_of(64, (16, 16)), side_of(15, (12, 20)), side_of(6, (7, 9))
    ((8, 8), (3, 5), (2, 3))
    """
    height, width = size
    while height * width > places and (height > 1 or width > 1):
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != places:
        raise ConfigError(f"latents of {size[0]}×{size[1]} have no level of {places} places.")
    return height, width
