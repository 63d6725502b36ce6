"""What is asked of the sampler and what comes out: a picture that is wanted, a sample, the pictures of a cell."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from embedlab.attention.maps import Maps, stacked
from embedlab.attention.overlay import overlaid
from embedlab.cell import Cell
from embedlab.condition import CallConditioning
from embedlab.display import Html, Picture, Shown, block, grid, short
from embedlab.errors import counted, listed
from embedlab.guidance import Layout
from embedlab.images import sheet, to_pil
from embedlab.prompt import shown_text

STRIP = 8  # pictures of a PNG
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
class Sample(Shown):
    """One picture as it came out: in [0, 1], its final latents, and the steps that were kept (number, latents, x0).

    `batch` is its place in the batch and the size of that, and where attention is copied from fewer sources than there
    are pictures, which of how many is its own; `rows` says the same of the rows of the UNet, where some
    were shared: (calls, rows, places of its own among them, and behind these of its source's), one after the other.
    With both it can be made again to the bit where `runtime` is the same.
    """

    picture: Float[Tensor, "3 height width"]
    latents: Float[Tensor, "c h w"]
    steps: tuple[tuple[int, Float[Tensor, "3 height width"], Float[Tensor, "3 height width"] | None], ...] = ()
    batch: tuple[int, ...] = (0, 1)
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
class Step(Shown):
    """A step that was kept, decoded: the latents after it and the picture that the model saw in them.

    Step -1 is the start, in which nothing was seen yet.
    """

    step: int
    latents: Float[Tensor, "image 3 height width"]
    x0: Float[Tensor, "image 3 height width"] | None

    def _repr_html_(self) -> str:
        rows = {"latents": self.latents, "what the model saw": self.x0}
        kept = {name: one for name, one in rows.items() if one is not None}
        name = "the start" if self.step < 0 else f"step {self.step}"
        return block(name, grid([pictured(one) for one in kept.values()], (), list(kept)))


@dataclass(frozen=True)
class Rendered(Shown):
    """What became of a cell: pictures in [0, 1] and final latents by seed, and the conditioning of each UNet call.

    `maps` says where each word was looked at, an image a seed, where `Attention.maps` asked for it.
    """

    cell: Cell
    seeds: tuple[int, ...]
    pictures: Float[Tensor, "image 3 height width"]
    latents: Float[Tensor, "image c h w"]
    conditioning: tuple[CallConditioning, ...]
    steps: tuple[Step, ...] = ()
    batches: tuple[tuple[int, ...], ...] = ()
    runtimes: tuple[Mapping[str, Any], ...] = ()
    maps: Maps | None = None
    rows: tuple[RowsByCall, ...] = ()
    curves: tuple[Mapping[str, tuple[float, ...]], ...] = ()
    tensors: tuple[Mapping[str, Float[Tensor, "c h w"]], ...] = ()
    figures: tuple[Mapping[str, float], ...] = ()
    before: Rendered | None = None  # the same without its edit, where it was rendered beside it

    def __repr__(self) -> str:
        high, wide = self.pictures.shape[-2:]
        of = f"{counted(len(self.pictures), 'picture')} of {wide} × {high}"
        more = ", with those before" if self.before is not None else ""
        seeds = f"seeds {listed(self.seeds, 8)}"
        return f"Rendered({short(self.cell.text, 80)}, {short(self.cell.label, 80)}, {of}, {seeds}{more})"

    def _repr_html_(self) -> str:
        heads = [f"seed {seed}" for seed in self.seeds]
        rows = {self.cell.label: self.pictures}
        if self.before is not None:
            rows = {self.before.cell.label: self.before.pictures, **rows}
        several = len(rows) > 1
        shown = grid([pictured(one) for one in rows.values()], heads, list(rows) if several else ())
        high, wide = self.pictures.shape[-2:]
        sampler = self.cell.sampler
        note = f"{self.cell.label}; {wide} × {high} pixels, {sampler.scheduler}, {counted(sampler.steps, 'step')}"
        return block(shown_text(self.cell.text), shown, self._steps(), self._maps(), note=note)

    def _repr_png_(self) -> bytes:
        heads = [f"seed {seed}" for seed in self.seeds[:STRIP]]
        rows = {self.cell.label: self.pictures[:STRIP]}
        if self.before is not None:
            rows = {self.before.cell.label: self.before.pictures[:STRIP], **rows}
        return as_png(sheet([to_pil(one) for one in rows.values()], heads, list(rows), self.cell.text))

    def _steps(self, most: int = 12) -> Html:
        """What the model saw in the first picture, in the steps that were kept."""
        kept = [step for step in self.steps if step.x0 is not None]
        kept = [kept[round(n * (len(kept) - 1) / (most - 1))] for n in range(most)] if len(kept) > most else kept
        cells = [pictured(step.x0[:1])[0] for step in kept if step.x0 is not None]
        return grid([cells], [f"step {step.step}" for step in kept], [f"seed {self.seeds[0]}"], 96) if kept else Html()

    def _maps(self) -> Html:
        """Where each word was looked at, laid over the pictures."""
        if self.maps is None:
            return Html()
        few = range(min(len(self.seeds), 8))
        images = to_pil(self.pictures[: len(few)])
        cells = [[Picture(overlaid(images[n], self.maps.heat[n, w])) for n in few] for w in range(len(self.maps.words))]
        return grid(cells, [f"seed {self.seeds[n]}" for n in few], list(self.maps.words), 96)


def pictured(pictures: Float[Tensor, "image 3 height width"]) -> list[Picture]:
    """Pictures in [0, 1] for a display."""
    return [Picture(image) for image in to_pil(pictures.detach().float().cpu().clamp(0, 1))]


def as_png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG."""
    data = io.BytesIO()
    image.save(data, format="PNG")
    return data.getvalue()


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
    loss = any(cell.guidance.loss is not None for cell in cells)
    return (
        f"the latents of seed {request.seed} hold NaN or infinite numbers{step} ({edits}); "
        f"try float32, a lower guidance.scale{' or a lower guidance.loss.scale' if loss else ''}."
    )


def rows_by_call(layouts: Sequence[Layout], image: int, source: int | None = None) -> RowsByCall:
    """Where the rows of one picture stand in the UNet calls that it has any in, and behind them those of the `source`
    that its attention is copied from; nothing where all pictures have as many of their own, so that its place in the
    batch says it.

    >>> shared, alone = Layout(4, 3, ((0, 1), (0, 2))), Layout(4, 4, ((0, 2), (1, 3)))
    >>> rows_by_call([shared, alone, alone], 1), rows_by_call([alone], 1)
    (((1, 3, (0, 2)), (2, 4, (1, 3))), ())
    """
    if all(one.even for one in layouts):
        return ()
    same = groupby((one.rows, one.of(image, source)) for one in layouts if one.places[image])
    return tuple((len(list(calls)), rows, places) for (rows, places), calls in same)
