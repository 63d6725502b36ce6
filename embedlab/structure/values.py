"""What there is to know of a model's inside, as values: layers, parts, components, and what a picture costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One module of a part, with all that is inside it.

    name: the path from the pipeline, such as `unet.down_blocks.0.resnets.0.conv1`. kind: its class. depth: 0 for the
    part itself. input, output: shapes of the first tensor that goes in and comes out; empty for a list of modules,
    which is never called itself. kernel, stride: of a convolution. flops: of matrix products, convolutions and
    attention, as torch counts them (two for a multiply-add; norms and activation functions are left out).
    own_parameters, own_flops: those of no module inside it. weights: their bytes. activations: bytes of all outputs of
    the layers within it.
    """

    name: str
    kind: str
    depth: int
    input: Shape
    output: Shape
    kernel: Shape
    stride: Shape
    parameters: int
    own_parameters: int
    flops: int
    own_flops: int
    weights: int
    activations: int

    @property
    def multiply_adds(self) -> int:
        """Half of the FLOPs: each is a product and a sum."""
        return self.flops // 2


@dataclass(frozen=True)
class Part:
    """A text encoder, the UNet or one half of the VAE, at the sizes that were asked for.

    layers: in the order in which they are called, the part itself first. rows: how many texts or pictures go through it
    in one call. peak: the most bytes of activations that are alive at once in such a call, beside the weights; what
    kernels take for themselves is not in it. called: how often it is called for the pictures; the VAE's encoder is not,
    because pictures begin at noise.
    """

    name: str
    kind: str
    dtype: str
    rows: int
    called: int
    peak: int
    layers: tuple[Layer, ...] = field(repr=False)

    @property
    def whole(self) -> Layer:
        """The part as one layer: its totals."""
        return self.layers[0]

    def to_depth(self, depth: int) -> tuple[Layer, ...]:
        """The layers down to a depth."""
        return tuple(layer for layer in self.layers if layer.depth <= depth)


@dataclass(frozen=True)
class File:
    """A file of a component: bytes on disk, the dtypes of its tensors, the SHA-256 of its content."""

    path: Path
    bytes: int
    dtype: str
    sha256: str


@dataclass(frozen=True)
class Component:
    """What a pipeline is made of, as its `model_index.json` lists it, with the files that are there."""

    name: str
    library: str
    kind: str
    files: tuple[File, ...] = ()

    @property
    def bytes(self) -> int:
        """Its size on disk."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer: how many entries it has, how long a window is, and its special tokens with their ids."""

    name: str
    kind: str
    entries: int
    window: int
    special: Mapping[str, tuple[str, int]]
