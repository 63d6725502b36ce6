"""What is asked of the sampler and what comes out: a picture that is wanted, a sample, the pictures of a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedlab.attention.maps import Maps, stacked
from embedlab.cell import Cell
from embedlab.condition import CallConditioning
from embedlab.errors import listed
from embedlab.guidance import Layout

RowsByCall = tuple[tuple[int, int, tuple[int, ...]], ...]  # (calls, rows of each, places of one picture's among them)


@dataclass(frozen=True)
class Request:
    """A picture that is asked for: what each of its UNet calls is conditioned on, and its seed."""

    conditioning: Sequence[CallConditioning]
    seed: int

    @property
    def cell(self) -> Cell:
        """The cell of its first call; sampler, start and size are those of all."""
        return self.conditioning[0].cell


@dataclass(frozen=True)
class Sample:
    """One picture as it came out: in [0, 1], its final latents, and the steps that were kept (number, latents, x0).

    `batch` is its place in the batch and the size of that; `rows` says the same of the rows of the UNet, where some
    were shared: (calls, rows, places of its own among them), one after the other. With both it can be made again to the
    bit where `runtime` is the same.
    """

    picture: Float[Tensor, "3 height width"]
    latents: Float[Tensor, "c h w"]
    steps: tuple[tuple[int, Float[Tensor, "3 height width"], Float[Tensor, "3 height width"] | None], ...] = ()
    batch: tuple[int, int] = (0, 1)
    runtime: Mapping[str, Any] = field(default_factory=dict)  # what bits depend on beside: `runtime_of`
    maps: Maps | None = None  # where each word was looked at, if that was asked for
    rows: RowsByCall = ()
    broke: int | None = None  # the step after which its latents first held NaN or infinity
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # figures of the steps that `step` lists
    tensors: Mapping[str, Float[Tensor, "c h w"]] = field(default_factory=dict)  # what `Sampler.watch` named, by step
    figures: Mapping[str, float] = field(default_factory=dict)  # of its start: how well a picture was inverted

    @property
    def finite(self) -> bool:
        """Whether all of its numbers are."""
        return bool(torch.isfinite(self.latents).all())


@dataclass(frozen=True)
class Step:
    """A step that was kept, decoded: the latents after it and the picture that the model saw in them.

    Step -1 is the start, in which nothing was seen yet.
    """

    step: int
    latents: Float[Tensor, "image 3 height width"]
    x0: Float[Tensor, "image 3 height width"] | None


@dataclass(frozen=True)
class Rendered:
    """What became of a cell: pictures in [0, 1] and final latents by seed, and the conditioning of each UNet call.

    `maps` says where each word was looked at, an image a seed, where `Attention.maps` asked for it.
    """

    cell: Cell
    seeds: tuple[int, ...]
    pictures: Float[Tensor, "image 3 height width"]
    latents: Float[Tensor, "image c h w"]
    conditioning: tuple[CallConditioning, ...]
    steps: tuple[Step, ...] = ()
    batches: tuple[tuple[int, int], ...] = ()
    runtimes: tuple[Mapping[str, Any], ...] = ()
    maps: Maps | None = None
    rows: tuple[RowsByCall, ...] = ()
    curves: tuple[Mapping[str, tuple[float, ...]], ...] = ()
    tensors: tuple[Mapping[str, Float[Tensor, "c h w"]], ...] = ()
    figures: tuple[Mapping[str, float], ...] = ()


def stack_samples(
    cell: Cell, seeds: Sequence[int], samples: Sequence[Sample], conditioning: tuple[CallConditioning, ...]
) -> Rendered:
    """The pictures of a cell, put together."""
    steps = tuple(
        Step(
            shots[0][0],
            torch.stack([latents for _, latents, _ in shots]),
            torch.stack([x0 for _, _, x0 in shots if x0 is not None]) if shots[0][2] is not None else None,
        )
        for shots in zip(*(one.steps for one in samples), strict=True)
    )
    pictures, latents = torch.stack([s.picture for s in samples]), torch.stack([s.latents for s in samples])
    batches, runtimes = tuple(s.batch for s in samples), tuple(s.runtime for s in samples)
    maps = stacked([s.maps for s in samples if s.maps is not None])
    rows = tuple(s.rows for s in samples)
    watched = tuple(s.curves for s in samples), tuple(s.tensors for s in samples)
    figures = tuple(s.figures for s in samples)
    many = batches, runtimes, maps, rows, *watched, figures
    return Rendered(cell, tuple(seeds), pictures, latents, conditioning, steps, *many)


def not_finite(sample: Sample, request: Request) -> str:
    """What to say of a picture whose latents are not finite: which, from which step on, and how to go on."""
    step = "" if sample.broke is None else f" from step {sample.broke} on"
    cells = [one.cell for one in request.conditioning]  # of each call: an edit may come late
    edits = listed(dict.fromkeys(cell.label for cell in cells if cell.operators) or [cells[0].label], 3)
    return (
        f"the latents of seed {request.seed} hold NaN or infinite numbers{step} ({edits}); "
        "try float32 or a lower guidance.scale."
    )


def rows_by_call(layouts: Sequence[Layout], image: int) -> RowsByCall:
    """Where the rows of one picture stand in the UNet calls that it has any in; nothing where all pictures have as many
    of their own, so that its place in the batch says it.

    >>> shared, alone = Layout(4, 3, ((0, 1), (0, 2))), Layout(4, 4, ((0, 2), (1, 3)))
    >>> rows_by_call([shared, alone, alone], 1), rows_by_call([alone], 1)
    (((1, 3, (0, 2)), (2, 4, (1, 3))), ())
    """
    if all(one.even for one in layouts):
        return ()
    same = groupby((one.rows, one.places[image]) for one in layouts if one.places[image])
    return tuple((len(list(calls)), rows, places) for (rows, places), calls in same)
